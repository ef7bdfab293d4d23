/** The two other things that `npm run bench` does with a load: `--profile` and `--garbage`. */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { runOk } from '../test/support/processes.mjs';
import { ROOT } from './lib/bench.mjs';
import { digits, table } from './lib/format.mjs';
import { readCollection, summarize } from './lib/garbage.mjs';
import { selfTimes } from './lib/profile.mjs';
import { makePool, ThinlunPeer } from './peers/thinlun.mjs';

const MIB = 2 ** 20;
const PAGE = 4096;
const TOP_FUNCTIONS = 30;
const TOP_MODULES = 15;
const WARMUP_MS = 3000;

/**
 * Our side of one measurement with a CPU profile of the process whose code is ours; prints where its time went.
 * @param {import('./lib/bench.mjs').Bench} bench @param {import('./lib/measure.mjs').Group} group @param {import('./lib/measure.mjs').Measurement} measurement
 */
export async function profile(bench, group, measurement) {
  const folder = join(bench.folder, 'profiles');
  mkdirSync(folder);
  bench.options.nodeArgs = ['--cpu-prof', `--cpu-prof-dir=${folder}`, '--cpu-prof-interval=200'];
  const setup = await group.open(bench, [measurement]);
  const side = measurement.figures[0]?.ours ?? '';
  let [from, to] = [0, 0];
  try {
    await setup.warmUp?.(measurement, side);
    from = monotonicUs();
    const sample = await setup.sample(measurement, side, 0);
    to = monotonicUs();
    console.log(`${measurement.title}: ${JSON.stringify(sample)}`);
  } finally {
    await setup.close();
  }
  // Of all the processes of ours, the one that did the work.
  const profiles = readdirSync(folder)
    .map((name) => selfTimes(JSON.parse(readFileSync(join(folder, name), 'utf8')), ROOT, from, to))
    .sort((a, b) => b.busyUs - a.busyUs);
  const [times] = profiles;
  if (times === undefined) throw new Error('the process left no profile');
  const { busyUs, idleUs, functions, modules } = times;
  console.log(`main thread: ${(busyUs / 1e6).toFixed(2)} s busy, ${(idleUs / 1e6).toFixed(2)} s idle\n`);
  /** @param {string} title @param {import('./lib/profile.mjs').Share[]} list @param {number} count */
  const show = (title, list, count) => {
    const rows = list
      .slice(0, count)
      .map(({ name, us }) => [name, `${((100 * us) / busyUs).toFixed(1)}%`, (us / 1000).toFixed(0)]);
    console.log(`${table([[title, 'of busy', 'ms'], ...rows])}\n`);
  };
  show('module, self time', modules, TOP_MODULES);
  show('function, self time', functions, TOP_FUNCTIONS);
}

function monotonicUs() {
  return Number(process.hrtime.bigint() / 1000n);
}

/** The loads for which it is shown that nothing is allocated for a command. @param {import('./lib/bench.mjs').Bench} bench */
export async function garbage(bench) {
  const { sizeMib, seconds } = bench.options;
  const pool = join(bench.folder, 'garbage-pool');
  await makePool(pool, `${sizeMib + 64}M`, `${sizeMib}M`);
  const rows = [];
  const peer = await ThinlunPeer.start(pool, ['--trace-gc']);
  await bench.fill(peer.at(), sizeMib * MIB);
  for (const operation of /** @type {const} */ (['read', 'write'])) {
    for (const depth of [1, 32]) {
      const load = {
        operation,
        pattern: /** @type {const} */ ('random'),
        size: PAGE,
        positions: (sizeMib * MIB) / PAGE,
        depth,
      };
      await bench.load(peer.at(), { ...load, measureMs: Math.min(WARMUP_MS, seconds * 1000) });
      /** @type {import('./lib/garbage.mjs').Collection[]} */
      const collections = [];
      const stop = peer.server.process.watchLines((line) => {
        const collection = readCollection(line);
        if (collection !== null) collections.push(collection);
      });
      const sample = await bench.load(peer.at(), { ...load, warmupMs: 0 });
      stop();
      rows.push({
        load: `portal, 4 KiB random ${operation}, depth ${depth}`,
        ...summarize(collections, sample.iops, sample.seconds),
      });
    }
  }
  await peer.stop();
  rows.push({ load: 'ring replay, 4 KiB random read, depth 128', ...(await ringGarbage(pool, seconds)) });
  console.log(
    table([
      ['load', 'commands', 'bytes per command', 'minor', 'major', 'longest ms', 'time in it'],
      ...rows.map((row) => [
        row.load,
        String(row.commands),
        row.bytesPerCommand === null ? 'fewer than two collections' : digits(row.bytesPerCommand),
        String(row.minor),
        String(row.major),
        digits(row.longestMs),
        `${(row.share * 100).toFixed(2)}%`,
      ]),
    ]),
  );
  return rows;
}

/** @param {string} pool @param {number} seconds */
async function ringGarbage(pool, seconds) {
  const options = JSON.stringify({ pool, volume: 'bench', depth: 128, seed: 1, seconds, count: 0 });
  const script = join(ROOT, 'bench', 'load', 'ring-replay.mjs');
  const output = await runOk(process.execPath, ['--trace-gc', script, options], { timeoutMs: 60_000 + seconds * 1000 });
  const lines = output.trim().split('\n');
  const { rate, fromMs, toMs } = JSON.parse(lines.find((line) => line.startsWith('{')) ?? '');
  const collections = lines.map(readCollection).filter((one) => one !== null && one.atMs >= fromMs && one.atMs <= toMs);
  return summarize(/** @type {import('./lib/garbage.mjs').Collection[]} */ (collections), rate, seconds);
}
