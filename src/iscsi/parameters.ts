import { DEFAULT_SEGMENT_LENGTH } from './spec.ts';

/** What a session and its connection agreed on; before that, the defaults of RFC 7143 13. */
export class Parameters {
  headerDigest = false;
  dataDigest = false;
  /** What the initiator receives in one PDU. */
  initiatorSegmentLength: number = DEFAULT_SEGMENT_LENGTH;
  /** What we receive in one PDU: the default until we have declared ours. */
  targetSegmentLength: number = DEFAULT_SEGMENT_LENGTH;
  maxConnections = 1;
  initialR2T = true;
  immediateData = true;
  maxBurstLength = 262144;
  firstBurstLength = 65536;
  maxOutstandingR2T = 1;
  defaultTime2Wait = 2;
  defaultTime2Retain = 20;

  /** What belongs to the session and not to its connection is as in `session`. */
  takeSessionWide(session: Parameters): void {
    this.maxConnections = session.maxConnections;
    this.initialR2T = session.initialR2T;
    this.immediateData = session.immediateData;
    this.maxBurstLength = session.maxBurstLength;
    this.firstBurstLength = session.firstBurstLength;
    this.maxOutstandingR2T = session.maxOutstandingR2T;
    this.defaultTime2Wait = session.defaultTime2Wait;
    this.defaultTime2Retain = session.defaultTime2Retain;
  }

  /** Data that a command may send without an R2T, in it and behind it. */
  get unsolicitedLength(): number {
    return Math.min(this.firstBurstLength, this.maxBurstLength);
  }
}
