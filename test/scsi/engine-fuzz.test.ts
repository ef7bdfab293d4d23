import { describe, expect, it } from 'vitest';
import { readU16BE, readU32BE, readU64BE } from '../../src/base/bytes.ts';
import { LunOp, type LunRequest } from '../../src/block/lun-backend.ts';
import { flagsOf, serviceActionOf } from '../../src/scsi/cdb.ts';
import { Access, type CommandRow } from '../../src/scsi/command.ts';
import { REMOVABLE_COMMANDS } from '../../src/scsi/commands.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import type { LunAccess } from '../../src/scsi/lun-access.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { Status } from '../../src/scsi/spec.ts';
import { Target } from '../../src/scsi/target.ts';
import { ScsiTask, TaskAttribute } from '../../src/scsi/task.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { fillParameterList, likelyLength, randomCdb, randomLength } from './support/fuzz-grammar.ts';
import { wrongEnd } from './support/fuzz-oracles.ts';
import { unitOptions } from './support/initiator.ts';
import { ANYTHING, MediumModel, type Access as ModelAccess } from './support/medium-model.ts';
import { RamLun } from './support/ram-lun.ts';

/** Steps of one run: a command, a part of one, or task management. `THINLUN_SEED` makes a run again. */
const COUNT = Number(process.env['THINLUN_FUZZ_INPUTS'] ?? 60_000);
const TABLE = REMOVABLE_COMMANDS.inTarget;
const LUN_SIZE = 65536;
const SLOTS = 24;
const ROOM = 65536;
const GUARD = 16;
const { SIMPLE, ORDERED, HEAD_OF_QUEUE, ACA } = TaskAttribute;
const FORMAT_UNIT = 0x04;
const SANITIZE = 0x48;
/** With a parameter list instead of data. */
const LISTS = [FORMAT_UNIT, 0x15, 0x42, SANITIZE, 0x55, 0x5f, 0x83];
const READ_10 = 0x28;
const WRITE_10 = 0x2a;
const WRITE_AND_VERIFY_10 = 0x2e;
const WRITE_SAME_10 = 0x41;
const COPIES = 0x83;
const ORWRITE = 0x8b;
const NDOB = 0x01;
const COMPARE_AND_WRITE = 0x89;

type Fate = 'free' | 'prepared' | 'executed';

/** A task with its memory, in one of the two worlds. */
class Slot {
  readonly task: ScsiTask;
  readonly memory: Uint8Array = new Uint8Array(2 * (ROOM + 2 * GUARD));
  fate: Fate = 'free';
  lun = 0;
  outLength = 0;
  room = 0;
  takesData = false;
  /** Where it is in the models. */
  readonly accesses: { model: MediumModel; access: ModelAccess }[] = [];

  constructor(world: World, nexus: Nexus) {
    this.task = new ScsiTask(
      { taskDone: () => world.ended(this, 'executed'), taskAborted: () => world.ended(this, 'prepared') },
      nexus,
    );
  }

  /** Data-Out, then Data-In, each between guards. */
  place(dataOut: Uint8Array, poison: number): void {
    const { task, memory } = this;
    this.outLength = task.dataOutLength;
    this.room = task.dataInLength;
    memory.fill(poison, 0, this.outLength + this.room + 3 * GUARD);
    memory.set(dataOut.subarray(0, this.outLength), GUARD);
    task.dataOut.set(memory, GUARD, this.outLength);
    task.dataIn.set(memory, this.outLength + 2 * GUARD, this.room);
  }

  returned(): Uint8Array {
    const begin = this.outLength + 2 * GUARD;
    return this.memory.subarray(begin, begin + this.task.dataInLength);
  }

  guardsHold(poison: number): boolean {
    const { memory, outLength, room } = this;
    for (const at of [0, GUARD + outLength, 2 * GUARD + outLength + room]) {
      for (let i = 0; i < GUARD; i++) if (memory[at + i] !== poison) return false;
    }
    return true;
  }
}

/** The third nexus may only read unit 1, and does not see unit 2. */
function accessOf(nexus: number): LunAccess {
  const restricted = [Access.WRITE, Access.READ, Access.NONE];
  return { of: (lun) => (nexus < 2 ? Access.WRITE : restricted[lun]!) };
}

/** A target with its media and tasks. Two of them get the same steps; only what lies in memory before differs. */
class World {
  readonly luns: RamLun[];
  readonly units: LogicalUnit[];
  readonly target: Target = new Target('iqn.test:t', [1]);
  readonly nexuses: Nexus[] = [0, 1, 2].map((i) => new Nexus(`iqn.test:${i},i,0x1`, 'iqn.test:t,t,0x0001', 1));
  readonly slots: Slot[];
  readonly poison: number;
  /** Of the tasks that have ended since the last look, in order. */
  readonly ends: { slot: number; aborted: boolean }[] = [];
  managed = 0;
  /** Set: what the medium was asked for that the row of its command does not do. */
  wrongAccess: string | null = null;

  constructor(poison: number) {
    this.poison = poison;
    this.luns = [new RamLun(LUN_SIZE), new RamLun(LUN_SIZE), new RamLun(LUN_SIZE + 1536, 4096)];
    const random = new SeededRandom(7);
    let now = 0;
    const options = {
      random: (bytes: Uint8Array) => random.fill(bytes),
      clock: { nowMs: () => now++, setTimer: () => ({ cancel() {} }) },
    };
    this.units = this.luns.map((lun, i) => {
      const naa = new Uint8Array(16).fill(i + 1);
      naa[0] = 0x60;
      return new LogicalUnit(
        unitOptions(lun, {
          ...options,
          naa,
          logicalBlockSize: i === 1 ? 4096 : 512,
          removable: i === 1,
          writeCache: i !== 2,
        }),
      );
    });
    for (const [lun, unit] of this.units.entries()) this.target.setLun(lun, unit);
    for (const [i, nexus] of this.nexuses.entries()) this.target.attach(nexus, accessOf(i));
    this.slots = Array.from({ length: SLOTS }, (_, i) => new Slot(this, this.nexuses[i % 3]!));
    for (const lun of this.luns) lun.beforeEffect = (request) => this.#checkAccess(request);
  }

  /** A command that only reads does not change the medium. (Requests of copies are the copier's.) */
  #checkAccess(request: LunRequest): void {
    const { op } = request;
    if (op === LunOp.READ || op === LunOp.EXTENT || op === LunOp.FLUSH) return;
    const owner = request.owner as { row?: CommandRow };
    if (owner.row === undefined || owner.row.access === Access.WRITE) return;
    this.wrongAccess = `${owner.row.name} changes the medium`;
  }

  ended(slot: Slot, from: Fate): void {
    if (slot.fate !== from) throw new Error(`a task that is ${slot.fate} ended from ${from}`);
    slot.fate = 'free';
    this.ends.push({ slot: this.slots.indexOf(slot), aborted: from === 'prepared' });
  }
}

/** Blocks that a command names, if it is one that reads or writes them as a whole. */
interface Extent {
  readonly lba: number;
  readonly blocks: number;
}

function extentOf(cdb: Uint8Array): Extent {
  switch (cdb[0]! >>> 5) {
    case 0:
      return { lba: readU32BE(cdb, 0) & 0x1fffff, blocks: cdb[4] === 0 ? 256 : cdb[4]! };
    case 1:
    case 2:
      return { lba: readU32BE(cdb, 2), blocks: readU16BE(cdb, 7) };
    case 3:
      return { lba: readU64BE(cdb, 12), blocks: readU32BE(cdb, 28) };
    case 5:
      return { lba: readU32BE(cdb, 2), blocks: readU32BE(cdb, 6) };
    default:
      return { lba: readU64BE(cdb, 2), blocks: cdb[0] === 0x89 ? cdb[13]! : readU32BE(cdb, 10) };
  }
}

/** One run. Every step is taken in both worlds, and whatever can be seen of it must be the same. */
class Run {
  readonly random: SeededRandom;
  readonly one: World = new World(0xa5);
  readonly two: World = new World(0x5a);
  models: MediumModel[] = [];
  checkedBlocks = 0;
  readonly dataOut: Uint8Array = new Uint8Array(ROOM);
  readonly cdb: Uint8Array = new Uint8Array(32);
  readonly tokens: Uint8Array[] = [];
  readonly seen: Map<string, number> = new Map();
  step = 0;
  management = 0;

  constructor(random: SeededRandom) {
    this.random = random;
    this.newModels();
  }

  /** Begins anew with what the media hold. Nothing is under way. */
  newModels(): void {
    for (const { checked } of this.models) this.checkedBlocks += checked;
    this.models = this.one.luns.map(({ data }, i) => new MediumModel(data, this.one.units[i]!.state.blockSize));
  }

  fail(reason: string): never {
    throw new Error(`step ${this.step}: ${reason}`);
  }

  both(action: (world: World) => void): void {
    action(this.one);
    action(this.two);
    this.settle();
  }

  count(key: string): void {
    this.seen.set(key, (this.seen.get(key) ?? 0) + 1);
  }

  /** Looks at what has ended. */
  settle(): void {
    const { one, two } = this;
    if (JSON.stringify(one.ends) !== JSON.stringify(two.ends)) this.fail('tasks end in another order');
    for (const { slot: i, aborted } of one.ends) this.check(one.slots[i]!, two.slots[i]!, aborted);
    one.ends.length = 0;
    two.ends.length = 0;
    if (one.managed !== two.managed) this.fail('task management ends at another time');
    if (one.wrongAccess !== null) this.fail(one.wrongAccess);
    one.luns.forEach((lun, i) => {
      if (lun.queue.length !== two.luns[i]!.queue.length) this.fail('the medium gets other requests');
    });
  }

  check(a: Slot, b: Slot, aborted: boolean): void {
    const what = (): string => `${Buffer.from(a.task.cdb.subarray(0, a.task.cdbLength)).toString('hex')} to ${a.lun}`;
    const { task } = a;
    if (aborted) {
      this.count('aborted');
      if (a.accesses.length > 0) this.fail(`${what()}: begun and aborted as if not`);
      return;
    }
    const wrong = wrongEnd(task, a.outLength, a.takesData);
    if (wrong !== null) this.fail(`${what()}: ${wrong}`);
    if (!a.guardsHold(0xa5)) this.fail(`${what()}: memory around the data was written`);
    const same =
      task.status === b.task.status &&
      task.residual === b.task.residual &&
      task.senseLength === b.task.senseLength &&
      Buffer.compare(task.sense.subarray(0, task.senseLength), b.task.sense.subarray(0, task.senseLength)) === 0 &&
      Buffer.compare(a.returned(), b.returned()) === 0;
    if (!same) this.fail(`${what()}: the answer depends on what was in memory`);
    this.count(`status ${task.status}`);
    this.checkMedium(a, what);
    // Response data of RECEIVE ROD TOKEN INFORMATION: later commands use the token.
    if (task.cdb[0] === 0x84 && a.returned().length >= 550 && this.tokens.length < 8) {
      this.tokens.push(Uint8Array.from(a.returned().subarray(38, 550)));
    }
  }

  checkMedium(slot: Slot, what: () => string): void {
    const { task } = slot;
    const good = task.status === Status.GOOD;
    for (const { model, access } of slot.accesses.splice(0)) {
      // UNMAP is a wish, and a failed write may have got anywhere.
      if (access.writes.length > 0) model.endWrite(access, good && task.cdb[0] !== 0x42 && task.cdb[0] !== COPIES);
      else if (good) {
        const at = model.endRead(access, slot.returned(), this.one.units[slot.lun]!.state.blockSize);
        if (at >= 0) this.fail(`${what()}: block ${at} reads as what it never held`);
      } else model.forget(access);
    }
  }

  /** Tells the models what a task is about to do. */
  beginInModel(slot: Slot): void {
    const { task, lun, accesses } = slot;
    const unit = this.one.units[lun];
    const model = this.models[lun];
    const row = TABLE.find(task.cdb[0]!, serviceActionOf(task.cdb));
    if (unit === undefined || model === undefined || row === null) return;
    const { blockSize, blockCount } = unit.state;
    const { lba, blocks } = extentOf(task.cdb);
    const does = (opcode: number): boolean => row.handler === TABLE.find(opcode, 0)?.handler;
    const write = (at: number, count: number, value: number, to = model): void => {
      accesses.push({ model: to, access: to.beginWrite(at, count, value) });
    };
    if (row.opcode === FORMAT_UNIT || row.opcode === SANITIZE) {
      // With IMMED it goes on when it has ended.
      model.beginWrite(0, blockCount, ANYTHING);
    } else if (does(READ_10)) {
      accesses.push({ model, access: model.beginRead(lba, Math.ceil(task.dataInLength / blockSize)) });
    } else if (does(WRITE_10) || does(WRITE_AND_VERIFY_10)) {
      write(lba, task.dataOutLength / blockSize, this.dataOut[0]!);
    } else if (does(WRITE_SAME_10)) {
      const noData = task.cdb[0] !== WRITE_SAME_10 && (flagsOf(task.cdb) & NDOB) !== 0;
      write(lba, blocks === 0 ? blockCount - lba : blocks, noData ? 0 : this.dataOut[0]!);
    } else if (does(ORWRITE)) write(lba, blocks, ANYTHING);
    else if (does(COMPARE_AND_WRITE)) write(lba, blocks, this.dataOut[blocks * blockSize]!);
    else if (row.opcode === COPIES) {
      // It may write to any unit.
      for (const [i, to] of this.models.entries()) write(0, this.one.units[i]!.state.blockCount, ANYTHING, to);
    } else if (row.access === Access.WRITE) write(0, blockCount, ANYTHING);
  }

  /** A command that reads or writes blocks, and is right. */
  mediumCdb(): number {
    const { random, cdb } = this;
    const opcode = random.pick([
      READ_10,
      READ_10,
      READ_10,
      WRITE_10,
      WRITE_10,
      WRITE_AND_VERIFY_10,
      WRITE_SAME_10,
      ORWRITE,
    ]);
    const blocks = 1 + random.below(opcode === ORWRITE ? 4 : 16);
    cdb.fill(0);
    cdb[0] = opcode;
    if (opcode === ORWRITE) cdb.set([0, random.below(12), 0, 0, 0, blocks], 8);
    else cdb.set([random.below(12), 0, 0, blocks], 5);
    return opcode === ORWRITE ? 16 : 10;
  }

  newTask(): void {
    const { random, cdb, dataOut, one, two } = this;
    const free = one.slots.flatMap((slot, i) => (slot.fate === 'free' ? [i] : []));
    if (free.length === 0) return;
    const index = random.pick(free);
    const cdbLength = random.oneIn(2) ? randomCdb(random, TABLE.rows, cdb) : this.mediumCdb();
    const lun = random.oneIn(30) ? random.pick([3, -1, 0x3fff]) : random.below(3);
    const row = TABLE.find(cdb[0]!, serviceActionOf(cdb));
    const isList = LISTS.includes(cdb[0]!);
    const blockSize = one.units[lun]?.state.blockSize ?? 512;
    const takesData = isList || row?.access === Access.WRITE || row?.name.startsWith('VERIFY') === true;
    const outward = random.oneIn(30) ? random.oneIn(2) : takesData;
    const length = Math.min(random.oneIn(6) ? randomLength(random) : likelyLength(cdb, blockSize), ROOM);
    const attribute = random.pick([SIMPLE, SIMPLE, SIMPLE, SIMPLE, SIMPLE, SIMPLE, ORDERED, HEAD_OF_QUEUE]);
    const naas = one.units.map(({ state }) => state.naa);
    dataOut.fill(1 + random.below(255), 0, outward ? length : 0);
    if (isList)
      fillParameterList(random, cdb, dataOut.subarray(0, outward ? length : 0), { naas, tokens: this.tokens });
    if (cdb[0] === 0x89) dataOut.fill(this.models[lun]?.guess(extentOf(cdb).lba) ?? 0, 0, length / 2);
    for (const world of [one, two]) {
      const slot = world.slots[index]!;
      const { task } = slot;
      task.cdb.set(cdb);
      task.cdbLength = cdbLength;
      task.attribute = this.step % 97 === 0 ? ACA : attribute;
      task.expectedDataOut = outward ? length : 0;
      task.expectedDataIn = outward ? 0 : length;
      task.sense.fill(world.poison);
      task.status = 0xff;
      slot.lun = lun;
      slot.takesData = takesData;
      const prepared = world.target.prepare(task, lun);
      if (task.dataOutLength > task.expectedDataOut || task.dataInLength > task.expectedDataIn) this.fail('too much');
      slot.place(dataOut, world.poison);
      if (prepared) slot.fate = 'prepared';
      else world.ends.push({ slot: index, aborted: false });
    }
    this.settle();
    // Else the front end still waits for data.
    if (one.slots[index]!.fate === 'prepared' && !random.oneIn(4)) this.execute(index);
  }

  execute(index: number): void {
    const slot = this.one.slots[index]!;
    this.dataOut.set(slot.memory.subarray(GUARD, GUARD + slot.outLength));
    this.beginInModel(slot);
    this.both((world) => {
      const each = world.slots[index]!;
      each.fate = 'executed';
      for (const { state } of world.units) state.reply.fill(world.poison);
      world.target.execute(each.task);
    });
  }

  completeOne(): void {
    const busy = this.one.luns.flatMap((lun, i) => (lun.queue.length > 0 ? [i] : []));
    if (busy.length === 0) return;
    const which = this.random.pick(busy);
    const at = this.random.below(this.one.luns[which]!.queue.length);
    const op = this.one.luns[which]!.queue[at]!.op;
    const error = this.random.oneIn(60)
      ? this.random.pick(['EIO', 'ENOSPC', 'EROFS', 'ENXIO', 'ESHUTDOWN'] as const)
      : null;
    this.both((world) => {
      const lun = world.luns[which]!;
      for (const { state } of world.units) state.reply.fill(world.poison);
      if (error !== null) lun.failures.set(op, error);
      lun.completeOne(at);
      lun.failures.clear();
    });
  }

  pickPrepared(): number {
    const prepared = this.one.slots.flatMap((slot, i) => (slot.fate === 'prepared' ? [i] : []));
    return prepared.length === 0 ? -1 : this.random.pick(prepared);
  }

  manage(): void {
    const { random } = this;
    const kind = random.below(10);
    const who = random.below(3);
    const which = random.below(3);
    const index = random.below(SLOTS);
    this.management++;
    this.count(`function ${kind}`);
    this.both((world) => {
      const nexus = world.nexuses[who]!;
      const unit = world.units[which]!;
      const ended = (): void => void world.managed++;
      const { task, fate } = world.slots[index]!;
      if (kind === 0 && fate !== 'free') world.target.abort(task, ended);
      else if (kind === 1) unit.abortTaskSet(nexus, ended);
      else if (kind === 2) unit.clearTaskSet(nexus, ended);
      else if (kind === 3) unit.reset(nexus, ended);
      else if (kind === 4) world.target.reset(nexus, ended);
      else if (kind === 5) world.target.loseNexus(nexus, ended);
      else {
        if (kind === 6) unit.contentChanged();
        else if (kind === 7) {
          world.target.removeLun(which);
          world.target.setLun(which, unit);
        } else if (kind === 8) {
          world.target.detach(nexus);
          world.target.attach(nexus, accessOf(who));
        } else unit.taskSet.reportsAborted = !unit.taskSet.reportsAborted;
        ended();
      }
    });
  }

  /** Everything ends, and nothing is left. */
  drain(): void {
    this.one.slots.forEach((slot, i) => {
      if (slot.fate === 'prepared') this.execute(i);
    });
    while (this.one.luns.some(({ queue }) => queue.length > 0)) this.completeOne();
    this.settle();
    for (const slot of this.one.slots) if (slot.fate !== 'free') this.fail(`a task is left: ${slot.fate}`);
    if (this.one.managed !== this.management) this.fail('task management has not ended');
    for (const world of [this.one, this.two]) {
      for (const { taskSet, state } of world.units) {
        if (taskSet.count !== 0) this.fail('the task set is not empty');
        for (const { taskCount } of state.nexuses.values()) if (taskCount !== 0) this.fail('a nexus has tasks');
        // Write protection, ejected media and reservations would end up hiding everything else.
        state.mediumPresent = true;
        state.softwareWriteProtect = false;
        // One that has failed, or was stopped as if the volume were being closed, refuses everything.
        state.operation = null;
        state.reservations.reset();
        for (const each of state.nexuses.values()) {
          each.preventsRemoval = false;
          while (!each.attentions.isEmpty) each.attentions.take();
        }
      }
    }
    this.probe();
    this.newModels();
  }

  /** A range or scratch buffer that was not given back would keep these waiting. */
  probe(): void {
    for (const world of [this.one, this.two]) {
      const { task } = world.slots[0]!;
      for (const [lun, { state }] of world.units.entries()) {
        if (state.blockSize !== 512) continue;
        task.cdb.set([0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 128, 0, 0]);
        task.cdbLength = 16;
        task.attribute = SIMPLE;
        task.expectedDataOut = ROOM;
        task.expectedDataIn = 0;
        if (!world.target.prepare(task, lun)) {
          if (task.status === Status.RESERVATION_CONFLICT) continue;
          this.fail(`the medium does not take a write: ${task.status}`);
        }
        task.dataOut.set(world.slots[0]!.memory, 0, ROOM);
        world.slots[0]!.memory.fill(0);
        world.slots[0]!.fate = 'executed';
        world.target.execute(task);
        world.luns[lun]!.drain();
        if (world.ends.length !== 1) this.fail('a range or a buffer was not given back');
        world.ends.length = 0;
      }
    }
  }

  play(count: number): void {
    for (this.step = 0; this.step < count; this.step++) {
      if (this.step % 200 === 199) this.drain();
      const kind = this.random.below(100);
      if (kind < 45) this.newTask();
      else if (kind < 85) this.completeOne();
      else if (kind < 94) {
        const index = this.pickPrepared();
        if (index >= 0) this.execute(index);
      } else if (kind < 97) {
        const index = this.pickPrepared();
        if (index < 0) continue;
        this.count('withdrawn');
        this.both((world) => {
          world.slots[index]!.fate = 'free';
          world.target.withdraw(world.slots[index]!.task);
        });
      } else if (this.random.oneIn(3)) this.manage();
    }
    this.drain();
  }
}

describe('any commands of any nexuses, with aborts, resets and failures between them', () => {
  const random = new SeededRandom();

  it(`end once each, as if nothing had been in memory, with what the medium held (seed ${random.seed}, ${COUNT} steps)`, {
    timeout: 1_000_000,
  }, () => {
    const run = new Run(random);
    run.play(COUNT);
    expect(run.seen.get('status 0')).toBeGreaterThan(COUNT / 20);
    expect(run.checkedBlocks).toBeGreaterThan(COUNT / 10);
    for (const what of [
      'status 2',
      `status ${Status.TASK_ABORTED}`,
      'aborted',
      'withdrawn',
      'function 4',
      'function 8',
    ]) {
      expect(run.seen.get(what), what).toBeGreaterThan(0);
    }
  });
});
