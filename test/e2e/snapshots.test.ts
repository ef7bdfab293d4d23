import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { Command, FastInitiator } from '../support/fast-initiator.mjs';
import { SeededRandom } from '../support/seeded-random.ts';
import { ServedPool } from '../support/server.ts';
import { thinlun } from '../support/thinlun-server.mjs';

const SECTOR = 512;
/** Every slot is written as a whole: from one sector to more than one block of the pool, mostly across its boundaries. */
const SLOT_SECTORS = [1, 8, 24, 100, 150, 200];
const SLOTS = 48;

let pool: ServedPool | null = null;

afterEach(async () => {
  const last = pool;
  pool = null;
  await last?.close();
});

/** Counts everything that happens in this process, on all volumes: what has a lower number was earlier. */
let now = 0;

interface Write {
  readonly number: number;
  submitted: number;
  /** Infinity until it is answered. */
  answered: number;
}

interface Slot {
  readonly lba: number;
  readonly sectors: number;
  readonly writes: Write[];
  busy: boolean;
}

/** Numbered writes to the slots of one LUN, several at once, never two to one slot. */
class NumberedLoad {
  readonly slots: Slot[] = [];
  private readonly initiator: FastInitiator;
  private readonly random: SeededRandom;
  private stopping = false;
  private running = 0;
  private end: () => void = () => {};

  constructor(initiator: FastInitiator, random: SeededRandom) {
    this.initiator = initiator;
    this.random = random;
    for (let i = 0, lba = 0; i < SLOTS; i++) {
      const sectors = SLOT_SECTORS[i % SLOT_SECTORS.length]!;
      this.slots.push({ lba, sectors, writes: [{ number: 0, submitted: 0, answered: 0 }], busy: false });
      lba += sectors;
    }
  }

  get sectors(): number {
    return this.slots.reduce((sum, slot) => sum + slot.sectors, 0);
  }

  start(depth: number): void {
    this.running = depth;
    for (let i = 0; i < depth; i++) this.loop();
  }

  stop(): Promise<void> {
    this.stopping = true;
    return new Promise((resolve) => {
      this.end = resolve;
    });
  }

  private loop(): void {
    let slot = this.slots[0]!;
    let write = slot.writes[0]!;
    const next = (): void => {
      if (this.stopping || this.initiator.failure !== null) {
        if (--this.running === 0) this.end();
        return;
      }
      const free = this.slots.filter(({ busy }) => !busy);
      slot = free[this.random.below(free.length)]!;
      slot.busy = true;
      write = { number: slot.writes.length, submitted: ++now, answered: Infinity };
      slot.writes.push(write);
      const data = Buffer.alloc(slot.sectors * SECTOR);
      for (let at = 0; at < data.length; at += 8) data.writeUInt32LE(write.number, at);
      command.write(slot.lba, slot.sectors, data, this.random.oneIn(20));
      this.initiator.submit(command);
    };
    const command = new Command((done) => {
      if (done.status === 2 && done.sense !== null && (done.sense.at(2)! & 0xf) === 6) {
        // A unit attention, as for the new LUNs: it was not done.
        write.submitted = ++now;
        this.initiator.submit(done);
        return;
      }
      if (done.status !== 0) throw new Error(`status ${done.status}: ${done.sense?.toString('hex')}`);
      write.answered = ++now;
      slot.busy = false;
      next();
    });
    next();
  }
}

/** The number that a slot's sectors hold, which must be the same everywhere. */
function numberIn(slot: Slot, content: Buffer): number {
  const number = content.readUInt32LE(slot.lba * SECTOR);
  for (let at = slot.lba * SECTOR; at < (slot.lba + slot.sectors) * SECTOR; at += 8) {
    const found = content.readUInt32LE(at);
    if (found !== number) throw new Error(`write ${number} is torn: byte ${at} is of write ${found}`);
  }
  return number;
}

async function contentOf(lun: number, sectors: number): Promise<Buffer> {
  const { host, port, luns } = pool!.server;
  const reader = await FastInitiator.connect({
    host,
    port,
    target: luns[0]!.target,
    lun,
    initiatorName: 'iqn.x:reader',
  });
  const content = Buffer.alloc(sectors * SECTOR);
  for (let at = 0; at < sectors; at += 1024) {
    const count = Math.min(1024, sectors - at);
    await reader.runGood((command) =>
      command.read(at, count, SECTOR, content.subarray(at * SECTOR, (at + count) * SECTOR)),
    );
  }
  await reader.close();
  return content;
}

describe('snapshots of two volumes under load', () => {
  it('hold whole writes, all that were answered before, none submitted after, and both volumes at one moment', async () => {
    pool = await ServedPool.create('1G', { a: '64M', b: '64M' });
    const { host, port, luns } = await pool.serve();
    const random = new SeededRandom();
    const loads: NumberedLoad[] = [];
    const initiators: FastInitiator[] = [];
    for (const { target, lun } of luns) {
      const initiatorName = `iqn.x:writer${lun}`;
      const initiator = await FastInitiator.connect({ host, port, target, lun, initiatorName });
      initiators.push(initiator);
      loads.push(new NumberedLoad(initiator, random));
    }
    for (const load of loads) load.start(12);
    const taken: { luns: number[]; before: number; after: number }[] = [];
    for (let round = 0; round < 6; round++) {
      await sleep(100 + random.below(150));
      const before = ++now;
      const args = ['volume', 'snapshot', pool.folder, 'a', `a${round}`, 'b', `b${round}`, '--json'];
      const made = JSON.parse(await thinlun(...args)) as { lun: number; origin: string }[];
      taken.push({ luns: made.map(({ lun }) => lun), before, after: ++now });
      expect(made.map(({ origin }) => origin)).toEqual(['a', 'b']);
    }
    await sleep(100);
    await Promise.all(loads.map((load) => load.stop()));
    for (const { luns: snapshots, before, after } of taken) {
      const held: { slot: Slot; write: Write }[] = [];
      for (const [i, load] of loads.entries()) {
        const content = await contentOf(snapshots[i]!, load.sectors);
        for (const slot of load.slots) held.push({ slot, write: slot.writes[numberIn(slot, content)]! });
      }
      const newest = Math.max(...held.map(({ write }) => write.submitted));
      expect(newest).toBeLessThan(after);
      for (const { slot, write } of held) {
        // Of what had been answered before the command, or before another write that is in was submitted, nothing is missing.
        const due = slot.writes.filter(({ answered }) => answered < Math.max(before, newest)).at(-1)!;
        expect(write.number, `slot at ${slot.lba}`).toBeGreaterThanOrEqual(due.number);
      }
    }
    expect(loads[0]!.slots.reduce((sum, { writes }) => sum + writes.length, 0)).toBeGreaterThan(500);
    for (const initiator of initiators) await initiator.close();
  }, 120_000);
});

describe('a rollback', () => {
  it('waits until nobody uses the volume, or is forced, and the server goes on with the old content', async () => {
    pool = await ServedPool.create('1G', { a: '64M' });
    const { host, port, lun } = await pool.serve();
    const write = async (initiator: FastInitiator, byte: number): Promise<void> => {
      await initiator.runGood((command) => command.write(0, 1024, Buffer.alloc(1024 * SECTOR, byte)));
    };
    const initiator = await FastInitiator.connect({ host, port, target: lun.target, lun: lun.lun });
    await write(initiator, 1);
    await thinlun('volume', 'snapshot', pool.folder, 'a', 'good', '--read-only');
    const isUnitAttention = await initiator.run((command) => command.flush());
    expect(isUnitAttention.status).toBe(2);
    await write(initiator, 2);
    await expect(thinlun('volume', 'rollback', pool.folder, 'a', 'good')).rejects.toThrow('1 initiator uses it');
    await thinlun('volume', 'rollback', pool.folder, 'a', 'good', '--force');
    const told = await initiator.run((command) => command.flush());
    expect([told.status, told.sense?.toString('hex', 12, 14)]).toEqual([2, '2800']);
    expect((await contentOf(0, 1024)).every((byte) => byte === 1)).toBe(true);
    await write(initiator, 3);
    await initiator.close();
    await thinlun('volume', 'rollback', pool.folder, 'a', 'good');
    expect((await contentOf(0, 1024)).every((byte) => byte === 1)).toBe(true);
    await pool.crash();
    await pool.serve();
    expect((await contentOf(0, 1024)).every((byte) => byte === 1)).toBe(true);
  }, 60_000);
});
