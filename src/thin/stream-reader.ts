import { StorageError } from '../base/errors.ts';
import { parse, type Schema } from '../base/schema.ts';
import {
  encodePreface,
  MAX_DATA_LENGTH,
  MAX_TEXT_LENGTH,
  PREFACE,
  PREFACE_SIZE,
  RECORD_HEADER_SIZE,
  RecordType,
  recordChecksum,
  STREAM_HEADER,
  STREAM_TOTALS,
  STREAM_VERSION,
  type StreamHeader,
} from './stream-format.ts';

/** A record of data, or of what is unmapped (`memory` is null then). */
export interface StreamRecord {
  offset: number;
  length: number;
  /** The caller's, from `acquire`; its first `length` bytes are the data. */
  memory: Uint8Array | null;
}

/**
 * Reads a stream and believes nothing: every record's checksum, order and place is checked before it is handed over, the totals at the
 * end, and that nothing comes after it. Throws EINVAL that says what is wrong and where; whatever `input` throws goes through.
 */
export class StreamReader {
  readonly #input: AsyncIterator<Uint8Array>;
  readonly #acquire: () => Promise<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);
  #chunkAt = 0;
  /** Bytes of the stream that were read. */
  #at = 0;
  #sequence = 0;
  #position = 0;
  #sizeBytes = 0;
  #dataBytes = 0;
  #unmappedBytes = 0;

  /** `acquire` gives memory for `MAX_DATA_LENGTH` bytes. */
  constructor(input: AsyncIterable<Uint8Array>, acquire: () => Promise<Uint8Array>) {
    this.#input = input[Symbol.asyncIterator]();
    this.#acquire = acquire;
  }

  /** Comes first. */
  async header(): Promise<StreamHeader> {
    const preface = new Uint8Array(PREFACE_SIZE);
    const got = await this.#fill(preface, PREFACE_SIZE);
    if (got === 0) throw this.#wrong('it is empty');
    if (Buffer.from(preface).toString('latin1', 0, PREFACE.length) !== PREFACE) {
      throw this.#wrong('it does not begin as a stream of "thinlun send" does');
    }
    if (got < PREFACE_SIZE) throw this.#cut();
    if (Buffer.compare(preface, encodePreface()) !== 0) {
      const version = Buffer.from(preface).readUInt32LE(PREFACE.length);
      throw this.#wrong(`it is of version ${version}, expected ${STREAM_VERSION}`);
    }
    const record = await this.#record();
    if (record.type !== RecordType.begin) throw this.#wrong(`its first record is of type ${record.type}`);
    const header = this.#parse(STREAM_HEADER, record.payload!);
    const { sizeBytes, beginBytes, logicalBlockSize } = header;
    if (beginBytes > sizeBytes || sizeBytes % logicalBlockSize !== 0) {
      throw this.#wrong(`it begins at ${beginBytes} of ${sizeBytes} bytes`);
    }
    this.#position = beginBytes;
    this.#sizeBytes = sizeBytes;
    return header;
  }

  /** The next record; null when the stream has ended as it should. Throws EIO when the sender says that it failed. */
  async next(): Promise<StreamRecord | null> {
    const record = await this.#record();
    const { type, offset, length } = record;
    if (type === RecordType.end) {
      await this.#end(record.payload!);
      return null;
    }
    if (type === RecordType.failed) {
      throw new StorageError('EIO', `The sender has failed: ${Buffer.from(record.payload!).toString()}`);
    }
    if (type === RecordType.begin) throw this.#wrong('it begins a second time');
    if (offset < this.#position || length === 0 || offset + length > this.#sizeBytes) {
      throw this.#wrong(`bytes ${offset} to ${offset + length} come after ${this.#position} of ${this.#sizeBytes}`);
    }
    this.#position = offset + length;
    if (type === RecordType.data) this.#dataBytes += length;
    else this.#unmappedBytes += length;
    return { offset, length, memory: type === RecordType.data ? record.payload : null };
  }

  /** Nothing more is read. */
  async close(): Promise<void> {
    await this.#input.return?.();
  }

  async #record(): Promise<{ type: number; offset: number; length: number; payload: Uint8Array | null }> {
    const header = Buffer.alloc(RECORD_HEADER_SIZE);
    const begin = this.#at;
    if ((await this.#fill(header, RECORD_HEADER_SIZE)) < RECORD_HEADER_SIZE) throw this.#cut();
    const type = header.readUInt32LE(4);
    const sequence = Number(header.readBigUInt64LE(8));
    const offset = Number(header.readBigUInt64LE(16));
    const length = Number(header.readBigUInt64LE(24));
    const most = type === RecordType.data ? MAX_DATA_LENGTH : MAX_TEXT_LENGTH;
    const known = type >= RecordType.begin && type <= RecordType.failed;
    // The checksum says nothing before the payload is read, and how long that is only the header knows.
    if (!known || (type !== RecordType.unmapped && length > most)) {
      throw this.#wrong(`a record of type ${type} and ${length} bytes`, begin);
    }
    let payload: Uint8Array | null = null;
    if (type !== RecordType.unmapped) {
      payload = type === RecordType.data ? await this.#acquire() : new Uint8Array(length);
      if ((await this.#fill(payload, length)) < length) throw this.#cut();
    }
    const checked = payload === null ? null : payload.subarray(0, length);
    const checksum = recordChecksum(header, checked);
    if (header.readUInt32LE(0) !== checksum) {
      throw this.#wrong(`a record has checksum ${header.readUInt32LE(0)}, expected ${checksum}`, begin);
    }
    if (sequence !== this.#sequence)
      throw this.#wrong(`record ${sequence} comes where ${this.#sequence} should`, begin);
    if (!Number.isSafeInteger(offset + length)) throw this.#wrong(`a record at ${offset}`, begin);
    this.#sequence++;
    return { type, offset, length, payload };
  }

  async #end(payload: Uint8Array): Promise<void> {
    const totals = this.#parse(STREAM_TOTALS, payload);
    const records = this.#sequence - 1;
    const same = totals.records === records && totals.dataBytes === this.#dataBytes;
    if (!same || totals.unmappedBytes !== this.#unmappedBytes) {
      throw this.#wrong(
        `its end counts ${totals.records} records, ${totals.dataBytes} bytes of data and ${totals.unmappedBytes} unmapped; ` +
          `there were ${records}, ${this.#dataBytes} and ${this.#unmappedBytes}`,
      );
    }
    if ((await this.#fill(new Uint8Array(1), 1)) > 0) throw this.#wrong('something comes after its end');
  }

  #parse<T>(schema: Schema<T>, payload: Uint8Array): T {
    try {
      return parse(schema, JSON.parse(Buffer.from(payload).toString()));
    } catch {
      throw this.#wrong('a record that cannot be understood');
    }
  }

  /** Reads `length` bytes; returns how many there were. */
  async #fill(memory: Uint8Array, length: number): Promise<number> {
    let done = 0;
    while (done < length) {
      if (this.#chunkAt === this.#chunk.length) {
        const { value, done: ended } = await this.#input.next();
        if (ended) break;
        this.#chunk = value;
        this.#chunkAt = 0;
      }
      const take = Math.min(length - done, this.#chunk.length - this.#chunkAt);
      memory.set(this.#chunk.subarray(this.#chunkAt, this.#chunkAt + take), done);
      this.#chunkAt += take;
      done += take;
    }
    this.#at += done;
    return done;
  }

  #cut(): StorageError {
    return new StorageError('EIO', `The stream was cut off after ${this.#at} bytes`);
  }

  #wrong(reason: string, at: number = this.#at): StorageError {
    return new StorageError('EINVAL', `Cannot read the stream: ${reason} (at byte ${at})`);
  }
}
