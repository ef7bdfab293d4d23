import { writeU16LE, writeU32LE } from '../base/bytes.ts';
import type { IoVector } from '../block/io-vector.ts';
import { Status } from '../scsi/spec.ts';
import { MAX_CDB_SIZE } from '../scsi/task.ts';
import * as mb from './mailbox.ts';
import type { RingTask } from './ring-task.ts';

/** Length of a CDB by the group code in the top bits of its first byte; what is reserved or the vendor's, as Linux takes it. */
const CDB_LENGTH_BY_GROUP: readonly number[] = [6, 10, 10, 12, 16, 12, 10, 10];
const VARIABLE_LENGTH_CDB = 0x7f;

const TWO_32 = 2 ** 32;
/** In words of 32 bits from the entry's begin. Constants of this module are in the compiled code, those of another are loaded. */
const IOV_COUNT = mb.CMD_IOV_COUNT / 4;
const BIDI_COUNT = mb.CMD_IOV_BIDI_COUNT / 4;
const DIF_COUNT = mb.CMD_IOV_DIF_COUNT / 4;
const CDB_OFFSET = mb.CMD_CDB_OFFSET / 4;
const IOVS = mb.CMD_IOVS / 4;
const IOV_WORDS = mb.IOV_SIZE / 4;

/** The ring as bytes and, from the same begin, as words: entries are at multiples of 8. */
export interface RingBytes {
  readonly memory: Uint8Array;
  readonly words: Uint32Array;
}

/**
 * Fills the task's CDB and pieces from the CMD entry of `length` bytes at `at`, both of which have been checked; returns what is wrong with the entry, or null. The
 * response will overwrite all of it.
 */
export function decodeCommand(
  { memory, words }: RingBytes,
  layout: mb.MailboxLayout,
  at: number,
  length: number,
  task: RingTask,
): string | null {
  const word = at >>> 2;
  const iovCount = words[word + IOV_COUNT]!;
  const bidiCount = words[word + BIDI_COUNT]!;
  const listed = iovCount + bidiCount + words[word + DIF_COUNT]!;
  const iovsEnd = mb.CMD_IOVS + listed * mb.IOV_SIZE;
  if (iovsEnd > length) return `${listed} pieces do not fit into its ${length} bytes`;
  const cdbAt = words[word + CDB_OFFSET]! + words[word + CDB_OFFSET + 1]! * TWO_32;
  if (cdbAt < at + iovsEnd || cdbAt >= at + length) return `its CDB is at ${cdbAt}, outside of the entry`;

  const opcode = memory[cdbAt]!;
  const room = at + length - cdbAt;
  let cdbLength = CDB_LENGTH_BY_GROUP[opcode >>> 5]!;
  if (opcode === VARIABLE_LENGTH_CDB) cdbLength = room < 8 ? 8 : Math.min(8 + memory[cdbAt + 7]!, MAX_CDB_SIZE);
  if (cdbLength > room) return `its CDB has ${cdbLength} bytes, there are ${room}`;
  const { cdb } = task;
  for (let i = 0; i < cdbLength; i++) cdb[i] = memory[cdbAt + i]!;
  task.cdbLength = cdbLength;

  const wrong = decodePieces(memory, words, layout, task.buffer, word + IOVS, iovCount);
  if (wrong !== null || bidiCount === 0) return wrong;
  return decodePieces(memory, words, layout, task.bidiBuffer, word + IOVS + iovCount * IOV_WORDS, bidiCount);
}

/** `word` is where the first of the `count` pieces is described. */
function decodePieces(
  memory: Uint8Array,
  words: Uint32Array,
  layout: mb.MailboxLayout,
  vector: IoVector,
  word: number,
  count: number,
): string | null {
  const { dataOffset, mapSize } = layout;
  vector.clear();
  vector.memory = memory;
  for (let i = 0; i < count; i++) {
    const piece = word + i * IOV_WORDS;
    const base = words[piece]! + words[piece + 1]! * TWO_32;
    const length = words[piece + 2]! + words[piece + 3]! * TWO_32;
    if (base < dataOffset || length > mapSize || base + length > mapSize) {
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
