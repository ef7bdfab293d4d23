/**
 * A small, fast NBD client, the same kind of load generator as `fast-initiator.mjs`: one connection, fixed newstyle handshake, simple replies, any
 * depth. Everything that one chunk from the socket completes, and everything that is submitted in answer to it, leaves in one write.
 * Source: the NBD protocol description of the NetworkBlockDevice project.
 */
import { connect } from 'node:net';

const RECEIVE_SIZE = 1024 * 1024;
const INIT_MAGIC = Buffer.from('NBDMAGICIHAVEOPT');
const OPTION_MAGIC = Buffer.from('IHAVEOPT');
const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
const FIXED_NEWSTYLE = 1;
const NO_ZEROES = 2;
const OPT_GO = 7;
const REP_ACK = 1;
const REP_INFO = 3;
const INFO_EXPORT = 0;
const REQUEST_MAGIC = 0x25609513;
const SIMPLE_REPLY_MAGIC = 0x67446698;
const REQUEST_SIZE = 28;
const REPLY_SIZE = 16;
const CMD_READ = 0;
const CMD_WRITE = 1;
const CMD_DISC = 2;
const CMD_FLUSH = 3;
const CMD_TRIM = 4;
const FLAG_FUA = 1;
/** Data up to this size is copied behind its request: fewer, larger pieces for the kernel. */
const COPY_MAX = 16384;

/** One request. The caller owns it and may use it again as soon as `done` was called. */
export class NbdCommand {
  type = CMD_READ;
  flags = 0;
  /** Bytes. */
  offset = 0;
  length = 0;
  /** @type {Buffer | null} */
  dataOut = null;
  /** Where data goes; null throws it away. @type {Buffer | null} */
  dataIn = null;
  /** 0, an errno, or -1 when the connection broke. */
  status = -1;
  /** As a SCSI command has it. @type {null} */
  sense = null;
  /** @type {(command: NbdCommand) => void} */
  done;

  /** @param {(command: NbdCommand) => void} done */
  constructor(done) {
    this.done = done;
  }

  /** @param {number} lba @param {number} blocks @param {number} blockSize @param {Buffer | null} [into] */
  read(lba, blocks, blockSize, into = null) {
    this.#set(CMD_READ, 0, lba * FastNbd.BLOCK_SIZE, blocks * blockSize, null, into);
  }

  /** @param {number} lba @param {number} _blocks @param {Buffer} data @param {boolean} [fua] */
  write(lba, _blocks, data, fua = false) {
    this.#set(CMD_WRITE, fua ? FLAG_FUA : 0, lba * FastNbd.BLOCK_SIZE, data.length, data, null);
  }

  /** Everything that was answered is durable afterwards. */
  flush() {
    this.#set(CMD_FLUSH, 0, 0, 0, null, null);
  }

  /** @param {number} lba @param {number} blocks */
  unmap(lba, blocks) {
    this.#set(CMD_TRIM, 0, lba * FastNbd.BLOCK_SIZE, blocks * FastNbd.BLOCK_SIZE, null, null);
  }

  /**
   * @param {number} type @param {number} flags @param {number} offset @param {number} length
   * @param {Buffer | null} dataOut @param {Buffer | null} dataIn
   */
  #set(type, flags, offset, length, dataOut, dataIn) {
    this.type = type;
    this.flags = flags;
    this.offset = offset;
    this.length = length;
    this.dataOut = dataOut;
    this.dataIn = dataIn;
  }
}

export class FastNbd {
  static BLOCK_SIZE = 512;
  blockSize = FastNbd.BLOCK_SIZE;
  /** Set by `connect`. */
  blockCount = 0;
  /** Transmission flags that the server has sent. */
  flags = 0;
  /** @type {Error | null} */
  failure = null;

  /** @type {import('node:net').Socket} */
  #socket;
  /** @type {(NbdCommand | null)[]} */
  #byTag = [];
  /** @type {number[]} */
  #freeTags = [];
  /** @type {Buffer[]} */
  #out = [];
  #inChunk = false;
  #flushScheduled = false;
  #header = Buffer.alloc(REPLY_SIZE);
  #headerLength = 0;
  /** @type {NbdCommand | null} */
  #replied = null;
  #dataLeft = 0;
  #dataAt = 0;
  /** The handshake's input; null once it is over. @type {Buffer | null} */
  #greeting = Buffer.alloc(0);
  /** @type {() => void} */
  #greeted = () => {};
  /** @type {(error: Error) => void} */
  #onFailure = () => {};

  /** @param {import('node:net').Socket} socket */
  constructor(socket) {
    this.#socket = socket;
  }

  /** @param {{ host: string, port: number, name: string }} options @returns {Promise<FastNbd>} */
  static async connect({ host, port, name }) {
    const buffer = Buffer.allocUnsafe(RECEIVE_SIZE);
    /** @type {(length: number) => void} */
    let receive = () => {};
    const socket = connect({
      host,
      port,
      noDelay: true,
      onread: {
        buffer,
        callback: (length) => {
          receive(length);
          return true;
        },
      },
    });
    const self = new FastNbd(socket);
    receive = (length) => {
      if (self.#greeting === null) self.#receive(buffer, length);
      else {
        self.#greeting = Buffer.concat([self.#greeting, buffer.subarray(0, length)]);
        self.#greeted();
      }
    };
    socket.on('error', (error) => self.#fail(error));
    socket.on('close', () => self.#fail(new Error('the server closed the connection')));
    try {
      await new Promise((resolve, reject) => {
        self.#onFailure = reject;
        socket.once('connect', resolve);
      });
      await self.#shakeHands(name);
    } catch (error) {
      socket.destroy();
      throw error;
    }
    return self;
  }

  /** @param {NbdCommand} command */
  submit(command) {
    command.status = -1;
    if (this.failure) {
      queueMicrotask(() => command.done(command));
      return;
    }
    this.#send(command);
    if (!this.#inChunk && !this.#flushScheduled) {
      this.#flushScheduled = true;
      setImmediate(() => this.#flush());
    }
  }

  /** Throws when the connection breaks, or at an error. @param {(command: NbdCommand) => void} prepare @returns {Promise<NbdCommand>} */
  async runGood(prepare) {
    /** @type {NbdCommand} */
    const command = await new Promise((resolve) => {
      const fresh = new NbdCommand(resolve);
      prepare(fresh);
      this.submit(fresh);
    });
    if (this.failure) throw this.failure;
    if (command.status !== 0)
      throw new Error(`request of type ${command.type} at ${command.offset}: errno ${command.status}`);
    return command;
  }

  async close() {
    if (!this.failure) {
      const gone = new Promise((resolve) => {
        this.#socket.once('close', resolve);
      });
      const goodbye = Buffer.alloc(REQUEST_SIZE);
      goodbye.writeUInt32BE(REQUEST_MAGIC);
      goodbye.writeUInt16BE(CMD_DISC, 6);
      this.failure = new Error('closed');
      this.#socket.end(goodbye);
      await gone;
    }
    this.#socket.destroy();
  }

  /** @param {number} length @returns {Promise<Buffer>} */
  async #take(length) {
    while (this.#greeting !== null && this.#greeting.length < length) {
      await new Promise((resolve, reject) => {
        this.#onFailure = reject;
        this.#greeted = () => resolve(null);
      });
    }
    const bytes = this.#greeting ?? Buffer.alloc(0);
    this.#greeting = bytes.subarray(length);
    return bytes.subarray(0, length);
  }

  /** @param {string} name */
  async #shakeHands(name) {
    const hello = await this.#take(18);
    if (!hello.subarray(0, 16).equals(INIT_MAGIC)) throw new Error('not an NBD server of the newstyle');
    if ((hello.readUInt16BE(16) & FIXED_NEWSTYLE) === 0) throw new Error('not a fixed newstyle NBD server');
    const flags = Buffer.alloc(4);
    flags.writeUInt32BE(FIXED_NEWSTYLE | (hello.readUInt16BE(16) & NO_ZEROES));
    const text = Buffer.from(name);
    const go = Buffer.alloc(16 + 4 + text.length + 2);
    OPTION_MAGIC.copy(go);
    go.writeUInt32BE(OPT_GO, 8);
    go.writeUInt32BE(go.length - 16, 12);
    go.writeUInt32BE(text.length, 16);
    text.copy(go, 20);
    this.#socket.write(Buffer.concat([flags, go]));
    for (;;) {
      const head = await this.#take(20);
      if (head.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC) throw new Error('not a reply to an NBD option');
      const [type, length] = [head.readUInt32BE(12), head.readUInt32BE(16)];
      const body = await this.#take(length);
      if (type === REP_ACK) break;
      if (type !== REP_INFO) throw new Error(`the export "${name}" is refused: ${body.toString()}`);
      if (body.readUInt16BE(0) === INFO_EXPORT) {
        this.blockCount = Number(body.readBigUInt64BE(2)) / this.blockSize;
        this.flags = body.readUInt16BE(10);
      }
    }
    this.#greeting = null;
    this.#onFailure = () => {};
  }

  /** @param {NbdCommand} command */
  #send(command) {
    const tag = this.#freeTags.pop() ?? this.#byTag.push(null) - 1;
    this.#byTag[tag] = command;
    const { dataOut } = command;
    const copyData = dataOut !== null && dataOut.length <= COPY_MAX;
    const request = Buffer.allocUnsafe(REQUEST_SIZE + (copyData ? dataOut.length : 0));
    request.writeUInt32BE(REQUEST_MAGIC, 0);
    request.writeUInt16BE(command.flags, 4);
    request.writeUInt16BE(command.type, 6);
    request.writeUInt32BE(0, 8);
    request.writeUInt32BE(tag, 12);
    request.writeUInt32BE(Math.floor(command.offset / 2 ** 32), 16);
    request.writeUInt32BE(command.offset % 2 ** 32, 20);
    request.writeUInt32BE(command.length, 24);
    if (copyData) dataOut.copy(request, REQUEST_SIZE);
    this.#out.push(request);
    if (dataOut !== null && !copyData) this.#out.push(dataOut);
  }

  #flush() {
    this.#flushScheduled = false;
    const pieces = this.#out;
    if (pieces.length === 0 || this.failure) return;
    this.#out = [];
    this.#socket.cork();
    for (const piece of pieces) this.#socket.write(piece);
    this.#socket.uncork();
  }

  /** @param {Buffer} chunk @param {number} length */
  #receive(chunk, length) {
    this.#inChunk = true;
    let at = 0;
    while (at < length && !this.failure) {
      if (this.#headerLength < REPLY_SIZE) {
        const take = Math.min(REPLY_SIZE - this.#headerLength, length - at);
        chunk.copy(this.#header, this.#headerLength, at, at + take);
        this.#headerLength += take;
        at += take;
        if (this.#headerLength === REPLY_SIZE) this.#beginReply();
      } else {
        const take = Math.min(this.#dataLeft, length - at);
        const into = this.#replied?.dataIn;
        if (into) chunk.copy(into, this.#dataAt, at, at + take);
        this.#dataAt += take;
        this.#dataLeft -= take;
        at += take;
      }
      if (this.#headerLength === REPLY_SIZE && this.#dataLeft === 0) this.#endReply();
    }
    this.#inChunk = false;
    this.#flush();
  }

  #beginReply() {
    const tag = this.#header.readUInt32BE(12);
    const command = this.#byTag[tag];
    if (this.#header.readUInt32BE(0) !== SIMPLE_REPLY_MAGIC) this.#fail(new Error('not a simple reply'));
    else if (!command) this.#fail(new Error('a reply to a request that is not outstanding'));
    else {
      command.status = this.#header.readUInt32BE(4);
      this.#byTag[tag] = null;
      this.#freeTags.push(tag);
      this.#replied = command;
      this.#dataAt = 0;
      this.#dataLeft = command.type === CMD_READ && command.status === 0 ? command.length : 0;
    }
  }

  #endReply() {
    this.#headerLength = 0;
    const command = this.#replied;
    this.#replied = null;
    command?.done(command);
  }

  /** @param {Error} error */
  #fail(error) {
    if (this.failure) return;
    this.failure = error;
    this.#socket.destroy();
    this.#onFailure(error);
    const lost = [...this.#byTag.filter((command) => command !== null)];
    this.#byTag = [];
    for (const command of lost) {
      command.status = -1;
      command.done(command);
    }
  }
}
