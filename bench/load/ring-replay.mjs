/**
 * The TCMU code on a plain buffer: a command ring that a kernel's side in this process keeps full of 4 KiB reads, the logical unit, the pool and
 * its data file. usage: node ring-replay.mjs JSON; prints what bench/c/ring-replay.c prints.
 */
import { native } from '../../dist/base/native.js';
import { LogicalUnit } from '../../dist/scsi/logical-unit.js';
import { Nexus } from '../../dist/scsi/nexus.js';
import { CommandRing } from '../../dist/tcmu/command-ring.js';
import * as mb from '../../dist/tcmu/mailbox.js';
import { Pool } from '../../dist/thin/pool.js';
import { Random } from '../lib/random.mjs';

const ENTRY = 128;
const ENTRIES = 1024;
const RING_SIZE = ENTRIES * ENTRY;
const CDB_AT = mb.CMD_MIN_SIZE;
const PAGE = 4096;
const PAGE_BLOCKS = PAGE / 512;
const READ_10 = 0x28;

/** @type {{ pool: string, volume: string, depth: number, seed: number, seconds: number, count: number }} */
const { pool: dir, volume, depth, seed, seconds, count: wanted } = JSON.parse(process.argv[2] ?? '');

/** The kernel's side: one command for each of `depth` pages of the data area; as soon as one has ended, the next. */
class KernelSide {
  memory = new Uint8Array(mb.MAILBOX_SIZE + RING_SIZE + depth * PAGE);
  #view = new DataView(this.memory.buffer);
  #words = new Uint32Array(this.memory.buffer);
  #cleaned = 0;
  #head = 0;
  produced = 0;
  completed = 0;
  sum = 0;
  more = true;
  #random = new Random(seed);
  #pages;

  /** @param {number} pages */
  constructor(pages) {
    this.#pages = pages;
    const view = this.#view;
    view.setUint16(0, mb.MAILBOX_VERSION, true);
    view.setUint16(2, mb.MailboxFlag.OUT_OF_ORDER | mb.MailboxFlag.READ_LENGTH | mb.MailboxFlag.TASK_MANAGEMENT, true);
    view.setUint32(4, mb.MAILBOX_SIZE, true);
    view.setUint32(8, RING_SIZE, true);
  }

  begin() {
    for (let id = 0; id < depth && (wanted === 0 || this.produced < wanted); id++) this.#produce(id);
    this.#words[mb.CMD_HEAD_OFFSET / 4] = this.#head;
  }

  doorbell() {
    const tail = this.#words[mb.CMD_TAIL_OFFSET / 4];
    while (this.#cleaned !== tail) {
      const at = mb.MAILBOX_SIZE + this.#cleaned;
      const id = this.#view.getUint16(at + mb.ENTRY_CMD_ID, true);
      const status = this.memory[at + mb.RESPONSE_STATUS];
      if (status !== 0) throw new Error(`status ${status}`);
      this.sum = (this.sum + this.#words[this.#dataAt(id) / 4]) >>> 0;
      this.completed++;
      this.#cleaned = (this.#cleaned + ENTRY) % RING_SIZE;
      if (this.more && (wanted === 0 || this.produced < wanted)) this.#produce(id);
    }
    this.#words[mb.CMD_HEAD_OFFSET / 4] = this.#head;
  }

  /** @param {number} id */
  #dataAt(id) {
    return mb.MAILBOX_SIZE + RING_SIZE + id * PAGE;
  }

  /** @param {number} id */
  #produce(id) {
    const words = this.#words;
    const at = mb.MAILBOX_SIZE + this.#head;
    const word = at / 4;
    words[word] = ENTRY | mb.EntryOp.CMD;
    words[word + mb.ENTRY_CMD_ID / 4] = id;
    words[word + mb.CMD_IOV_COUNT / 4] = 1;
    words[word + mb.CMD_IOV_BIDI_COUNT / 4] = 0;
    words[word + mb.CMD_IOV_DIF_COUNT / 4] = 0;
    words[word + mb.CMD_CDB_OFFSET / 4] = at + CDB_AT;
    words[word + mb.CMD_CDB_OFFSET / 4 + 1] = 0;
    words[word + mb.CMD_IOVS / 4] = this.#dataAt(id);
    words[word + mb.CMD_IOVS / 4 + 1] = 0;
    words[word + mb.CMD_IOVS / 4 + 2] = PAGE;
    words[word + mb.CMD_IOVS / 4 + 3] = 0;
    const lba = this.#random.below(this.#pages) * PAGE_BLOCKS;
    const cdb = at + CDB_AT;
    this.memory[cdb] = READ_10;
    this.memory[cdb + 1] = 0;
    this.memory[cdb + 2] = lba >>> 24;
    this.memory[cdb + 3] = lba >>> 16;
    this.memory[cdb + 4] = lba >>> 8;
    this.memory[cdb + 5] = lba;
    this.memory[cdb + 6] = 0;
    this.memory[cdb + 7] = 0;
    this.memory[cdb + 8] = PAGE_BLOCKS;
    this.memory[cdb + 9] = 0;
    this.#head = (this.#head + ENTRY) % RING_SIZE;
    this.produced++;
  }
}

const pool = await Pool.open(dir);
const device = pool.openVolume(volume);
const kernel = new KernelSide(Math.floor(device.sizeBytes / PAGE));
const unit = new LogicalUnit({
  backend: device,
  serial: 'bench',
  naa: Buffer.from('6001405000000000000000000000bead', 'hex'),
  designation: 'bench',
  logicalBlockSize: 512,
  logicalBlocksPerPhysicalBlockExponent: 3,
  writeCache: true,
  random: (bytes) => bytes.fill(1),
});
const nexus = new Nexus('tcmu,i,bench', '', 0);
unit.attach(nexus, false);
const service = () => ring.service();
const ring = new CommandRing({
  memory: kernel.memory,
  layout: mb.readMailbox(kernel.memory),
  atomics: native ?? {
    atomicLoadAcquire32: (bytes, offset) => new Uint32Array(bytes.buffer, bytes.byteOffset + offset, 1)[0],
    awaitChange32: () => false,
    atomicStoreRelease32: (bytes, offset, value) => {
      new Uint32Array(bytes.buffer, bytes.byteOffset + offset, 1)[0] = value;
    },
  },
  unit,
  nexus,
  host: {
    // The wake-up by the uio file is one turn of the event loop.
    doorbell: () => {
      kernel.doorbell();
      if (kernel.completed < kernel.produced) setImmediate(service);
      else ended();
    },
    serviceSoon: () => process.nextTick(service),
    entryRefused: (reason) => {
      throw new Error(reason);
    },
  },
  maxInFlight: ENTRIES,
});
/** @type {() => void} */
let ended = () => {};
const end = new Promise((resolve) => {
  ended = () => resolve(undefined);
});
/** Compiled code is what counts. */
const warmup = wanted === 0 ? Math.min(1, seconds) * 1000 : 0;
kernel.begin();
ring.service();
if (warmup > 0) await new Promise((resolve) => setTimeout(resolve, warmup));
const [from, cpu, before] = [performance.now(), process.cpuUsage(), kernel.completed];
if (wanted === 0) {
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
} else await end;
const took = (performance.now() - from) / 1000;
const { user, system } = process.cpuUsage(cpu);
const count = kernel.completed - (wanted === 0 ? before : 0);
kernel.more = false;
await end;
/** When it was, in milliseconds of this process: as `--trace-gc` counts them. */
const window = { fromMs: from, toMs: from + took * 1000 };
console.log(JSON.stringify({ rate: count / took, cpuUs: (user + system) / count, count, sum: kernel.sum, ...window }));
unit.detach(nexus);
await pool.closeVolume(device);
await pool.close();
