import { assert } from '../base/assert.ts';
import type { Errno } from '../base/errors.ts';
import { MIB } from '../base/units.ts';
import type { BlockDevice, IoCompletion } from '../block/block-device.ts';
import type { IoVector } from '../block/io-vector.ts';

/** Copies move at most this many bytes at a time. */
const CHUNK_SIZE = MIB;

const Step = { CACHED: 0, READ: 1, WRITE: 2 } as const;
type Step = (typeof Step)[keyof typeof Step];

/** One copy under way: copies a chunk, or reads it and writes it, and goes on until the range is done. */
class CopyJob implements IoCompletion {
  from: BlockDevice | null = null;
  source = 0;
  target = 0;
  left = 0;
  chunk = 0;
  step: Step = Step.READ;
  buffer = -1;
  /** Of a block that is changed on its way: bytes `[dataFrom, +dataLength)` of `data` take the place of what was read at `dataAt`. */
  data: IoVector | null = null;
  dataFrom = 0;
  dataLength = 0;
  dataAt = 0;
  completion: IoCompletion | null = null;
  next: CopyJob | null = null;
  private readonly copier: Copier;

  constructor(copier: Copier) {
    this.copier = copier;
  }

  ioDone(error: Errno | null): void {
    this.copier.stepDone(this, error);
  }
}

/**
 * Copies ranges into the data device: from itself to break sharing, from an external origin. A fixed number of buffers bounds the memory; copies beyond that
 * wait their turn.
 */
export class Copier {
  private readonly device: BlockDevice;
  private readonly memory: Uint8Array;
  private readonly bufferSize: number;
  private readonly freeBuffers: number[] = [];
  private waitingHead: CopyJob | null = null;
  private waitingTail: CopyJob | null = null;
  private spare: CopyJob | null = null;

  /** Whether `copyBlock` can be used: blocks up to the size of a buffer. */
  readonly takesBlocks: boolean;

  /** `memory` is aligned as the device asks and becomes the copier's. */
  constructor(device: BlockDevice, memory: Uint8Array, blockSizeBytes: number) {
    this.device = device;
    this.memory = memory;
    this.bufferSize = Math.min(CHUNK_SIZE, blockSizeBytes);
    this.takesBlocks = this.bufferSize === blockSizeBytes;
    for (let at = 0; at + this.bufferSize <= memory.length; at += this.bufferSize) this.freeBuffers.push(at);
    assert(this.freeBuffers.length > 0, 'the copier has room for one chunk');
  }

  /** Copies `length` bytes of `from`; the caller submits that device. `completion` is called once. */
  copy(from: BlockDevice, source: number, target: number, length: number, completion: IoCompletion): void {
    this.start(this.jobFor(from, source, target, length, completion));
  }

  /**
   * Copies the block at `source` to `target`, both bytes of the data device, with bytes `[from, +length)` of `data` at `at` of it: one read and one write, where the block's
   * parts by themselves would be five. `data` stays as it is until `completion`, which is called once.
   */
  copyBlock(
    source: number,
    target: number,
    data: IoVector,
    from: number,
    at: number,
    length: number,
    completion: IoCompletion,
  ): void {
    assert(this.takesBlocks && at + length <= this.bufferSize, 'a block is copied as a whole where a buffer holds it');
    const job = this.jobFor(this.device, source, target, this.bufferSize, completion);
    job.data = data;
    job.dataFrom = from;
    job.dataAt = at;
    job.dataLength = length;
    this.start(job);
  }

  private jobFor(from: BlockDevice, source: number, target: number, length: number, completion: IoCompletion): CopyJob {
    const job = this.spare ?? new CopyJob(this);
    this.spare = job.next;
    job.next = null;
    job.from = from;
    job.source = source;
    job.target = target;
    job.left = length;
    job.completion = completion;
    return job;
  }

  private start(job: CopyJob): void {
    const buffer = this.freeBuffers.pop();
    if (buffer === undefined) {
      if (this.waitingTail === null) this.waitingHead = job;
      else this.waitingTail.next = job;
      this.waitingTail = job;
      return;
    }
    job.buffer = buffer;
    this.begin(job);
  }

  private begin(job: CopyJob): void {
    const { device } = this;
    job.chunk = Math.min(job.left, this.bufferSize);
    if (job.from === device) {
      this.layData(job);
      job.step = Step.CACHED;
      const { source, target, chunk, buffer, dataAt, dataLength } = job;
      if (device.copyCached(source, target, chunk, this.memory, buffer, dataAt, dataLength, job)) return;
    }
    this.read(job);
  }

  private read(job: CopyJob): void {
    job.step = Step.READ;
    job.from!.read(job.source, this.memory, job.buffer, job.chunk, job);
  }

  private layData(job: CopyJob): void {
    job.data?.copyTo(this.memory, job.buffer + job.dataAt, job.dataFrom, job.dataLength);
  }

  /** For `CopyJob` only. */
  stepDone(job: CopyJob, error: Errno | null): void {
    if (error === 'EAGAIN' && job.step === Step.CACHED) {
      this.read(job);
      this.device.submit();
      return;
    }
    if (error === null) {
      if (job.step === Step.READ) {
        job.step = Step.WRITE;
        this.layData(job);
        this.device.write(job.target, this.memory, job.buffer, job.chunk, job);
        this.device.submit();
        return;
      }
      job.source += job.chunk;
      job.target += job.chunk;
      job.left -= job.chunk;
      if (job.left > 0) {
        this.begin(job);
        job.from!.submit();
        return;
      }
    }
    const completion = job.completion!;
    const waiting = this.waitingHead;
    if (waiting !== null) {
      this.waitingHead = waiting.next;
      if (this.waitingHead === null) this.waitingTail = null;
      waiting.next = null;
      waiting.buffer = job.buffer;
      this.begin(waiting);
      waiting.from!.submit();
    } else {
      this.freeBuffers.push(job.buffer);
    }
    job.completion = null;
    job.data = null;
    job.dataAt = 0;
    job.dataLength = 0;
    job.from = null;
    job.buffer = -1;
    job.next = this.spare;
    this.spare = job;
    completion.ioDone(error);
  }
}
