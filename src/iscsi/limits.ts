import { assert } from '../base/assert.ts';
import { KIB, MIB } from '../base/units.ts';
import { DEFAULT_SEGMENT_LENGTH } from './spec.ts';

/** What a peer, or all of them together, can make the portal keep. Every queue and buffer of the portal is bounded by one of these. */
export interface PortalLimits {
  /** TCP connections of the portal; one more is reset as it comes. */
  readonly connections: number;
  /** Of these, how many may come from one address. */
  readonly connectionsPerAddress: number;
  /** Of these, how many may still be in their login; one more is reset as it comes. */
  readonly loginsInProgress: number;
  /** Of these, how many from one address. */
  readonly loginsPerAddress: number;
  /** Sessions of all kinds; one more gets the login status "out of resources". */
  readonly sessions: number;
  /** Of these, how many of one initiator name. */
  readonly sessionsPerInitiator: number;
  /** MaxConnections that is agreed to. */
  readonly connectionsPerSession: number;
  /** From the TCP connection to full feature phase. */
  readonly loginTimeMs: number;

  /** Commands that one session may have outstanding: the CmdSN window. */
  readonly commandWindow: number;
  /** Immediate commands and task management functions in progress, of one connection. */
  readonly immediateCommands: number;
  /** PDUs that came before an earlier CmdSN, of one session, with their data. */
  readonly heldBytes: number;

  /** MaxRecvDataSegmentLength that the portal declares. */
  readonly maxRecvDataSegmentLength: number;
  readonly maxBurstLength: number;
  /** Data that a command may send without being asked. */
  readonly firstBurstLength: number;
  readonly maxOutstandingR2T: number;
  /** One text negotiation, continued over several PDUs, in either direction. */
  readonly textBytes: number;
  /** Login requests of one login. */
  readonly loginRequests: number;

  /** Memory for the data of all commands. */
  readonly slabBytes: number;
  /** Of it, what one connection may hold; also the longest data of one command. */
  readonly slabBytesPerConnection: number;
  /** Chunks of 320 KiB that connections which receive much have to receive in, of all of them. */
  readonly inputChunks: number;
  /** A connection gets one, if there is one, when it has received so much at once. */
  readonly inputChunkFromBytes: number;
  /** Bytes waiting for the peer to read them, above which nothing more is read from it. */
  readonly outputBytes: number;

  /**
   * A peer that does not read what it is sent is disconnected when nothing moves for this long, and one that owes data when less than `stallBytes`
   * come in this time.
   */
  readonly stallTimeMs: number;
  readonly stallBytes: number;
  /** The same in a shorter time, with as much less data, while others wait for memory in vain. */
  readonly pressureTimeMs: number;
  /** An initiator that has said nothing for this long is asked whether it is there. */
  readonly pingIdleTimeMs: number;
  /** How long it may take to answer; then it is disconnected. */
  readonly pingAnswerTimeMs: number;
  /** How long closing may take: for the peer to log out, for what is in flight, for the last responses. */
  readonly closeTimeMs: number;
}

export const DEFAULT_LIMITS: PortalLimits = {
  connections: 256,
  connectionsPerAddress: 192,
  loginsInProgress: 64,
  loginsPerAddress: 48,
  sessions: 256,
  sessionsPerInitiator: 128,
  connectionsPerSession: 4,
  loginTimeMs: 15_000,
  commandWindow: 128,
  immediateCommands: 16,
  heldBytes: MIB,
  maxRecvDataSegmentLength: 256 * KIB,
  maxBurstLength: MIB,
  firstBurstLength: 64 * KIB,
  maxOutstandingR2T: 4,
  textBytes: 64 * KIB,
  loginRequests: 32,
  slabBytes: 64 * MIB,
  slabBytesPerConnection: 16 * MIB,
  inputChunks: 32,
  inputChunkFromBytes: 32 * KIB,
  outputBytes: MIB,
  stallTimeMs: 60_000,
  stallBytes: 64 * KIB,
  pressureTimeMs: 10_000,
  pingIdleTimeMs: 30_000,
  pingAnswerTimeMs: 30_000,
  closeTimeMs: 5_000,
};

/** Asserts what the limits promise each other. */
export function checkLimits(limits: PortalLimits): PortalLimits {
  assert(limits.loginsInProgress <= limits.connections, 'limits: more logins than connections');
  assert(limits.sessions < 0xffff, 'limits: a session handle has 16 bits');
  assert(
    limits.connectionsPerSession >= 1 && limits.connectionsPerSession <= 0xffff,
    'limits: connections of a session',
  );
  assert(limits.commandWindow >= 1 && limits.commandWindow <= 0x10000, 'limits: command window');
  assert(
    limits.maxRecvDataSegmentLength >= DEFAULT_SEGMENT_LENGTH && limits.maxRecvDataSegmentLength < 2 ** 24,
    'limits: MaxRecvDataSegmentLength',
  );
  assert(limits.maxBurstLength >= 512 && limits.maxBurstLength < 2 ** 24, 'limits: MaxBurstLength');
  assert(
    limits.firstBurstLength >= 512 && limits.firstBurstLength <= limits.maxBurstLength,
    'limits: FirstBurstLength exceeds MaxBurstLength',
  );
  assert(limits.maxOutstandingR2T >= 1 && limits.maxOutstandingR2T <= 0xffff, 'limits: MaxOutstandingR2T');
  assert(limits.slabBytesPerConnection <= limits.slabBytes / 2, 'limits: one connection may hold more than half');
  assert(
    limits.maxBurstLength <= limits.slabBytesPerConnection,
    'limits: a connection cannot hold one burst of MaxBurstLength',
  );
  assert(
    limits.heldBytes >= limits.maxRecvDataSegmentLength,
    'limits: what is held for its turn must have room for one PDU',
  );
  assert(limits.textBytes >= DEFAULT_SEGMENT_LENGTH, 'limits: a text request must have room for one PDU');
  return limits;
}
