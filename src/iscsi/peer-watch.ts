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

/** How far a peer has come with what it owes in some time: too little is nothing. */
class Progress {
  private readonly timeMs: number;
  private readonly bytes: number;
  private sent = 0;
  private data = 0;
  private readMs: number;
  private dataMs: number;

  constructor(timeMs: number, bytes: number, nowMs: number) {
    this.timeMs = timeMs;
    this.bytes = bytes;
    this.readMs = nowMs;
    this.dataMs = nowMs;
  }

  /** True when the peer has owed something all the time and has hardly moved. */
  isMissing(peer: WatchedPeer, nowMs: number): boolean {
    if (!peer.owesReading || peer.sentCount !== this.sent) {
      this.sent = peer.sentCount;
      this.readMs = nowMs;
    }
    if (!peer.owesData || peer.dataBytes - this.data >= this.bytes) {
      this.data = peer.dataBytes;
      this.dataMs = nowMs;
    }
    return nowMs - Math.min(this.readMs, this.dataMs) >= this.timeMs;
  }
}

/**
 * Ends the connections of peers that are gone or do nothing: one that was asked and does not answer, one that owes data or reading and hardly moves, sooner when others wait
 * for the memory that this costs. Nothing is done per PDU: `look` is called every now and then and compares counters.
 */
export class PeerWatch {
  private readonly peer: WatchedPeer;
  private readonly limits: PortalLimits;
  private readonly usual: Progress;
  private readonly pressed: Progress;
  private received = 0;
  private heardMs: number;
  private pingedMs = -1;

  constructor(peer: WatchedPeer, limits: PortalLimits, nowMs: number) {
    const { stallTimeMs, stallBytes, pressureTimeMs } = limits;
    this.peer = peer;
    this.limits = limits;
    this.usual = new Progress(stallTimeMs, stallBytes, nowMs);
    this.pressed = new Progress(pressureTimeMs, (stallBytes * pressureTimeMs) / stallTimeMs, nowMs);
    this.heardMs = nowMs;
  }

  /** Called at least twice in the shortest of the times that are watched. `underPressure`: others wait for memory and do not get any. */
  look(nowMs: number, underPressure: boolean): void {
    const { peer } = this;
    const late = this.pressed.isMissing(peer, nowMs);
    if (this.usual.isMissing(peer, nowMs) || (late && underPressure)) peer.drop('the peer has stalled');
    else this.lookForSilence(nowMs);
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
