import type { Errno } from '../base/errors.ts';

/** Is told when queued I/O has ended. Pooled objects implement it, so that I/O allocates nothing. */
export interface IoCompletion {
  /** `error` is null on success. Called once per queued operation, never from inside the queueing call itself. */
  ioDone(error: Errno | null): void;
}

/**
 * A file or block device: queued asynchronous I/O for data, synchronous I/O for metadata.
 *
 * The queueing calls (`read`, `write`, `flush`, `discard`, `writeZeroes`) only queue; `submit()` starts everything that was
 * queued since the last one, in one system call where the platform allows. Completions come during `submit()` or later
 * from the event loop, in any order. Ordering between operations in flight is the caller's business; `flush` covers the
 * writes that had *completed* when it was queued.
 *
 * Offsets and lengths are bytes, multiples of `alignmentBytes`, and lie inside `[0, sizeBytes)`; anything else is an assertion.
 * The memory handed over belongs to the device until the completion. A short read or write is an EIO.
 */
export interface BlockDevice {
  /** For messages. */
  readonly path: string;
  readonly sizeBytes: number;
  /** Offsets, lengths and memory positions are multiples of it: 1 for buffered files, else the device's sector size. */
  readonly alignmentBytes: number;
  readonly readOnly: boolean;
  /** 0 where discards are not possible. */
  readonly discardGranularityBytes: number;

  read(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void;
  write(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void;
  /** Makes every write that has completed durable. */
  flush(completion: IoCompletion): void;
  /** Gives the range back (punch hole, BLKDISCARD). What it reads as afterwards is zeroes on files, unspecified on devices. */
  discard(offset: number, length: number, completion: IoCompletion): void;
  /** The range reads as zeroes afterwards; without data transfer where the platform can. */
  writeZeroes(offset: number, length: number, completion: IoCompletion): void;
  /**
   * Copies `[source, +length)` to `target` by way of `memory[memoryOffset, +length)`, with what is in bytes `[keepAt, +keepLength)` of that already in the place of the source's.
   * Ends with EAGAIN, nothing written, where the source is not in the page cache. Returns false, and does nothing, where the device does not do this at all.
   */
  copyCached(
    source: number,
    target: number,
    length: number,
    memory: Uint8Array,
    memoryOffset: number,
    keepAt: number,
    keepLength: number,
    completion: IoCompletion,
  ): boolean;
  /** Starts what was queued. Cheap when nothing was. */
  submit(): void;

  /** Throws `StorageError`. */
  readSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void;
  /** Throws `StorageError`. */
  writeSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void;
  /** Throws `StorageError`. */
  flushSync(): void;

  /** Files only: sets the size (EOPNOTSUPP on block devices). Throws `StorageError`. */
  resize(sizeBytes: number): void;
  /** Reads the size again: block devices grow under us. Returns `sizeBytes`. */
  refreshSize(): number;
  /** Waits for what is in flight and closes. */
  close(): Promise<void>;
}
