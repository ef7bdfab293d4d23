// Our side of dm-thin-fragmented: a pool with trees of several levels, made and changed with `PoolMetadata`, and judged
// by our own checker.
//   make META | change META NEW_SNAPSHOT | check META | ids META | keep META | kept META ID...
import { readFileSync, writeFileSync } from 'node:fs';
import { openBlockDevice } from '/project/dist/block/file-device.js';
import { PoolMetadata } from '/project/dist/thin/pool-metadata.js';
import { checkMetadata } from '/project/dist/tools/check.js';
import { describeDamage } from '/project/dist/tools/damage.js';
import { visitMetadata } from '/project/dist/tools/mappings.js';

const BLOCK = 65536;
const VOLUME_BLOCKS = 2 ** 20;
const DATA_BLOCKS = 300_000;
const LIST = '/tmp/mappings.json';

/** Device id -> number of mappings and a sum over them: cheap to keep, and different as soon as one mapping is. */
function summary(device) {
  const devices = {};
  let current = null;
  visitMetadata(device, {
    pool() {},
    deviceBegin(record) {
      current = { mapped: 0, sum: 0 };
      devices[record.id] = current;
    },
    run(run) {
      for (let i = 0; i < run.length; i++) {
        current.mapped++;
        current.sum = (current.sum + (run.virtualBegin + i + 1) * (run.dataBegin + i + 7)) % 2 ** 40;
      }
    },
    deviceEnd() {},
    poolEnd() {},
  });
  return devices;
}

function scattered(count, seed, visit) {
  for (let i = 0; i < count; i++) visit((i * 7919 * 131 + seed * 104729) % VOLUME_BLOCKS);
}

const [command, meta, ...args] = process.argv.slice(2);
const device = openBlockDevice(meta);
if (command === 'make') {
  const pool = PoolMetadata.format(device, { dataBlockSizeBytes: BLOCK, dataBlockCount: DATA_BLOCKS });
  pool.createThin(1);
  const thin = pool.openThin(1);
  scattered(120_000, 1, (block) => pool.insert(thin, block, pool.allocateDataBlock()));
  pool.commitSync();
  for (const id of [2, 3, 4, 5]) {
    pool.createSnap(id, 1);
    scattered(2000, id, (block) => pool.insert(thin, block, pool.allocateDataBlock()));
    pool.commitSync();
  }
  pool.close();
} else if (command === 'change') {
  const pool = PoolMetadata.open(device);
  for (const id of pool.thinIds()) {
    const thin = pool.openThin(id);
    scattered(1500, id + 20, (block) => pool.insert(thin, block, pool.allocateDataBlock()));
    const begin = (id * 50_000) % VOLUME_BLOCKS;
    for (let at = begin; at < begin + 40_000; ) at = pool.removeRange(thin, at, begin + 40_000, 500);
    pool.closeThin(thin);
    pool.commitSync();
  }
  pool.createSnap(Number(args[0]), pool.thinIds()[0]);
  pool.deleteThin(pool.thinIds()[1]);
  pool.commitSync();
  pool.close();
} else if (command === 'check') {
  let fatal = 0;
  const result = checkMetadata(device, (damage) => {
    // The kernel leaves nodes that are less than a third full; that is legal to read.
    if (damage.invariant === 'node-fill') return;
    fatal++;
    console.log(describeDamage(damage));
  });
  console.log(JSON.stringify(result));
  if (fatal > 0) process.exitCode = 1;
} else if (command === 'keep') {
  writeFileSync(LIST, JSON.stringify(summary(device)));
} else if (command === 'kept') {
  // The devices named have the mappings that they had.
  const before = JSON.parse(readFileSync(LIST, 'utf8'));
  const now = summary(device);
  for (const id of args) {
    if (JSON.stringify(before[id]) !== JSON.stringify(now[id])) {
      console.log(`device ${id}: ${JSON.stringify(now[id])}, expected ${JSON.stringify(before[id])}`);
      process.exitCode = 1;
    }
  }
} else if (command === 'ids') {
  console.log(Object.keys(summary(device)).join(' '));
}
await device.close();
