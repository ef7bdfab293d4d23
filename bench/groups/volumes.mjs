/** The same work spread over more volumes of one pool: one session, the same depth and the same number of bytes in all. */
import { join } from 'node:path';
import { Pool } from '../../dist/thin/pool.js';
import { createPool } from '../../dist/thin/pool-create.js';
import { iopsOf } from '../lib/measure.mjs';
import { ThinlunPeer } from '../peers/thinlun.mjs';

const MIB = 2 ** 20;
const PAGE = 4096;
const DEPTH = 64;
const COUNTS = [1, 4, 16, 64];
const MOST = 64;

/** @param {'read' | 'write'} operation @returns {import('../lib/measure.mjs').Measurement} */
function volumes(operation) {
  const what = `4 KiB random ${operation}, depth ${DEPTH} in all`;
  return {
    id: `volumes-${operation}`,
    title: `${what}, by volumes`,
    sides: COUNTS.map(String),
    figures: COUNTS.slice(1).map((count) => ({
      id: `volumes-${operation}-${count}`,
      what: `${what}, ${count} volumes`,
      against: 'itself with 1',
      ours: String(count),
      theirs: '1',
      unit: 'iops',
      value: iopsOf,
      target: count === MOST ? { atLeast: 0.9 } : {},
    })),
    plot: { kind: 'volumes', operation },
  };
}

const READS = volumes('read');
const WRITES = volumes('write');

/** @type {import('../lib/measure.mjs').Group} */
export const volumesGroup = {
  name: 'volumes',
  tools: [],
  measurements: [READS, WRITES],
  async open(bench) {
    const bytes = bench.options.sizeMib * MIB;
    const dir = join(bench.folder, 'volumes-pool');
    await createPool(dir, { dataSizeBytes: 4 * bytes + 64 * MIB });
    const pool = await Pool.open(dir);
    for (let i = 0; i < MOST; i++) await pool.createVolume(`volume-${i}`, bytes);
    await pool.close();
    const peer = await ThinlunPeer.start(dir, bench.nodeArgs);
    const luns = peer.at().luns;
    for (const [index, lun] of luns.entries()) {
      // As much of each as the smallest number of volumes that it is one of wants of it.
      const fewest = COUNTS.find((count) => index < count) ?? MOST;
      await bench.fill(peer.at('thinlun', [lun]), bytes / fewest);
    }
    await bench.settle();
    return {
      has: () => true,
      sample: (measurement, side, round) => {
        const count = Number(side);
        return bench.load(peer.at(side, luns.slice(0, count)), {
          operation: measurement === WRITES ? 'write' : 'read',
          pattern: 'random',
          size: PAGE,
          positions: bytes / count / PAGE,
          depth: DEPTH,
          seed: 5000 + round,
        });
      },
      close: () => peer.stop(),
    };
  },
};
