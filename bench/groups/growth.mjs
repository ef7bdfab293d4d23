/**
 * What the size of a pool costs: IOPS with the default cache of metadata, memory, the time to start; and lookups against C in the same nodes.
 *
 * The data files are holes, as nobody has 640 GB to fill for this. Each load reads the same number of places, spread evenly over the whole volume (with 10 M blocks: every
 * leaf of the mapping tree), each of which has been read once before: their pages are in the page cache, as those of a working set would be.
 *
 * The kernel's part is not the same for all sizes: it finds pages that lie close together, as in a small data file, in half the time. So a small pool whose blocks lie as far
 * apart as those of the largest is measured, too, with one page of each block on both sides: there only the metadata differ.
 */
import { join } from 'node:path';
import { findTool, missingToolMessage } from '../../test/support/debian-tools.mjs';
import { FastInitiator } from '../../test/support/fast-initiator.mjs';
import { runAlone, runLoad } from '../lib/alone.mjs';
import { compile } from '../lib/compile.mjs';
import { memoryOf } from '../lib/cpu.mjs';
import { BLOCK, makeLargePool } from '../lib/large-pool.mjs';
import { iopsOf } from '../lib/measure.mjs';
import { ThinlunPeer } from '../peers/thinlun.mjs';

const MIB = 2 ** 20;
const PAGE = 4096;
const DEPTH = 32;
const PLACES = 131_072;
const PLACES_ALIKE = 10_000;
const VOLUME = 'large';
/** The cache of the lookups holds all of the metadata of 10 M blocks. */
const WARM_CACHE_BLOCKS = 65_536;
/** @type {Readonly<Record<string, number>>} */
const SIZES = { '10k': 10_000, '100k': 100_000, '1M': 1_000_000, '10M': 10_000_000 };
const LARGEST = '10M';
const ALL = Object.keys(SIZES);
/** As many blocks as the smallest pool has, strewn over a data file as large as the largest one's. */
const STREWN = '10k-strewn';

/** @typedef {import('../lib/measure.mjs').Measurement} Measurement */

/** Only reads: a write to a hole would measure how the file system allocates. @type {Measurement} */
const READS = (() => {
  const id = 'growth';
  const what = `4 KiB random read, depth ${DEPTH}`;
  return {
    id,
    title: `${what}, as the pool grows`,
    sides: ALL,
    figures: ALL.slice(1).map((size) => ({
      id: `${id}-${size}`,
      what: `${what}, ${size} mapped blocks`,
      against: 'itself with 10k',
      ours: size,
      theirs: '10k',
      unit: 'iops',
      value: iopsOf,
      target: size === LARGEST ? { atLeast: 0.8 } : {},
    })),
    plot: { kind: 'growth', blocks: SIZES },
  };
})();

/** @type {Measurement} */
const READS_ALIKE = {
  id: 'growth-alike',
  title: `4 KiB random read, depth ${DEPTH}, as the pool grows, with all data as far apart`,
  sides: [LARGEST, STREWN],
  figures: [
    {
      id: 'growth-alike-10M',
      what: `4 KiB random read, depth ${DEPTH}, 10M mapped blocks, one page of each of ${PLACES_ALIKE} blocks`,
      against: 'itself with 10k as far apart',
      ours: LARGEST,
      theirs: STREWN,
      unit: 'iops',
      value: iopsOf,
      target: {},
    },
  ],
};

/** @type {Measurement} */
const MEMORY = {
  id: 'memory-10M',
  title: 'memory at 10M mapped blocks',
  sides: [LARGEST],
  figures: [
    {
      id: 'memory-10M',
      what: 'largest RSS, 10M mapped blocks, random reads, default cache',
      against: '',
      ours: LARGEST,
      theirs: null,
      unit: 'bytes',
      value: ({ rssBytes }) => Number(rssBytes),
      target: { atMost: 400 * MIB },
    },
  ],
};
/** @type {Measurement} */
const START = {
  id: 'start-10M',
  title: 'start on 10M mapped blocks',
  sides: [LARGEST],
  figures: [
    {
      id: 'start-10M',
      what: 'from the start of the process to the answer of the first READ, 10M mapped blocks',
      against: '',
      ours: LARGEST,
      theirs: null,
      unit: 's',
      value: ({ startSeconds }) => Number(startSeconds),
      target: { atMost: 1 },
    },
  ],
};
/** @type {Measurement} */
const LOOKUP = {
  id: 'lookup-10M',
  title: 'mapping lookup, 10M mappings, random, warm',
  sides: ['thinlun', 'c'],
  figures: [
    {
      id: 'lookup-10M',
      what: 'mapping lookup, 10M mappings, random, warm',
      against: 'a C b-tree walk in the same nodes',
      ours: 'thinlun',
      theirs: 'c',
      unit: 'lookups/s',
      value: iopsOf,
      target: { atLeast: 0.3 },
    },
  ],
};

/** @param {string} size */
function blocksOf(size) {
  return SIZES[size === STREWN ? '10k' : size] ?? 0;
}

/** The pools, and the servers of those that are needed. */
class Pools {
  #bench;
  /** @type {Map<string, ThinlunPeer>} */
  #peers = new Map();
  /** Places that have been read. @type {Set<string>} */
  #read = new Set();

  /** @param {import('../lib/bench.mjs').Bench} bench */
  constructor(bench) {
    this.#bench = bench;
  }

  /** @param {string} size */
  dir(size) {
    return join(this.#bench.folder, `pool-${size}`);
  }

  /** @param {string} size */
  async make(size) {
    await makeLargePool(this.dir(size), VOLUME, blocksOf(size), size === STREWN ? SIZES[LARGEST] : undefined);
  }

  /** @param {string} size */
  async peer(size) {
    const running = this.#peers.get(size);
    if (running !== undefined) return running;
    const peer = await ThinlunPeer.start(this.dir(size), this.#bench.nodeArgs);
    this.#peers.set(size, peer);
    return peer;
  }

  /** @param {string} size @param {number} positions @param {number} seed @returns {Promise<import('../load/load.mjs').Sample>} */
  async load(size, positions, seed) {
    const server = (await this.peer(size)).at(size);
    const stride = Math.floor((blocksOf(size) * BLOCK) / positions / PAGE) * PAGE;
    const operation = /** @type {const} */ ('read');
    const load = { operation, size: PAGE, stride, positions, depth: DEPTH, seed };
    const places = `${positions} of ${size}`;
    if (!this.#read.has(places)) {
      this.#read.add(places);
      await this.#bench.load(server, { ...load, pattern: 'once', warmupMs: 0, measureMs: 0 });
    }
    return this.#bench.load(server, { ...load, pattern: 'random' });
  }

  /** Seconds until a new process has answered a READ. @param {string} size */
  async start(size) {
    await this.stop(size);
    const from = performance.now();
    const peer = await this.peer(size);
    const { host, port, target, luns } = peer.at();
    const initiator = await FastInitiator.connect({ host, port, target, lun: luns[0] ?? 0 });
    await initiator.runGood((command) => command.read(0, PAGE / initiator.blockSize, initiator.blockSize));
    const seconds = (performance.now() - from) / 1000;
    await initiator.close();
    return seconds;
  }

  /** @param {string} size */
  async stop(size) {
    const peer = this.#peers.get(size);
    this.#peers.delete(size);
    await peer?.stop();
  }

  async close() {
    for (const size of [...ALL, STREWN]) await this.stop(size);
  }
}

/** @type {import('../lib/measure.mjs').Group} */
export const growthGroup = {
  name: 'growth',
  tools: ['gcc'],
  measurements: [READS, READS_ALIKE, MEMORY, START, LOOKUP],
  async open(bench, wanted) {
    const { seconds } = bench.options;
    const pools = new Pools(bench);
    const sizes = wanted.includes(READS) ? [...ALL] : [LARGEST];
    if (wanted.includes(READS_ALIKE)) sizes.push(STREWN);
    for (const size of sizes) await pools.make(size);
    const program = !wanted.includes(LOOKUP) || findTool('gcc') === null ? null : await compile('lookup', bench.folder);
    if (wanted.includes(LOOKUP) && program === null) {
      bench.leaveOut(`the comparison of lookups with C: ${missingToolMessage('gcc')}`);
    }
    const metadata = join(pools.dir(LARGEST), 'metadata');
    const keys = SIZES[LARGEST] ?? 0;
    /** @param {string} side @param {number} seed */
    const lookup = (side, seed) => {
      if (side === 'c') {
        const args = [metadata, ...[1, keys, seed, seconds, 0].map(String)];
        return runAlone(/** @type {string} */ (program), args, seconds);
      }
      const options = { metadata, device: 1, keys, cacheBlocks: WARM_CACHE_BLOCKS, seed, seconds, count: 0 };
      return runLoad('lookup.mjs', options, bench.nodeArgs);
    };
    return {
      has: (side) => side !== 'c' || program !== null,
      sample: async (measurement, side, round) => {
        const seed = 4000 + round;
        if (measurement === START) return { startSeconds: await pools.start(side) };
        if (measurement === LOOKUP) {
          // Nobody else has the metadata open.
          await pools.stop(LARGEST);
          return lookup(side, seed);
        }
        const sample = await pools.load(side, measurement === READS_ALIKE ? PLACES_ALIKE : PLACES, seed);
        if (measurement !== MEMORY) return sample;
        return { ...sample, rssBytes: memoryOf((await pools.peer(side)).pid, 'VmHWM') };
      },
      close: () => pools.close(),
    };
  },
};
