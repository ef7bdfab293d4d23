import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { writeU32LE, writeU64LE } from '../../src/base/bytes.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { CommandRing } from '../../src/tcmu/command-ring.ts';
import * as mb from '../../src/tcmu/mailbox.ts';
import type { RingTask } from '../../src/tcmu/ring-task.ts';
import { FakeUnit, Kind, makeCdb, pattern, senseOf } from './fake-unit.ts';
import { KernelRing } from './kernel-ring.ts';

const nexus = new Nexus('tcmu', 'tcmu', 1);

function setUp(options: { pages?: number; maxInFlight?: number; flags?: number } = {}) {
  const kernel = new KernelRing(4096 - mb.MAILBOX_SIZE, options.pages ?? 32, { flags: options.flags ?? 0xf });
  const unit = new FakeUnit();
  const refused: string[] = [];
  const asked = { service: 0 };
  const ring = new CommandRing({
    memory: kernel.memory,
    layout: mb.readMailbox(kernel.memory),
    atomics: kernel.atomics,
    unit,
    nexus,
    host: {
      doorbell: () => kernel.doorbell(),
      serviceSoon: () => {
        asked.service++;
      },
      entryRefused: (reason) => refused.push(reason),
    },
    maxInFlight: options.maxInFlight ?? 64,
  });
  return { kernel, unit, ring, refused, asked };
}

function read(tag: number, length: number, room: number = length) {
  return { tag, cdb: makeCdb(Kind.READ, tag, length), dataOut: null, dataInLength: room };
}

function write(tag: number, length: number) {
  return { tag, cdb: makeCdb(Kind.WRITE, tag, length), dataOut: pattern(tag, length), dataInLength: 0 };
}

describe('a command ring', () => {
  test('serves reads and writes, one doorbell a batch', () => {
    const { kernel, unit, ring } = setUp();
    unit.immediate = true;
    kernel.submit(write(1, 8192));
    kernel.submit(read(2, 4096));
    kernel.submit(read(3, 512));
    ring.service();
    expect(kernel.doorbells).toBe(1);
    expect(kernel.completions.map((c) => c.tag)).toEqual([1, 2, 3]);
    expect(unit.written.get(1)).toEqual(pattern(1, 8192));
    expect(kernel.completions[1]!.data).toEqual(pattern(2, 4096));
    expect(kernel.completions[2]!.data).toEqual(pattern(3, 512));
    expect(ring.idle).toBe(true);
    expect(kernel.broken).toBeNull();
  });

  test('completes out of order, each id once, though the slots are not their own', () => {
    const { kernel, unit, ring, asked } = setUp();
    for (let tag = 0; tag < 5; tag++) kernel.submit(read(tag, 4096));
    ring.service();
    expect(ring.inFlight).toBe(5);
    for (const index of [3, 1, 2, 1, 0]) unit.complete(index);
    expect(asked.service).toBe(1);
    expect(kernel.doorbells).toBe(0);
    ring.service();
    expect(kernel.doorbells).toBe(1);
    expect(kernel.completions.map((c) => c.tag)).toEqual([3, 1, 4, 2, 0]);
    for (const completion of kernel.completions) expect(completion.data).toEqual(pattern(completion.tag, 4096));
  });

  test('tells the kernel how much of a short reply is valid', () => {
    const { kernel, unit, ring } = setUp();
    unit.immediate = true;
    kernel.submit({ tag: 7, cdb: makeCdb(Kind.READ, 7, 36), dataOut: null, dataInLength: 96 });
    kernel.submit({ tag: 8, cdb: makeCdb(Kind.NOTHING, 8, 0), dataOut: null, dataInLength: 96 });
    kernel.submit({ tag: 9, cdb: makeCdb(Kind.BUSY, 9, 0), dataOut: null, dataInLength: 96 });
    ring.service();
    expect(kernel.completions[0]!.data).toEqual(pattern(7, 36));
    // The kernel takes no length of 0.
    expect(kernel.completions[1]!.data).toEqual(new Uint8Array(1));
    expect(kernel.completions[2]!).toMatchObject({ status: 8, data: new Uint8Array(1) });
  });

  test('passes sense data on, and no data with it', () => {
    const { kernel, unit, ring } = setUp();
    unit.immediate = true;
    for (const kind of [Kind.CHECK, Kind.REFUSED]) {
      kernel.submit({ tag: kind, cdb: makeCdb(kind, kind, 64), dataOut: null, dataInLength: 64 });
    }
    ring.service();
    for (const completion of kernel.completions) {
      expect(completion.status).toBe(2);
      expect(completion.data.length).toBe(0);
      expect(completion.sense).toEqual(senseOf(completion.tag));
    }
  });

  test('marks the commands of a task management notice as aborted and takes no slot for it', () => {
    const { kernel, unit, ring } = setUp();
    kernel.submit(read(1, 512));
    kernel.submit(read(2, 512));
    kernel.notify(mb.TmrType.ABORT_TASK, [2, 77]);
    ring.service();
    unit.complete(1);
    unit.complete(0);
    ring.service();
    expect(kernel.completions.map((c) => [c.tag, c.status])).toEqual([
      [2, 0x40],
      [1, 0],
    ]);
    expect(kernel.tail).toBe(kernel.head);
  });

  test('moves the tail over a notice that arrives while nothing is in flight', () => {
    const { kernel, ring } = setUp();
    kernel.notify(mb.TmrType.ABORT_TASK, [1]);
    ring.service();
    expect(kernel.tail).toBe(kernel.head);
    expect(ring.idle).toBe(true);
  });

  test('leaves the rest on the ring when enough is in flight, and goes on later', () => {
    const { kernel, unit, ring } = setUp({ maxInFlight: 3 });
    for (let tag = 0; tag < 8; tag++) kernel.submit(read(tag, 512));
    ring.service();
    expect(ring.inFlight).toBe(3);
    expect(ring.idle).toBe(false);
    for (let tag = 0; tag < 8; tag++) {
      unit.complete(0);
      ring.service();
    }
    expect(kernel.completions.map((c) => c.tag)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(ring.idle).toBe(true);
  });

  test('starts where the kernel says that the handler before had stopped', () => {
    const { kernel, unit, ring } = setUp();
    unit.immediate = true;
    kernel.submit(read(1, 512));
    ring.service();
    ring.detach();
    kernel.submit(read(2, 512));
    const later = new CommandRing({
      memory: kernel.memory,
      layout: mb.readMailbox(kernel.memory),
      atomics: kernel.atomics,
      unit,
      nexus,
      host: { doorbell: () => kernel.doorbell(), serviceSoon: () => {}, entryRefused: () => {} },
      maxInFlight: 8,
    });
    later.service();
    expect(kernel.completions.map((c) => c.tag)).toEqual([1, 2]);
    expect(kernel.broken).toBeNull();
  });

  test('does not touch the memory after detach, though commands still end', () => {
    const { kernel, unit, ring, asked } = setUp();
    kernel.submit(read(1, 512));
    ring.service();
    ring.detach();
    const before = kernel.memory.slice(0, mb.MAILBOX_SIZE + kernel.ringSize);
    unit.complete(0);
    ring.service();
    expect(kernel.memory.subarray(0, before.length)).toEqual(before);
    expect(ring.inFlight).toBe(0);
    expect(asked.service).toBe(0);
  });
});

describe('task management', () => {
  test.each(Object.entries(mb.TmrType))(
    '%s aborts what it names, and resets the unit only if it is a reset',
    (_name, type) => {
      const { kernel, unit, ring } = setUp();
      for (let tag = 1; tag <= 3; tag++) kernel.submit(read(tag, 512));
      ring.service();
      kernel.abort(type, new Set([1, 3]));
      ring.service();
      const resets = type === mb.TmrType.LUN_RESET || type === mb.TmrType.WARM_RESET || type === mb.TmrType.COLD_RESET;
      expect(unit.pending.map((task) => task.aborted)).toEqual([true, resets, true]);
      expect([unit.resets, unit.resetsEnded]).toEqual(resets ? [1, 0] : [0, 0]);
      while (unit.pending.length > 0) unit.complete(0);
      ring.service();
      expect(unit.resetsEnded).toBe(unit.resets);
      // The kernel looks at the status of what it did not abort itself.
      expect(kernel.completions.map(({ tag, aborted, status }) => [tag, aborted, status])).toEqual([
        [1, true, 0x40],
        [2, false, resets ? 0x40 : 0],
        [3, true, 0x40],
      ]);
    },
  );

  test('is heard though as much is in flight as may be', () => {
    const { kernel, unit, ring } = setUp({ maxInFlight: 2 });
    for (let tag = 1; tag <= 5; tag++) kernel.submit(read(tag, 512));
    ring.service();
    kernel.abort(mb.TmrType.ABORT_TASK_SET, new Set([1, 4]));
    ring.service();
    expect(unit.pending.map((task) => task.aborted)).toEqual([true, false]);
    unit.complete(0);
    ring.service();
    // 4 never begins, and ends as soon as those before it have begun.
    expect(kernel.completions.map(({ tag, status }) => [tag, status])).toEqual([
      [1, 0x40],
      [4, 0x40],
    ]);
    unit.complete(0);
    ring.service();
    unit.complete(0);
    ring.service();
    unit.complete(0);
    ring.service();
    expect(kernel.completions.at(-1)).toMatchObject({ tag: 5, status: 0, data: pattern(5, 512) });
    expect(ring.idle).toBe(true);
  });

  test('ends what waits on the ring at once when nothing else waits before it', () => {
    const { kernel, unit, ring } = setUp({ maxInFlight: 2 });
    for (let tag = 1; tag <= 8; tag++) kernel.submit(read(tag, 512));
    ring.service();
    kernel.abort(mb.TmrType.LUN_RESET, new Set([1, 2, 3, 4, 5, 6, 7, 8]));
    kernel.submit(read(9, 512));
    ring.service();
    expect(kernel.completions.map(({ tag }) => tag)).toEqual([3, 4, 5, 6, 7, 8]);
    expect(unit.pending.map((task) => task.aborted)).toEqual([true, true]);
    unit.complete(1);
    unit.complete(0);
    ring.service();
    unit.complete(0);
    ring.service();
    expect(kernel.completions.at(-1)).toMatchObject({ tag: 9, status: 0 });
  });

  test('does not hit a command that got the id of one that has ended', () => {
    const { kernel, unit, ring } = setUp();
    kernel.submit(read(1, 512));
    ring.service();
    unit.complete(0);
    kernel.abort(mb.TmrType.ABORT_TASK, new Set([1]));
    ring.service(); // the kernel gets the response after its notice, and the id is free
    kernel.submit(read(2, 512));
    ring.service();
    unit.complete(0);
    ring.service();
    expect(kernel.completions.map(({ id, tag, status }) => [id, tag, status])).toEqual([
      [1, 1, 0],
      [1, 2, 0],
    ]);
  });
});

describe('Data-In', () => {
  test('of a bidirectional command that returns less is zeroed, as the kernel looks at no length', () => {
    const { kernel, unit, ring } = setUp();
    unit.immediate = true;
    const dataOut = pattern(5, 3000);
    kernel.submit({ tag: 5, cdb: makeCdb(Kind.BIDI, 5, 1000), dataOut, dataInLength: 2000 });
    ring.service();
    const whole = new Uint8Array(2000);
    whole.set(pattern(5, 1000));
    expect(kernel.completions[0]!.data).toEqual(whole);
    expect(unit.written.get(5)).toEqual(dataOut.slice(0, 1000));
  });

  test('goes along with CHECK CONDITION where the unit returns some', () => {
    const { kernel, unit, ring } = setUp();
    unit.immediate = true;
    kernel.submit({ tag: 6, cdb: makeCdb(Kind.CHECK_DATA, 6, 100), dataOut: null, dataInLength: 100 });
    kernel.submit({ tag: 7, cdb: makeCdb(Kind.CHECK_DATA, 7, 100), dataOut: null, dataInLength: 600 });
    ring.service();
    for (const { tag, status, sense, data } of kernel.completions) {
      expect([status, sense, data]).toEqual([2, senseOf(tag), pattern(tag, 100)]);
    }
  });

  test('asked for by a command that sends data is a zero, and not what was in the buffer', () => {
    const { kernel, unit, ring } = setUp();
    unit.immediate = true;
    kernel.submit({ tag: 8, cdb: makeCdb(Kind.WRITE, 8, 512), dataOut: null, dataInLength: 512 });
    ring.service();
    expect(kernel.completions[0]).toMatchObject({ status: 0, data: new Uint8Array(1) });
  });

  test('is zeroed behind what was returned by a handler whose kernel takes no length', () => {
    const { kernel, unit, ring } = setUp({ flags: 0xf & ~mb.MailboxFlag.READ_LENGTH });
    unit.immediate = true;
    kernel.submit(read(9, 36, 96));
    ring.service();
    const whole = new Uint8Array(96);
    whole.set(pattern(9, 36));
    expect(kernel.completions[0]!.data).toEqual(whole);
  });

  test('of a command that has ended cannot be reached any more', () => {
    const { kernel, unit, ring } = setUp();
    kernel.submit(read(1, 8192));
    ring.service();
    const task = unit.pending[0] as RingTask;
    expect([task.buffer.lengthBytes, task.dataIn.lengthBytes]).toEqual([8192, 8192]);
    unit.complete(0);
    for (const vector of [task.buffer, task.bidiBuffer, task.dataOut, task.dataIn]) {
      expect([vector.memory.length, vector.count]).toEqual([0, 0]);
    }
    ring.service();
  });
});

describe('a ring that somebody else resets', () => {
  test('is given up at the next look, and not written to', () => {
    const { kernel, unit, ring } = setUp();
    for (let tag = 1; tag <= 3; tag++) kernel.submit(read(tag, 512));
    ring.service();
    unit.complete(0);
    ring.service();
    kernel.reset();
    const before = kernel.memory.slice(0, mb.MAILBOX_SIZE + kernel.ringSize);
    unit.pending[0]!.aborted = true;
    unit.complete(0);
    expect(() => ring.service()).toThrow(/it was reset by somebody else/);
    expect(kernel.memory.subarray(0, before.length)).toEqual(before);
    expect(ring.inFlight).toBe(1);
  });

  test('is noticed by cmd_head where cmd_tail had not moved', () => {
    const { kernel, ring } = setUp();
    kernel.submit(read(1, 512));
    ring.service();
    kernel.reset();
    expect(() => ring.service()).toThrow(/cmd_head is 0, entries up to 128 were read/);
  });
});

describe('the model of the kernel', () => {
  /** A response by hand to the command with this id, in the first entry. */
  function respond(kernel: KernelRing, id: number, flags: number): void {
    kernel.atomics.atomicLoadAcquire32(kernel.memory, mb.CMD_HEAD_OFFSET);
    const at = mb.MAILBOX_SIZE + kernel.tail;
    const length = (kernel.memory[at]! | (kernel.memory[at + 1]! << 8)) & ~7;
    kernel.memory[at + mb.ENTRY_CMD_ID] = id;
    kernel.memory[at + mb.ENTRY_UFLAGS] = flags;
    kernel.memory[at + mb.RESPONSE_STATUS] = 0;
    kernel.atomics.atomicStoreRelease32(kernel.memory, mb.CMD_TAIL_OFFSET, kernel.tail + length);
    kernel.doorbell();
  }

  test('calls a ring broken that answers an id that it has not', () => {
    const { kernel } = setUp();
    kernel.submit(read(1, 512));
    respond(kernel, 2, 0);
    expect(kernel.broken).toBe('cmd_id 2 not found, ring is broken');
    kernel.submit(read(2, 512));
    expect(kernel.completions).toMatchObject([{ tag: 2, status: 2 }]);
    kernel.reset();
    expect([kernel.broken, kernel.completions[1]]).toMatchObject([null, { tag: 1, status: 8 }]);
  });

  test('keeps the buffer and the id of a command that wants it, and takes no second answer', () => {
    const { kernel } = setUp();
    kernel.submit(write(1, 5000));
    respond(kernel, 1, mb.EntryFlag.KEEP_BUFFER);
    expect([kernel.completions.length, kernel.outstanding, kernel.area.usedBlocks]).toEqual([1, 1, 2]);
    kernel.submit(read(2, 512));
    expect(kernel.outstandingIds()).toEqual([1, 2]);
    kernel.freeKept(1);
    expect([kernel.outstandingIds(), kernel.area.usedBlocks]).toEqual([[2], 1]);
    respond(kernel, 2, mb.EntryFlag.KEEP_BUFFER);
    kernel.submit(read(3, 512));
    respond(kernel, 2, 0);
    expect(kernel.broken).toMatch(/already completed with KEEP_BUF/);
  });

  test('drops the answer to a command that has timed out', () => {
    const { kernel, unit, ring } = setUp();
    kernel.submit(read(1, 512));
    ring.service();
    kernel.expire(1);
    unit.complete(0);
    ring.service();
    expect(kernel.completions).toMatchObject([{ tag: 1, status: 2 }]);
    expect([kernel.broken, kernel.area.usedBlocks]).toEqual([null, 0]);
  });

  test('lets commands wait for the data area, in their order, and refuses what never fits', () => {
    const { kernel, unit, ring } = setUp({ pages: 4 });
    kernel.submit(read(1, 4 * 4096));
    kernel.submit(read(2, 4 * 4096));
    kernel.submit(read(3, 512));
    kernel.submit(read(4, 4 * 4096 + 1));
    expect(kernel.waiting).toBe(2);
    expect(kernel.completions).toMatchObject([{ tag: 4, status: 2 }]);
    for (let i = 0; i < 3; i++) {
      ring.service();
      unit.complete(0);
      ring.service();
    }
    expect(kernel.completions.map(({ tag }) => tag)).toEqual([4, 1, 2, 3]);
  });

  test('takes away pages above the highest one in use, and gives new ones, zeroed', () => {
    const { kernel, unit, ring } = setUp({ pages: 8 });
    unit.immediate = true;
    kernel.submit(write(1, 6 * 4096));
    ring.service();
    unit.immediate = false;
    kernel.submit(read(2, 512));
    kernel.area.shrink();
    expect(kernel.area.stats.shrunk).toBe(5);
    ring.service();
    unit.complete(0);
    ring.service();
    kernel.area.checkFree();
    kernel.submit(read(3, 6 * 4096));
    expect(kernel.area.stats.renewed).toBe(6 + 5);
    kernel.memory[kernel.memory.length - 1] = 0;
    expect(() => kernel.area.checkFree()).toThrow(/was written though no command has it/);
  });
});

describe('an entry that makes no sense', () => {
  /** A whole READ of one page as raw bytes, for the tests to spoil. */
  function entry(kernel: KernelRing, id: number): Uint8Array {
    const bytes = new Uint8Array(128);
    const at = mb.MAILBOX_SIZE + kernel.head;
    writeU32LE(bytes, 0, 128 | mb.EntryOp.CMD);
    bytes[mb.ENTRY_CMD_ID] = id;
    writeU32LE(bytes, mb.CMD_IOV_COUNT, 1);
    writeU64LE(bytes, mb.CMD_CDB_OFFSET, at + mb.CMD_MIN_SIZE);
    writeU64LE(bytes, mb.CMD_IOVS, mb.MAILBOX_SIZE + kernel.ringSize);
    writeU64LE(bytes, mb.CMD_IOVS + 8, 512);
    bytes.set(makeCdb(Kind.READ, 9, 512), mb.CMD_MIN_SIZE);
    return bytes;
  }

  const spoilers: [string, (bytes: Uint8Array, kernel: KernelRing) => void, RegExp][] = [
    ['more pieces than fit', (b) => writeU32LE(b, mb.CMD_IOV_COUNT, 100), /100 pieces do not fit into its 128 bytes/],
    ['2^32 - 1 pieces', (b) => writeU32LE(b, mb.CMD_IOV_COUNT, 0xffffffff), /4294967295 pieces/],
    ['bidirectional pieces', (b) => writeU32LE(b, mb.CMD_IOV_BIDI_COUNT, 0xffffffff), /pieces do not fit/],
    ['protection pieces', (b) => writeU32LE(b, mb.CMD_IOV_DIF_COUNT, 9), /10 pieces do not fit/],
    [
      'a piece in the ring',
      (b) => writeU64LE(b, mb.CMD_IOVS, 128),
      /piece 0 is 512 bytes at 128, outside of the data area/,
    ],
    ['a piece behind the map', (b, k) => writeU64LE(b, mb.CMD_IOVS, k.memory.length - 511), /outside of the data area/],
    ['a piece that is too long', (b) => writeU64LE(b, mb.CMD_IOVS + 8, 2 ** 40), /outside of the data area/],
    ['a piece at 2^64 - 8', (b) => b.fill(0xff, mb.CMD_IOVS, mb.CMD_IOVS + 8), /outside of the data area/],
    ['a CDB in the mailbox', (b) => writeU64LE(b, mb.CMD_CDB_OFFSET, 0), /its CDB is at 0, outside of the entry/],
    [
      'a CDB over the pieces',
      (b, k) => writeU64LE(b, mb.CMD_CDB_OFFSET, mb.MAILBOX_SIZE + k.head + 48),
      /outside of the entry/,
    ],
    [
      'a CDB behind the entry',
      (b, k) => writeU64LE(b, mb.CMD_CDB_OFFSET, mb.MAILBOX_SIZE + k.head + 128),
      /outside of the entry/,
    ],
    [
      'a CDB that is cut',
      (b, k) => writeU64LE(b, mb.CMD_CDB_OFFSET, mb.MAILBOX_SIZE + k.head + 125),
      /CDB has 6 bytes, there are 3/,
    ],
  ];

  test.each(spoilers)('is answered with HARDWARE ERROR when it has %s', (_name, spoil, reason) => {
    const { kernel, unit, ring, refused } = setUp();
    unit.immediate = true;
    kernel.submit(read(1, 512)); // takes id 1, so that the response has an owner
    const bytes = entry(kernel, 1);
    spoil(bytes, kernel);
    const at = kernel.putRaw(bytes);
    ring.service();
    expect(refused).toHaveLength(1);
    expect(refused[0]).toMatch(reason);
    expect(kernel.memory[at + mb.RESPONSE_STATUS]).toBe(2);
    expect(kernel.memory.subarray(at + mb.RESPONSE_SENSE, at + mb.RESPONSE_SENSE + 14)).toEqual(
      Uint8Array.of(0x70, 0, 4, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x44, 0),
    );
    expect(ring.inFlight).toBe(0);
  });

  const fatal: [string, Uint8Array, RegExp][] = [
    ['no length', Uint8Array.of(1, 0, 0, 0, 1, 0, 0, 0), /entry at 0 has 0 bytes/],
    [
      'a length that passes the head',
      Uint8Array.of(0x81, 0, 0, 0, 1, 0, 0, 0),
      /entry at 0 has 128 bytes, there is room for 8/,
    ],
    [
      'no room for a response',
      Uint8Array.of(0x09, 0, 0, 0, 1, 0, 0, 0),
      /command at 0 has 8 bytes, a response takes 112/,
    ],
  ];

  test.each(fatal)('ends the ring when it has %s', (_name, bytes, reason) => {
    const { kernel, ring } = setUp();
    kernel.putRaw(bytes);
    expect(() => ring.service()).toThrow(reason);
    ring.service(); // and does nothing from then on
    expect(kernel.tail).toBe(0);
  });

  test('ends the ring when cmd_head lies outside of it', () => {
    for (const head of [kernel().ringSize, 4, 0xffffffff]) {
      const { kernel: one, ring } = setUp();
      one.spoilHead(head);
      expect(() => ring.service()).toThrow(/cmd_head is/);
    }
    function kernel() {
      return setUp().kernel;
    }
  });

  test('is flagged and passed over when its operation is unknown', () => {
    const { kernel, unit, ring, refused } = setUp();
    unit.immediate = true;
    const at = kernel.putRaw(Uint8Array.of(0x0d, 0, 0, 0, 0, 0, 0, 0)); // operation 5, 8 bytes
    kernel.submit(read(1, 512));
    ring.service();
    expect(kernel.memory[at + mb.ENTRY_UFLAGS]).toBe(mb.EntryFlag.UNKNOWN_OP);
    expect(kernel.completions.map((c) => c.tag)).toEqual([1]);
    expect(refused).toEqual(['entry at 0 has the unknown operation 5']);
  });

  test('of task management with more ids than fit is passed over', () => {
    const { kernel, ring, refused } = setUp();
    const bytes = new Uint8Array(40);
    writeU32LE(bytes, 0, 40 | mb.EntryOp.TMR);
    writeU32LE(bytes, mb.TMR_ID_COUNT, 0x80000004);
    kernel.putRaw(bytes);
    kernel.putRaw(Uint8Array.of(0x0a, 0, 0, 0, 0, 0, 0, 0));
    ring.service();
    expect(refused).toHaveLength(2);
    expect(kernel.tail).toBe(kernel.head);
  });

  test('with any words in it never makes the ring hand out memory outside of the data area', () => {
    const word = fc.oneof(fc.integer({ min: 0, max: 300 }), fc.constantFrom(0xffffffff, 0x80000000, 4096), fc.nat());
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.integer({ min: 1, max: 31 }), word), { maxLength: 6 }), (changes) => {
        const { kernel, unit, ring } = setUp();
        const bytes = entry(kernel, 1);
        for (const [index, value] of changes) writeU32LE(bytes, index * 4, value);
        kernel.putRaw(bytes);
        ring.service();
        for (const task of unit.pending) {
          for (const vector of [task.dataIn, task.dataOut]) {
            for (let i = 0; i < vector.count; i++) {
              expect(vector.offsets[i]!).toBeGreaterThanOrEqual(mb.MAILBOX_SIZE + kernel.ringSize);
              expect(vector.offsets[i]! + vector.lengths[i]!).toBeLessThanOrEqual(kernel.memory.length);
            }
          }
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe('a mailbox', () => {
  function mailbox(change: (view: DataView) => void, length = 128 + 1024 + 4096): Uint8Array {
    const memory = new Uint8Array(length);
    const view = new DataView(memory.buffer);
    view.setUint16(0, 2, true);
    view.setUint16(2, 0xf, true);
    view.setUint32(4, 128, true);
    view.setUint32(8, 1024, true);
    change(view);
    return memory;
  }

  test('says where the ring and the data area are', () => {
    expect(mb.readMailbox(mailbox(() => {}))).toEqual({
      flags: 0xf,
      ringOffset: 128,
      ringSize: 1024,
      dataOffset: 1152,
      mapSize: 5248,
    });
  });

  const wrong: [string, (view: DataView) => void, RegExp][] = [
    ['another version', (v) => v.setUint16(0, 3, true), /version is 3, expected 2/],
    ['no out-of-order completion', (v) => v.setUint16(2, 0xe, true), /out-of-order/],
    ['a ring inside the mailbox', (v) => v.setUint32(4, 64, true), /the ring begins at 64/],
    ['a ring that is not aligned', (v) => v.setUint32(4, 132, true), /the ring begins at 132/],
    ['no ring', (v) => v.setUint32(8, 0, true), /the ring has 0 bytes/],
    ['a ring of odd size', (v) => v.setUint32(8, 1028, true), /the ring has 1028 bytes/],
    ['a ring behind the map', (v) => v.setUint32(8, 0xfffffff8, true), /the ring ends at 4294967416/],
  ];
  test.each(wrong)('is refused with %s', (_name, change, reason) => {
    expect(() => mb.readMailbox(mailbox(change))).toThrow(reason);
  });

  test('is refused when it is cut', () => {
    for (let length = 0; length < 128; length++) {
      expect(() => mb.readMailbox(new Uint8Array(length))).toThrow(/a mailbox takes 128/);
    }
  });
});
