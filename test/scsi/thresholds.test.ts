import { describe, expect, it } from 'vitest';
import { readU32BE } from '../../src/base/bytes.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import type { UnitMemory } from '../../src/scsi/unit-memory.ts';
import { checkCondition, GOOD, Initiator, MIB, NO_DATA, Pending, type Result } from './support/initiator.ts';

const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0];
const REACHED = '6/38/07';
const ENABLED = 0x80;

/** A unit whose pool has a gibibyte left, and warns at 64 MiB. */
function make(lowWaterMib = 64, options: { memory?: UnitMemory } = {}) {
  const space = { usedBytes: 0, availableBytes: 1024 * MIB, lowWaterBytes: lowWaterMib * MIB };
  const memories: UnitMemory[] = [];
  const keep = async (memory: UnitMemory): Promise<void> => void memories.push(memory);
  const initiator = new Initiator({ resources: space, keep, ...options });
  return { initiator, space, memories };
}

const page = (flags: number, available: number, used: number, usedFlags = 0): number[] => [
  ...[0x5c, 2, 0, 28, ...new Array(12).fill(0)],
  ...[flags | 0x02, 1, 0, 0, 0, 0, available >> 8, available & 255],
  ...[usedFlags | 0x01, 2, 0, 0, 0, 0, used >> 8, used & 255],
];

function setThresholds(initiator: Initiator, ...values: Parameters<typeof page>): void {
  const list = Uint8Array.from([0, 0, 0, 0, ...page(...values)]);
  expect(initiator.out([0x15, 0x10, 0, 0, list.length, 0], list)).toMatchObject(GOOD);
}

const ready = (initiator: Initiator): Result => initiator.out(TEST_UNIT_READY);

describe('a threshold of logical block provisioning', () => {
  it('is the low-water mark unless an initiator sets it', () => {
    const { initiator, space } = make();
    const sense = [0x1a, 8, 0x1c, 2, 255, 0];
    expect([...initiator.in(sense, 255).data.slice(4)]).toEqual([0xdc, ...page(ENABLED, 64, 0).slice(1)]);
    space.lowWaterBytes = 100 * MIB;
    expect(readU32BE(initiator.in(sense, 255).data, 24)).toBe(100);
    const { initiator: without } = make(0);
    expect([...without.in(sense, 255).data.slice(5)]).toEqual(page(0, 0, 0).slice(1));
    const { data } = initiator.in([0x12, 1, 0xb2, 0, 8, 0], 8);
    expect(data[4]).toBe(11);
    expect(new Initiator({ resources: space, logicalBlockSize: 4096 }).in([0x12, 1, 0xb2, 0, 8, 0], 8).data[4]).toBe(8);
  });

  it('is told to every nexus, once, with the place of its descriptor; again when it was left and comes back', () => {
    const { initiator, space } = make();
    const nexus = new Nexus('iqn.2026-01.test:other,i,0x2', '', 1);
    initiator.unit.attach(nexus, false);
    const other = new Pending(nexus);
    const otherReady = (): Result => {
      other.start(initiator.unit, TEST_UNIT_READY, NO_DATA, 0);
      return other.result();
    };
    space.availableBytes = 65 * MIB;
    expect(ready(initiator)).toMatchObject(GOOD);
    for (let round = 0; round < 2; round++) {
      space.availableBytes = 64 * MIB;
      const told = ready(initiator);
      expect(told).toMatchObject(checkCondition(REACHED));
      expect([told.senseBytes[0], readU32BE(told.senseBytes, 3)]).toEqual([0xf0, 16]);
      expect(ready(initiator)).toMatchObject(GOOD);
      space.availableBytes = 10 * MIB;
      expect(ready(initiator)).toMatchObject(GOOD);
      expect(otherReady()).toMatchObject(checkCondition(REACHED));
      expect(otherReady()).toMatchObject(GOOD);
      // A little more than the mark is not the end of it.
      space.availableBytes = 64.5 * MIB;
      expect(ready(initiator)).toMatchObject(GOOD);
      space.availableBytes = 65 * MIB;
      expect(ready(initiator)).toMatchObject(GOOD);
    }
  });

  it('that is reached is told to who logs in', () => {
    const { initiator, space } = make();
    space.availableBytes = 0;
    expect(ready(initiator)).toMatchObject(checkCondition(REACHED));
    const nexus = new Nexus('iqn.2026-01.test:late,i,0x2', '', 1);
    initiator.unit.attach(nexus, true);
    const late = new Pending(nexus);
    const seen: string[] = [];
    for (let i = 0; i < 3; i++) {
      late.start(initiator.unit, TEST_UNIT_READY, NO_DATA, 0);
      seen.push(late.result().sense);
    }
    expect(seen).toEqual(['6/29/00', REACHED, '']);
  });

  it('can be set by MODE SELECT, of what is available and of what is used, and turned off', () => {
    const { initiator, space } = make();
    setThresholds(initiator, 0, 64, 300, ENABLED);
    space.availableBytes = 0;
    space.usedBytes = 300 * MIB - 1;
    expect(ready(initiator)).toMatchObject(GOOD);
    space.usedBytes = 300 * MIB;
    const told = ready(initiator);
    expect(told).toMatchObject(checkCondition(REACHED));
    expect(readU32BE(told.senseBytes, 3)).toBe(24);
    setThresholds(initiator, ENABLED, 5, 0);
    expect(ready(initiator)).toMatchObject(checkCondition(REACHED));
    setThresholds(initiator, 0, 0, 0);
    expect(ready(initiator)).toMatchObject(GOOD);
    const list = Uint8Array.from([0, 0, 0, 0, ...page(ENABLED | 0x08, 1, 1)]);
    expect(initiator.out([0x15, 0x10, 0, 0, list.length, 0], list)).toMatchObject(checkCondition('5/26/00'));
  });

  it('is silent without LBPERE', () => {
    const { initiator, space } = make();
    const list = Uint8Array.from([0, 0, 0, 0, 0x01, 10, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expect(initiator.out([0x15, 0x10, 0, 0, list.length, 0], list)).toMatchObject(GOOD);
    space.availableBytes = 0;
    expect(ready(initiator)).toMatchObject(GOOD);
  });

  it('is kept when it is saved', async () => {
    const { initiator, memories } = make();
    const list = Uint8Array.from([0, 0, 0, 0, ...page(ENABLED, 7, 9, ENABLED)]);
    initiator.pending.start(initiator.unit, [0x15, 0x11, 0, 0, list.length, 0], list, 0);
    await new Promise((resolve) => setImmediate(resolve));
    expect(initiator.pending.result()).toMatchObject(GOOD);
    const next = make(64, { memory: memories[0]! });
    next.space.availableBytes = 8 * MIB;
    expect(ready(next.initiator)).toMatchObject(GOOD);
    next.space.availableBytes = 7 * MIB;
    expect(ready(next.initiator)).toMatchObject(checkCondition(REACHED));
  });

  it('is not there where the backend does not tell its space, or does not unmap', () => {
    const initiator = new Initiator();
    expect(initiator.in([0x1a, 8, 0x1c, 2, 255, 0], 255)).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.in([0x1a, 8, 0x01, 0, 255, 0], 255)).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.in([0x12, 1, 0xb2, 0, 8, 0], 8).data[4]).toBe(0);
  });
});

describe('log pages', () => {
  const sense = (initiator: Initiator, code: number, options: { subpage?: number; pointer?: number } = {}): Result =>
    initiator.in([0x4d, 0, 0x40 | code, options.subpage ?? 0, 0, 0, options.pointer ?? 0, 2, 0, 0], 512);

  it('are listed, alone and with subpages', () => {
    const { initiator } = make();
    expect([...sense(initiator, 0).data]).toEqual([0, 0, 0, 5, 0, 0x0c, 0x10, 0x19, 0x2f]);
    const codes = [0, 0x0c, 0x10, 0x19, 0x2f];
    const pairs = codes.flatMap((code) => [code, 0, code, 0xff]);
    expect([...sense(initiator, 0, { subpage: 0xff }).data]).toEqual([0x40, 0xff, 0, 20, ...pairs]);
    expect([...sense(initiator, 0x0c, { subpage: 0xff }).data]).toEqual([0x4c, 0xff, 0, 4, 0x0c, 0, 0x0c, 0xff]);
    expect([...sense(new Initiator(), 0).data]).toEqual([0, 0, 0, 4, 0, 0x10, 0x19, 0x2f]);
  });

  it('0Ch counts what is available to all and what the unit uses', () => {
    const { initiator, space } = make();
    space.availableBytes = 1000.5 * MIB;
    space.usedBytes = 23.5 * MIB;
    const available = [0, 1, 3, 8, 0, 0, 3, 0xe8, 2, 0, 0, 0];
    const used = [0, 2, 3, 8, 0, 0, 0, 24, 1, 0, 0, 0];
    expect([...sense(initiator, 0x0c).data]).toEqual([0x0c, 0, 0, 24, ...available, ...used]);
    expect([...sense(initiator, 0x0c, { pointer: 2 }).data]).toEqual([0x0c, 0, 0, 12, ...used]);
    space.availableBytes = 2 ** 60;
    expect(readU32BE(sense(initiator, 0x0c).data, 8)).toBe(0xffffffff);
  });

  it('19h counts what READ and WRITE have done', () => {
    const { initiator } = make();
    initiator.out([0x2a, 0, 0, 0, 0, 0, 0, 0, 3, 0], new Uint8Array(3 * 512));
    initiator.in([0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0], 1024);
    initiator.in([0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0], 1024);
    const { data } = sense(initiator, 0x19);
    expect([...data.slice(0, 8)]).toEqual([0x19, 0, 0, 68, 0, 1, 3, 64]);
    expect([12, 20, 28, 36].map((at) => readU32BE(data, at))).toEqual([2, 1, 3, 4]);
    expect(data.length).toBe(72);
  });

  it('10h and 2Fh have nothing to tell, in the right form', () => {
    const { initiator } = make();
    const results = sense(initiator, 0x10).data;
    expect(results.length).toBe(4 + 20 * 20);
    for (let i = 0; i < 20; i++) expect([...results.slice(4 + 20 * i, 8 + 20 * i)]).toEqual([0, i + 1, 3, 16]);
    expect([...sense(initiator, 0x2f).data]).toEqual([0x2f, 0, 0, 8, 0, 0, 3, 4, 0, 0, 0xff, 0]);
  });

  it('are refused where they are not, and past their last parameter', () => {
    const { initiator } = make();
    for (const code of [0x01, 0x0d, 0x3f]) expect(sense(initiator, code)).toMatchObject(checkCondition('5/24/00'));
    expect(sense(initiator, 0x0c, { subpage: 1 })).toMatchObject(checkCondition('5/24/00'));
    expect(sense(initiator, 0x0c, { pointer: 3 })).toMatchObject(checkCondition('5/24/00'));
    expect(sense(initiator, 0x2f, { pointer: 1 })).toMatchObject(checkCondition('5/24/00'));
    expect(sense(new Initiator(), 0x0c)).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.in([0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 6, 0], 6).data.length).toBe(6);
  });
});
