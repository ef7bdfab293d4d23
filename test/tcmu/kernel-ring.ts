import { writeU32LE, writeU64LE } from '../../src/base/bytes.ts';
import * as mb from '../../src/tcmu/mailbox.ts';
import type { RingAtomics } from '../../src/tcmu/ring-host.ts';
import { DataArea, type Piece } from './data-area.ts';

/** What the initiator gets. */
export interface Completion {
  /** 0: the command never got to the ring. */
  readonly id: number;
  readonly tag: number;
  readonly status: number;
  readonly sense: Uint8Array;
  /** Data-In as it reaches the initiator; empty where the kernel copies nothing back. */
  readonly data: Uint8Array;
  readonly unknownOp: boolean;
  /** The kernel has aborted it: the initiator gets nothing, or TASK ABORTED, whatever the handler has answered. */
  readonly aborted: boolean;
}

export interface KernelCommand {
  /** The caller's own name for it. */
  readonly tag: number;
  readonly cdb: Uint8Array;
  /** Data-Out, or null. */
  readonly dataOut: Uint8Array | null;
  /** Bytes of room for Data-In; 0 for none. With Data-Out, too, the command is bidirectional. */
  readonly dataInLength: number;
}

interface Outstanding {
  readonly command: KernelCommand;
  readonly id: number;
  readonly outBlocks: number[];
  readonly inBlocks: number[];
  aborted: boolean;
  /** The notice of it is on the ring. */
  noticed: boolean;
  /** Has timed out: the initiator was told, the completion will be dropped. */
  expired: boolean;
  /** Completed with KEEP_BUF. */
  kept: boolean;
}

export interface KernelRingOptions {
  readonly pagesPerBlock?: number;
  /** Of the mailbox; default all four. */
  readonly flags?: number;
}

const Status = { CHECK_CONDITION: 2, BUSY: 8, TASK_SET_FULL: 0x28, TASK_ABORTED: 0x40 } as const;
/** What the ring holds where the handler cannot know yet what is there. */
const NOT_VISIBLE = 0xee;
/** Whatever is in flight when they come is aborted. */
const RESETS: readonly number[] = [mb.TmrType.LUN_RESET, mb.TmrType.WARM_RESET, mb.TmrType.COLD_RESET];
const NO_BYTES = new Uint8Array(0);

/**
 * A model of the kernel's side (target_core_user) of one ring: allocates entries, ids (the lowest that is free) and data blocks (the lowest free ones, used again with what
 * is in them), wraps with PAD entries, lets commands wait for room, sends task management notices, reads responses as the kernel does, gives up on commands, resets, and
 * takes data pages away.
 *
 * Its memory is as weak as any processor's: what it has put on the ring is visible after `atomics` has loaded cmd_head, and of what the handler writes it sees what was
 * there when cmd_tail was stored.
 */
export class KernelRing {
  readonly memory: Uint8Array;
  readonly ringSize: number;
  readonly area: DataArea;
  readonly atomics: RingAtomics;
  readonly #view: DataView;
  readonly #outstanding = new Map<number, Outstanding>();
  /** Commands that wait for room, and notices that do. */
  readonly #waiting: KernelCommand[] = [];
  readonly #waitingNotices: { type: number; ids: number[] }[] = [];
  /** What was written at `at` of `memory` and is not visible yet. */
  readonly #hidden: { at: number; bytes: Uint8Array }[] = [];
  /** The ring as it was when cmd_tail was stored. */
  readonly #released: Uint8Array;
  #lowestId = 1;
  #head = 0;
  #tail = 0;
  #lastCleaned = 0;
  /** What the kernel says when it marks a device broken. */
  broken: string | null = null;
  /** New commands are answered BUSY. */
  blocked = false;
  completions: Completion[] = [];
  /** Gets the completions instead. */
  onCompletion: ((completion: Completion) => void) | null = null;
  /** An outstanding command that a notice may hit though it was not meant. */
  onCollateral: ((tag: number) => void) | null = null;
  doorbells = 0;
  /** An event that nobody has taken. */
  event = false;
  /** CMD, TMR and PAD entries put on the ring; how often it began anew at its begin. */
  readonly stats = { commands: 0, notices: 0, resets: 0, pads: 0, laps: 0, waited: 0 };

  constructor(ringSize: number, pages: number, options: KernelRingOptions = {}) {
    this.ringSize = ringSize;
    const dataOffset = mb.MAILBOX_SIZE + ringSize;
    this.area = new DataArea(dataOffset, pages, options.pagesPerBlock ?? 1);
    this.memory = new Uint8Array(dataOffset + this.area.sizeBytes);
    this.area.attach(this.memory);
    this.#released = new Uint8Array(ringSize);
    this.#view = new DataView(this.memory.buffer);
    this.#view.setUint16(0, mb.MAILBOX_VERSION, true);
    this.#view.setUint16(2, options.flags ?? 0xf, true);
    this.#view.setUint32(4, mb.MAILBOX_SIZE, true);
    this.#view.setUint32(8, ringSize, true);
    this.atomics = {
      atomicLoadAcquire32: (_bytes, offset) => this.#loadAcquire(offset),
      awaitChange32: (_bytes, offset, value) => this.#loadAcquire(offset) !== value,
      atomicStoreRelease32: (_bytes, offset, value) => this.#storeRelease(offset, value),
    };
  }

  get outstanding(): number {
    return this.#outstanding.size;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get head(): number {
    return this.#head;
  }

  get tail(): number {
    return this.#tail;
  }

  /** What is on the ring is visible, and so is a notice that names this command. */
  wasTold(id: number): boolean {
    return this.#hidden.length === 0 && this.#outstanding.get(id)?.noticed === true;
  }

  /** Those that the handler has to answer. */
  outstandingIds(): number[] {
    return [...this.#outstanding.keys()];
  }

  tagOf(id: number): number {
    return this.#outstanding.get(id)!.command.tag;
  }

  /** Throws unless `[offset, offset + length)` belongs to the command with this id. */
  checkOwner(id: number, offset: number, length: number): void {
    const entry = this.#outstanding.get(id);
    if (entry === undefined) throw new Error(`command ${id} is not outstanding`);
    if (!this.area.holds(entry.outBlocks, offset, length) && !this.area.holds(entry.inBlocks, offset, length)) {
      throw new Error(`bytes ${offset} to ${offset + length} are not of command ${id}`);
    }
  }

  /** Puts a command on the ring, or lets it wait for room. */
  submit(command: KernelCommand): void {
    if (this.blocked) this.#refuse(command, Status.BUSY);
    else if (this.broken !== null || this.#isTooBig(command)) this.#refuse(command, Status.CHECK_CONDITION);
    else if (this.#waiting.length > 0 || !this.#queue(command)) {
      this.stats.waited++;
      this.#waiting.push(command);
    }
  }

  /** Task management: aborts the commands with these tags, wherever they are; the notice may name more ids. */
  abort(type: number, tags: ReadonlySet<number>, moreIds: readonly number[] = []): void {
    for (let i = this.#waiting.length - 1; i >= 0; i--) {
      if (!tags.has(this.#waiting[i]!.tag)) continue;
      const [command] = this.#waiting.splice(i, 1) as [KernelCommand];
      this.#refuse(command, Status.TASK_ABORTED, true);
    }
    const ids: number[] = [];
    for (const [id, entry] of this.#outstanding) {
      if (!tags.has(entry.command.tag) || entry.expired || entry.kept) continue;
      entry.aborted = true;
      ids.push(id);
    }
    ids.push(...moreIds);
    if (RESETS.includes(type)) for (const entry of this.#outstanding.values()) this.#collateral(entry);
    if (this.#waitingNotices.length > 0 || !this.#putNotice(type, ids)) this.#waitingNotices.push({ type, ids });
  }

  /** A notice with these ids, and nothing else. */
  notify(type: number, ids: readonly number[]): void {
    if (!this.#putNotice(type, ids)) throw new Error('the ring is full');
  }

  /** cmd_time_out of this command is over. */
  expire(id: number): void {
    const entry = this.#outstanding.get(id)!;
    if (entry.expired || entry.kept) return;
    entry.expired = true;
    this.#tell(entry, Status.CHECK_CONDITION, new Uint8Array(mb.RESPONSE_SENSE_SIZE), NO_BYTES, false);
  }

  /** qfull_time_out of what waits is over. */
  expireWaiting(): void {
    for (const command of this.#waiting.splice(0)) this.#refuse(command, Status.TASK_SET_FULL);
  }

  /** `action/free_kept_buf`. */
  freeKept(id: number): void {
    const entry = this.#outstanding.get(id);
    if (entry?.kept !== true) throw new Error(`command ${id} keeps no buffer`);
    this.#free(entry);
    this.#runWaiting();
  }

  /** `action/reset_ring` with 1. */
  reset(): void {
    for (const entry of [...this.#outstanding.values()]) {
      if (!entry.expired && !entry.kept) this.#tell(entry, Status.BUSY, NO_BYTES, NO_BYTES, false);
      this.#free(entry);
    }
    this.#head = 0;
    this.#tail = 0;
    this.#lastCleaned = 0;
    this.#hidden.length = 0;
    this.#view.setUint32(mb.CMD_HEAD_OFFSET, 0, true);
    this.#view.setUint32(mb.CMD_TAIL_OFFSET, 0, true);
    this.broken = null;
    this.#waitingNotices.length = 0;
    this.#runWaiting();
  }

  /** Puts raw bytes on the ring as the next entry, as a kernel with a defect would. Position in memory. */
  putRaw(bytes: Uint8Array): number {
    const at = this.#makeRoom(bytes.length);
    if (at === -1) throw new Error('the ring is full');
    this.#publish(at, bytes);
    return at;
  }

  /** What a kernel with a defect would load as cmd_head. */
  spoilHead(head: number): void {
    this.#head = head;
  }

  /** What the kernel does on the handler's write(2). */
  doorbell(): void {
    this.doorbells++;
    const view = new DataView(this.#released.buffer);
    while (this.#lastCleaned !== this.#tail && this.broken === null) {
      const at = this.#lastCleaned;
      const lenOp = view.getUint32(at, true);
      const op = lenOp & mb.ENTRY_OP_MASK;
      if (op === mb.EntryOp.CMD && !this.#complete(view, at)) return;
      this.#lastCleaned = (at + lenOp - op) % this.ringSize;
    }
    while (this.#waitingNotices.length > 0) {
      const { type, ids } = this.#waitingNotices[0]!;
      if (!this.#putNotice(type, ids)) return;
      this.#waitingNotices.shift();
      // Others may have got these ids meanwhile.
      for (const id of ids) this.#collateral(this.#outstanding.get(id));
      if (RESETS.includes(type)) for (const entry of this.#outstanding.values()) this.#collateral(entry);
    }
    this.#runWaiting();
  }

  #collateral(entry: Outstanding | undefined): void {
    if (entry !== undefined && !entry.aborted) this.onCollateral?.(entry.command.tag);
  }

  #loadAcquire(offset: number): number {
    if (offset === mb.CMD_TAIL_OFFSET) return this.#tail;
    for (const { at, bytes } of this.#hidden) this.memory.set(bytes, at);
    this.#hidden.length = 0;
    if (this.#view.getUint32(mb.CMD_HEAD_OFFSET, true) !== this.#head) {
      this.#view.setUint32(mb.CMD_HEAD_OFFSET, this.#head, true);
    }
    return this.#head;
  }

  #storeRelease(offset: number, value: number): void {
    if (offset !== mb.CMD_TAIL_OFFSET) throw new Error('the handler writes cmd_tail only');
    const ring = mb.MAILBOX_SIZE;
    if (value >= this.#tail) {
      this.#released.set(this.memory.subarray(ring + this.#tail, ring + value), this.#tail);
    } else {
      this.#released.set(this.memory.subarray(ring + this.#tail, ring + this.ringSize), this.#tail);
      this.#released.set(this.memory.subarray(ring, ring + value));
    }
    this.#tail = value;
    this.#view.setUint32(mb.CMD_TAIL_OFFSET, value, true);
  }

  #isTooBig({ dataOut, dataInLength }: KernelCommand): boolean {
    return this.area.blocksFor(dataOut?.length ?? 0) + this.area.blocksFor(dataInLength) > this.area.blocks;
  }

  /** Answered without the handler. */
  #refuse(command: KernelCommand, status: number, aborted = false): void {
    const { tag } = command;
    const done = { id: 0, tag, status, sense: NO_BYTES, data: NO_BYTES, unknownOp: false, aborted };
    if (this.onCompletion !== null) this.onCompletion(done);
    else this.completions.push(done);
  }

  #runWaiting(): void {
    while (this.#waiting.length > 0 && this.broken === null) {
      if (this.blocked) this.#refuse(this.#waiting.shift()!, Status.BUSY);
      else if (this.#queue(this.#waiting[0]!)) this.#waiting.shift();
      else return;
    }
  }

  #queue(command: KernelCommand): boolean {
    const { dataOut, dataInLength, cdb } = command;
    const outBlocks = this.area.allocate(dataOut?.length ?? 0);
    if (outBlocks === null) return false;
    const inBlocks = this.area.allocate(dataInLength);
    if (inBlocks === null) {
      this.area.giveBack(outBlocks);
      return false;
    }
    const outPieces = this.area.pieces(outBlocks, dataOut?.length ?? 0);
    const inPieces = this.area.pieces(inBlocks, dataInLength);
    const pieces = [...outPieces, ...inPieces];
    const baseSize = Math.max(mb.CMD_IOVS + pieces.length * mb.IOV_SIZE, mb.CMD_MIN_SIZE);
    const size = baseSize + Math.ceil(cdb.length / 8) * 8;
    const at = size > this.ringSize / 2 ? -2 : this.#makeRoom(size);
    if (at < 0) {
      this.area.giveBack(outBlocks);
      this.area.giveBack(inBlocks);
      if (at === -1) return false;
      this.#refuse(command, Status.CHECK_CONDITION);
      return true;
    }
    let id = this.#lowestId;
    while (this.#outstanding.has(id)) id++;
    this.#lowestId = id + 1;
    const entry = { command, id, outBlocks, inBlocks, aborted: false, noticed: false, expired: false, kept: false };
    this.#outstanding.set(id, entry);
    if (dataOut !== null) this.area.write(outPieces, dataOut);
    // Data-In blocks are not zeroed: what is in them stays until the handler writes them.
    const bidi = dataOut !== null && dataInLength > 0;
    this.#publish(at, this.#encode(id, bidi ? outPieces.length : pieces.length, pieces, at, baseSize, size, cdb));
    this.stats.commands++;
    return true;
  }

  #encode(
    id: number,
    first: number,
    pieces: readonly Piece[],
    at: number,
    base: number,
    size: number,
    cdb: Uint8Array,
  ) {
    const bytes = new Uint8Array(size);
    writeU32LE(bytes, 0, size | mb.EntryOp.CMD);
    bytes[mb.ENTRY_CMD_ID] = id;
    bytes[mb.ENTRY_CMD_ID + 1] = id >>> 8;
    writeU32LE(bytes, mb.CMD_IOV_COUNT, first);
    writeU32LE(bytes, mb.CMD_IOV_BIDI_COUNT, pieces.length - first);
    writeU64LE(bytes, mb.CMD_CDB_OFFSET, at + base);
    for (let i = 0; i < pieces.length; i++) {
      writeU64LE(bytes, mb.CMD_IOVS + i * mb.IOV_SIZE, pieces[i]![0]);
      writeU64LE(bytes, mb.CMD_IOVS + i * mb.IOV_SIZE + 8, pieces[i]![1]);
    }
    bytes.set(cdb, base);
    return bytes;
  }

  #putNotice(type: number, ids: readonly number[]): boolean {
    const size = Math.ceil((mb.TMR_IDS + ids.length * 2) / 8) * 8;
    const at = this.#makeRoom(size);
    if (at === -1) return false;
    const bytes = new Uint8Array(size);
    writeU32LE(bytes, 0, size | mb.EntryOp.TMR);
    bytes[mb.TMR_TYPE] = type;
    writeU32LE(bytes, mb.TMR_ID_COUNT, ids.length);
    ids.forEach((id, i) => {
      bytes[mb.TMR_IDS + i * 2] = id;
      bytes[mb.TMR_IDS + i * 2 + 1] = id >>> 8;
    });
    this.#publish(at, bytes);
    for (const id of ids) {
      const entry = this.#outstanding.get(id);
      if (entry?.aborted === true) entry.noticed = true;
    }
    this.stats.notices++;
    if (RESETS.includes(type)) this.stats.resets++;
    return true;
  }

  /** Reads the response at `at` of the ring. False: the ring is broken. */
  #complete(view: DataView, at: number): boolean {
    const id = view.getUint16(at + mb.ENTRY_CMD_ID, true);
    const entry = this.#outstanding.get(id);
    if (entry === undefined) {
      this.broken = `cmd_id ${id} not found, ring is broken`;
      return false;
    }
    const flags = view.getUint8(at + mb.ENTRY_UFLAGS);
    const keeps = (flags & mb.EntryFlag.KEEP_BUFFER) !== 0;
    if (entry.kept) {
      this.broken = `cmd_id ${id} already completed with KEEP_BUF, ring is broken`;
      return false;
    }
    if (!entry.expired) this.#answer(entry, view, at, flags);
    if (keeps) {
      entry.kept = true;
      entry.expired = false;
    } else this.#free(entry);
    return true;
  }

  #answer(entry: Outstanding, view: DataView, at: number, flags: number): void {
    const { dataOut, dataInLength } = entry.command;
    const unknownOp = (flags & mb.EntryFlag.UNKNOWN_OP) !== 0;
    const status = unknownOp ? Status.CHECK_CONDITION : view.getUint8(at + mb.RESPONSE_STATUS);
    const bidi = dataOut !== null && dataInLength > 0;
    const readLength = view.getUint32(at + mb.RESPONSE_READ_LENGTH, true);
    const lengthValid = !unknownOp && dataOut === null && (flags & mb.EntryFlag.READ_LENGTH) !== 0 && readLength > 0;
    // Of a bidirectional command the kernel copies back as much as the other way.
    let length = bidi ? Math.min(dataOut.length, dataInLength) : dataInLength;
    if (lengthValid) length = Math.min(readLength, length);
    if (status === Status.CHECK_CONDITION && !lengthValid) length = 0;
    const data = this.area.read(this.area.pieces(entry.inBlocks, dataInLength), length);
    const begin = at + mb.RESPONSE_SENSE;
    const sense =
      status === Status.CHECK_CONDITION ? this.#released.slice(begin, begin + mb.RESPONSE_SENSE_SIZE) : NO_BYTES;
    this.#tell(entry, status, sense, data, unknownOp);
  }

  #tell(entry: Outstanding, status: number, sense: Uint8Array, data: Uint8Array, unknownOp: boolean): void {
    const { id, aborted, command } = entry;
    const done = { id, tag: command.tag, status, sense, data, unknownOp, aborted };
    if (this.onCompletion !== null) this.onCompletion(done);
    else this.completions.push(done);
  }

  #free(entry: Outstanding): void {
    const { id, command, inBlocks, outBlocks } = entry;
    this.#outstanding.delete(id);
    this.#lowestId = Math.min(this.#lowestId, id);
    this.area.checkSlack(inBlocks, command.dataInLength);
    this.area.giveBack(inBlocks);
    this.area.giveBack(outBlocks);
  }

  /** Room for an entry in one piece, with a PAD up to the ring's end where needed; its position in memory, or -1. */
  #makeRoom(size: number): number {
    const used = (this.#head - this.#lastCleaned + this.ringSize) % this.ringSize;
    const free = this.ringSize - used - 1;
    const toEnd = this.ringSize - this.#head;
    const needed = size <= toEnd ? size : toEnd + size;
    if (needed > free) return -1;
    if (size > toEnd) {
      const pad = new Uint8Array(8);
      writeU32LE(pad, 0, toEnd | mb.EntryOp.PAD);
      this.#publish(mb.MAILBOX_SIZE + this.#head, pad, toEnd);
      this.stats.pads++;
    }
    return mb.MAILBOX_SIZE + this.#head;
  }

  #publish(at: number, bytes: Uint8Array, length: number = bytes.length): void {
    this.memory.fill(NOT_VISIBLE, at, at + bytes.length);
    this.#hidden.push({ at, bytes });
    if (this.#head + length >= this.ringSize) this.stats.laps++;
    this.#head = (this.#head + length) % this.ringSize;
    this.event = true;
  }
}
