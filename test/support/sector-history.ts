import { fillSector, readSector, SECTOR_WORDS, ZEROES } from './sector-stamp.ts';

const SECTOR_SIZE = SECTOR_WORDS * 4;

/**
 * What every sector of a volume may hold after a crash: a model of what a disk with a volatile write cache promises.
 *
 * A sector may hold what its last durable write left there, or what any later write to it (acknowledged or not) would leave. A
 * write is durable when it was acknowledged before a flush was sent that was acknowledged as well, or was itself acknowledged
 * with FUA. Every written sector says who wrote it in all of its bytes, so that nothing else passes for it.
 *
 * At most one write to a sector is in flight at a time: the caller keeps to that.
 */
interface Write {
  sequence: number;
  begin: number;
  end: number;
  isZeroes: boolean;
}

/** A write that is on its way; handed back to `acknowledge`. */
export type WriteTicket = Readonly<Write>;

export class SectorHistory {
  readonly sectorCount: number;
  /** Sequence number that a crash cannot undo, by sector. */
  readonly #durable: Uint32Array;
  /** Later writes that may or may not be there, by sector, oldest first. */
  readonly #later = new Map<number, Write[]>();
  #nextSequence = 1;
  /** Acknowledged, but not flushed yet. */
  #unflushed: Write[] = [];
  /** Sectors checked and found to hold the newest that they could. */
  readonly counts = { durable: 0, later: 0 };

  constructor(sectorCount: number) {
    this.sectorCount = sectorCount;
    this.#durable = new Uint32Array(sectorCount);
  }

  /** A write of `[begin, end)` is about to be sent. With `data`, fills it in; without, the range is given back or zeroed. */
  begin(begin: number, end: number, data: Buffer | null): WriteTicket {
    const write: Write = { sequence: this.#nextSequence++, begin, end, isZeroes: data === null };
    for (let sector = begin; sector < end; sector++) {
      const list = this.#later.get(sector);
      if (list) list.push(write);
      else this.#later.set(sector, [write]);
    }
    if (data !== null) {
      const words = new Uint32Array(data.buffer, data.byteOffset, data.length / 4);
      for (let sector = begin; sector < end; sector++) {
        fillSector(words, (sector - begin) * SECTOR_WORDS, sector, write.sequence);
      }
    }
    return write;
  }

  /** The target said GOOD to the write. `isDurable`: it was sent with FUA. */
  acknowledge(ticket: WriteTicket, isDurable: boolean): void {
    const write = ticket as Write;
    if (isDurable) this.#settle(write);
    else this.#unflushed.push(write);
  }

  /** A flush is about to be sent; hand what this returns to `endFlush` when the target said GOOD. */
  beginFlush(): readonly WriteTicket[] {
    return this.#unflushed.slice();
  }

  endFlush(covered: readonly WriteTicket[]): void {
    const done = new Set(covered);
    for (const write of covered) this.#settle(write as Write);
    this.#unflushed = this.#unflushed.filter((write) => !done.has(write));
  }

  /**
   * Compares what was read back, from sector `begin`, with what may be there, and takes it over as the new truth. Returns what is
   * wrong, at most `limit` lines.
   */
  verify(begin: number, data: Buffer, limit = 10): string[] {
    const wrong: string[] = [];
    const words = new Uint32Array(data.buffer, data.byteOffset, data.length / 4);
    for (let i = 0; i < data.length / SECTOR_SIZE && wrong.length < limit; i++) {
      const sector = begin + i;
      const found = readSector(words, i * SECTOR_WORDS, sector);
      const durable = this.#durable[sector]!;
      const later = this.#later.get(sector) ?? [];
      const allowed = [durable, ...later.map((write) => (write.isZeroes ? ZEROES : write.sequence))];
      if (found !== null && allowed.includes(found)) {
        if (found === durable) this.counts.durable++;
        else this.counts.later++;
        this.#durable[sector] = found;
        this.#later.delete(sector);
        continue;
      }
      const what =
        found === null
          ? `garbage (${data.toString('hex', i * SECTOR_SIZE, i * SECTOR_SIZE + 16)}...)`
          : `write ${found}`;
      wrong.push(`sector ${sector}: holds ${what}, may hold ${allowed.join(' or ')} (durable first, 0 is zeroes)`);
    }
    return wrong;
  }

  /** After a crash: nothing is in flight or waiting for a flush any more. Call `verify` for every sector next. */
  forgetFlight(): void {
    this.#unflushed = [];
  }

  /** Whatever `write` left is now the least that its sectors hold. */
  #settle(write: Write): void {
    for (let sector = write.begin; sector < write.end; sector++) {
      const list = this.#later.get(sector);
      const at = list?.indexOf(write) ?? -1;
      // Not there: a later write to this sector has been settled before.
      if (!list || at < 0) continue;
      this.#durable[sector] = write.isZeroes ? ZEROES : write.sequence;
      if (at === list.length - 1) this.#later.delete(sector);
      else list.splice(0, at + 1);
    }
  }
}
