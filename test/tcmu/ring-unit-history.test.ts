import { describe, expect, test } from 'vitest';
import { writeU32BE, writeU64BE } from '../../src/base/bytes.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { CommandRing } from '../../src/tcmu/command-ring.ts';
import { MAILBOX_SIZE, readMailbox, TmrType } from '../../src/tcmu/mailbox.ts';
import { unitOptions } from '../scsi/support/initiator.ts';
import { RamLun } from '../scsi/support/ram-lun.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { type Completion, KernelRing } from './kernel-ring.ts';

const ENTRIES = Number(process.env['THINLUN_RING_ENTRIES'] ?? 1_000_000) / 20;
const BLOCK = 512;
const DISK_BLOCKS = 2048;
const MAX_BLOCKS = 40;
const ABORTED = 0x40;
/** ILLEGAL REQUEST, INVALID FIELD IN COMMAND INFORMATION UNIT. */
const SHORT = '5/e/3';
/** What these check by themselves. */
const LIST_LENGTH = '5/1a/0';
const FIELD_IN_CDB = '5/24/0';
const OPCODES = { read: [0x28, 0xa8, 0x88], write: [0x2a, 0xaa, 0x8a], writeSame: [0x93] } as const;

interface Sent {
  readonly what: 'read' | 'write' | 'writeSame' | 'unmap' | 'inquiry' | 'nonsense';
  readonly lba: number;
  readonly blocks: number;
  readonly out: Uint8Array | null;
  readonly room: number;
  /** The sense data that it ends with; empty: it ends well. */
  readonly refusal: string;
}

function blockCdb(opcode: number, lba: number, blocks: number): Uint8Array {
  const cdb = new Uint8Array(opcode >= 0xa0 ? 12 : opcode >= 0x80 ? 16 : 10);
  cdb[0] = opcode;
  if (cdb.length === 16) {
    writeU64BE(cdb, 2, lba);
    writeU32BE(cdb, 10, blocks);
  } else {
    writeU32BE(cdb, 2, lba);
    if (cdb.length === 12) writeU32BE(cdb, 6, blocks);
    else cdb[8] = blocks;
  }
  return cdb;
}

/** A logical unit behind a ring, and what its disk has to hold. Commands in flight never overlap, so that there is one right answer to each. */
class UnitHistory {
  readonly #random: SeededRandom;
  readonly #lun = new RamLun(DISK_BLOCKS * BLOCK);
  readonly #unit: LogicalUnit;
  readonly #ring: CommandRing;
  readonly kernel: KernelRing;
  readonly #disk = new Uint8Array(DISK_BLOCKS * BLOCK);
  /** Of a write that was aborted: nobody knows. */
  readonly #unknown = new Uint8Array(DISK_BLOCKS);
  readonly #busy = new Uint8Array(DISK_BLOCKS);
  readonly #sent = new Map<number, Sent>();
  readonly #collateral = new Set<number>();
  readonly seen: Record<string, number> = {};
  #inquiry: Uint8Array = new Uint8Array(0);
  #asked = false;
  #tag = 0;

  constructor(random: SeededRandom) {
    this.#random = random;
    this.#unit = new LogicalUnit(unitOptions(this.#lun));
    const nexus = new Nexus('tcmu,i,test', '', 0);
    this.#unit.attach(nexus, false);
    const kernel = new KernelRing(random.pick([1504, 8192 - MAILBOX_SIZE]), random.pick([8, 40]));
    kernel.onCompletion = (completion) => this.#check(completion);
    kernel.onCollateral = (tag) => this.#collateral.add(tag);
    this.kernel = kernel;
    this.#ring = new CommandRing({
      memory: kernel.memory,
      layout: readMailbox(kernel.memory),
      atomics: kernel.atomics,
      unit: this.#unit,
      nexus,
      host: {
        doorbell: () => kernel.doorbell(),
        serviceSoon: () => {
          this.#asked = true;
        },
        entryRefused: (reason) => expect.unreachable(reason),
      },
      maxInFlight: random.pick([1, 5, 100]),
    });
  }

  play(entries: number): void {
    const { stats } = this.kernel;
    while (stats.commands < entries) {
      const what = this.#random.below(100);
      if (what < 40) for (let i = this.#random.below(6); i >= 0; i--) this.#submit();
      else if (what < 70) this.#complete();
      else if (what < 95) this.#serviceIfTold();
      else if (what < 98) this.#abort();
      else this.kernel.area.shrink();
    }
    for (let turns = 0; this.#sent.size > 0; turns++) {
      if (turns > 10_000) throw new Error(`${this.#sent.size} commands were never answered`);
      this.#serviceIfTold();
      this.#complete();
    }
    this.kernel.area.checkFree();
    expect([this.kernel.outstanding, this.kernel.area.usedBlocks, this.#unit.taskSet.count]).toEqual([0, 0, 0]);
    for (let lba = 0; lba < DISK_BLOCKS; lba++) {
      if (this.#unknown[lba] === 0) this.#same(this.#lun.data, this.#disk, lba, lba * BLOCK, lba * BLOCK, BLOCK);
    }
  }

  #count(what: string): void {
    this.seen[what] = (this.seen[what] ?? 0) + 1;
  }

  #submit(): void {
    const random = this.#random;
    const what = random.pick(['read', 'read', 'write', 'write', 'writeSame', 'unmap', 'inquiry', 'nonsense'] as const);
    const blocks = 1 + random.below(what === 'writeSame' ? 8 : MAX_BLOCKS);
    const lba = random.below(DISK_BLOCKS - blocks);
    const tag = ++this.#tag;
    const allocation = random.below(256);
    const moves = what !== 'inquiry' && what !== 'nonsense';
    if (moves && this.#busy.subarray(lba, lba + blocks).includes(1)) return;
    const length = what === 'writeSame' ? BLOCK : what === 'unmap' ? 24 : blocks * BLOCK;
    // What is announced differs from the CDB either way now and then.
    const announced = random.oneIn(6) ? random.pick([0, length - 1, length >> 1, length + 700, length + 9000]) : length;
    const isOut = what === 'write' || what === 'writeSame' || what === 'unmap';
    const out = isOut && announced > 0 ? new Uint8Array(announced).fill(1 + (tag % 120)) : null;
    if (what === 'unmap' && out !== null && out.length >= 24) fillUnmapList(out, lba, blocks);
    let cdb: Uint8Array = Uint8Array.of(0xc5, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    if (what === 'inquiry') cdb = Uint8Array.of(0x12, 0, 0, 0, allocation, 0);
    else if (what === 'unmap') cdb = Uint8Array.of(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0);
    else if (what !== 'nonsense') cdb = blockCdb(random.pick(OPCODES[what]), lba, blocks);
    if (moves) this.#busy.fill(1, lba, lba + blocks);
    const room = isOut ? 0 : announced;
    this.#sent.set(tag, {
      what,
      lba,
      blocks: moves ? blocks : allocation,
      out,
      room,
      refusal: refusalOf(what, length, announced),
    });
    this.kernel.submit({ tag, cdb, dataOut: out, dataInLength: room });
  }

  #complete(): void {
    const { queue } = this.#lun;
    for (let i = this.#random.below(4); i >= 0 && queue.length > 0; i--) {
      this.#lun.completeOne(this.#random.below(queue.length));
    }
    if (this.#asked) this.#service();
  }

  #serviceIfTold(): void {
    if (!this.kernel.event) return;
    this.kernel.event = false;
    this.#service();
  }

  #service(): void {
    this.#asked = false;
    this.#ring.service();
    expect(this.kernel.broken).toBeNull();
  }

  #abort(): void {
    const tags = new Set([...this.#sent.keys()].filter(() => this.#random.oneIn(6)));
    this.kernel.abort(this.#random.oneIn(3) ? TmrType.LUN_RESET : TmrType.ABORT_TASK_SET, tags);
  }

  #check(completion: Completion): void {
    const { tag, status, data, sense } = completion;
    const sent = this.#sent.get(tag)!;
    this.#sent.delete(tag);
    const { what, lba, blocks, room } = sent;
    if (what !== 'inquiry' && what !== 'nonsense') this.#busy.fill(0, lba, lba + blocks);
    if (completion.aborted || completion.id === 0 || status === ABORTED) {
      if (status === ABORTED && !completion.aborted && !this.#collateral.has(tag)) throw new Error('aborted by nobody');
      if (sent.out !== null) this.#unknown.fill(1, lba, lba + blocks);
      this.#count('aborted');
      return;
    }
    const key = status === 2 ? `${sense[2]!.toString(16)}/${sense[12]!.toString(16)}/${sense[13]!.toString(16)}` : '';
    if (sent.refusal !== '') {
      expect([status, key, data.length]).toEqual([2, sent.refusal, 0]);
      this.#count(`refused ${what}`);
      return;
    }
    // No unit attention among them: LIO has its own.
    if (status !== 0) throw new Error(`${what} ended with ${status} ${key}`);
    if (what === 'read') this.#checkRead(data, sent);
    else if (what === 'inquiry') this.#checkInquiry(data, sent);
    else this.#apply(sent);
    this.#count(what);
    if (room > blocks * BLOCK) this.#count('longer');
  }

  #checkRead(data: Uint8Array, { lba, blocks, room }: Sent): void {
    expect(data.length).toBe(Math.min(blocks * BLOCK, room));
    for (let i = 0; i * BLOCK < data.length; i++) {
      if (this.#unknown[lba + i] === 1) continue;
      const length = Math.min(BLOCK, data.length - i * BLOCK);
      this.#same(data, this.#disk, lba + i, i * BLOCK, (lba + i) * BLOCK, length);
    }
  }

  /** The same bytes every time, as many as were asked for. */
  #checkInquiry(data: Uint8Array, { room, blocks: allocation }: Sent): void {
    const length = Math.min(allocation, room);
    if (length === 0) {
      expect([...data]).toEqual(room === 0 ? [] : [0]);
      return;
    }
    if (data.length > length) throw new Error(`INQUIRY of ${length} bytes returned ${data.length}`);
    if (data.length > this.#inquiry.length) this.#inquiry = data;
    expect(data.length).toBe(Math.min(length, Math.max(data.length, this.#inquiry.length)));
    expect(Buffer.compare(data, this.#inquiry.subarray(0, data.length))).toBe(0);
  }

  #apply({ what, lba, blocks, out }: Sent): void {
    this.#unknown.fill(0, lba, lba + blocks);
    const begin = lba * BLOCK;
    if (what === 'write') this.#disk.set(out!.subarray(0, blocks * BLOCK), begin);
    else this.#disk.fill(what === 'unmap' ? 0 : out![0]!, begin, begin + blocks * BLOCK);
  }

  #same(a: Uint8Array, b: Uint8Array, lba: number, aAt: number, bAt: number, length: number): void {
    if (Buffer.compare(a.subarray(aAt, aAt + length), b.subarray(bAt, bAt + length)) === 0) return;
    throw new Error(`block ${lba} holds ${a[aAt]}, expected ${b[bAt]}`);
  }
}

/** Of a command whose CDB takes `length` bytes, where `announced` were. */
function refusalOf(what: Sent['what'], length: number, announced: number): string {
  if (what === 'nonsense') return '5/20/0';
  if (what === 'writeSame' && announced !== length) return FIELD_IN_CDB;
  if (announced >= length) return '';
  return what === 'write' ? SHORT : what === 'unmap' ? LIST_LENGTH : '';
}

function fillUnmapList(out: Uint8Array, lba: number, blocks: number): void {
  out.fill(0);
  out[1] = 22;
  out[3] = 16;
  writeU64BE(out, 8, lba);
  writeU32BE(out, 16, blocks);
}

describe('any history of a logical unit behind a ring', () => {
  test('reads what was written last, refuses what is short of its CDB, and never sees a unit attention of its own', () => {
    const random = new SeededRandom();
    const seen: Record<string, number> = {};
    try {
      for (let entries = 0; entries < ENTRIES; entries += 2500) {
        const history = new UnitHistory(random);
        history.play(2500);
        for (const [what, count] of Object.entries(history.seen)) seen[what] = (seen[what] ?? 0) + count;
      }
    } catch (error) {
      throw new Error(`THINLUN_SEED=${random.seed}`, { cause: error });
    }
    const wanted = ['read', 'write', 'writeSame', 'unmap', 'inquiry', 'refused write', 'aborted', 'longer'];
    expect(wanted.filter((what) => !(seen[what]! > 0))).toEqual([]);
  }, 600_000);
});
