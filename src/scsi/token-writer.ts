import type { Command } from './command.ts';
import { copyRefusal, RESERVED } from './copy-access.ts';
import type { CopyRecord } from './copy-records.ts';
import { CopyEnd, RangeCopy, type RangeCopyOwner } from './range-copy.ts';
import type { BlockRange, RodToken } from './rod-tokens.ts';
import { COPY_CLEARED_BY_DEVICE_SERVER, NO_SENSE, type Sense } from './sense.ts';
import type { UnitState } from './unit-state.ts';

export interface TokenSource {
  readonly unit: UnitState;
  readonly token: RodToken;
}

/** Writes what a token represents to the ranges of one WRITE USING TOKEN. A token that ends meanwhile ends the command. */
export class TokenWriter implements RangeCopyOwner {
  readonly #command: Command;
  readonly #record: CopyRecord;
  readonly #ranges: readonly BlockRange[];
  /** Bytes to write; less than the ranges have when the token represents no more. */
  readonly #total: number;
  /** Null: zeroes. */
  readonly #source: TokenSource | null;
  readonly #deletes: boolean;
  readonly #copy: RangeCopy = new RangeCopy(this);
  /** Bytes of what the token represents that come before what is to be written. */
  readonly #skip: number;
  #refusal: Sense = NO_SENSE;

  constructor(
    command: Command,
    record: CopyRecord,
    ranges: readonly BlockRange[],
    total: number,
    source: TokenSource | null,
    skip: number,
    deletes: boolean,
  ) {
    this.#command = command;
    this.#record = record;
    this.#ranges = ranges;
    this.#total = total;
    this.#source = source;
    this.#skip = skip;
    this.#deletes = deletes;
    if (source !== null) source.unit.tokens.used(source.token);
  }

  /** Writes the next piece: as far as a range of the token and one of the command go on together. */
  run(): void {
    const { unit } = this.#command;
    const done = this.#record.bytes;
    const left = this.#total - done;
    if (left === 0) {
      this.#end(NO_SENSE);
      return;
    }
    const to = find(this.#ranges, unit.blockSize, done)!;
    const most = Math.min(to.length, left);
    const source = this.#source;
    const from = source && find(source.token.ranges, source.unit.blockSize, this.#skip + done);
    if (source === null || from === null) this.#copy.start(null, 0, unit, to.offset, most);
    else this.#copy.start(source.unit, from.offset, unit, to.offset, Math.min(from.length, most));
  }

  copyMayGoOn(): boolean {
    const source = this.#source;
    if (this.#isStopped() || (source !== null && source.token.ended !== NO_SENSE)) return false;
    this.#refusal = copyRefusal(this.#command, this.#command.unit, true);
    if (this.#refusal === NO_SENSE && source !== null) {
      this.#refusal = copyRefusal(this.#command, source.unit, false);
    }
    return this.#refusal === NO_SENSE;
  }

  copyAdvanced(bytes: number): void {
    this.#record.operations++;
    this.#record.bytes += bytes;
  }

  copyEnded(end: CopyEnd): void {
    if (end === CopyEnd.DONE) this.run();
    else if (end !== CopyEnd.STOPPED) this.#end(this.#copy.failure);
    else if (this.#isStopped()) this.#end(COPY_CLEARED_BY_DEVICE_SERVER);
    else this.#end(this.#refusal !== NO_SENSE ? this.#refusal : this.#source!.token.ended);
  }

  #isStopped(): boolean {
    return this.#command.task.aborted || this.#record.abortRequested;
  }

  #end(sense: Sense): void {
    const command = this.#command;
    const source = this.#source;
    if (source !== null) {
      source.unit.tokens.unused(source.token);
      if (this.#deletes && sense === NO_SENSE) source.unit.tokens.delete(source.token);
    }
    if (sense === COPY_CLEARED_BY_DEVICE_SERVER) this.#record.isTerminated = true;
    if (command.task.aborted) command.endAborted();
    else if (sense === NO_SENSE) command.finish();
    else if (sense !== RESERVED) command.fail(sense);
    else {
      command.conflict();
      command.finish();
    }
  }
}

/** Where byte `position` of `ranges`, one after the other, lies, and how far its range goes on; null behind the last one. In bytes. */
function find(
  ranges: readonly BlockRange[],
  blockSize: number,
  position: number,
): { offset: number; length: number } | null {
  let left = position;
  for (const { begin, end } of ranges) {
    const length = (end - begin) * blockSize;
    if (left < length) return { offset: begin * blockSize + left, length: length - left };
    left -= length;
  }
  return null;
}
