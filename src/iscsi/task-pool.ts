import { assert } from '../base/assert.ts';
import type { Nexus } from '../scsi/nexus.ts';
import type { ScsiTaskOwner } from '../scsi/task.ts';
import { IscsiTask, TaskState } from './iscsi-task.ts';

/** The tasks of one connection that are not in use. As many are made as were ever in use at once. */
export class TaskPool {
  private readonly owner: ScsiTaskOwner;
  private readonly nexus: Nexus;
  private first: IscsiTask | null = null;

  constructor(owner: ScsiTaskOwner, nexus: Nexus) {
    this.owner = owner;
    this.nexus = nexus;
  }

  take(): IscsiTask {
    const task = this.first;
    if (task === null) return new IscsiTask(this.owner, this.nexus);
    this.first = task.nextInLine;
    task.reset();
    return task;
  }

  recycle(task: IscsiTask): void {
    const holds = task.memoryLength > 0 || task.restLength > 0 || task.chunk !== null;
    assert(!holds, 'a task gives its memory back before it is used again');
    task.state = TaskState.FREE;
    task.nextInLine = this.first;
    this.first = task;
  }
}
