import { MIB } from '../base/units.ts';

/** Asymmetric access states (SPC-4 5.15.2). */
export const AccessState = {
  ACTIVE_OPTIMIZED: 0x0,
  ACTIVE_NON_OPTIMIZED: 0x1,
  STANDBY: 0x2,
  UNAVAILABLE: 0x3,
  LBA_DEPENDENT: 0x4,
  OFFLINE: 0xe,
  TRANSITIONING: 0xf,
} as const;
export type AccessState = (typeof AccessState)[keyof typeof AccessState];

/** Byte 1 of a target port group descriptor (SPC-4 table 245): the states that there are. */
export const SupportedStates = {
  ACTIVE_OPTIMIZED: 0x01,
  ACTIVE_NON_OPTIMIZED: 0x02,
  STANDBY: 0x04,
  UNAVAILABLE: 0x08,
  LBA_DEPENDENT: 0x10,
  OFFLINE: 0x40,
  TRANSITIONING: 0x80,
} as const;

/** A target port group (SPC-4 5.15). */
export interface TargetPortGroup {
  readonly id: number;
  readonly state: number;
  /** Of `SupportedStates`. */
  readonly supported: number;
  readonly preferred: boolean;
  /** STATUS CODE: 0 never changed, 1 by SET TARGET PORT GROUPS, 2 by the target itself. */
  readonly status: number;
  /** The target changes the state by itself. */
  readonly implicit: boolean;
  /** SET TARGET PORT GROUPS changes the state. */
  readonly explicit: boolean;
  /** IMPLICIT TRANSITION TIME, seconds; 0: not said. */
  readonly transitionSeconds: number;
  /** Relative target port identifiers. */
  readonly ports: readonly number[];
}

export interface AccessStateChange {
  readonly group: number;
  readonly state: number;
}

/** Waits for `FrontEnd.refresh`. */
export interface FrontEndWaiter {
  resume(): void;
}

/**
 * What a front end says of itself to initiators, and what it takes of them: one logical unit serves several. A target of the portal has one for all of its
 * nexuses, a TCMU device one of its own.
 */
export interface FrontEnd {
  /** Data of one READ, WRITE and the like (VPD page B0h MAXIMUM TRANSFER LENGTH); at least a logical block. */
  readonly maxTransferBytes: number;
  /** Task attributes and all task management functions get here. Not those of LIO, which has its own. */
  readonly managesTasks: boolean;
  /** Relative target port identifiers of ports that have names; none where somebody else answers for them. */
  readonly ports: readonly number[];
  /** None: nothing is said of asymmetric access. */
  readonly groups: readonly TargetPortGroup[];
  /** Identifier of the group that every command comes through; -1 where that cannot be told. */
  readonly ownGroup: number;
  /** Relative identifier of the one port that there is, for nexuses that do not know their own; 0 where that cannot be told. */
  readonly onlyPort: number;
  /** Looks what it has to say by now. True: nothing to wait for. False: `waiter.resume()` is called once, later, whatever comes of it. */
  refresh(waiter: FrontEndWaiter): boolean;
  /** SET TARGET PORT GROUPS: changes that `groups` allow. `done` is called once, now or later; false: not all of them have been made. */
  setStates(changes: readonly AccessStateChange[], done: (made: boolean) => void): void;
}

export const DEFAULT_MAX_TRANSFER: number = 8 * MIB;

/**
 * The group of all ports of the portal. Initiators tell groups of a logical unit apart by their numbers, whatever target they are of: this is none that LIO
 * gives by itself (from 0) or that anybody would choose.
 */
export const PORTAL_GROUP = 0x7468;

/** Ports that are in one group, active and optimized for ever. */
export class FixedFrontEnd implements FrontEnd {
  readonly maxTransferBytes: number;
  readonly managesTasks: boolean;
  readonly ports: readonly number[];
  readonly groups: readonly TargetPortGroup[];
  readonly ownGroup: number;
  readonly onlyPort = 0;

  /** Without `ports` it says nothing of them, and has no task management. */
  constructor(ports: readonly number[], maxTransferBytes: number = DEFAULT_MAX_TRANSFER) {
    this.maxTransferBytes = maxTransferBytes;
    this.managesTasks = ports.length > 0;
    this.ports = ports;
    this.ownGroup = ports.length > 0 ? PORTAL_GROUP : -1;
    const group: TargetPortGroup = {
      id: PORTAL_GROUP,
      state: AccessState.ACTIVE_OPTIMIZED,
      supported: SupportedStates.ACTIVE_OPTIMIZED,
      preferred: false,
      status: 0,
      implicit: true,
      explicit: true,
      transitionSeconds: 0,
      ports,
    };
    this.groups = ports.length > 0 ? [group] : [];
  }

  refresh(): boolean {
    return true;
  }

  /** The state that the group has is the only one that can be asked for. */
  setStates(_changes: readonly AccessStateChange[], done: (made: boolean) => void): void {
    done(true);
  }
}

/** Of a nexus whose front end says nothing. */
export const SILENT_FRONT_END: FrontEnd = new FixedFrontEnd([]);

/** TPGS of standard INQUIRY data: 1 implicit, 2 explicit, 3 both; 0 without asymmetric access. */
export function tpgsOf({ groups }: FrontEnd): number {
  let tpgs = 0;
  for (const { implicit, explicit } of groups) tpgs |= (implicit ? 1 : 0) | (explicit ? 2 : 0);
  return tpgs;
}

/** MAXIMUM TRANSFER LENGTH in logical blocks. */
export function maxTransferBlocks({ maxTransferBytes }: FrontEnd, blockSize: number): number {
  return Math.min(0xffffffff, Math.floor(maxTransferBytes / blockSize));
}
