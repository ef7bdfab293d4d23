import type { BlockView, MetadataReader } from './metadata-reader.ts';
import { dataBlockOf, isDeviceId, timeOf } from './thin-visitors.ts';
import { NodeView, nodeDamage } from './tree-walker.ts';

const MAPPING_SIZE = 8;
const DETAILS_SIZE = 24;
const MAX_HEIGHT = 16;

/** A tree of devices, or a part of one. */
export interface DevicesTree {
  block: number;
  firstId: number;
  lastId: number;
  height: number;
  deviceCount: number;
  /** Of all devices. */
  mappingCount: number;
  /** The latest time of a mapping. */
  age: number;
  highestDataBlock: number;
}

/** A tree of device details, or a part of one. */
export interface DetailsTree {
  block: number;
  firstId: number;
  lastId: number;
  height: number;
  deviceCount: number;
  /** Of all devices, as they say. */
  mappedBlocks: number;
  maxTransactionId: number;
  /** The latest time. */
  age: number;
}

/**
 * Everything on a metadata device that is a whole tree: in use, or left over from an older transaction and not yet overwritten. A node is as good as
 * its checksum, its shape and everything below it.
 *
 * Memory: 37 bytes for each metadata block, and the trees of devices and details.
 */
export class TreeScan {
  /** By block; those that are part of a larger one, too. */
  readonly devices: Map<number, DevicesTree> = new Map();
  readonly details: Map<number, DetailsTree> = new Map();
  readonly #reader: MetadataReader;
  readonly #view: BlockView;
  readonly #node: NodeView;
  /** Of trees of mappings; 0: it is none. */
  readonly #heights: Uint8Array;
  readonly #ages: Uint32Array;
  readonly #firstKeys: Float64Array;
  readonly #lastKeys: Float64Array;
  readonly #mappingCounts: Float64Array;
  readonly #highest: Float64Array;
  readonly #internals: number[] = [];
  readonly #perhapsDevices: number[] = [];
  readonly #children: Set<number> = new Set();

  constructor(reader: MetadataReader) {
    const { blockCount } = reader;
    this.#reader = reader;
    this.#view = reader.acquire();
    this.#node = new NodeView(this.#view);
    this.#heights = new Uint8Array(blockCount);
    this.#ages = new Uint32Array(blockCount);
    this.#firstKeys = new Float64Array(blockCount);
    this.#lastKeys = new Float64Array(blockCount);
    this.#mappingCounts = new Float64Array(blockCount);
    this.#highest = new Float64Array(blockCount);
  }

  /** Reads every block of the device. */
  run(progress: (done: number, total: number) => void): void {
    const { blockCount } = this.#reader;
    for (let block = 0; block < blockCount; block++) {
      if (this.#load(block)) this.#sort(block);
      progress(block + 1, blockCount);
    }
    this.#grow((block) => this.#growMappings(block));
    for (const block of this.#perhapsDevices) this.#addDevicesLeaf(block);
    this.#grow((block) => this.#growDevices(block));
    this.#grow((block) => this.#growDetails(block));
  }

  /** Whether it is part of a larger tree of the same kind. */
  isPart(tree: DevicesTree | DetailsTree): boolean {
    return this.#children.has(tree.block);
  }

  /** Mappings below a node of a tree of mappings; -1 when it is none. */
  mappingCount(block: number): number {
    return this.#heights[block] ? this.#mappingCounts[block]! : -1;
  }

  /** Calls back for the entries of one node: a leaf's, or an internal node's children. `block` must be one of a tree. */
  entries(block: number, visit: (node: NodeView) => void): void {
    const view = this.#reader.acquire();
    if (this.#reader.read(block, 'node', view) === null) {
      const node = new NodeView(view);
      node.set();
      visit(node);
    }
    this.#reader.release(view);
  }

  /** Reads a node, which has to be one of a tree of mappings, devices or details. */
  #load(block: number): boolean {
    if (this.#reader.read(block, 'node', this.#view) !== null) return false;
    const node = this.#node;
    node.set();
    const size = node.isLeaf ? node.valueSize : MAPPING_SIZE;
    return (size === MAPPING_SIZE || size === DETAILS_SIZE) && nodeDamage(node, size) === null;
  }

  #sort(block: number): void {
    const node = this.#node;
    if (!node.isLeaf) {
      this.#internals.push(block);
    } else if (node.valueSize === DETAILS_SIZE) {
      this.#addDetailsLeaf(block);
    } else {
      this.#addMappingLeaf(block);
      let perhapsDevices = node.count > 0 && isDeviceId(node.key(node.count - 1));
      for (let i = 0; i < node.count && perhapsDevices; i++) perhapsDevices = node.value64(i) < this.#reader.blockCount;
      if (perhapsDevices) this.#perhapsDevices.push(block);
    }
  }

  /** Every leaf with values of 8 bytes may be one of mappings. Those of devices look like mappings, too, which does no harm. */
  #addMappingLeaf(block: number): void {
    const node = this.#node;
    let age = 0;
    let highest = -1;
    for (let i = 0; i < node.count; i++) {
      age = Math.max(age, timeOf(node, i));
      highest = Math.max(highest, dataBlockOf(node, i));
    }
    this.#set(block, 1, node.count, age, highest);
    if (node.count > 0) {
      this.#firstKeys[block] = node.key(0);
      this.#lastKeys[block] = node.key(node.count - 1);
    }
  }

  #set(block: number, height: number, mappingCount: number, age: number, highest: number): void {
    this.#heights[block] = height;
    this.#mappingCounts[block] = mappingCount;
    this.#ages[block] = age;
    this.#highest[block] = highest;
  }

  #addDetailsLeaf(block: number): void {
    const node = this.#node;
    const { count } = node;
    if (count === 0 || !isDeviceId(node.key(count - 1))) return;
    const tree = newDetails(block, node);
    for (let i = 0; i < count; i++) {
      const at = node.valueOffset(i);
      tree.mappedBlocks += node.block.u64(at);
      tree.maxTransactionId = Math.max(tree.maxTransactionId, node.block.u64(at + 8));
      tree.age = Math.max(tree.age, node.block.u32(at + 16), node.block.u32(at + 20));
    }
    if (Number.isSafeInteger(tree.mappedBlocks) && Number.isSafeInteger(tree.maxTransactionId)) {
      this.details.set(block, tree);
    }
  }

  #addDevicesLeaf(block: number): void {
    if (!this.#load(block)) return;
    const node = this.#node;
    const tree = newDevices(block, node);
    for (let i = 0; i < node.count; i++) {
      const root = node.value64(i);
      if (!this.#heights[root]) return;
      tree.mappingCount += this.#mappingCounts[root]!;
      tree.age = Math.max(tree.age, this.#ages[root]!);
      tree.highestDataBlock = Math.max(tree.highestDataBlock, this.#highest[root]!);
    }
    this.devices.set(block, tree);
  }

  /** Internal nodes, from below upwards: as long as some find all their children known. */
  #grow(add: (block: number) => boolean): void {
    let left = this.#internals;
    for (let height = 2; height <= MAX_HEIGHT; height++) {
      const before = left.length;
      left = left.filter((block) => !this.#load(block) || !add(block));
      if (left.length === before) return;
    }
  }

  #growMappings(block: number): boolean {
    const node = this.#node;
    const height = this.#heights[node.value64(0)] ?? 0;
    let mappingCount = 0;
    let age = 0;
    let highest = -1;
    for (let i = 0; i < node.count; i++) {
      const child = node.value64(i);
      if (height === 0 || this.#heights[child] !== height || this.#mappingCounts[child] === 0) return false;
      if (!fits(node, i, this.#firstKeys[child]!, this.#lastKeys[child]!)) return false;
      mappingCount += this.#mappingCounts[child]!;
      age = Math.max(age, this.#ages[child]!);
      highest = Math.max(highest, this.#highest[child]!);
    }
    this.#firstKeys[block] = this.#firstKeys[node.value64(0)]!;
    this.#lastKeys[block] = this.#lastKeys[node.value64(node.count - 1)]!;
    this.#set(block, height + 1, mappingCount, age, highest);
    return true;
  }

  #growDevices(block: number): boolean {
    const children = this.#childTrees(this.devices);
    if (children === null) return false;
    const tree = newDevices(block, this.#node);
    for (const child of children) {
      tree.deviceCount += child.deviceCount;
      tree.mappingCount += child.mappingCount;
      tree.age = Math.max(tree.age, child.age);
      tree.highestDataBlock = Math.max(tree.highestDataBlock, child.highestDataBlock);
    }
    this.devices.set(block, span(tree, children));
    return true;
  }

  #growDetails(block: number): boolean {
    const children = this.#childTrees(this.details);
    if (children === null) return false;
    const tree = newDetails(block, this.#node);
    for (const child of children) {
      tree.deviceCount += child.deviceCount;
      tree.mappedBlocks += child.mappedBlocks;
      tree.maxTransactionId = Math.max(tree.maxTransactionId, child.maxTransactionId);
      tree.age = Math.max(tree.age, child.age);
    }
    this.details.set(block, span(tree, children));
    return true;
  }

  #childTrees<T extends DevicesTree | DetailsTree>(known: ReadonlyMap<number, T>): T[] | null {
    const node = this.#node;
    const children: T[] = [];
    for (let i = 0; i < node.count; i++) {
      const child = known.get(node.value64(i));
      if (child === undefined || child.height !== (children[0] ?? child).height) return null;
      if (!fits(node, i, child.firstId, child.lastId)) return null;
      children.push(child);
    }
    for (const child of children) this.#children.add(child.block);
    return children;
  }
}

/** Whether keys from `first` to `last` may be below entry `i` of an internal node. */
function fits(node: NodeView, i: number, first: number, last: number): boolean {
  return first >= node.key(i) && (i + 1 === node.count || last < node.key(i + 1));
}

function span<T extends DevicesTree | DetailsTree>(tree: T, children: readonly T[]): T {
  tree.firstId = children[0]!.firstId;
  tree.lastId = children.at(-1)!.lastId;
  tree.height = children[0]!.height + 1;
  return tree;
}

/** For a leaf it has the leaf's devices already, for an internal node none yet. */
function newDevices(block: number, node: NodeView): DevicesTree {
  return { ...place(block, node), mappingCount: 0, age: 0, highestDataBlock: -1 };
}

function newDetails(block: number, node: NodeView): DetailsTree {
  return { ...place(block, node), mappedBlocks: 0, maxTransactionId: 0, age: 0 };
}

function place(
  block: number,
  node: NodeView,
): Pick<DevicesTree, 'block' | 'firstId' | 'lastId' | 'height' | 'deviceCount'> {
  const deviceCount = node.isLeaf ? node.count : 0;
  return { block, firstId: node.key(0), lastId: node.key(node.count - 1), height: 1, deviceCount };
}
