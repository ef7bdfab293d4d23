import { setImmediate } from 'node:timers/promises';
import { expect } from 'vitest';
import type { Errno } from '../../src/base/errors.ts';
import type { EngineSettings } from '../../src/thin/engine-options.ts';
import type { ExternalOrigin } from '../../src/thin/external-origin.ts';
import { ThinDevice, whileHeld } from '../../src/thin/thin-device.ts';
import { LunClient } from '../support/lun-client.ts';
import { contentsOf, expectClean, expectThinCheck } from '../support/metadata-judges.ts';
import { SpyDevice } from '../support/spy-device.ts';
import { TestDevice } from '../support/test-device.ts';
import type { PoolContents } from '../support/thin-xml.ts';
import { BLOCK, type Fixture, makePool } from '../thin/pool-fixture.ts';

export { BLOCK } from '../thin/pool-fixture.ts';

/** Blocks of an open thin device that are written or read at a time. */
const AT_A_TIME = 16;

/** A pool with the vocabulary of the kernel's own tests of dm-thin: messages, wiping, stomping, patterns, discards. */
export class ThinPool {
  readonly fixture: Fixture;
  readonly data: SpyDevice;
  readonly metadata: SpyDevice;
  readonly blockSize: number;

  constructor(options: Parameters<typeof makePool>[0] = {}) {
    const spies: SpyDevice[] = [];
    const spy = (device: ConstructorParameters<typeof SpyDevice>[0]): SpyDevice => {
      spies.push(new SpyDevice(device));
      return spies.at(-1)!;
    };
    this.fixture = makePool({
      ...options,
      wrapMetadata: (device) => spy(options.wrapMetadata?.(device) ?? device),
      wrapData: (device) => spy(options.wrapData?.(device) ?? device),
    });
    [this.metadata, this.data] = spies as [SpyDevice, SpyDevice];
    this.blockSize = options.blockSizeBytes ?? BLOCK;
  }

  get mode(): string {
    return this.fixture.engine.space.mode;
  }

  createThin(id: number): Promise<void> {
    return this.fixture.engine.mutate(() => this.fixture.metadata.createThin(id));
  }

  createSnap(id: number, origin: number): Promise<void> {
    return this.fixture.engine.mutate(() => this.fixture.metadata.createSnap(id, origin));
  }

  delete(id: number): Promise<void> {
    return this.fixture.engine.mutate(() => this.fixture.metadata.deleteThin(id), true);
  }

  async growData(blocks: number): Promise<void> {
    const { data, engine, metadata } = this.fixture;
    data.resize(blocks * this.blockSize);
    await engine.mutate(() => metadata.resizeData(blocks), true);
    engine.space.grown(0);
  }

  async growMetadata(blocks: number): Promise<void> {
    const { metadataDevice, engine, metadata } = this.fixture;
    metadataDevice.resize(blocks * 4096);
    await engine.mutate(() => metadata.resizeMetadata(), true);
    engine.space.grown(0);
  }

  reserveMetadataSnap(): Promise<void> {
    return this.fixture.engine.mutate(() => this.fixture.metadata.reserveSnapshot(), false, true);
  }

  releaseMetadataSnap(): Promise<void> {
    return this.fixture.engine.mutate(() => this.fixture.metadata.releaseSnapshot(), true);
  }

  /** A new thin device, opened. */
  async newThin(id: number, blocks: number): Promise<Thin> {
    await this.createThin(id);
    return this.open(id, blocks);
  }

  /** A snapshot of a device that may be open and written, opened. */
  async newSnap(id: number, origin: Thin): Promise<Thin> {
    await whileHeld([origin.device], () => this.createSnap(id, origin.id));
    return this.open(id, origin.blocks, origin.device.origin);
  }

  open(id: number, blocks: number, origin: ExternalOrigin | null = null): Thin {
    const { metadata, engine } = this.fixture;
    return new Thin(this, new ThinDevice(engine, metadata.openThin(id), blocks * this.blockSize, origin), blocks);
  }

  /** The kernel's reload of the pool's table. */
  configure(changes: Partial<EngineSettings>): void {
    this.fixture.engine.configure({
      lowWaterBlocks: 0,
      noSpaceTimeoutMs: 60_000,
      errorIfNoSpace: false,
      readOnly: false,
      discardPassdown: true,
      zeroNewBlocks: true,
      ignoreDiscard: false,
      ...changes,
    });
  }

  commit(): Promise<void> {
    return this.fixture.engine.commits.commit();
  }

  /** Commits, and waits until what it freed is with the allocator again. */
  async settle(): Promise<void> {
    await this.commit();
    while (this.fixture.engine.reclaimer.busy) await setImmediate();
  }

  /** Data blocks in use after a commit, as the pool counts them. */
  async used(): Promise<number> {
    await this.settle();
    const { metadata } = this.fixture;
    return metadata.dataBlockCount - metadata.freeDataBlocks;
  }

  /** What the last commit holds, or the metadata snapshot. */
  contents(metadataSnapshot: boolean = false): PoolContents {
    return contentsOf(this.fixture.metadataDevice, metadataSnapshot);
  }

  /** Our check and thin_check find nothing in the last commit. */
  check(): void {
    const image = this.image();
    expectClean(image);
    expectThinCheck(image);
  }

  /** A copy of the metadata as a restart of the machine would find it. */
  image(): TestDevice {
    const { metadataDevice } = this.fixture;
    const image = new TestDevice(metadataDevice.sizeBytes);
    metadataDevice.readSync(0, image.memory, 0, image.memory.length);
    return image;
  }
}

/** An open thin device. A pattern is known by its seed; each block of it names its place. */
export class Thin {
  readonly pool: ThinPool;
  readonly device: ThinDevice;
  readonly client: LunClient;
  readonly blocks: number;

  constructor(pool: ThinPool, device: ThinDevice, blocks: number) {
    this.pool = pool;
    this.device = device;
    this.client = new LunClient(device);
    this.blocks = blocks;
  }

  get id(): number {
    return this.device.thin.id;
  }

  get mapped(): number {
    return this.device.thin.mappedBlocks;
  }

  write(block: number, seed: number): Promise<void> {
    return this.client.write(block * this.pool.blockSize, this.pattern(block, seed));
  }

  /** Writes the pattern to all of the device, or to these blocks. */
  wipe(seed: number, blocks: readonly number[] = this.all()): Promise<void> {
    return this.each(blocks, (block) => this.write(block, seed));
  }

  /** The device, or these blocks of it, hold the pattern; 0 is never written. */
  verify(seed: number, blocks: readonly number[] = this.all()): Promise<void> {
    const { blockSize } = this.pool;
    return this.each(blocks, async (block) => {
      const expected = seed === 0 ? new Uint8Array(blockSize) : this.pattern(block, seed);
      const found = await this.client.read(block * blockSize, blockSize);
      if (Buffer.compare(found, expected) !== 0) throw new Error(`block ${block} of device ${this.id} is another`);
    });
  }

  discard(block: number, count: number): Promise<void> {
    return this.client.unmap(block * this.pool.blockSize, count * this.pool.blockSize);
  }

  all(): number[] {
    return Array.from({ length: this.blocks }, (_, block) => block);
  }

  /** The blocks that are mapped. */
  async mappedBlocks(): Promise<number[]> {
    await this.pool.commit();
    return [...this.pool.contents().devices.get(this.id)!.mappings.keys()];
  }

  async close(): Promise<void> {
    this.device.closed = true;
    await this.device.drained();
    this.pool.fixture.metadata.closeThin(this.device.thin);
  }

  private pattern(block: number, seed: number): Uint8Array {
    const words = new Uint32Array(this.pool.blockSize / 4).fill(seed * 65537);
    for (let i = 0; i < words.length; i += 128) {
      words[i] = block;
      words[i + 1] = i;
    }
    return new Uint8Array(words.buffer);
  }

  private async each(blocks: readonly number[], work: (block: number) => Promise<void>): Promise<void> {
    for (let i = 0; i < blocks.length; i += AT_A_TIME) await Promise.all(blocks.slice(i, i + AT_A_TIME).map(work));
  }
}

/** `call` is refused with this errno. */
export async function refused(errno: Errno, call: Promise<unknown>): Promise<void> {
  const error: unknown = await call.then(
    () => null,
    (reason: unknown) => reason,
  );
  const { code, message } = (error ?? {}) as { code?: string; message?: string };
  expect(code ?? message).toBe(errno);
}
