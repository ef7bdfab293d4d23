import { describe, expect, it } from 'vitest';
import { readU16BE, readU32BE, writeU16BE, writeU32BE, writeU64BE } from '../../src/base/bytes.ts';
import type { IoVector } from '../../src/block/io-vector.ts';
import { readBlockCount } from '../../src/scsi/cdb.ts';
import { Access, type CommandRow } from '../../src/scsi/command.ts';
import { REMOVABLE_COMMANDS as SETS } from '../../src/scsi/commands.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { Status } from '../../src/scsi/spec.ts';
import { ScsiTask } from '../../src/scsi/task.ts';
import { unitOptions } from './support/initiator.ts';
import { RamLun } from './support/ram-lun.ts';
import { Random } from './support/random.ts';

const REMOVABLE_COMMANDS = SETS.inTarget;
const SEED = Number(process.env['THINLUN_FUZZ_SEED'] ?? 20260101);
const COUNT = Number(process.env['THINLUN_FUZZ_COUNT'] ?? 120_000);
const GUARD = 32;
const LUN_SIZE = 65536;
const ARENA_SIZE = 512 * 1024;

/** Fields get values at which arithmetic goes wrong. */
const INTERESTING = [0, 1, 2, 7, 15, 16, 17, 31, 63, 64, 127, 128, 129, 254, 255, 256, 0x7fff, 0x8000, 0xffff];

function randomCdb(random: Random, cdb: Uint8Array): number {
  if (random.oneIn(8)) {
    for (let i = 0; i < 32; i++) cdb[i] = random.byte();
    return random.below(33);
  }
  const row: CommandRow = random.pick(REMOVABLE_COMMANDS.rows);
  cdb.fill(0, 0, 32);
  for (let i = 1; i < row.cdbLength; i++) {
    if (random.oneIn(6)) cdb[i] = random.oneIn(4) ? random.byte() & row.usage[i]! : random.below(4);
  }
  // Lengths, addresses and allocation lengths end at the same bytes in most commands.
  const value = random.oneIn(8) ? random.below(2 ** 32) : random.oneIn(3) ? random.pick(INTERESTING) : random.below(20);
  const lba = random.oneIn(8) ? random.pick([127, 128, 129, 140, 0x80000000, 0xffffffff]) : random.below(16);
  switch (row.cdbLength) {
    case 6:
      cdb[4] = value;
      if (row.access === Access.NONE)
        cdb[2] = random.pick([0x08, 0x0a, 0x3f, 0x4a, 0x8a, 0xca, 0x00, 0x80, 0x83, 0xb0, 0xb2]);
      else cdb.set([0, 0, lba & 0xff], 1);
      break;
    case 10:
      writeU16BE(cdb, 7, value);
      writeU32BE(cdb, 2, row.access === Access.NONE ? random.pick([0x08, 0x0a, 0x3f]) * 2 ** 24 : lba);
      break;
    case 12:
      writeU32BE(cdb, 6, value);
      if (row.serviceAction < 0) writeU32BE(cdb, 2, row.access === Access.NONE ? 0 : lba);
      break;
    default:
      writeU32BE(cdb, 10, value);
      if (row.opcode === 0x89) cdb.set([0, 0, 0, random.below(5)], 10);
      if (random.oneIn(20)) cdb.fill(0xff, 2, 10);
      else writeU64BE(cdb, 2, random.oneIn(20) ? random.below(2 ** 31) * 2 ** 22 : lba);
  }
  cdb[0] = row.opcode;
  if (!random.oneIn(10)) {
    // Mostly what the usage data allows, so that the handlers see it.
    for (let i = 1; i < row.cdbLength; i++) cdb[i]! &= row.usage[i]!;
  }
  if (row.serviceAction >= 0) cdb[1] = row.serviceAction;
  if (random.oneIn(30)) cdb[random.below(row.cdbLength)] = random.byte();
  return random.oneIn(40) ? random.below(row.cdbLength + 1) : row.cdbLength;
}

/** What an initiator would announce for `cdb`, where that is easily said. */
function likelyLength(cdb: Uint8Array, blockSize: number): number {
  switch (cdb[0]) {
    case 0x15:
      return cdb[4]!;
    case 0x41:
    case 0x93:
      return blockSize;
    case 0x42:
    case 0x55:
      return readU16BE(cdb, 7);
    case 0x89:
      return 2 * blockSize * cdb[13]!;
    default:
      return Math.min(readBlockCount(cdb), 64) * blockSize;
  }
}

/** Parameter lists that are nearly right: mode pages, unmap descriptors, zeroes, noise. */
function fillDataOut(random: Random, bytes: Uint8Array): void {
  switch (random.below(4)) {
    case 0:
      bytes.fill(0);
      break;
    case 1:
      for (let i = 0; i < Math.min(bytes.length, 600); i++) bytes[i] = random.byte();
      break;
    case 2: {
      bytes.fill(0);
      const list = [0, 0, 0, 0, 0x0a, 10, random.pick([0, 4]), 0x10, random.pick([0, 8]), 0, 0, 0, 0xff, 0xff, 0, 0];
      if (random.oneIn(2)) list.unshift(0, 0, 0, 0);
      bytes.set(list.slice(0, bytes.length));
      if (random.oneIn(3) && bytes.length > 0) bytes[random.below(Math.min(bytes.length, 24))] = random.byte();
      break;
    }
    default: {
      bytes.fill(0);
      if (bytes.length < 8) return;
      writeU16BE(bytes, 0, random.oneIn(10) ? random.below(65536) : Math.min(bytes.length - 2, 0xffff));
      writeU16BE(bytes, 2, random.oneIn(10) ? random.below(65536) : Math.min(bytes.length - 8, 0xffff));
      for (let at = 8; at + 16 <= Math.min(bytes.length, 2048); at += 16) {
        writeU64BE(bytes, at, random.oneIn(30) ? 2 ** 52 : random.below(140));
        writeU32BE(bytes, at + 8, random.oneIn(30) ? 0xffffffff : random.below(20));
      }
    }
  }
}

function randomLength(random: Random): number {
  switch (random.below(5)) {
    case 0:
      return 0;
    case 1:
      return random.below(300);
    case 2:
      return random.pick([512, 4096]) * random.below(17);
    case 3:
      return random.pick(INTERESTING);
    default:
      return random.pick([8, 16, 24, 36, 96, 252, 255, 1024, 65536, 65535]);
  }
}

/** A place for the data of one command at a time, with guard bytes around every piece. */
class Arena {
  readonly memory: Uint8Array = new Uint8Array(ARENA_SIZE);
  #end = 0;

  clear(): void {
    this.#end = 0;
  }

  place(vector: IoVector, length: number, pieces: number, poison: number): void {
    const begin = this.#end;
    this.memory.fill(poison, begin, begin + length + GUARD * (pieces + 2));
    vector.clear();
    vector.memory = this.memory;
    let left = length;
    for (let i = 0; i < pieces && left > 0; i++) {
      const size = i === pieces - 1 ? left : Math.min(left, 512 * Math.ceil(length / pieces / 512));
      vector.push(this.#end + GUARD, size);
      this.#end += GUARD + size;
      left -= size;
    }
    this.#end += 2 * GUARD;
    if (this.#end > ARENA_SIZE) throw new Error('the engine asked for more than anybody announced');
  }

  guardsHold(vector: IoVector, poison: number): boolean {
    for (let i = 0; i < vector.count; i++) {
      const begin = vector.offsets[i]!;
      const end = begin + vector.lengths[i]!;
      for (let j = 1; j <= GUARD; j++) {
        if (this.memory[begin - j] !== poison) return false;
      }
      for (let j = 0; j < GUARD; j++) if (this.memory[end + j] !== poison) return false;
    }
    return true;
  }
}

function senseIsWellFormed(task: ScsiTask): boolean {
  const { sense, senseLength } = task;
  const key = sense[0]! >= 0x72 && sense[0]! < 0x80 ? sense[1]! : sense[2]! & 0x0f;
  if (key === 0 || key > 0x0e) return false;
  if ((sense[0]! & 0x7f) === 0x70) return senseLength === 18 && sense[7] === 10;
  if (sense[0] !== 0x72 || sense[7] !== senseLength - 8) return false;
  let at = 8;
  while (at < senseLength) at += 2 + sense[at + 1]!;
  return at === senseLength;
}

describe('any CDB with any data', () => {
  it(`ends as the standard allows, inside its memory and its medium (seed ${SEED}, ${COUNT} commands)`, () => {
    const random = new Random(SEED);
    const luns = [new RamLun(LUN_SIZE), new RamLun(LUN_SIZE), new RamLun(LUN_SIZE + 1536, 4096)];
    const units = [
      new LogicalUnit(unitOptions(luns[0]!)),
      new LogicalUnit(unitOptions(luns[1]!, { logicalBlockSize: 4096, removable: true, maxWriteSameBytes: 32768 })),
      new LogicalUnit(unitOptions(luns[2]!, { writeCache: false, maxTransferBytes: 8192 })),
    ];
    const nexuses = [0, 1].map((i) => new Nexus(`iqn.test:${i},i,0x1`, i === 0 ? '' : 'iqn.test:t,t,0x0001', 1));
    for (const unit of units) for (const nexus of nexuses) unit.attach(nexus);
    let done = 0;
    const owner = { taskDone: () => void done++, taskAborted: () => {} };
    const tasks = nexuses.map((nexus) => new ScsiTask(owner, nexus));
    const arena = new Arena();
    const dataOut = new Uint8Array(65536 * 2);
    const cdb = new Uint8Array(32);
    const statuses = new Map<string, number>();

    for (let i = 0; i < COUNT; i++) {
      if (i % 500 === 0) {
        // Write protection and ejected media would end up hiding everything else.
        for (const { state } of units) {
          Object.assign(state, { softwareWriteProtect: false, mediumPresent: true });
          for (const nexusState of state.nexuses.values()) nexusState.preventsRemoval = false;
        }
      }
      const which = random.below(units.length);
      const unit = units[which]!;
      const lun = luns[which]!;
      const task = random.pick(tasks);
      const cdbLength = randomCdb(random, cdb);
      const row = REMOVABLE_COMMANDS.find(cdb[0]!, cdb[1]! & 0x1f);
      const takesData = row?.access === Access.WRITE || row?.name.startsWith('VERIFY') === true;
      const length = random.oneIn(3) ? randomLength(random) : likelyLength(cdb, unit.state.blockSize);
      const outward = random.oneIn(20) ? random.oneIn(2) : takesData || cdb[0] === 0x15 || cdb[0] === 0x55;
      const expectedOut = outward ? Math.min(length, dataOut.length) : 0;
      const expectedIn = !outward || random.oneIn(40) ? length : 0;
      const pieces = 1 + random.below(3);
      fillDataOut(random, dataOut.subarray(0, expectedOut));
      const what = (): string =>
        `command ${i}: ${Buffer.from(cdb.subarray(0, 16)).toString('hex')} out ${expectedOut} in ${expectedIn} unit ${which}`;

      const run = (poison: number): Uint8Array => {
        task.cdb.set(cdb);
        task.cdbLength = cdbLength;
        task.expectedDataOut = expectedOut;
        task.expectedDataIn = expectedIn;
        task.aborted = false;
        task.sense.fill(poison);
        task.status = 0xff;
        done = 0;
        arena.clear();
        task.dataOut.clear();
        task.dataIn.clear();
        const prepared = unit.prepare(task);
        if (task.dataOutLength > expectedOut || !(task.dataInLength <= expectedIn)) throw new Error(what());
        if (prepared) {
          const room = task.dataInLength;
          arena.place(task.dataOut, task.dataOutLength, pieces, poison);
          task.dataOut.copyFrom(dataOut, 0, 0, task.dataOutLength);
          arena.place(task.dataIn, room, pieces, poison);
          unit.execute(task);
          lun.drain();
          if (!(task.dataInLength >= 0 && task.dataInLength <= room)) throw new Error(`too much data: ${what()}`);
          if (!arena.guardsHold(task.dataOut, poison) || !arena.guardsHold(task.dataIn, poison)) {
            throw new Error(`memory around the data was written: ${what()}`);
          }
        }
        if (done !== (prepared ? 1 : 0)) throw new Error(`ended ${done} times: ${what()}`);
        const returned = new Uint8Array(task.dataInLength);
        task.dataIn.copyTo(returned, 0, 0, task.dataInLength);
        return returned;
      };

      const returned = run(0xa5);
      const { status, residual } = task;
      if (!Number.isSafeInteger(residual) || residual > expectedIn + expectedOut)
        throw new Error(`residual: ${what()}`);
      if (status === Status.CHECK_CONDITION) {
        if (!senseIsWellFormed(task) || task.senseLength > 96) throw new Error(`sense: ${what()}`);
        if (returned.length !== 0) throw new Error(`data with CHECK CONDITION: ${what()}`);
        const refused = task.sense[task.sense[0] === 0x72 ? 2 : 12] === 0x0e;
        if (refused ? residual >= 0 : residual !== expectedIn + expectedOut - task.dataOutLength)
          throw new Error(`residual: ${what()}`);
      } else if (status === Status.GOOD) {
        // An underflow is what was not moved; an overflow means that all that was announced was moved.
        const moved = returned.length + task.dataOutLength;
        const announced = expectedOut > 0 && expectedIn > 0 ? -1 : expectedIn + expectedOut;
        if (announced >= 0 && residual >= 0 && moved !== announced - residual) throw new Error(`underflow: ${what()}`);
        const wrongWay = moved === 0 && takesData === (expectedOut === 0);
        if (announced >= 0 && residual < 0 && moved !== announced && !wrongWay) {
          throw new Error(`overflow: ${what()}`);
        }
      } else {
        throw new Error(`status ${status}: ${what()}`);
      }
      const key =
        status === Status.GOOD ? 'GOOD' : (readU32BE(task.sense, task.sense[0] === 0x72 ? 0 : 10) >>> 0).toString(16);
      statuses.set(key, (statuses.get(key) ?? 0) + 1);

      if (returned.length > 0 && row?.access !== Access.WRITE && cdb[0] !== 0x03 && cdb[0] !== 0x84) {
        // The same once more over other leftovers: what is returned does not depend on them. (What is known of a copy is told once.)
        if (Buffer.compare(run(0x5a), returned) !== 0) throw new Error(`returned memory that nobody wrote: ${what()}`);
      }
    }
    // The run has seen successes and all kinds of refusals.
    expect(statuses.get('GOOD')).toBeGreaterThan(COUNT / 20);
    expect(statuses.size).toBeGreaterThan(10);
  });
});
