/**
 * Walks b-trees and looks at every rule of their shape. See persistent-data/btree-node.ts for the layout; this is another reading of it.
 */
import type { DamageReport, Invariant, Severity } from './damage.ts';
import type { BlockView, MetadataReader } from './metadata-reader.ts';

const HEADER_SIZE = 32;
const MAX_HEIGHT = 16;

/** What to do with the leaves of a tree. */
export interface TreeVisitor {
  /** For paths. */
  readonly name: string;
  readonly valueSize: number;
  /** A leaf that was not visited before: its entries, in ascending order. `path` leads to it. */
  leaf(leaf: NodeView, path: string): void;
}

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

/** How references are counted, and which nodes are worth remembering. */
export interface NodeRegistry {
  /** One more parent points to the node; returns how many parents in trees did before. */
  reference(block: number): number;
  /** Whether what is under the node is to be remembered: it may be met again under another parent. */
  remembers(block: number, isRoot: boolean): boolean;
}

/** For a walk that counts nothing: every path is walked. */
export const unregistered: NodeRegistry = { reference: () => 0, remembers: () => false };

export class TreeWalker {
  readonly #reader: MetadataReader;
  readonly #registry: NodeRegistry;
  readonly #report: DamageReport;
  readonly #known: Map<number, Subtree> = new Map();

  constructor(reader: MetadataReader, registry: NodeRegistry, report: DamageReport) {
    this.#reader = reader;
    this.#registry = registry;
    this.#report = report;
  }

  /** Null when the root cannot be read. `path` leads to the tree's root pointer. */
  walk(root: number, visitor: TreeVisitor, path: string): Subtree | null {
    const walk = new Walk(this.#reader, this.#registry, this.#report, this.#known, visitor);
    return walk.node(root, `${path} > ${visitor.name}`, 0, 0, Number.MAX_SAFE_INTEGER, 1);
  }
}

class Walk {
  readonly #reader: MetadataReader;
  readonly #registry: NodeRegistry;
  readonly #report: DamageReport;
  readonly #known: Map<number, Subtree>;
  readonly #visitor: TreeVisitor;

  constructor(
    reader: MetadataReader,
    registry: NodeRegistry,
    report: DamageReport,
    known: Map<number, Subtree>,
    visitor: TreeVisitor,
  ) {
    this.#reader = reader;
    this.#registry = registry;
    this.#report = report;
    this.#known = known;
    this.#visitor = visitor;
  }

  /** The node and all below it, whose keys are to lie in `[begin, end)`. `depth` is 0 for the root. */
  node(number: number, path: string, depth: number, begin: number, end: number, expected: 0 | 1): Subtree | null {
    const here = `${path} > block ${number}`;
    const known = this.#known.get(number);
    const before = number < this.#reader.blockCount && expected === 1 ? this.#registry.reference(number) : 0;
    if (known !== undefined) {
      this.#checkBounds(known, here, begin, end);
      return known;
    }
    if (depth >= MAX_HEIGHT) {
      this.#damage('node', 'error', here, begin, end, `the tree is deeper than ${MAX_HEIGHT} levels`);
      return null;
    }
    const block = this.#reader.acquire();
    // Met before without being known: its entries are counted again, its references and its damage are not.
    const subtree = this.#visit(number, block, here, depth, begin, end, before === 0 ? expected : 0);
    this.#reader.release(block);
    if (subtree !== null && this.#registry.remembers(number, depth === 0)) this.#known.set(number, subtree);
    return subtree;
  }

  #visit(
    number: number,
    block: BlockView,
    path: string,
    depth: number,
    begin: number,
    end: number,
    fresh: 0 | 1,
  ): Subtree | null {
    const unreadable = this.#reader.read(number, 'node', block);
    if (unreadable !== null) {
      if (fresh === 1) this.#damage('block', 'error', path, begin, end, unreadable);
      return null;
    }
    const node = new NodeView(block);
    node.set();
    const shape = nodeDamage(node, this.#visitor.valueSize);
    if (shape !== null) {
      if (fresh === 1) this.#damage('node', 'error', path, begin, end, shape);
      return null;
    }
    if (fresh === 1 && depth > 0 && node.count < node.maxEntries / 3) {
      const message = `it has ${node.count} entries, fewer than a third of ${node.maxEntries}`;
      this.#damage('node-fill', 'warning', path, null, null, message);
    }
    if (fresh === 1 && !node.isLeaf && node.key(0) < begin) {
      this.#damage('node', 'error', path, node.key(0), begin, `its first key is ${node.key(0)}, its parent's ${begin}`);
    }
    const subtree = node.isLeaf ? leafSubtree(node) : this.#children(node, path, depth, end, fresh);
    if (fresh === 1) {
      this.#checkBounds(subtree, path, begin, end);
      if (node.isLeaf) this.#visitor.leaf(node, path);
    }
    return subtree;
  }

  #children(node: NodeView, path: string, depth: number, end: number, fresh: 0 | 1): Subtree {
    const sum: Subtree = { entryCount: 0, firstKey: -1, lastKey: -1, height: 0, complete: true };
    for (let i = 0; i < node.count; i++) {
      const from = node.key(i);
      const to = i + 1 < node.count ? node.key(i + 1) : end;
      const child = this.node(node.value64(i), path, depth + 1, from, to, fresh);
      if (child === null || !child.complete) sum.complete = false;
      if (child === null) continue;
      if (sum.height !== 0 && child.height !== sum.height && fresh === 1) {
        this.#damage('node', 'error', path, from, to, 'not all of its leaves are on one level');
      }
      sum.height = Math.max(sum.height, child.height);
      sum.entryCount += child.entryCount;
      if (child.entryCount === 0) continue;
      if (sum.firstKey < 0) sum.firstKey = child.firstKey;
      sum.lastKey = child.lastKey;
    }
    sum.height++;
    return sum;
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
