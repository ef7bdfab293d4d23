import type { ReadonlyWords } from '../persistent-data/block.ts';
import type { BTree } from '../persistent-data/btree.ts';
import { entryCount, keyAt, lowerBound, valueAt } from '../persistent-data/btree-node.ts';
import { dataBlockAt, timeAt } from './block-time.ts';
import type { ThinMetadata } from './thin-metadata.ts';

const VALUE_WORDS = 2;

/** What `lookupRun` found. Owned by the caller and used again and again. */
export class RunResult {
  /** Mapped, or a hole. */
  mapped = false;
  /** Where the first virtual block is, and the others behind it. Only if mapped. */
  dataBlock = 0;
  /** When the first virtual block was mapped. Only if mapped. */
  time = 0;
  /** A write must go to a new block. Only if mapped. */
  shared = false;
  /** The virtual block behind the run. */
  end = 0;
}

/** See `PoolMetadata.lookupRun`. Allocates nothing. */
export function lookupRun(
  tree: BTree,
  thin: ThinMetadata,
  begin: number,
  end: number,
  result: RunResult,
  nonBlocking: boolean,
): boolean {
  const { blocks } = tree.nodes.transaction;
  const mark = blocks.mark();
  let leaf = tree.findLeaf(thin.root, begin, nonBlocking);
  if (leaf === null) return false;
  let { words } = leaf;
  let index = lowerBound(words, begin);
  result.mapped = index >= 0 && keyAt(words, index) === begin;
  if (result.mapped) {
    const at = valueAt(words, index);
    result.dataBlock = dataBlockAt(words, at);
    result.time = timeAt(words, at);
    result.shared = thin.snapshottedTime > result.time;
  } else {
    index++;
  }
  let to = begin;
  do {
    to = result.mapped
      ? mappedEnd(words, index, begin, to, end, result, thin.snapshottedTime)
      : holeEnd(words, index, tree.leafEnd);
    // Behind a leaf, the next one may go on with the run.
    if (to >= end || to !== tree.leafEnd) break;
    blocks.release(mark);
    leaf = tree.findLeaf(thin.root, to, nonBlocking);
    if (leaf === null) break;
    words = leaf.words;
    index = lowerBound(words, to);
    if (index < 0 || keyAt(words, index) !== to) index++;
  } while (to < end);
  blocks.release(mark);
  result.end = Math.min(to, end);
  return true;
}

/** How far the entries from `index` on go on with the run `[begin, to)`. */
function mappedEnd(
  words: ReadonlyWords,
  index: number,
  begin: number,
  to: number,
  end: number,
  run: RunResult,
  snapshottedTime: number,
): number {
  const count = entryCount(words);
  const offset = run.dataBlock - begin;
  let at = valueAt(words, index);
  let next = to;
  for (let i = index; i < count && next < end; i++) {
    if (keyAt(words, i) !== next || dataBlockAt(words, at) !== next + offset) break;
    if (snapshottedTime > timeAt(words, at) !== run.shared) break;
    next++;
    at += VALUE_WORDS;
  }
  return next;
}

function holeEnd(words: ReadonlyWords, index: number, leafEnd: number): number {
  return index < entryCount(words) ? keyAt(words, index) : leafEnd;
}
