/**
 * Walks b-trees and looks at every rule of their shape. See persistent-data/btree-node.ts for the layout; this is another reading of it.
 */
import type { DamageReport, Invariant, Severity } from './damage.ts';
import type { BlockView, MetadataReader } from './metadata-reader.ts';
import type { Batch } from './read-ahead.ts';
import { runToEnd, type Steps } from './steps.ts';

const HEADER_SIZE = 32;
const MAX_HEIGHT = 16;

/** What to do with the leaves of a tree. */
export interface TreeVisitor {
  /** For paths. */
  readonly name: string;
  readonly valueSize: number;
  /** Trees whose nodes may be shared have the same; default 1. */
  readonly kind?: NodeKind;
  /** A leaf that was not visited before: its entries, in ascending order. `path` leads to it. */
  leaf(leaf: NodeView, path: string): void;
}

/** 1 to 255. */
export type NodeKind = number;

/** Entries of a node. Valid during the call that gets it. */
export class NodeView {
  block: BlockView;
  count = 0;
  #valuesOffset = 0;
  #valueSize = 0;

  constructor(block: BlockView) {
    this.block = block;
  }

  set(): void {
    this.count = this.block.u32(16);
    this.#valueSize = this.block.u32(24);
    this.#valuesOffset = HEADER_SIZE + 8 * this.block.u32(20);
  }

  get isLeaf(): boolean {
    return this.block.u32(4) === 2;
  }

  get maxEntries(): number {
    return this.block.u32(20);
  }

  get valueSize(): number {
    return this.#valueSize;
  }

  key(index: number): number {
    return this.block.u64(HEADER_SIZE + 8 * index);
  }

  /** Where the value's bytes begin. */
  valueOffset(index: number): number {
    return this.#valuesOffset + index * this.#valueSize;
  }

  value64(index: number): number {
    return this.block.u64(this.valueOffset(index));
  }
}

/** What is under a node. */
export interface Subtree {
  entryCount: number;
  /** -1 when there are no entries. */
  firstKey: number;
  lastKey: number;
  height: number;
  /** Every node below could be read. */
  complete: boolean;
}

/** How a node was met. */
export const NodeSight = {
  first: 0,
  again: 1,
  /** Before, in a tree of another kind. */
  elsewhere: 2,
} as const;
export type NodeSight = (typeof NodeSight)[keyof typeof NodeSight];

/** How references are counted, and which nodes are remembered. */
export interface NodeRegistry {
  /** One more parent points to the node, which is met in a tree of that kind. */
  meet(block: number, kind: NodeKind): NodeSight;
  /** It has been met; need not be known. */
  isMet(block: number): boolean;
  /** What is under the node, if it is remembered. */
  find(block: number): Subtree | null;
  /** What is under the node, which will be met again if it is a root or was met before (`again`). */
  remember(block: number, subtree: Subtree, again: boolean): void;
}

/** For a walk that counts nothing: every path is walked. */
export const unregistered: NodeRegistry = {
  meet: () => NodeSight.first,
  isMet: () => false,
  find: () => null,
  remember: () => {},
};

export class TreeWalker {
  readonly #reader: MetadataReader;
  readonly #registry: NodeRegistry;
  readonly #report: DamageReport;

  constructor(reader: MetadataReader, registry: NodeRegistry, report: DamageReport) {
    this.#reader = reader;
    this.#registry = registry;
    this.#report = report;
  }

  /** Null when the root cannot be read. `path` leads to the tree's root pointer. */
  walk(root: number, visitor: TreeVisitor, path: string): Subtree | null {
    return runToEnd(this.steps(root, visitor, path));
  }

  /** The same, a node a step. */
  steps(root: number, visitor: TreeVisitor, path: string): Steps<Subtree | null> {
    const walk = new Walk(this.#reader, this.#registry, this.#report, visitor);
    return walk.node(root, `${path} > ${visitor.name}`, 0, 0, Number.MAX_SAFE_INTEGER, true);
  }
}

class Walk {
  readonly #reader: MetadataReader;
  readonly #registry: NodeRegistry;
  readonly #report: DamageReport;
  readonly #visitor: TreeVisitor;
  /** The nodes from the root down to where the walk is. */
  readonly #above: number[] = [];

  constructor(reader: MetadataReader, registry: NodeRegistry, report: DamageReport, visitor: TreeVisitor) {
    this.#reader = reader;
    this.#registry = registry;
    this.#report = report;
    this.#visitor = visitor;
  }

  /**
   * The node and all below it, whose keys are to lie in `[begin, end)`. `depth` is 0 for the root. `isNew`: nothing above it was met
   * before. What is below a node that was met before is counted, but its references and its damage are not, once more.
   */
  *node(
    number: number,
    path: string,
    depth: number,
    begin: number,
    end: number,
    isNew: boolean,
  ): Steps<Subtree | null> {
    const here = `${path} > block ${number}`;
    const sight = isNew ? this.#registry.meet(number, this.#visitor.kind ?? 1) : NodeSight.again;
    if (sight === NodeSight.elsewhere) {
      this.#damage('node', 'error', here, begin, end, 'it is a node of a tree of another kind, too');
      return null;
    }
    if (this.#above.includes(number)) {
      if (isNew) this.#damage('node', 'error', here, begin, end, 'the tree leads back into itself');
      return null;
    }
    if (depth >= MAX_HEIGHT) {
      this.#damage('node', 'error', here, begin, end, `the tree is deeper than ${MAX_HEIGHT} levels`);
      return null;
    }
    const known = this.#registry.find(number);
    if (known !== null) {
      if (isNew) this.#checkBounds(known, here, begin, end);
      return known;
    }
    this.#above.push(number);
    const subtree = yield* this.#visit(number, here, depth, begin, end, sight === NodeSight.first);
    this.#above.pop();
    if (subtree !== null) this.#registry.remember(number, subtree, depth === 0 || sight === NodeSight.again);
    return subtree;
  }

  *#visit(
    number: number,
    path: string,
    depth: number,
    begin: number,
    end: number,
    isNew: boolean,
  ): Steps<Subtree | null> {
    const block = this.#reader.acquire();
    try {
      const unreadable = this.#reader.read(number, 'node', block);
      if (unreadable !== null) {
        if (isNew) this.#damage('block', 'error', path, begin, end, unreadable);
        return null;
      }
      const node = new NodeView(block);
      node.set();
      const shape = nodeDamage(node, this.#visitor.valueSize);
      if (shape !== null) {
        if (isNew) this.#damage('node', 'error', path, begin, end, shape);
        return null;
      }
      if (isNew && depth > 0 && node.count < node.maxEntries / 3) {
        const message = `it has ${node.count} entries, fewer than a third of ${node.maxEntries}`;
        this.#damage('node-fill', 'warning', path, null, null, message);
      }
      if (isNew && !node.isLeaf && node.key(0) < begin) {
        const message = `its first key is ${node.key(0)}, its parent's ${begin}`;
        this.#damage('node', 'error', path, node.key(0), begin, message);
      }
      const subtree = node.isLeaf ? leafSubtree(node) : yield* this.#children(node, path, depth, end, isNew);
      if (isNew) {
        this.#checkBounds(subtree, path, begin, end);
        if (node.isLeaf) this.#visitor.leaf(node, path);
      }
      yield;
      return subtree;
    } finally {
      this.#reader.release(block);
    }
  }

  *#children(node: NodeView, path: string, depth: number, end: number, isNew: boolean): Steps<Subtree> {
    const sum: Subtree = { entryCount: 0, firstKey: -1, lastKey: -1, height: 0, complete: true };
    const ahead = this.#readAhead(node);
    if (ahead !== null) yield;
    for (let i = 0; i < node.count; i++) {
      const from = node.key(i);
      const to = i + 1 < node.count ? node.key(i + 1) : end;
      const child = yield* this.node(node.value64(i), path, depth + 1, from, to, isNew);
      if (child === null || !child.complete) sum.complete = false;
      if (child === null) continue;
      if (sum.height !== 0 && child.height !== sum.height && isNew) {
        this.#damage('node', 'error', path, from, to, 'not all of its leaves are on one level');
      }
      sum.height = Math.max(sum.height, child.height);
      sum.entryCount += child.entryCount;
      if (child.entryCount === 0) continue;
      if (sum.firstKey < 0) sum.firstKey = child.firstKey;
      sum.lastKey = child.lastKey;
    }
    if (ahead !== null) this.#reader.readAhead!.drop(ahead);
    sum.height++;
    return sum;
  }

  #readAhead(node: NodeView): Batch | null {
    if (this.#reader.readAhead === null) return null;
    const numbers: number[] = [];
    for (let i = 0; i < node.count; i++) {
      const number = node.value64(i);
      if (number < this.#reader.blockCount && !this.#registry.isMet(number)) numbers.push(number);
    }
    return this.#reader.readAhead.want(numbers);
  }

  #checkBounds(subtree: Subtree, path: string, begin: number, end: number): void {
    if (subtree.entryCount === 0 || (subtree.firstKey >= begin && subtree.lastKey < end)) return;
    const message = `it has keys ${subtree.firstKey} to ${subtree.lastKey}, expected ${begin} to ${end - 1}`;
    this.#damage('node', 'error', path, subtree.firstKey, subtree.lastKey + 1, message);
  }

  #damage(
    invariant: Invariant,
    severity: Severity,
    path: string,
    begin: number | null,
    end: number | null,
    message: string,
  ): void {
    this.#report({ invariant, severity, path, begin, end, message });
  }
}

/** What is wrong with a node of a tree with values of `valueSize` bytes; null when nothing is. */
export function nodeDamage(node: NodeView, valueSize: number): string | null {
  return shapeDamage(node, valueSize) ?? keyDamage(node);
}

function shapeDamage(node: NodeView, valueSize: number): string | null {
  const flags = node.block.u32(4);
  if (flags !== 1 && flags !== 2) return `flags are ${flags}, expected 1 or 2`;
  const size = node.isLeaf ? valueSize : 8;
  if (node.valueSize !== size) return `the value size is ${node.valueSize}, expected ${size}`;
  const max = Math.floor((4096 - HEADER_SIZE) / (8 + size) / 3) * 3;
  if (node.maxEntries !== max) return `max entries is ${node.maxEntries}, expected ${max}`;
  if (node.count > max) return `it has ${node.count} entries and room for ${max}`;
  if (!node.isLeaf && node.count === 0) return 'it has no children';
  return null;
}

function leafSubtree(leaf: NodeView): Subtree {
  const { count } = leaf;
  return {
    entryCount: count,
    firstKey: count > 0 ? leaf.key(0) : -1,
    lastKey: count > 0 ? leaf.key(count - 1) : -1,
    height: 1,
    complete: true,
  };
}

function keyDamage(node: NodeView): string | null {
  for (let i = 0; i < node.count; i++) {
    const key = node.key(i);
    if (!Number.isSafeInteger(key)) return `key ${i} is not below 2^53`;
    if (i > 0 && key <= node.key(i - 1)) return `key ${i} is ${key}, not above the one before it (${node.key(i - 1)})`;
  }
  return null;
}
