import { moved, ZEROES } from '../support/sector-stamp.ts';

/**
 * One request that changes a volume. What it wrote is there for certain when it was answered well (`ok`), survives a crash when it is
 * `durable`, and took effect at some moment between `begunAt` and `endAt`.
 */
export interface ModelWrite {
  readonly id: number;
  readonly kind: 'write' | 'unmap';
  readonly begin: number;
  readonly end: number;
  /** What its sectors hold: a sequence number, or zeroes. */
  readonly value: number;
  readonly begunAt: number;
  endAt: number;
  ok: boolean;
  durable: boolean;
  /** It was answered well, or under way, when a transaction was aborted: it may be gone. */
  isDoubted: boolean;
  /** And it was answered well, then or later. */
  isAcknowledged: boolean;
  /** It is what a copy may have found: a snapshot that is taken meanwhile may have a part of it. */
  isCopied?: boolean;
}

/** A copy under way: for each sector, everything that its source held meanwhile is a write that it may have done. */
export interface ModelCopy {
  readonly source: VolumeModel;
  readonly sourceBegin: number;
  readonly target: VolumeModel;
  readonly begin: number;
  readonly end: number;
  /** Makes one of those writes. */
  readonly write: (begin: number, end: number, value: number) => ModelWrite;
  /** What the source's blocks shared at the beginning. */
  readonly sourceTokens: Int32Array;
}

/** A write as one sector sees it. */
interface Entry {
  write: ModelWrite;
  /** When it was over as far as this sector is concerned; null is the write's own end. A read can show that it was earlier. */
  endAt: number | null;
}

/** What is known of a block's mapping: `UNMAPPED`, `UNKNOWN`, or a number that two blocks share if and only if they share data. */
export const UNMAPPED = 0;
export const UNKNOWN = -1;

function settled(value: number): ModelWrite {
  return {
    id: 0,
    kind: 'write',
    begin: 0,
    end: 0,
    value,
    begunAt: -1,
    endAt: -1,
    ok: true,
    durable: true,
    isDoubted: false,
    isAcknowledged: false,
  };
}

const end = (entry: Entry): number => entry.endAt ?? entry.write.endAt;

/**
 * A volume as plain arrays: for each sector, what it may hold now and what it may hold after a crash, with any number of requests in
 * flight; for each block, whether it is mapped and what it shares.
 *
 * A write is out of the question for a sector as soon as another one that began after its end is certain.
 */
export class VolumeModel {
  readonly blockSectors: number;
  #values: Float64Array;
  /** Sectors of which more is to be said than `#values`, oldest write first. */
  #entries = new Map<number, Entry[]>();
  tokens: Int32Array;
  readonly #busyBlocks = new Map<number, { count: number; only: 'write' | 'unmap' | 'copy' | 'both'; token: number }>();
  /** Snapshots of this volume that are being taken. */
  #snapshots: VolumeModel[] = [];
  /** Copies from this volume that are under way. */
  #copies: ModelCopy[] = [];
  /** Sectors that it is to have, while it is being resized. */
  #nextSectorCount: number | null = null;

  constructor(sectorCount: number, blockSectors: number) {
    this.blockSectors = blockSectors;
    this.#values = new Float64Array(sectorCount);
    this.tokens = new Int32Array(Math.ceil(sectorCount / blockSectors));
  }

  get sectorCount(): number {
    return this.#values.length;
  }

  begin(write: ModelWrite): void {
    this.#add(write);
    this.#forBlocks(write, (block) => {
      const busy = this.#busyBlocks.get(block);
      if (busy === undefined) {
        this.#busyBlocks.set(block, { count: 1, only: write.kind, token: this.tokens[block]! });
      } else {
        busy.count++;
        if (busy.only !== write.kind || write.kind === 'unmap') busy.only = 'both';
      }
      this.tokens[block] = UNKNOWN;
    });
    this.#doubtLastDiscards();
    this.#tellSnapshots(write);
    for (const copy of this.#copies) {
      const begin = Math.max(write.begin, copy.sourceBegin);
      const end = Math.min(write.end, copy.sourceBegin + copy.end - copy.begin);
      const by = copy.begin - copy.sourceBegin;
      if (begin < end) copy.target.#mayHold(copy.write(begin + by, end + by, moved(write.value, by)));
    }
  }

  #tellSnapshots(write: ModelWrite): void {
    for (const snapshot of this.#snapshots) {
      snapshot.#add({ ...write, durable: false, ok: false });
      this.#forBlocks(write, (block) => {
        snapshot.tokens[block] = UNKNOWN;
      });
    }
  }

  #mayHold(write: ModelWrite): void {
    this.#add(write);
    this.#tellSnapshots(write);
  }

  /** A copy to this volume begins. */
  beginCopy(copy: ModelCopy): void {
    this.#forBlocks(copy, (block) => {
      const busy = this.#busyBlocks.get(block);
      if (busy === undefined) this.#busyBlocks.set(block, { count: 1, only: 'copy', token: UNKNOWN });
      else {
        busy.count++;
        busy.only = 'both';
      }
      this.tokens[block] = UNKNOWN;
    });
    const { source, sourceBegin, begin, end } = copy;
    const by = begin - sourceBegin;
    for (let at = sourceBegin; at < sourceBegin + end - begin; ) {
      const values = source.present(at);
      let to = at + 1;
      while (to < sourceBegin + end - begin && source.present(to).join() === values.join()) to++;
      for (const value of new Set(values)) this.#mayHold(copy.write(at + by, to + by, moved(value, by)));
      at = to;
    }
    source.#copies.push(copy);
  }

  /** The copy was answered; its writes have their end. */
  endCopy(copy: ModelCopy, ok: boolean): void {
    const { source, sourceBegin, begin, end, sourceTokens } = copy;
    source.#copies = source.#copies.filter((other) => other !== copy);
    const by = (begin - sourceBegin) / this.blockSectors;
    this.#forBlocks(copy, (block) => {
      const busy = this.#busyBlocks.get(block)!;
      if (--busy.count > 0) return;
      this.#busyBlocks.delete(block);
      this.tokens[block] = UNKNOWN;
      const isWhole = begin <= block * this.blockSectors && (block + 1) * this.blockSectors <= end;
      if (!ok || busy.only !== 'copy' || !isWhole || !Number.isInteger(by)) return;
      // What is mapped may be shared, or be moved where the volume has it already.
      const wasHole = sourceTokens[block - by] === UNMAPPED && source.tokens[block - by] === UNMAPPED;
      if (wasHole && !source.#busyBlocks.has(block - by)) this.tokens[block] = UNMAPPED;
    });
  }

  /** The request was answered. `newToken` gives a number that was never used. */
  end(write: ModelWrite, newToken: () => number): void {
    this.#forBlocks(write, (block) => {
      const busy = this.#busyBlocks.get(block)!;
      if (!write.ok) busy.only = 'both';
      if (--busy.count > 0) return;
      this.#busyBlocks.delete(block);
      if (busy.only === 'both') this.tokens[block] = UNKNOWN;
      else if (busy.only === 'write') this.tokens[block] = newToken();
      else if (this.#covers(write, block) || busy.token === UNMAPPED) this.tokens[block] = UNMAPPED;
      else this.tokens[block] = busy.token === UNKNOWN ? UNKNOWN : newToken();
    });
  }

  /** Certain writes in `[begin, end)` have become durable. */
  prune(begin: number, limit: number): void {
    for (let sector = begin; sector < Math.min(limit, this.sectorCount); sector++) {
      const entries = this.#entries.get(sector);
      if (entries === undefined) continue;
      const left = without(entries, (write) => write.ok && write.durable);
      if (left.length === 1 && left[0]!.write.durable && left[0]!.write.ok) {
        this.#values[sector] = left[0]!.write.value;
        this.#entries.delete(sector);
      } else if (left.length < entries.length) {
        this.#entries.set(sector, left);
      }
    }
  }

  /** A transaction was aborted: what is not durable is there, or not. */
  doubt(): void {
    for (const entries of this.#entries.values()) {
      for (const { write } of entries) {
        if (write.durable) continue;
        write.isDoubted ||= write.ok || write.endAt === Infinity;
        write.isAcknowledged ||= write.ok;
        write.ok = false;
      }
    }
    this.tokens.fill(UNKNOWN);
    for (const busy of this.#busyBlocks.values()) busy.only = 'both';
  }

  /** Whether a write that had been answered well is gone where `sector` holds `value`. */
  isLost(sector: number, value: number): boolean {
    return !this.#allowed(sector, (write) => write.ok || write.isAcknowledged).includes(value);
  }

  /** What `sector` may hold now. */
  present(sector: number): number[] {
    return this.#allowed(sector, (write) => write.ok);
  }

  /** What `sector` may hold after a crash. */
  afterCrash(sector: number): number[] {
    return this.#allowed(sector, (write) => write.ok && write.durable);
  }

  /** `sector` holds `value` now, with nothing in flight: what else was possible came before. */
  observed(sector: number, value: number): void {
    const entries = this.#entries.get(sector);
    if (entries === undefined) return;
    const possible = without(entries, (write) => write.ok);
    const seen = possible.filter(({ write }) => write.ok && write.value === value);
    if (possible.length < 2 || seen.length !== 1) return;
    for (const entry of possible) if (entry !== seen[0]) entry.endAt = seen[0]!.write.begunAt - 0.5;
  }

  /** This volume as a snapshot has it that is taken from now on until `snapshotTaken`. */
  snapshot(): VolumeModel {
    const copy = new VolumeModel(0, this.blockSectors);
    copy.#values = this.#values.slice();
    for (const [sector, entries] of this.#entries) {
      copy.#entries.set(
        sector,
        without(entries, (write) => write.ok).map(({ write, endAt }) => ({
          write: write.isCopied && write.endAt === Infinity ? { ...write, durable: false, ok: false } : write,
          endAt,
        })),
      );
    }
    copy.tokens = this.tokens.slice();
    this.#snapshots.push(copy);
    return copy;
  }

  /** Nothing that begins now is in the snapshot, if it was taken at all. */
  snapshotTaken(snapshot: VolumeModel, now: number): void {
    this.#snapshots = this.#snapshots.filter((other) => other !== snapshot);
    for (const entries of snapshot.#entries.values()) {
      for (const entry of entries) {
        // One that waited for space meanwhile goes on in the origin alone.
        if (entry.write.endAt === Infinity) entry.write = { ...entry.write, endAt: now };
        if (entry.write.ok) entry.write.durable = true;
      }
    }
    snapshot.prune(0, snapshot.sectorCount);
  }

  copy(): VolumeModel {
    const copy = new VolumeModel(0, this.blockSectors);
    copy.#values = this.#values.slice();
    copy.#entries = new Map([...this.#entries].map(([sector, entries]) => [sector, entries.slice()]));
    copy.tokens = this.tokens.slice();
    return copy;
  }

  /** Until it is answered, a discard up to the end may be one up to the old end or to the new one. */
  beginResize(sectorCount: number): void {
    this.#nextSectorCount = sectorCount;
    this.#doubtLastDiscards();
  }

  /** What is new reads as zeroes, also where something was cut off before. Nothing is in flight beyond the smaller size. */
  resize(sectorCount: number, newToken: () => number): this {
    this.#nextSectorCount = null;
    const values = new Float64Array(sectorCount);
    values.set(this.#values.subarray(0, sectorCount));
    const tokens = new Int32Array(Math.ceil(sectorCount / this.blockSectors));
    tokens.set(this.tokens.subarray(0, tokens.length));
    // What lies past the old end in its last block is zeroed in place, or in a block of its own.
    const cut = Math.floor(this.sectorCount / this.blockSectors);
    const isZeroed = sectorCount > this.sectorCount && this.sectorCount % this.blockSectors > 0;
    if (isZeroed && tokens[cut]! > 0) tokens[cut] = newToken();
    this.#values = values;
    this.tokens = tokens;
    for (const sector of [...this.#entries.keys()]) if (sector >= sectorCount) this.#entries.delete(sector);
    return this;
  }

  /** A growth that was refused may have given the last block a place of its own before. */
  resizeRefused(): void {
    this.#nextSectorCount = null;
    this.tokens[this.tokens.length - 1] = UNKNOWN;
  }

  #doubtLastDiscards(): void {
    if (this.#nextSectorCount === null) return;
    for (const sectors of [this.sectorCount, this.#nextSectorCount]) {
      const busy = this.#busyBlocks.get(Math.ceil(sectors / this.blockSectors) - 1);
      if (busy !== undefined && busy.only === 'unmap') busy.only = 'both';
    }
  }

  #add(write: ModelWrite): void {
    for (let sector = write.begin; sector < Math.min(write.end, this.sectorCount); sector++) {
      const entries = this.#entries.get(sector);
      if (entries) entries.push({ write, endAt: null });
      else {
        this.#entries.set(sector, [
          { write: settled(this.#values[sector]!), endAt: null },
          { write, endAt: null },
        ]);
      }
    }
  }

  #allowed(sector: number, isCertain: (write: ModelWrite) => boolean): number[] {
    const entries = this.#entries.get(sector);
    if (entries === undefined) return [this.#values[sector] ?? ZEROES];
    return without(entries, isCertain).map(({ write }) => write.value);
  }

  #forBlocks(write: { readonly begin: number; readonly end: number }, visit: (block: number) => void): void {
    const last = Math.min(Math.ceil(write.end / this.blockSectors), this.tokens.length);
    for (let block = Math.floor(write.begin / this.blockSectors); block < last; block++) visit(block);
  }

  /** The volume's last block counts as whole when the range goes to the volume's end. */
  #covers(write: ModelWrite, block: number): boolean {
    const begin = block * this.blockSectors;
    return write.begin <= begin && (write.end >= begin + this.blockSectors || write.end === this.sectorCount);
  }
}

/** Without those that were over before one began that is certain. */
function without(entries: readonly Entry[], isCertain: (write: ModelWrite) => boolean): Entry[] {
  let latest = -Infinity;
  for (const { write } of entries) if (isCertain(write)) latest = Math.max(latest, write.begunAt);
  return entries.filter((entry) => end(entry) >= latest);
}
