import { writeU32LE, writeU64LE } from '../../src/base/bytes.ts';
import type { RingAtomics } from '../../src/tcmu/command-ring.ts';
import * as mb from '../../src/tcmu/mailbox.ts';

/** What the initiator gets. */
export interface Completion {
  readonly id: number;
  readonly tag: number;
  readonly status: number;
  readonly sense: Uint8Array;
  /** Data-In as it reaches the initiator; empty where the kernel copies nothing back. */
  readonly data: Uint8Array;
  readonly unknownOp: boolean;
}

export interface KernelCommand {
  /** The caller's own name for it. */
  readonly tag: number;
  readonly cdb: Uint8Array;
  /** Data-Out, or null. */
  readonly dataOut: Uint8Array | null;
  /** Bytes of room for Data-In; 0 for none. */
  readonly dataInLength: number;
}

interface Outstanding {
  readonly command: KernelCommand;
  readonly blocks: number[];
}

const PAGE = 4096;
const POISON = 0xdb;
const POISONED_PAGE = Buffer.alloc(PAGE, POISON);

/** Plain accesses: the tests play both sides on one thread. */
export const plainAtomics: RingAtomics = {
  atomicLoadAcquire32: (bytes, offset) => new DataView(bytes.buffer, bytes.byteOffset).getUint32(offset, true),
  atomicStoreRelease32: (bytes, offset, value) =>
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(offset, value, true),
};

/**
 * A model of the kernel's side (target_core_user) of one ring: allocates entries, ids and data pages, wraps with PAD entries, sends
 * task management notices, and reads responses as the kernel does. Pages that no command uses are poisoned; `strayWrites` finds
 * whoever wrote to them, and a read of one shows up as poison in somebody's data.
 */
export class KernelRing {
  readonly memory: Uint8Array;
  readonly ringSize: number;
  readonly #view: DataView;
  readonly #pageUsed: boolean[];
  readonly #outstanding = new Map<number, Outstanding>();
  #head = 0;
  #lastCleaned = 0;
  /** What the kernel says when it marks a device broken. */
  broken: string | null = null;
  completions: Completion[] = [];
  doorbells = 0;

  constructor(ringSize: number, pages: number) {
    this.ringSize = ringSize;
    this.memory = new Uint8Array(mb.MAILBOX_SIZE + ringSize + pages * PAGE);
    this.#view = new DataView(this.memory.buffer);
    this.#view.setUint16(0, mb.MAILBOX_VERSION, true);
    this.#view.setUint16(2, 0xf, true);
    this.#view.setUint32(4, mb.MAILBOX_SIZE, true);
    this.#view.setUint32(8, ringSize, true);
    this.#pageUsed = new Array(pages).fill(false);
    this.memory.fill(POISON, this.#dataOffset);
  }

  get #dataOffset(): number {
    return mb.MAILBOX_SIZE + this.ringSize;
  }

  get outstanding(): number {
    return this.#outstanding.size;
  }

  get head(): number {
    return this.#head;
  }

  get tail(): number {
    return this.#view.getUint32(mb.CMD_TAIL_OFFSET, true);
  }

  outstandingIds(): number[] {
    return [...this.#outstanding.keys()];
  }

  /** False: no room on the ring or in the data area; it would wait in the kernel. */
  submit(command: KernelCommand): boolean {
    const lengthBytes = command.dataOut?.length ?? command.dataInLength;
    const blocks = this.#findPages(Math.ceil(lengthBytes / PAGE));
    if (blocks === null) return false;
    const pieces = this.#pieces(blocks, lengthBytes);
    const baseSize = Math.max(mb.CMD_IOVS + pieces.length * mb.IOV_SIZE, mb.CMD_MIN_SIZE);
    const size = baseSize + Math.ceil(command.cdb.length / 8) * 8;
    const at = this.#makeRoom(size);
    if (at === -1) return false;
    let id = 1;
    while (this.#outstanding.has(id)) id++;
    for (const block of blocks) this.#pageUsed[block] = true;
    this.#outstanding.set(id, { command, blocks });
    if (command.dataOut !== null) {
      let done = 0;
      for (const [base, length] of pieces) {
        this.memory.set(command.dataOut.subarray(done, done + length), base);
        done += length;
      }
    }
    // Data-In pages are not zeroed: what is in them stays until the handler writes them.
    this.memory.fill(0, at, at + size);
    writeU32LE(this.memory, at, size | mb.EntryOp.CMD);
    this.#view.setUint16(at + mb.ENTRY_CMD_ID, id, true);
    writeU32LE(this.memory, at + mb.CMD_IOV_COUNT, pieces.length);
    writeU64LE(this.memory, at + mb.CMD_CDB_OFFSET, at + baseSize);
    pieces.forEach(([base, length], i) => {
      writeU64LE(this.memory, at + mb.CMD_IOVS + i * mb.IOV_SIZE, base);
      writeU64LE(this.memory, at + mb.CMD_IOVS + i * mb.IOV_SIZE + 8, length);
    });
    this.memory.set(command.cdb, at + baseSize);
    this.#publish(size);
    return true;
  }

  /** A task management notice for the commands with these ids. */
  notifyAbort(ids: readonly number[]): boolean {
    const size = Math.ceil((mb.TMR_IDS + ids.length * 2) / 8) * 8;
    const at = this.#makeRoom(size);
    if (at === -1) return false;
    this.memory.fill(0, at, at + size);
    writeU32LE(this.memory, at, size | mb.EntryOp.TMR);
    this.memory[at + mb.TMR_TYPE] = mb.TmrType.ABORT_TASK;
    writeU32LE(this.memory, at + mb.TMR_ID_COUNT, ids.length);
    ids.forEach((id, i) => {
      this.#view.setUint16(at + mb.TMR_IDS + i * 2, id, true);
    });
    this.#publish(size);
    return true;
  }

  /** Puts raw bytes on the ring as the next entry, as a kernel with a defect would. */
  putRaw(bytes: Uint8Array): number {
    const at = this.#makeRoom(bytes.length);
    if (at === -1) throw new Error('the ring is full');
    this.memory.set(bytes, at);
    this.#publish(bytes.length);
    return at;
  }

  /** What the kernel does on the handler's write(2). */
  doorbell(): void {
    this.doorbells++;
    const tail = this.tail;
    while (this.#lastCleaned !== tail && this.broken === null) {
      const at = mb.MAILBOX_SIZE + this.#lastCleaned;
      const lenOp = this.#view.getUint32(at, true);
      const op = lenOp & mb.ENTRY_OP_MASK;
      if (op === mb.EntryOp.CMD) this.#complete(at);
      this.#lastCleaned = (this.#lastCleaned + lenOp - op) % this.ringSize;
    }
  }

  /** Offsets of bytes written in pages that belong to no command. */
  strayWrites(): number[] {
    const found: number[] = [];
    this.#pageUsed.forEach((used, page) => {
      if (used) return;
      const begin = this.#dataOffset + page * PAGE;
      if (POISONED_PAGE.equals(this.memory.subarray(begin, begin + PAGE))) return;
      for (let i = begin; i < begin + PAGE; i++) if (this.memory[i] !== POISON) found.push(i);
    });
    return found;
  }

  #complete(at: number): void {
    const id = this.#view.getUint16(at + mb.ENTRY_CMD_ID, true);
    const entry = this.#outstanding.get(id);
    if (entry === undefined) {
      this.broken = `cmd_id ${id} not found, ring is broken`;
      return;
    }
    this.#outstanding.delete(id);
    const flags = this.memory[at + mb.ENTRY_UFLAGS]!;
    const status = this.memory[at + mb.RESPONSE_STATUS]!;
    const readLength = this.#view.getUint32(at + mb.RESPONSE_READ_LENGTH, true);
    const wanted = entry.command.dataInLength;
    const lengthValid = (flags & mb.EntryFlag.READ_LENGTH) !== 0 && readLength > 0;
    let length = lengthValid ? Math.min(readLength, wanted) : wanted;
    if (status === 2 && !lengthValid) length = 0;
    const data = new Uint8Array(length);
    let done = 0;
    for (const [base, pieceLength] of this.#pieces(entry.blocks, wanted)) {
      const take = Math.min(pieceLength, length - done);
      data.set(this.memory.subarray(base, base + take), done);
      done += take;
    }
    for (const block of entry.blocks) {
      this.#pageUsed[block] = false;
      const begin = this.#dataOffset + block * PAGE;
      this.memory.fill(POISON, begin, begin + PAGE);
    }
    const sense = this.memory.slice(at + mb.RESPONSE_SENSE, at + mb.RESPONSE_SENSE + mb.RESPONSE_SENSE_SIZE);
    this.completions.push({ id, tag: entry.command.tag, status, sense, data, unknownOp: (flags & 1) !== 0 });
  }

  /** Lowest free pages first, as the kernel's bitmap gives them: neighbours merge into one piece. */
  #findPages(count: number): number[] | null {
    const found: number[] = [];
    for (let page = 0; page < this.#pageUsed.length && found.length < count; page++) {
      if (!this.#pageUsed[page]) found.push(page);
    }
    return found.length === count ? found : null;
  }

  #pieces(blocks: readonly number[], lengthBytes: number): [base: number, length: number][] {
    const pieces: [number, number][] = [];
    let left = lengthBytes;
    blocks.forEach((block, i) => {
      const take = Math.min(PAGE, left);
      left -= take;
      const last = pieces.at(-1);
      if (last !== undefined && blocks[i - 1] === block - 1) last[1] += take;
      else pieces.push([this.#dataOffset + block * PAGE, take]);
    });
    return pieces;
  }

  /** Room for an entry in one piece, with a PAD up to the ring's end where needed; its position in memory, or -1. */
  #makeRoom(size: number): number {
    const used = (this.#head - this.#lastCleaned + this.ringSize) % this.ringSize;
    const free = this.ringSize - used - 8;
    const toEnd = this.ringSize - this.#head;
    const needed = size <= toEnd ? size : toEnd + size;
    if (needed > free) return -1;
    if (size > toEnd) {
      const at = mb.MAILBOX_SIZE + this.#head;
      this.memory.fill(0, at, at + 8);
      writeU32LE(this.memory, at, toEnd | mb.EntryOp.PAD);
      this.#publish(toEnd);
    }
    return mb.MAILBOX_SIZE + this.#head;
  }

  #publish(size: number): void {
    this.#head = (this.#head + size) % this.ringSize;
    this.#view.setUint32(mb.CMD_HEAD_OFFSET, this.#head, true);
  }
}
