/**
 * A small, fast iSCSI initiator: one connection, plain SCSI commands at any depth, digests off. It makes the load of the benchmarks and of
 * the durability tests; what is fussy about the protocol is tested elsewhere. Plain JavaScript, so that a benchmark runs it without a build.
 *
 * Per command it does as little as it can: everything that one chunk from the socket completes, and everything that is submitted
 * in answer to it, leaves in one write.
 */
import { connect } from 'node:net';

const BHS_SIZE = 48;
const NO_TAG = 0xffffffff;
const RECEIVE_SIZE = 1024 * 1024;
const MAX_RECEIVE_SEGMENT = 262_144;

const SCSI_COMMAND = 0x01;
const LOGIN_REQUEST = 0x03;
const DATA_OUT = 0x05;
const LOGOUT_REQUEST = 0x06;
const NOP_IN = 0x20;
const SCSI_RESPONSE = 0x21;
const LOGIN_RESPONSE = 0x23;
const DATA_IN = 0x25;
const LOGOUT_RESPONSE = 0x26;
const R2T = 0x31;
const ASYNC = 0x32;
const SCSI_EVENT = 0;
const REJECT = 0x3f;

/** One SCSI command. The caller owns it and may use it again as soon as `done` was called. */
export class Command {
  cdb = Buffer.alloc(16);
  /** Its logical unit; -1 is the connection's. */
  lun = -1;
  /** What is sent. @type {Buffer | null} */
  dataOut = null;
  /** Bytes of Data-In wanted. */
  dataInLength = 0;
  /** Where Data-In goes; null throws it away. @type {Buffer | null} */
  dataIn = null;
  status = -1;
  /** Bytes that came. */
  received = 0;
  /** Valid with CHECK CONDITION. @type {Buffer | null} */
  sense = null;
  /** Called when it has its status, or when the connection broke (`status` is -1 then). @type {(command: Command) => void} */
  done;

  /** @param {(command: Command) => void} done */
  constructor(done) {
    this.done = done;
  }

  /** READ(16). @param {number} lba @param {number} blocks @param {number} blockSize @param {Buffer | null} [into] @param {boolean} [fua] */
  read(lba, blocks, blockSize, into = null, fua = false) {
    this.#blockCommand(0x88, lba, blocks, fua);
    this.dataOut = null;
    this.dataIn = into;
    this.dataInLength = blocks * blockSize;
  }

  /** WRITE(16) of all of `data`. @param {number} lba @param {number} blocks @param {Buffer} data @param {boolean} [fua] */
  write(lba, blocks, data, fua = false) {
    this.#blockCommand(0x8a, lba, blocks, fua);
    this.dataOut = data;
    this.dataIn = null;
    this.dataInLength = 0;
  }

  /** SYNCHRONIZE CACHE(16) of everything. */
  flush() {
    this.#blockCommand(0x91, 0, 0, false);
    this.dataOut = null;
    this.dataIn = null;
    this.dataInLength = 0;
  }

  /** UNMAP of one range. @param {number} lba @param {number} blocks */
  unmap(lba, blocks) {
    const list = Buffer.alloc(24);
    list.writeUInt16BE(22, 0);
    list.writeUInt16BE(16, 2);
    list.writeBigUInt64BE(BigInt(lba), 8);
    list.writeUInt32BE(blocks, 16);
    this.cdb.fill(0);
    this.cdb[0] = 0x42;
    this.cdb[8] = list.length;
    this.dataOut = list;
    this.dataIn = null;
    this.dataInLength = 0;
  }

  /** @param {number} opcode @param {number} lba @param {number} blocks @param {boolean} fua */
  #blockCommand(opcode, lba, blocks, fua) {
    const { cdb } = this;
    cdb[0] = opcode;
    cdb[1] = fua ? 0x08 : 0;
    cdb.writeUInt32BE(Math.floor(lba / 2 ** 32), 2);
    cdb.writeUInt32BE(lba % 2 ** 32, 6);
    cdb.writeUInt32BE(blocks, 10);
    cdb[14] = 0;
    cdb[15] = 0;
  }
}

/**
 * @typedef {object} ConnectOptions
 * @property {string} host
 * @property {number} port
 * @property {string} target
 * @property {number} [lun]
 * @property {string} [initiatorName]
 * @property {string} [isid] 12 hexadecimal digits; random unless given
 */

export class FastInitiator {
  /** Why the connection is gone; null while it is there. @type {Error | null} */
  failure = null;
  /** Set by `connect`. */
  blockSize = 512;
  /** Set by `connect`. */
  blockCount = 0;
  /** What the target answered at login. @type {Map<string, string>} */
  keys = new Map();

  /** @type {import('node:net').Socket} */
  #socket;
  #lun;
  #cmdSn = 1;
  #maxCmdSn = 1;
  #expStatSn = 0;
  /** @type {(Command | null)[]} */
  #byTag = [];
  /** @type {number[]} */
  #freeTags = [];
  /** Commands for which the command window has no room yet. @type {Command[]} */
  #waiting = [];
  #firstBurst = 65536;
  #maxSegment = 8192;
  #immediateData = true;
  /** Output of this turn. @type {Buffer[]} */
  #out = [];
  #inChunk = false;
  #flushScheduled = false;

  // The parser: first 48 bytes of header, then the data segment with its padding.
  #header = Buffer.alloc(BHS_SIZE);
  #headerLength = 0;
  #dataLeft = 0;
  #paddingLeft = 0;
  #dataAt = 0;
  /** Where the data segment goes; null throws it away. @type {Buffer | null} */
  #dataTarget = null;

  /** @type {((header: Buffer, data: Buffer) => void) | null} */
  #onLogin = null;
  /** @type {(() => void) | null} */
  #onLogout = null;
  /** @type {(error: Error) => void} */
  #onFailure = () => {};

  /** @param {import('node:net').Socket} socket @param {number} lun */
  constructor(socket, lun) {
    this.#socket = socket;
    this.#lun = lun;
  }

  /**
   * Connects, logs in, waits until the unit is ready and reads its capacity.
   * @param {ConnectOptions} options
   * @returns {Promise<FastInitiator>}
   */
  static async connect(options) {
    /** @type {(length: number) => void} */
    let receive = () => {};
    const buffer = Buffer.allocUnsafe(RECEIVE_SIZE);
    const socket = connect({
      host: options.host,
      port: options.port,
      noDelay: true,
      onread: {
        buffer,
        callback: (length) => {
          receive(length);
          return true;
        },
      },
    });
    const self = new FastInitiator(socket, options.lun ?? 0);
    receive = (length) => self.#receive(buffer, length);
    socket.on('error', (error) => self.#fail(error));
    socket.on('close', () => self.#fail(new Error('the target closed the connection')));
    try {
      await new Promise((resolve, reject) => {
        self.#onFailure = reject;
        socket.once('connect', resolve);
      });
      const isid = options.isid ? Buffer.from(options.isid, 'hex') : Buffer.from([0x80, ...randomBytes(5)]);
      await self.#login(options.initiatorName ?? 'iqn.2026-11.test:fast', options.target, isid);
      await self.#makeReady();
    } catch (error) {
      socket.destroy();
      throw error;
    }
    return self;
  }

  /** Queues a command; it leaves at the end of this turn, or as soon as the target's command window has room. @param {Command} command */
  submit(command) {
    command.status = -1;
    command.received = 0;
    command.sense = null;
    if (this.failure) {
      queueMicrotask(() => command.done(command));
      return;
    }
    if (this.#waiting.length > 0 || !this.#windowOpen()) this.#waiting.push(command);
    else this.#send(command);
    if (!this.#inChunk && !this.#flushScheduled) {
      this.#flushScheduled = true;
      setImmediate(() => this.#flush());
    }
  }

  /**
   * Runs one command; throws when the connection breaks. Any status is a result.
   * @param {(command: Command) => void} prepare
   * @returns {Promise<Command>}
   */
  async run(prepare) {
    /** @type {Command} */
    const command = await new Promise((resolve) => {
      const fresh = new Command(resolve);
      prepare(fresh);
      this.submit(fresh);
    });
    if (this.failure) throw this.failure;
    return command;
  }

  /** As `run`, but anything else than GOOD throws. @param {(command: Command) => void} prepare @returns {Promise<Command>} */
  async runGood(prepare) {
    const command = await this.run(prepare);
    if (command.status === 0) return command;
    const sense = command.sense ? `, sense ${command.sense.toString('hex')}` : '';
    throw new Error(`CDB ${command.cdb.toString('hex')}: status ${command.status}${sense}`);
  }

  /** Logs out and closes. */
  async close() {
    if (!this.failure) {
      const header = Buffer.alloc(BHS_SIZE);
      header[0] = 0x40 | LOGOUT_REQUEST;
      header[1] = 0x80;
      header.writeUInt32BE(NO_TAG - 1, 16);
      header.writeUInt32BE(this.#cmdSn, 24);
      header.writeUInt32BE(this.#expStatSn, 28);
      await new Promise((resolve) => {
        this.#onLogout = () => resolve(null);
        this.#onFailure = resolve;
        this.#socket.write(header);
      });
    }
    this.destroy();
  }

  /** Drops the connection as a crash would. */
  destroy() {
    this.failure ??= new Error('closed');
    this.#socket.destroy();
  }

  /** Stops and goes on reading from the socket. @param {boolean} paused */
  setPaused(paused) {
    if (paused) this.#socket.pause();
    else this.#socket.resume();
  }

  #windowOpen() {
    // Serial number arithmetic (RFC 1982) on 32 bits.
    return ((this.#maxCmdSn - this.#cmdSn) | 0) >= 0;
  }

  /** @param {Command} command */
  #send(command) {
    const tag = this.#freeTags.pop() ?? this.#byTag.push(null) - 1;
    this.#byTag[tag] = command;
    const outLength = command.dataOut === null ? 0 : command.dataOut.length;
    const immediate = this.#immediateData ? Math.min(outLength, this.#firstBurst, this.#maxSegment) : 0;
    // One piece of memory for header and data: fewer, larger pieces for the kernel.
    const padded = (immediate + 3) & ~3;
    const copyData = padded <= 16384;
    const pdu = Buffer.allocUnsafe(copyData ? BHS_SIZE + padded : BHS_SIZE);
    pdu[0] = SCSI_COMMAND;
    pdu[1] = 0x81 | (command.dataInLength > 0 ? 0x40 : 0) | (outLength > 0 ? 0x20 : 0); // Final, simple; immediate data only.
    pdu.writeUInt16BE(0, 2);
    pdu.writeUInt32BE(immediate, 4); // No additional header: the top byte stays 0.
    pdu.writeUInt32BE((command.lun < 0 ? this.#lun : command.lun) * 65536, 8);
    pdu.writeUInt32BE(0, 12);
    pdu.writeUInt32BE(tag, 16);
    pdu.writeUInt32BE(outLength || command.dataInLength, 20);
    pdu.writeUInt32BE(this.#cmdSn, 24);
    pdu.writeUInt32BE(this.#expStatSn, 28);
    command.cdb.copy(pdu, 32);
    this.#cmdSn = (this.#cmdSn + 1) >>> 0;
    if (immediate > 0 && command.dataOut !== null) {
      if (copyData) {
        command.dataOut.copy(pdu, BHS_SIZE, 0, immediate);
        pdu.fill(0, BHS_SIZE + immediate);
        this.#out.push(pdu);
      } else this.#out.push(pdu, command.dataOut.subarray(0, immediate), Buffer.alloc(padded - immediate));
    } else this.#out.push(pdu);
  }

  #flush() {
    this.#flushScheduled = false;
    const pieces = this.#out;
    if (pieces.length === 0 || this.failure) return;
    this.#out = [];
    if (pieces.length === 1) {
      this.#socket.write(/** @type {Buffer} */ (pieces[0]));
      return;
    }
    this.#socket.cork();
    for (const piece of pieces) if (piece.length > 0) this.#socket.write(piece);
    this.#socket.uncork();
  }

  /** @param {Buffer} chunk @param {number} length */
  #receive(chunk, length) {
    this.#inChunk = true;
    let at = 0;
    while (at < length && !this.failure) {
      if (this.#headerLength < BHS_SIZE) {
        const take = Math.min(BHS_SIZE - this.#headerLength, length - at);
        chunk.copy(this.#header, this.#headerLength, at, at + take);
        this.#headerLength += take;
        at += take;
        if (this.#headerLength === BHS_SIZE) this.#beginPdu();
      } else if (this.#dataLeft > 0) {
        const take = Math.min(this.#dataLeft, length - at);
        if (this.#dataTarget) chunk.copy(this.#dataTarget, this.#dataAt, at, at + take);
        this.#dataAt += take;
        this.#dataLeft -= take;
        at += take;
      } else {
        const take = Math.min(this.#paddingLeft, length - at);
        this.#paddingLeft -= take;
        at += take;
      }
      if (this.#headerLength === BHS_SIZE && this.#dataLeft === 0 && this.#paddingLeft === 0) {
        this.#headerLength = 0;
        this.#endPdu();
      }
    }
    this.#inChunk = false;
    this.#flush();
  }

  #beginPdu() {
    const header = this.#header;
    const length = header.readUInt32BE(4) & 0xffffff;
    const opcode = header[0] & 0x3f;
    this.#dataLeft = length;
    this.#paddingLeft = -length & 3;
    this.#dataAt = 0;
    this.#dataTarget = null;
    if (header[4] !== 0) this.#fail(new Error('an additional header segment, which nothing here asks for'));
    if (opcode === DATA_IN) {
      const command = this.#byTag[header.readUInt32BE(16)];
      const offset = header.readUInt32BE(40);
      if (!command) this.#fail(new Error('Data-In for a command that is not outstanding'));
      else if (offset + length > command.dataInLength) this.#fail(new Error('Data-In past what was asked for'));
      else {
        this.#dataTarget = command.dataIn;
        this.#dataAt = offset;
        command.received += length;
      }
    } else if (length > 0) this.#dataTarget = Buffer.alloc(length);
  }

  #endPdu() {
    const header = this.#header;
    const opcode = header[0] & 0x3f;
    if (opcode !== R2T && (opcode !== DATA_IN || (header[1] & 1) !== 0)) {
      // R2T carries the next StatSN without using it, Data-In without status none at all.
      const statSn = header.readUInt32BE(24);
      if (opcode !== NOP_IN || header.readUInt32BE(16) !== NO_TAG) this.#expStatSn = (statSn + 1) >>> 0;
    }
    const maxCmdSn = header.readUInt32BE(32);
    if (((maxCmdSn - this.#maxCmdSn) | 0) > 0) this.#maxCmdSn = maxCmdSn;
    switch (opcode) {
      case DATA_IN:
        if ((header[1] & 1) !== 0) this.#complete(header[3]);
        break;
      case SCSI_RESPONSE: {
        const command = this.#byTag[header.readUInt32BE(16)];
        if (command && this.#dataTarget) {
          command.sense = this.#dataTarget.subarray(2, 2 + this.#dataTarget.readUInt16BE(0));
        }
        // A response code other than 0 is a failure of the target, not a status.
        this.#complete(header[2] === 0 ? header[3] : 0x100 + header[2]);
        break;
      }
      case R2T:
        this.#answerR2t();
        break;
      case NOP_IN:
        if (header.readUInt32BE(20) !== NO_TAG) this.#answerPing();
        break;
      case LOGIN_RESPONSE:
        this.#onLogin?.(header, this.#dataTarget ?? Buffer.alloc(0));
        break;
      case LOGOUT_RESPONSE:
        this.#onLogout?.();
        break;
      case ASYNC:
        // The target may say at any moment that its LUNs have changed.
        if (header[36] === SCSI_EVENT) break;
        this.#fail(new Error(`asynchronous message, event ${header[36]}`));
        break;
      case REJECT:
        this.#fail(new Error(`the target rejected a PDU, reason ${header[2]}`));
        break;
      default:
        this.#fail(new Error(`a PDU with opcode 0x${opcode.toString(16)}`));
    }
    while (this.#waiting.length > 0 && this.#windowOpen()) this.#send(/** @type {Command} */ (this.#waiting.shift()));
  }

  /** @param {number} status */
  #complete(status) {
    const tag = this.#header.readUInt32BE(16);
    const command = this.#byTag[tag];
    if (!command) {
      this.#fail(new Error('status for a command that is not outstanding'));
      return;
    }
    this.#byTag[tag] = null;
    this.#freeTags.push(tag);
    command.status = status;
    command.done(command);
  }

  #answerR2t() {
    const header = this.#header;
    const tag = header.readUInt32BE(16);
    const command = this.#byTag[tag];
    const offset = header.readUInt32BE(40);
    const length = header.readUInt32BE(44);
    if (!command?.dataOut || offset + length > command.dataOut.length) {
      this.#fail(new Error('an R2T for data that is not there'));
      return;
    }
    for (let at = 0, dataSn = 0; at < length; dataSn++) {
      const take = Math.min(this.#maxSegment, length - at);
      const pdu = Buffer.alloc(BHS_SIZE);
      pdu[0] = DATA_OUT;
      pdu[1] = at + take === length ? 0x80 : 0;
      pdu.writeUInt32BE(take, 4);
      header.copy(pdu, 8, 8, 16);
      pdu.writeUInt32BE(tag, 16);
      header.copy(pdu, 20, 20, 24);
      pdu.writeUInt32BE(this.#expStatSn, 28);
      pdu.writeUInt32BE(dataSn, 36);
      pdu.writeUInt32BE(offset + at, 40);
      this.#out.push(pdu, command.dataOut.subarray(offset + at, offset + at + take));
      if ((take & 3) !== 0) this.#out.push(Buffer.alloc(-take & 3));
      at += take;
    }
  }

  #answerPing() {
    const pdu = Buffer.alloc(BHS_SIZE);
    pdu[0] = 0x40; // NOP-Out, immediate
    pdu[1] = 0x80;
    this.#header.copy(pdu, 8, 8, 16);
    pdu.writeUInt32BE(NO_TAG, 16);
    this.#header.copy(pdu, 20, 20, 24);
    pdu.writeUInt32BE(this.#cmdSn, 24);
    pdu.writeUInt32BE(this.#expStatSn, 28);
    this.#out.push(pdu);
  }

  /** @param {string} initiatorName @param {string} target @param {Buffer} isid */
  async #login(initiatorName, target, isid) {
    const offer = {
      InitiatorName: initiatorName,
      TargetName: target,
      SessionType: 'Normal',
      HeaderDigest: 'None',
      DataDigest: 'None',
      InitialR2T: 'Yes',
      ImmediateData: 'Yes',
      MaxRecvDataSegmentLength: String(MAX_RECEIVE_SEGMENT),
      FirstBurstLength: '262144',
      MaxBurstLength: '1048576',
      MaxOutstandingR2T: '1',
      MaxConnections: '1',
      DefaultTime2Wait: '2',
      DefaultTime2Retain: '0',
      DataPDUInOrder: 'Yes',
      DataSequenceInOrder: 'Yes',
      ErrorRecoveryLevel: '0',
    };
    let text = Buffer.from(
      Object.entries(offer)
        .map(([key, value]) => `${key}=${value}\0`)
        .join(''),
    );
    let isLast = false;
    while (!isLast) {
      const pdu = Buffer.alloc(BHS_SIZE + ((text.length + 3) & ~3));
      pdu[0] = 0x40 | LOGIN_REQUEST;
      pdu[1] = 0x87; // Transit, from operational negotiation to the full feature phase.
      pdu.writeUInt32BE(text.length, 4);
      isid.copy(pdu, 8);
      pdu.writeUInt32BE(NO_TAG - 2, 16);
      pdu.writeUInt32BE(this.#cmdSn, 24);
      pdu.writeUInt32BE(this.#expStatSn, 28);
      text.copy(pdu, BHS_SIZE);
      isLast = await new Promise((resolve, reject) => {
        this.#onFailure = reject;
        this.#onLogin = (header, data) => {
          const status = header.readUInt16BE(36);
          if (status !== 0) reject(new Error(`login refused: status 0x${status.toString(16).padStart(4, '0')}`));
          for (const pair of data.toString().split('\0')) {
            const [key, value] = pair.split('=');
            if (key && value !== undefined) this.keys.set(key, value);
          }
          resolve((header[1] & 0x80) !== 0);
        };
        this.#socket.write(pdu);
      });
      text = Buffer.alloc(0);
    }
    this.#onFailure = () => {};
    this.#firstBurst = Math.min(262_144, Number(this.keys.get('FirstBurstLength') ?? 65536));
    this.#maxSegment = Number(this.keys.get('MaxRecvDataSegmentLength') ?? 8192);
    this.#immediateData = this.keys.get('ImmediateData') !== 'No';
  }

  async #makeReady() {
    for (let attempt = 0; ; attempt++) {
      const { status } = await this.run((command) => command.cdb.fill(0)); // TEST UNIT READY
      if (status === 0) break;
      if (attempt === 10) throw new Error(`the unit does not become ready: status ${status}`);
    }
    const answer = Buffer.alloc(32);
    await this.runGood((command) => {
      command.cdb[0] = 0x9e; // READ CAPACITY(16)
      command.cdb[1] = 0x10;
      command.cdb[13] = answer.length;
      command.dataIn = answer;
      command.dataInLength = answer.length;
    });
    this.blockCount = Number(answer.readBigUInt64BE(0)) + 1;
    this.blockSize = answer.readUInt32BE(8);
  }

  /** @param {Error} error */
  #fail(error) {
    if (this.failure) return;
    this.failure = error;
    this.#socket.destroy();
    this.#onFailure(error);
    const lost = [...this.#byTag.filter((command) => command !== null), ...this.#waiting];
    this.#byTag = [];
    this.#waiting = [];
    for (const command of lost) command.done(command);
  }
}

/** Session identifiers only have to differ. @param {number} count */
function randomBytes(count) {
  return Array.from({ length: count }, () => Math.floor(Math.random() * 256));
}
