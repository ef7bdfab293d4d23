export type Piece = readonly [base: number, length: number];

export const PAGE = 4096;
/** A block that was never used, or was taken away: touching it is a SIGBUS. */
const ABSENT = 0xff;
const constantPages = new Map<number, Buffer>();

function constant(value: number, length: number): Buffer {
  const known = constantPages.get(value);
  if (known !== undefined && known.length >= length) return known.subarray(0, length);
  const made = Buffer.alloc(length, value);
  constantPages.set(value, made);
  return made;
}

/**
 * The data area of a ring, as the kernel uses it. A block that is given back is filled with a secret, bytes from 0x80 up that no command may ever get to see; what is free
 * or absent stands unchanged, or somebody has written where nothing is his.
 */
export class DataArea {
  readonly blocks: number;
  readonly blockSize: number;
  readonly #offset: number;
  /** What each block was filled with before anybody used it: of free blocks, what they hold. */
  readonly #fill: Uint8Array;
  readonly #used: Uint8Array;
  #memory: Uint8Array = new Uint8Array(0);
  #secrets = 0;
  /** Blocks taken away, and blocks used again after that. */
  readonly stats = { shrunk: 0, renewed: 0 };

  constructor(offset: number, pages: number, pagesPerBlock: number) {
    this.#offset = offset;
    this.blockSize = PAGE * pagesPerBlock;
    this.blocks = Math.floor(pages / pagesPerBlock);
    this.#fill = new Uint8Array(this.blocks).fill(ABSENT);
    this.#used = new Uint8Array(this.blocks);
  }

  get sizeBytes(): number {
    return this.blocks * this.blockSize;
  }

  get usedBlocks(): number {
    return this.#used.reduce((sum, used) => sum + used, 0);
  }

  attach(memory: Uint8Array): void {
    this.#memory = memory;
    memory.fill(ABSENT, this.#offset);
  }

  blocksFor(lengthBytes: number): number {
    return Math.ceil(lengthBytes / this.blockSize);
  }

  /** The lowest free blocks; null when there are not enough. */
  allocate(lengthBytes: number): number[] | null {
    const count = this.blocksFor(lengthBytes);
    const found: number[] = [];
    for (let block = 0; found.length < count; block++) {
      if (block === this.blocks) return null;
      if (this.#used[block] === 0) found.push(block);
    }
    for (const block of found) {
      this.#check(this.#begin(block), this.#begin(block + 1), this.#fill[block]!);
      this.#used[block] = 1;
      if (this.#fill[block] !== ABSENT) continue;
      this.stats.renewed++;
      this.#refill(block, 0); // new pages are zeroed
    }
    return found;
  }

  giveBack(blocks: readonly number[]): void {
    for (const block of blocks) {
      this.#used[block] = 0;
      this.#secrets = (this.#secrets + 1) % 127;
      this.#refill(block, 0x80 + this.#secrets);
    }
  }

  /** Takes every block above the highest used one away. */
  shrink(): void {
    for (let block = this.blocks - 1; block >= 0 && this.#used[block] === 0; block--) {
      if (this.#fill[block] === ABSENT) continue;
      this.#refill(block, ABSENT);
      this.stats.shrunk++;
    }
  }

  /** Pieces in memory, neighbouring blocks in one. */
  pieces(blocks: readonly number[], lengthBytes: number): Piece[] {
    const pieces: [number, number][] = [];
    let left = lengthBytes;
    for (let i = 0; i < blocks.length; i++) {
      const take = Math.min(this.blockSize, left);
      left -= take;
      if (i > 0 && blocks[i - 1] === blocks[i]! - 1) pieces[pieces.length - 1]![1] += take;
      else pieces.push([this.#begin(blocks[i]!), take]);
    }
    return pieces;
  }

  write(pieces: readonly Piece[], bytes: Uint8Array): void {
    let done = 0;
    for (const [base, length] of pieces) {
      this.#memory.set(bytes.subarray(done, done + length), base);
      done += length;
    }
  }

  read(pieces: readonly Piece[], length: number): Uint8Array {
    const data = new Uint8Array(length);
    let done = 0;
    for (const [base, pieceLength] of pieces) {
      const take = Math.min(pieceLength, length - done);
      if (take === 0) break;
      data.set(this.#memory.subarray(base, base + take), done);
      done += take;
    }
    return data;
  }

  /** All of the range lies in these blocks. */
  holds(blocks: readonly number[], offset: number, length: number): boolean {
    const first = Math.floor((offset - this.#offset) / this.blockSize);
    const last = Math.floor((offset + length - 1 - this.#offset) / this.blockSize);
    for (let block = first; block <= last; block++) if (!blocks.includes(block)) return false;
    return true;
  }

  /** Throws when somebody wrote behind the `lengthBytes` that these blocks hold. */
  checkSlack(blocks: readonly number[], lengthBytes: number): void {
    if (blocks.length === 0) return;
    const last = blocks[blocks.length - 1]!;
    const begin = this.#begin(last) + lengthBytes - (blocks.length - 1) * this.blockSize;
    this.#check(begin, this.#begin(last) + this.blockSize, this.#fill[last]!);
  }

  /** Throws when a byte has changed in a block that belongs to no command. */
  checkFree(): void {
    for (let block = 0; block < this.blocks; block++) {
      if (this.#used[block] === 0) this.#check(this.#begin(block), this.#begin(block + 1), this.#fill[block]!);
    }
  }

  #check(begin: number, end: number, value: number): void {
    const found = this.#memory.subarray(begin, end);
    if (constant(value, end - begin).equals(found)) return;
    const at = found.findIndex((byte) => byte !== value);
    throw new Error(`byte ${begin + at} was written though no command has it`);
  }

  #begin(block: number): number {
    return this.#offset + block * this.blockSize;
  }

  #refill(block: number, value: number): void {
    this.#fill[block] = value;
    this.#memory.fill(value, this.#begin(block), this.#begin(block + 1));
  }
}
