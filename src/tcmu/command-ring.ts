import { assert } from '../base/assert.ts';
import { readU32LE, readU64LE } from '../base/bytes.ts';
import { StorageError } from '../base/errors.ts';
import type { IoVector } from '../block/io-vector.ts';
import type { Nexus } from '../scsi/nexus.ts';
import { MAX_CDB_SIZE, type ScsiTask, type ScsiTaskOwner } from '../scsi/task.ts';
import * as mb from './mailbox.ts';
import { RingTask } from './ring-task.ts';

/** Access to the two words that both sides use; the addon's in production, so that they are right on every processor. */
export interface RingAtomics {
  atomicLoadAcquire32(bytes: Uint8Array, offset: number): number;
  atomicStoreRelease32(bytes: Uint8Array, offset: number, value: number): void;
}

/** The logical unit, as far as a ring needs it: see the life of a `ScsiTask`. */
export interface RingUnit {
  prepare(task: ScsiTask): boolean;
  execute(task: ScsiTask): void;
  abort(task: ScsiTask): void;
}

export interface RingHost {
  /** Tells the kernel that cmd_tail has moved. Once a batch. */
  doorbell(): void;
  /** A command ended outside `service()`: the host calls `service()` once the current batch of completions is over. */
  serviceSoon(): void;
  /** An entry made no sense and was answered with an error (or skipped). */
  entryRefused(reason: string): void;
}

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

const STATUS_GOOD = 0x00;
const STATUS_CHECK_CONDITION = 0x02;
const STATUS_BUSY = 0x08;
/** Fixed format, current, HARDWARE ERROR, INTERNAL TARGET FAILURE (SPC-4 4.5.3). */
const INTERNAL_TARGET_FAILURE: Uint8Array = Uint8Array.of(0x70, 0, 4, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x44, 0, 0, 0, 0, 0);
/** Length of a CDB by the group code in the top bits of its first byte; what is reserved or the vendor's, as Linux takes it. */
const CDB_LENGTH_BY_GROUP: readonly number[] = [6, 10, 10, 12, 16, 12, 10, 10];
const VARIABLE_LENGTH_CDB = 0x7f;

/**
 * The handler's side of one device's command ring: copies commands out, hands them to the logical unit, and writes
 * responses in whatever order they come.
 *
 * Three cursors, `tail <= readAt <= head` around the ring. [readAt, head) has not been seen. Slots in [tail, readAt) were
 * copied out, so each CMD slot there is room for one response, of any command: the kernel goes by the id in it. Thus
 * the number of CMD slots in [tail, readAt) equals the number of commands in flight, at all times.
 */
export class CommandRing implements ScsiTaskOwner {
  readonly #memory: Uint8Array;
  readonly #words: Uint32Array;
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
  readonly stats: {
    commands: number;
    responses: number;
    batches: number;
    aborts: number;
    refused: number;
    shortReads: number;
    busy: number;
  } = { commands: 0, responses: 0, batches: 0, aborts: 0, refused: 0, shortReads: 0, busy: 0 };

  /** Starts at the kernel's cmd_tail. Throws EINVAL when that lies outside the ring. */
  constructor(options: CommandRingOptions) {
    const { memory, layout } = options;
    this.#memory = memory;
    this.#words = new Uint32Array(memory.buffer, memory.byteOffset, layout.dataOffset / 4);
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
   * Takes what is new on the ring, then publishes every response written since the last call, with one doorbell.
   * Throws EILSEQ when the ring cannot be walked any further; it is of no use then until the kernel has reset it.
   */
  service(): void {
    if (this.#detached || this.#serving) return;
    this.#serving = true;
    this.#serviceAsked = false;
    try {
      this.#consume();
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
    const { ringOffset, ringSize } = this.#layout;
    const head = this.#atomics.atomicLoadAcquire32(this.#memory, mb.CMD_HEAD_OFFSET);
    if (head >= ringSize || head % mb.ENTRY_ALIGNMENT !== 0)
      this.#broken(`cmd_head is ${head}, the ring has ${ringSize}`);
    while (this.#readAt !== head && (this.refusing || this.#flight.length < this.#maxInFlight)) {
      const entryAt = this.#readAt;
      const at = ringOffset + entryAt;
      const lenOp = this.#words[at / 4]!;
      const op = lenOp & mb.ENTRY_OP_MASK;
      const length = lenOp - op;
      const room = (head > entryAt ? head : ringSize) - entryAt;
      if (length === 0 || length > room)
        this.#broken(`entry at ${entryAt} has ${length} bytes, there is room for ${room}`);
      if (op === mb.EntryOp.CMD && length < mb.CMD_MIN_SIZE) {
        this.#broken(`command at ${entryAt} has ${length} bytes, a response takes ${mb.CMD_MIN_SIZE}`);
      }
      this.#readAt = this.#after(entryAt, length);
      if (op === mb.EntryOp.CMD) this.#take(at, length);
      else if (op === mb.EntryOp.TMR) this.#abort(at, length);
      else if (op !== mb.EntryOp.PAD) {
        this.#memory[at + mb.ENTRY_UFLAGS] = mb.EntryFlag.UNKNOWN_OP;
        this.#refused(`entry at ${entryAt} has the unknown operation ${op}`);
      }
    }
    this.caughtUp = this.#readAt === head;
  }

  /** Copies the command at `at` out and starts it. */
  #take(at: number, length: number): void {
    this.stats.commands++;
    const task = this.#free ?? new RingTask(this, this.#nexus);
    this.#free = task.next as RingTask | null;
    task.next = null;
    task.cmdId = this.#halves[(at + mb.ENTRY_CMD_ID) / 2]!;
    task.takenMs = this.nowMs;
    task.flightIndex = this.#flight.length;
    task.aborted = false;
    task.status = STATUS_GOOD;
    task.senseLength = 0;
    task.residual = 0;
    task.dataOutLength = 0;
    task.dataInLength = 0;
    this.#flight.push(task);

    const wrong = this.#copyOut(task, at, length);
    if (wrong !== null) {
      this.#refused(`command ${task.cmdId} at ${at - this.#layout.ringOffset}: ${wrong}`);
      task.status = STATUS_CHECK_CONDITION;
      task.sense.set(INTERNAL_TARGET_FAILURE);
      task.senseLength = INTERNAL_TARGET_FAILURE.length;
      this.taskDone(task);
      return;
    }
    if (this.refusing) {
      this.stats.busy++;
      task.status = STATUS_BUSY;
      this.taskDone(task);
      return;
    }
    // The ring does not say which way the data goes; the CDB does, and the logical unit knows it.
    const dataIn = task.bidiBuffer.count > 0 ? task.bidiBuffer : task.buffer;
    task.expectedDataOut = task.buffer.lengthBytes;
    task.expectedDataIn = dataIn.lengthBytes;
    if (!this.#unit.prepare(task)) {
      this.taskDone(task);
      return;
    }
    task.dataOut.setSlice(task.buffer, 0, task.dataOutLength);
    task.dataIn.setSlice(dataIn, 0, task.dataInLength);
    assert(task.dataOut.lengthBytes === task.dataOutLength, 'more Data-Out was asked for than there is');
    assert(task.dataIn.lengthBytes === task.dataInLength, 'more room for Data-In was asked for than there is');
    this.#unit.execute(task);
  }

  /** Fills the task's CDB and pieces; returns what is wrong with the entry, or null. The response will overwrite all of it. */
  #copyOut(task: RingTask, at: number, length: number): string | null {
    const memory = this.#memory;
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
      this.#copyPieces(task.buffer, iovsAt, iovCount) ??
      this.#copyPieces(task.bidiBuffer, iovsAt + iovCount * mb.IOV_SIZE, bidiCount)
    );
  }

  #copyPieces(vector: IoVector, at: number, count: number): string | null {
    const { dataOffset, mapSize } = this.#layout;
    vector.clear();
    vector.memory = this.#memory;
    for (let i = 0; i < count; i++) {
      const base = readU64LE(this.#memory, at + i * mb.IOV_SIZE);
      const length = readU64LE(this.#memory, at + i * mb.IOV_SIZE + 8);
      if (base < dataOffset || length > mapSize || base + length > mapSize) {
        return `piece ${i} is ${length} bytes at ${base}, outside of the data area`;
      }
      vector.push(base, length);
    }
    return null;
  }

  /** A task management notice: the kernel waits until the commands in it have been completed, somehow. */
  #abort(at: number, length: number): void {
    this.stats.aborts++;
    const type = this.#memory[at + mb.TMR_TYPE]!;
    const count = length < mb.TMR_IDS ? 0 : readU32LE(this.#memory, at + mb.TMR_ID_COUNT);
    if (length < mb.TMR_IDS || mb.TMR_IDS + count * 2 > length) {
      this.#refused(`task management entry of type ${type}: ${count} ids do not fit into its ${length} bytes`);
      return;
    }
    for (let i = 0; i < count; i++) {
      const id = this.#halves[(at + mb.TMR_IDS) / 2 + i]!;
      const task = this.#flight.find(({ cmdId }) => cmdId === id);
      if (task !== undefined) this.#unit.abort(task);
    }
  }

  /** Writes a response into the slot at the tail, which was copied out before, and moves the tail behind it. */
  #respond(task: RingTask): void {
    const memory = this.#memory;
    this.#skipNonCommands();
    assert(this.#tail !== this.#readAt, 'a TCMU ring has more responses than commands');
    const at = this.#layout.ringOffset + this.#tail;
    const lenOp = this.#words[at / 4]!;

    let flags = 0;
    let readLength = 0;
    const dataIn = task.bidiBuffer.count > 0 ? task.bidiBuffer : task.buffer;
    const isDataIn = task.dataOutLength === 0 || task.bidiBuffer.count > 0;
    // With CHECK CONDITION the kernel returns no data. With anything else it returns the whole buffer, in which lie bytes of
    // earlier commands, unless told a length above zero.
    if (isDataIn && task.status !== STATUS_CHECK_CONDITION && dataIn.lengthBytes > 0) {
      const returned = task.status === STATUS_GOOD ? task.dataInLength : 0;
      if (returned < dataIn.lengthBytes) {
        this.stats.shortReads++;
        if (returned > 0 && (this.#layout.flags & mb.MailboxFlag.READ_LENGTH) !== 0) {
          flags = mb.EntryFlag.READ_LENGTH;
          readLength = returned;
        } else {
          dataIn.zero(returned, dataIn.lengthBytes - returned);
        }
      }
    }

    this.#halves[(at + mb.ENTRY_CMD_ID) / 2] = task.cmdId;
    memory[at + mb.ENTRY_UFLAGS] = flags;
    memory[at + mb.RESPONSE_STATUS] = task.status;
    this.#words[(at + mb.RESPONSE_READ_LENGTH) / 4] = readLength;
    if (task.status === STATUS_CHECK_CONDITION) {
      for (let i = 0; i < mb.RESPONSE_SENSE_SIZE; i++) {
        memory[at + mb.RESPONSE_SENSE + i] = i < task.senseLength ? task.sense[i]! : 0;
      }
    }
    this.#tail = this.#after(this.#tail, lenOp - (lenOp & mb.ENTRY_OP_MASK));
    this.stats.responses++;
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
