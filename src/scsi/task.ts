import { IoVector } from '../block/io-vector.ts';
import type { Nexus } from './nexus.ts';

/** Bytes of a CDB that a task holds: the longest, 32-byte ones included; also TCMU's and iSCSI's usual bounds. */
export const MAX_CDB_SIZE = 260;
/** Bytes of sense data that a task holds; also what a TCMU ring entry holds. */
export const MAX_SENSE_SIZE = 96;

/** How a task stands to the others of its logical unit (SAM-5 8.6). Untagged tasks are SIMPLE. */
export const TaskAttribute = { SIMPLE: 0, ORDERED: 1, HEAD_OF_QUEUE: 2, ACA: 3 } as const;
export type TaskAttribute = (typeof TaskAttribute)[keyof typeof TaskAttribute];

export interface ScsiTaskOwner {
  /** `task` has its status. Called once per `execute()`, possibly before `execute()` returns. */
  taskDone(task: ScsiTask): void;
  /**
   * `task` was aborted between `prepare()` and `execute()`, and the engine has forgotten it. Its owner gives back what it has for it and, if `abortReported`, answers
   * TASK ABORTED.
   */
  taskAborted(task: ScsiTask): void;
}

/**
 * One SCSI command on its way through. Pooled by the front end that owns it; three steps:
 *
 * 1. The front end sets `cdb`, `cdbLength`, `attribute`, `nexus`, `expectedDataOut`, `expectedDataIn` and calls `prepare(task)` of the target or
 *    logical unit. `false`: it has ended, `status` and `sense` are set, `taskDone` is not called. `true`: it is in the unit's task set, `dataOutLength` and
 *    `dataInLength` say how much memory it needs.
 * 2. The front end makes `dataOut` hold exactly `dataOutLength` bytes that the initiator sent, and `dataIn` exactly
 *    `dataInLength` bytes to be filled (contents unspecified; the engine writes every byte that it returns).
 * 3. `execute(task)`, or `withdraw(task)` if it comes to nothing; when `taskDone` is called, `status`, `senseLength`, `dataInLength` (now: bytes really returned) and
 *    `residual` are final.
 *
 * Memory of `dataOut` and `dataIn` belongs to the front end and stays valid until `taskDone`.
 */
export class ScsiTask {
  readonly cdb: Uint8Array = new Uint8Array(MAX_CDB_SIZE);
  cdbLength = 0;
  attribute: TaskAttribute = TaskAttribute.SIMPLE;
  nexus: Nexus;
  /** Bytes of Data-Out that the initiator announced (its expected data transfer length); 0 if none. */
  expectedDataOut = 0;
  /** Bytes of Data-In that the initiator has room for; 0 if none. */
  expectedDataIn = 0;

  /**
   * The front end can tell the initiator of an overflow (`residual` below zero). Where it cannot, a command that sends less than its CDB says is refused: GOOD would mean that
   * all of it was taken.
   */
  readonly tellsOverflow: boolean = true;

  /** Set by `prepare`: bytes to fetch before `execute`, at most `expectedDataOut`. */
  dataOutLength = 0;
  /** Set by `prepare`: bytes of room needed, at most `expectedDataIn`. After completion: bytes returned. */
  dataInLength = 0;
  readonly dataOut: IoVector = new IoVector();
  readonly dataIn: IoVector = new IoVector();

  /** SAM status code. */
  status = 0;
  /** Valid with CHECK CONDITION. */
  readonly sense: Uint8Array = new Uint8Array(MAX_SENSE_SIZE);
  senseLength = 0;
  /**
   * What the initiator announced less what the command would transfer (RFC 7143 11.4.5): above zero an underflow, below zero an overflow.
   * For a command that ended in CHECK CONDITION without a transfer, all that was announced is underflow.
   */
  residual = 0;

  /** Set on task management (`TaskSet.abort`): the engine stops as early as is safe; `taskDone` still comes. */
  aborted = false;
  /** With `aborted`: another nexus has done it, and the initiator is told by TASK ABORTED. Otherwise it hears nothing of the task any more. */
  abortReported = false;

  owner: ScsiTaskOwner;
  /** For whoever has the task at the moment. */
  next: ScsiTask | null = null;
  /** The engine's own per-task state; kept with the task so that it is pooled with it. */
  engine: unknown = null;

  constructor(owner: ScsiTaskOwner, nexus: Nexus) {
    this.owner = owner;
    this.nexus = nexus;
  }
}
