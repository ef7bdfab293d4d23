import type { PortalLimits } from './limits.ts';

/** What is watched of a connection. */
export interface WatchedPeer {
  /** Bytes that it has sent. */
  readonly receivedBytes: number;
  /** Writes to it that have left. */
  readonly sentCount: number;
  /** It does not read what it was sent. */
  readonly owesReading: boolean;
  /** It owes data that was asked for or announced. */
  readonly owesData: boolean;
  /** Data of commands that it has sent. */
  readonly dataBytes: number;
  /** Whether it can be asked: it is in full feature phase, and its input is being read. */
  readonly canAnswer: boolean;
  /** Asks it to say something. */
  ping(): void;
  /** Ends the connection. */
  drop(reason: string): void;
}

/**
 * Ends the connections of peers that are gone or do nothing: one that was asked and does not answer, one that owes data or reading and hardly moves. Costs nothing per
 * PDU: `look` is called every now and then and compares counters.
 */
export class PeerWatch {
  private readonly peer: WatchedPeer;
  private readonly limits: PortalLimits;
  private received = 0;
  private sent = 0;
  private data = 0;
  private heardMs: number;
  private movedMs: number;
  private dataMs: number;
  private pingedMs = -1;

  constructor(peer: WatchedPeer, limits: PortalLimits, nowMs: number) {
    this.peer = peer;
    this.limits = limits;
    this.heardMs = nowMs;
    this.movedMs = nowMs;
    this.dataMs = nowMs;
  }

  /** Called at least twice in the shortest of the times that are watched. */
  look(nowMs: number): void {
    this.lookForStall(nowMs);
    this.lookForSilence(nowMs);
  }

  private lookForStall(nowMs: number): void {
    const { peer, limits } = this;
    if (!peer.owesReading || peer.sentCount !== this.sent) this.movedMs = nowMs;
    this.sent = peer.sentCount;
    if (!peer.owesData) {
      this.dataMs = nowMs;
      this.data = peer.dataBytes;
    } else if (peer.dataBytes - this.data >= limits.stallBytes) {
      this.dataMs = nowMs;
      this.data = peer.dataBytes;
    }
    const since = Math.min(this.movedMs, this.dataMs);
    if (nowMs - since >= limits.stallTimeMs) peer.drop('the peer has stalled');
  }

  private lookForSilence(nowMs: number): void {
    const { peer, limits } = this;
    if (peer.receivedBytes !== this.received || !peer.canAnswer) {
      this.received = peer.receivedBytes;
      this.heardMs = nowMs;
      this.pingedMs = -1;
    } else if (this.pingedMs >= 0) {
      if (nowMs - this.pingedMs >= limits.pingAnswerTimeMs) peer.drop('the peer does not answer');
    } else if (nowMs - this.heardMs >= limits.pingIdleTimeMs) {
      this.pingedMs = nowMs;
      peer.ping();
    }
  }
}
