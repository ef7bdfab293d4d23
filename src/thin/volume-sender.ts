import { messageOf } from '../base/errors.ts';
import { roundUp } from '../base/units.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { LunOp } from '../block/lun-backend.ts';
import { CommittedNodes } from './committed-nodes.ts';
import { deviceIo } from './device-io.ts';
import { DiffStep, MappingDiff } from './mapping-diff.ts';
import {
  encodePreface,
  encodeRecordHeader,
  MAX_DATA_LENGTH,
  RecordType,
  type StreamHeader,
  type StreamTotals,
} from './stream-format.ts';
import type { ThinDevice } from './thin-device.ts';

/** Reads under way, `MAX_DATA_LENGTH` each: what a stream takes of memory. */
const MAX_READS = 8;
/** Zeroes are looked for in pieces of this. */
const PIECE_SIZE = 64 * 1024;
const ZEROES = new Uint8Array(PIECE_SIZE);

/** What is sent: a read-only volume and, for an increment, the one that it differs from. Both stay open until the stream has ended. */
export interface SendSource {
  device: ThinDevice;
  /** Root of the base's mapping tree; `NO_TREE` when everything is sent. */
  baseRoot: number;
  /** The pool's. */
  metadataDevice: BlockDevice;
  /** Bytes of the image that shows where nothing is mapped; 0: none. */
  externalBytes: number;
  /** Size of the base; that of the volume when there is none. */
  baseBytes: number;
}

/** Consecutive bytes that are to be sent, or to be said to be unmapped. */
interface Extent {
  offset: number;
  length: number;
  data: boolean;
}

interface Read {
  extent: Extent;
  memory: Uint8Array;
  done: Promise<void>;
}

/** How many bytes of data an increment has at most. Reads no data. */
export async function countDifference(source: SendSource, beginBytes: number): Promise<number> {
  let bytes = 0;
  for await (const extent of differences(source, beginBytes)) if (extent.data) bytes += extent.length;
  return bytes;
}

/**
 * The stream of a volume, piece by piece; the next is made when it is asked for, and a few reads ahead. Blocks of zeroes are sent as
 * unmapped. When something fails, the stream says so before this throws.
 */
export async function* sendStream(source: SendSource, header: StreamHeader): AsyncGenerator<Uint8Array, void> {
  const writer = new RecordWriter(header.baseContentId === null);
  yield encodePreface();
  yield* writer.text(RecordType.begin, JSON.stringify(header));
  const reads: Read[] = [];
  try {
    for await (const extent of differences(source, header.beginBytes)) {
      reads.push(startRead(source.device, extent));
      if (reads.length >= MAX_READS) yield* writer.extent(reads.shift()!);
    }
    while (reads.length > 0) yield* writer.extent(reads.shift()!);
    yield* writer.text(RecordType.end, JSON.stringify(writer.totals()));
  } catch (error) {
    yield* writer.text(RecordType.failed, messageOf(error).slice(0, 1000));
    throw error;
  }
}

function startRead(device: ThinDevice, extent: Extent): Read {
  const memory = extent.data ? alignedMemory(extent.length) : ZEROES;
  const done = extent.data ? deviceIo(device, LunOp.READ, extent.offset, extent.length, memory) : Promise.resolve();
  // Whoever waits for it is told; until somebody does it is nobody's failure.
  done.catch(() => {});
  return { extent, memory, done };
}

class RecordWriter {
  /** What is not sent is unmapped anyway. */
  readonly #whole: boolean;
  #sequence = 0;
  #dataBytes = 0;
  #unmappedBytes = 0;

  constructor(whole: boolean) {
    this.#whole = whole;
  }

  totals(): StreamTotals {
    return { records: this.#sequence, dataBytes: this.#dataBytes, unmappedBytes: this.#unmappedBytes };
  }

  *text(type: RecordType, text: string): Iterable<Uint8Array> {
    const payload = Buffer.from(text);
    yield encodeRecordHeader(type, this.#sequence++, 0, payload.length, payload);
    yield payload;
  }

  async *extent({ extent, memory, done }: Read): AsyncIterable<Uint8Array> {
    await done;
    const { offset, length, data } = extent;
    if (!data) {
      yield* this.#unmapped(offset, length);
      return;
    }
    for (let begin = 0; begin < length; ) {
      const zero = isZero(memory, begin, length);
      let end = begin;
      while (end < length && isZero(memory, end, length) === zero) end = Math.min(end + PIECE_SIZE, length);
      if (zero) yield* this.#unmapped(offset + begin, end - begin);
      else yield* this.#data(offset + begin, memory.subarray(begin, end));
      begin = end;
    }
  }

  *#data(offset: number, bytes: Uint8Array): Iterable<Uint8Array> {
    this.#dataBytes += bytes.length;
    yield encodeRecordHeader(RecordType.data, this.#sequence++, offset, bytes.length, bytes);
    yield bytes;
  }

  *#unmapped(offset: number, length: number): Iterable<Uint8Array> {
    if (this.#whole) return;
    this.#unmappedBytes += length;
    yield encodeRecordHeader(RecordType.unmapped, this.#sequence++, offset, length, null);
  }
}

function isZero(memory: Uint8Array, begin: number, end: number): boolean {
  const length = Math.min(PIECE_SIZE, end - begin);
  return Buffer.compare(memory.subarray(begin, begin + length), ZEROES.subarray(0, length)) === 0;
}

/** What differs from the base, from `beginBytes` on, in extents of at most `MAX_DATA_LENGTH` (of data). */
async function* differences(source: SendSource, beginBytes: number): AsyncIterable<Extent> {
  const { sizeBytes } = source.device;
  const extents = withTail(source, withExternal(source, mappedDifferences(source, beginBytes), beginBytes));
  for await (const { offset, length, data } of extents) {
    const end = Math.min(offset + length, sizeBytes);
    let at = Math.max(offset, beginBytes);
    while (at < end) {
      const step = data ? Math.min(end - at, MAX_DATA_LENGTH) : end - at;
      yield { offset: at, length: step, data };
      at += step;
    }
  }
}

/**
 * What comes into sight when the volume has grown in the middle of a block: the receiver has nothing but zeroes there, and the sender what was
 * there before.
 */
async function* withTail({ device, baseBytes }: SendSource, extents: AsyncIterable<Extent>): AsyncIterable<Extent> {
  const size = device.engine.blockSizeBytes;
  const tail: Extent = { offset: baseBytes, length: roundUp(baseBytes, size) - baseBytes, data: true };
  let due = tail.length > 0 && baseBytes < device.sizeBytes;
  for await (const extent of extents) {
    if (due && extent.offset + extent.length > tail.offset) {
      due = false;
      if (extent.offset > tail.offset) yield tail;
    }
    yield extent;
  }
  if (due) yield tail;
}

/** An external origin shows where nothing is mapped: there "unmapped" is data, too. */
async function* withExternal(
  { externalBytes, baseRoot }: SendSource,
  extents: AsyncIterable<Extent>,
  beginBytes: number,
): AsyncIterable<Extent> {
  if (externalBytes === 0) {
    yield* extents;
    return;
  }
  let at = beginBytes;
  const whole = baseRoot < 0;
  for await (const extent of extents) {
    const { offset, length } = extent;
    if (whole && at < Math.min(offset, externalBytes)) {
      yield { offset: at, length: Math.min(offset, externalBytes) - at, data: true };
    }
    at = offset + length;
    if (extent.data || offset >= externalBytes) yield extent;
    else yield { offset, length, data: true };
  }
  if (whole && at < externalBytes) yield { offset: at, length: externalBytes - at, data: true };
}

/** Runs of blocks that the mapping trees have differently. */
async function* mappedDifferences(source: SendSource, beginBytes: number): AsyncIterable<Extent> {
  const { device, baseRoot, metadataDevice } = source;
  const size = device.engine.blockSizeBytes;
  const nodes = new CommittedNodes(metadataDevice);
  const begin = Math.floor(beginBytes / size);
  const diff = new MappingDiff(nodes, baseRoot, device.thin.root, { begin });
  const run: Extent = { offset: 0, length: 0, data: false };
  for (let step = diff.next(); step !== DiffStep.end; step = diff.next()) {
    if (step === DiffStep.wait) {
      await nodes.fetch();
      continue;
    }
    const data = step !== DiffStep.leftOnly;
    const offset = diff.key * size;
    if (run.length > 0 && (run.offset + run.length !== offset || run.data !== data)) {
      yield { ...run };
      run.length = 0;
    }
    if (run.length === 0) {
      run.offset = offset;
      run.data = data;
    }
    run.length += size;
    // What is known goes out before all is known.
    if (run.length >= MAX_DATA_LENGTH && data) {
      yield { ...run };
      run.length = 0;
    }
  }
  if (run.length > 0) yield run;
}
