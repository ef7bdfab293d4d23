import { StorageError } from '../base/errors.ts';
import { BITMAP_ENTRIES, bitmapsFor } from './bitmap.ts';
import { BTree } from './btree.ts';
import {
  entryBlock,
  entryFreeCount,
  entryNoneFreeBefore,
  INDEX_ENTRY_SIZE,
  INDEX_ENTRY_WORDS,
  writeIndexEntry,
} from './index-entry.ts';
import type { TransactionManager } from './transaction-manager.ts';
import { plainValues } from './value-type.ts';

/** No place: a bitmap that the last commit did not have. */
export const NOWHERE = 0;

/**
 * The index entries of a data space map, by ordinal of the bitmap: in memory (16 bytes for 16320 blocks: 16 KiB for 1 TiB in
 * 64 KiB blocks), and written back to their tree by a commit.
 */
export class BitmapIndex {
  /** Where each bitmap is now. */
  places: Uint32Array = new Uint32Array(0);
  /** Where each was at the last commit. */
  committedPlaces: Uint32Array = new Uint32Array(0);
  /** Free entries, of all 16320. A hint until `trusted`. */
  freeCounts: Uint16Array = new Uint16Array(0);
  /** No entry before it is free. A hint until `trusted`. */
  noneFreeBefore: Uint16Array = new Uint16Array(0);
  /** 1: the hints were made or checked by us. */
  trusted: Uint8Array = new Uint8Array(0);
  /** 1: differs from what is in the tree. */
  changed: Uint8Array = new Uint8Array(0);
  root: number;
  readonly #tree: BTree;
  readonly #entry: Uint32Array = new Uint32Array(INDEX_ENTRY_WORDS);

  constructor(transaction: TransactionManager, root: number) {
    this.#tree = new BTree(transaction, plainValues('data index tree', INDEX_ENTRY_SIZE));
    this.root = root;
  }

  /** Makes it empty: a new tree. ENOSPC. */
  format(): void {
    this.root = this.#tree.empty();
  }

  /** Bitmaps. */
  get length(): number {
    return this.places.length;
  }

  /** Has room for the bitmaps of so many blocks; those of new ones are nowhere. */
  resize(blockCount: number): void {
    const length = bitmapsFor(blockCount);
    this.places = grown(this.places, new Uint32Array(length));
    this.committedPlaces = grown(this.committedPlaces, new Uint32Array(length));
    this.freeCounts = grown(this.freeCounts, new Uint16Array(length));
    this.noneFreeBefore = grown(this.noneFreeBefore, new Uint16Array(length));
    this.trusted = grown(this.trusted, new Uint8Array(length));
    this.changed = grown(this.changed, new Uint8Array(length));
  }

  /** Reads every entry from the tree. EILSEQ when one is missing or leads to where no metadata block is. */
  load(): void {
    const { blockCount } = this.#tree.nodes.transaction.blocks;
    for (let ordinal = 0; ordinal < this.length; ordinal++) {
      if (!this.#tree.lookup(this.root, ordinal, this.#entry)) {
        throw new StorageError('EILSEQ', `Cannot open the data space map: bitmap ${ordinal} has no index entry`);
      }
      const place = entryBlock(this.#entry, 0);
      if (place >= blockCount) {
        const reason = `bitmap ${ordinal} is at block ${place}, there are ${blockCount}`;
        throw new StorageError('EILSEQ', `Cannot open the data space map: ${reason}`);
      }
      this.places[ordinal] = place;
      this.freeCounts[ordinal] = Math.min(entryFreeCount(this.#entry, 0), BITMAP_ENTRIES);
      this.noneFreeBefore[ordinal] = Math.min(entryNoneFreeBefore(this.#entry, 0), BITMAP_ENTRIES);
    }
    this.committedPlaces.set(this.places);
  }

  /** Writes one entry to the tree. */
  store(ordinal: number): void {
    const place = this.places[ordinal]!;
    writeIndexEntry(this.#entry, 0, place, this.freeCounts[ordinal]!, this.noneFreeBefore[ordinal]!);
    this.root = this.#tree.insert(this.root, ordinal, this.#entry);
    this.changed[ordinal] = 0;
  }

  /** Writes every changed entry to the tree. */
  storeChanged(): void {
    const { changed } = this;
    for (let ordinal = changed.indexOf(1); ordinal >= 0; ordinal = changed.indexOf(1, ordinal + 1)) this.store(ordinal);
  }

  committed(): void {
    this.committedPlaces.set(this.places);
  }

  countUsed(ordinal: number, entry: number): void {
    this.freeCounts[ordinal] = Math.max(this.freeCounts[ordinal]! - 1, 0);
    if (this.noneFreeBefore[ordinal] === entry) this.noneFreeBefore[ordinal] = entry + 1;
  }

  countFreed(ordinal: number, entry: number): void {
    this.freeCounts[ordinal] = Math.min(this.freeCounts[ordinal]! + 1, BITMAP_ENTRIES);
    if (entry < this.noneFreeBefore[ordinal]!) this.noneFreeBefore[ordinal] = entry;
  }

  /** What a count of the bitmap itself has found. Returns whether there is more room than the hints said. */
  correct(ordinal: number, freeCount: number, noneFreeBefore: number): boolean {
    const more = freeCount > this.freeCounts[ordinal]! || noneFreeBefore < this.noneFreeBefore[ordinal]!;
    this.freeCounts[ordinal] = freeCount;
    this.noneFreeBefore[ordinal] = noneFreeBefore;
    this.trusted[ordinal] = 1;
    return more;
  }
}

function grown<T extends Uint8Array | Uint16Array | Uint32Array>(old: T, larger: T): T {
  larger.set(old);
  return larger;
}
