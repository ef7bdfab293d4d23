import { assert } from '../../src/base/assert.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { CommandRing } from '../../src/tcmu/command-ring.ts';
import * as mb from '../../src/tcmu/mailbox.ts';
import type { RingTask } from '../../src/tcmu/ring-task.ts';
import type { SeededRandom } from '../support/seeded-random.ts';
import { FakeUnit, Kind, makeCdb, pattern, senseOf } from './fake-unit.ts';
import { type Completion, type KernelCommand, KernelRing } from './kernel-ring.ts';

interface Sent {
  readonly kind: Kind;
  /** What the CDB says. */
  readonly length: number;
  readonly command: KernelCommand;
  /** The initiator asks for data, the CDB sends some. */
  readonly wrongWay: boolean;
}

const ABORTED = 0x40;
const KINDS: readonly Kind[] = [...Object.values(Kind), Kind.READ, Kind.READ, Kind.WRITE, Kind.WRITE];
const LENGTHS: readonly number[] = [512, 512, 4096, 4096, 4097, 8192, 12288, 20000];
const CDB_LENGTHS: readonly number[] = [10, 10, 10, 12, 16, 32, 260];
const NOTICES: readonly number[] = Object.values(mb.TmrType);
const nexus = new Nexus('tcmu', 'tcmu', 1);

function same(found: Uint8Array, wanted: Uint8Array, what: string): void {
  if (Buffer.compare(found, wanted) === 0) return;
  throw new Error(
    `${what}: ${found.length} bytes ${found.slice(0, 16)}.., expected ${wanted.length} ${wanted.slice(0, 16)}..`,
  );
}

/**
 * Plays the kernel and the logical unit of one ring at random. The ring is served only when it was told to: by an event, by its own asking, or at the attach. Throws at the
 * first answer that is wrong, missing, double, or holds a byte of another command, and at the first touch of memory that is not the command's.
 */
export class RingHistory {
  readonly kernel: KernelRing;
  readonly #random: SeededRandom;
  readonly #maxInFlight: number;
  readonly #tellsLength: boolean;
  readonly #sent = new Map<number, Sent>();
  /** Hit by a notice that was not meant for them. */
  readonly #collateral = new Set<number>();
  /** The ring knows that they were aborted, and they have not begun. */
  readonly #over = new Set<number>();
  #unit = new FakeUnit();
  #ring: CommandRing;
  /** Resets that were on the ring when the handler began. */
  #resetsBefore = 0;
  #asked = false;
  #tag = 0;
  #resetting = false;
  #settling = false;
  /** What happened, so that a test can see that everything does. */
  readonly seen: Record<string, number> = {};

  constructor(random: SeededRandom) {
    this.#random = random;
    const ringSize = random.pick([600, 1000, 1504, 4096 - mb.MAILBOX_SIZE, 65536 - mb.MAILBOX_SIZE]);
    const pages = random.pick([6, 16, 33, 64]);
    this.#tellsLength = !random.oneIn(5);
    this.kernel = new KernelRing(ringSize, pages, {
      pagesPerBlock: random.pick([1, 1, 1, 2, 3]),
      flags: this.#tellsLength ? 0xf : 0xf & ~mb.MailboxFlag.READ_LENGTH,
    });
    this.kernel.onCompletion = (completion) => this.#check(completion);
    this.kernel.onCollateral = (tag) => this.#collateral.add(tag);
    this.#maxInFlight = random.pick([1, 2, 7, 64, 1024]);
    this.#ring = this.#attach();
  }

  /** Plays until that many entries were on the ring, then lets everything end. */
  play(entries: number): void {
    const { stats } = this.kernel;
    while (stats.commands + stats.notices + stats.pads < entries) this.#step();
    this.#settle();
    this.#ring.detach();
  }

  #count(what: string): void {
    this.seen[what] = (this.seen[what] ?? 0) + 1;
  }

  #attach(): CommandRing {
    const { kernel } = this;
    const unit = new FakeUnit();
    unit.inspect = (task) => this.#inspect(task as RingTask);
    this.#unit = unit;
    this.#asked = false;
    this.#resetsBefore = kernel.stats.resets;
    const ring = new CommandRing({
      memory: kernel.memory,
      layout: mb.readMailbox(kernel.memory),
      atomics: kernel.atomics,
      unit,
      nexus,
      host: {
        doorbell: () => {
          kernel.doorbell();
          if (this.#random.oneIn(4)) this.#submitSome(); // initiators go on while the handler is in its loop
        },
        serviceSoon: () => {
          this.#asked = true;
        },
        entryRefused: () => this.#count('refused'),
      },
      maxInFlight: this.#maxInFlight,
    });
    ring.service();
    return ring;
  }

  #step(): void {
    const { kernel } = this;
    const random = this.#random;
    const what = random.below(200);
    this.#unit.immediate = random.oneIn(3);
    if (what < 80) this.#submitSome();
    else if (what < 125) this.#completeSome();
    else if (what < 180) this.#serviceIfTold();
    else if (what < 184) this.#abort();
    else if (what < 188) kernel.area.shrink();
    else if (what < 191) this.#expire();
    else if (what < 192) this.#putUnknown();
    else if (random.oneIn(20)) this.#restart();
  }

  #submitSome(): void {
    const { kernel } = this;
    if (this.#settling) return;
    for (let i = this.#random.below(8); i >= 0 && kernel.waiting < 40; i--) this.#submit();
  }

  #submit(): void {
    const random = this.#random;
    const tag = ++this.#tag;
    let kind = random.pick(KINDS);
    const length = random.oneIn(3) ? random.below(200) : random.pick(LENGTHS);
    // The other side of the expected length: as long, shorter, longer, or none at all.
    const announced = random.oneIn(2) ? length : random.pick([0, length >> 1, length + 1, length + 60, length + 5000]);
    const wrongWay = kind === Kind.WRITE && this.#tellsLength && random.oneIn(8);
    const isOut = kind === Kind.BIDI || (kind === Kind.WRITE && !wrongWay);
    const room = kind === Kind.WRITE && !wrongWay ? 0 : announced;
    let cdb = makeCdb(kind, tag, length, random.pick(CDB_LENGTHS));
    if (random.oneIn(30)) {
      cdb = new Uint8Array(6);
      kind = Kind.NOTHING;
    }
    const outLength = kind === Kind.BIDI ? random.pick(LENGTHS) : announced;
    const dataOut = isOut && outLength > 0 ? pattern(tag, outLength) : null;
    const command = { tag, cdb, dataOut, dataInLength: room };
    this.#sent.set(tag, { kind, length, command, wrongWay });
    this.kernel.submit(command);
  }

  #completeSome(): void {
    const random = this.#random;
    const { pending } = this.#unit;
    if (pending.length === 0) return;
    const count = random.oneIn(4) ? pending.length : 1 + random.below(Math.min(4, pending.length));
    for (let i = 0; i < count && pending.length > 0; i++) this.#unit.complete(random.below(pending.length));
    if (random.oneIn(3)) this.#submitSome();
    if (this.#asked) this.#service();
  }

  #serviceIfTold(): boolean {
    if (!this.kernel.event) return false;
    this.kernel.event = false;
    this.#service();
    return true;
  }

  #service(): void {
    this.#asked = false;
    this.#ring.service();
    if (this.#random.oneIn(16)) this.kernel.area.checkFree();
    assert(this.kernel.broken === null, 'the kernel calls the ring broken');
    assert(this.#unit.pending.length <= this.#maxInFlight, 'no more in flight than may be');
    const begun = new Set<number>();
    for (const task of this.#unit.pending) {
      const { cmdId } = task as RingTask;
      begun.add(cmdId);
      if (this.kernel.wasTold(cmdId)) assert(task.aborted, 'the unit is told of an abort at once');
    }
    for (const id of this.kernel.outstandingIds()) {
      if (this.kernel.wasTold(id) && !begun.has(id)) this.#over.add(this.kernel.tagOf(id));
    }
  }

  #abort(): void {
    const random = this.#random;
    const type = random.oneIn(2) ? mb.TmrType.ABORT_TASK : random.pick(NOTICES);
    const tags = new Set<number>();
    const all = random.oneIn(6);
    for (const tag of this.#sent.keys()) {
      if (all || random.oneIn(16)) tags.add(tag);
      if (type === mb.TmrType.ABORT_TASK && tags.size > 0) break;
    }
    // Ids that nobody has, or not any more.
    const ids = random.oneIn(4) ? [60000 + random.below(5000), 65535] : [];
    this.#count(`notice ${type}`);
    this.kernel.abort(type, tags, ids);
  }

  #expire(): void {
    this.#count('expired');
    if (this.#random.oneIn(3)) this.kernel.expireWaiting();
    const ids = this.kernel.outstandingIds();
    if (ids.length > 0) this.kernel.expire(this.#random.pick(ids));
  }

  #putUnknown(): void {
    try {
      const bytes = new Uint8Array(8 + 8 * this.#random.below(4));
      bytes[0] = bytes.length | (3 + this.#random.below(5));
      this.kernel.putRaw(bytes);
      this.#count('unknown');
    } catch {
      // The ring is full.
    }
  }

  /** The handler ends and begins anew: in good order, by a kill, or as somebody else has reset the ring. */
  #restart(): void {
    const { kernel } = this;
    const way = this.#random.below(3);
    kernel.blocked = true;
    if (way === 0) {
      this.#count('left');
      this.#settle();
      this.#ring.detach();
    } else {
      this.#count(way === 1 ? 'killed' : 'reset');
      const { tail } = kernel;
      this.#resetting = true;
      kernel.reset();
      this.#resetting = false;
      if (way === 2) this.#notice(tail);
    }
    this.#ring = this.#attach();
    kernel.event = false;
    kernel.blocked = false;
  }

  /** The ring has to see that it was reset, and not to touch it any more. */
  #notice(tail: number): void {
    const { memory } = this.kernel;
    const before = memory.slice();
    this.#unit.inspect = null;
    for (const task of this.#unit.pending) task.aborted = true;
    // Only by cmd_head, when the tail was where it begins anew.
    if (this.#unit.pending.length > 0 && tail !== 0) this.#unit.complete(0);
    try {
      this.#ring.service();
    } catch (error) {
      if ((error as { code?: string }).code !== 'EILSEQ') throw error;
    }
    while (this.#unit.pending.length > 0) this.#unit.complete(0);
    same(memory, before, 'a ring that was reset');
  }

  #settle(): void {
    this.#settling = true;
    for (;;) {
      if (this.#serviceIfTold()) continue;
      if (this.#unit.pending.length === 0) break;
      this.#completeSome();
    }
    const { kernel } = this;
    assert(!this.#asked, 'the ring is served when it has asked');
    assert(kernel.outstanding === 0 && kernel.waiting === 0, 'every command was answered');
    assert(this.#sent.size === 0, 'every initiator was answered');
    assert(this.#ring.idle && kernel.tail === kernel.head, 'the ring is empty');
    assert(this.#ring.stats.commands === this.#ring.stats.responses, 'a response for each command');
    assert(kernel.area.usedBlocks === 0, 'no block is left behind');
    assert(this.#unit.resets === kernel.stats.resets - this.#resetsBefore, 'the unit hears of every reset');
    assert(this.#unit.resets === this.#unit.resetsEnded, 'every reset has ended');
    assert(this.#unit.resets === this.#unit.attentionsCleared, 'LIO tells of resets by itself');
    this.#collateral.clear();
    this.#over.clear();
    this.#settling = false;
    kernel.area.checkFree();
  }

  /** The command is what was sent, and all memory that it was given is its own. */
  #inspect(task: RingTask): void {
    const tag = this.kernel.tagOf(task.cmdId);
    const sent = this.#sent.get(tag);
    if (this.#over.has(tag)) throw new Error(`command ${tag} began though it was aborted`);
    // One that has timed out is nobody's any more.
    if (sent !== undefined) same(task.cdb.subarray(0, task.cdbLength), sent.command.cdb, 'the CDB');
    for (const vector of [task.buffer, task.bidiBuffer, task.dataOut, task.dataIn]) {
      for (let i = 0; i < vector.count; i++) {
        this.kernel.checkOwner(task.cmdId, vector.offsets[i]!, vector.lengths[i]!);
      }
    }
  }

  #check(completion: Completion): void {
    const { tag, status, data, sense, aborted } = completion;
    const sent = this.#sent.get(tag);
    if (sent === undefined) throw new Error(`command ${tag} was answered twice`);
    this.#sent.delete(tag);
    const written = this.#unit.written.get(tag);
    this.#unit.written.delete(tag);
    if (completion.id === 0 || this.#resetting || aborted || (status === 2 && sense.every(isZero))) {
      if (data.some(isSecret)) throw new Error(`command ${tag} got bytes of another one`);
      this.#count(`ended by the kernel ${status}`);
      return;
    }
    const none = new Uint8Array(this.#tellsLength && sent.command.dataOut === null ? 1 : sent.command.dataInLength);
    if (status === ABORTED) {
      if (!this.#collateral.has(tag)) throw new Error(`command ${tag} was aborted, and nobody wanted it`);
      this.#count('collateral');
    } else if (sent.kind === Kind.CHECK || sent.kind === Kind.REFUSED || sent.kind === Kind.CHECK_DATA) {
      assert(status === 2, 'CHECK CONDITION');
      same(sense, senseOf(tag), 'sense data');
    } else assert(status === (sent.kind === Kind.BUSY ? 8 : 0), 'the status');
    same(data, this.#expected(sent, status, none), `data of ${tag}, kind ${sent.kind}`);
    if (status === 0 && (sent.kind === Kind.WRITE || sent.kind === Kind.BIDI) && !sent.wrongWay) {
      const { dataOut } = sent.command;
      const length = Math.min(sent.length, dataOut?.length ?? 0);
      same(written ?? new Uint8Array(0), pattern(tag, length), 'what was written');
    }
    this.#count(`kind ${sent.kind}${sent.wrongWay ? ' the wrong way' : ''}`);
  }

  /** What has to reach the initiator; `none` where nothing was returned. */
  #expected({ kind, length, command }: Sent, status: number, none: Uint8Array): Uint8Array {
    const { tag, dataInLength, dataOut } = command;
    if (dataInLength === 0) return new Uint8Array(0);
    const returned = Math.min(length, dataInLength);
    const returns = status !== ABORTED && (kind === Kind.READ || kind === Kind.BIDI || kind === Kind.CHECK_DATA);
    if (status === 2 && (!returns || returned === 0 || !this.#tellsLength)) return new Uint8Array(0);
    const bidi = dataOut !== null;
    if (!returns || returned === 0) {
      return bidi ? new Uint8Array(Math.min(dataOut.length, dataInLength)) : none;
    }
    if (this.#tellsLength && !bidi) return pattern(tag, returned);
    const whole = new Uint8Array(dataInLength);
    whole.set(pattern(tag, returned));
    return bidi ? whole.subarray(0, dataOut.length) : whole;
  }
}

function isSecret(byte: number): boolean {
  return byte >= 0x80;
}

function isZero(byte: number): boolean {
  return byte === 0;
}
