import { readU32LE, readU64LE, writeU16LE, writeU32LE } from '../base/bytes.ts';
import type { IoVector } from '../block/io-vector.ts';
import { Status } from '../scsi/spec.ts';
import { MAX_CDB_SIZE } from '../scsi/task.ts';
import * as mb from './mailbox.ts';
import type { RingTask } from './ring-task.ts';

/** Length of a CDB by the group code in the top bits of its first byte; what is reserved or the vendor's, as Linux takes it. */
const CDB_LENGTH_BY_GROUP: readonly number[] = [6, 10, 10, 12, 16, 12, 10, 10];
const VARIABLE_LENGTH_CDB = 0x7f;

/**
 * Fills the task's CDB and pieces from the CMD entry of `length` bytes at `at`, both of which have been checked; returns what is wrong with the entry, or null. The
 * response will overwrite all of it.
 */
export function decodeCommand(
  memory: Uint8Array,
  layout: mb.MailboxLayout,
  at: number,
  length: number,
  task: RingTask,
): string | null {
  const iovCount = readU32LE(memory, at + mb.CMD_IOV_COUNT);
  const bidiCount = readU32LE(memory, at + mb.CMD_IOV_BIDI_COUNT);
  const difCount = readU32LE(memory, at + mb.CMD_IOV_DIF_COUNT);
  const listed = iovCount + bidiCount + difCount;
  const iovsEnd = mb.CMD_IOVS + listed * mb.IOV_SIZE;
  if (iovsEnd > length) return `${listed} pieces do not fit into its ${length} bytes`;
  const cdbAt = readU64LE(memory, at + mb.CMD_CDB_OFFSET);
  if (cdbAt < at + iovsEnd || cdbAt >= at + length) return `its CDB is at ${cdbAt}, outside of the entry`;

  const opcode = memory[cdbAt]!;
  const room = at + length - cdbAt;
  let cdbLength = CDB_LENGTH_BY_GROUP[opcode >>> 5]!;
  if (opcode === VARIABLE_LENGTH_CDB) cdbLength = room < 8 ? 8 : Math.min(8 + memory[cdbAt + 7]!, MAX_CDB_SIZE);
  if (cdbLength > room) return `its CDB has ${cdbLength} bytes, there are ${room}`;
  for (let i = 0; i < cdbLength; i++) task.cdb[i] = memory[cdbAt + i]!;
  task.cdbLength = cdbLength;

  const iovsAt = at + mb.CMD_IOVS;
  return (
    decodePieces(memory, layout, task.buffer, iovsAt, iovCount) ??
    decodePieces(memory, layout, task.bidiBuffer, iovsAt + iovCount * mb.IOV_SIZE, bidiCount)
  );
}

function decodePieces(
  memory: Uint8Array,
  layout: mb.MailboxLayout,
  vector: IoVector,
  at: number,
  count: number,
): string | null {
  vector.clear();
  vector.memory = memory;
  for (let i = 0; i < count; i++) {
    const base = readU64LE(memory, at + i * mb.IOV_SIZE);
    const length = readU64LE(memory, at + i * mb.IOV_SIZE + 8);
    if (base < layout.dataOffset || length > layout.mapSize || base + length > layout.mapSize) {
      vector.clear();
      return `piece ${i} is ${length} bytes at ${base}, outside of the data area`;
    }
    vector.push(base, length);
  }
  return null;
}

/** Writes the response of `task` over the CMD entry at `at`, whose length stays; `readLength` 0: all of Data-In goes back. */
export function encodeResponse(memory: Uint8Array, at: number, task: RingTask, readLength: number): void {
  writeU16LE(memory, at + mb.ENTRY_CMD_ID, task.cmdId);
  memory[at + mb.ENTRY_UFLAGS] = readLength > 0 ? mb.EntryFlag.READ_LENGTH : 0;
  memory[at + mb.RESPONSE_STATUS] = task.status;
  writeU32LE(memory, at + mb.RESPONSE_READ_LENGTH, readLength);
  if (task.status !== Status.CHECK_CONDITION) return;
  for (let i = 0; i < mb.RESPONSE_SENSE_SIZE; i++) {
    memory[at + mb.RESPONSE_SENSE + i] = i < task.senseLength ? task.sense[i]! : 0;
  }
}
