#!/usr/bin/env node
/**
 * `npm run bench:metadata`: what operations on a whole volume of 1,000,000 mappings do to the pool's other volumes.
 *
 * For each: how long it takes, the longest delay of the event loop, the memory of the process, and the latency of 4 KiB reads and writes of another volume meanwhile. The
 * limits printed beside them are those the pool is built for; nothing is asserted, as the machine has other things to do.
 */
import { closeSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { alignedMemory } from '../dist/block/aligned-memory.js';
import { openBlockDevice } from '../dist/block/file-device.js';
import { LunOp, LunRequest } from '../dist/block/lun-backend.js';
import { Pool } from '../dist/thin/pool.js';
import { createPool } from '../dist/thin/pool-create.js';
import { PoolMetadata } from '../dist/thin/pool-metadata.js';
import { checkPool } from '../dist/tools/check-pool.js';
import { table } from './lib/format.mjs';
import { Random } from './lib/random.mjs';
import { scratchFolder } from './lib/scratch.mjs';
import { quantile } from './lib/statistics.mjs';

const BLOCK = 65536;
const KIB = 1024;
const MIB = 1024 * KIB;
const DELAY_LIMIT_MS = 20;
const MEMORY_LIMIT_MIB = 300;
const FOREGROUND_DEPTH = 4;
const FOREGROUND_SIZE = 64 * MIB;

const { values: flags } = parseArgs({
  options: { mappings: { type: 'string', default: '1000000' }, dir: { type: 'string', default: tmpdir() } },
});
const MAPPINGS = Number(flags.mappings);
const { folder, removeAtExit } = scratchFolder(flags.dir);

/** Reads and writes of a volume, a few at a time, until told to stop. */
class Foreground {
  /** Microseconds. @type {number[]} */
  latencies = [];
  #device;
  #stopped = false;
  #running = 0;
  #random = new Random(1);
  /** @type {() => void} */
  #ended = () => {};

  /** @param {import('../dist/thin/thin-device.js').ThinDevice} device */
  constructor(device) {
    this.#device = device;
    for (let i = 0; i < FOREGROUND_DEPTH; i++) this.#start(alignedMemory(4096));
  }

  /** @param {Uint8Array} memory */
  #start(memory) {
    let began = 0;
    const request = new LunRequest({
      requestDone: (done, error) => {
        if (error !== null) throw new Error(`the foreground failed: ${error}`);
        this.latencies.push((performance.now() - began) * 1000);
        // One turn of the event loop for each, as with a front end.
        setImmediate(next, done);
      },
    });
    const next = () => {
      if (this.#stopped) {
        if (--this.#running === 0) this.#ended();
        return;
      }
      began = performance.now();
      request.op = this.#random.below(2) === 0 ? LunOp.READ : LunOp.WRITE;
      request.offset = this.#random.below(FOREGROUND_SIZE / 4096) * 4096;
      request.length = 4096;
      request.data.set(memory, 0, 4096);
      this.#device.submit(request);
    };
    this.#running++;
    next();
  }

  /** @returns {Promise<void>} */
  stop() {
    this.#stopped = true;
    return new Promise((resolve) => {
      this.#ended = resolve;
    });
  }
}

/**
 * The CPU time that the main thread spends in one turn of the event loop, at most: how long it would stall the others on a machine that has
 * nothing else to do. `monitorEventLoopDelay` measures the other processes as well.
 */
class Turns {
  longestMs = 0;
  #stopped = false;
  #fd = openSync(`/proc/self/task/${process.pid}/schedstat`, 'r');
  #text = Buffer.alloc(64);

  start() {
    let before = this.#cpuMs();
    const turn = () => {
      const now = this.#cpuMs();
      this.longestMs = Math.max(this.longestMs, now - before);
      before = now;
      if (!this.#stopped) setImmediate(turn);
      else closeSync(this.#fd);
    };
    setImmediate(turn);
  }

  stop() {
    this.#stopped = true;
  }

  #cpuMs() {
    const size = readSync(this.#fd, this.#text, 0, 64, 0);
    return Number.parseInt(this.#text.latin1Slice(0, size), 10) / 1e6;
  }
}

const COLUMNS = [
  '',
  'seconds',
  `delay max ms (${DELAY_LIMIT_MS})`,
  `turn max CPU ms (${DELAY_LIMIT_MS})`,
  `RSS MiB (${MEMORY_LIMIT_MIB})`,
  'I/O p50 us',
  'p99 us',
  'max ms',
  'IOPS',
];
/** @type {string[][]} */
const rows = [COLUMNS];

/**
 * @param {string} name
 * @param {Pool} pool
 * @param {() => Promise<unknown>} work
 */
async function measure(name, pool, work) {
  const device = pool.openVolume('busy');
  const foreground = new Foreground(device);
  await new Promise((resolve) => setTimeout(resolve, 200));
  foreground.latencies.length = 0;
  const delay = monitorEventLoopDelay({ resolution: 1 });
  const turns = new Turns();
  turns.start();
  let rss = 0;
  const sampler = setInterval(() => {
    rss = Math.max(rss, process.memoryUsage.rss());
  }, 20);
  delay.enable();
  const began = performance.now();
  await work();
  const seconds = (performance.now() - began) / 1000;
  // What comes with the last commit belongs to it.
  await new Promise((resolve) => setTimeout(resolve, 300));
  delay.disable();
  clearInterval(sampler);
  turns.stop();
  await foreground.stop();
  await pool.closeVolume(device);
  const sorted = Float64Array.from(foreground.latencies).sort();
  rows.push([
    name,
    seconds.toFixed(3),
    (delay.max / 1e6).toFixed(1),
    turns.longestMs.toFixed(1),
    (Math.max(rss, process.memoryUsage.rss()) / MIB).toFixed(0),
    quantile(/** @type {any} */ (sorted), 0.5).toFixed(0),
    quantile(/** @type {any} */ (sorted), 0.99).toFixed(0),
    (quantile(/** @type {any} */ (sorted), 1) / 1000).toFixed(1),
    (sorted.length / (seconds + 0.3)).toFixed(0),
  ]);
}

/** @param {string} dir @param {(metadata: PoolMetadata) => void} work */
async function withMetadata(dir, work) {
  const device = openBlockDevice(join(dir, 'metadata'), {});
  const metadata = PoolMetadata.open(device, { cacheBlocks: 16384 });
  work(metadata);
  metadata.commitSync();
  metadata.close();
  await device.close();
}

/**
 * Maps blocks; their data is a hole of the file.
 * @param {PoolMetadata} metadata
 * @param {number} id
 * @param {number[] | Uint32Array} blocks
 */
function map(metadata, id, blocks) {
  const thin = metadata.openThin(id);
  for (const block of blocks) {
    metadata.insert(thin, block, metadata.allocateDataBlock());
    if (metadata.dirtyBlocks * 2 > metadata.cacheBlocks) metadata.commitSync();
  }
  metadata.closeThin(thin);
}

/** @param {boolean} isRandom */
function order(isRandom) {
  const blocks = Uint32Array.from({ length: MAPPINGS }, (_, i) => i);
  return isRandom ? new Random(1).shuffle(blocks) : blocks;
}

/** @param {string} layout @param {boolean} isRandom */
async function run(layout, isRandom) {
  const dir = join(folder, isRandom ? 'random' : 'in-order');
  const size = MAPPINGS * BLOCK;
  try {
    await createPool(dir, { dataSizeBytes: 3 * size + 1024 * MIB, metadataSizeBytes: 256 * MIB });
    let pool = await Pool.open(dir);
    const big = await pool.createVolume('big', size);
    const busy = await pool.createVolume('busy', FOREGROUND_SIZE);
    const blocks = order(isRandom);
    await pool.close();
    await withMetadata(dir, (metadata) => {
      map(metadata, big.id, blocks);
      map(
        metadata,
        busy.id,
        Uint32Array.from({ length: FOREGROUND_SIZE / BLOCK }, (_, i) => i),
      );
    });
    pool = await Pool.open(dir);
    const at = `${layout}: `;
    await measure(`${at}nothing, for 2 s`, pool, () => new Promise((resolve) => setTimeout(resolve, 2000)));
    await measure(`${at}check`, pool, () => check(dir));
    await measure(`${at}snapshot`, pool, () => pool.createSnapshot('big', 'snap'));
    await measure(`${at}delete it, all shared`, pool, () => pool.deleteVolume('snap'));
    await pool.createSnapshot('big', 'snap');
    await measure(`${at}discard of it all, shared`, pool, () => discard(pool, 'snap', size));
    await pool.createSnapshot('big', 'other');
    await pool.close();
    // One block in every leaf or so.
    await withMetadata(dir, (metadata) =>
      map(
        metadata,
        4,
        blocks.filter((block) => block % 200 === 0),
      ),
    );
    pool = await Pool.open(dir);
    await measure(`${at}delete, half shared`, pool, () => deleted(pool, 'other'));
    await measure(`${at}discard of it all`, pool, () => discard(pool, 'big', size));
    await pool.close();
    await withMetadata(dir, (metadata) => map(metadata, big.id, blocks));
    pool = await Pool.open(dir);
    await measure(`${at}delete`, pool, () => deleted(pool, 'big'));
    await pool.close();
    await check(dir);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** @param {string} dir */
async function check(dir) {
  const found = await checkPool(dir);
  if (found === null) throw new Error('the pool changed while it was checked');
  for (const { message } of found.damages) throw new Error(message);
}

/** @param {Pool} pool @param {string} name */
async function deleted(pool, name) {
  await pool.deleteVolume(name);
  await pool.deletionsEnded();
}

/** @param {Pool} pool @param {string} name @param {number} size */
async function discard(pool, name, size) {
  const device = pool.openVolume(name);
  await device.unmap(0, size);
  await pool.closeVolume(device);
  await pool.commit();
}

try {
  await run('in order', false);
  await run('at random', true);
} finally {
  removeAtExit();
}
console.log(table(rows));
