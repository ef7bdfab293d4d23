import { Nexus } from '../scsi/nexus.ts';
import type { Target } from '../scsi/target.ts';
import type { Identity } from './access.ts';
import { CancelledCommands } from './cancelled-commands.ts';
import { CommandWindow } from './command-window.ts';
import { HeldBudget } from './held-pdus.ts';
import type { PortalLimits } from './limits.ts';
import type { Parameters } from './parameters.ts';

/** A connection of a session, as the others see it. */
export interface SessionConnection {
  readonly cid: number;
  /** It takes no commands any more. */
  readonly isEnding: boolean;
  /** Nor is a task of it left. */
  readonly isSettled: boolean;
  /** See `ConnectionTasks`. */
  dropAnswered(lun: number | null): void;
  /** It has a task with this Initiator Task Tag that is not answered yet. */
  hasTask(tag: number): boolean;
  /** Delivers what it holds and whose turn has come, and drops what has come by another connection. */
  deliverHeld(): void;
  /** Tells the initiator that it has other LUNs now. */
  tellLunsChanged(): void;
  /** Takes nothing new, answers what the engine has, then ends. `quiet` is called, now or later, when no task is left. */
  finish(reason: string, quiet: (() => void) | null): void;
  /** Ends it without another word. `reason` is for the log. */
  drop(reason: string): void;
  /** The same for a new connection that takes its place: `next` is called when no task is left. */
  giveWay(next: () => void): void;
}

/** What a session begins with: a complete login, or the session as another process has left it. */
export interface SessionOrigin {
  readonly initiatorName: string;
  readonly identity: Identity;
  readonly authentication: string;
  readonly isid: string;
  readonly targetName: string | null;
  /** CmdSN of the command that is delivered next. */
  readonly cmdSn: number;
  readonly parameters: Parameters;
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
  /** At most MaxConnections, and those that are ending. */
  readonly connections: SessionConnection[] = [];
  readonly held: HeldBudget;
  readonly cancelled: CancelledCommands;
  /** No connection can join any more. */
  isEnding = false;
  private delivering = false;
  private telling = false;

  constructor(login: SessionOrigin, tsih: number, target: Target | null, portalGroupTag: number, limits: PortalLimits) {
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
    this.window = new CommandWindow(login.cmdSn, limits.commandWindow);
    this.held = new HeldBudget(limits.heldBytes);
    this.cancelled = new CancelledCommands(this.window);
    this.parameters = login.parameters;
    if (this.nexus !== null) this.nexus.lunsChanged = () => this.tellLunsChanged();
  }

  connection(cid: number): SessionConnection | undefined {
    return this.connections.find((connection) => connection.cid === cid);
  }

  leave(connection: SessionConnection): void {
    this.connections.splice(this.connections.indexOf(connection), 1);
  }

  /** There are as many connections as were agreed on. */
  get isFull(): boolean {
    return this.connections.filter(({ isEnding }) => !isEnding).length >= this.parameters.maxConnections;
  }

  /** Delivers held commands in the order of CmdSN, whichever connection holds them (RFC 7143 4.2.2.1). */
  deliver(): void {
    if (this.delivering || this.window.isFrozen) return;
    this.delivering = true;
    for (let before = -1; this.held.count > 0 && before !== this.window.expCmdSn; ) {
      before = this.window.expCmdSn;
      for (const connection of this.connections) connection.deliverHeld();
    }
    this.delivering = false;
  }

  /**
   * `lost` has ended without a logout: at error recovery level 0 that ends the session with all of its connections (RFC 7143 7.1.4.1): what was under way on one of them
   * cannot be told from what was not.
   */
  connectionLost(lost: SessionConnection): void {
    if (this.isEnding) return;
    this.isEnding = true;
    for (const connection of [...this.connections]) {
      if (connection !== lost && !connection.isEnding) connection.drop('another connection of the session was lost');
    }
  }

  /** One message for all that changes in one turn of the event loop. */
  private tellLunsChanged(): void {
    if (this.telling) return;
    this.telling = true;
    process.nextTick(() => {
      this.telling = false;
      this.connections.find(({ isEnding }) => !isEnding)?.tellLunsChanged();
    });
  }

  /** Ends it without another word. */
  drop(reason: string): void {
    this.isEnding = true;
    for (const connection of [...this.connections]) connection.drop(reason);
  }
}
