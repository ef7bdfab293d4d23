import { readU32BE, writeU32BE } from '../../src/base/bytes.ts';
import type { ScsiTask } from '../../src/scsi/task.ts';
import type { RingUnit } from '../../src/tcmu/command-ring.ts';

/** What a command made with `makeCdb` is to do. */
export const Kind = { WRITE: 0, READ: 1, SHORT: 2, NOTHING: 3, CHECK: 4, BUSY: 5, REFUSED: 6 } as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

/** A 10-byte CDB that carries what the fake unit shall do; `tag` is below 2^32. */
export function makeCdb(kind: Kind, tag: number, length: number): Uint8Array {
  const cdb = new Uint8Array(10);
  cdb[0] = 0x28;
  cdb[1] = kind;
  writeU32BE(cdb, 2, tag);
  writeU32BE(cdb, 6, length);
  return cdb;
}

/** The bytes that a command with this tag transfers. */
export function pattern(tag: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (tag * 31 + i * 7 + (i >>> 8)) & 0x7f;
  return bytes;
}

export const SENSE: Uint8Array = Uint8Array.of(0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0, 0, 0);

/** Does what the CDB says, when it is told to: completes in any order, or at once. */
export class FakeUnit implements RingUnit {
  readonly pending: ScsiTask[] = [];
  immediate = false;
  /** Data-Out that came with each tag. */
  readonly written = new Map<number, Uint8Array>();
  readonly aborted: number[] = [];

  prepare(task: ScsiTask): boolean {
    const kind = task.cdb[1] as Kind;
    const length = readU32BE(task.cdb, 6);
    task.dataOutLength = kind === Kind.WRITE ? Math.min(length, task.expectedDataOut) : 0;
    task.dataInLength = kind === Kind.READ || kind === Kind.SHORT ? Math.min(length, task.expectedDataIn) : 0;
    if (kind === Kind.REFUSED) {
      this.#check(task);
      return false;
    }
    return true;
  }

  execute(task: ScsiTask): void {
    this.pending.push(task);
    if (this.immediate) this.complete(this.pending.length - 1);
  }

  abort(task: ScsiTask): void {
    task.aborted = true;
  }

  complete(index: number): void {
    const [task] = this.pending.splice(index, 1) as [ScsiTask];
    const kind = task.cdb[1] as Kind;
    const tag = readU32BE(task.cdb, 2);
    task.status = 0;
    if (task.aborted) {
      this.aborted.push(tag);
      task.status = 0x40;
      task.dataInLength = 0;
    } else if (kind === Kind.WRITE) {
      const bytes = new Uint8Array(task.dataOutLength);
      task.dataOut.copyTo(bytes, 0, 0, bytes.length);
      this.written.set(tag, bytes);
    } else if (kind === Kind.READ || kind === Kind.SHORT) {
      task.dataIn.copyFrom(pattern(tag, task.dataInLength), 0, 0, task.dataInLength);
    } else if (kind === Kind.CHECK) {
      this.#check(task);
    } else if (kind === Kind.BUSY) {
      task.status = 8;
    }
    task.owner.taskDone(task);
  }

  #check(task: ScsiTask): void {
    task.status = 2;
    task.sense.set(SENSE);
    task.senseLength = SENSE.length;
    task.dataInLength = 0;
  }
}
