import { createHash } from 'node:crypto';
import { closeSync, constants, ftruncateSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { readU32LE, readU64LE, writeU32LE, writeU64LE } from '../base/bytes.ts';
import { crc32c } from '../base/crc32c.ts';
import { messageOf, wrapError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { MIB } from '../base/units.ts';

/**
 * What the current transaction has changed in the mappings, in the page cache: so that the end of the *process* takes nothing with it.
 *
 * A commit makes mappings survive a power failure, and comes when an initiator flushes. But an initiator does not notice that
 * our process was killed and started again: it goes on, flushes later, and believes that what was acknowledged before is durable. So every
 * change is appended here before it is acknowledged, with a plain write and no flush, and the next open does it again. After a power failure the
 * journal is not used (its data blocks may not have reached the disk), which is what a flush is for.
 *
 * ```
 *   0     header   32  sha256 of: boot id, identity of the superblock that the transaction began with
 *                   8  epoch, u64
 *                   8  zero
 *                   4  magic
 *                   4  crc32c of the bytes before
 *   4096  records  32 bytes each, until one that is not of this epoch
 *                   8  epoch, u64
 *                   4  kind
 *                   4  thin device id
 *                   8  INSERT: virtual block    REMOVE, SHARE: first virtual block    SOURCE: virtual block    GROUP: records
 *                   8  INSERT: data block       REMOVE, SHARE: end                     SOURCE: 0
 *                      (the upper 24 bits of the kind are those of the crc32c of the record with zeroes there)
 * ```
 * A copy is a SOURCE, where it is from, and right behind it a SHARE. A GROUP says how many INSERTs follow that are done again together or not at all. All little-endian. A commit begins a new epoch; if the process ends between the superblock and the new header, the identity does not
 * match and the records, which are in the commit, are not used.
 */

const HEADER_SIZE = 4096;
const RECORD_SIZE = 32;
const MAGIC = 0x6a6d6c74;
/** Beyond it, a change is acknowledged when it is committed. */
const MAX_SIZE = 8 * MIB;
const BUFFER_SIZE = 64 * 1024;

const Kind = { INSERT: 1, REMOVE: 2, SOURCE: 3, SHARE: 4, GROUP: 5 } as const;
const LAST_KIND = Kind.GROUP;

/** What `replay` does again. */
export interface JournalTarget {
  insert(device: number, virtualBlock: number, dataBlock: number): void;
  remove(device: number, begin: number, end: number): void;
  share(source: number, sourceBegin: number, device: number, begin: number, end: number): void;
}

export class MappingJournal {
  private readonly path: string;
  private readonly fd: number;
  private readonly bootId: string;
  private readonly logger: Logger;
  private readonly buffer = new Uint8Array(BUFFER_SIZE);
  private buffered = 0;
  /** Where the next record goes in the file. */
  private end = HEADER_SIZE;
  private epoch = 0;
  /** What the last record of kind SOURCE said. */
  private source = 0;
  private sourceBegin = 0;
  /** Records of a group that are still to come, and those that have. */
  private groupLeft = 0;
  private readonly group: { device: number; virtualBlock: number; dataBlock: number }[] = [];
  /** A change of this transaction is not in the file: until the next commit nothing more is appended. */
  private broken = false;

  private constructor(path: string, fd: number, bootId: string, logger: Logger) {
    this.path = path;
    this.fd = fd;
    this.bootId = bootId;
    this.logger = logger;
  }

  /** `bootId` tells one run of the machine from another; empty where it is not known. Throws `StorageError`. */
  static open(path: string, bootId: string, logger: Logger): MappingJournal {
    try {
      return new MappingJournal(path, openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600), bootId, logger);
    } catch (error) {
      throw wrapError(`Cannot open the mapping journal "${path}"`, error);
    }
  }

  /** A commit is due: the file is half full. */
  get filling(): boolean {
    return this.end + this.buffered > MAX_SIZE / 2;
  }

  /** Does again what a process that ended without a commit had acknowledged since the superblock `identity`. Returns the number of changes. */
  replay(identity: string, target: JournalTarget): number {
    const header = new Uint8Array(HEADER_SIZE);
    const size = readSync(this.fd, header, 0, HEADER_SIZE, 0);
    if (size < HEADER_SIZE || readU32LE(header, 48) !== MAGIC || readU32LE(header, 52) !== crc32c(header, 0, 52)) {
      // Epochs begin anew: records of an old one must not be there.
      ftruncateSync(this.fd, 0);
      return 0;
    }
    this.epoch = readU64LE(header, 32);
    if (this.bootId === '' || Buffer.compare(header.subarray(0, 32), this.digest(identity)) !== 0) return 0;
    let count = 0;
    for (let at = HEADER_SIZE; at < MAX_SIZE; at += BUFFER_SIZE) {
      const size = readSync(this.fd, this.buffer, 0, BUFFER_SIZE, at);
      for (let record = 0; record + RECORD_SIZE <= size; record += RECORD_SIZE) {
        if (!this.apply(record, target)) return count;
        count++;
      }
      if (size < BUFFER_SIZE) break;
    }
    return count;
  }

  private apply(at: number, target: JournalTarget): boolean {
    const { buffer } = this;
    const kindAndSum = readU32LE(buffer, at + 8);
    const kind = kindAndSum & 0xff;
    writeU32LE(buffer, at + 8, kind);
    if (readU64LE(buffer, at) !== this.epoch) return false;
    if (this.sum(at, kind) !== kindAndSum || kind === 0 || kind > LAST_KIND) {
      // As a process leaves it that was killed in the middle of a write, before it acknowledged the change; or damage.
      this.logger.warn(
        { path: this.path },
        'the mapping journal ends in half a record: it and what follows is not used',
      );
      return false;
    }
    const device = readU32LE(buffer, at + 12);
    const first = readU64LE(buffer, at + 16);
    const second = readU64LE(buffer, at + 24);
    if (this.groupLeft > 0 && kind === Kind.INSERT) {
      this.group.push({ device, virtualBlock: first, dataBlock: second });
      if (--this.groupLeft > 0) return true;
      for (const { device: id, virtualBlock, dataBlock } of this.group) target.insert(id, virtualBlock, dataBlock);
      this.group.length = 0;
    } else if (this.groupLeft > 0) return false;
    else if (kind === Kind.INSERT) target.insert(device, first, second);
    else if (kind === Kind.GROUP) this.groupLeft = first;
    else if (kind === Kind.REMOVE) target.remove(device, first, second);
    else if (kind === Kind.SHARE) target.share(this.source, this.sourceBegin, device, first, second);
    else {
      this.source = device;
      this.sourceBegin = first;
    }
    return true;
  }

  /** A commit is durable, or a transaction was aborted: what is noted from now on follows the superblock `identity`. */
  begin(identity: string): void {
    this.buffered = 0;
    this.end = HEADER_SIZE;
    this.epoch++;
    const header = new Uint8Array(HEADER_SIZE);
    header.set(this.digest(identity));
    writeU64LE(header, 32, this.epoch);
    writeU32LE(header, 48, MAGIC);
    writeU32LE(header, 52, crc32c(header, 0, 52));
    this.broken = !this.put(header, HEADER_SIZE, 0);
  }

  noteInsert(device: number, virtualBlock: number, dataBlock: number): void {
    this.note(Kind.INSERT, device, virtualBlock, dataBlock);
  }

  noteRemove(device: number, begin: number, end: number): void {
    this.note(Kind.REMOVE, device, begin, end);
  }

  noteShare(source: number, sourceBegin: number, device: number, begin: number, end: number): void {
    this.note(Kind.SOURCE, source, sourceBegin, 0);
    this.note(Kind.SHARE, device, begin, end);
  }

  /** The next `count` INSERTs are one change. At most as many as the buffer has room for. */
  beginGroup(count: number): void {
    if (this.buffered + (count + 1) * RECORD_SIZE > BUFFER_SIZE) this.append();
    this.note(Kind.GROUP, 0, count, 0);
  }

  private note(kind: number, device: number, first: number, second: number): void {
    if (this.buffered === BUFFER_SIZE) this.append();
    const { buffer, buffered: at } = this;
    writeU64LE(buffer, at, this.epoch);
    writeU32LE(buffer, at + 8, kind);
    writeU32LE(buffer, at + 12, device);
    writeU64LE(buffer, at + 16, first);
    writeU64LE(buffer, at + 24, second);
    writeU32LE(buffer, at + 8, this.sum(at, kind));
    this.buffered = at + RECORD_SIZE;
  }

  /** Appends what was noted. False: not all changes of this transaction are in the file, so only a commit saves them. */
  append(): boolean {
    if (this.buffered === 0) return !this.broken || this.end === HEADER_SIZE;
    const size = this.buffered;
    this.buffered = 0;
    if (this.broken || this.end + size > MAX_SIZE || !this.put(this.buffer, size, this.end)) this.broken = true;
    this.end += size;
    return !this.broken;
  }

  /** The pool was closed in order: nothing is to be done again. */
  remove(): void {
    closeSync(this.fd);
    unlinkSync(this.path);
  }

  private put(bytes: Uint8Array, size: number, at: number): boolean {
    try {
      if (writeSync(this.fd, bytes, 0, size, at) === size) return true;
      throw new Error('a short write');
    } catch (error) {
      this.logger.warn(
        { path: this.path, error: messageOf(error) },
        'cannot write the mapping journal: changes wait for commits',
      );
      return false;
    }
  }

  private digest(identity: string): Uint8Array {
    return createHash('sha256').update(this.bootId).update('\n').update(identity).digest();
  }

  /** The kind of the record at `at` of the buffer, with the checksum above it. */
  private sum(at: number, kind: number): number {
    return ((crc32c(this.buffer, at, at + RECORD_SIZE) << 8) | kind) >>> 0;
  }
}
