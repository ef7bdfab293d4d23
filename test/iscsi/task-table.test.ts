import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IscsiTask } from '../../src/iscsi/iscsi-task.ts';
import { TaskTable } from '../../src/iscsi/task-table.ts';
import { Nexus } from '../../src/scsi/nexus.ts';

const nexus = new Nexus('i', 't', 1);

function taskWith(tag: number): IscsiTask {
  const task = new IscsiTask({ taskDone: () => {}, taskAborted: () => {} }, nexus);
  task.tag = tag;
  return task;
}

describe('the task table', () => {
  it('holds what a map holds', () => {
    // Tags that collide often, and tags with high bits.
    const tag = fc.oneof(
      fc.nat(20),
      fc.nat(15).map((n) => n * 0x10000000),
      fc.nat(0xffffffff),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), tag), { maxLength: 200 }), (steps) => {
        const table = new TaskTable(12);
        const model = new Map<number, IscsiTask>();
        for (const [add, each] of steps) {
          const existing = model.get(each);
          if (add && existing === undefined && !table.isFull) {
            const task = taskWith(each);
            table.add(task);
            model.set(each, task);
          } else if (!add && existing !== undefined) {
            table.remove(existing);
            model.delete(each);
          }
          expect(table.count).toBe(model.size);
          expect(table.isFull).toBe(model.size === 12);
          for (const [key, task] of model) expect(table.get(key)).toBe(task);
          expect(table.get(each)).toBe(model.get(each) ?? null);
          expect(new Set(table.list())).toEqual(new Set(model.values()));
        }
      }),
    );
  });

  it('refuses a tag twice and more than it has room for', () => {
    const table = new TaskTable(2);
    table.add(taskWith(1));
    expect(() => table.add(taskWith(1))).toThrow('once');
    table.add(taskWith(2));
    expect(() => table.add(taskWith(3))).toThrow('room');
    expect(() => table.remove(taskWith(9))).toThrow();
  });
});
