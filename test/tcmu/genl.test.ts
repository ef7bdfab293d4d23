import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readU16LE, readU32LE, writeU32LE } from '../../src/base/bytes.ts';
import { StorageError } from '../../src/base/errors.ts';
import {
  decodeDatagram,
  encodeDone,
  encodeGetFamily,
  encodeMessage,
  encodeSetFeatures,
  type TcmuEvent,
  TcmuEventKind,
} from '../../src/tcmu/genl.ts';

const FAMILY = 0x1d;

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  writeU32LE(bytes, 0, value);
  return bytes;
}

/** An event as the kernel sends it. */
function event(kind: number, more: [number, Uint8Array][] = []): Uint8Array {
  return encodeMessage(FAMILY, kind, 2, [
    [1, Buffer.from('tcm-user/0/vol/thin/pool/vol\0')],
    [2, u32(3)],
    [8, u32(17)],
    ...more,
  ]);
}

/** The answer to a question for the family, with one group. */
function family(): Uint8Array {
  const group = encodeMessage(0, 0, 0, [
    [1, Buffer.from('config\0')],
    [2, u32(9)],
  ]).subarray(20);
  const groups = encodeMessage(0, 0, 0, [[1, group]]).subarray(20);
  return encodeMessage(16, 1, 2, [
    [2, Buffer.from('TCM-USER\0')],
    [1, Uint8Array.of(FAMILY, 0)],
    [7 | 0x8000, groups],
  ]);
}

function only(bytes: Uint8Array): TcmuEvent {
  const [message] = decodeDatagram(bytes, FAMILY);
  if (message?.is !== 'event') throw new Error('not an event');
  return message.event;
}

describe('netlink messages', () => {
  test('tell of a device that was added', () => {
    expect(only(event(TcmuEventKind.ADDED))).toEqual({
      kind: TcmuEventKind.ADDED,
      uioName: 'tcm-user/0/vol/thin/pool/vol',
      minor: 3,
      deviceId: 17,
      devConfig: null,
      sizeBytes: null,
      writeCache: null,
    });
  });

  test('carry what a reconfiguration changes', () => {
    const size = Uint8Array.of(0, 0, 0, 0, 2, 0, 0, 0);
    expect(only(event(TcmuEventKind.RECONFIG, [[5, size]])).sizeBytes).toBe(2 ** 33);
    expect(only(event(TcmuEventKind.RECONFIG, [[4, Buffer.from('thin/a/b\0')]])).devConfig).toBe('thin/a/b');
    expect(only(event(TcmuEventKind.RECONFIG, [[6, Uint8Array.of(1)]])).writeCache).toBe(true);
  });

  test('name the family and its group', () => {
    expect(decodeDatagram(family(), 0)).toEqual([{ is: 'family', id: FAMILY, groupId: 9 }]);
  });

  test('come several in a datagram, among others that are not for us', () => {
    const other = encodeMessage(0x55, 1, 1, []);
    const error = encodeMessage(2, 0, 0, []).slice(0, 20);
    writeU32LE(error, 16, -19 >>> 0);
    const bytes = Buffer.concat([event(1), other, error, event(2)]);
    expect(decodeDatagram(bytes, FAMILY).map((message) => message.is)).toEqual(['event', 'other', 'error', 'event']);
    expect(decodeDatagram(bytes, FAMILY)[2]).toEqual({ is: 'error', errno: 19 });
  });

  test('cut at any byte give an error or fewer messages, never a wrong one', () => {
    const whole = Buffer.concat([event(1), family(), event(3, [[5, new Uint8Array(8)]])]);
    const all = decodeDatagram(whole, FAMILY);
    expect(all).toHaveLength(3);
    for (let length = 0; length < whole.length; length++) {
      let messages: unknown[];
      try {
        messages = decodeDatagram(whole.subarray(0, length), FAMILY);
      } catch (error) {
        expect(error).toBeInstanceOf(StorageError);
        expect((error as StorageError).code).toBe('EILSEQ');
        continue;
      }
      expect(messages).toEqual(all.slice(0, messages.length));
      expect(messages.length).toBeLessThan(3);
    }
  });

  test('cut inside with the outer length put right are refused by what is missing', () => {
    const whole = event(1);
    for (let length = 16; length < whole.length; length++) {
      const bytes = whole.slice(0, length);
      writeU32LE(bytes, 0, length);
      if (length % 4 === 0 && length >= whole.length) continue;
      expect(() => decodeDatagram(bytes, FAMILY)).toThrow(StorageError);
    }
  });

  test('of any bytes end in messages or in an error of ours', () => {
    const seeds = [event(1), family(), event(3, [[5, new Uint8Array(8)]])];
    fc.assert(
      fc.property(
        fc.constantFrom(...seeds),
        fc.array(fc.tuple(fc.nat(200), fc.integer({ min: 0, max: 255 })), { maxLength: 8 }),
        (seed, changes) => {
          const bytes = seed.slice();
          for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
          try {
            decodeDatagram(bytes, FAMILY);
          } catch (error) {
            if (!(error instanceof StorageError)) throw error;
          }
        },
      ),
      { numRuns: 3000 },
    );
  });

  test('answer with a status and the device id', () => {
    const bytes = encodeDone(FAMILY, TcmuEventKind.RECONFIG, 17, -22);
    expect(readU32LE(bytes, 0)).toBe(bytes.length);
    expect(readU16LE(bytes, 4)).toBe(FAMILY);
    expect([bytes[16], bytes[17]]).toEqual([6, 2]);
    expect([readU16LE(bytes, 20), readU16LE(bytes, 22), readU32LE(bytes, 24) | 0]).toEqual([8, 7, -22]);
    expect([readU16LE(bytes, 28), readU16LE(bytes, 30), readU32LE(bytes, 32)]).toEqual([8, 8, 17]);
  });

  test('ask for the family and promise answers', () => {
    expect(Buffer.from(encodeGetFamily()).includes('TCM-USER\0')).toBe(true);
    const bytes = encodeSetFeatures(FAMILY, true);
    expect(bytes[16]).toBe(7);
    expect([readU16LE(bytes, 20), readU16LE(bytes, 22), bytes[24]]).toEqual([5, 9, 1]);
    expect(bytes.length).toBe(28);
  });
});
