import { NO_INFORMATION, NO_SKS, type Sense, writeSense } from '../scsi/sense.ts';
import { SenseKey, Status } from '../scsi/spec.ts';
import type { ScsiTask } from '../scsi/task.ts';

/** How tasks end that the engine has not ended: the transport itself has found the reason. */

/** CHECK CONDITION with fixed format sense data; nothing is transferred. */
export function endWith(task: ScsiTask, sense: Sense): void {
  task.status = Status.CHECK_CONDITION;
  task.senseLength = writeSense(task.sense, false, sense, NO_INFORMATION, NO_SKS);
  endWithoutTransfer(task);
}

/** A condition of RFC 7143 11.4.7.2 (`IscsiCondition`). */
export function endWithCondition(task: ScsiTask, condition: number): void {
  endWith(task, SenseKey.ABORTED_COMMAND * 0x10000 + condition);
}

/** TASK SET FULL: the initiator tries again. */
export function endFull(task: ScsiTask): void {
  task.status = Status.TASK_SET_FULL;
  task.senseLength = 0;
  endWithoutTransfer(task);
}

/** TASK ABORTED: another initiator has aborted it. */
export function endAborted(task: ScsiTask): void {
  task.status = Status.TASK_ABORTED;
  task.senseLength = 0;
  endWithoutTransfer(task);
}

function endWithoutTransfer(task: ScsiTask): void {
  task.residual = task.expectedDataIn + task.expectedDataOut;
  task.dataInLength = 0;
  task.dataOutLength = 0;
}
