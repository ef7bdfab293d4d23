/** The TCMU code without a kernel, against the same loop in C: both on the same metadata and data file, which is in the page cache. */
import { join } from 'node:path';
import { findTool, missingToolMessage } from '../../test/support/debian-tools.mjs';
import { runAlone, runLoad } from '../lib/alone.mjs';
import { compile } from '../lib/compile.mjs';
import { iopsOf } from '../lib/measure.mjs';
import { makePool, ThinlunPeer } from '../peers/thinlun.mjs';

const MIB = 2 ** 20;
const BLOCK = 65536;
const PAGE = 4096;
const DEPTH = 128;
/** The first device of a new pool. */
const DEVICE = 1;
const TITLE = `ring replay, 4 KiB random read, depth ${DEPTH}`;

/** @type {import('../lib/measure.mjs').Group} */
export const ringGroup = {
  name: 'ring',
  tools: ['gcc'],
  measurements: [
    {
      id: 'ring-replay',
      title: TITLE,
      sides: ['thinlun', 'c'],
      figures: [
        {
          id: 'ring-replay',
          what: TITLE,
          against: 'the same loop in C, pread',
          ours: 'thinlun',
          theirs: 'c',
          unit: 'iops',
          value: iopsOf,
          target: { atLeast: 0.6 },
        },
      ],
    },
  ],
  async open(bench) {
    const { sizeMib, seconds } = bench.options;
    const pool = join(bench.folder, 'ring-pool');
    await makePool(pool, `${sizeMib + 64}M`, `${sizeMib}M`);
    const peer = await ThinlunPeer.start(pool);
    // At random, so that the volume's blocks lie in no order.
    const positions = (sizeMib * MIB) / BLOCK;
    const fill = { pattern: /** @type {const} */ ('once-shuffled'), size: BLOCK, positions, depth: 8 };
    await bench.load(peer.at(), { ...fill, operation: 'write', warmupMs: 0, measureMs: 0, flush: true });
    await peer.stop();
    const program = findTool('gcc') === null ? null : await compile('ring-replay', bench.folder);
    if (program === null) bench.leaveOut(`the comparison with C: ${missingToolMessage('gcc')}`);
    return {
      has: (side) => side === 'thinlun' || program !== null,
      sample: (_, side, round) => {
        const seed = 3000 + round;
        if (side === 'c') {
          const files = [join(pool, 'metadata'), join(pool, 'data')];
          const numbers = [DEVICE, BLOCK, (sizeMib * MIB) / PAGE, DEPTH, seed, seconds, 0];
          return runAlone(/** @type {string} */ (program), [...files, ...numbers.map(String)], seconds);
        }
        const options = { pool, volume: 'bench', depth: DEPTH, seed, seconds, count: 0 };
        return runLoad('ring-replay.mjs', options, bench.nodeArgs);
      },
      close: async () => {},
    };
  },
};
