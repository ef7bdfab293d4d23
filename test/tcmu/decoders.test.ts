import { describe, expect, test } from 'vitest';
import { writeU16LE, writeU32LE, writeU64LE } from '../../src/base/bytes.ts';
import { StorageError } from '../../src/base/errors.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { CommandRing } from '../../src/tcmu/command-ring.ts';
import { parseUioName } from '../../src/tcmu/configfs.ts';
import { decodeDatagram, encodeMessage } from '../../src/tcmu/genl.ts';
import * as mb from '../../src/tcmu/mailbox.ts';
import { decodeCommand, type RingBytes } from '../../src/tcmu/ring-entry.ts';
import { RingTask } from '../../src/tcmu/ring-task.ts';
import { FakeUnit, Kind, makeCdb } from './fake-unit.ts';
import { KernelRing } from './kernel-ring.ts';

const RING_SIZE = 4096 - mb.MAILBOX_SIZE;
const PAGES = 8;
const DATA = 4096;
const LAYOUT: mb.MailboxLayout = {
  flags: 0xf,
  ringOffset: mb.MAILBOX_SIZE,
  ringSize: RING_SIZE,
  dataOffset: DATA,
  mapSize: DATA + PAGES * 4096,
};
const AT = 1024;
const BYTES: readonly number[] = [0, 1, 7, 0x7f, 0x80, 0xfe, 0xff];
const nexus = new Nexus('tcmu', 'tcmu', 1);
const owner = { taskDone: () => expect.unreachable(), taskAborted: () => expect.unreachable() };

/** A map whose bytes outside of `[begin, end)` may not be looked at, also not in words, and none of which may be written. */
function fenced(memory: Uint8Array, begin: number, end: number): RingBytes {
  const fence = <T extends Uint8Array | Uint32Array>(view: T): T =>
    new Proxy(view, {
      get(target, key) {
        const byte = Number(String(key)) * view.BYTES_PER_ELEMENT;
        if (
          typeof key === 'string' &&
          !Number.isNaN(byte) &&
          !(byte >= begin && byte + view.BYTES_PER_ELEMENT <= end)
        ) {
          throw new Error(`byte ${byte} is outside of the entry from ${begin} to ${end}`);
        }
        return Reflect.get(target, key, target);
      },
      set(_target, key) {
        throw new Error(`element ${String(key)} is written`);
      },
    });
  return { memory: fence(memory), words: fence(new Uint32Array(memory.buffer, memory.byteOffset)) };
}

const CDBS: readonly [string, Uint8Array][] = [
  ['6 bytes', new Uint8Array(6)],
  ['10 bytes', makeCdb(Kind.READ, 1, 512)],
  ['12 bytes', makeCdb(Kind.READ, 1, 512, 12)],
  ['16 bytes', makeCdb(Kind.READ, 1, 512, 16)],
  ['32 bytes', makeCdb(Kind.READ, 1, 512, 32)],
  ['260 bytes', makeCdb(Kind.READ, 1, 512, 260)],
];

/** A command with two pieces, one the other way, and one of protection information, at `AT` of a map; its length. */
function command(cdb: Uint8Array): { memory: Uint8Array; length: number; cdbAt: number } {
  const memory = new Uint8Array(LAYOUT.mapSize).fill(0xcc);
  const pieces = [
    [DATA, 4096],
    [DATA + 8192, 100],
    [DATA + 16384, 4096],
    [DATA + 20480, 8],
  ] as const;
  const base = Math.max(mb.CMD_IOVS + pieces.length * mb.IOV_SIZE, mb.CMD_MIN_SIZE);
  const length = base + Math.ceil(cdb.length / 8) * 8;
  memory.fill(0, AT, AT + length);
  writeU32LE(memory, AT, length | mb.EntryOp.CMD);
  memory[AT + mb.ENTRY_CMD_ID] = 1;
  writeU32LE(memory, AT + mb.CMD_IOV_COUNT, 2);
  writeU32LE(memory, AT + mb.CMD_IOV_BIDI_COUNT, 1);
  writeU32LE(memory, AT + mb.CMD_IOV_DIF_COUNT, 1);
  writeU64LE(memory, AT + mb.CMD_CDB_OFFSET, AT + base);
  pieces.forEach(([offset, size], i) => {
    writeU64LE(memory, AT + mb.CMD_IOVS + i * mb.IOV_SIZE, offset);
    writeU64LE(memory, AT + mb.CMD_IOVS + i * mb.IOV_SIZE + 8, size);
  });
  memory.set(cdb, AT + base);
  return { memory, length, cdbAt: AT + base };
}

/** Decodes without a look at anything else; what came of it is right or refused with a reason. */
function decode(memory: Uint8Array, length: number): { wrong: string | null; task: RingTask } {
  const task = new RingTask(owner, nexus);
  const wrong = decodeCommand(fenced(memory, AT, AT + length), LAYOUT, AT, length, task);
  if (wrong !== null) {
    expect(wrong).toMatch(/^\d+ pieces do not fit|^piece \d+ is \d|^its CDB (is at|has) \d/);
    return { wrong, task };
  }
  expect(task.cdbLength).toBeGreaterThanOrEqual(6);
  for (const vector of [task.buffer, task.bidiBuffer]) {
    let sum = 0;
    for (let i = 0; i < vector.count; i++) {
      expect(vector.offsets[i]!).toBeGreaterThanOrEqual(LAYOUT.dataOffset);
      expect(vector.offsets[i]! + vector.lengths[i]!).toBeLessThanOrEqual(LAYOUT.mapSize);
      sum += vector.lengths[i]!;
    }
    expect(vector.lengthBytes).toBe(sum);
  }
  return { wrong, task };
}

describe.each(CDBS)('a command with a CDB of %s', (_name, cdb) => {
  test('is copied out whole', () => {
    const { memory, length } = command(cdb);
    const { wrong, task } = decode(memory, length);
    expect(wrong).toBeNull();
    expect(task.cdb.subarray(0, task.cdbLength)).toEqual(cdb);
    expect([task.buffer.lengthBytes, task.bidiBuffer.lengthBytes]).toEqual([4196, 4096]);
  });

  test('cut at any byte is refused, unless nothing but padding is gone', () => {
    const { memory, length, cdbAt } = command(cdb);
    for (let cut = mb.CMD_MIN_SIZE; cut < length; cut++) {
      const { wrong } = decode(memory, cut);
      if (AT + cut >= cdbAt + cdb.length) expect(wrong).toBeNull();
      else expect(wrong).toMatch(/pieces do not fit into its|its CDB/);
    }
  });

  test('with any byte changed is right or refused', () => {
    const { memory, length } = command(cdb);
    for (let at = AT + 4; at < AT + length; at++) {
      const before = memory[at]!;
      for (const value of BYTES) {
        memory[at] = value;
        decode(memory, length);
      }
      memory[at] = before;
    }
  });

  test('with any field at an extreme is right or refused', () => {
    const { memory, length, cdbAt } = command(cdb);
    const counts = [0, 1, 2, 3, 7, 8, 0x7fffffff, 0x80000000, 0xffffffff];
    const places = [0, 1, DATA - 1, DATA, LAYOUT.mapSize - 1, LAYOUT.mapSize, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 52];
    for (const field of [mb.CMD_IOV_COUNT, mb.CMD_IOV_BIDI_COUNT, mb.CMD_IOV_DIF_COUNT]) {
      const before = memory.slice(AT + field, AT + field + 4);
      for (const count of counts) {
        writeU32LE(memory, AT + field, count);
        const { wrong } = decode(memory, length);
        if (count > 8) expect(wrong).toMatch(/pieces do not fit/);
      }
      memory.set(before, AT + field);
    }
    for (let field = mb.CMD_CDB_OFFSET; field < cdbAt - AT; field += 8) {
      const before = memory.slice(AT + field, AT + field + 8);
      for (const place of [...places, AT, AT + 111, cdbAt - 1, cdbAt + 1, AT + length - 1, AT + length]) {
        writeU64LE(memory, AT + field, place);
        decode(memory, length);
      }
      memory.fill(0xff, AT + field, AT + field + 8);
      decode(memory, length);
      memory.set(before, AT + field);
    }
    expect(decode(memory, length).wrong).toBeNull();
  });
});

/** Serves one raw entry; what the unit saw of it and whether the ring was given up. */
function serve(bytes: Uint8Array, headAfter = bytes.length) {
  const kernel = new KernelRing(RING_SIZE, PAGES);
  const unit = new FakeUnit();
  const refused: string[] = [];
  const ring = new CommandRing({
    memory: kernel.memory,
    layout: mb.readMailbox(kernel.memory),
    atomics: kernel.atomics,
    unit,
    nexus,
    host: { doorbell: () => {}, serviceSoon: () => {}, entryRefused: (reason) => refused.push(reason) },
    maxInFlight: 4,
  });
  kernel.putRaw(bytes);
  if (headAfter !== bytes.length) kernel.spoilHead(headAfter);
  let reason = '';
  try {
    ring.service();
  } catch (error) {
    expect((error as StorageError).code).toBe('EILSEQ');
    reason = (error as Error).message;
  }
  return { kernel, unit, ring, refused, reason };
}

describe('the header of an entry', () => {
  test('with any operation and any length is served, refused, or the end of the ring', () => {
    for (let lenOp = 0; lenOp < RING_SIZE + 64; lenOp++) {
      const bytes = new Uint8Array(256);
      writeU32LE(bytes, 0, lenOp);
      const { reason, kernel, unit } = serve(bytes);
      const length = lenOp & ~7;
      if (length === 0 || length > 256) expect(reason).toMatch(/entry at 0 has \d+ bytes, there is room for 256/);
      expect(unit.pending).toEqual([]);
      if (reason !== '') expect(kernel.tail).toBe(0);
    }
    for (const lenOp of [0x7ffffff9, 0x80000001, 0xfffffff8, 0xffffffff]) {
      const bytes = new Uint8Array(256);
      writeU32LE(bytes, 0, lenOp);
      expect(serve(bytes).reason).toMatch(/there is room for 256/);
    }
  });

  test('cut by cmd_head at any byte is the end of the ring', () => {
    const bytes = new Uint8Array(128);
    writeU32LE(bytes, 0, 128 | mb.EntryOp.CMD);
    for (let head = 1; head < 128; head++) {
      const { reason, kernel } = serve(bytes, head);
      expect(reason).toMatch(head % 8 === 0 ? /there is room for/ : /cmd_head is/);
      expect(kernel.tail).toBe(0);
    }
  });
});

describe('a notice of task management', () => {
  test('of any length with any number of ids is passed on or refused', () => {
    for (let length = 8; length <= 64; length += 8) {
      for (const count of [0, 1, 2, 3, 4, 15, 16, 17, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff]) {
        for (const type of [0, 1, 5, 6, 7, 8, 128, 255]) {
          const bytes = new Uint8Array(length);
          writeU32LE(bytes, 0, length | mb.EntryOp.TMR);
          if (length > mb.TMR_TYPE) bytes[mb.TMR_TYPE] = type;
          if (length > mb.TMR_ID_COUNT) writeU32LE(bytes, mb.TMR_ID_COUNT, count);
          const { refused, reason, unit, kernel } = serve(bytes);
          const fits = length >= mb.TMR_IDS && mb.TMR_IDS + count * 2 <= length;
          expect(reason).toBe('');
          expect(refused.length).toBe(fits ? 0 : 1);
          if (!fits)
            expect(refused[0]).toMatch(/task management entry of type \d+: \d+ ids do not fit into its \d+ bytes/);
          expect(unit.resets).toBe(fits && type >= 5 && type <= 7 ? 1 : 0);
          expect(kernel.tail).toBe(length);
        }
      }
    }
  });

  test('may name ids that nobody has', () => {
    const bytes = new Uint8Array(40);
    writeU32LE(bytes, 0, 40 | mb.EntryOp.TMR);
    bytes[mb.TMR_TYPE] = mb.TmrType.ABORT_TASK_SET;
    writeU32LE(bytes, mb.TMR_ID_COUNT, 4);
    [0, 1, 0x7fff, 0xffff].forEach((id, i) => {
      writeU16LE(bytes, mb.TMR_IDS + i * 2, id);
    });
    expect(serve(bytes)).toMatchObject({ reason: '', refused: [] });
  });
});

describe('the mailbox', () => {
  test('with any byte changed is a layout that lies in the map, or refused, and stays as it is', () => {
    const { memory } = new KernelRing(RING_SIZE, PAGES);
    for (let at = 0; at < mb.MAILBOX_SIZE; at++) {
      const before = memory[at]!;
      for (const value of BYTES) {
        memory[at] = value;
        const whole = memory.slice(0, mb.MAILBOX_SIZE);
        try {
          const { ringOffset, ringSize, dataOffset, mapSize } = mb.readMailbox(memory);
          expect(ringOffset).toBeGreaterThanOrEqual(mb.MAILBOX_SIZE);
          expect(ringSize).toBeGreaterThanOrEqual(mb.CMD_MIN_SIZE);
          expect([dataOffset, mapSize]).toEqual([ringOffset + ringSize, memory.length]);
          expect(dataOffset).toBeLessThanOrEqual(mapSize);
        } catch (error) {
          if (!(error instanceof StorageError)) throw error;
          expect(error.message).toMatch(/^Cannot use the TCMU mailbox: /);
        }
        expect(Buffer.compare(whole, memory.subarray(0, mb.MAILBOX_SIZE))).toBe(0);
      }
      memory[at] = before;
    }
  });

  test('with cmd_tail outside of the ring is not attached to', () => {
    for (const tail of [1, 4, RING_SIZE, RING_SIZE + 8, 0x80000000, 0xffffffff]) {
      const kernel = new KernelRing(RING_SIZE, PAGES);
      const atomics = { ...kernel.atomics, atomicLoadAcquire32: () => tail };
      const host = { doorbell: () => {}, serviceSoon: () => {}, entryRefused: () => {} };
      const options = { memory: kernel.memory, layout: LAYOUT, atomics, unit: new FakeUnit(), nexus, host };
      expect(() => new CommandRing({ ...options, maxInFlight: 1 })).toThrow(/cmd_tail is \d+, the ring has/);
    }
  });
});

describe('a netlink message', () => {
  test('with the length of any attribute at an extreme is refused', () => {
    const whole = encodeMessage(0x1d, 1, 2, [
      [1, Buffer.from('tcm-user/0/vol/thin/pool/vol\0')],
      [2, Uint8Array.of(3, 0, 0, 0)],
      [8, Uint8Array.of(17, 0, 0, 0)],
    ]);
    let at = 20;
    while (at < whole.length) {
      const length = whole[at]! | (whole[at + 1]! << 8);
      for (const value of [0, 1, 3, 4, length - 1, length + 1, whole.length - at + 1, 0x7fff, 0xffff]) {
        // One byte less of a name is another name.
        if (at === 20 && value > 4 && Math.ceil(value / 4) === Math.ceil(length / 4)) continue;
        const bytes = whole.slice();
        writeU16LE(bytes, at, value);
        expect(() => decodeDatagram(bytes, 0x1d)).toThrow(/^Cannot read the netlink message: /);
      }
      at += Math.ceil(length / 4) * 4;
    }
  });
});

describe('the name of a uio device', () => {
  test('cut at any character is a shorter name of the same device, or none', () => {
    const name = 'tcm-user/12/vol/thin/pool/vol';
    for (let length = 0; length <= name.length; length++) {
      const parsed = parseUioName(name.slice(0, length));
      if (length < 'tcm-user/12/vol/thin/'.length) expect(parsed).toBeNull();
      else expect(parsed).toMatchObject({ hba: '12', device: 'vol', subtype: 'thin' });
      if (parsed !== null) expect('pool/vol'.startsWith(parsed.cfgstring)).toBe(true);
    }
  });

  test.each([
    'tcm-user/1/../thin/pool/vol',
    'tcm-user/1/./thin/pool/vol',
    'tcm-user/-1/vol/thin/x',
    'tcm-user/12345678901/vol/thin/x',
  ])('that would lead out of its folder, as "%s", is none', (text) => expect(parseUioName(text)).toBeNull());
});
