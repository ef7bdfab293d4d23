import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { LunOp, LunRequest } from '../../src/block/lun-backend.ts';
import { Pool } from '../../src/thin/pool.ts';
import { checkMetadata } from '../../src/tools/check.ts';
import { describeDamage } from '../../src/tools/damage.ts';
import { contentsOf } from '../support/metadata-judges.ts';
import type { RecordedChange, RecordingDevice, Survives } from '../support/recording-device.ts';
import type { SeededRandom } from '../support/seeded-random.ts';
import { SimulatedDevice } from '../support/simulated-device.ts';
import { ManualClock } from '../thin/pool-fixture.ts';
import { PoolExpectation } from './pool-expectation.ts';
import type { SimulatedPool, ToldEvent } from './simulated-pool.ts';
import { findWrongSectors } from './verify-pool.ts';
import type { VolumeModel } from './volume-model.ts';

/** What ended, and how much of what was not durable is there all the same. */
export const CRASHES = [
  'power: nothing',
  'power: everything',
  'power: some blocks',
  'power: some sectors',
  'kill',
] as const;
export type Crash = (typeof CRASHES)[number];

const SECTOR = 512;
const BLOCK = 4096;

/** Builds what may be left of a recorded pool after a crash at any moment, and finds out whether its promises were kept. */
export class CrashExaminer {
  readonly #simulated: SimulatedPool;
  readonly #random: SeededRandom;
  readonly #told: readonly ToldEvent[];
  readonly #dir: string;
  #expectation = new PoolExpectation();
  #toldCount = 0;
  /** The last commit and the next, of the last position. */
  #transactions: { position: number; candidates: string[] } = { position: -1, candidates: [] };
  /** States examined, by kind of crash. */
  readonly counts = new Map<Crash, number>();

  /** Nothing runs on `simulated` any more. */
  constructor(simulated: SimulatedPool, random: SeededRandom) {
    this.#simulated = simulated;
    this.#random = random;
    this.#told = simulated.told;
    this.#dir = join(simulated.dir, 'crashed');
    simulated.folder!.stop();
  }

  get metadata(): RecordingDevice {
    return this.#simulated.metadataDevice as RecordingDevice;
  }

  get data(): RecordingDevice {
    return this.#simulated.dataDevice as RecordingDevice;
  }

  /** Every moment at which a flush of a device or a call for a file begins or has ended, and as many others as wanted. Ascending. */
  positions(others: number): number[] {
    const found = new Set(this.#simulated.folder!.moments);
    for (const { flushes } of [this.metadata, this.data]) {
      for (const { begunAt, doneAt } of flushes)
        found
          .add(begunAt)
          .add(begunAt + 1)
          .add(doneAt)
          .add(doneAt + 1);
    }
    const { now } = this.#simulated.timeline;
    for (let i = 0; i < others; i++) found.add(this.#random.below(now + 1));
    return [...found].filter((position) => position <= now).sort((a, b) => a - b);
  }

  /** The last moment. */
  get end(): number {
    return this.#simulated.timeline.now;
  }

  /** Whether a crash at the moment can leave more than one state. */
  isInDoubt(position: number): boolean {
    return this.metadata.changesInDoubt(position).length + this.data.changesInDoubt(position).length > 0;
  }

  /** Examines a crash at the moment; moments come in ascending order. Throws what is wrong. */
  async examine(position: number, crash: Crash): Promise<void> {
    for (; this.#toldCount < this.#told.length && this.#told[this.#toldCount]!.at <= position; this.#toldCount++) {
      this.#told[this.#toldCount]!.tell(this.#expectation);
    }
    this.counts.set(crash, (this.counts.get(crash) ?? 0) + 1);
    const metadata = this.metadata.imageAt(position, this.#survives(crash, position, true));
    const data = this.data.imageAt(position, this.#survives(crash, position, false));
    const folder = this.#simulated.folder!;
    const files = crash === 'kill' ? folder.afterKill(position) : folder.afterPowerFailure(position, this.#random);
    const wrong = await this.#examineState(metadata, data, files, crash, position);
    if (wrong.length === 0) return;
    const { history } = this.#simulated;
    throw new Error(
      `after a crash (${crash}) at ${position}:\n${wrong.slice(0, 10).join('\n')}\n\n${history.join('\n')}`,
    );
  }

  async #examineState(
    metadata: Uint8Array,
    data: Uint8Array,
    files: Map<string, Uint8Array>,
    crash: Crash,
    position: number,
  ): Promise<string[]> {
    const wrong: string[] = [];
    mkdirSync(this.#dir);
    for (const [name, bytes] of files) writeFileSync(join(this.#dir, name), bytes);
    const metadataDevice = new SimulatedDevice(join(this.#dir, 'metadata'), metadata);
    const dataDevice = new SimulatedDevice(join(this.#dir, 'data'), data);
    try {
      wrong.push(...damageOf(metadataDevice));
      if (crash !== 'kill') wrong.push(...this.#strayTransaction(metadataDevice, position));
      const clock = new ManualClock();
      const pool = await Pool.open(this.#dir, {
        clock,
        cacheBlocks: 128,
        openDevice: (_, file) => (file === 'metadata' ? metadataDevice : dataDevice),
        bootId: () => (crash === 'kill' ? 'simulated' : 'another'),
      });
      const { mode, needsCheck } = pool.status();
      if (mode === 'read-only' || mode === 'fail' || needsCheck) wrong.push(`the pool opens ${mode}`);
      wrong.push(...(await this.#wrongContents(pool, crash)));
      await pool.close();
      wrong.push(...damageOf(metadataDevice));
    } catch (error) {
      wrong.push(`does not open: ${(error as Error).stack}`);
    } finally {
      rmSync(this.#dir, { recursive: true });
    }
    return wrong;
  }

  /** The metadata is that of the last commit that is durable, or of the one that was being written, whole. */
  #strayTransaction(crashed: SimulatedDevice, position: number): string[] {
    if (this.#transactions.position !== position) {
      const candidates = [() => false, () => true].map((survives) => {
        return transactionOf(new SimulatedDevice('', this.metadata.imageAt(position, survives)));
      });
      this.#transactions = { position, candidates };
    }
    const isKnown = this.#transactions.candidates.includes(transactionOf(crashed));
    return isKnown ? [] : ['the metadata is neither that of the last commit nor of the next'];
  }

  async #wrongContents(pool: Pool, crash: Crash): Promise<string[]> {
    const infos = pool.volumes();
    const found = infos.map(({ name, sizeBytes }) => `${name} ${sizeBytes / SECTOR}`).sort();
    const candidates = [this.#expectation.volumes];
    if (this.#expectation.pending !== null) candidates.push(this.#expectation.pending.after());
    const reasons: string[] = [];
    for (const volumes of candidates) {
      const expected = [...volumes].map(([name, { sectorCount }]) => `${name} ${sectorCount}`).sort();
      if (found.join() !== expected.join()) {
        reasons.push(`volumes are ${found}, expected ${expected}`);
        continue;
      }
      const wrong: string[] = [];
      for (const [name, volume] of volumes) wrong.push(...(await this.#wrongVolume(pool, name, volume, crash)));
      if (wrong.length === 0) return [];
      reasons.push(...wrong);
    }
    return reasons;
  }

  async #wrongVolume(pool: Pool, name: string, volume: VolumeModel, crash: Crash): Promise<string[]> {
    const device = pool.openVolume(name);
    const memory = new Uint8Array(volume.sectorCount * SECTOR).fill(0xee);
    const error = await new Promise((resolve) => {
      const request = new LunRequest({ requestDone: (_, answer) => resolve(answer) });
      request.op = LunOp.READ;
      request.length = memory.length;
      request.data.set(memory, 0, memory.length);
      device.submit(request);
    });
    await pool.closeVolume(device);
    if (error !== null) return [`${name} cannot be read: ${error}`];
    const allowed = (sector: number): number[] =>
      crash === 'kill' ? volume.present(sector) : volume.afterCrash(sector);
    return findWrongSectors(memory, 0, allowed).map((line) => `${name}: ${line}`);
  }

  /** Of the metadata, whole blocks are there or not; of the superblock, sectors. */
  #survives(crash: Crash, position: number, isMetadata: boolean): Survives {
    if (crash === 'power: nothing') return () => false;
    if (crash === 'power: everything') return () => true;
    const salt = this.#random.below(2 ** 32);
    const numbers = new Map<RecordedChange, number>();
    return (change, sector) => {
      if (crash === 'kill' && change.doneAt < position) return true;
      let number = numbers.get(change);
      if (number === undefined) {
        number = numbers.size;
        numbers.set(change, number);
      }
      const isWhole = isMetadata ? sector >= BLOCK / SECTOR : crash === 'power: some blocks';
      const unit = isWhole ? Math.floor((sector * SECTOR) / BLOCK) : sector + 2 ** 24;
      return (mixed(salt, number, unit) & 1) === 1;
    };
  }
}

/** All that the metadata says of its devices. */
function transactionOf(device: SimulatedDevice): string {
  const { devices, ...pool } = contentsOf(device);
  return JSON.stringify([pool, [...devices].map(([id, entry]) => [id, { ...entry, mappings: [...entry.mappings] }])]);
}

function damageOf(device: SimulatedDevice): string[] {
  const damages: string[] = [];
  checkMetadata(device, (damage) => damages.push(`check of ${basename(device.path)}: ${describeDamage(damage)}`));
  return damages;
}

function mixed(...numbers: number[]): number {
  let hash = 0x811c9dc5;
  for (const number of numbers) {
    hash = Math.imul(hash ^ number, 0x01000193);
    hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b);
  }
  return (hash ^ (hash >>> 13)) >>> 0;
}
