import { type ReadonlyWords, readU64 } from '../persistent-data/block.ts';
import type { SpaceMap } from '../persistent-data/space-map.ts';
import type { TransactionManager } from '../persistent-data/transaction-manager.ts';
import type { ValueType } from '../persistent-data/value-type.ts';
import { BLOCK_TIME_SIZE, dataBlockAt, timeAt } from './block-time.ts';

const VALUE_WORDS = 2;

/**
 * The values of a device's tree: virtual block to data block. Each leaf that holds a mapping is one reference to the data block.
 * Consecutive data blocks are counted as runs, which is most of what a copied leaf costs.
 */
export class MappingValues implements ValueType {
  readonly treeName = 'mapping tree';
  readonly sizeBytes: number = BLOCK_TIME_SIZE;
  readonly #dataMap: SpaceMap;
  readonly #superblock: { readonly time: number };

  /** `superblock` is the transaction's: no mapping is younger than it. */
  constructor(dataMap: SpaceMap, superblock: { readonly time: number }) {
    this.#dataMap = dataMap;
    this.#superblock = superblock;
  }

  /** A data block past the end would be read from nowhere, and a time to come makes a shared block look exclusive. */
  damage(words: ReadonlyWords, at: number, count: number): string | null {
    const { blockCount } = this.#dataMap;
    const { time } = this.#superblock;
    for (let i = 0, value = at; i < count; i++, value += VALUE_WORDS) {
      const block = dataBlockAt(words, value);
      if (block >= blockCount) return `value ${i} leads to data block ${block}, there are ${blockCount}`;
      if (timeAt(words, value) > time) return `value ${i} is of time ${timeAt(words, value)}, now is ${time}`;
    }
    return null;
  }

  increment(words: ReadonlyWords, at: number, count: number): void {
    for (let i = 0; i < count; ) {
      const length = runLength(words, at, i, count);
      const begin = dataBlockAt(words, at + VALUE_WORDS * i);
      this.#dataMap.increment(begin, begin + length);
      i += length;
    }
  }

  decrement(words: ReadonlyWords, at: number, count: number): void {
    for (let i = 0; i < count; ) {
      const length = runLength(words, at, i, count);
      const begin = dataBlockAt(words, at + VALUE_WORDS * i);
      this.#dataMap.decrement(begin, begin + length);
      i += length;
    }
  }

  /** The time does not matter. */
  refersToSame(words: ReadonlyWords, at: number, value: ReadonlyWords): boolean {
    return dataBlockAt(words, at) === dataBlockAt(value, 0);
  }
}

function runLength(words: ReadonlyWords, at: number, first: number, count: number): number {
  const begin = dataBlockAt(words, at + VALUE_WORDS * first);
  let length = 1;
  while (first + length < count && dataBlockAt(words, at + VALUE_WORDS * (first + length)) === begin + length) length++;
  return length;
}

/** The values of the top-level tree: device id to root of the device's tree. */
export class RootValues implements ValueType {
  readonly treeName = 'top-level mapping tree';
  readonly sizeBytes = 8;
  readonly #transaction: TransactionManager;
  readonly #deleteMappings: (root: number) => void;

  constructor(transaction: TransactionManager, deleteMappings: (root: number) => void) {
    this.#transaction = transaction;
    this.#deleteMappings = deleteMappings;
  }

  increment(words: ReadonlyWords, at: number, count: number): void {
    for (let i = 0; i < count; i++) this.#transaction.increment(readU64(words, at + VALUE_WORDS * i));
  }

  decrement(words: ReadonlyWords, at: number, count: number): void {
    for (let i = 0; i < count; i++) this.#deleteMappings(readU64(words, at + VALUE_WORDS * i));
  }

  /** A root is overwritten only by what it has become when it was shadowed, which has moved its reference already. */
  refersToSame(): boolean {
    return true;
  }

  /** A root that cannot be is found when it is read. */
  damage(): null {
    return null;
  }
}
