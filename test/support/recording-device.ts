import { assert } from '../../src/base/assert.ts';
import type { Errno } from '../../src/base/errors.ts';
import { SECTOR_SIZE } from '../../src/base/units.ts';
import type { BlockDevice, IoCompletion } from '../../src/block/block-device.ts';
import { WrappedDevice } from './wrapped-device.ts';

/** Counts events; devices that share one can be crashed at the same moment. */
export interface Timeline {
  /** Events so far. A crash position `p` in `[0, now]` is the moment after event `p - 1` and before event `p`. */
  now: number;
}

/** A change that was asked for. Positions count events: see `Timeline`. */
export interface RecordedChange {
  readonly kind: 'write' | 'zeroes';
  readonly offset: number;
  readonly length: number;
  /** Null for zeroes. */
  readonly bytes: Uint8Array | null;
  /** When it was asked for. */
  readonly begunAt: number;
  /** When it had succeeded; infinite while it has not. */
  doneAt: number;
  /** When a flush that began after that had succeeded: from there on no crash loses it. */
  durableAt: number;
}

/** Of one sector of a change that is not durable: whether it reached the medium. */
export type Survives = (change: RecordedChange, sector: number) => boolean;

/** Nothing that is not durable survives: the worst that a write cache may do. */
export const nothingSurvives: Survives = () => false;
/** Everything that was asked for survives: a crash of the program alone. */
export const everythingSurvives: Survives = () => true;

/**
 * A device that remembers every change and flush in order, and can build what the medium may hold after a crash at any moment:
 * every durable change, and of the others, sector by sector, whatever `Survives` says. Changes apply in the order in which
 * they were asked for. A discard counts as zeroes, as it does on files.
 *
 * It takes a copy of the contents when it is made and keeps a copy of everything written, so it is for small devices. It grows, but
 * does not shrink.
 */
export class RecordingDevice extends WrappedDevice {
  readonly #baseline: Uint8Array;
  readonly #sizes: { at: number; sizeBytes: number }[] = [];
  /** In the order in which they were asked for. */
  readonly changes: RecordedChange[] = [];
  /** Flushes that have succeeded: when each began and ended. */
  readonly flushes: { begunAt: number; doneAt: number }[] = [];
  readonly timeline: Timeline;
  /** Changes below this index are durable at `#settledAt` and part of `#settled`. */
  #settledCount = 0;
  #settledAt = 0;
  #settled: Uint8Array | null = null;

  constructor(inner: BlockDevice, timeline: Timeline = { now: 0 }) {
    super(inner);
    this.timeline = timeline;
    this.#baseline = new Uint8Array(inner.sizeBytes);
    if (inner.sizeBytes > 0) inner.readSync(0, this.#baseline, 0, inner.sizeBytes);
    this.#sizes.push({ at: timeline.now, sizeBytes: inner.sizeBytes });
  }

  /** Begins and ends of changes and flushes so far, here and on whatever shares the timeline. */
  get eventCount(): number {
    return this.timeline.now;
  }

  /** Changes that a crash at `position` may lose. */
  changesInDoubt(position: number): RecordedChange[] {
    return this.changes.filter((change) => change.begunAt < position && change.durableAt >= position);
  }

  /** The contents of the medium after a crash at `position`. Cheap when positions only grow from call to call. */
  imageAt(position: number, survives: Survives): Uint8Array {
    assert(position >= 0 && position <= this.eventCount, 'a crash outside of what was recorded');
    const image = this.#settledImage(position).slice();
    for (let i = this.#settledCount; i < this.changes.length; i++) {
      const change = this.changes[i]!;
      if (change.begunAt >= position) break;
      if (change.durableAt < position) apply(image, change, change.offset, change.offset + change.length);
      else applySurvivors(image, change, survives);
    }
    return resized(image, this.#sizes.findLast(({ at }) => at <= position)!.sizeBytes);
  }

  #settledImage(position: number): Uint8Array {
    if (this.#settled === null || position < this.#settledAt) {
      const largest = Math.max(...this.#sizes.map(({ sizeBytes }) => sizeBytes));
      this.#settled = resized(this.#baseline, largest);
      this.#settledCount = 0;
    }
    this.#settledAt = position;
    for (; this.#settledCount < this.changes.length; this.#settledCount++) {
      const change = this.changes[this.#settledCount]!;
      if (change.durableAt >= position) break;
      apply(this.#settled, change, change.offset, change.offset + change.length);
    }
    return this.#settled;
  }

  override write(
    offset: number,
    memory: Uint8Array,
    memoryOffset: number,
    length: number,
    completion: IoCompletion,
  ): void {
    const end = this.#changeEnd('write', offset, length, memory.slice(memoryOffset, memoryOffset + length), completion);
    this.inner.write(offset, memory, memoryOffset, length, end);
  }

  override flush(completion: IoCompletion): void {
    const begunAt = this.timeline.now++;
    const ioDone = (error: Errno | null): void => {
      if (error === null) this.#flushed(begunAt);
      completion.ioDone(error);
    };
    this.inner.flush({ ioDone });
  }

  override discard(offset: number, length: number, completion: IoCompletion): void {
    this.inner.discard(offset, length, this.#changeEnd('zeroes', offset, length, null, completion));
  }

  override writeZeroes(offset: number, length: number, completion: IoCompletion): void {
    this.inner.writeZeroes(offset, length, this.#changeEnd('zeroes', offset, length, null, completion));
  }

  override writeSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    const change = this.#begin('write', offset, length, memory.slice(memoryOffset, memoryOffset + length));
    this.inner.writeSync(offset, memory, memoryOffset, length);
    change.doneAt = this.timeline.now++;
  }

  override flushSync(): void {
    const begunAt = this.timeline.now++;
    this.inner.flushSync();
    this.#flushed(begunAt);
  }

  override resize(sizeBytes: number): void {
    assert(sizeBytes >= this.sizeBytes, 'a recorded device only grows');
    this.inner.resize(sizeBytes);
    this.#sizes.push({ at: this.timeline.now, sizeBytes });
    this.#settled = null;
  }

  #begin(kind: RecordedChange['kind'], offset: number, length: number, bytes: Uint8Array | null): RecordedChange {
    const never = Number.POSITIVE_INFINITY;
    const change = { kind, offset, length, bytes, begunAt: this.timeline.now++, doneAt: never, durableAt: never };
    this.changes.push(change);
    return change;
  }

  /** Records the beginning; the completion that records the end. What failed stays in doubt for ever. */
  #changeEnd(
    kind: RecordedChange['kind'],
    offset: number,
    length: number,
    bytes: Uint8Array | null,
    completion: IoCompletion,
  ): IoCompletion {
    const change = this.#begin(kind, offset, length, bytes);
    const ioDone = (error: Errno | null): void => {
      if (error === null) change.doneAt = this.timeline.now++;
      completion.ioDone(error);
    };
    return { ioDone };
  }

  #flushed(begunAt: number): void {
    const doneAt = this.timeline.now++;
    this.flushes.push({ begunAt, doneAt });
    for (let i = this.changes.length - 1; i >= 0; i--) {
      const change = this.changes[i]!;
      if (change.doneAt < begunAt) change.durableAt = Math.min(change.durableAt, doneAt);
    }
  }
}

function resized(bytes: Uint8Array, length: number): Uint8Array {
  const result = new Uint8Array(length);
  result.set(bytes.subarray(0, length));
  return result;
}

/** The part of the change in `[begin, end)` of the device. */
function apply(image: Uint8Array, change: RecordedChange, begin: number, end: number): void {
  if (change.bytes === null) image.fill(0, begin, end);
  else image.set(change.bytes.subarray(begin - change.offset, end - change.offset), begin);
}

function applySurvivors(image: Uint8Array, change: RecordedChange, survives: Survives): void {
  const changeEnd = change.offset + change.length;
  for (let begin = change.offset; begin < changeEnd; ) {
    const sector = Math.floor(begin / SECTOR_SIZE);
    const end = Math.min((sector + 1) * SECTOR_SIZE, changeEnd);
    if (survives(change, sector)) apply(image, change, begin, end);
    begin = end;
  }
}
