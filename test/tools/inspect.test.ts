import { beforeEach, describe, expect, it } from 'vitest';
import { hexLines, type InspectLine, inspectBlock } from '../../src/tools/inspect.ts';
import { goldenImage } from '../support/metadata-judges.ts';
import type { TestDevice } from '../support/test-device.ts';

const SHARED_LEAF = 87;
let device: TestDevice;

beforeEach(() => {
  device = goldenImage('a11-five-snaps-broke-one-overflow-tree');
});

function field(lines: readonly InspectLine[], name: string): string | undefined {
  return lines.find((line): line is readonly [string, string] => typeof line !== 'string' && line[0] === name)?.[1];
}

/** The number of the first block that is used so. */
function find(use: RegExp): number {
  for (let number = 0; number < 400; number++) {
    if (use.test(field(inspectBlock(device, number), 'used as') ?? '')) return number;
  }
  throw new Error(`no block is ${use}`);
}

describe('inspect', () => {
  it('shows the superblock', () => {
    const lines = inspectBlock(device, 0);
    expect(lines.slice(0, 5)).toEqual([
      ['type', 'superblock'],
      ['used as', 'the superblock'],
      ['references', '1'],
      ['checksum', expect.stringMatching(/^0x[0-9a-f]{8}, right$/)],
      ['block number', '0, right'],
    ]);
    expect(field(lines, 'magic')).toBe('27022010');
    expect(field(lines, 'transaction')).toBe('6');
    expect(field(lines, 'data block size')).toBe('128 sectors (65536 bytes)');
  });

  it('names every device that shares a node, and reads its mappings', () => {
    const lines = inspectBlock(device, SHARED_LEAF);
    expect(field(lines, 'type')).toBe('node');
    expect(field(lines, 'used as')).toBe([50, 51, 52, 53, 54].map((id) => `device ${id}: root`).join('; '));
    expect(field(lines, 'references')).toBe('3 or more');
    expect(field(lines, 'entries')).toBe('6 of 252, values of 8 bytes');
    expect(lines.slice(-2)).toEqual([
      ['7', 'data block 8, time 1'],
      ['100', 'data block 5, time 0'],
    ]);
  });

  it.each([
    [/^the device roots/, 'node', /^block 87$/],
    [/^the device details/, 'node', /^6 mapped blocks, transaction 6, created at 2, snapshotted at 2$/],
    [/^the index of the data bitmaps: root/, 'node', /^bitmap at \d+, \d+ free, none before \d+$/],
    [/^the data bitmaps \(number 0\)/, 'bitmap', /^2$/],
    [/^the counts of metadata blocks above 2: root/, 'node', /^count 5$/],
    [/^the index of the metadata bitmaps/, 'index', /^at \d+, \d+ free, none before \d+$/],
    [/^the metadata bitmaps \(number 0\)/, 'bitmap', /^1$/],
  ])('knows and reads %s', (use, type, value) => {
    const lines = inspectBlock(device, find(use));
    expect(field(lines, 'type')).toBe(type);
    expect(field(lines, 'checksum')).toContain('right');
    expect(lines.filter((line) => typeof line !== 'string' && value.test(line[1])).length).toBeGreaterThan(0);
  });

  it('says what is wrong, and shows what is there all the same', () => {
    device.memory[SHARED_LEAF * 4096 + 3000]! ^= 1;
    device.memory[SHARED_LEAF * 4096 + 8] = 5;
    device.memory[SHARED_LEAF * 4096 + 20] = 251;
    const lines = inspectBlock(device, SHARED_LEAF);
    expect(field(lines, 'checksum')).toMatch(/^0x[0-9a-f]{8}, wrong: expected 0x[0-9a-f]{8}$/);
    expect(field(lines, 'block number')).toBe('5, wrong: it is block 87');
    expect(field(lines, 'shape')).toBe('wrong: max entries is 251, expected 252');
    expect(field(lines, 'used as')).toContain('device 50: root');
  });

  it('reads what can be read when the superblock is lost', () => {
    device.memory.fill(0, 0, 4096);
    expect(field(inspectBlock(device, 0), 'type')).toBe('superblock');
    const lines = inspectBlock(device, SHARED_LEAF);
    expect(field(lines, 'type')).toBe('node');
    expect(field(lines, 'used as')).toBe('nothing that the superblock leads to');
    expect(field(lines, '7')).toBe(`data block 8, time 1; or block ${8 * 2 ** 24 + 1}`);
    expect(field(inspectBlock(device, 1500), 'type')).toBe('zeroes');
  });

  it('refuses a block past the end', () => {
    expect(() => inspectBlock(device, 2048)).toThrow('Cannot inspect block 2048: "test-device" has 2048 blocks');
  });

  it('dumps bytes as hexdump does', () => {
    const lines = [...hexLines(device, 0)];
    expect(lines[2]).toMatch(/^0020 {2}ba 52 9c 01 00 00 00 00 02 00 00 00 06 00 00 00 {2}\.R\.{14}$/);
    expect(lines).toContain('*');
    expect(lines.at(-1)).toMatch(/^0ff0 /);
  });
});
