import { roundDown } from '../base/units.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { LunOp } from '../block/lun-backend.ts';
import type { Copier } from './copier.ts';
import type { OriginReads } from './external-origin.ts';
import type { PoolMetadata } from './pool-metadata.ts';
import type { RunResult } from './run-lookup.ts';
import type { ThinIo } from './thin-io.ts';

/** What a transfer needs of the pool. */
export interface TransferPool {
  readonly metadata: PoolMetadata;
  readonly data: BlockDevice;
  readonly copier: Copier;
  readonly blockSizeBytes: number;
  readonly zeroNewBlocks: boolean;
  readonly originReads: OriginReads;
}

/** Runs looked at for one EXTENT request; a longer extent is reported in parts. */
const MAX_EXTENT_RUNS = 1024;

/**
 * Queues the device I/O of one step of `io`, whose runs are filled in and whose new blocks are allocated.
 *
 * ```
 *   virtual   |  run, in place  |  hole  |  shared run  |
 *   write        data              data      data           to: the run | new blocks | new blocks
 *                              zeroes around   copies around   (only where the write does not cover a new block)
 * ```
 * Zeroes, copies and data of one block go to disjoint ranges, so that all of it is in flight together.
 */
export function transferStep(pool: TransferPool, io: ThinIo): void {
  const size = pool.blockSizeBytes;
  const reading = io.request.op === LunOp.READ;
  let at = io.stepBegin;
  let next = 0;
  for (let i = 0; i < io.runCount && at < io.stepEnd; i++) {
    const end = Math.min(io.runEnd[i]! * size, io.stepEnd);
    const block = io.runData[i]!;
    const inBlock = at % size;
    if (reading) {
      if (block < 0) readHole(pool, io, at, end);
      else moveMemory(pool.data, io, false, block * size + inBlock, end - at);
    } else if (block >= 0 && !io.runShared[i]!) {
      store(pool.data, io, block * size + inBlock, end - at);
    } else if (block >= 0 || !io.skipUnmapped) {
      next = storeNew(pool, io, next, at, end, block);
    }
    at = end;
  }
}

/** Reads `[at, end)` of the volume where nothing is mapped: the external origin up to its end, zeroes from there. */
function readHole(pool: TransferPool, io: ThinIo, at: number, end: number): void {
  const { origin } = io.device;
  const inside = origin === null ? at : Math.min(end, Math.max(at, origin.sizeBytes));
  if (inside > at) {
    moveMemory(origin!.device, io, false, at, inside - at);
    pool.originReads.add(origin!);
  }
  if (end > inside) {
    io.request.data.zero(inside - io.request.offset, end - inside);
    skipMemory(io, end - inside);
  }
}

/**
 * Stores the bytes `[at, end)` of the volume in new blocks, from entry `next` of `io.newData` on; returns the entry after the last used.
 * `oldBlock` is the data block that held the first of them, -1 if none did.
 */
function storeNew(pool: TransferPool, io: ThinIo, next: number, at: number, end: number, oldBlock: number): number {
  const size = pool.blockSizeBytes;
  const runBegin = roundDown(at, size);
  const old = oldBlock * size;
  let index = next;
  let from = at;
  while (from < end) {
    const base = io.newVirtual[index]! * size;
    const target = io.newData[index]! * size;
    index++;
    while (
      index < io.newCount &&
      io.newVirtual[index]! * size < end &&
      io.newVirtual[index] === io.newVirtual[index - 1]! + 1 &&
      io.newData[index] === io.newData[index - 1]! + 1
    ) {
      index++;
    }
    const groupEnd = (io.newVirtual[index - 1]! + 1) * size;
    const to = Math.min(end, groupEnd);
    if (io.zero && oldBlock < 0 && io.device.origin === null) {
      store(pool.data, io, target, groupEnd - base);
    } else if (
      oldBlock >= 0 &&
      !io.zero &&
      groupEnd - base === size &&
      to - from <= size / 2 &&
      pool.copier.takesBlocks
    ) {
      const { request } = io;
      io.pending++;
      pool.copier.copyBlock(
        old + (base - runBegin),
        target,
        request.data,
        from - request.offset,
        from - base,
        to - from,
        io,
      );
      skipMemory(io, to - from);
    } else {
      fillGap(pool, io, base, oldBlock < 0 ? -1 : old + (base - runBegin), target, from - base);
      store(pool.data, io, target + (from - base), to - from);
      fillGap(pool, io, to, oldBlock < 0 ? -1 : old + (to - runBegin), target + (to - base), groupEnd - to);
    }
    from = to;
  }
  return index;
}

/**
 * `length` bytes at `target` of a new block that the request does not cover, at byte `at` of the volume: a copy from `source`; where that is
 * -1, of the external origin up to its end, and zeroes.
 */
function fillGap(pool: TransferPool, io: ThinIo, at: number, source: number, target: number, length: number): void {
  if (length === 0) return;
  if (source >= 0) {
    io.pending++;
    pool.copier.copy(pool.data, source, target, length, io);
    return;
  }
  const { origin } = io.device;
  const inside = origin === null ? 0 : Math.min(length, Math.max(0, origin.sizeBytes - at));
  if (inside > 0) {
    io.pending++;
    pool.copier.copy(origin!.device, at, target, inside, io);
    pool.originReads.add(origin!);
  }
  if (inside < length && pool.zeroNewBlocks) {
    io.pending++;
    pool.data.writeZeroes(target + inside, length - inside, io);
  }
}

function store(device: BlockDevice, io: ThinIo, offset: number, length: number): void {
  if (io.zero) {
    io.pending++;
    device.writeZeroes(offset, length, io);
  } else {
    moveMemory(device, io, true, offset, length);
  }
}

/** Queues device I/O for the next `length` bytes of the request's memory. */
function moveMemory(device: BlockDevice, io: ThinIo, writing: boolean, offset: number, length: number): void {
  const { memory, offsets, lengths } = io.request.data;
  let at = offset;
  let left = length;
  while (left > 0) {
    const take = Math.min(left, lengths[io.pieceIndex]! - io.pieceUsed);
    io.pending++;
    if (writing) device.write(at, memory, offsets[io.pieceIndex]! + io.pieceUsed, take, io);
    else device.read(at, memory, offsets[io.pieceIndex]! + io.pieceUsed, take, io);
    at += take;
    left -= take;
    advance(io, take);
  }
}

/** The next `length` bytes of the request's memory are taken care of. */
function skipMemory(io: ThinIo, length: number): void {
  for (let left = length; left > 0; ) {
    const take = Math.min(left, io.request.data.lengths[io.pieceIndex]! - io.pieceUsed);
    left -= take;
    advance(io, take);
  }
}

function advance(io: ThinIo, length: number): void {
  io.pieceUsed += length;
  if (io.pieceUsed === io.request.data.lengths[io.pieceIndex]!) {
    io.pieceIndex++;
    io.pieceUsed = 0;
  }
}

/** Answers an EXTENT request from the map; false: it is not cached. */
export function extentOf(pool: TransferPool, io: ThinIo, maxMisses: number, run: RunResult): boolean {
  const { request, device } = io;
  const size = pool.blockSizeBytes;
  const limit = request.offset + request.length;
  const endBlock = Math.ceil(limit / size);
  const originEnd = device.origin === null ? 0 : Math.ceil(device.origin.sizeBytes / size);
  let at = Math.floor(request.offset / size);
  for (let i = 0; i < MAX_EXTENT_RUNS && at < endBlock; i++) {
    if (!pool.metadata.lookupRun(device.thin, at, endBlock, run, io.misses < maxMisses)) return false;
    // What the origin shows is data: who copies only what is mapped must not leave it out.
    const mapped = run.mapped || at < originEnd;
    if (i === 0) request.extentMapped = mapped;
    else if (mapped !== request.extentMapped) break;
    at = !run.mapped && mapped ? Math.min(run.end, originEnd) : run.end;
  }
  request.extentLength = Math.min(at * size, limit) - request.offset;
  return true;
}
