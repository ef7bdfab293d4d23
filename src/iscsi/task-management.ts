import type { AbortWaiter } from './iscsi-task.ts';
import type { Session } from './session.ts';
import { TaskFunction, TaskFunctionResponse } from './spec.ts';

/** A task management function in progress (RFC 7143 11.5): waits for the tasks that it stops, then acts on the logical unit, then answers. */
export class TaskManagement implements AbortWaiter {
  private readonly finish: (response: TaskFunctionResponse) => void;
  private readonly effect: () => void;
  private pending = 1;

  /** `effect` comes when every stopped task has ended, right before the response. */
  constructor(effect: () => void, finish: (response: TaskFunctionResponse) => void) {
    this.effect = effect;
    this.finish = finish;
  }

  /** `count` more tasks have not ended. */
  waitFor(count: number): void {
    this.pending += count;
  }

  /** All tasks that are to be stopped have been told. */
  begin(): void {
    this.abortedTaskEnded();
  }

  abortedTaskEnded(): void {
    this.pending--;
    if (this.pending > 0) return;
    this.effect();
    this.finish(TaskFunctionResponse.COMPLETE);
  }
}

/** What a task management function reaches. */
export interface TaskManagementScope {
  readonly session: Session;
  /** All sessions of the portal. */
  sessions(): Session[];
}

/** Stops the tasks for `lun` (null: all LUNs) of this session, or of all sessions with the same target. */
function stop(scope: TaskManagementScope, lun: number | null, everybody: boolean, function_: TaskManagement): void {
  const { session } = scope;
  if (!everybody) {
    function_.waitFor(session.connection?.abortTasks(lun, function_) ?? 0);
    return;
  }
  for (const each of scope.sessions()) {
    if (each.target !== session.target || each.connection === null) continue;
    function_.waitFor(each.connection.abortTasks(lun, function_));
    if (each !== session) each.connection.announceWindow();
  }
}

/**
 * Starts a function on a set of tasks. Returns the response when it can be given at once, null when `management` will give it.
 * ABORT TASK, which depends on CmdSN, is its connection's business.
 */
export function startTaskManagement(
  code: number,
  lun: number,
  scope: TaskManagementScope,
  make: (effect: () => void) => TaskManagement,
): TaskFunctionResponse | null {
  const target = scope.session.target!;
  const unit = target.unit(lun);
  let management: TaskManagement;
  switch (code) {
    case TaskFunction.ABORT_TASK_SET:
    case TaskFunction.CLEAR_TASK_SET:
      if (unit === undefined) return TaskFunctionResponse.LUN_DOES_NOT_EXIST;
      management = make(() => {});
      stop(scope, lun, code === TaskFunction.CLEAR_TASK_SET, management);
      break;
    case TaskFunction.LOGICAL_UNIT_RESET:
      if (unit === undefined) return TaskFunctionResponse.LUN_DOES_NOT_EXIST;
      management = make(() => unit.reset());
      stop(scope, lun, true, management);
      break;
    case TaskFunction.TARGET_WARM_RESET:
    case TaskFunction.TARGET_COLD_RESET:
      management = make(() => target.reset());
      stop(scope, null, true, management);
      break;
    case TaskFunction.TASK_REASSIGN:
      return TaskFunctionResponse.REASSIGNMENT_NOT_SUPPORTED;
    default:
      return TaskFunctionResponse.NOT_SUPPORTED;
  }
  management.begin();
  return null;
}
