import { expect } from 'vitest';
import type { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { RunResult } from '../../src/thin/run-lookup.ts';
import type { ThinMetadata } from '../../src/thin/thin-metadata.ts';
import type { PoolContents } from './thin-xml.ts';

interface Mapping {
  dataBlock: number;
  time: number;
}

interface ModelDevice {
  mappings: Map<number, Mapping>;
  creationTime: number;
  snapshottedTime: number;
}

interface ModelState {
  time: number;
  devices: Map<number, ModelDevice>;
}

/** A pool's metadata beside the plainest thing that could stand for it; both are changed together and compared. */
export class PoolModel {
  pool: PoolMetadata;
  #state: ModelState = { time: 0, devices: new Map() };
  #committed: ModelState = this.#state;
  readonly #result = new RunResult();

  constructor(pool: PoolMetadata) {
    this.pool = pool;
    this.#committed = copyState(this.#state);
  }

  get ids(): number[] {
    return [...this.#state.devices.keys()].sort((a, b) => a - b);
  }

  has(id: number): boolean {
    return this.#state.devices.has(id);
  }

  create(id: number): void {
    this.pool.createThin(id);
    const { time } = this.#state;
    this.#state.devices.set(id, { mappings: new Map(), creationTime: time, snapshottedTime: time });
  }

  snapshot(id: number, origin: number): void {
    this.pool.createSnap(id, origin);
    const time = ++this.#state.time;
    const device = this.#state.devices.get(origin)!;
    device.snapshottedTime = time;
    this.#state.devices.set(id, { mappings: new Map(device.mappings), creationTime: time, snapshottedTime: time });
  }

  delete(id: number): void {
    this.pool.deleteThin(id);
    this.#state.devices.delete(id);
  }

  /** A new block at each of `[begin, end)`, whatever was there. */
  write(id: number, begin: number, end: number): void {
    this.#withThin(id, (thin) => {
      for (let block = begin; block < end; block++) {
        const dataBlock = this.pool.allocateDataBlock();
        this.pool.insert(thin, block, dataBlock);
        this.#state.devices.get(id)!.mappings.set(block, { dataBlock, time: this.#state.time });
      }
    });
  }

  remove(id: number, begin: number, end: number, atATime: number): void {
    this.#withThin(id, (thin) => {
      for (let at = begin; at < end; ) at = this.pool.removeRange(thin, at, end, atATime);
    });
    const { mappings } = this.#state.devices.get(id)!;
    for (const block of [...mappings.keys()]) if (block >= begin && block < end) mappings.delete(block);
  }

  commit(): void {
    this.pool.commitSync();
    this.committed();
  }

  /** The pool has been committed by other means. */
  committed(): void {
    this.#committed = copyState(this.#state);
  }

  abort(): void {
    this.pool.abort();
    this.aborted();
  }

  /** The pool has been aborted by other means. */
  aborted(): void {
    this.#state = copyState(this.#committed);
  }

  /** Every device's mappings as lookups say, over `[0, end)`. */
  expectLookups(end: number): void {
    expect(this.pool.thinIds()).toEqual(this.ids);
    for (const id of this.ids) {
      const device = this.#state.devices.get(id)!;
      this.#withThin(id, (thin) => {
        expect(thin.mappedBlocks).toBe(device.mappings.size);
        expect(this.pool.highestMapped(thin)).toBe(Math.max(-1, ...device.mappings.keys()));
        expect(this.#runs(thin, end)).toEqual(runsOf(device, end));
      });
    }
  }

  /** Data blocks with a reference. */
  get usedDataBlocks(): number {
    const used = new Set<number>();
    for (const { mappings } of this.#state.devices.values()) {
      for (const { dataBlock } of mappings.values()) used.add(dataBlock);
    }
    return used.size;
  }

  /** The last commit in the form of `contentsOf`. */
  get contents(): PoolContents['devices'] {
    return contentsOfState(this.#committed);
  }

  /** What the next commit makes of it. */
  get pendingContents(): PoolContents['devices'] {
    return contentsOfState(this.#state);
  }

  #withThin(id: number, work: (thin: ThinMetadata) => void): void {
    const thin = this.pool.openThin(id);
    work(thin);
    this.pool.closeThin(thin);
  }

  #runs(thin: ThinMetadata, end: number): string[] {
    const runs: string[] = [];
    const result = this.#result;
    for (let at = 0; at < end; at = result.end) {
      expect(this.pool.lookupRun(thin, at, end, result, false)).toBe(true);
      runs.push(runText(at, result.end, result.mapped ? result.dataBlock : -1, result.mapped && result.shared));
    }
    return runs;
  }
}

function runText(begin: number, end: number, dataBlock: number, shared: boolean): string {
  return `${begin}..${end} ${dataBlock < 0 ? 'hole' : `at ${dataBlock}`}${shared ? ' shared' : ''}`;
}

function runsOf(device: ModelDevice, end: number): string[] {
  const runs: string[] = [];
  const at = (block: number): number => device.mappings.get(block)?.dataBlock ?? -1;
  const shared = (block: number): boolean => (device.mappings.get(block)?.time ?? Infinity) < device.snapshottedTime;
  for (let begin = 0; begin < end; ) {
    let to = begin + 1;
    const first = at(begin);
    while (to < end && at(to) === (first < 0 ? -1 : first + to - begin) && shared(to) === shared(begin)) to++;
    runs.push(runText(begin, to, first, shared(begin)));
    begin = to;
  }
  return runs;
}

function contentsOfState(state: ModelState): PoolContents['devices'] {
  const devices: PoolContents['devices'] = new Map();
  const ids = [...state.devices.keys()].sort((a, b) => a - b);
  for (const id of ids) {
    const { mappings, creationTime, snapshottedTime } = state.devices.get(id)!;
    const copy = new Map(mappings);
    devices.set(id, { mappedBlocks: mappings.size, transactionId: 0, creationTime, snapshottedTime, mappings: copy });
  }
  return devices;
}

function copyState(state: ModelState): ModelState {
  const devices = new Map<number, ModelDevice>();
  for (const [id, device] of state.devices) devices.set(id, { ...device, mappings: new Map(device.mappings) });
  return { time: state.time, devices };
}
