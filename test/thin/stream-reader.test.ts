import { describe, expect, it } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import {
  encodePreface,
  encodeRecordHeader,
  encodeToken,
  parseToken,
  RecordType,
  type StreamHeader,
} from '../../src/thin/stream-format.ts';
import { StreamReader } from '../../src/thin/stream-reader.ts';
import { StreamScanner } from '../../src/thin/stream-scanner.ts';
import { pattern } from '../support/lun-client.ts';

const HEADER: StreamHeader = {
  volume: 'web',
  contentId: '6c8f2a52-6d3c-4a0e-9d0b-0c6d1a2b3c4d',
  baseContentId: '1b4e28ba-2fa1-41d2-883f-0016d3cca427',
  sizeBytes: MIB,
  logicalBlockSize: 512,
  blockSizeBytes: 64 * KIB,
  beginBytes: 0,
  expectedBytes: 1024,
};

type Part = { type: number; offset?: number; length?: number; payload?: Uint8Array };

const text = (type: number, value: unknown): Part => ({
  type,
  payload: Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)),
});
const BEGIN = text(RecordType.begin, HEADER);
const DATA: Part = { type: RecordType.data, offset: 4096, payload: pattern(512, 1) };
const UNMAPPED: Part = { type: RecordType.unmapped, offset: 8192, length: 65536 };
const MORE: Part = { type: RecordType.data, offset: MIB - 512, payload: pattern(512, 2) };
const END = text(RecordType.end, { records: 4, dataBytes: 1024, unmappedBytes: 65536 });
const GOOD = [BEGIN, DATA, UNMAPPED, MORE, END];

function record({ type, offset = 0, length, payload }: Part, sequence: number): Uint8Array {
  const header = encodeRecordHeader(type as RecordType, sequence, offset, length ?? payload!.length, payload ?? null);
  return payload === undefined ? header : Buffer.concat([header, payload]);
}

function stream(...parts: Part[]): Buffer {
  return Buffer.concat([encodePreface(), ...parts.map(record)]);
}

async function* cutInto(bytes: Uint8Array, size: number): AsyncIterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** Reads all of it; what it is made of. */
async function read(bytes: Uint8Array, chunkSize = 700): Promise<string[]> {
  const reader = new StreamReader(cutInto(bytes, chunkSize), async () => new Uint8Array(MIB));
  const found = [(await reader.header()).volume];
  for (let record = await reader.next(); record !== null; record = await reader.next()) {
    const { offset, length, memory } = record;
    found.push(
      memory === null ? `unmapped ${offset} ${length}` : `data ${offset} ${Buffer.from(memory).toString('hex', 0, 4)}`,
    );
  }
  return found;
}

describe('a stream', () => {
  const good = stream(...GOOD);

  it('is read the same however it arrives', async () => {
    const hex = (seed: number): string => Buffer.from(pattern(4, seed)).toString('hex');
    const expected = ['web', `data 4096 ${hex(1)}`, 'unmapped 8192 65536', `data ${MIB - 512} ${hex(2)}`];
    for (const size of [1, 7, 16, 32, 33, 513, 100_000]) expect(await read(good, size)).toEqual(expected);
  });

  it('is refused when any bit of it is wrong', async () => {
    for (let at = 0; at < good.length; at++) {
      const bad = Buffer.from(good);
      bad[at]! ^= 1 << (at % 8);
      await expect(read(bad), `byte ${at}`).rejects.toThrow(/^(?:Cannot read the stream|The stream was cut off)/);
    }
  });

  it('is refused wherever it is cut off', async () => {
    for (let length = 0; length < good.length; length++) {
      const message = length === 0 ? 'it is empty' : length < 12 ? 'does not begin' : `cut off after ${length} bytes`;
      await expect(read(good.subarray(0, length)), `${length} bytes`).rejects.toThrow(message);
    }
  });

  it.each<[string, Buffer, string]>([
    [
      'a record is missing',
      Buffer.concat([encodePreface(), record(BEGIN, 0), record(UNMAPPED, 2)]),
      'record 2 comes where 1 should',
    ],
    [
      'a record is missing and the others are counted anew',
      stream(BEGIN, DATA, UNMAPPED, END),
      'its end counts 4 records',
    ],
    ['a record comes twice', stream(BEGIN, DATA, DATA, END), 'bytes 4096 to 4608 come after 4608'],
    ['records are exchanged', stream(BEGIN, UNMAPPED, DATA, END), 'come after 73728'],
    ['data lies past the end', stream(BEGIN, { ...MORE, offset: MIB }), 'come after 0 of 1048576'],
    ['it begins twice', stream(BEGIN, BEGIN), 'it begins a second time'],
    ['it does not begin', stream(DATA), 'its first record is of type 2'],
    ['something follows', Buffer.concat([good, good]), 'something comes after its end'],
    ['a record is of no known type', stream(BEGIN, text(9, 'x')), 'a record of type 9 and 1 bytes'],
    [
      'a record is too long',
      stream(BEGIN, { type: RecordType.data, length: MIB + 1, payload: pattern(512, 1) }),
      `${MIB + 1} bytes`,
    ],
    [
      'its head is not what it should be',
      stream(text(RecordType.begin, { ...HEADER, contentId: 'x' })),
      'cannot be understood',
    ],
    [
      'its head does not make sense',
      stream(text(RecordType.begin, { ...HEADER, beginBytes: 2 * MIB })),
      'it begins at 2097152 of 1048576',
    ],
    [
      'it is of another version',
      Buffer.concat([Buffer.from('THINLUN-SEND\u0002\0\0\0', 'latin1'), good.subarray(16)]),
      'it is of version 2',
    ],
    ['it is something else', Buffer.from('#!/bin/sh\necho this is no stream'), 'does not begin as a stream'],
    [
      'its sender has failed',
      stream(BEGIN, DATA, text(RecordType.failed, 'no such luck')),
      'The sender has failed: no such luck',
    ],
  ])('is refused when %s', async (_, bytes, message) => {
    await expect(read(bytes)).rejects.toThrow(message);
  });

  it('is understood by those who only see it go by', () => {
    for (const size of [1, 31, 100_000]) {
      const scanner = new StreamScanner();
      for (let at = 0; at < good.length; at += size) {
        expect(scanner.ended).toBe(false);
        scanner.push(good.subarray(at, at + size));
      }
      expect(scanner).toMatchObject({ ended: true, failure: null, position: good.length, header: HEADER });
    }
    const failed = new StreamScanner();
    failed.push(stream(BEGIN, text(RecordType.failed, 'no such luck')));
    expect(failed).toMatchObject({ ended: false, failure: 'no such luck' });
  });
});

describe('a token', () => {
  const point = { contentId: HEADER.contentId, baseContentId: null, positionBytes: 123456789 };

  it('says where to go on', () => {
    expect(parseToken(encodeToken(point))).toEqual(point);
  });

  it('is refused when any character of it is wrong', () => {
    const token = encodeToken(point);
    for (let at = 0; at < token.length; at++) {
      const other = `${token.slice(0, at)}${token[at] === 'x' ? 'y' : 'x'}${token.slice(at + 1)}`;
      expect(() => parseToken(other), other).toThrow('Cannot read the token');
    }
    for (const other of ['', 'thinlun-', token.slice(0, 20)])
      expect(() => parseToken(other)).toThrow('Cannot read the token');
  });
});
