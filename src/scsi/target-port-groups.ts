import { readU16BE, readU32BE, writeU16BE, writeU32BE } from '../base/bytes.ts';
import type { Command, CommandHandler } from './command.ts';
import { AccessState, type AccessStateChange, SupportedStates, type TargetPortGroup, tpgsOf } from './front-end.ts';
import {
  fieldPointer,
  INVALID_FIELD_IN_CDB,
  NO_INFORMATION,
  PARAMETER_LIST_LENGTH_ERROR,
  SET_TARGET_PORT_GROUPS_COMMAND_FAILED,
} from './sense.ts';

/**
 * REPORT TARGET PORT GROUPS and SET TARGET PORT GROUPS (SPC-4 6.37, 6.45).
 *
 *     0  RETURN DATA LENGTH(4)  with FORMAT 001b: 4 10h  5 IMPLICIT TRANSITION TIME
 *     set: 4 descriptors: STATE 0 GROUP(2)
 *     group: 0 PREF,STATE  1 supported states  2 GROUP(2)  5 STATUS CODE  7 PORT COUNT  8 ports: 0(2) RELATIVE TARGET PORT IDENTIFIER(2)
 */

const DESCRIPTOR_LENGTH = 4;
const LIST_HEADER = 4;
const MAX_DESCRIPTORS = 64;
/** What a front end may have, so that the reply has room for it. */
export const MAX_GROUPS = 64;
export const MAX_GROUP_PORTS = 255;
export const MAX_PORTS = 1500;

const EXTENDED_HEADER = 0x20;
const PREFERRED = 0x80;
const EXPLICIT = 2;

const Phase = { REFRESHED: 0, SET: 1 } as const;

export const reportTargetPortGroups: CommandHandler = {
  prepare(command: Command): boolean {
    return command.transferReply(readU32BE(command.task.cdb, 6));
  },

  execute(command: Command): void {
    if (command.task.nexus.frontEnd.refresh(command)) this.step(command);
  },

  step(command: Command): void {
    const { unit, task } = command;
    const { frontEnd } = task.nexus;
    if (tpgsOf(frontEnd) === 0) {
      failServiceAction(command);
      return;
    }
    const { groups } = frontEnd;
    const out = unit.reply;
    const extended = (task.cdb[1]! & EXTENDED_HEADER) !== 0;
    let at = extended ? 8 : 4;
    out.fill(0);
    if (extended) {
      out[4] = 0x10;
      for (const { transitionSeconds } of groups) out[5] = Math.max(out[5]!, transitionSeconds);
    }
    for (const group of groups) at = writeGroup(out, at, group);
    writeU32BE(out, 0, at - 4);
    command.finishReply(at, readU32BE(task.cdb, 6));
  },
};

/** There is no such thing for this nexus, which is known only once its front end was asked. */
function failServiceAction(command: Command): void {
  command.fail(INVALID_FIELD_IN_CDB, NO_INFORMATION, fieldPointer(true, 1, 4));
}

function writeGroup(out: Uint8Array, at: number, group: TargetPortGroup): number {
  out[at] = (group.preferred ? PREFERRED : 0) | group.state;
  out[at + 1] = group.supported;
  writeU16BE(out, at + 2, group.id);
  out[at + 5] = group.status;
  out[at + 7] = group.ports.length;
  let end = at + 8;
  for (const port of group.ports) {
    writeU16BE(out, end + 2, port);
    end += 4;
  }
  return end;
}

/** Changes all groups of its list or, where one cannot be as it is asked to be, none. */
export const setTargetPortGroups: CommandHandler = {
  prepare(command: Command): boolean {
    const { cdb, expectedDataOut } = command.task;
    const length = readU32BE(cdb, 6);
    if (length === 0) return command.transferNone();
    if (length > LIST_HEADER + MAX_DESCRIPTORS * DESCRIPTOR_LENGTH) return command.checkCdb(6);
    const isWhole = length > LIST_HEADER && (length - LIST_HEADER) % DESCRIPTOR_LENGTH === 0;
    if (!isWhole || expectedDataOut < length) return command.check(PARAMETER_LIST_LENGTH_ERROR);
    return command.transferOut(length);
  },

  execute(command: Command): void {
    command.phase = Phase.REFRESHED;
    if (command.task.nexus.frontEnd.refresh(command)) this.step(command);
  },

  /** `flag`: it was done. */
  step(command: Command): void {
    if (command.phase === Phase.SET) {
      if (command.flag) command.finish();
      else command.fail(SET_TARGET_PORT_GROUPS_COMMAND_FAILED);
      return;
    }
    if ((tpgsOf(command.task.nexus.frontEnd) & EXPLICIT) === 0) {
      failServiceAction(command);
      return;
    }
    const changes = readChanges(command);
    if (changes === null) return;
    command.phase = Phase.SET;
    command.task.nexus.frontEnd.setStates(changes, (made) => {
      command.flag = made;
      command.resume();
    });
  },
};

/** Null after CHECK CONDITION. */
function readChanges(command: Command): AccessStateChange[] | null {
  const { task, bytes } = command;
  const { groups } = task.nexus.frontEnd;
  const changes: AccessStateChange[] = [];
  for (let at = LIST_HEADER; at < task.dataOutLength; at += DESCRIPTOR_LENGTH) {
    task.dataOut.copyTo(bytes, 0, at, DESCRIPTOR_LENGTH);
    const state = bytes[0]! & 0x0f;
    const id = readU16BE(bytes, 2);
    const group = groups.find((one) => one.id === id);
    if (group === undefined || !group.explicit) {
      command.failParameter(at + 2);
      return null;
    }
    if ((group.supported & bitOf(state)) === 0) {
      command.failParameter(at, 3);
      return null;
    }
    changes.push({ group: id, state });
  }
  return changes;
}

/** Of `SupportedStates`; 0 for what nobody may ask for: a transition ends by itself, and offline is LIO's word for a port. */
function bitOf(state: number): number {
  switch (state) {
    case AccessState.ACTIVE_OPTIMIZED:
      return SupportedStates.ACTIVE_OPTIMIZED;
    case AccessState.ACTIVE_NON_OPTIMIZED:
      return SupportedStates.ACTIVE_NON_OPTIMIZED;
    case AccessState.STANDBY:
      return SupportedStates.STANDBY;
    case AccessState.UNAVAILABLE:
      return SupportedStates.UNAVAILABLE;
    default:
      return 0;
  }
}
