import { IoVector } from '../block/io-vector.ts';
import { Status } from '../scsi/spec.ts';
import { ScsiTask } from '../scsi/task.ts';

/** A command that was copied out of a ring. Pooled by its ring. */
export class RingTask extends ScsiTask {
  /** The kernel takes a length for Data-In only, and only below what was announced. */
  override readonly tellsOverflow: boolean = false;
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

  /** What Data-In goes to. The ring does not say which way the data goes; the CDB does. */
  get room(): IoVector {
    return this.bidiBuffer.count > 0 ? this.bidiBuffer : this.buffer;
  }

  /**
   * Sees to it that the initiator gets what the command has returned, and nothing that other commands have left in the buffer: the kernel gives the whole buffer back,
   * unless it is told a length above zero, of a command with one list, or the status is CHECK CONDITION without a length. Returns that length; 0 for none.
   */
  settleDataIn(lengthOffered: boolean): number {
    const { room } = this;
    const returned = Math.min(this.dataInLength, room.lengthBytes);
    const noneReturned = returned === 0 && this.status === Status.CHECK_CONDITION;
    if (room.lengthBytes === 0 || noneReturned) return 0;
    if (!lengthOffered || this.bidiBuffer.count > 0) {
      // Nothing can be told, and what Data-Out there was is the initiator's own.
      const isDataIn = this.dataOutLength === 0 || this.bidiBuffer.count > 0;
      if (isDataIn && this.status !== Status.CHECK_CONDITION) room.zero(returned, room.lengthBytes - returned);
      return 0;
    }
    // No length is no length at all: a byte is the least. Also for commands that took data, though the kernel does not look at it: an initiator may have asked for
    // data with a CDB that sends some, which the ring does not show.
    if (returned === 0) room.memory[room.offsets[0]!] = 0;
    const whole = returned === room.lengthBytes && this.status !== Status.CHECK_CONDITION;
    return whole ? 0 : Math.max(returned, 1);
  }
}
