import { readU32BE, writeU32BE } from '../../src/base/bytes.ts';
import type { Nexus } from '../../src/scsi/nexus.ts';
import { MAX_SENSE_SIZE, type ScsiTask } from '../../src/scsi/task.ts';
import type { UnitAttention } from '../../src/scsi/unit-attention.ts';
import type { RingUnit } from '../../src/tcmu/ring-host.ts';

/** What a command made with `makeCdb` is to do. BIDI takes its Data-Out and returns as READ does; CHECK_DATA returns data and sense data. */
export const Kind = {
  WRITE: 0,
  READ: 1,
  NOTHING: 2,
  CHECK: 3,
  BUSY: 4,
  REFUSED: 5,
  CHECK_DATA: 6,
  BIDI: 7,
} as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

/**
 * A CDB that carries what the fake unit shall do with `length` bytes; `tag` is below 2^32. `cdbLength` is 10, 12, 16, or above that, for a CDB of variable length,
 * 8 more than a multiple of 4; the rest of it depends on the tag.
 */
export function makeCdb(kind: Kind, tag: number, length: number, cdbLength = 10): Uint8Array {
  const cdb = new Uint8Array(cdbLength);
  for (let i = 10; i < cdbLength; i++) cdb[i] = tag + i;
  cdb[0] = cdbLength === 10 ? 0x28 : cdbLength === 12 ? 0xa8 : cdbLength === 16 ? 0x88 : 0x7f;
  let at = 1;
  if (cdbLength > 16) {
    cdb[7] = cdbLength - 8;
    at = 8;
  }
  cdb[at] = kind;
  writeU32BE(cdb, at + 1, tag);
  writeU32BE(cdb, at + 5, length);
  return cdb;
}

const PATTERN_PERIOD = 8191;
const PATTERN_SOURCE = new Uint8Array(PATTERN_PERIOD + 256 * 1024);
for (let i = 0; i < PATTERN_SOURCE.length; i++) {
  PATTERN_SOURCE[i] = i < PATTERN_PERIOD ? (Math.imul(i + 1, 0x9e3779b1) >>> 24) & 0x7f : PATTERN_SOURCE[i - 8191]!;
}

/** The bytes that a command with this tag transfers, all below 0x80; not to be written to. Up to 256 KiB. */
export function pattern(tag: number, length: number): Uint8Array {
  const begin = (tag * 31) % PATTERN_PERIOD;
  return PATTERN_SOURCE.subarray(begin, begin + length);
}

export const SENSE: Uint8Array = Uint8Array.of(0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0, 0, 0);

/** All that reaches the initiator of a command with this tag: sense data of some length, and nothing behind it. */
export function senseOf(tag: number): Uint8Array {
  const sense = new Uint8Array(MAX_SENSE_SIZE);
  sense.set(SENSE);
  sense.fill(0x55, SENSE.length, senseLengthOf(tag));
  return sense;
}

function senseLengthOf(tag: number): number {
  return SENSE.length + (tag % (MAX_SENSE_SIZE - SENSE.length + 1));
}

/** Does what the CDB says, when it is told to: completes in any order, or at once. */
export class FakeUnit implements RingUnit {
  readonly pending: ScsiTask[] = [];
  immediate = false;
  /** Data-Out that came with each tag. */
  readonly written = new Map<number, Uint8Array>();
  readonly aborted: number[] = [];
  /** Resets, and those of them that have ended. */
  resets = 0;
  resetsEnded = 0;
  attentionsCleared = 0;
  /** Called before a command begins and before it ends: whoever knows what memory it may use looks at its pieces. */
  inspect: ((task: ScsiTask) => void) | null = null;
  readonly #resetting: { tasks: Set<ScsiTask>; ended: () => void }[] = [];

  prepare(task: ScsiTask): boolean {
    const kind = kindOf(task);
    const length = readU32BE(task.cdb, begin(task) + 5);
    const returns = kind === Kind.READ || kind === Kind.BIDI || kind === Kind.CHECK_DATA;
    task.dataOutLength = kind === Kind.WRITE || kind === Kind.BIDI ? Math.min(length, task.expectedDataOut) : 0;
    task.dataInLength = returns ? Math.min(length, task.expectedDataIn) : 0;
    this.inspect?.(task);
    if (kind === Kind.REFUSED) {
      this.#check(task);
      return false;
    }
    return true;
  }

  execute(task: ScsiTask): void {
    this.inspect?.(task);
    this.pending.push(task);
    if (this.immediate) this.complete(this.pending.length - 1);
  }

  abort(task: ScsiTask): void {
    task.aborted = true;
  }

  reset(_by: Nexus | null, ended: () => void): void {
    this.resets++;
    for (const task of this.pending) task.aborted = true;
    const reset = { tasks: new Set(this.pending), ended };
    this.#resetting.push(reset);
    this.#endResets(null);
  }

  clearAttention(_nexus: Nexus, _kind: UnitAttention): void {
    this.attentionsCleared++;
  }

  complete(index: number): void {
    const [task] = this.pending.splice(index, 1) as [ScsiTask];
    this.inspect?.(task);
    const kind = kindOf(task);
    const tag = tagOf(task);
    task.status = 0;
    if (task.aborted) {
      this.aborted.push(tag);
      task.status = 0x40;
      task.dataInLength = 0;
    } else if (kind === Kind.CHECK) this.#check(task);
    else if (kind === Kind.BUSY) task.status = 8;
    else this.#transfer(task, kind, tag);
    task.owner.taskDone(task);
    this.#endResets(task);
  }

  #transfer(task: ScsiTask, kind: Kind, tag: number): void {
    if (task.dataOutLength > 0) {
      const bytes = new Uint8Array(task.dataOutLength);
      task.dataOut.copyTo(bytes, 0, 0, bytes.length);
      this.written.set(tag, bytes);
    }
    const { dataInLength } = task;
    if (dataInLength > 0) task.dataIn.copyFrom(pattern(tag, dataInLength), 0, 0, dataInLength);
    if (kind === Kind.CHECK_DATA) {
      this.#check(task);
      task.dataInLength = dataInLength;
    }
  }

  #check(task: ScsiTask): void {
    task.status = 2;
    task.sense.set(senseOf(tagOf(task)));
    task.senseLength = senseLengthOf(tagOf(task));
    task.sense.fill(0xaa, task.senseLength);
    task.dataInLength = 0;
  }

  #endResets(task: ScsiTask | null): void {
    for (let i = this.#resetting.length - 1; i >= 0; i--) {
      const { tasks, ended } = this.#resetting[i]!;
      if (task !== null) tasks.delete(task);
      if (tasks.size > 0) continue;
      this.#resetting.splice(i, 1);
      this.resetsEnded++;
      ended();
    }
  }
}

/** Where the fields of `makeCdb` begin. */
function begin(task: ScsiTask): number {
  return task.cdb[0] === 0x7f ? 8 : 1;
}

export function tagOf(task: ScsiTask): number {
  return readU32BE(task.cdb, begin(task) + 1);
}

function kindOf(task: ScsiTask): Kind {
  return task.cdbLength < 10 ? Kind.NOTHING : (task.cdb[begin(task)] as Kind);
}
