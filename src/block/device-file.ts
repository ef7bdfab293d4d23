import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  type Stats,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { assert } from '../base/assert.ts';
import { errnoOf, StorageError, wrapError } from '../base/errors.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, native } from '../base/native.ts';
import { KIB, SECTOR_SIZE } from '../base/units.ts';
import { alignedMemory } from './aligned-memory.ts';

export interface DeviceFileOptions {
  readOnly?: boolean;
  /** O_DIRECT where the file system and the addon allow it; `alignmentBytes` says what came of it. */
  direct?: boolean;
  /**
   * Nobody else has it at the same time (EBUSY). Block devices: O_EXCL, so that it is not mounted or in use either. Files: flock, which binds
   * those who ask for it; shared by readers; only with the addon.
   */
  exclusive?: boolean;
  /** Make a sparse file of `sizeBytes`, which must not exist yet (EEXIST). */
  create?: boolean;
  /** With `create` only. */
  sizeBytes?: number;
}

/** An open file or block device and what is known about it: what `FsDevice` and `UringDevice` share. */
export interface DeviceFile {
  readonly path: string;
  readonly fd: number;
  readonly readOnly: boolean;
  readonly isBlockDevice: boolean;
  readonly alignmentBytes: number;
  readonly discardGranularityBytes: number;
  sizeBytes: number;
}

/** Opens. Throws `StorageError`: ENOENT, EACCES, EBUSY, EEXIST, ENOTBLK (neither file nor block device), ... */
export function openDeviceFile(path: string, options: DeviceFileOptions): DeviceFile {
  const readOnly = options.readOnly ?? false;
  const create = options.create ?? false;
  assert(!(create && readOnly), 'a file cannot be created read-only');
  assert(create === (options.sizeBytes !== undefined), 'a size goes with creating, and creating with a size');
  const action = `Cannot ${create ? 'create' : 'open'} "${path}"`;
  try {
    if (create) createFile(path, options.sizeBytes!);
    const expected = statSync(path);
    if (!expected.isFile() && !expected.isBlockDevice()) {
      throw new StorageError('ENOTBLK', 'neither a file nor a block device');
    }
    const exclusive = options.exclusive ?? false;
    const openExclusive = exclusive && expected.isBlockDevice() ? constants.O_EXCL : 0;
    const flags = (readOnly ? constants.O_RDONLY : constants.O_RDWR) | openExclusive;
    const direct = (options.direct ?? false) && native !== null ? openDirect(path, flags) : null;
    const fd = direct?.fd ?? openSync(path, flags);
    if (exclusive && expected.isFile()) lockFile(fd, readOnly);
    return describe(path, fd, expected, readOnly, direct?.alignmentBytes ?? 1);
  } catch (error) {
    throw wrapError(action, error);
  }
}

/** Until the descriptor is closed. Closes it when it throws. */
function lockFile(fd: number, readOnly: boolean): void {
  try {
    native?.flock(fd, readOnly ? 'shared' : 'exclusive', true);
  } catch (error) {
    closeSync(fd);
    if (errnoOf(error) !== 'EAGAIN') throw error;
    throw new StorageError('EBUSY', 'somebody else has it open');
  }
}

function createFile(path: string, sizeBytes: number): void {
  const fd = openSync(path, 'wx', 0o600);
  try {
    ftruncateSync(fd, sizeBytes);
  } catch (error) {
    unlinkSync(path);
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** With O_DIRECT, and the alignment that works; null where the file system refuses it, at once or at the first read. */
function openDirect(path: string, flags: number): { fd: number; alignmentBytes: number } | null {
  let fd: number;
  try {
    fd = openSync(path, flags | constants.O_DIRECT);
  } catch (error) {
    if (errnoOf(error) === 'EINVAL') return null;
    throw error;
  }
  const memory = alignedMemory(8 * KIB);
  for (const alignmentBytes of [SECTOR_SIZE, 4 * KIB]) {
    try {
      // Memory that is aligned to no more than that, too. A file that is shorter gives nothing, and nothing is learned.
      if (readSync(fd, memory, alignmentBytes, alignmentBytes, 0) === alignmentBytes) return { fd, alignmentBytes };
    } catch (error) {
      if (errnoOf(error) !== 'EINVAL') {
        closeSync(fd);
        throw error;
      }
    }
  }
  closeSync(fd);
  return null;
}

function describe(path: string, fd: number, expected: Stats, readOnly: boolean, alignmentBytes: number): DeviceFile {
  try {
    const found = fstatSync(fd);
    if (found.dev !== expected.dev || found.ino !== expected.ino) {
      throw new StorageError('EBUSY', 'it was replaced while it was opened');
    }
    const isBlockDevice = found.isBlockDevice();
    return {
      path,
      fd,
      readOnly,
      isBlockDevice,
      alignmentBytes: isBlockDevice ? Math.max(alignmentBytes, sectorSize(found)) : alignmentBytes,
      discardGranularityBytes: readOnly ? 0 : isBlockDevice ? deviceGranularity(found) : fileGranularity(fd, found),
      sizeBytes: isBlockDevice ? blockDeviceSize(fd, found) : found.size,
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** A number of /sys/dev/block, of a partition from its disk. */
function sysfsNumber(stats: Stats, name: string): number {
  // The kernel's dev_t as glibc packs it: see makedev(3).
  const { rdev } = stats;
  const high = Math.floor(rdev / 2 ** 32);
  const major = ((rdev >>> 8) & 0xfff) | (high & 0xfffff000);
  const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
  for (const folder of ['', '../']) {
    try {
      return Number(readFileSync(`/sys/dev/block/${major}:${minor}/${folder}${name}`, 'utf8'));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
  }
  return 0;
}

function sectorSize(stats: Stats): number {
  return sysfsNumber(stats, 'queue/logical_block_size') || SECTOR_SIZE;
}

function blockDeviceSize(fd: number, stats: Stats): number {
  return native === null ? sysfsNumber(stats, 'size') * SECTOR_SIZE : native.blkGetSize64(fd);
}

function deviceGranularity(stats: Stats): number {
  if (native === null || sysfsNumber(stats, 'queue/discard_max_bytes') === 0) return 0;
  return Math.max(sysfsNumber(stats, 'queue/discard_granularity'), sectorSize(stats));
}

/** Asks by punching a hole behind the end, which changes nothing. */
function fileGranularity(fd: number, stats: Stats): number {
  if (native === null) return 0;
  try {
    native.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, stats.size, stats.blksize);
    return stats.blksize;
  } catch {
    return 0;
  }
}

/** Reads all of the range. Throws `StorageError`. */
export function readFully(file: DeviceFile, offset: number, memory: Uint8Array, at: number, length: number): void {
  try {
    for (let done = 0; done < length; ) {
      const count = readSync(file.fd, memory, at + done, length - done, offset + done);
      if (count === 0) throw new StorageError('EIO', 'the file ended early');
      done += count;
    }
  } catch (error) {
    throw wrapError(`Cannot read ${length} bytes at ${offset} of "${file.path}"`, error);
  }
}

/** Writes all of the range. Throws `StorageError`. */
export function writeFully(file: DeviceFile, offset: number, memory: Uint8Array, at: number, length: number): void {
  try {
    for (let done = 0; done < length; ) {
      const count = writeSync(file.fd, memory, at + done, length - done, offset + done);
      if (count === 0) throw new StorageError('EIO', 'nothing was written');
      done += count;
    }
  } catch (error) {
    throw wrapError(`Cannot write ${length} bytes at ${offset} of "${file.path}"`, error);
  }
}

export function syncFile(file: DeviceFile): void {
  try {
    fdatasyncSync(file.fd);
  } catch (error) {
    throw wrapError(`Cannot flush "${file.path}"`, error);
  }
}

/** EOPNOTSUPP on block devices. Throws `StorageError`. */
export function resizeFile(file: DeviceFile, sizeBytes: number): void {
  assert(Number.isSafeInteger(sizeBytes) && sizeBytes >= 0, 'size of a device is not a whole number');
  const action = `Cannot resize "${file.path}"`;
  if (file.isBlockDevice) throw new StorageError('EOPNOTSUPP', `${action}: it is a block device`);
  try {
    ftruncateSync(file.fd, sizeBytes);
  } catch (error) {
    throw wrapError(action, error);
  }
  file.sizeBytes = sizeBytes;
}

/** Asks for the size again; also returns it. Throws `StorageError`. */
export function refreshFileSize(file: DeviceFile): number {
  try {
    const stats = fstatSync(file.fd);
    file.sizeBytes = file.isBlockDevice ? blockDeviceSize(file.fd, stats) : stats.size;
  } catch (error) {
    throw wrapError(`Cannot find the size of "${file.path}"`, error);
  }
  return file.sizeBytes;
}
