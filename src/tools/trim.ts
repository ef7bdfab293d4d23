import { type Errno, StorageError } from '../base/errors.ts';
import { GIB, roundDown, roundUp, SECTOR_SIZE } from '../base/units.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { PoolReader } from './pool-reader.ts';
import { bitmapEntry } from './space-map-check.ts';
import { IndexTreeVisitor } from './space-map-fields.ts';
import { TreeWalker, unregistered } from './tree-walker.ts';

const BITMAP_BLOCKS = 16320;
/** Of one discard: long enough to be few, short enough to see how it is getting on. */
const MAX_DISCARD_BYTES = GIB;

/**
 * Discards every data block that the space map of a pool counts as free. Nothing may have the pool open, and its metadata must have been
 * checked: a count that is too low costs data. Returns the bytes discarded. Throws EINVAL when the data device is too small for the pool,
 * EOPNOTSUPP when it cannot discard, EILSEQ.
 */
export async function trimDevices(
  metadata: BlockDevice,
  data: BlockDevice,
  progress: (done: number, total: number) => void,
): Promise<number> {
  const pool = new PoolReader(metadata);
  const { dataBlockSize, dataSpaceMap } = pool.live;
  const blockSizeBytes = dataBlockSize * SECTOR_SIZE;
  const total = dataSpaceMap.blockCount * blockSizeBytes;
  const action = `Cannot trim "${data.path}"`;
  if (data.sizeBytes < total) {
    throw new StorageError('EINVAL', `${action}: it has ${data.sizeBytes} bytes, the pool needs ${total}`);
  }
  const granularity = data.discardGranularityBytes;
  if (granularity === 0) throw new StorageError('EOPNOTSUPP', `${action}: it cannot discard`);
  let trimmed = 0;
  for (const { begin, end } of freeRuns(pool)) {
    const last = roundDown(end * blockSizeBytes, granularity);
    for (let at = roundUp(begin * blockSizeBytes, granularity); at < last; ) {
      const length = Math.min(last - at, MAX_DISCARD_BYTES);
      await discard(data, at, length);
      at += length;
      trimmed += length;
      progress(at, total);
    }
  }
  return trimmed;
}

function discard(data: BlockDevice, offset: number, length: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const completion = {
      ioDone: (error: Errno | null) => {
        if (error === null) resolve();
        else reject(new StorageError(error, `Cannot trim "${data.path}": discard at ${offset} failed: ${error}`));
      },
    };
    data.discard(offset, length, completion);
    data.submit();
  });
}

/** Data blocks whose count is 0, in ascending runs. */
function* freeRuns(pool: PoolReader): Iterable<{ begin: number; end: number }> {
  const { reader, live } = pool;
  const { blockCount, bitmapRoot } = live.dataSpaceMap;
  const index = new IndexTreeVisitor(0);
  const walker = new TreeWalker(reader, unregistered, (damage) => {
    if (damage.severity === 'error')
      throw new StorageError('EILSEQ', `Cannot read the data space map: ${damage.message}`);
  });
  walker.walk(bitmapRoot, index, 'superblock > data space map');
  let run = { begin: 0, end: 0 };
  for (const { ordinal, block } of index.entries) {
    const view = reader.acquire();
    const unreadable = reader.read(block, 'bitmap', view);
    if (unreadable !== null) throw new StorageError('EILSEQ', `Cannot read the data space map: ${unreadable}`);
    const first = ordinal * BITMAP_BLOCKS;
    const count = Math.min(BITMAP_BLOCKS, blockCount - first);
    for (let entry = 0; entry < count; entry++) {
      if (bitmapEntry(view, entry) !== 0) continue;
      if (run.end === first + entry) {
        run.end++;
        continue;
      }
      if (run.end > run.begin) yield run;
      run = { begin: first + entry, end: first + entry + 1 };
    }
    reader.release(view);
  }
  if (run.end > run.begin) yield run;
}
