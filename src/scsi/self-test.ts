import { readU16BE } from '../base/bytes.ts';
import { LunOp } from '../block/lun-backend.ts';
import type { Command, CommandHandler } from './command.ts';

const Phase = { SCRATCH: 0, READ: 1, FLUSHED: 2 } as const;

/** SEND DIAGNOSTIC (SPC-4 6.42): the default self-test only, which reads the first block and flushes. */
export const sendDiagnostic: CommandHandler = {
  prepare(command: Command): boolean {
    const { cdb } = command.task;
    if (readU16BE(cdb, 3) !== 0) return command.checkCdb(3);
    if ((cdb[1]! & 0x04) === 0) return command.checkCdb(1, 2);
    return command.transferNone();
  },

  execute(command: Command): void {
    command.phase = Phase.SCRATCH;
    command.needScratch();
  },

  step(command: Command): void {
    const { unit, request } = command;
    switch (command.phase) {
      case Phase.SCRATCH:
        command.phase = Phase.READ;
        request.data.set(command.scratch!, 0, unit.blockSize);
        command.submitTransfer(LunOp.READ, 0, false);
        break;
      case Phase.READ:
        command.phase = Phase.FLUSHED;
        command.submitRange(LunOp.FLUSH, 0, 0, false);
        break;
      default:
        command.finish();
    }
  },
};
