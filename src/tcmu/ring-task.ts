import { IoVector } from '../block/io-vector.ts';
import { ScsiTask } from '../scsi/task.ts';

/** A command that was copied out of a ring. Pooled by its ring. */
export class RingTask extends ScsiTask {
  /** The kernel's name for the command; free for another one as soon as it is completed. */
  cmdId = 0;
  /** When it was copied out, in the host's time. */
  takenMs = 0;
  /** The first list of pieces: the only one, or Data-Out of a bidirectional command. Whole, as the initiator announced it. */
  readonly buffer: IoVector = new IoVector();
  /** The second list: Data-In of a bidirectional command. */
  readonly bidiBuffer: IoVector = new IoVector();
  /** Its place in the ring's list of commands in flight; -1 when it is not in flight. */
  flightIndex = -1;
}
