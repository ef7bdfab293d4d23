import { describe, expect, it } from 'vitest';
import type { IoVector } from '../../src/block/io-vector.ts';
import { serviceActionOf } from '../../src/scsi/cdb.ts';
import { Access } from '../../src/scsi/command.ts';
import { REMOVABLE_COMMANDS } from '../../src/scsi/commands.ts';
import { FixedFrontEnd } from '../../src/scsi/front-end.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { Status } from '../../src/scsi/spec.ts';
import { ScsiTask } from '../../src/scsi/task.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { fillParameterList, likelyLength, randomCdb, randomLength } from './support/fuzz-grammar.ts';
import { wrongEnd } from './support/fuzz-oracles.ts';
import { unitOptions } from './support/initiator.ts';
import { RamLun } from './support/ram-lun.ts';

/** Commands of one run; `THINLUN_SEED` makes a run again. */
const COUNT = Number(process.env['THINLUN_FUZZ_INPUTS'] ?? 100_000);
const TABLE = REMOVABLE_COMMANDS.alone;
const GUARD = 32;
const LUN_SIZE = 65536;
const ARENA_SIZE = 512 * 1024;

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

/** A byte that nobody wrote shows what was there before, each time. */
function hasStaleByte(first: Uint8Array, second: Uint8Array): boolean {
  return first.some((byte, i) => byte === 0xa5 && second[i] === 0x5a);
}

describe('any CDB with any data', () => {
  const random = new SeededRandom();

  it(`ends as the standard allows, inside its memory and its medium (seed ${random.seed}, ${COUNT} commands)`, {
    timeout: 1_000_000,
  }, () => {
    const luns = [new RamLun(LUN_SIZE), new RamLun(LUN_SIZE), new RamLun(LUN_SIZE + 1536, 4096)];
    const units = [
      new LogicalUnit(unitOptions(luns[0]!)),
      new LogicalUnit(unitOptions(luns[1]!, { logicalBlockSize: 4096, removable: true, maxWriteSameBytes: 32768 })),
      new LogicalUnit(unitOptions(luns[2]!, { writeCache: false })),
    ];
    const nexuses = [
      new Nexus('iqn.test:0,i,0x1', '', 1, new FixedFrontEnd([], 8192)),
      new Nexus('iqn.test:1,i,0x1', 'iqn.test:t,t,0x0001', 1),
    ];
    for (const unit of units) for (const nexus of nexuses) unit.attach(nexus);
    let done = 0;
    const owner = { taskDone: () => void done++, taskAborted: () => expect.unreachable() };
    const tasks = nexuses.map((nexus) => new ScsiTask(owner, nexus));
    const arena = new Arena();
    const dataOut = new Uint8Array(65536 * 2);
    const names = { naas: [units[0]!.state.naa], tokens: [] };
    const cdb = new Uint8Array(32);
    const statuses = new Map<string, number>();

    for (let i = 0; i < COUNT; i++) {
      if (i % 500 === 0) {
        // Write protection, ejected media and reservations would end up hiding everything else.
        for (const unit of units) {
          unit.state.mediumPresent = true;
          unit.reset(null, () => {});
        }
      }
      if (i % 100 === 0) for (const { state } of units) state.reservations.reset();
      const which = random.below(units.length);
      const unit = units[which]!;
      const task = random.pick(tasks);
      const cdbLength = randomCdb(random, TABLE.rows, cdb);
      const row = TABLE.find(cdb[0]!, serviceActionOf(cdb));
      const takesList = [0x15, 0x55, 0x5f, 0x83].includes(cdb[0]!);
      const takesData = takesList || row?.access === Access.WRITE || row?.name.startsWith('VERIFY') === true;
      const length = random.oneIn(3) ? randomLength(random) : likelyLength(cdb, unit.state.blockSize);
      const outward = random.oneIn(20) ? random.oneIn(2) : takesData;
      const expectedOut = outward ? Math.min(length, dataOut.length) : 0;
      const expectedIn = !outward || random.oneIn(40) ? length : 0;
      const pieces = 1 + random.below(3);
      fillParameterList(random, cdb, dataOut.subarray(0, expectedOut), names);
      const what = (): string =>
        `command ${i}: ${Buffer.from(cdb.subarray(0, 16)).toString('hex')} out ${expectedOut} in ${expectedIn} unit ${which}`;

      const run = (poison: number): Uint8Array => {
        task.cdb.set(cdb);
        task.cdbLength = cdbLength;
        task.expectedDataOut = expectedOut;
        task.expectedDataIn = expectedIn;
        task.sense.fill(poison);
        task.status = 0xff;
        unit.state.reply.fill(poison);
        done = 0;
        arena.clear();
        task.dataOut.clear();
        task.dataIn.clear();
        const prepared = unit.prepare(task);
        if (task.dataOutLength > expectedOut || !(task.dataInLength <= expectedIn)) throw new Error(what());
        const outLength = task.dataOutLength;
        if (prepared) {
          const room = task.dataInLength;
          arena.place(task.dataOut, outLength, pieces, poison);
          task.dataOut.copyFrom(dataOut, 0, 0, outLength);
          arena.place(task.dataIn, room, pieces, poison);
          unit.execute(task);
          for (const each of luns) each.drain();
          if (!(task.dataInLength >= 0 && task.dataInLength <= room)) throw new Error(`too much data: ${what()}`);
          if (!arena.guardsHold(task.dataOut, poison) || !arena.guardsHold(task.dataIn, poison)) {
            throw new Error(`memory around the data was written: ${what()}`);
          }
        }
        if (done !== (prepared ? 1 : 0)) throw new Error(`ended ${done} times: ${what()}`);
        if (unit.taskSet.count !== 0) throw new Error(`left in the task set: ${what()}`);
        const wrong = wrongEnd(task, outLength, takesData);
        if (wrong !== null) throw new Error(`${wrong}: ${what()}`);
        const returned = new Uint8Array(task.dataInLength);
        task.dataIn.copyTo(returned, 0, 0, task.dataInLength);
        return returned;
      };

      const returned = run(0xa5);
      const { status, sense } = task;
      const at = sense[0] === 0x72 ? 1 : 12;
      const key = status === Status.CHECK_CONDITION ? `${sense[at]}/${sense[at + 1]}` : `status ${status}`;
      statuses.set(key, (statuses.get(key) ?? 0) + 1);
      if (returned.length > 0 && row?.access !== Access.WRITE && hasStaleByte(returned, run(0x5a))) {
        throw new Error(`returned memory that nobody wrote: ${what()}`);
      }
    }
    // The run has seen successes and all kinds of refusals.
    expect(statuses.get('status 0')).toBeGreaterThan(COUNT / 20);
    expect(statuses.size).toBeGreaterThan(12);
  });
});
