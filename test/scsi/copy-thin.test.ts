import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { BlockDevice } from '../../src/block/block-device.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { Target } from '../../src/scsi/target.ts';
import type { ScsiTask } from '../../src/scsi/task.ts';
import { SpyDevice } from '../support/spy-device.ts';
import { BLOCK, type Fixture, makePool } from '../thin/pool-fixture.ts';
import {
  copyOut,
  cscd,
  HandClock,
  lid1,
  naaOf,
  offsetSegment,
  populateList,
  receive,
  segment,
  writeList,
  zeroToken,
} from './support/copy.ts';
import {
  cdb16,
  checkCondition,
  GOOD,
  NO_DATA,
  Pending,
  pattern,
  type Result,
  unitOptions,
} from './support/initiator.ts';
import { RamLun } from './support/ram-lun.ts';

const SECTOR = 512;
const BLOCK_SECTORS = BLOCK / SECTOR;
const BOTH = [cscd(naaOf(0)), cscd(naaOf(1))];

/** Two thin volumes of a pool as LUNs. */
class ThinTarget {
  readonly pool: Fixture;
  data!: SpyDevice;
  readonly target: Target = new Target('iqn.2026-01.test:pool');
  readonly nexus: Nexus = new Nexus('iqn.2026-01.test:i,i,0x1', 'iqn.2026-01.test:pool,t,0x0001', 1);

  constructor(blocks: number) {
    this.pool = makePool({
      wrapData: (device: BlockDevice) => {
        this.data = new SpyDevice(device);
        return this.data;
      },
    });
    for (const lun of [0, 1]) {
      const backend = this.pool.volume(lun + 1, blocks * BLOCK);
      const options = { ...unitOptions(new RamLun(65536)), backend, naa: naaOf(lun), clock: new HandClock() };
      const unit = new LogicalUnit(options);
      this.target.setLun(lun, unit);
    }
    this.target.attach(this.nexus);
    for (const unit of [0, 1]) this.target.unitAt(unit)!.state.nexuses.get(this.nexus)!.attentions.take();
  }

  send(lun: number, cdb: readonly number[], data: Uint8Array = NO_DATA, expectedIn = 0): Promise<Result> {
    const pending = new Pending(this.nexus);
    return new Promise((resolve) => {
      pending.onDone = () => resolve(pending.result());
      const server = {
        prepare: (task: ScsiTask) => this.target.prepare(task, lun),
        execute: (task: ScsiTask) => this.target.execute(task),
      };
      pending.start(server, cdb, data, expectedIn);
      if (pending.doneCount === 0 && pending.isDone) resolve(pending.result());
    });
  }

  write(lun: number, lba: number, bytes: Uint8Array): Promise<Result> {
    return this.send(lun, cdb16(0x8a, lba, bytes.length / SECTOR), bytes);
  }

  async read(lun: number, lba: number, blocks: number): Promise<Uint8Array> {
    return (await this.send(lun, cdb16(0x88, lba, blocks), NO_DATA, blocks * SECTOR)).data;
  }

  copy(list: Uint8Array): Promise<Result> {
    return this.send(0, copyOut(0, list.length), list);
  }

  async token(lun: number, ranges: readonly (readonly [number, number])[]): Promise<Uint8Array> {
    const list = populateList(ranges);
    expect(await this.send(lun, copyOut(0x10, list.length, 7), list)).toMatchObject(GOOD);
    return (await this.send(lun, receive(7, 7), NO_DATA, 4096)).data.slice(38);
  }
}

describe('copies between thin volumes', () => {
  it('of whole blocks touch no data; what is written afterwards goes elsewhere', async () => {
    const thin = new ThinTarget(64);
    const bytes = pattern(32 * BLOCK);
    await thin.write(0, 0, bytes);
    thin.data.log.length = 0;
    const sectors = 32 * BLOCK_SECTORS;
    expect(await thin.copy(lid1(BOTH, [segment(0, 0, 1, 16 * BLOCK_SECTORS, sectors)]))).toMatchObject(GOOD);
    expect(thin.data.log).toEqual([]);
    expect(Buffer.compare(await thin.read(1, 16 * BLOCK_SECTORS, sectors), bytes)).toBe(0);
    await thin.write(0, 5, pattern(SECTOR, 2));
    await thin.write(1, 16 * BLOCK_SECTORS + 9, pattern(SECTOR, 3));
    expect(await thin.read(1, 16 * BLOCK_SECTORS + 5, 1)).toEqual(bytes.slice(5 * SECTOR, 6 * SECTOR));
    expect(await thin.read(0, 9, 1)).toEqual(bytes.slice(9 * SECTOR, 10 * SECTOR));
    await thin.pool.close();
  });

  it('of tokens touch no data either, and zeroes give blocks back', async () => {
    const thin = new ThinTarget(64);
    await thin.write(0, 0, pattern(8 * BLOCK));
    const token = await thin.token(0, [[0, 8 * BLOCK_SECTORS]]);
    thin.data.log.length = 0;
    const list = writeList(token, [[0, 8 * BLOCK_SECTORS]]);
    expect(await thin.send(1, copyOut(0x11, list.length, 8), list)).toMatchObject(GOOD);
    expect(thin.data.log).toEqual([]);
    expect(await thin.read(1, 7, 100)).toEqual(pattern(8 * BLOCK).slice(7 * SECTOR, 107 * SECTOR));
    const zeroes = writeList(zeroToken(), [[0, 8 * BLOCK_SECTORS]]);
    expect(await thin.send(1, copyOut(0x11, zeroes.length, 8), zeroes)).toMatchObject(GOOD);
    expect((await thin.read(1, 0, 200)).every((byte) => byte === 0)).toBe(true);
    expect(thin.pool.metadata.openThin(2).mappedBlocks).toBe(0);
    await thin.write(0, 3, pattern(SECTOR));
    expect(await thin.send(1, copyOut(0x11, list.length, 8), list)).toMatchObject(checkCondition('5/23/06'));
    await thin.pool.close();
  });

  it('leave what a byte-by-byte copy would leave', async () => {
    const sectors = 12 * BLOCK_SECTORS;
    const place = fc.oneof(
      fc.nat(sectors - 1),
      fc.nat(11).map((block) => block * BLOCK_SECTORS),
    );
    const step = fc.record({
      kind: fc.constantFrom('copy', 'copy', 'copy', 'token', 'write', 'unmap'),
      from: fc.nat(1),
      to: fc.nat(1),
      at: place,
      toAt: place,
      length: fc.oneof(
        fc.integer({ min: 1, max: 300 }),
        fc.integer({ min: 1, max: 6 }).map((blocks) => blocks * BLOCK_SECTORS),
      ),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
        const thin = new ThinTarget(12);
        const model = [new Uint8Array(sectors * SECTOR), new Uint8Array(sectors * SECTOR)];
        let seed = 0;
        for (const { kind, from, to, at, toAt, length: wanted } of steps) {
          const length = Math.min(wanted, sectors - at, sectors - toAt);
          const bytes = length * SECTOR;
          const moved = model[from]!.slice(at * SECTOR, at * SECTOR + bytes);
          if (kind === 'write') {
            const data = pattern(bytes, ++seed);
            expect(await thin.write(to, toAt, data)).toMatchObject(GOOD);
            model[to]!.set(data, toAt * SECTOR);
          } else if (kind === 'unmap') {
            const list = writeList(zeroToken(), [[toAt, length]]);
            expect(await thin.send(to, copyOut(0x11, list.length, 9), list)).toMatchObject(GOOD);
            model[to]!.fill(0, toAt * SECTOR, toAt * SECTOR + bytes);
          } else if (from === to && at < toAt + length && toAt < at + length) {
          } else if (kind === 'copy') {
            const list = lid1(BOTH, [offsetSegment(from, at, to, toAt, bytes)], { listId: 0, usage: 3 });
            expect(await thin.copy(list)).toMatchObject(GOOD);
            model[to]!.set(moved, toAt * SECTOR);
          } else {
            const token = await thin.token(from, [[at, length]]);
            const list = writeList(token, [[toAt, length]], { deletes: true });
            expect(await thin.send(to, copyOut(0x11, list.length, 9), list)).toMatchObject(GOOD);
            model[to]!.set(moved, toAt * SECTOR);
          }
        }
        for (const lun of [0, 1]) {
          expect(Buffer.compare(await thin.read(lun, 0, sectors), model[lun]!)).toBe(0);
        }
        await thin.pool.close();
      }),
      { numRuns: 40 },
    );
  });

  it('never tell another story than the token: what is written meanwhile is not in what was copied', async () => {
    const thin = new ThinTarget(64);
    for (let round = 0; round < 20; round++) {
      const old = pattern(16 * BLOCK, round);
      await thin.write(0, 0, old);
      const token = await thin.token(0, [[0, 16 * BLOCK_SECTORS]]);
      const list = writeList(token, [[3, 16 * BLOCK_SECTORS]]);
      const copying = thin.send(1, copyOut(0x11, list.length, 8), list);
      for (let i = 0; i < round; i++) await Promise.resolve();
      const writing = thin.write(0, (round * 97) % (16 * BLOCK_SECTORS - 8), pattern(8 * SECTOR, 100 + round));
      const [copied, written] = await Promise.all([copying, writing]);
      expect(written).toMatchObject(GOOD);
      if (copied.status === 0) expect(Buffer.compare(await thin.read(1, 3, 16 * BLOCK_SECTORS), old)).toBe(0);
      else expect(copied).toMatchObject(checkCondition('5/23/06'));
    }
    await thin.pool.close();
  });
});
