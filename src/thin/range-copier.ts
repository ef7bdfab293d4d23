import { type Errno, errnoOf, StorageError } from '../base/errors.ts';
import { MIB, roundDown, roundUp } from '../base/units.ts';
import { Waiters } from '../base/waiters.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import { LunOp, LunRequest } from '../block/lun-backend.ts';
import { deviceIo } from './device-io.ts';
import type { PoolEngine } from './pool-engine.ts';
import type { ThinDevice } from './thin-device.ts';

/** Blocks shared with their cells held: what a snapshot, and a write to the same place, may have to wait for. */
const MAX_SHARED_BLOCKS = 16_384;
/** What is moved is read and written in pieces of this. */
const PIECE_SIZE = MIB;
const MAX_BUFFERS = 4;
/** How far a hole is looked at. */
const MAX_EXTENT = 64 * MIB;

/**
 * Copies a range of a volume to another volume of the pool, or inside it, piece by piece.
 *
 * ```
 *   source  |..aaaa|bbbbbbbb|cccccccc|ddd.....|
 *   target  |..AAAA|BBBBBBBB|CCCCCCCC|DDD.....|      b, c: shared (RangeSharer)    a, d: read and written
 * ```
 * Whole blocks are shared where the range begins at the same place in a block on both sides. Everything else is looked up, read and written, or
 * unmapped where the source has nothing, as any other request to the two volumes: also the last block of a volume that is cut off, for what is
 * past its end is not to be seen when it grows. So is what the target has already (see `SharedBlocks`), and all of a copy inside a volume, and what would take a
 * time that the pool has not. A copy is under way only while a piece of it is: volumes can be held, snapshotted and rolled back between two pieces.
 */
export class RangeCopier {
  private readonly engine: PoolEngine;
  private readonly buffers: Uint8Array[] = [];
  private bufferCount = 0;
  private readonly bufferWaiters: Waiters = new Waiters();
  readonly stats: { sharedBlocks: number; movedBytes: number } = { sharedBlocks: 0, movedBytes: 0 };

  constructor(engine: PoolEngine) {
    this.engine = engine;
  }

  /** Answers a COPY to `device`, in a later turn. */
  submit(device: ThinDevice, request: LunRequest): void {
    request.copied = 0;
    if (request.source === null || !device.copiesFrom(request.source)) {
      queueMicrotask(() => request.owner.requestDone(request, 'EINVAL'));
      return;
    }
    void this.answer(device, request.source as ThinDevice, request);
  }

  private async answer(device: ThinDevice, source: ThinDevice, request: LunRequest): Promise<void> {
    const { generation } = this.engine;
    device.copies++;
    source.copies++;
    let code: Errno | null = null;
    try {
      await this.copy(device, source, request);
    } catch (error) {
      code = errnoOf(error);
      // An aborted transaction has taken back what it had done.
      if (this.engine.generation !== generation) request.copied = 0;
    }
    request.owner.requestDone(request, code);
    for (const one of [device, source]) {
      one.copies--;
      one.idle();
    }
  }

  private async copy(device: ThinDevice, source: ThinDevice, request: LunRequest): Promise<void> {
    const { offset, length, sourceOffset } = request;
    if (offset + length > device.sizeBytes || sourceOffset + length > source.sizeBytes) refuse('ENXIO', device);
    if (source === device && Math.abs(offset - sourceOffset) < length) refuse('EINVAL', device);
    if (device.readOnly) refuse('EROFS', device);
    const size = this.engine.blockSizeBytes;
    let mayShare = source !== device && (offset - sourceOffset) % size === 0;
    let moveUntil = offset;
    while (request.copied < length) {
      const at = offset + request.copied;
      const from = sourceOffset + request.copied;
      const left = length - request.copied;
      const whole = mayShare && at >= moveUntil ? wholeBlocks(at, left, size) : 0;
      if (whole === 0) {
        const most = mayShare ? Math.min(left, Math.max(moveUntil, roundUp(at + 1, size)) - at) : left;
        request.copied += await this.move(device, source, at, from, most);
        continue;
      }
      const { copied, error } = await this.share(device, source, at, from, whole);
      request.copied += copied;
      if (error === 'EEXIST') moveUntil = at + copied + Math.max(size, roundDown(PIECE_SIZE, size));
      if (error === 'ERANGE' || device.thin.sharedBlocks?.isTooMuch) mayShare = false;
      else if (error !== null && error !== 'EEXIST') refuse(error, device);
    }
    if (request.fua) await deviceIo(device, LunOp.FLUSH, 0, 0);
  }

  /** How many bytes are certain, and what stopped it. */
  private async share(
    device: ThinDevice,
    source: ThinDevice,
    at: number,
    from: number,
    length: number,
  ): Promise<{ copied: number; error: Errno | null }> {
    while (device.held || source.held) await (device.held ? device : source).released();
    return new Promise((resolve) => {
      const piece = new LunRequest({ requestDone: ({ copied }, error) => resolve({ copied, error }) });
      piece.op = LunOp.COPY;
      piece.offset = at;
      piece.length = length;
      piece.source = source;
      piece.sourceOffset = from;
      this.engine.submit(device, piece);
    });
  }

  /** Reads and writes, or unmaps, the first of at most `most` bytes; returns how many. */
  private async move(device: ThinDevice, source: ThinDevice, at: number, from: number, most: number): Promise<number> {
    const extent = await this.extent(source, from, Math.min(most, MAX_EXTENT));
    if (!extent.extentMapped) {
      await deviceIo(device, LunOp.UNMAP, at, extent.extentLength);
      return extent.extentLength;
    }
    const length = Math.min(extent.extentLength, PIECE_SIZE);
    const buffer = await this.takeBuffer();
    try {
      await deviceIo(source, LunOp.READ, from, length, buffer);
      await deviceIo(device, LunOp.WRITE, at, length, buffer);
    } finally {
      this.buffers.push(buffer);
      this.bufferWaiters.wake();
    }
    this.stats.movedBytes += length;
    return length;
  }

  private extent(source: ThinDevice, offset: number, length: number): Promise<LunRequest> {
    return new Promise((resolve, reject) => {
      const request = new LunRequest({
        requestDone: (done, error) => {
          if (error === null) resolve(done);
          else reject(new StorageError(error, `Cannot look up a range of thin device ${source.thin.id}: ${error}`));
        },
      });
      request.op = LunOp.EXTENT;
      request.offset = offset;
      request.length = length;
      source.submit(request);
    });
  }

  private async takeBuffer(): Promise<Uint8Array> {
    for (;;) {
      const buffer = this.buffers.pop();
      if (buffer !== undefined) return buffer;
      if (this.bufferCount < MAX_BUFFERS) {
        this.bufferCount++;
        return alignedMemory(PIECE_SIZE);
      }
      await this.bufferWaiters.wait();
    }
  }
}

/** How many of `left` bytes at `at` are whole blocks, as many as are shared at once. */
function wholeBlocks(at: number, left: number, size: number): number {
  return at % size === 0 ? roundDown(Math.min(left, MAX_SHARED_BLOCKS * size), size) : 0;
}

function refuse(code: Errno, device: ThinDevice): never {
  throw new StorageError(code, `Cannot copy to thin device ${device.thin.id}: ${code}`);
}
