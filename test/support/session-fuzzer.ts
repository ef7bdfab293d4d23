import { connect, type Socket } from 'node:net';
import { readU24BE, readU32BE, writeU32BE } from '../../src/base/bytes.ts';
import { buildPdu, read10, textData, textPairs, USUAL_KEYS, write10 } from './iscsi-initiator.ts';
import type { SeededRandom } from './seeded-random.ts';

export const BLOCK = 512;
/** Blocks that are written as they should be, and whose content is known; behind them others that damaged commands may write. */
export const TRACKED_BLOCKS = 256;
export const SCRATCH_BLOCKS = 256;

const NO_TAG = 0xffffffff;
const EMPTY = new Uint8Array(0);
/** No answer for this long is a hang. */
const PATIENCE_MS = 20_000;

/** What each tracked block may hold: a version, or several when a write to it has not been answered. */
export class ContentModel {
  readonly #versions: Set<number>[] = Array.from({ length: TRACKED_BLOCKS }, () => new Set([0]));

  begin(lba: number, blocks: number, version: number): void {
    for (let i = lba; i < lba + blocks; i++) this.#versions[i]!.add(version);
  }

  acknowledged(lba: number, blocks: number, version: number): void {
    for (let i = lba; i < lba + blocks; i++) this.#versions[i] = new Set([version]);
  }

  /** Throws when the data of a read is not what was written last. */
  check(lba: number, data: Uint8Array): void {
    for (let i = 0; i * BLOCK < data.length; i++) {
      const versions = this.#versions[lba + i]!;
      const found = [...versions].find((version) =>
        blockOf(lba + i, version).equals(data.subarray(i * BLOCK, (i + 1) * BLOCK)),
      );
      if (found === undefined) {
        const beginning = Buffer.from(data.subarray(i * BLOCK, i * BLOCK + 8)).toString('hex');
        throw new Error(`block ${lba + i} holds ${beginning}..., none of the versions ${[...versions].join()}`);
      }
      // What has been read once stays.
      this.#versions[lba + i] = new Set([found]);
    }
  }
}

/** The content of a block: zeroes before the first write. No byte of the others can be taken for an opcode of an initiator. */
function blockOf(lba: number, version: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  if (version === 0) return block;
  for (let i = 0; i < BLOCK; i++) block[i] = 0xf0 | ((i % 4 < 2 ? version >>> (4 * (i % 2)) : lba + i) & 15);
  return block;
}

/** A task that is not finished. */
interface Operation {
  readonly kind: 'read' | 'write' | 'ping' | 'text' | 'management';
  readonly lba: number;
  readonly blocks: number;
  readonly version: number;
  /** Of a write, what has not been sent; of a ping, what has to come back. */
  readonly data: Uint8Array;
  readonly received: Uint8Array[];
  /** Aborted, perhaps: it may end without an answer. */
  doubtful: boolean;
}

/** One connection of a session that is fuzzed. */
class Lane {
  readonly socket: Socket;
  readonly tasks: Map<number, Operation> = new Map();
  readonly pieces: Uint8Array[] = [];
  closed = false;
  #buffered: Buffer = Buffer.alloc(0);

  constructor(port: number, onPdu: (lane: Lane, header: Buffer, data: Buffer) => void, onChange: () => void) {
    this.socket = connect({ port, host: '127.0.0.1' });
    this.socket.setNoDelay(true);
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      this.closed = true;
      onChange();
    });
    this.socket.on('data', (chunk) => {
      this.#buffered = this.#buffered.length === 0 ? chunk : Buffer.concat([this.#buffered, chunk]);
      let at = 0;
      for (; this.#buffered.length - at >= 48; ) {
        const length = readU24BE(this.#buffered, at + 5);
        const end = at + 48 + Math.ceil(length / 4) * 4;
        if (this.#buffered.length < end) break;
        onPdu(this, this.#buffered.subarray(at, at + 48), this.#buffered.subarray(at + 48, at + 48 + length));
        at = end;
      }
      this.#buffered = this.#buffered.subarray(at);
      onChange();
    });
  }
}

export interface FuzzedTarget {
  readonly port: number;
  readonly target: string;
  readonly initiator: string;
  readonly model: ContentModel;
}

/**
 * A session of one to three connections that does what an initiator may do, checks every answer against a model, and at last does something wrong. Throws `Error` for any answer that is
 * not right.
 */
export class SessionFuzzer {
  /** PDUs that were sent. */
  inputs = 0;
  /** What was damaged may have written anywhere: nothing is known of the content any more. */
  wild = false;
  readonly #random: SeededRandom;
  readonly #target: FuzzedTarget;
  readonly #lanes: Lane[] = [];
  #burstLength: number;
  #firstBurstLength = 65536;
  #cmdSn = 100;
  #tag = 0;
  #version = 0;
  #dirty = false;
  /** Nothing is sent any more: what was last is not whole. */
  #silent = false;
  #failure: Error | null = null;
  #wake: (() => void) | null = null;
  #loggedIn = 0;
  #pings = 0;
  #tsih = 0;

  constructor(random: SeededRandom, target: FuzzedTarget) {
    this.#random = random;
    this.#target = target;
    this.#burstLength = random.pick([512, 1024, 8192, 262144]);
  }

  /** Logs in with `count` connections; false when the portal has no place for it now. */
  async logIn(count: number): Promise<boolean> {
    const { initiator, target } = this.#target;
    for (let cid = 1; cid <= count; cid++) {
      const lane = new Lane(
        this.#target.port,
        (from, header, data) => this.#receive(from, header, data),
        () => this.#wake?.(),
      );
      this.#lanes.push(lane);
      const keys = {
        ...USUAL_KEYS,
        MaxConnections: '3',
        MaxOutstandingR2T: '4',
        MaxBurstLength: String(this.#burstLength),
      };
      const pdu = buildPdu({
        opcode: 3,
        immediate: true,
        flags: 0x87,
        tag: 1,
        bytes: { 8: 0x80, 13: 1, 14: this.#tsih >>> 8, 15: this.#tsih & 255, 21: cid },
        fields: { 24: this.#cmdSn },
        data: textData({ InitiatorName: initiator, TargetName: target, ...(cid === 1 ? keys : {}) }),
      });
      this.inputs++;
      lane.socket.write(pdu);
      await this.#until(() => this.#loggedIn === cid || lane.closed, 'the login');
      if (lane.closed) return false;
    }
    // The unit attention of the new nexus; a session that is reinstated has no other.
    const [first] = this.#lanes;
    for (let i = 0; i < 4; i++) {
      this.#add(first!, 'ping', 0, 0, EMPTY, { opcode: 1, cdb: [0] }, true);
      this.#flush();
      await this.#settled('TEST UNIT READY');
    }
    return true;
  }

  /** A burst of what may be sent, all of which is answered. */
  async clean(): Promise<void> {
    const used = new Set<number>();
    for (let count = 1 + this.#random.below(12); count > 0; count--) this.#operation(used);
    this.#flush();
    await this.#settled('a burst');
  }

  /** Reads every tracked block. */
  async verify(): Promise<void> {
    for (let lba = 0; lba < TRACKED_BLOCKS; lba += 64) this.#read(this.#lanes[0]!, lba, 64);
    this.#flush();
    await this.#settled('the blocks that are tracked');
  }

  /** A burst that is cut off at any byte while other things are in flight. */
  async cut(): Promise<void> {
    const used = new Set<number>();
    for (let count = 1 + this.#random.below(12); count > 0; count--) this.#operation(used);
    this.#dirty = true;
    this.#silent = true;
    for (const lane of this.#lanes) {
      const stream = Buffer.concat(lane.pieces.splice(0));
      lane.socket.write(stream.subarray(0, this.#random.below(stream.length + 1)));
    }
    for (let turns = this.#random.below(4); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve));
    await this.end();
  }

  /** A burst of damaged PDUs among good ones; everything that is still open must then answer a ping. */
  async damaged(): Promise<void> {
    this.#dirty = true;
    for (let count = 1 + this.#random.below(12); count > 0; count--) {
      const lane = this.#random.pick(this.#lanes);
      const at = lane.pieces.length;
      this.#scratchOperation(lane);
      if (lane.pieces.length > at && this.#random.oneIn(2)) this.#damage(lane, at);
    }
    this.#flush();
    const before = this.#pings;
    for (const lane of this.#lanes) {
      if (!lane.closed)
        lane.socket.write(
          buildPdu({ opcode: 0, immediate: true, tag: 0x7fffff00, fields: { 20: NO_TAG, 24: this.#cmdSn } }),
        );
    }
    // A damaged length makes the portal wait for the rest; then only the end of the connection ends that.
    const open = this.#lanes.filter(({ closed }) => !closed).length;
    const wait = this.wild ? 20 : PATIENCE_MS;
    await this.#until(
      () => this.#pings - before >= open || this.#lanes.some(({ closed }) => closed),
      'answers to pings',
      wait,
      this.wild,
    );
  }

  async end(): Promise<void> {
    for (const { socket } of this.#lanes) {
      if (this.#random.oneIn(2)) socket.destroy();
      else socket.end();
    }
    for (const lane of this.#lanes) await this.#until(() => lane.closed, 'the end of a connection');
    if (this.#failure !== null) throw this.#failure;
  }

  // --- what is sent ---

  #operation(used: Set<number>): void {
    const lane = this.#random.pick(this.#lanes);
    const kind = this.#random.below(10);
    if (kind < 7) {
      const blocks = 1 + this.#random.below(40);
      const lba = this.#random.below(TRACKED_BLOCKS - blocks);
      // Simple tasks have no order among each other: no two of a burst meet.
      for (let i = lba; i < lba + blocks; i++) if (used.has(i)) return;
      for (let i = lba; i < lba + blocks; i++) used.add(i);
      if (kind < 4) this.#write(lane, lba, blocks);
      else this.#read(lane, lba, blocks);
    } else if (kind === 7) {
      const data = new Uint8Array(this.#random.below(5000)).fill(0xf5);
      this.#add(lane, 'ping', 0, 0, data, { opcode: 0, fields: { 20: NO_TAG }, data }, !this.#random.oneIn(2));
    } else if (kind === 8) {
      this.#add(
        lane,
        'text',
        0,
        0,
        EMPTY,
        { opcode: 4, fields: { 20: NO_TAG }, data: textData({ SendTargets: '' }) },
        true,
      );
    } else
      this.#add(lane, 'management', 0, 0, EMPTY, { opcode: 2, flags: 0x81, fields: { 20: 0x7ffffff0, 32: 0 } }, true);
  }

  /** The same in blocks that nobody looks at. */
  #scratchOperation(lane: Lane): void {
    const blocks = 1 + this.#random.below(40);
    const lba = TRACKED_BLOCKS + this.#random.below(SCRATCH_BLOCKS - blocks);
    const kind = this.#random.below(10);
    if (kind < 5) this.#write(lane, lba, blocks);
    else if (kind < 7) this.#read(lane, lba, blocks);
    else if (kind === 7) {
      const code = this.#random.pick([1, 2, 4, 5, 6, 8]);
      this.#add(
        lane,
        'management',
        0,
        0,
        EMPTY,
        { opcode: 2, flags: 0x80 | code, fields: { 20: this.#tag, 32: this.#cmdSn } },
        true,
      );
    } else this.#operation(new Set(Array.from({ length: TRACKED_BLOCKS }, (_, i) => i)));
  }

  #read(lane: Lane, lba: number, blocks: number): void {
    const fields = { 20: blocks * BLOCK };
    this.#add(lane, 'read', lba, blocks, EMPTY, { opcode: 1, flags: 0xc0, cdb: read10(lba, blocks), fields }, false);
  }

  /** Some of the data comes with the command, some behind it, the rest when it is asked for. */
  #write(lane: Lane, lba: number, blocks: number): void {
    const random = this.#random;
    this.#version = (this.#version % 255) + 1;
    const version = this.#version;
    const data = Buffer.concat(Array.from({ length: blocks }, (_, i) => blockOf(lba + i, version)));
    const first = Math.min(this.#firstBurstLength, this.#burstLength, data.length);
    const immediate = random.pick([0, first, random.below(first + 1)]);
    const announced = random.pick([immediate, immediate, first, immediate + random.below(first - immediate + 1)]);
    const more = announced > immediate || random.oneIn(10);
    if (lba < TRACKED_BLOCKS) this.#target.model.begin(lba, blocks, version);
    const parts = { opcode: 1, flags: more ? 0x20 : 0xa0, cdb: write10(lba, blocks), fields: { 20: data.length } };
    const tag = this.#add(
      lane,
      'write',
      lba,
      blocks,
      data,
      { ...parts, data: data.subarray(0, immediate) },
      false,
      version,
    );
    if (more) this.#dataOut(lane, tag, NO_TAG, data, immediate, announced);
  }

  #dataOut(lane: Lane, tag: number, transferTag: number, data: Uint8Array, from: number, to: number): void {
    let at = from;
    for (let sn = 0; at < to || sn === 0; sn++) {
      const take = this.#random.oneIn(3) ? this.#random.below(to - at + 1) : to - at;
      const fields = { 20: transferTag, 36: sn, 40: at };
      lane.pieces.push(
        buildPdu({ opcode: 5, flags: at + take === to ? 0x80 : 0, tag, fields, data: data.subarray(at, at + take) }),
      );
      this.inputs++;
      at += take;
    }
  }

  #add(
    lane: Lane,
    kind: Operation['kind'],
    lba: number,
    blocks: number,
    data: Uint8Array,
    parts: Parameters<typeof buildPdu>[0],
    immediate: boolean,
    version: number = 0,
  ): number {
    const tag = ++this.#tag;
    const cmdSn = this.#cmdSn;
    if (!immediate) this.#cmdSn = (this.#cmdSn + 1) >>> 0;
    lane.tasks.set(tag, { kind, lba, blocks, version, data, received: [], doubtful: this.#dirty });
    lane.pieces.push(buildPdu({ ...parts, tag, immediate, fields: { ...parts.fields, 24: cmdSn } }));
    this.inputs++;
    return tag;
  }

  #damage(lane: Lane, at: number): void {
    const random = this.#random;
    const pdu = Buffer.from(lane.pieces[at]!);
    lane.pieces[at] = pdu;
    switch (random.below(8)) {
      case 0:
        lane.pieces.splice(at, 1);
        break;
      case 1:
        lane.pieces.push(pdu);
        break;
      case 2:
        lane.pieces.reverse();
        break;
      case 3: {
        // A length that is not the right one: what follows is taken for something else.
        this.wild = true;
        pdu[4 + random.below(4)] = random.below(256);
        break;
      }
      case 4: {
        // Of a command these would be parts of its CDB, which could then write tracked blocks.
        const place = random.pick(pdu[0] === 5 ? [16, 20, 28, 36, 40] : [16, 20, 24, 28]);
        writeU32BE(
          pdu,
          place,
          random.pick([
            0,
            1,
            0x7fffffff,
            0x80000000,
            NO_TAG,
            readU32BE(pdu, place) + random.pick([-1, 1]),
            random.below(2 ** 32),
          ]) >>> 0,
        );
        break;
      }
      case 5:
        // Bits of the opcode: all that this can make of a PDU has no CDB, or one that is right.
        pdu[0] = pdu[0]! ^ (1 << random.below(7));
        break;
      default:
        pdu[random.pick([1, 2, 3, 8, 9, 10, 15])] = random.below(256);
    }
  }

  #flush(): void {
    for (const lane of this.#lanes) {
      if (lane.pieces.length > 0 && !lane.closed) lane.socket.write(Buffer.concat(lane.pieces));
      lane.pieces.length = 0;
    }
  }

  // --- what comes back ---

  #receive(lane: Lane, header: Buffer, data: Buffer): void {
    try {
      this.#answer(lane, header, data);
    } catch (error) {
      this.#failure ??= error as Error;
    }
  }

  #answer(lane: Lane, header: Buffer, data: Buffer): void {
    const opcode = header[0]!;
    const flags = header[1]!;
    const tag = readU32BE(header, 16);
    const window = (readU32BE(header, 32) - readU32BE(header, 28) + 1) >>> 0;
    if (header[4] !== 0 || window > 128) throw new Error(`an answer with opcode ${opcode} and a window of ${window}`);
    const operation = lane.tasks.get(tag);
    switch (opcode) {
      case 0x23:
        if (header[36] !== 0) throw new Error(`login status ${header[36]}, ${header[37]}`);
        this.#tsih = header.readUInt16BE(14);
        this.#agree(textPairs(data));
        this.#loggedIn++;
        return;
      case 0x20:
        if (tag === 0x7fffff00) this.#pings++;
        else if (tag !== NO_TAG && operation !== undefined && !this.#dirty) {
          if (!data.equals(operation.data)) throw new Error('a ping came back with other data');
          lane.tasks.delete(tag);
        }
        return;
      case 0x25:
        operation?.received.push(Buffer.from(data));
        if ((flags & 1) === 0) return;
        break;
      case 0x31:
        if (operation !== undefined) this.#answerR2t(lane, tag, header, operation);
        return;
      case 0x3f:
        if (!this.#dirty) throw new Error(`a reject for reason ${header[2]}`);
        return;
      case 0x21:
      case 0x22:
      case 0x24:
        break;
      case 0x26:
      case 0x32:
        return;
      default:
        throw new Error(`an answer with opcode ${opcode}`);
    }
    if (operation === undefined) {
      if (this.#dirty) return;
      throw new Error(`an answer with opcode ${opcode} for task ${tag}, which is none`);
    }
    lane.tasks.delete(tag);
    this.#finished(operation, opcode, header);
  }

  #finished(operation: Operation, opcode: number, header: Buffer): void {
    const { kind, lba, blocks, version } = operation;
    const good = (opcode === 0x21 || opcode === 0x25) && header[3] === 0;
    // TEST UNIT READY finds unit attentions; a full task set is told to try again.
    if (lba >= TRACKED_BLOCKS || this.#dirty) return;
    const isFull = opcode === 0x21 && header[3] === 0x28;
    if (kind === 'write' && good) this.#target.model.acknowledged(lba, blocks, version);
    else if (kind === 'read' && good) {
      const data = Buffer.concat(operation.received);
      if (data.length !== blocks * BLOCK) throw new Error(`a read of ${blocks} blocks brought ${data.length} bytes`);
      this.#target.model.check(lba, data);
    } else if ((kind === 'write' || kind === 'read') && !isFull) {
      throw new Error(`a ${kind} of ${blocks} blocks at ${lba} ended with status ${header[3]}`);
    }
  }

  #answerR2t(lane: Lane, tag: number, header: Buffer, { data }: Operation): void {
    if (this.#silent) return;
    const offset = readU32BE(header, 40);
    const length = readU32BE(header, 44);
    if (length === 0 || offset + length > data.length) {
      if (this.#dirty) return;
      throw new Error(`an R2T for ${length} bytes at ${offset} of ${data.length}`);
    }
    if (length > this.#burstLength) throw new Error(`an R2T for ${length} bytes, more than MaxBurstLength`);
    if (this.#dirty && this.#random.oneIn(3)) return;
    this.#dataOut(lane, tag, readU32BE(header, 20), data, offset, offset + length);
    if (this.#dirty && this.#random.oneIn(3)) this.#damage(lane, lane.pieces.length - 1);
    if (!lane.closed) lane.socket.write(Buffer.concat(lane.pieces));
    lane.pieces.length = 0;
  }

  #agree({ FirstBurstLength, MaxBurstLength }: Record<string, string>): void {
    if (FirstBurstLength !== undefined) this.#firstBurstLength = Number(FirstBurstLength);
    if (MaxBurstLength !== undefined) this.#burstLength = Number(MaxBurstLength);
  }

  // --- waiting ---

  async #settled(what: string): Promise<void> {
    await this.#until(
      () => this.#lanes.every(({ tasks }) => tasks.size === 0) || this.#lanes.some(({ closed }) => closed),
      what,
    );
    if (this.#lanes.some(({ closed }) => closed)) throw new Error(`the portal closed a connection in ${what}`);
  }

  /** `lenient`: it need not come. */
  async #until(
    condition: () => boolean,
    what: string,
    timeoutMs: number = PATIENCE_MS,
    lenient: boolean = false,
  ): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (!condition()) {
      if (this.#failure !== null) throw this.#failure;
      const left = deadline - performance.now();
      if (left <= 0 && lenient) return;
      if (left <= 0) throw new Error(`waited in vain for ${what}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = null;
    }
    if (this.#failure !== null) throw this.#failure;
  }
}
