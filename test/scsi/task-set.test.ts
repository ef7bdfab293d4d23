import { beforeEach, describe, expect, it } from 'vitest';
import { LunOp } from '../../src/block/lun-backend.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { Status } from '../../src/scsi/spec.ts';
import { ScsiTask, TaskAttribute } from '../../src/scsi/task.ts';
import { MAX_TASKS, MAX_TASKS_PER_NEXUS } from '../../src/scsi/task-set.ts';
import { cdb10, MIB, senseText, unitOptions } from './support/initiator.ts';
import { RamLun } from './support/ram-lun.ts';
import { Random } from './support/random.ts';

const { SIMPLE, ORDERED, HEAD_OF_QUEUE, ACA } = TaskAttribute;
const BLOCK = 512;
const READ_10 = 0x28;
const WRITE_10 = 0x2a;
const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0];

let lun: RamLun;
let unit: LogicalUnit;
let ann: Nexus;
let bob: Nexus;

beforeEach(() => {
  lun = new RamLun(MIB);
  unit = new LogicalUnit(unitOptions(lun));
  ann = new Nexus('iqn.test:ann,i,0x1', 'iqn.test:t,t,0x0001', 1);
  bob = new Nexus('iqn.test:bob,i,0x1', 'iqn.test:t,t,0x0001', 1);
  for (const nexus of [ann, bob]) unit.attach(nexus, false);
});

/** What became of a task: `done` by taskDone, `aborted` by taskAborted. */
type Fate = 'prepared' | 'refused' | 'executed' | 'done' | 'aborted' | 'withdrawn';

/** One task whose steps the test takes. */
class Step {
  readonly task: ScsiTask;
  readonly memory: Uint8Array = new Uint8Array(BLOCK);
  fate: Fate;
  /** Counts up over all tasks of a test. */
  endedAt = 0;

  constructor(nexus: Nexus, cdb: readonly number[], attribute: TaskAttribute = SIMPLE, fill = 0) {
    this.task = new ScsiTask({ taskDone: () => this.#end('done'), taskAborted: () => this.#end('aborted') }, nexus);
    const { task } = this;
    task.cdb.set(cdb);
    task.cdbLength = cdb.length;
    task.attribute = attribute;
    task.expectedDataIn = cdb[0] === READ_10 ? BLOCK : 0;
    task.expectedDataOut = cdb[0] === WRITE_10 ? BLOCK : 0;
    this.memory.fill(fill);
    this.fate = unit.prepare(task) ? 'prepared' : 'refused';
  }

  execute(): this {
    const { task } = this;
    this.fate = 'executed';
    (task.dataInLength > 0 ? task.dataIn : task.dataOut).set(this.memory, 0, task.dataInLength + task.dataOutLength);
    unit.execute(task);
    return this;
  }

  #end(fate: Fate): void {
    if (this.fate !== (fate === 'done' ? 'executed' : 'prepared')) throw new Error(`${this.fate}, then ${fate}`);
    this.fate = fate;
    this.endedAt = ++ends;
  }
}

let ends = 0;

const read = (nexus: Nexus, attribute?: TaskAttribute, lba = 0): Step =>
  new Step(nexus, cdb10(READ_10, lba, 1), attribute);
const write = (nexus: Nexus, attribute?: TaskAttribute, lba = 0, fill = 1): Step =>
  new Step(nexus, cdb10(WRITE_10, lba, 1), attribute, fill);
/** Requests that the medium has. */
const begun = (): number => lun.queue.length;

describe('the order of tasks', () => {
  it('is nobody’s business while all are simple', () => {
    read(ann).execute();
    write(bob).execute();
    read(ann).execute();
    expect(begun()).toBe(3);
  });

  it('holds an ordered task until all that came before have ended', () => {
    const first = read(ann);
    const second = read(bob).execute();
    const ordered = write(ann, ORDERED).execute();
    expect(begun()).toBe(1);
    lun.drain();
    expect([second.fate, ordered.fate]).toEqual(['done', 'executed']);
    first.execute();
    expect(begun()).toBe(1);
    lun.drain();
    expect(ordered.fate).toBe('done');
    expect(ordered.endedAt).toBeGreaterThan(first.endedAt);
  });

  it('holds what comes after an ordered task until that has ended, whoever sent it', () => {
    const ordered = write(ann, ORDERED, 0, 7);
    const later = [read(ann).execute(), read(bob).execute()];
    expect(begun()).toBe(0);
    ordered.execute();
    expect(begun()).toBe(1);
    lun.completeOne(0);
    expect(begun()).toBe(2);
    lun.drain();
    expect(later.map((each) => each.memory[0])).toEqual([7, 7]);
  });

  it('lets ordered tasks follow each other one by one', () => {
    const all = [1, 2, 3].map((fill) => write(ann, ORDERED, 0, fill));
    for (const each of [...all].reverse()) each.execute();
    for (let i = 0; i < 3; i++) {
      expect(begun()).toBe(1);
      lun.completeOne(0);
    }
    expect(all.map((each) => each.endedAt - all[0]!.endedAt)).toEqual([0, 1, 2]);
    expect(lun.data[0]).toBe(3);
  });

  it('lets a task at the head of the queue pass everything', () => {
    const simple = read(ann);
    const ordered = write(ann, ORDERED).execute();
    const head = write(bob, HEAD_OF_QUEUE).execute();
    expect(begun()).toBe(1);
    simple.execute();
    expect(begun()).toBe(1);
    lun.completeOne(0);
    expect(head.fate).toBe('done');
    expect(begun()).toBe(1);
    lun.drain();
    expect([simple.fate, ordered.fate]).toEqual(['done', 'done']);
  });

  it('answers a task before what it has held up', () => {
    const ordered = new Step(ann, TEST_UNIT_READY, ORDERED);
    const later = new Step(ann, TEST_UNIT_READY).execute();
    ordered.execute();
    expect([ordered.fate, later.fate]).toEqual(['done', 'done']);
    expect(ordered.endedAt).toBeLessThan(later.endedAt);
  });

  it('checks a task again that it has held up', () => {
    const list = [0, 0, 0, 0, 0x0a, 10, 0, 0x10, 0x08, 0, 0, 0, 0xff, 0xff, 0, 0];
    const protect = new ScsiTask({ taskDone: () => {}, taskAborted: () => {} }, bob);
    protect.cdb.set([0x15, 0x10, 0, 0, list.length, 0]);
    protect.cdbLength = 6;
    protect.attribute = ORDERED;
    protect.expectedDataOut = list.length;
    expect(unit.prepare(protect)).toBe(true);
    const held = write(ann).execute();
    protect.dataOut.set(Uint8Array.from(list), 0, list.length);
    unit.execute(protect);
    expect(protect.status).toBe(Status.GOOD);
    expect(held.fate).toBe('done');
    expect(senseText(held.task.sense)).toBe('7/27/02');
    expect(held.task.residual).toBe(0);
  });

  it('goes on when the task that holds up others is given up', () => {
    const ordered = write(ann, ORDERED);
    read(bob).execute();
    expect(begun()).toBe(0);
    unit.withdraw(ordered.task);
    expect(begun()).toBe(1);
    lun.drain();
    expect(unit.taskSet.count).toBe(0);
  });

  it('does not know ACA', () => {
    const task = new Step(ann, TEST_UNIT_READY, ACA);
    expect([task.fate, senseText(task.task.sense)]).toEqual(['refused', '5/49/00']);
  });
});

describe('a full task set', () => {
  it('refuses more of a nexus that has its share, and takes them again when some have ended', () => {
    const tasks = Array.from({ length: MAX_TASKS_PER_NEXUS }, () => read(ann).execute());
    const more = new Step(ann, cdb10(READ_10, 0, 1));
    expect([more.fate, more.task.status, more.task.residual]).toEqual(['refused', Status.TASK_SET_FULL, BLOCK]);
    expect(new Step(ann, TEST_UNIT_READY).task.status).toBe(Status.TASK_SET_FULL);
    expect(read(bob).fate).toBe('prepared');
    lun.completeOne(0);
    expect(tasks[0]!.fate).toBe('done');
    expect(read(ann).fate).toBe('prepared');
  });

  it('is busy for a nexus that has nothing in it', () => {
    const nexuses = Array.from({ length: 5 }, (_, i) => new Nexus(`iqn.test:${i},i,0x1`, 'iqn.test:t,t,0x0001', 1));
    for (const nexus of nexuses) unit.attach(nexus, false);
    for (let i = 0; i < MAX_TASKS; i++) read(nexuses[i % 4]!).execute();
    expect(read(nexuses[4]!).task.status).toBe(Status.BUSY);
    expect(read(nexuses[0]!).task.status).toBe(Status.TASK_SET_FULL);
    lun.drain();
    expect(unit.taskSet.count).toBe(0);
    expect(read(nexuses[4]!).fate).toBe('prepared');
  });

  it('does not let a task wait for room that others may hold who wait for it', () => {
    const poor = write(ann);
    expect(unit.taskSet.count).toBe(1);
    const { taskSet } = unit;
    const engine = poor.task.engine as Parameters<typeof taskSet.postpone>[0];
    expect(taskSet.postpone(engine)).toBe(true);
    expect(write(ann, ORDERED).task.status).toBe(Status.TASK_SET_FULL);
    expect(write(bob, ORDERED).task.status).toBe(Status.BUSY);
    expect(write(bob, HEAD_OF_QUEUE).fate).toBe('prepared');
    poor.execute();
    expect(write(bob, ORDERED).fate).toBe('prepared');
    const other = write(ann);
    expect(taskSet.postpone(other.task.engine as typeof engine)).toBe(false);
  });
});

describe('aborting', () => {
  it('ends what has not begun at once, what has begun when the medium is done, and says so once', () => {
    let endedCount = 0;
    const running = read(ann).execute();
    const prepared = write(ann);
    const others = write(bob, ORDERED).execute();
    const held = read(ann).execute();
    unit.abortTaskSet(ann, () => endedCount++);
    expect([running.fate, prepared.fate, held.fate]).toEqual(['executed', 'aborted', 'done']);
    expect([held.task.status, held.task.aborted, held.task.abortReported]).toEqual([Status.TASK_ABORTED, true, false]);
    expect([others.fate, endedCount, begun()]).toEqual(['executed', 0, 1]);
    lun.completeOne(0);
    expect([running.fate, running.task.status, endedCount]).toEqual(['done', Status.TASK_ABORTED, 1]);
    lun.drain();
    expect([others.fate, others.task.status, endedCount]).toEqual(['done', Status.GOOD, 1]);
    expect(unit.taskSet.count).toBe(0);
  });

  it('without tasks has ended at once', () => {
    let endedCount = 0;
    unit.abortTaskSet(ann, () => endedCount++);
    unit.clearTaskSet(ann, () => endedCount++);
    expect(endedCount).toBe(2);
  });

  it('by somebody else is told by a unit attention, or by TASK ABORTED if TAS is set', () => {
    unit.taskSet.reportsAborted = false;
    const mine = read(ann).execute();
    const theirs = read(bob);
    unit.clearTaskSet(ann, () => {});
    expect([mine.task.abortReported, theirs.task.abortReported, theirs.fate]).toEqual([false, false, 'aborted']);
    expect(senseText(new Step(bob, TEST_UNIT_READY).task.sense)).toBe('6/2f/00');
    expect(new Step(ann, TEST_UNIT_READY).fate).toBe('prepared');
    lun.drain();
    unit.taskSet.reportsAborted = true;
    const again = [read(ann).execute(), read(bob), read(bob).execute()];
    unit.clearTaskSet(ann, () => {});
    expect(again.map(({ task }) => task.abortReported)).toEqual([false, true, true]);
    expect(new Step(bob, TEST_UNIT_READY).fate).toBe('prepared');
  });

  it('twice ends for both who asked', () => {
    const log: string[] = [];
    read(ann).execute();
    unit.abortTaskSet(ann, () => log.push('task set'));
    unit.reset(bob, () => log.push('reset'));
    expect(log).toEqual([]);
    lun.drain();
    expect(log).toEqual(['task set', 'reset']);
  });

  it('everything is part of a reset, whose unit attention comes when the tasks have ended', () => {
    let endedCount = 0;
    read(bob).execute();
    unit.state.writeCache = false;
    unit.reset(ann, () => endedCount++);
    expect([endedCount, unit.state.writeCache]).toEqual([0, false]);
    lun.drain();
    expect([endedCount, unit.state.writeCache]).toEqual([1, true]);
    for (const nexus of [ann, bob]) expect(senseText(new Step(nexus, TEST_UNIT_READY).task.sense)).toBe('6/29/03');
  });
});

describe('any mixture of tasks', () => {
  it.each([1, 2, 3, 4, 5, 6])(
    'keeps the order of SAM-5, ends every task once, and leaves nothing (seed %d)',
    (seed) => {
      const random = new Random(seed);
      const nexuses = [ann, bob];
      /** In the order in which they came, those at the head first; ended ones are taken out. */
      let set: Step[] = [];
      let aborts = 0;
      let aborted = 0;
      const isBegun = ({ task }: Step): boolean =>
        lun.queue.some(({ owner }) => (owner as unknown) === (task.engine as unknown));
      for (let i = 0; i < 4000; i++) {
        const kind = random.below(10);
        const waiting = set.filter(({ fate }) => fate === 'prepared');
        if (kind < 4 && set.length < 40) {
          const attribute = random.pick([SIMPLE, SIMPLE, SIMPLE, SIMPLE, ORDERED, HEAD_OF_QUEUE]);
          const step = (random.oneIn(2) ? read : write)(random.pick(nexuses), attribute, random.below(4));
          expect(step.fate).toBe('prepared');
          if (attribute === HEAD_OF_QUEUE) set.unshift(step);
          else set.push(step);
        } else if (kind < 7) {
          if (waiting.length > 0) random.pick(waiting).execute();
        } else if (kind < 9) {
          if (begun() > 0) lun.completeOne(random.below(begun()));
        } else if (random.oneIn(4) && waiting.length > 0) {
          const step = random.pick(waiting);
          step.fate = 'withdrawn';
          unit.withdraw(step.task);
        } else if (random.oneIn(10)) {
          const nexus = random.pick(nexuses);
          aborts++;
          if (random.oneIn(2)) unit.abortTaskSet(nexus, () => aborted++);
          else unit.clearTaskSet(nexus, () => aborted++);
          for (const each of nexuses) unit.state.nexuses.get(each)!.attentions.take();
        }
        set = set.filter(({ fate }) => fate === 'prepared' || fate === 'executed');
        expect(unit.taskSet.count).toBe(set.length);
        set.forEach((step, at) => {
          if (step.fate !== 'executed') return;
          const { attribute } = step.task;
          const before = set.slice(0, at);
          const may =
            attribute === HEAD_OF_QUEUE ||
            (attribute === ORDERED ? at === 0 : before.every(({ task }) => task.attribute === SIMPLE));
          // What has begun before a task at the head came goes on.
          if (may || before.every(({ task }) => task.attribute !== HEAD_OF_QUEUE)) expect(isBegun(step)).toBe(may);
        });
      }
      for (const step of set) if (step.fate === 'prepared') step.execute();
      lun.drain();
      expect(unit.taskSet.count).toBe(0);
      expect(set.every(({ fate }) => fate === 'done')).toBe(true);
      expect(aborted).toBe(aborts);
      expect(lun.log.filter(({ op }) => op === LunOp.WRITE).length).toBeGreaterThan(100);
      for (const nexus of nexuses) expect(unit.state.nexuses.get(nexus)!.taskCount).toBe(0);
    },
  );
});
