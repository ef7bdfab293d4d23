import { StorageError } from '../base/errors.ts';

/*
 * The memory that the kernel shares with the handler of one device (include/uapi/linux/target_core_user.h, mailbox version 2),
 * mapped whole from /dev/uioN. All fields are in the host's byte order; offsets in it count from the start of the map.
 *
 *   0            cmdr_off        cmdr_off + cmdr_size = data offset                    map size
 *   +------------+---------------+------------------------------------------------------+
 *   | mailbox    | command ring  | data area: pages that exist only while a command     |
 *   | 128 bytes  | entries       | uses them; touching any other page is a SIGBUS       |
 *   +------------+---------------+------------------------------------------------------+
 *
 *   mailbox:  0 u16 version   2 u16 flags   4 u32 cmdr_off   8 u32 cmdr_size   12 u32 cmd_head   (written by the kernel)
 *            64 u32 cmd_tail                                                                     (written by the handler)
 *
 *   entry:    0 u32 len_op (low 3 bits: op; the rest: length, a multiple of 8)
 *             4 u16 cmd_id    6 u8 kflags    7 u8 uflags (written by the handler)
 *   CMD:      8 u32 iov_cnt  12 u32 iov_bidi_cnt  16 u32 iov_dif_cnt  24 u64 cdb_off  48 {u64 base, u64 length}[]  then the CDB
 *   response, over the CMD in the slot at cmd_tail (of whichever command has finished):
 *             8 u8 status    12 u32 read_len     16 u8 sense[96]
 *   TMR:      8 u8 type      12 u32 cmd_cnt      32 u16 cmd_ids[]
 *   PAD:      nothing; fills the ring up to its end, as entries never wrap
 */

export const MAILBOX_SIZE = 128;
export const MAILBOX_VERSION = 2;
export const CMD_HEAD_OFFSET = 12;
export const CMD_TAIL_OFFSET = 64;

/** Mailbox flags: what this kernel offers. */
export const MailboxFlag = { OUT_OF_ORDER: 1, READ_LENGTH: 2, TASK_MANAGEMENT: 4, KEEP_BUFFER: 8 } as const;

export const EntryOp = { PAD: 0, CMD: 1, TMR: 2 } as const;
export const ENTRY_OP_MASK = 7;
export const ENTRY_ALIGNMENT = 8;

/**
 * `uflags` of a completed entry.
 *
 * KEEP_BUFFER (status now, data blocks later) is never set. It could end a READ that hangs as soon as it is aborted, but no WRITE: its end is what the initiator waits for before
 * it writes the same blocks again. A write that is answered before it is done is what the pool's write cache is for, and holds no part of a small data area.
 * And each buffer is given back by a write to a file of configfs, which costs more than a command.
 */
export const EntryFlag = { UNKNOWN_OP: 1, READ_LENGTH: 2, KEEP_BUFFER: 4 } as const;

export const ENTRY_CMD_ID = 4;
export const ENTRY_UFLAGS = 7;

export const CMD_IOV_COUNT = 8;
export const CMD_IOV_BIDI_COUNT = 12;
export const CMD_IOV_DIF_COUNT = 16;
export const CMD_CDB_OFFSET = 24;
export const CMD_IOVS = 48;
export const IOV_SIZE = 16;
/** The least length of a CMD entry: a response has to fit. */
export const CMD_MIN_SIZE = 112;

export const RESPONSE_STATUS = 8;
export const RESPONSE_READ_LENGTH = 12;
export const RESPONSE_SENSE = 16;
export const RESPONSE_SENSE_SIZE = 96;

export const TMR_TYPE = 8;
export const TMR_ID_COUNT = 12;
export const TMR_IDS = 32;

/** `tmr_type` of a TMR entry. */
export const TmrType = {
  UNKNOWN: 0,
  ABORT_TASK: 1,
  ABORT_TASK_SET: 2,
  CLEAR_ACA: 3,
  CLEAR_TASK_SET: 4,
  LUN_RESET: 5,
  WARM_RESET: 6,
  COLD_RESET: 7,
  LUN_RESET_BY_PREEMPT: 128,
} as const;

/** Where things are in one device's map; checked, so that ring code need not. Bytes. */
export interface MailboxLayout {
  readonly flags: number;
  readonly ringOffset: number;
  readonly ringSize: number;
  readonly dataOffset: number;
  readonly mapSize: number;
}

/**
 * Reads the fixed part of the mailbox at the start of `memory` (the whole map, at a multiple of 8 of its ArrayBuffer).
 * Throws EINVAL when it is not a layout that this handler can serve.
 */
export function readMailbox(memory: Uint8Array): MailboxLayout {
  const bad = (why: string): StorageError => new StorageError('EINVAL', `Cannot use the TCMU mailbox: ${why}`);
  if (memory.byteOffset % ENTRY_ALIGNMENT !== 0) throw bad('the map is not aligned');
  if (memory.length < MAILBOX_SIZE) throw bad(`the map has ${memory.length} bytes, a mailbox takes ${MAILBOX_SIZE}`);
  const halves = new Uint16Array(memory.buffer, memory.byteOffset, 2);
  const words = new Uint32Array(memory.buffer, memory.byteOffset, MAILBOX_SIZE / 4);
  const version = halves[0]!;
  const flags = halves[1]!;
  const ringOffset = words[1]!;
  const ringSize = words[2]!;
  if (version !== MAILBOX_VERSION) throw bad(`version is ${version}, expected ${MAILBOX_VERSION}`);
  if (ringOffset < MAILBOX_SIZE || ringOffset % ENTRY_ALIGNMENT !== 0) throw bad(`the ring begins at ${ringOffset}`);
  if (ringSize < CMD_MIN_SIZE || ringSize % ENTRY_ALIGNMENT !== 0) throw bad(`the ring has ${ringSize} bytes`);
  const dataOffset = ringOffset + ringSize;
  if (dataOffset > memory.length) {
    throw bad(`the ring ends at ${dataOffset}, behind the end of the map at ${memory.length}`);
  }
  if ((flags & MailboxFlag.OUT_OF_ORDER) === 0) throw bad('the kernel does not offer out-of-order completion');
  return { flags, ringOffset, ringSize, dataOffset, mapSize: memory.length };
}
