/**
 * Random lookups in a device's mappings, as a request does them, with all of the metadata in the cache. usage: node lookup.mjs JSON; prints
 * what bench/c/lookup.c prints.
 */
import { openBlockDevice } from '../../dist/block/file-device.js';
import { PoolMetadata } from '../../dist/thin/pool-metadata.js';
import { RunResult } from '../../dist/thin/run-lookup.js';
import { Random } from '../lib/random.mjs';

const BATCH = 10_000;

/** @type {{ metadata: string, device: number, keys: number, seed: number, seconds: number, count: number, cacheBlocks: number }} */
const {
  metadata: path,
  device: id,
  keys,
  seed,
  seconds,
  count: wanted,
  cacheBlocks,
} = JSON.parse(process.argv[2] ?? '');
const device = openBlockDevice(path, { readOnly: true });
const metadata = PoolMetadata.open(device, { readOnly: true, cacheBlocks });
const thin = metadata.openThin(id);
const run = new RunResult();
const random = new Random(seed);
let sum = 0;

/** @param {number} batch */
function lookUp(batch) {
  for (let i = 0; i < batch; i++) {
    const key = random.below(keys);
    metadata.lookupRun(thin, key, key + 1, run, false);
    if (run.mapped) sum = (sum + run.dataBlock) >>> 0;
  }
}

if (wanted === 0) {
  // Every leaf is in the cache, and the code is compiled, before it counts.
  for (let key = 0; key < keys; key += 16) metadata.lookupRun(thin, key, key + 1, run, false);
}
let count = 0;
let took = 0;
const cpu = process.cpuUsage();
const from = performance.now();
do {
  const batch = wanted > 0 ? Math.min(wanted - count, BATCH) : BATCH;
  lookUp(batch);
  count += batch;
  took = (performance.now() - from) / 1000;
} while (wanted > 0 ? count < wanted : took < seconds);
const { user, system } = process.cpuUsage(cpu);
console.log(JSON.stringify({ rate: count / took, cpuUs: (user + system) / count, count, sum }));
metadata.closeThin(thin);
metadata.close();
await device.close();
