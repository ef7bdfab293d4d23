import { Nexus } from '../scsi/nexus.ts';
import type { Target } from '../scsi/target.ts';
import type { Identity } from './access.ts';
import { CommandWindow } from './command-window.ts';
import type { Login } from './login.ts';
import type { Parameters } from './parameters.ts';

/** The connection of a session, as others see it. */
export interface SessionConnection {
  readonly cid: number;
  /** See `TaskSet`. */
  dropAnswered(lun: number | null): void;
  /** Ends it without another word. `reason` is for the log. */
  drop(reason: string): void;
}

/** One iSCSI session (RFC 7143 4.3): an initiator port at our target port, or a discovery session. */
export class Session {
  readonly initiatorName: string;
  readonly identity: Identity;
  /** How the initiator has proved its identity, for people. */
  readonly authentication: string;
  readonly isid: string;
  readonly portalGroupTag: number;
  readonly tsih: number;
  /** Both null in a discovery session. */
  readonly target: Target | null;
  readonly targetName: string | null;
  readonly nexus: Nexus | null;
  readonly window: CommandWindow;
  readonly parameters: Parameters;
  /** Null when it has been lost and nothing is left but tasks in the engine. */
  connection: SessionConnection | null = null;
  /** Set while a new connection waits to take the place of the one that is ending: called instead of ending the session. */
  successor: (() => void) | null = null;

  constructor(login: Login, tsih: number, target: Target | null, portalGroupTag: number, commandWindow: number) {
    this.initiatorName = login.initiatorName;
    this.identity = login.identity;
    this.authentication = login.authentication;
    this.isid = login.isid;
    this.portalGroupTag = portalGroupTag;
    this.tsih = tsih;
    this.target = target;
    this.targetName = login.targetName;
    this.nexus =
      target === null
        ? null
        : new Nexus(
            `${login.initiatorName},i,0x${login.isid}`,
            `${login.targetName},t,0x${portalGroupTag.toString(16).padStart(4, '0')}`,
            portalGroupTag,
          );
    this.window = new CommandWindow(login.cmdSn, commandWindow);
    this.parameters = login.parameters;
  }
}
