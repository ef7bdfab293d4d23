import { describe, expect, it } from 'vitest';
import { Nexus } from '../../src/scsi/nexus.ts';
import { DATA_BUFFER_SIZE, ECHO_BUFFER_SIZE } from '../../src/scsi/unit-buffers.ts';
import { checkCondition, GOOD, Initiator, NO_DATA, Pending, pattern } from './support/initiator.ts';

const DATA = 2;
const DESCRIPTOR = 3;
const ECHO = 0x0a;
const ECHO_DESCRIPTOR = 0x0b;

const be3 = (value: number): number[] => [value >> 16, (value >> 8) & 255, value & 255];
const read = (mode: number, offset: number, length: number, id = 0): number[] => [
  0x3c,
  mode,
  id,
  ...be3(offset),
  ...be3(length),
  0,
];
const read16 = (mode: number, offset: number, length: number, id = 0): number[] => [
  ...[0x9b, mode, 0, 0, 0, 0, 0, ...be3(offset)],
  ...[0, ...be3(length), id, 0],
];
const write = (mode: number, offset: number, length: number, id = 0): number[] => [
  0x3b,
  mode,
  id,
  ...be3(offset),
  ...be3(length),
  0,
];

describe('the data buffer', () => {
  it('holds zeroes before it is written, and what was written after', () => {
    const initiator = new Initiator();
    const zeroes = initiator.in(read(DATA, 0, 65535), 65535).data;
    expect([zeroes.length, zeroes.every((byte) => byte === 0)]).toEqual([DATA_BUFFER_SIZE, true]);
    expect(initiator.out(write(DATA, 100, 50), pattern(50))).toMatchObject(GOOD);
    const { data } = initiator.in(read(DATA, 90, 70), 70);
    expect([...data]).toEqual([...new Array(10).fill(0), ...pattern(50), ...new Array(10).fill(0)]);
    expect(initiator.in(read16(DATA, 90, 70), 70).data).toEqual(data);
    initiator.unit.reset(null, () => {});
    initiator.out([0, 0, 0, 0, 0, 0]);
    expect(initiator.in(read(DATA, 0, 200), 200).data.every((byte) => byte === 0)).toBe(true);
  });

  it('is described, and one that is not there has no capacity', () => {
    const initiator = new Initiator();
    expect([...initiator.in(read(DESCRIPTOR, 0, 8), 8).data]).toEqual([0, ...be3(DATA_BUFFER_SIZE)]);
    expect([...initiator.in(read16(DESCRIPTOR, 0, 8), 8).data]).toEqual([0, ...be3(DATA_BUFFER_SIZE)]);
    expect([...initiator.in(read(DESCRIPTOR, 0, 8, 1), 8).data]).toEqual([0, 0, 0, 0]);
  });

  it('ends where it ends', () => {
    const initiator = new Initiator();
    expect(initiator.in(read(DATA, DATA_BUFFER_SIZE - 3, 10), 10).data.length).toBe(3);
    expect(initiator.in(read(DATA, DATA_BUFFER_SIZE, 10), 10)).toMatchObject({ ...GOOD, residual: 10 });
    expect(initiator.in(read(DATA, DATA_BUFFER_SIZE + 1, 10), 10)).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.in([0x9b, DATA, 0xff, ...new Array(13).fill(0)], 10)).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.out(write(DATA, DATA_BUFFER_SIZE - 3, 3), pattern(3))).toMatchObject(GOOD);
    expect(initiator.out(write(DATA, DATA_BUFFER_SIZE - 3, 4), pattern(4))).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.out(write(DATA, 0xffffff, 0))).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.out(write(DATA, 0, 8), pattern(4))).toMatchObject(checkCondition('5/1a/00'));
    expect(initiator.out(write(DATA, 0, 4, 1), pattern(4))).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.in(read(DATA, 0, 4, 1), 4)).toMatchObject(checkCondition('5/24/00'));
  });
});

describe('the echo buffer', () => {
  it('gives back what the same initiator wrote, and nothing to others', () => {
    const initiator = new Initiator();
    const nexus = new Nexus('iqn.2026-01.test:other,i,0x2', '', 1);
    initiator.unit.attach(nexus, false);
    const other = new Pending(nexus);
    expect(initiator.in(read(ECHO, 0, 10), 10)).toMatchObject(checkCondition('5/2c/00'));
    expect(initiator.out(write(ECHO, 0, 40), pattern(40))).toMatchObject(GOOD);
    expect(initiator.in(read(ECHO, 0, 100), 100)).toMatchObject({ ...GOOD, data: pattern(40), residual: 60 });
    expect(initiator.in(read(ECHO, 0, 10), 100).data).toEqual(pattern(40).slice(0, 10));
    other.start(initiator.unit, read(ECHO, 0, 100), NO_DATA, 100);
    expect(other.result()).toMatchObject(checkCondition('5/2c/00'));
    other.start(initiator.unit, write(ECHO, 0, 4), pattern(4, 9), 0);
    expect(other.result()).toMatchObject(GOOD);
    expect(initiator.in(read(ECHO, 0, 100), 100)).toMatchObject(checkCondition('5/2c/00'));
  });

  it('has a size, which is described', () => {
    const initiator = new Initiator();
    expect([...initiator.in(read(ECHO_DESCRIPTOR, 0, 8), 8).data]).toEqual([0, 0, ECHO_BUFFER_SIZE >> 8, 0]);
    const length = ECHO_BUFFER_SIZE + 1;
    expect(initiator.out(write(ECHO, 0, length), pattern(length))).toMatchObject(checkCondition('5/24/00'));
  });
});

it.each([0, 1, 4, 5, 7, 0x0c, 0x1a, 0x1c])('buffer mode %i is not there', (mode) => {
  const initiator = new Initiator();
  expect(initiator.in(read(mode, 0, 4), 4)).toMatchObject(checkCondition('5/24/00'));
  expect(initiator.in(read16(mode, 0, 4), 4)).toMatchObject(checkCondition('5/24/00'));
  expect(initiator.out(write(mode, 0, 4), pattern(4))).toMatchObject(checkCondition('5/24/00'));
});
