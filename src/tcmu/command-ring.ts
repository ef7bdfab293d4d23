import { assert } from '../base/assert.ts';
import { readU32LE } from '../base/bytes.ts';
import { StorageError } from '../base/errors.ts';
import type { Nexus } from '../scsi/nexus.ts';
import { Status } from '../scsi/spec.ts';
import type { ScsiTask, ScsiTaskOwner } from '../scsi/task.ts';
import { UnitAttention } from '../scsi/unit-attention.ts';
import { AbortMarks } from './abort-marks.ts';
import * as mb from './mailbox.ts';
import { decodeCommand, encodeResponse, type RingBytes } from './ring-entry.ts';
import type { RingAtomics, RingHost, RingStats, RingUnit } from './ring-host.ts';
import { RingTask } from './ring-task.ts';

export interface CommandRingOptions {
  /** The whole map. Not owned; not touched any more after `detach()`. */
  readonly memory: Uint8Array;
  readonly layout: mb.MailboxLayout;
  readonly atomics: RingAtomics;
  readonly unit: RingUnit;
  readonly nexus: Nexus;
  readonly host: RingHost;
  /** Commands in flight at once; the rest wait on the ring. */
  readonly maxInFlight: number;
}

/** Fixed format, current, HARDWARE ERROR, INTERNAL TARGET FAILURE (SPC-4 4.5.3). */
const INTERNAL_TARGET_FAILURE: Uint8Array = Uint8Array.of(0x70, 0, 4, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x44, 0, 0, 0, 0, 0);

/**
 * The handler's side of one device's command ring: copies commands out, hands them to the logical unit, and writes
 * responses in whatever order they come.
 *
 * Three cursors, `tail <= readAt <= head` around the ring. [readAt, head) has not been read. Slots in [tail, readAt) were
 * copied out, so each CMD slot there is room for one response, of any command: the kernel goes by the id in it. Thus
 * the number of CMD slots in [tail, readAt) equals the number of commands in flight, at all times.
 *
 * While as much is in flight as may be, the first `ahead` bytes of [readAt, head) are looked at for task management notices: those are due
 * at once, as the kernel's threads wait for the end of what they name.
 */
export class CommandRing implements ScsiTaskOwner {
  readonly #memory: Uint8Array;
  readonly #words: Uint32Array;
  readonly #bytes: RingBytes;
  readonly #halves: Uint16Array;
  readonly #layout: mb.MailboxLayout;
  readonly #atomics: RingAtomics;
  readonly #unit: RingUnit;
  readonly #nexus: Nexus;
  readonly #host: RingHost;
  readonly #maxInFlight: number;

  #readAt: number;
  #tail: number;
  /** cmd_tail as the kernel sees it. */
  #publishedTail: number;
  /** Nothing more is taken from the ring; what is in flight ends. */
  paused = false;
  /** Bytes behind `readAt` that were looked at for notices. */
  #ahead = 0;
  /** Made when it is needed first. */
  #marks: AbortMarks | null = null;
  #serving = false;
  #serviceAsked = false;
  /** No more access to the ring: it is broken or given up. */
  #detached = false;
  readonly #flight: RingTask[] = [];
  #free: RingTask | null = null;

  /** The host's time, with which commands that are taken are stamped. */
  nowMs = 0;
  /** The host's wish: what is found on the ring is answered BUSY, as its initiator may have given it up long ago. */
  refusing = false;
  /** For the host to read: nothing waited on the ring when `service()` last looked. */
  caughtUp = false;

  /** Commands, responses, and so on since the ring was made. */
  readonly stats: RingStats = { commands: 0, responses: 0, batches: 0, aborts: 0, refused: 0, shortReads: 0, busy: 0 };

  /** Starts at the kernel's cmd_tail. Throws EINVAL when that lies outside the ring. */
  constructor(options: CommandRingOptions) {
    const { memory, layout } = options;
    this.#memory = memory;
    this.#words = new Uint32Array(memory.buffer, memory.byteOffset, layout.dataOffset / 4);
    this.#bytes = { memory, words: this.#words };
    this.#halves = new Uint16Array(memory.buffer, memory.byteOffset, layout.dataOffset / 2);
    this.#layout = layout;
    this.#atomics = options.atomics;
    this.#unit = options.unit;
    this.#nexus = options.nexus;
    this.#host = options.host;
    this.#maxInFlight = options.maxInFlight;
    const tail = options.atomics.atomicLoadAcquire32(memory, mb.CMD_TAIL_OFFSET);
    if (tail >= layout.ringSize || tail % mb.ENTRY_ALIGNMENT !== 0) {
      throw new StorageError(
        'EINVAL',
        `Cannot attach to the TCMU ring: cmd_tail is ${tail}, the ring has ${layout.ringSize}`,
      );
    }
    this.#tail = tail;
    this.#readAt = tail;
    this.#publishedTail = tail;
  }

  /** Commands that the logical unit has. */
  get inFlight(): number {
    return this.#flight.length;
  }

  /** Nothing is in flight and nothing waits on the ring. */
  get idle(): boolean {
    if (this.#flight.length > 0) return false;
    return this.#detached || this.#atomics.atomicLoadAcquire32(this.#memory, mb.CMD_HEAD_OFFSET) === this.#readAt;
  }

  /**
   * Takes what is new on the ring, unless told not to, then publishes every response written since the last call, with one doorbell.
   * Throws EILSEQ when the ring cannot be walked any further; it is of no use then until the kernel has reset it.
   */
  service(takes: boolean = true): void {
    if (this.#detached || this.#serving) return;
    if (this.#wasReset()) this.#broken('it was reset by somebody else');
    this.#serving = true;
    this.#serviceAsked = false;
    try {
      if (takes) this.#consume();
    } finally {
      this.#serving = false;
    }
    this.#skipNonCommands();
    if (this.#tail === this.#publishedTail) return;
    this.#publishedTail = this.#tail;
    this.#atomics.atomicStoreRelease32(this.#memory, mb.CMD_TAIL_OFFSET, this.#tail);
    this.stats.batches++;
    this.#host.doorbell();
  }

  /** Whether there is something to take from the ring, now or within `tries` times a microsecond or two. */
  awaitNext(tries: number): boolean {
    if (this.#detached || !this.caughtUp) return !this.#detached;
    return this.#atomics.awaitChange32(this.#memory, mb.CMD_HEAD_OFFSET, this.#readAt, tries);
  }

  /** Forgets the shared memory: commands in flight end without a response. Also the end of a broken ring. */
  detach(): void {
    this.#detached = true;
  }

  /** Asks for the commands in flight that were taken before `timeMs` to be stopped as early as is safe. */
  abortTakenBefore(timeMs: number): void {
    for (const task of [...this.#flight]) {
      if (task.flightIndex >= 0 && task.takenMs < timeMs && !task.aborted) this.#unit.abort(task);
    }
  }

  /** The logical unit's answer. */
  taskDone(done: ScsiTask): void {
    const task = done as RingTask;
    assert(task.flightIndex >= 0, 'a command of a TCMU ring was completed twice');
    if (!this.#detached) {
      this.#respond(task);
      if (!this.#serving && !this.#serviceAsked) {
        this.#serviceAsked = true;
        this.#host.serviceSoon();
      }
    }
    this.#release(task);
  }

  /** Never: what was prepared is executed at once. */
  taskAborted(): void {
    assert(false, 'a command of a TCMU ring was aborted between its two steps');
  }

  #consume(): void {
    const { ringSize } = this.#layout;
    const head = this.#atomics.atomicLoadAcquire32(this.#memory, mb.CMD_HEAD_OFFSET);
    if (head >= ringSize || head % mb.ENTRY_ALIGNMENT !== 0) {
      this.#broken(`cmd_head is ${head}, the ring has ${ringSize}`);
    }
    if (this.#distance(this.#publishedTail, head) < this.#distance(this.#publishedTail, this.#readAt)) {
      this.#broken(`cmd_head is ${head}, entries up to ${this.#readAt} were read`);
    }
    for (;;) {
      while (this.#readAt !== head && this.#mayTake()) this.#read(head);
      this.caughtUp = this.#readAt === head;
      if (this.caughtUp || this.paused || !this.#lookAhead(head)) return;
    }
  }

  /** Length of the entry at `entryAt`. */
  #checkEntry(entryAt: number, head: number): number {
    const { ringOffset, ringSize } = this.#layout;
    const lenOp = this.#words[(ringOffset + entryAt) / 4]!;
    const op = lenOp & mb.ENTRY_OP_MASK;
    const length = lenOp - op;
    const room = (head > entryAt ? head : ringSize) - entryAt;
    if (length === 0 || length > room)
      this.#broken(`entry at ${entryAt} has ${length} bytes, there is room for ${room}`);
    if (op === mb.EntryOp.CMD && length < mb.CMD_MIN_SIZE) {
      this.#broken(`command at ${entryAt} has ${length} bytes, a response takes ${mb.CMD_MIN_SIZE}`);
    }
    return length;
  }

  /** Takes the entry at `readAt`. */
  #read(head: number): void {
    const entryAt = this.#readAt;
    const length = this.#checkEntry(entryAt, head);
    const at = this.#layout.ringOffset + entryAt;
    const op = this.#words[at / 4]! & mb.ENTRY_OP_MASK;
    const seen = this.#ahead > 0;
    if (seen) this.#ahead -= length;
    this.#readAt = this.#after(entryAt, length);
    if (op === mb.EntryOp.CMD) {
      const task = this.#take(at, length, seen);
      if (task !== null) this.#start(task);
    } else if (op === mb.EntryOp.TMR) {
      if (!seen) this.#notice(at, length);
    } else if (op !== mb.EntryOp.PAD) {
      this.#memory[at + mb.ENTRY_UFLAGS] = mb.EntryFlag.UNKNOWN_OP;
      this.#refused(`entry at ${entryAt} has the unknown operation ${op}`);
    }
  }

  #mayTake(): boolean {
    return (!this.paused && (this.refusing || this.#flight.length < this.#maxInFlight)) || this.#endsAtOnce();
  }

  /** The entry at `readAt` was looked at and need not wait until less is in flight. */
  #endsAtOnce(): boolean {
    if (this.#ahead === 0) return false;
    const at = this.#layout.ringOffset + this.#readAt;
    if ((this.#words[at / 4]! & mb.ENTRY_OP_MASK) !== mb.EntryOp.CMD) return true;
    return this.#marks!.isAborted(this.#halves[(at + mb.ENTRY_CMD_ID) / 2]!);
  }

  /** Looks for notices behind what was looked at before. False: there was nothing new. */
  #lookAhead(head: number): boolean {
    const { ringOffset } = this.#layout;
    let entryAt = this.#after(this.#readAt, this.#ahead);
    if (entryAt === head) return false;
    this.#marks ??= new AbortMarks();
    while (entryAt !== head) {
      const length = this.#checkEntry(entryAt, head);
      const at = ringOffset + entryAt;
      const op = this.#words[at / 4]! & mb.ENTRY_OP_MASK;
      if (op === mb.EntryOp.CMD) this.#marks.waits(this.#halves[(at + mb.ENTRY_CMD_ID) / 2]!);
      else if (op === mb.EntryOp.TMR) this.#notice(at, length);
      this.#ahead += length;
      entryAt = this.#after(entryAt, length);
    }
    return true;
  }

  /** Copies the command at `at` out. Null: it has ended. `seen`: it was looked at before. */
  #take(at: number, length: number, seen: boolean): RingTask | null {
    this.stats.commands++;
    const task = this.#free ?? new RingTask(this, this.#nexus);
    this.#free = task.next as RingTask | null;
    task.next = null;
    task.cmdId = this.#halves[(at + mb.ENTRY_CMD_ID) / 2]!;
    task.takenMs = this.nowMs;
    task.flightIndex = this.#flight.length;
    task.aborted = false;
    task.status = Status.GOOD;
    task.senseLength = 0;
    task.residual = 0;
    task.dataOutLength = 0;
    task.dataInLength = 0;
    this.#flight.push(task);

    const wrong = decodeCommand(this.#bytes, this.#layout, at, length, task);
    if (wrong !== null) {
      this.#refused(`command ${task.cmdId} at ${at - this.#layout.ringOffset}: ${wrong}`);
      task.status = Status.CHECK_CONDITION;
      task.sense.set(INTERNAL_TARGET_FAILURE);
      task.senseLength = INTERNAL_TARGET_FAILURE.length;
    }
    if (seen && this.#marks!.takes(task.cmdId)) task.status = Status.TASK_ABORTED;
    if (this.refusing && task.status === Status.GOOD) {
      this.stats.busy++;
      task.status = Status.BUSY;
    }
    if (task.status === Status.GOOD) return task;
    this.taskDone(task);
    return null;
  }

  #start(task: RingTask): void {
    const { room } = task;
    task.expectedDataOut = task.buffer.lengthBytes;
    task.expectedDataIn = room.lengthBytes;
    if (!this.#unit.prepare(task)) {
      this.taskDone(task);
      return;
    }
    if (task.dataOutLength > 0) task.dataOut.setSlice(task.buffer, 0, task.dataOutLength);
    if (task.dataInLength > 0) task.dataIn.setSlice(room, 0, task.dataInLength);
    assert(task.dataOut.lengthBytes === task.dataOutLength, 'more Data-Out was asked for than there is');
    assert(task.dataIn.lengthBytes === task.dataInLength, 'more room for Data-In was asked for than there is');
    this.#unit.execute(task);
  }

  /**
   * A task management notice: the kernel waits until the commands in it have been completed, with whatever status (what it has aborted gets TASK ABORTED, or nothing, by
   * TAS). Those that it does not name are none of its business, except for a reset of the unit.
   */
  #notice(at: number, length: number): void {
    this.stats.aborts++;
    const type = this.#memory[at + mb.TMR_TYPE]!;
    const count = length < mb.TMR_IDS ? 0 : readU32LE(this.#memory, at + mb.TMR_ID_COUNT);
    if (length < mb.TMR_IDS || mb.TMR_IDS + count * 2 > length) {
      this.#refused(`task management entry of type ${type}: ${count} ids do not fit into its ${length} bytes`);
      return;
    }
    if (count > 0) this.#abortNamed((at + mb.TMR_IDS) / 2, count);
    if (type === mb.TmrType.LUN_RESET || type === mb.TmrType.WARM_RESET || type === mb.TmrType.COLD_RESET) {
      // LIO tells its initiators itself; those of other front ends hear it from the unit.
      this.#unit.reset(this.#nexus, () => this.#unit.clearAttention(this.#nexus, UnitAttention.LOGICAL_UNIT_RESET));
    }
  }

  /** Aborts the commands whose `count` ids begin at `begin` of `halves`; one that neither waits nor is in flight has been completed meanwhile. */
  #abortNamed(begin: number, count: number): void {
    this.#marks ??= new AbortMarks();
    const marks = this.#marks;
    marks.name(this.#halves, begin, begin + count);
    // The end of one may be the end of others.
    for (const task of [...this.#flight]) {
      if (task.flightIndex >= 0 && marks.isNamed(task.cmdId)) this.#unit.abort(task);
    }
    marks.forget(this.#halves, begin, begin + count);
  }

  /** Writes a response into the slot at the tail, which was copied out before, and moves the tail behind it. */
  #respond(task: RingTask): void {
    if (this.#wasReset()) return;
    this.#skipNonCommands();
    assert(this.#tail !== this.#readAt, 'a TCMU ring has more responses than commands');
    const at = this.#layout.ringOffset + this.#tail;
    const readLength = task.settleDataIn((this.#layout.flags & mb.MailboxFlag.READ_LENGTH) !== 0);
    if (readLength > 0 && task.dataOutLength === 0) this.stats.shortReads++;
    encodeResponse(this.#memory, at, task, readLength);
    const lenOp = this.#words[at / 4]!;
    this.#tail = this.#after(this.#tail, lenOp - (lenOp & mb.ENTRY_OP_MASK));
    this.stats.responses++;
  }

  /** Somebody else has made the kernel begin anew, and what we know of the ring and the data area is void. Only that changes cmd_tail; cmd_head tells, where it was 0. */
  #wasReset(): boolean {
    return this.#words[mb.CMD_TAIL_OFFSET / 4] !== this.#publishedTail;
  }

  /** Moves the tail over entries that take no response, so that an idle ring has its tail at its head. */
  #skipNonCommands(): void {
    while (this.#tail !== this.#readAt) {
      const lenOp = this.#words[(this.#layout.ringOffset + this.#tail) / 4]!;
      const op = lenOp & mb.ENTRY_OP_MASK;
      if (op === mb.EntryOp.CMD) return;
      this.#tail = this.#after(this.#tail, lenOp - op);
    }
  }

  #release(task: RingTask): void {
    const last = this.#flight.pop()!;
    if (last !== task) {
      this.#flight[task.flightIndex] = last;
      last.flightIndex = task.flightIndex;
    }
    task.flightIndex = -1;
    task.buffer.clear();
    task.bidiBuffer.clear();
    task.dataOut.clear();
    task.dataIn.clear();
    task.next = this.#free;
    this.#free = task;
  }

  /** Bytes from `from` forward to `to`. */
  #distance(from: number, to: number): number {
    return to >= from ? to - from : to - from + this.#layout.ringSize;
  }

  #after(at: number, length: number): number {
    const next = at + length;
    return next >= this.#layout.ringSize ? next - this.#layout.ringSize : next;
  }

  #refused(reason: string): void {
    this.stats.refused++;
    this.#host.entryRefused(reason);
  }

  #broken(reason: string): never {
    this.detach();
    throw new StorageError('EILSEQ', `Cannot go on with the TCMU ring: ${reason}`);
  }
}
