import { LunOp } from '../block/lun-backend.ts';
import type { Command, CommandHandler } from './command.ts';
import { INVALID_FIELD_IN_CDB, MEDIUM_NOT_PRESENT, MEDIUM_REMOVAL_PREVENTED } from './sense.ts';
import { UnitAttention } from './unit-attention.ts';

/** START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL. */
const START = 0x01;
const LOEJ = 0x02;
const NO_FLUSH = 0x04;

/** LOEJ means something only without a power condition. */
function loadsOrEjects(cdb: Uint8Array): boolean {
  return cdb[4]! >>> 4 === 0 && (cdb[4]! & LOEJ) !== 0;
}

/**
 * START STOP UNIT (SBC-4 5.32). Nothing here spins or saves power: power conditions are accepted and every one is as ready as active, so that one
 * initiator's shutdown does not stop the unit for the others. Stopping flushes; LOEJ ejects and loads the medium of a removable unit.
 */
export const startStopUnit: CommandHandler = {
  prepare(command: Command): boolean {
    const { unit, task } = command;
    const { cdb } = task;
    if (loadsOrEjects(cdb)) {
      if (!unit.removable) return command.checkCdb(4, 1);
      if (unit.removalPrevented) return command.check(MEDIUM_REMOVAL_PREVENTED);
    } else if ((cdb[4]! & START) !== 0 && !unit.mediumPresent) {
      return command.check(MEDIUM_NOT_PRESENT);
    }
    return command.transferNone();
  },

  execute(command: Command): void {
    const { cdb } = command.task;
    if ((cdb[4]! & (START | NO_FLUSH)) !== 0 || cdb[4]! >>> 4 !== 0) startStopUnit.step(command);
    else command.submitRange(LunOp.FLUSH, 0, 0, false);
  },

  step(command: Command): void {
    const { unit, task } = command;
    if (loadsOrEjects(task.cdb)) {
      const load = (task.cdb[4]! & START) !== 0;
      if (load && !unit.mediumPresent) unit.raiseAttention(UnitAttention.MEDIUM_CHANGED, task.nexus);
      unit.mediumPresent = load;
    }
    command.finish();
  },
};

/** PREVENT ALLOW MEDIUM REMOVAL (SPC-4 6.16): removal is prevented as long as one nexus wants it. */
export const preventAllow: CommandHandler = {
  prepare(command: Command): boolean {
    // Values 10b and 11b are obsolete.
    if ((command.task.cdb[4]! & 0x02) !== 0) return command.checkCdb(4, 1);
    return command.nexusState === null ? command.check(INVALID_FIELD_IN_CDB) : command.transferNone();
  },

  execute(command: Command): void {
    command.nexusState!.preventsRemoval = (command.task.cdb[4]! & 1) !== 0;
    command.finish();
  },

  step(): void {},
};
