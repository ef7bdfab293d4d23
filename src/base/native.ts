import { createRequire } from 'node:module';
import { messageOf } from './errors.ts';

/** Events of `pollStart`: data or a hang-up to be found by reading. */
export const POLL_READABLE = 1;
/** Events of `pollStart`: the other side went away. */
export const POLL_DISCONNECT = 4;
/** Event of `pollStart`: the descriptor failed (a device that was removed); polling has stopped, `pollStop` is still due. */
export const POLL_ERROR = 8;

/** Modes of fallocate(2). */
export const FALLOC_FL_KEEP_SIZE = 0x01;
export const FALLOC_FL_PUNCH_HOLE = 0x02;
export const FALLOC_FL_ZERO_RANGE = 0x10;

/** A watcher made by `pollStart`. Opaque. */
export interface PollHandle {
  readonly __pollHandle?: never;
}

/** A row of `NativeRing.queue`: positions of its numbers. */
export const RingRow = {
  SLOT: 0,
  OP: 1,
  FD: 2,
  OFFSET: 3,
  LENGTH: 4,
  MEMORY: 5,
  MEMORY_OFFSET: 6,
  MODE: 7,
  SIZE: 8,
} as const;
export const RingOp = {
  READ: 0,
  WRITE: 1,
  DATASYNC: 2,
  FALLOCATE: 3,
  WRITE_AT_ONCE: 4,
  ZERO_AT_ONCE: 5,
  READ_ASIDE: 6,
} as const;

/** An io_uring on this event loop. Made by `createRing`; used by block/uring-device.ts alone. See native-bindings/src/uring.c. */
export interface NativeRing {
  /** `entries` rows of `RingRow.SIZE` numbers, filled in before `submit`. */
  readonly queue: Float64Array;
  /** Pairs (slot, result); a result is a count of bytes, 0, or a negative errno. */
  readonly results: Int32Array;
  /** Starts the first `count` rows; what is done at once is to be reaped, without a callback. Returns how many the kernel has not taken (to be tried again with `submit(0, [], 0)`). */
  submit(count: number, memories: readonly Uint8Array[], memoryCount: number): number;
  /** Takes what has completed into `results`; returns the number of pairs. */
  reap(): number;
  /** Throws EBUSY while operations are in flight. */
  close(): void;
}

/**
 * The addon: one system call per export. Wrong arguments throw a TypeError with `code` EINVAL and change nothing; failures of the
 * call throw an Error with `code` (the kernel's errno name), `errno` (positive) and `syscall`.
 */
export interface NativeBindings {
  /** The register of CRC-32C after `length` bytes from `offset`; no inversion on either side. */
  crc32c(seed: number, bytes: Uint8Array, offset: number, length: number): number;
  /** Zeroed memory at a multiple of `alignment` (a power of two); freed with the ArrayBuffer. */
  alignedBuffer(sizeBytes: number, alignment: number): ArrayBuffer;
  flock(fd: number, operation: 'exclusive' | 'shared' | 'unlock', nonblocking: boolean): void;
  fallocate(fd: number, mode: number, offset: number, length: number): void;
  blkGetSize64(fd: number): number;
  blkSectorSize(fd: number): number;
  blkDiscard(fd: number, offset: number, length: number): void;
  blkZeroOut(fd: number, offset: number, length: number): void;
  /** The same calls on libuv's thread pool. `callback(0)` or `callback(-errno)`. */
  rangeAsync(
    call: 'punch-hole' | 'zero-range' | 'blkdiscard' | 'blkzeroout',
    fd: number,
    offset: number,
    length: number,
    callback: (result: number) => void,
  ): void;
  /**
   * Copies within a file on libuv's thread pool. `rows`: the bytes of `count` (1 to 64) rows of six doubles: source, target, length, offset in `memory`, begin and length
   * of what is in that range of `memory` already instead of the source's bytes. `callback(row, 0 or -errno)` for each, all in one turn; EAGAIN where the page cache does not have
   * the source. `memory` is the call's until then.
   */
  copyAsync(
    fd: number,
    rows: Uint8Array,
    count: number,
    memory: Uint8Array,
    callback: (row: number, result: number) => void,
  ): void;
  /** mmap of exactly `length` bytes from 0, read and write, shared. */
  mapShared(fd: number, length: number): ArrayBuffer;
  /** munmap of a `mapShared` buffer, which is detached: its views have length 0 afterwards. EBUSY while an operation of a ring, or a copy, uses it. */
  unmap(buffer: ArrayBuffer): void;
  /** `bytes.byteOffset + offset` is a multiple of 4. */
  atomicLoadAcquire32(bytes: Uint8Array, offset: number): number;
  atomicStoreRelease32(bytes: Uint8Array, offset: number, value: number): void;
  /** Whether the word at `offset` is not `value`: now, or within `tries` (up to 1000) times a microsecond or two in which other threads get the processor. */
  awaitChange32(bytes: Uint8Array, offset: number, value: number, tries: number): boolean;
  /** Calls back with POLL_* bits whenever `fd` is readable, disconnected or failed, until `pollStop`. One watcher a descriptor. */
  pollStart(fd: number, callback: (events: number) => void): PollHandle;
  /** The callback is not called any more. Before the descriptor is closed; may be repeated. */
  pollStop(handle: PollHandle): void;
  /** One read(2) into `[offset, offset + length)`: bytes read, 0 at the end, -1 for EAGAIN. */
  readFd(fd: number, bytes: Uint8Array, offset: number, length: number): number;
  /** One write(2): bytes written, -1 for EAGAIN. */
  writeFd(fd: number, bytes: Uint8Array, offset: number, length: number): number;
  /**
   * A non-blocking generic netlink socket, bound to this port id (0: the kernel chooses one; EADDRINUSE) and with room for so many bytes
   * of events. What does not fit is lost without an error and counted in /proc/net/netlink.
   */
  genlSocket(portId: number, receiveBufferSize: number): number;
  netlinkAddMembership(fd: number, group: number): void;
  netlinkSend(fd: number, bytes: Uint8Array): void;
  /** One datagram: its bytes, or -1 for EAGAIN. EMSGSIZE when it did not fit, EPERM when it is not the kernel's (both: it is gone). */
  netlinkReceive(fd: number, bytes: Uint8Array): number;
  /** The same open file description once more. */
  duplicateFd(fd: number): number;
  /**
   * One sendmsg(2) on a Unix stream socket: bytes sent, -1 for EAGAIN. `fds`, up to 253 of them as an Int32Array's bytes, go with the first byte; `length` is
   * not 0 then.
   */
  sendWithFds(fd: number, bytes: Uint8Array, offset: number, length: number, fds: Uint8Array): number;
  /** One recvmsg(2): bytes received, 0 at the end, -1 for EAGAIN. Descriptors that came fill `fds` from its begin, -1 follows. EMSGSIZE when there were more. */
  receiveWithFds(fd: number, bytes: Uint8Array, offset: number, length: number, fds: Uint8Array): number;
  /**
   * PR_SET_IO_FLUSHER of a thread of this process, and of those that it starts afterwards. EPERM without CAP_SYS_RESOURCE, EINVAL before
   * Linux 5.6, ETIMEDOUT when the thread does not answer (it must not block the last signal but one), ESRCH when it is gone.
   */
  setIoFlusher(threadId: number): void;
  /** mlock2 with MLOCK_ONFAULT of the addresses [begin, end). Never V8's own memory: see native-bindings/README.md. */
  lockMemory(begin: number, end: number): void;
  /** One datagram to a UNIX socket; a name that begins with a zero byte is an abstract one. Never waits: EAGAIN. */
  sendDatagram(address: Uint8Array, bytes: Uint8Array): void;
  /** `entries` is a power of two up to 4096. ENOSYS, EPERM or EOPNOTSUPP where io_uring cannot be used. */
  createRing(entries: number, callback: (count: number) => void): NativeRing;
}

/** From src/base as from dist/base. */
const ADDON = '../../native-bindings/build/Release/thinlun_native.node';

function load(): { bindings: NativeBindings | null; error: string | null } {
  const { THINLUN_NATIVE: setting } = process.env;
  if (setting === 'off') return { bindings: null, error: 'turned off by THINLUN_NATIVE=off' };
  try {
    return { bindings: createRequire(import.meta.url)(ADDON) as NativeBindings, error: null };
  } catch (error) {
    return { bindings: null, error: messageOf(error).split('\n')[0]! };
  }
}

const loaded = load();

/** The addon, or null where it was not built or cannot be loaded. */
export const native: NativeBindings | null = loaded.bindings;
/** Why `native` is null; null when it is not. */
export const nativeError: string | null = loaded.error;
