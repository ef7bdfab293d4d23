import { assert } from '../../src/base/assert.ts';
import { ZEROES } from '../support/sector-stamp.ts';
import { type ModelCopy, type ModelWrite, VolumeModel } from './volume-model.ts';

type Volumes = Map<string, VolumeModel>;

interface Submitted {
  readonly write: ModelWrite;
  readonly volume: VolumeModel;
}

/** An administrative call under way: it has happened whole, or not at all. */
interface Pending {
  /** The volumes when it has happened; may be asked at any time until then. */
  readonly after: () => Volumes;
  /** It has, or it has been refused. */
  readonly answered: (ok: boolean) => void;
}

/**
 * What a pool promises, as plain maps and arrays. Everything that is asked of the pool and everything that it answers is told to this
 * object, which says at any time what the volumes may hold, now or after a crash. Time is counted in calls.
 */
export class PoolExpectation {
  volumes: Volumes = new Map();
  pending: Pending | null = null;
  /** The volumes if the call that was in doubt is done. */
  alternative: Volumes | null = null;
  #now = 0;
  #nextToken = 1;
  readonly #writes = new Map<number, Submitted>();
  readonly #copies = new Map<number, { copy: ModelCopy; writes: Submitted[] }>();
  readonly #flushes = new Map<number, Submitted[]>();
  /** Answered well, and not durable yet. */
  #unflushed: Submitted[] = [];
  /** A number for a block that shares with nobody; never given twice. */
  readonly newToken = (): number => this.#nextToken++;

  volume(name: string): VolumeModel {
    const volume = this.volumes.get(name);
    assert(volume !== undefined, 'a volume that the model does not have');
    return volume;
  }

  /** A write of `[begin, end)` sectors is submitted; `value` is what they hold then. */
  begin(id: number, volume: string, kind: 'write' | 'unmap', begin: number, end: number, value: number): void {
    const write: ModelWrite = {
      id,
      kind,
      begin,
      end,
      value: kind === 'unmap' ? ZEROES : value,
      begunAt: this.#now++,
      endAt: Infinity,
      ok: false,
      durable: false,
      isDoubted: false,
      isAcknowledged: false,
    };
    this.#writes.set(id, { write, volume: this.volume(volume) });
    this.volume(volume).begin(write);
  }

  end(id: number, ok: boolean, durable: boolean): void {
    const entry = this.#writes.get(id)!;
    const { write, volume } = entry;
    this.#writes.delete(id);
    write.endAt = this.#now++;
    write.ok = ok && !write.isDoubted;
    write.isAcknowledged = ok && write.isDoubted;
    volume.end(write, this.newToken);
    if (!write.ok) return;
    if (durable) this.#settle([entry]);
    else this.#unflushed.push(entry);
  }

  /** A copy of the sectors from `sourceBegin` of `from` on to `[begin, end)` of `to` is submitted. */
  beginCopy(id: number, from: string, sourceBegin: number, to: string, begin: number, end: number): void {
    const [source, target] = [this.volume(from), this.volume(to)];
    const begunAt = this.#now++;
    const writes: Submitted[] = [];
    const write = (begin: number, end: number, value: number): ModelWrite => {
      const write: ModelWrite = {
        id,
        kind: 'write',
        begin,
        end,
        value,
        begunAt,
        endAt: Infinity,
        ok: false,
        durable: false,
        isDoubted: false,
        isAcknowledged: false,
        isCopied: true,
      };
      writes.push({ write, volume: target });
      return write;
    };
    const sourceTokens = source.tokens.slice();
    const copy: ModelCopy = { source, sourceBegin, target, begin, end, write, sourceTokens };
    this.#copies.set(id, { copy, writes });
    target.beginCopy(copy);
  }

  endCopy(id: number, ok: boolean, durable: boolean): void {
    const { copy, writes } = this.#copies.get(id)!;
    this.#copies.delete(id);
    const endAt = this.#now++;
    const isDoubted = writes.some(({ write }) => write.isDoubted);
    for (const { write } of writes) {
      write.endAt = endAt;
      write.ok = ok && !write.isDoubted;
      write.isAcknowledged = ok && write.isDoubted;
    }
    copy.target.endCopy(copy, ok && !isDoubted);
    const done = writes.filter(({ write }) => write.ok);
    if (durable) this.#settle(done);
    else this.#unflushed.push(...done);
  }

  /** A flush of `volume` is submitted, or of all of them. */
  beginFlush(id: number, volume: string | null): void {
    const flushed = volume === null ? null : this.volume(volume);
    this.#flushes.set(
      id,
      this.#unflushed.filter((entry) => flushed === null || entry.volume === flushed),
    );
  }

  endFlush(id: number, ok: boolean): void {
    const covered = this.#flushes.get(id)!;
    this.#flushes.delete(id);
    if (ok) this.#settle(covered);
  }

  create(name: string, sectorCount: number, blockSectors: number): void {
    this.#begin(() => this.#with(name, new VolumeModel(sectorCount, blockSectors)));
  }

  /** Snapshots of several volumes at one moment: `[origin, snapshot]`. */
  snapshot(pairs: readonly (readonly [string, string])[]): void {
    const taken = pairs.map(([origin, name]) => ({
      name,
      origin: this.volume(origin),
      copy: this.volume(origin).snapshot(),
    }));
    this.#begin(
      () => new Map([...this.volumes, ...taken.map(({ name, copy }) => [name, copy] as const)]),
      (ok) => {
        for (const { origin, copy } of taken) origin.snapshotTaken(copy, this.#now++);
        if (ok) for (const { name, copy } of taken) this.volumes.set(name, copy);
      },
    );
  }

  delete(name: string): void {
    this.#begin(() => new Map([...this.volumes].filter(([other]) => other !== name)));
  }

  rename(name: string, to: string): void {
    this.#begin(() => new Map([...this.volumes].map(([key, volume]) => [key === name ? to : key, volume])));
  }

  /** Nothing is in flight on the volume. */
  rollback(name: string, snapshot: string): void {
    const origin = this.volume(snapshot);
    const copy = origin.snapshot();
    this.#begin(
      () => this.#with(name, copy),
      (ok) => {
        origin.snapshotTaken(copy, this.#now++);
        if (ok) this.volumes.set(name, copy);
      },
    );
  }

  /** Nothing is in flight beyond the smaller size. */
  resize(name: string, sectorCount: number): void {
    const volume = this.volume(name);
    volume.beginResize(sectorCount);
    this.#begin(
      () => this.#with(name, volume.copy().resize(sectorCount, this.newToken)),
      (ok) => {
        if (ok) volume.resize(sectorCount, this.newToken);
        else volume.resizeRefused();
      },
    );
  }

  /** The administrative call has been answered; `inDoubt`: with an error, but it may be done all the same, now or when the pool is opened again. */
  answered(ok: boolean, inDoubt: boolean = false): void {
    if (inDoubt) this.alternative = this.pending!.after();
    this.pending!.answered(ok);
    this.pending = null;
  }

  /** What was in doubt is done, or not. */
  resolve(isDone: boolean): void {
    if (isDone && this.alternative !== null) this.volumes = this.alternative;
    this.alternative = null;
  }

  /** A transaction was aborted: what is not durable may be gone, or not. */
  doubt(): void {
    for (const volume of this.volumes.values()) volume.doubt();
    this.#unflushed = [];
    for (const covered of this.#flushes.values()) covered.length = 0;
  }

  #begin(after: () => Volumes, answered?: (ok: boolean) => void): void {
    assert(this.pending === null, 'administrative calls take turns');
    const replace = (ok: boolean): void => {
      if (ok) this.volumes = after();
    };
    this.pending = { after, answered: answered ?? replace };
  }

  #with(name: string, volume: VolumeModel): Volumes {
    return new Map([...this.volumes, [name, volume]]);
  }

  #settle(entries: readonly Submitted[]): void {
    const settled = new Set(entries.map(({ write }) => write));
    for (const { write, volume } of entries) {
      write.durable = true;
      volume.prune(write.begin, write.end);
    }
    this.#unflushed = this.#unflushed.filter(({ write }) => !settled.has(write));
  }
}
