import { KIB, MIB } from '../base/units.ts';
import { alignedMemory } from './aligned-memory.ts';
import { IoRequest } from './io-request.ts';

/** The system calls that requests come down to. */
export const Step = {
  READ: 0,
  WRITE: 1,
  DATASYNC: 2,
  PUNCH_HOLE: 3,
  ZERO_RANGE: 4,
  BLKDISCARD: 5,
  BLKZEROOUT: 6,
  /** Nothing can do it: ends with EOPNOTSUPP. */
  UNSUPPORTED: 7,
  COPY: 8,
} as const;
export type Step = (typeof Step)[keyof typeof Step];

/** Below what one read(2) or write(2) moves at most, and a multiple of every sector size. */
const MAX_PIECE_SIZE = 1024 * MIB;

const PAGE_SIZE = 4 * KIB;

/**
 * What one write(2) gives the page cache at most. It keeps that in folios as large, and a file system that walks through all blocks of a folio to change one of them (ext4)
 * makes every later write of 4 KiB pay for it: 1.7 us where pages were written one by one, 2.9 us after pieces of 64 KiB, 10 us after pieces of 1 MiB (Linux 6.18). Long
 * writes are as fast in pieces.
 */
const CACHED_PIECE_SIZE = 64 * KIB;

/** What zeroes are written from where nothing better works. Never written to. */
export const ZEROES: Uint8Array = alignedMemory(256 * KIB);

/** Who is told what became of a request's current step. */
export interface StepOwner {
  /** `result`: bytes moved, 0, or a negative errno. */
  stepDone(request: FileRequest, result: number): void;
}

/** A request of a file device: which call it is at, and how far it is. */
export class FileRequest extends IoRequest {
  readonly owner: StepOwner;
  readonly fd: number;
  /** The page cache takes what is written. */
  readonly isCached: boolean;
  step: Step = Step.READ;
  /** Of a copy: where it is read, and what of its memory is not. */
  source = 0;
  keepAt = 0;
  keepLength = 0;
  /** Bytes moved by the steps so far. */
  done = 0;
  /** Failures of the current step that were tried again. */
  attempts = 0;
  /** For calls with a callback of this form; made once, for the life of the pooled request. */
  readonly onResult: (result: number) => void = (result) => this.owner.stepDone(this, result);
  /** The same for node:fs. Its errors carry libuv's number, on Linux the negative errno. */
  readonly onFs: (error: NodeJS.ErrnoException | null, count?: number) => void = (error, count) =>
    this.owner.stepDone(this, error === null ? (count ?? 0) : (error.errno ?? -5));

  constructor(owner: StepOwner, fd: number, isCached: boolean) {
    super();
    this.owner = owner;
    this.fd = fd;
    this.isCached = isCached;
  }

  /** Where the rest begins: position in the file. */
  get restOffset(): number {
    return this.offset + this.done;
  }

  /** Where the rest begins: position in memory. */
  get restMemoryOffset(): number {
    return this.memory === ZEROES ? 0 : this.memoryOffset + this.done;
  }

  /** A WRITE that is a matter of copying: whole pages, which nothing has to be read for, and not many. */
  get isQuick(): boolean {
    const length = this.pieceLength;
    return (
      this.isCached && length <= CACHED_PIECE_SIZE && this.restOffset % PAGE_SIZE === 0 && length % PAGE_SIZE === 0
    );
  }

  /** How much the next READ or WRITE moves. */
  get pieceLength(): number {
    const left = this.length - this.done;
    if (this.memory === ZEROES) return Math.min(left, ZEROES.length);
    return Math.min(left, this.isCached && this.step === Step.WRITE ? CACHED_PIECE_SIZE : MAX_PIECE_SIZE);
  }
}
