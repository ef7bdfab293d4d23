/** Pools with millions of mapped blocks, made in seconds. */
import { join } from 'node:path';
import { openBlockDevice } from '../../dist/block/file-device.js';
import { Pool } from '../../dist/thin/pool.js';
import { createPool } from '../../dist/thin/pool-create.js';
import { PoolMetadata } from '../../dist/thin/pool-metadata.js';
import { Restorer } from '../../dist/tools/restorer.js';
import { Random } from './random.mjs';

export const BLOCK = 65536;
/** Blocks that lie alike in the volume and on the data device: what a volume is that was written at random for a while. */
const MAX_RUN = 16;
const SPARE_BLOCKS = 4096;

/**
 * A pool with one volume, `volume`, all of whose blocks are mapped, in runs of 1 to 16 blocks in no order, spread over room for `dataBlocks`. Its data
 * file is one hole: nobody has written anything. Returns the device's number.
 * @param {string} dir @param {string} volume @param {number} blocks @param {number} [dataBlocks]
 */
export async function makeLargePool(dir, volume, blocks, dataBlocks = blocks) {
  const dataBlockCount = dataBlocks + SPARE_BLOCKS;
  await createPool(dir, { dataSizeBytes: dataBlockCount * BLOCK });
  const pool = await Pool.open(dir);
  const { id } = await pool.createVolume(volume, blocks * BLOCK);
  await pool.close();
  const device = openBlockDevice(join(dir, 'metadata'), {});
  const metadata = PoolMetadata.open(device, { readOnly: true });
  const { transactionId } = metadata;
  metadata.close();
  const restorer = new Restorer(device);
  restorer.pool({
    time: 0,
    transactionId,
    flags: 0,
    version: 2,
    dataBlockSize: BLOCK / 512,
    dataBlockCount,
    metadataSnapshot: 0,
  });
  restorer.deviceBegin({ id, mappedBlocks: blocks, transactionId: 0, creationTime: 0, snapshottedTime: 0 });
  for (const run of scatteredRuns(blocks, Math.floor(dataBlocks / blocks))) restorer.run(run);
  restorer.deviceEnd();
  restorer.poolEnd();
  restorer.finish();
  await device.close();
  return id;
}

/** `stretch` times as much room as they need lies around them. @param {number} blocks @param {number} stretch */
function* scatteredRuns(blocks, stretch) {
  const random = new Random(1);
  const lengths = [];
  for (let left = blocks; left > 0; ) {
    const length = Math.min(left, 1 + random.below(MAX_RUN));
    lengths.push(length);
    left -= length;
  }
  const begins = new Float64Array(lengths.length);
  let at = 0;
  for (const index of random.shuffle(Uint32Array.from(lengths, (_, i) => i))) {
    begins[index] = at;
    at += lengths[index] ?? 0;
  }
  let virtualBegin = 0;
  for (const [index, length] of lengths.entries()) {
    yield { virtualBegin, dataBegin: stretch * (begins[index] ?? 0), length, time: 0 };
    virtualBegin += length;
  }
}
