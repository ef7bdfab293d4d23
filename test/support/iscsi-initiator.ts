import { connect, type Socket } from 'node:net';
import {
  readU16BE,
  readU24BE,
  readU32BE,
  readU32LE,
  writeU24BE,
  writeU32BE,
  writeU32LE,
} from '../../src/base/bytes.ts';
import { crc32c } from '../../src/base/crc32c.ts';

/** A PDU as a test wants to see or send it. */
export interface Pdu {
  readonly header: Uint8Array;
  readonly data: Uint8Array;
}

/** The parts of a PDU to send; what is not given is zero. `fields` are 32-bit words by their byte position. */
export interface PduParts {
  opcode: number;
  immediate?: boolean;
  flags?: number;
  /** Bytes by their position in the header. */
  bytes?: Record<number, number>;
  fields?: Record<number, number>;
  lun?: number;
  tag?: number;
  cdb?: readonly number[];
  ahs?: Uint8Array;
  data?: Uint8Array;
  /** Instead of the real one. */
  dataLength?: number;
}

export interface DigestOptions {
  headerDigest?: boolean;
  dataDigest?: boolean;
}

/** The bytes of a PDU. */
export function buildPdu(parts: PduParts, digests: DigestOptions = {}): Uint8Array {
  const data = parts.data ?? new Uint8Array(0);
  const ahs = parts.ahs ?? new Uint8Array(0);
  const header = new Uint8Array(48 + ahs.length);
  header[0] = parts.opcode | (parts.immediate ? 0x40 : 0);
  header[1] = parts.flags ?? 0x80;
  header[4] = ahs.length / 4;
  writeU24BE(header, 5, parts.dataLength ?? data.length);
  if (parts.lun !== undefined) {
    header[8] = parts.lun < 256 ? 0 : 0x40 | (parts.lun >>> 8);
    header[9] = parts.lun;
  }
  writeU32BE(header, 16, parts.tag ?? 0);
  parts.cdb?.forEach((byte, index) => {
    header[32 + index] = byte;
  });
  for (const [at, value] of Object.entries(parts.fields ?? {})) writeU32BE(header, Number(at), value);
  for (const [at, value] of Object.entries(parts.bytes ?? {})) header[Number(at)] = value;
  header.set(ahs, 48);
  const pieces: Uint8Array[] = [header];
  if (digests.headerDigest) pieces.push(digestOf(header));
  if (data.length > 0) {
    const padded = new Uint8Array(Math.ceil(data.length / 4) * 4);
    padded.set(data);
    pieces.push(padded);
    if (digests.dataDigest) pieces.push(digestOf(padded));
  }
  return Buffer.concat(pieces);
}

function digestOf(bytes: Uint8Array): Uint8Array {
  const digest = new Uint8Array(4);
  writeU32LE(digest, 0, crc32c(bytes, 0, bytes.length));
  return digest;
}

export function textData(pairs: Record<string, string>): Uint8Array {
  return Buffer.from(
    Object.entries(pairs)
      .map(([key, value]) => `${key}=${value}\0`)
      .join(''),
  );
}

/** The pairs in their order, where keys come more than once. */
export function textList(data: Uint8Array): string[] {
  return Buffer.from(data).toString('utf8').split('\0').slice(0, -1);
}

export function textPairs(data: Uint8Array): Record<string, string> {
  const pairs: Record<string, string> = {};
  for (const part of Buffer.from(data).toString('utf8').split('\0')) {
    if (part === '') continue;
    const equals = part.indexOf('=');
    pairs[part.slice(0, equals)] = part.slice(equals + 1);
  }
  return pairs;
}

export const u16 = (pdu: Pdu, at: number): number => readU16BE(pdu.header, at);
export const u32 = (pdu: Pdu, at: number): number => readU32BE(pdu.header, at);
export const opcodeOf = (pdu: Pdu): number => pdu.header[0]! & 0x3f;
/** Status-Class and Status-Detail of a login response as one number. */
export const loginStatus = (pdu: Pdu): number => readU16BE(pdu.header, 36);

export const TARGET_NAME = 'iqn.2026-01.org.thinlun:test';
export const INITIATOR_NAME = 'iqn.2026-01.org.example:initiator';

/** The operational keys of a usual initiator. */
export const USUAL_KEYS: Readonly<Record<string, string>> = {
  HeaderDigest: 'None',
  DataDigest: 'None',
  InitialR2T: 'No',
  ImmediateData: 'Yes',
  MaxRecvDataSegmentLength: '262144',
  MaxBurstLength: '262144',
  FirstBurstLength: '65536',
  MaxOutstandingR2T: '1',
  ErrorRecoveryLevel: '0',
};

export interface LoginOptions {
  host?: string;
  initiator?: string;
  target?: string | null;
  isid?: number;
  tsih?: number;
  cid?: number;
  /** Instead of USUAL_KEYS. */
  keys?: Record<string, string>;
}

export interface CommandOptions {
  lun?: number;
  read?: number;
  write?: number;
  /** Data in the command PDU. */
  data?: Uint8Array;
  /** False: unsolicited Data-Out follows. */
  final?: boolean;
  immediate?: boolean;
  tag?: number;
  cmdSn?: number;
  ahs?: Uint8Array;
  /** ATTR: 1 simple, 2 ordered, 3 head of queue, 4 ACA; 0, untagged, unless told otherwise. */
  attribute?: number;
}

/** What a command brought back. */
export interface CommandResult {
  status: number;
  data: Uint8Array;
  sense: Uint8Array;
  /** Above zero an underflow, below zero an overflow. */
  residual: number;
  pdus: Pdu[];
}

/**
 * A small initiator for tests: everything that it sends can be wrong on purpose, and it shows PDUs as they come. Counts CmdSN and tags.
 */
export class Initiator {
  readonly socket: Socket;
  cmdSn = 1000;
  expStatSn = 0;
  nextTag = 1;
  headerDigest = false;
  dataDigest = false;
  tsih = 0;
  closed = false;
  /** Pings of the target are answered as they come and not shown. */
  answersPings = true;
  /** What the target declared and agreed to. */
  agreed: Record<string, string> = {};
  private buffered: Buffer = Buffer.alloc(0);
  private readonly received: Pdu[] = [];
  private wake: (() => void) | null = null;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk) => {
      this.buffered = this.buffered.length === 0 ? chunk : Buffer.concat([this.buffered, chunk]);
      this.cut();
      this.wake?.();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.closed = true;
      this.wake?.();
    });
  }

  static async connect(port: number, host: string = '127.0.0.1'): Promise<Initiator> {
    const socket = connect({ port, host });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new Initiator(socket);
  }

  /** A connection that has logged in to a normal session. */
  static async login(port: number, options: LoginOptions = {}): Promise<Initiator> {
    const initiator = await Initiator.connect(port, options.host);
    const response = await initiator.logIn(options);
    if (loginStatus(response) !== 0) throw new Error(`login status ${loginStatus(response).toString(16)}`);
    return initiator;
  }

  // --- bytes ---

  private cut(): void {
    for (;;) {
      const bytes = this.buffered;
      if (bytes.length < 48) return;
      const headerEnd = 48 + bytes[4]! * 4;
      const dataBegin = headerEnd + (this.headerDigest ? 4 : 0);
      const dataLength = readU24BE(bytes, 5);
      const padded = Math.ceil(dataLength / 4) * 4;
      const end = dataBegin + padded + (this.dataDigest && dataLength > 0 ? 4 : 0);
      if (bytes.length < end) return;
      if (this.headerDigest && readU32LE(bytes, headerEnd) !== crc32c(bytes, 0, headerEnd)) {
        throw new Error('the target sent a wrong header digest');
      }
      if (this.dataDigest && dataLength > 0) {
        const digest = readU32LE(bytes, dataBegin + padded);
        if (digest !== crc32c(bytes, dataBegin, dataBegin + padded)) {
          throw new Error('the target sent a wrong data digest');
        }
      }
      const pdu = {
        header: new Uint8Array(bytes.subarray(0, headerEnd)),
        data: new Uint8Array(bytes.subarray(dataBegin, dataBegin + dataLength)),
      };
      this.buffered = bytes.subarray(end);
      if (this.answersPings && opcodeOf(pdu) === 0x20 && u32(pdu, 20) !== 0xffffffff) {
        this.answerPing(pdu);
        continue;
      }
      this.received.push(pdu);
      // Digests begin right behind the last login response.
      if (opcodeOf(pdu) === 0x23 && (pdu.header[1]! & 0x83) === 0x83) this.takeDigests(pdu);
    }
  }

  private takeDigests(response: Pdu): void {
    const { HeaderDigest, DataDigest } = { ...this.agreed, ...textPairs(response.data) };
    this.headerDigest = HeaderDigest === 'CRC32C';
    this.dataDigest = DataDigest === 'CRC32C';
  }

  write(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  send(parts: PduParts): void {
    this.write(buildPdu(parts, this));
  }

  /** The next PDU; throws when none comes in time, null when the connection is closed. */
  async receiveOrEnd(timeoutMs: number = 5000): Promise<Pdu | null> {
    const deadline = performance.now() + timeoutMs;
    while (this.received.length === 0) {
      if (this.closed) return null;
      const left = deadline - performance.now();
      if (left <= 0) throw new Error('nothing came from the target');
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.wake = null;
    }
    const pdu = this.received.shift()!;
    const opcode = opcodeOf(pdu);
    const counts = opcode !== 0x31 && !(opcode === 0x25 && (pdu.header[1]! & 1) === 0);
    if (counts && !(opcode === 0x20 && u32(pdu, 16) === 0xffffffff)) this.expStatSn = (u32(pdu, 24) + 1) >>> 0;
    return pdu;
  }

  async receive(timeoutMs: number = 5000): Promise<Pdu> {
    const pdu = await this.receiveOrEnd(timeoutMs);
    if (pdu === null) throw new Error('the target closed the connection');
    return pdu;
  }

  /** True when the target closes the connection before it sends anything more. */
  async closes(timeoutMs: number = 5000): Promise<boolean> {
    return (await this.receiveOrEnd(timeoutMs)) === null;
  }

  /** True when nothing comes for a while. */
  async isSilent(timeMs: number = 80): Promise<boolean> {
    await new Promise((resolve) => setTimeout(resolve, timeMs));
    return this.received.length === 0 && !this.closed;
  }

  // --- PDUs ---

  takeTag(): number {
    return this.nextTag++;
  }

  loginParts(text: Uint8Array, flags: number, options: LoginOptions = {}): PduParts {
    const isid = options.isid ?? 1;
    return {
      opcode: 0x03,
      immediate: true,
      flags,
      tag: 0x10,
      bytes: { 8: 0x80, 13: isid, 14: (options.tsih ?? 0) >>> 8, 15: (options.tsih ?? 0) & 0xff, 21: options.cid ?? 1 },
      fields: { 24: this.cmdSn, 28: this.expStatSn },
      data: text,
    };
  }

  /** One login request and its response. `flags`: 0x80 transit, 0x40 continue, CSG << 2, NSG. */
  async loginRequest(text: Uint8Array, flags: number, options: LoginOptions = {}): Promise<Pdu> {
    this.send(this.loginParts(text, flags, options));
    const response = await this.receive();
    Object.assign(this.agreed, textPairs(response.data));
    this.tsih = u16(response, 14);
    return response;
  }

  /** The whole login in one request, from the operational stage to full feature phase. */
  /** One more connection of the session of `first`, with its own digests and lengths. */
  static async join(first: Initiator, port: number, options: LoginOptions & { cid: number }): Promise<Initiator> {
    const initiator = await Initiator.connect(port, options.host);
    initiator.cmdSn = first.cmdSn;
    const response = await initiator.logIn({ keys: {}, tsih: first.tsih, ...options });
    if (loginStatus(response) !== 0) throw new Error(`login status ${loginStatus(response).toString(16)}`);
    return initiator;
  }

  logIn(options: LoginOptions = {}): Promise<Pdu> {
    const target = options.target === undefined ? TARGET_NAME : options.target;
    const pairs = {
      InitiatorName: options.initiator ?? INITIATOR_NAME,
      ...(target === null ? { SessionType: 'Discovery' } : { TargetName: target, SessionType: 'Normal' }),
      ...(options.keys ?? USUAL_KEYS),
    };
    return this.loginRequest(textData(pairs), 0x87, options);
  }

  /** Sends a SCSI command and returns its tag. */
  sendCommand(cdb: readonly number[], options: CommandOptions = {}): number {
    const tag = options.tag ?? this.takeTag();
    const cmdSn = options.cmdSn ?? this.cmdSn;
    if (options.cmdSn === undefined && !options.immediate) this.cmdSn = (this.cmdSn + 1) >>> 0;
    const read = options.read === undefined ? 0 : 0x40;
    const write = options.write === undefined ? 0 : 0x20;
    this.send({
      opcode: 0x01,
      immediate: options.immediate ?? false,
      flags: (options.final === false ? 0 : 0x80) | read | write | (options.attribute ?? 0),
      lun: options.lun ?? 0,
      tag,
      fields: { 20: options.write ?? options.read ?? 0, 24: cmdSn, 28: this.expStatSn },
      cdb,
      ...(options.ahs === undefined ? {} : { ahs: options.ahs }),
      ...(options.data === undefined ? {} : { data: options.data }),
    });
    return tag;
  }

  sendDataOut(
    tag: number,
    transferTag: number,
    dataSn: number,
    offset: number,
    data: Uint8Array,
    final: boolean,
  ): void {
    this.send({
      opcode: 0x05,
      flags: final ? 0x80 : 0,
      tag,
      fields: { 20: transferTag, 28: this.expStatSn, 36: dataSn, 40: offset },
      data,
    });
  }

  /** Collects the answer to one command; its PDUs are the next ones. Answers R2Ts with `data`. */
  async result(tag: number, data: Uint8Array = new Uint8Array(0)): Promise<CommandResult> {
    const pdus: Pdu[] = [];
    const parts: Uint8Array[] = [];
    for (;;) {
      const pdu = await this.receive();
      // The target may say something of its own at any moment.
      if (opcodeOf(pdu) === 0x32) continue;
      if (u32(pdu, 16) !== tag) throw new Error(`PDU ${opcodeOf(pdu)} of tag ${u32(pdu, 16)} instead of ${tag}`);
      pdus.push(pdu);
      const flags = pdu.header[1]!;
      const residual = (flags & 2 ? 1 : flags & 4 ? -1 : 0) * u32(pdu, 44);
      switch (opcodeOf(pdu)) {
        case 0x25:
          parts.push(pdu.data);
          if ((flags & 1) === 0) break;
          return { status: pdu.header[3]!, data: Buffer.concat(parts), sense: new Uint8Array(0), residual, pdus };
        case 0x21: {
          const sense = pdu.data.length < 2 ? new Uint8Array(0) : pdu.data.subarray(2, 2 + readU16BE(pdu.data, 0));
          return { status: pdu.header[3]!, data: Buffer.concat(parts), sense, residual, pdus };
        }
        case 0x31: {
          const offset = u32(pdu, 40);
          this.sendDataOut(tag, u32(pdu, 20), 0, offset, data.subarray(offset, offset + u32(pdu, 44)), true);
          break;
        }
        default:
          throw new Error(`PDU ${opcodeOf(pdu)} in the answer to a command`);
      }
    }
  }

  async command(cdb: readonly number[], options: CommandOptions = {}): Promise<CommandResult> {
    return this.result(this.sendCommand(cdb, options), options.data);
  }

  /** Sends the data immediately as far as the session allows it, the rest when it is asked for. */
  async writeBlocks(
    lba: number,
    data: Uint8Array,
    immediateLength: number = Math.min(data.length, 65536),
  ): Promise<CommandResult> {
    const tag = this.sendCommand(write10(lba, data.length / 512), {
      write: data.length,
      ...(immediateLength > 0 ? { data: data.subarray(0, immediateLength) } : {}),
    });
    return this.result(tag, data);
  }

  readBlocks(lba: number, count: number): Promise<CommandResult> {
    return this.command(read10(lba, count), { read: count * 512 });
  }

  /** Takes the unit attention that every new nexus gets. */
  async settle(lun: number = 0): Promise<void> {
    await this.command([0], { lun });
  }

  sendTaskManagement(
    code: number,
    options: { lun?: number; tag?: number; refTag?: number; refCmdSn?: number; immediate?: boolean } = {},
  ): number {
    const tag = options.tag ?? this.takeTag();
    const cmdSn = this.cmdSn;
    if (options.immediate === false) this.cmdSn = (cmdSn + 1) >>> 0;
    this.send({
      opcode: 0x02,
      immediate: options.immediate ?? true,
      flags: 0x80 | code,
      lun: options.lun ?? 0,
      tag,
      fields: { 20: options.refTag ?? 0xffffffff, 24: cmdSn, 28: this.expStatSn, 32: options.refCmdSn ?? 0 },
    });
    return tag;
  }

  async logOut(): Promise<Pdu> {
    this.send({ opcode: 0x06, immediate: true, tag: this.takeTag(), fields: { 24: this.cmdSn, 28: this.expStatSn } });
    return this.receive();
  }

  sendText(
    text: Uint8Array,
    flags: number = 0x80,
    transferTag: number = 0xffffffff,
    tag: number = this.takeTag(),
  ): void {
    this.send({
      opcode: 0x04,
      immediate: true,
      flags,
      tag,
      fields: { 20: transferTag, 24: this.cmdSn, 28: this.expStatSn },
      data: text,
    });
  }

  async text(pairs: Record<string, string>): Promise<Record<string, string>> {
    this.sendText(textData(pairs));
    return textPairs((await this.receive()).data);
  }

  sendNop(
    data: Uint8Array = new Uint8Array(0),
    options: { immediate?: boolean; tag?: number; cmdSn?: number } = {},
  ): void {
    const immediate = options.immediate ?? true;
    const cmdSn = options.cmdSn ?? this.cmdSn;
    if (!immediate && options.cmdSn === undefined) this.cmdSn++;
    this.send({
      opcode: 0x00,
      immediate,
      tag: options.tag ?? this.takeTag(),
      fields: { 20: 0xffffffff, 24: cmdSn, 28: this.expStatSn },
      data,
    });
  }

  answerPing(ping: Pdu): void {
    const transferTag = u32(ping, 20);
    this.send({
      opcode: 0,
      immediate: true,
      tag: 0xffffffff,
      fields: { 20: transferTag, 24: this.cmdSn, 28: this.expStatSn },
    });
  }

  /** Says whether the target still answers on this connection. */
  async ping(): Promise<boolean> {
    const tag = this.takeTag();
    this.sendNop(Buffer.from('ping'), { tag });
    const pdu = await this.receiveOrEnd();
    return pdu !== null && opcodeOf(pdu) === 0x20 && u32(pdu, 16) === tag;
  }

  async close(): Promise<void> {
    if (this.closed) return;
    const closed = new Promise<void>((resolve) => this.socket.once('close', () => resolve()));
    this.socket.destroy();
    await closed;
  }
}

export function read10(lba: number, blocks: number): number[] {
  return [0x28, 0, lba >>> 24, lba >>> 16, lba >>> 8, lba, 0, blocks >>> 8, blocks, 0].map((byte) => byte & 0xff);
}

export function write10(lba: number, blocks: number): number[] {
  return [0x2a, 0, lba >>> 24, lba >>> 16, lba >>> 8, lba, 0, blocks >>> 8, blocks, 0].map((byte) => byte & 0xff);
}
