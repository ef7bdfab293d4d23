import { alignedMemory } from '../block/aligned-memory.ts';
import { writeBlockTime } from './block-time.ts';

/** One line of the processor's cache: a find touches no more than that. */
const WAY_BITS = 2;
const WAYS: number = 2 ** WAY_BITS;
const SET_BITS = 16;
const SETS: number = 2 ** SET_BITS;
/** Mappings that are remembered: 16 GiB, with data blocks of 64 KiB. */
const ENTRIES: number = WAYS * SETS;

const KEY = 0;
const OWNER = 1;
const VALUE = 2;
const ENTRY_WORDS = 4;
const SET_WORDS: number = WAYS * ENTRY_WORDS;
const KEY_LIMIT = 2 ** 32;
/** Of an entry without a mapping. */
const NOBODY = 0;
const OWNER_LIMIT = 2 ** 32;

/**
 * Mappings of a pool's devices that were looked up or made, in front of their trees: the value of one is found in a single line of the processor's cache, where a
 * tree is a node on each level, with several lines of each. An entry is the virtual block, whose it is, and the value as the tree has it; those of virtual
 * blocks from 2^32 on are not remembered. 4 MiB, from the first one on. Blocks that are close to each other are so here, too.
 *
 * A device is known by a number that `newOwner` gives; it forgets all of its mappings by taking another one.
 */
export class RecentMappings {
  /** Where `find` finds: one empty set before the first mapping is added. */
  words: Uint32Array = new Uint32Array(SET_WORDS);
  #setMask = 0;
  #nextOwner: number;

  /** `firstOwner`: for tests. */
  constructor(firstOwner: number = NOBODY + 1) {
    this.#nextOwner = firstOwner;
  }

  /** If not: `clear`, and new numbers for all. */
  get hasOwners(): boolean {
    return this.#nextOwner < OWNER_LIMIT;
  }

  newOwner(): number {
    return this.#nextOwner++;
  }

  /** Index in `words` of the value of the mapping of virtual block `key`; -1: not known. */
  find(owner: number, key: number): number {
    const { words } = this;
    const set = this.#setOf(owner, key);
    const own = set + wayOf(key);
    if (words[own + KEY] === key && words[own + OWNER] === owner) return own + VALUE;
    for (let at = set; at < set + SET_WORDS; at += ENTRY_WORDS) {
      if (words[at + KEY] === key && words[at + OWNER] === owner) return at + VALUE;
    }
    return -1;
  }

  add(owner: number, key: number, dataBlock: number, time: number): void {
    if (key >= KEY_LIMIT) return;
    if (this.#setMask === 0) {
      this.#setMask = SETS - 1;
      this.words = new Uint32Array(alignedMemory(ENTRIES * ENTRY_WORDS * Uint32Array.BYTES_PER_ELEMENT).buffer);
    }
    const { words } = this;
    const found = this.find(owner, key);
    const entry = found >= 0 ? found - VALUE : this.#entryFor(this.#setOf(owner, key), key);
    words[entry + KEY] = key;
    words[entry + OWNER] = owner;
    writeBlockTime(words, entry + VALUE, dataBlock, time);
  }

  /** Where it is looked for first; if that is taken, a free one, if there is one. */
  #entryFor(set: number, key: number): number {
    const own = set + wayOf(key);
    if (this.words[own + OWNER] === NOBODY) return own;
    for (let at = set; at < set + SET_WORDS; at += ENTRY_WORDS) if (this.words[at + OWNER] === NOBODY) return at;
    return own;
  }

  forget(owner: number, key: number): void {
    const found = this.find(owner, key);
    if (found >= 0) this.words[found - VALUE + OWNER] = NOBODY;
  }

  /** Forgets everybody's, and gives the same numbers again. */
  clear(): void {
    this.words.fill(NOBODY);
    this.#nextOwner = NOBODY + 1;
  }

  /**
   * Index in `words`. As many keys in a row as there are entries have one each, four to a set. Where such a row begins is mixed (multiplicative hashing, twice): owners come in
   * rows, and keys with steps of all sizes.
   */
  #setOf(owner: number, key: number): number {
    const row = Math.imul(key >>> (SET_BITS + WAY_BITS), 0x9e3779b1) + Math.imul(owner | 0, 0x7feb352d);
    const begin = Math.imul(row ^ (row >>> 15), 0x85ebca6b) >>> 16;
    return ((begin + (key >>> WAY_BITS)) & this.#setMask) * SET_WORDS;
  }
}

/** Index in its set of the entry where a key is looked for first. */
function wayOf(key: number): number {
  return (key & (WAYS - 1)) * ENTRY_WORDS;
}
