import { Status } from '../../../src/scsi/spec.ts';
import type { ScsiTask } from '../../../src/scsi/task.ts';

/** Statuses that a disk of ours may answer with. */
const STATUSES = new Set<number>([
  Status.GOOD,
  Status.CHECK_CONDITION,
  Status.CONDITION_MET,
  Status.BUSY,
  Status.RESERVATION_CONFLICT,
  Status.TASK_SET_FULL,
  Status.TASK_ABORTED,
]);

export function senseIsWellFormed(sense: Uint8Array, senseLength: number): boolean {
  if (senseLength > 96) return false;
  const key = sense[0]! >= 0x72 && sense[0]! < 0x80 ? sense[1]! : sense[2]! & 0x0f;
  if (key === 0 || key > 0x0e) return false;
  if ((sense[0]! & 0x7f) === 0x70) return senseLength >= 18 && sense[7] === senseLength - 8;
  if (sense[0] !== 0x72 || sense[7] !== senseLength - 8) return false;
  let at = 8;
  while (at < senseLength) at += 2 + sense[at + 1]!;
  return at === senseLength;
}

/** What is wrong with the end of a task, or null. `outLength` is what `prepare` asked for. */
export function wrongEnd(task: ScsiTask, outLength: number, takesData: boolean): string | null {
  const { status, residual, expectedDataIn, expectedDataOut, dataInLength } = task;
  const announced = expectedDataIn + expectedDataOut;
  if (!STATUSES.has(status)) return `status ${status}`;
  if (!Number.isSafeInteger(residual) || residual > announced) return `residual ${residual} of ${announced}`;
  if (!(dataInLength >= 0 && dataInLength <= expectedDataIn)) return `${dataInLength} bytes of data`;
  if (status === Status.CHECK_CONDITION) {
    if (!senseIsWellFormed(task.sense, task.senseLength)) return 'sense data';
    if (dataInLength !== 0) return 'data with CHECK CONDITION';
    const refused = task.sense[task.sense[0] === 0x72 ? 2 : 12] === 0x0e;
    if (refused ? residual >= 0 : residual !== announced - outLength) return `residual ${residual}`;
    return null;
  }
  if (status !== Status.GOOD && status !== Status.CONDITION_MET) {
    return dataInLength === 0 && residual === announced - outLength ? null : `residual ${residual}, status ${status}`;
  }
  // An underflow is what was not moved; an overflow means that all that was announced was moved.
  const moved = dataInLength + outLength;
  if (expectedDataIn > 0 && expectedDataOut > 0) return null;
  if (residual >= 0) return moved === announced - residual ? null : `underflow ${residual}, moved ${moved}`;
  const wrongWay = moved === 0 && takesData === (expectedDataOut === 0);
  return moved === announced || wrongWay ? null : `overflow ${residual}, moved ${moved}`;
}
