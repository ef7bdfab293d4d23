import { readU16BE } from '../base/bytes.ts';
import { taskTag } from './command-pdu.ts';
import type { PduParser } from './pdu-parser.ts';
import type { PduWriter } from './pdu-writer.ts';
import type { Session } from './session.ts';
import { Field, LogoutReason, LogoutResponse, RejectReason } from './spec.ts';

/** What a logout needs of its connection. */
export interface LogoutHost {
  readonly cid: number;
  /** See `SessionConnection`. */
  finish(reason: string, quiet: (() => void) | null): void;
}

/**
 * The logout requests of one connection (RFC 7143 11.14, 11.15): of itself, of another connection, of the session. The response is the last word of a connection, and comes when
 * no task is left of what is logged out.
 */
export class Logout {
  private readonly session: Session;
  private readonly writer: PduWriter;
  private readonly host: LogoutHost;
  private readonly othersQuiet: () => void;
  /** Of the request that ends this connection, -1 when there is none. */
  private tag = -1;
  private othersBusy = 0;
  private closed = false;

  /** `othersQuiet` is called when `isWaiting` ends. */
  constructor(session: Session, writer: PduWriter, host: LogoutHost, othersQuiet: () => void) {
    this.session = session;
    this.writer = writer;
    this.host = host;
    this.othersQuiet = othersQuiet;
  }

  /** The response has to wait for other connections. */
  get isWaiting(): boolean {
    return this.othersBusy > 0;
  }

  /** Carries out the request at `parser`; returns the reason to reject it for, else 0. */
  request(parser: PduParser): RejectReason | 0 {
    const reason = parser.header[parser.headerAt + Field.FLAGS]! & 0x7f;
    const tag = taskTag(parser);
    const cid = readU16BE(parser.header, parser.headerAt + Field.CID);
    if (reason > LogoutReason.REMOVE_FOR_RECOVERY) return RejectReason.INVALID_PDU_FIELD;
    if (reason === LogoutReason.REMOVE_FOR_RECOVERY) {
      this.writer.logoutResponse(tag, LogoutResponse.RECOVERY_NOT_SUPPORTED);
    } else if (reason === LogoutReason.CLOSE_CONNECTION && cid !== this.host.cid) {
      this.endOther(tag, cid);
    } else {
      if (reason === LogoutReason.CLOSE_SESSION) this.endOthers();
      this.tag = tag;
      this.host.finish('logout', null);
    }
    return 0;
  }

  /** No task is left: the response to the request that ends this connection, if there was one. */
  answer(): void {
    if (this.tag >= 0) this.writer.logoutResponse(this.tag, LogoutResponse.CLOSED);
    this.tag = -1;
  }

  /** The connection is gone. */
  close(): void {
    this.closed = true;
  }

  private endOther(tag: number, cid: number): void {
    const other = this.session.connection(cid);
    if (other === undefined || other.isEnding) {
      this.writer.logoutResponse(tag, LogoutResponse.CID_NOT_FOUND);
      return;
    }
    other.finish('logout by another connection', () => {
      if (!this.closed) this.writer.logoutResponse(tag, LogoutResponse.CLOSED);
    });
  }

  private endOthers(): void {
    this.session.isEnding = true;
    for (const other of this.session.connections) {
      if (other.cid === this.host.cid) continue;
      this.othersBusy++;
      other.finish('logout of the session', () => {
        this.othersBusy--;
        if (this.othersBusy === 0) this.othersQuiet();
      });
    }
  }
}
