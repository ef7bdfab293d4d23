/** Leaves of the trees that a superblock leads to. See thin/block-time.ts and device-details.ts for the layouts. */
import type { DamageReport } from './damage.ts';
import type { ReferenceCounter } from './reference-counter.ts';
import type { NodeKind, NodeView, TreeVisitor } from './tree-walker.ts';

const DEVICE_ID_LIMIT = 2 ** 24;
const TIME_MASK = 0xffffff;

export interface Device {
  mappedBlocks: number;
  transactionId: number;
  creationTime: number;
  snapshottedTime: number;
}

/** Collects the device details. */
export class DetailsVisitor implements TreeVisitor {
  readonly name = 'details';
  readonly valueSize = 24;
  readonly kind: NodeKind;
  readonly devices: Map<number, Device> = new Map();

  constructor(kind: NodeKind = 1) {
    this.kind = kind;
  }

  leaf(leaf: NodeView): void {
    for (let i = 0; i < leaf.count; i++) {
      const offset = leaf.valueOffset(i);
      const { block } = leaf;
      this.devices.set(leaf.key(i), {
        mappedBlocks: block.u64(offset),
        transactionId: block.u64(offset + 8),
        creationTime: block.u32(offset + 16),
        snapshottedTime: block.u32(offset + 20),
      });
    }
  }
}

/** Calls back for each device id and the root of its tree. */
export class DeviceIdVisitor implements TreeVisitor {
  readonly name = 'mappings';
  readonly valueSize = 8;
  readonly kind: NodeKind;
  readonly #visit: (id: number, root: number, path: string) => void;

  constructor(visit: (id: number, root: number, path: string) => void, kind: NodeKind = 1) {
    this.kind = kind;
    this.#visit = visit;
  }

  leaf(leaf: NodeView, path: string): void {
    for (let i = 0; i < leaf.count; i++) this.#visit(leaf.key(i), leaf.value64(i), path);
  }
}

/** The parts of a mapping's value. */
export function dataBlockOf(leaf: NodeView, index: number): number {
  const offset = leaf.valueOffset(index);
  return leaf.block.u32(offset + 4) * 256 + (leaf.block.u32(offset) >>> 24);
}

export function timeOf(leaf: NodeView, index: number): number {
  return leaf.block.u32(leaf.valueOffset(index)) & TIME_MASK;
}

/** Counts the references to data blocks and judges each mapping; reports runs of keys with the same fault. */
export class MappingVisitor implements TreeVisitor {
  name = 'device';
  kind: NodeKind = 1;
  readonly valueSize = 8;
  readonly #references: ReferenceCounter;
  readonly #dataBlockCount: number;
  readonly #maxTime: number;
  readonly #report: DamageReport;

  constructor(references: ReferenceCounter, dataBlockCount: number, maxTime: number, report: DamageReport) {
    this.#references = references;
    this.#dataBlockCount = dataBlockCount;
    this.#maxTime = maxTime;
    this.#report = report;
  }

  leaf(leaf: NodeView, path: string): void {
    let lastTime = 0;
    let outside = false;
    for (let i = 0; i < leaf.count; i++) {
      const block = dataBlockOf(leaf, i);
      if (block < this.#dataBlockCount) this.#references.add(block);
      else outside = true;
      lastTime = Math.max(lastTime, timeOf(leaf, i));
    }
    if (outside) this.#reportRuns(leaf, path, 'data-block', (i) => dataBlockOf(leaf, i) >= this.#dataBlockCount);
    if (lastTime > this.#maxTime) this.#reportRuns(leaf, path, 'time', (i) => timeOf(leaf, i) > this.#maxTime);
  }

  #reportRuns(
    leaf: NodeView,
    path: string,
    invariant: 'data-block' | 'time',
    isWrong: (index: number) => boolean,
  ): void {
    for (let i = 0; i < leaf.count; i++) {
      if (!isWrong(i)) continue;
      let last = i;
      while (last + 1 < leaf.count && isWrong(last + 1)) last++;
      const message =
        invariant === 'time'
          ? `mapped at time ${timeOf(leaf, i)}, now is ${this.#maxTime}`
          : `mapped to data block ${dataBlockOf(leaf, i)}, there are ${this.#dataBlockCount}`;
      this.#report({ invariant, severity: 'error', path, begin: leaf.key(i), end: leaf.key(last) + 1, message });
      i = last;
    }
  }
}

/** Device ids have 24 bits. */
export function isDeviceId(id: number): boolean {
  return id < DEVICE_ID_LIMIT;
}
