import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Errno, errnoOf, StorageError } from '../../src/base/errors.ts';
import type { BlockDevice } from '../../src/block/block-device.ts';
import { LunOp, LunRequest } from '../../src/block/lun-backend.ts';
import { Catalogue } from '../../src/thin/catalogue.ts';
import { newUuid } from '../../src/thin/identity.ts';
import { Pool } from '../../src/thin/pool.ts';
import type { PoolEngine } from '../../src/thin/pool-engine.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import type { PoolMode } from '../../src/thin/pool-mode.ts';
import { DEFAULT_POOL_OPTIONS, type PoolOptions } from '../../src/thin/pool-options.ts';
import type { ThinDevice } from '../../src/thin/thin-device.ts';
import { RecordedFolder } from '../support/recorded-folder.ts';
import { RecordingDevice, type Timeline } from '../support/recording-device.ts';
import { fillSector, SECTOR_WORDS } from '../support/sector-stamp.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { SimulatedDevice } from '../support/simulated-device.ts';
import { ManualClock } from '../thin/pool-fixture.ts';
import { PoolExpectation } from './pool-expectation.ts';
import { findWrongSectors, verifyPool } from './verify-pool.ts';

const SECTOR = 512;
/** Turns of the event loop without an answer after which time goes on. */
const PATIENCE_TURNS = 24;
/** Seconds without an answer after which a request hangs: well beyond every timeout. */
const HANG_SECONDS = 300;

export interface SimulatedPoolOptions {
  seed: number;
  blockSizeBytes?: number;
  dataBlocks?: number;
  metadataBlocks?: number;
  /** Records devices and folder, for crashes. */
  recorded?: boolean;
  /** What discarded blocks read as: on a device, anything. */
  discardFill?: number;
  wrapMetadata?: (device: BlockDevice) => BlockDevice;
  wrapData?: (device: BlockDevice) => BlockDevice;
  /** Errors other than ENOSPC may be answered. */
  anyError?: boolean;
  pool?: Partial<PoolOptions>;
}

/** Something that the model was told, and when. */
export interface ToldEvent {
  readonly at: number;
  readonly tell: (expectation: PoolExpectation) => void;
}

/** A pool on a simulated machine beside the model of what it promises: every call goes to both, and every answer is judged. */
export class SimulatedPool {
  readonly dir: string;
  readonly timeline: Timeline = { now: 0 };
  readonly clock: ManualClock = new ManualClock();
  readonly expectation: PoolExpectation = new PoolExpectation();
  /** All that the model was told, in order; only when recorded. */
  readonly told: ToldEvent[] = [];
  readonly metadataMemory: SimulatedDevice;
  readonly dataMemory: SimulatedDevice;
  /** What the pool has: the devices above, wrapped. */
  readonly metadataDevice: BlockDevice;
  readonly dataDevice: BlockDevice;
  readonly folder: RecordedFolder | null;
  readonly blockSizeBytes: number;
  /** What was asked for, and what was answered, for whoever has to find out what went wrong. */
  readonly history: string[] = [];
  /** Promises that were not kept. */
  readonly wrong: string[] = [];
  /** Requests that were answered with an error, by errno. */
  readonly errors = new Map<Errno, number>();
  readonly counts: Record<string, number> = {};
  /** There is a metadata snapshot: blocks that no volume maps any more are used all the same. */
  isHeld = false;
  /** Modes that the pool has told of. */
  readonly modes: PoolMode[] = [];
  /** Volumes that were told by a flush that something is wrong. */
  readonly flushErrors = new Set<string>();
  readonly #options: SimulatedPoolOptions;
  readonly #random: SeededRandom;
  readonly #devices = new Map<string, ThinDevice>();
  readonly #outstanding = new Map<number, string>();
  readonly #copying = new Map<number, readonly [string, string]>();
  #pool: Pool | null = null;
  #beforeDoubt = '';
  /** Volumes that have become smaller since everything was answered: a request that waited for space may be beyond the end now. */
  readonly #shrunk = new Set<string>();
  #nextId = 1;
  #answers = 0;

  private constructor(options: SimulatedPoolOptions) {
    this.#options = options;
    this.#random = new SeededRandom(options.seed);
    this.blockSizeBytes = options.blockSizeBytes ?? 65536;
    const { blockSizeBytes, timeline } = this;
    const order = new SeededRandom(options.seed + 1);
    const dataBlockCount = options.dataBlocks ?? 64;
    this.dir = mkdtempSync(join(tmpdir(), 'thinlun-simulation-'));
    const metadataSize = (options.metadataBlocks ?? 256) * 4096;
    const dataSize = dataBlockCount * blockSizeBytes;
    this.metadataMemory = new SimulatedDevice(join(this.dir, 'metadata'), metadataSize, order);
    this.dataMemory = new SimulatedDevice(join(this.dir, 'data'), dataSize, order, options.discardFill);
    // Something that says that the devices are files.
    for (const { path } of [this.metadataMemory, this.dataMemory]) writeFileSync(path, '');
    PoolMetadata.format(this.metadataMemory, { dataBlockSizeBytes: blockSizeBytes, dataBlockCount }).close();
    Catalogue.create(this.dir, {
      uuid: newUuid((size) => this.#bytes(size)),
      name: 'simulated',
      blockSizeBytes,
      options: { ...DEFAULT_POOL_OPTIONS, ...options.pool },
    });
    const wrap = (device: BlockDevice, with_: SimulatedPoolOptions['wrapData']): BlockDevice => {
      const wrapped = with_?.(device) ?? device;
      return options.recorded ? new RecordingDevice(wrapped, timeline) : wrapped;
    };
    this.metadataDevice = wrap(this.metadataMemory, options.wrapMetadata);
    this.dataDevice = wrap(this.dataMemory, options.wrapData);
    this.folder = options.recorded ? new RecordedFolder(this.dir, timeline) : null;
  }

  static async create(options: SimulatedPoolOptions): Promise<SimulatedPool> {
    const simulated = new SimulatedPool(options);
    await simulated.open();
    return simulated;
  }

  get pool(): Pool {
    if (this.#pool === null) throw new Error('the pool is closed');
    return this.#pool;
  }

  get blockSectors(): number {
    return this.blockSizeBytes / SECTOR;
  }

  /** Volumes that can be used now, ascending. */
  get names(): string[] {
    return [...this.#devices.keys()].sort();
  }

  sectorsOf(name: string): number {
    return this.expectation.volume(name).sectorCount;
  }

  async open(): Promise<void> {
    this.#pool = await Pool.open(this.dir, {
      clock: this.clock,
      cacheBlocks: 128,
      random: (size) => this.#bytes(size),
      openDevice: (_, file) => (file === 'metadata' ? this.metadataDevice : this.dataDevice),
      bootId: () => 'simulated',
      onEvent: (event) => {
        if (event.kind !== 'mode') return;
        this.history.push(`  MODE ${event.mode}: ${event.reason}`);
        this.modes.push(event.mode);
        if (event.mode === 'read-only' || event.mode === 'fail') this.tell((model) => model.doubt());
      },
    });
    const { expectation } = this;
    expectation.resolve(this.#identities() !== this.#beforeDoubt);
    for (const name of expectation.volumes.keys()) this.#use(name);
  }

  get isOpen(): boolean {
    return this.#pool !== null;
  }

  /** In order, with everything answered. */
  async close({ mayFail = false }: { mayFail?: boolean } = {}): Promise<void> {
    await this.settle();
    this.tell((model) => model.beginFlush(0, null));
    this.#devices.clear();
    const pool = this.pool;
    this.#pool = null;
    let ok = true;
    try {
      await this.#awaited('close', pool.close());
    } catch (error) {
      if (!mayFail) throw error;
      this.errors.set(errnoOf(error), 1);
      ok = false;
    }
    this.tell((model) => model.endFlush(0, ok));
  }

  async reopen(): Promise<void> {
    await this.close({ mayFail: this.#options.anyError === true });
    await this.open();
  }

  /** Closes what is open and removes the folder. */
  async dispose(): Promise<void> {
    try {
      if (this.#pool !== null) await this.#awaited('close', this.#pool.close());
    } finally {
      this.folder?.stop();
      rmSync(this.dir, { recursive: true, force: true });
    }
  }

  /** Tells the model, and remembers that it was told. */
  tell(tell: (expectation: PoolExpectation) => void): void {
    tell(this.expectation);
    if (this.folder !== null) this.told.push({ at: this.timeline.now, tell });
  }

  // ---- requests: each is submitted at once and judged when it is answered ----------------------------------------

  write(name: string, begin: number, end: number, fua = false): Promise<Errno | null> {
    const id = this.#nextId++;
    const words = new Uint32Array((end - begin) * SECTOR_WORDS);
    for (let i = 0; i < end - begin; i++) fillSector(words, i * SECTOR_WORDS, begin + i, id);
    return this.#change(id, name, LunOp.WRITE, begin, end, fua, new Uint8Array(words.buffer));
  }

  writeZeroes(name: string, begin: number, end: number): Promise<Errno | null> {
    return this.#change(this.#nextId++, name, LunOp.WRITE_ZEROES, begin, end, false, null);
  }

  unmap(name: string, begin: number, end: number): Promise<Errno | null> {
    return this.#change(this.#nextId++, name, LunOp.UNMAP, begin, end, false, null);
  }

  async copy(
    from: string,
    sourceBegin: number,
    to: string,
    begin: number,
    end: number,
    fua = false,
  ): Promise<Errno | null> {
    const id = this.#nextId++;
    this.#copying.set(id, [from, to]);
    this.tell((model) => model.beginCopy(id, from, sourceBegin, to, begin, end));
    const source = { device: this.#devices.get(from)!, name: from, begin: sourceBegin };
    const { error } = await this.#request(id, to, LunOp.COPY, begin, end, fua, null, source);
    this.#copying.delete(id);
    this.tell((model) => model.endCopy(id, error === null, fua));
    return error;
  }

  /** Volumes that a copy under way reads from or writes to. */
  get copying(): readonly string[] {
    return [...this.#copying.values()].flat();
  }

  async flush(name: string): Promise<Errno | null> {
    const id = this.#nextId++;
    this.tell((model) => model.beginFlush(id, name));
    const { error } = await this.#request(id, name, LunOp.FLUSH, 0, 0, false, null);
    this.tell((model) => model.endFlush(id, error === null));
    if (error !== null) this.flushErrors.add(name);
    return error;
  }

  async read(name: string, begin: number, end: number): Promise<Errno | null> {
    const volume = this.expectation.volume(name);
    const before = presentIn(volume, begin, end);
    const memory = new Uint8Array((end - begin) * SECTOR).fill(0xee);
    const { error } = await this.#request(this.#nextId++, name, LunOp.READ, begin, end, false, memory);
    if (error !== null) return error;
    const after = presentIn(volume, begin, end);
    const allowed = (sector: number): number[] => [...before[sector - begin]!, ...after[sector - begin]!];
    for (const line of findWrongSectors(memory, begin, allowed)) this.#fault(`read of ${name}: ${line}`);
    return null;
  }

  /** Judged only where nothing is in flight. */
  async extent(name: string, begin: number, end: number): Promise<Errno | null> {
    const { request, error } = await this.#request(this.#nextId++, name, LunOp.EXTENT, begin, end, false, null);
    if (error !== null) return error;
    const { tokens } = this.expectation.volume(name);
    const blocks = tokens.subarray(Math.floor(begin / this.blockSectors), Math.ceil(end / this.blockSectors));
    if (blocks.includes(-1)) return null;
    const changed = blocks.findIndex((token) => token > 0 !== blocks[0]! > 0);
    const stop =
      changed < 0 ? end : Math.min(end, (Math.floor(begin / this.blockSectors) + changed) * this.blockSectors);
    const found = `${request.extentMapped} for ${request.extentLength / SECTOR}`;
    const expected = `${blocks[0]! > 0} for ${stop - begin}`;
    if (found !== expected) this.#fault(`extent of ${name} at ${begin}: ${found}, expected ${expected}`);
    return null;
  }

  // ---- administration: one call at a time --------------------------------------------------------------------------

  createVolume(name: string, sectors: number): Promise<Errno | null> {
    const { blockSectors } = this;
    return this.#administer(
      `create ${name} ${sectors}`,
      (model) => model.create(name, sectors, blockSectors),
      () => this.pool.createVolume(name, sectors * SECTOR),
      (ok) => {
        if (ok) this.#use(name);
      },
    );
  }

  /** By name, or by its device's number as dm-thin's message does it. */
  deleteVolume(name: string, byNumber: boolean = false): Promise<Errno | null> {
    const device = this.#devices.get(name)!;
    this.#devices.delete(name);
    return this.#administer(
      `delete ${name}`,
      (model) => model.delete(name),
      async () => {
        await device.drained();
        await this.pool.closeVolume(device);
        if (byNumber) await this.#message(() => this.pool.deleteThin(this.#idOf(name)));
        else await this.pool.deleteVolume(name);
      },
      (ok) => {
        const isThere = !ok && this.pool.mode !== 'fail' && this.expectation.volumes.has(name);
        if (isThere && !this.#devices.has(name)) this.#use(name);
      },
    );
  }

  /** Of several volumes at one moment: `[origin, snapshot]`. */
  createSnapshots(pairs: readonly (readonly [string, string])[]): Promise<Errno | null> {
    return this.#administer(
      `snapshot ${pairs.map((pair) => pair.join(' to ')).join(', ')}`,
      (model) => model.snapshot(pairs),
      () => this.pool.createSnapshots(pairs.map(([origin, name]) => ({ origin, name }))),
      (ok) => {
        if (ok) for (const [, name] of pairs) this.#use(name);
      },
    );
  }

  /** dm-thin's message: a device by number, whose volume is `thin-ID`. */
  createThin(id: number, sectors: number): Promise<Errno | null> {
    const { blockSectors } = this;
    const name = `thin-${id}`;
    return this.#administer(
      `create_thin ${id} ${sectors}`,
      (model) => model.create(name, sectors, blockSectors),
      () => this.#message(() => this.pool.createThin(id, sectors * SECTOR)),
      (ok) => {
        if (ok) this.#use(name);
      },
    );
  }

  createSnap(id: number, origin: string): Promise<Errno | null> {
    const name = `thin-${id}`;
    return this.#administer(
      `create_snap ${id} ${origin}`,
      (model) => model.snapshot([[origin, name]]),
      () => this.#message(() => this.pool.createSnap(id, this.#idOf(origin))),
      (ok) => {
        if (ok) this.#use(name);
      },
    );
  }

  setTransactionId(next: number): Promise<Errno | null> {
    const { transactionId } = this.pool.status();
    return this.#administer(`set_transaction_id ${next}`, null, () =>
      this.#message(() => this.pool.setTransactionId(transactionId, next)),
    );
  }

  /** Discards all free space of the data device. */
  trimFree(): Promise<Errno | null> {
    return this.#administer('trim', null, async () => {
      for (let at: number | null = 0; at !== null; ) at = (await this.pool.trimFree(at)).nextBlock;
    });
  }

  /** An id below 2^24 that no device has, nor a volume in its name. */
  freeDeviceId(wanted: number): number {
    const ids = new Set(this.pool.volumes().map(({ id }) => id));
    let id = wanted;
    while (ids.has(id) || this.expectation.volumes.has(`thin-${id}`)) id++;
    return id;
  }

  #idOf(name: string): number {
    return this.pool.volumes().find((volume) => volume.name === name)!.id;
  }

  /** Where metadata is short a message is refused with the kernel's error; another call says what is short. */
  async #message(call: () => Promise<unknown>): Promise<void> {
    try {
      await call();
    } catch (error) {
      const isShort = errnoOf(error) === 'EOPNOTSUPP' && this.pool.mode === 'out-of-metadata-space';
      throw isShort ? new StorageError('ENOSPC', 'no metadata space for a message') : error;
    }
  }

  /** Requests of the volume that are in flight keep its old name in the history. */
  renameVolume(name: string, to: string): Promise<Errno | null> {
    return this.#administer(
      `rename ${name} to ${to}`,
      (model) => model.rename(name, to),
      () => this.pool.renameVolume(name, to),
      (ok) => {
        if (!ok) return;
        if (this.flushErrors.has(name)) this.flushErrors.add(to);
        this.#devices.set(to, this.#devices.get(name)!);
        this.#devices.delete(name);
      },
    );
  }

  /** Nothing is submitted to the volume until it is answered. */
  rollbackVolume(name: string, snapshot: string): Promise<Errno | null> {
    return this.#administer(
      `rollback ${name} to ${snapshot}`,
      (model) => model.rollback(name, snapshot),
      () => this.pool.rollbackVolume(name, snapshot),
    );
  }

  setOptions(options: Partial<PoolOptions>): Promise<Errno | null> {
    return this.#administer(`set ${JSON.stringify(options)}`, null, () => this.pool.setOptions(options));
  }

  reserveMetadataSnapshot(): Promise<Errno | null> {
    const answered = (ok: boolean): unknown => (this.isHeld ||= ok);
    return this.#administer('hold', null, () => this.pool.reserveMetadataSnapshot(), answered);
  }

  releaseMetadataSnapshot(): Promise<Errno | null> {
    const answered = (ok: boolean): unknown => (this.isHeld &&= !ok);
    return this.#administer('release', null, () => this.pool.releaseMetadataSnapshot(), answered);
  }

  resizeVolume(name: string, sectors: number): Promise<Errno | null> {
    if (sectors < this.sectorsOf(name)) this.#shrunk.add(name);
    return this.#administer(
      `resize ${name} ${sectors}`,
      (model) => model.resize(name, sectors),
      () => this.pool.resizeVolume(name, sectors * SECTOR),
    );
  }

  growData(blocks: number): Promise<Errno | null> {
    const sizeBytes = this.dataDevice.sizeBytes + blocks * this.blockSizeBytes;
    const grow = async (): Promise<void> => {
      try {
        await this.pool.growData(sizeBytes);
      } catch (error) {
        // It may have grown by itself meanwhile, as far or farther.
        if (errnoOf(error) !== 'EINVAL' || this.dataDevice.sizeBytes < sizeBytes) throw error;
      }
    };
    return this.#administer(`grow data by ${blocks}`, null, grow);
  }

  growMetadata(blocks: number): Promise<Errno | null> {
    const sizeBytes = this.metadataDevice.sizeBytes + blocks * 4096;
    return this.#administer(`grow metadata by ${blocks}`, null, () => this.pool.growMetadata(sizeBytes));
  }

  async commit(): Promise<Errno | null> {
    const id = this.#nextId++;
    this.tell((model) => model.beginFlush(id, null));
    const error = await this.#administer('commit', null, () => this.pool.commit());
    this.tell((model) => model.endFlush(id, error === null));
    return error;
  }

  // ---- judging -----------------------------------------------------------------------------------------------------

  /** Lets time go on until everything has been answered. */
  async settle(): Promise<void> {
    let answers = this.#answers;
    let turns = 0;
    let seconds = 0;
    while (this.#outstanding.size > 0) {
      await new Promise((resolve) => setImmediate(resolve));
      if (this.#answers !== answers) {
        answers = this.#answers;
        turns = 0;
        seconds = 0;
      } else if (++turns > PATIENCE_TURNS) {
        turns = PATIENCE_TURNS / 2;
        this.clock.advance(1000);
        if (++seconds > HANG_SECONDS) throw new Error(`never answered: ${[...this.#outstanding.values()].join(', ')}`);
      }
    }
    this.#shrunk.clear();
  }

  /** Commits, and compares everything with the model. Nothing is in flight. */
  async verify(): Promise<void> {
    this.commit();
    await this.settle();
    this.wrong.push(...(await verifyPool(this)));
    this.expectKept();
  }

  /** Throws when a promise was not kept. */
  expectKept(): void {
    if (this.wrong.length === 0) return;
    throw new Error(`${this.wrong.slice(0, 10).join('\n')}\n\nseed ${this.#options.seed}:\n${this.history.join('\n')}`);
  }

  /** All of a volume, as it is now. */
  async contents(name: string): Promise<Uint8Array> {
    const sectors = this.sectorsOf(name);
    const memory = new Uint8Array(sectors * SECTOR).fill(0xee);
    const answer = this.#request(this.#nextId++, name, LunOp.READ, 0, sectors, false, memory);
    await this.settle();
    const { error } = await answer;
    if (error !== null) this.#fault(`cannot read ${name}: ${error}`);
    return memory;
  }

  /** Which volumes there are; a rollback gives a volume another device. */
  #identities(): string {
    return JSON.stringify(this.pool.volumes().map(({ name, id, sizeBytes }) => [name, id, sizeBytes]));
  }

  /** Free data blocks that are not handed out, as they are being discarded. */
  get withheldBlocks(): number {
    const { engine } = this.pool as unknown as { engine: PoolEngine };
    return engine.reclaimer.busy ? 0 : engine.metadata.withheld.reduce((sum, { count }) => sum + count, 0);
  }

  /** The call that is in doubt has changed nothing that the pool knows of. */
  get isAsBeforeDoubt(): boolean {
    return this.#identities() === this.#beforeDoubt;
  }

  get #isWorking(): boolean {
    return this.pool.mode !== 'read-only' && this.pool.mode !== 'fail';
  }

  #use(name: string): void {
    this.#devices.set(name, this.pool.openVolume(name));
  }

  async #change(
    id: number,
    name: string,
    op: LunOp,
    begin: number,
    end: number,
    fua: boolean,
    memory: Uint8Array | null,
  ): Promise<Errno | null> {
    const value = op === LunOp.WRITE ? id : 0;
    const kind = op === LunOp.UNMAP ? 'unmap' : 'write';
    this.tell((model) => model.begin(id, name, kind, begin, end, value));
    const { error } = await this.#request(id, name, op, begin, end, fua, memory);
    this.tell((model) => model.end(id, error === null, fua));
    return error;
  }

  #request(
    id: number,
    name: string,
    op: LunOp,
    begin: number,
    end: number,
    fua: boolean,
    memory: Uint8Array | null,
    source: { device: ThinDevice; name: string; begin: number } | null = null,
  ): Promise<{ request: LunRequest; error: Errno | null }> {
    const kind = Object.entries(LunOp).find(([, value]) => value === op)![0];
    const of = source === null ? '' : ` from ${source.name} ${source.begin}`;
    const title = `${id} ${kind}${fua ? ' FUA' : ''} ${name} ${begin}..${end}${of}`;
    this.#begun(id, kind, title);
    return new Promise((resolve) => {
      const requestDone = (request: LunRequest, error: Errno | null): void => {
        this.#ended(id, error, error === 'ENXIO' && this.#shrunk.has(name));
        resolve({ request, error });
      };
      const request = new LunRequest({ requestDone });
      request.op = op;
      request.offset = begin * SECTOR;
      request.length = (end - begin) * SECTOR;
      request.fua = fua;
      if (memory !== null) request.data.set(memory, 0, memory.length);
      if (source !== null) Object.assign(request, { source: source.device, sourceOffset: source.begin * SECTOR });
      this.#devices.get(name)!.submit(request);
    });
  }

  async #administer(
    title: string,
    tell: ((model: PoolExpectation) => void) | null,
    call: () => Promise<unknown>,
    answered: (ok: boolean) => unknown = () => {},
  ): Promise<Errno | null> {
    const id = this.#nextId++;
    this.#begun(id, title.split(' ')[0]!, `${id} ${title}`);
    const wasWorking = this.#isWorking;
    const before = wasWorking ? this.#identities() : '';
    if (tell !== null) this.tell(tell);
    let error: Errno | null = null;
    try {
      await call();
    } catch (thrown) {
      error = errnoOf(thrown);
    }
    // What failed with the pool, or with its folder, may be done all the same.
    const inDoubt = error !== null && wasWorking && (!this.#isWorking || this.folder?.fault != null);
    if (tell !== null) this.tell((model) => model.answered(error === null, inDoubt));
    if (inDoubt) this.#beforeDoubt = before;
    if (inDoubt && this.pool.mode === 'read-only') {
      this.expectation.resolve(this.#identities() !== before);
      for (const name of this.expectation.volumes.keys()) if (!this.#devices.has(name)) this.#use(name);
    }
    this.#ended(id, error);
    answered(error === null);
    return error;
  }

  async #awaited(title: string, done: Promise<unknown>): Promise<void> {
    const id = this.#nextId++;
    this.#begun(id, title, `${id} ${title}`);
    let failure: unknown = null;
    const end = (error: unknown): void => {
      failure = error ?? null;
      this.#ended(id, null);
    };
    done.then(() => end(null), end);
    await this.settle();
    if (failure !== null) throw failure;
  }

  #begun(id: number, kind: string, title: string): void {
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
    this.#outstanding.set(id, title);
    this.history.push(title);
  }

  #ended(id: number, error: Errno | null, isAllowed: boolean = false): void {
    this.#answers++;
    this.#outstanding.delete(id);
    this.history.push(`  ${id} ${error ?? 'done'}`);
    if (error === null) return;
    this.errors.set(error, (this.errors.get(error) ?? 0) + 1);
    if (error !== 'ENOSPC' && !isAllowed && this.#options.anyError !== true) this.#fault(`${id} was answered ${error}`);
  }

  #fault(line: string): void {
    this.history.push(`  WRONG ${line}`);
    this.wrong.push(line);
  }

  #bytes(size: number): Uint8Array {
    const bytes = new Uint8Array(size);
    this.#random.fill(bytes);
    return bytes;
  }
}

function presentIn(volume: { present(sector: number): number[] }, begin: number, end: number): number[][] {
  return Array.from({ length: end - begin }, (_, i) => volume.present(begin + i));
}
