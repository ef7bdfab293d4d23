/** The iSCSI portal against tgt, both on a fully mapped file in the page cache of the same file system. */
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { findTool, missingToolMessage } from '../../test/support/debian-tools.mjs';
import { bytesPerSecondOf, iopsOf, medianLatencyOf, serverCpuOf } from '../lib/measure.mjs';
import { describeWriteCache } from '../lib/write-cache.mjs';
import { FILE_LUN, NULL_LUN, startTgt } from '../peers/tgt.mjs';
import { makePool, ThinlunPeer } from '../peers/thinlun.mjs';

const KIB = 1024;
const MIB = 1024 * KIB;
const AGAINST = 'tgtd, file';

/** @typedef {import('../lib/measure.mjs').Measurement & { load: Partial<import('../load/load.mjs').Load> }} PortalMeasurement */

/** @param {'read' | 'write'} operation @param {number} depth @returns {PortalMeasurement} */
function random(operation, depth) {
  const id = `portal-${operation}-4k-${depth}`;
  const title = `4 KiB random ${operation}, depth ${depth}`;
  const base = { against: AGAINST, ours: 'thinlun', theirs: 'tgt' };
  const iops = { ...base, unit: /** @type {const} */ ('iops'), value: iopsOf };
  const figures = [];
  if (depth === 1) {
    const latency = { ...base, unit: /** @type {const} */ ('us'), value: medianLatencyOf, target: { atMost: 1 } };
    figures.push({ ...latency, id, what: `${title}, median latency` });
  } else if (operation === 'read') figures.push({ ...iops, id, what: title, target: { atLeast: 3 } });
  else figures.push({ ...iops, id, what: title, target: depth === 32 ? { atLeast: 2 } : {} });
  const withNull = operation === 'read' && depth === 32;
  if (withNull) {
    figures.push({
      ...iops,
      id: `${id}-null`,
      what: title,
      against: 'tgtd, null (no storage)',
      theirs: 'tgt-null',
      target: { atLeast: 1 },
    });
    figures.push({
      ...base,
      id: `${id}-cpu`,
      what: `${title}, CPU of the server`,
      unit: /** @type {const} */ ('us'),
      value: serverCpuOf,
      target: { atMost: 0.5 },
    });
  }
  return {
    id,
    title,
    sides: withNull ? ['thinlun', 'tgt', 'tgt-null'] : ['thinlun', 'tgt'],
    figures,
    plot: { kind: 'depth', operation, depth },
    load: { operation, pattern: 'random', size: 4 * KIB, depth },
  };
}

/** @param {'read' | 'write'} operation @param {number} size @param {number} depth @returns {PortalMeasurement} */
function sequential(operation, size, depth) {
  const name = size === MIB ? '1 MiB' : `${size / KIB} KiB`;
  const id = `portal-${operation}-${size === MIB ? '1m' : `${size / KIB}k`}-${depth}`;
  const title = `${name} sequential ${operation}, depth ${depth}`;
  return {
    id,
    title,
    sides: ['thinlun', 'tgt'],
    figures: [
      {
        id,
        what: title,
        against: AGAINST,
        ours: 'thinlun',
        theirs: 'tgt',
        unit: 'bytes/s',
        value: bytesPerSecondOf,
        target: { atLeast: 1.3 },
      },
    ],
    load: { operation, pattern: 'sequential', size, depth },
  };
}

/** @type {readonly PortalMeasurement[]} */
const MEASUREMENTS = [
  ...[1, 32, 128].map((depth) => random('read', depth)),
  ...[1, 32, 128].map((depth) => random('write', depth)),
  ...[64 * KIB, MIB].flatMap((size) =>
    [8, 32].flatMap((depth) => [sequential('read', size, depth), sequential('write', size, depth)]),
  ),
];

/** @type {import('../lib/measure.mjs').Group} */
export const portalGroup = {
  name: 'portal',
  tools: ['tgtd', 'tgtadm'],
  measurements: MEASUREMENTS,
  async open(bench) {
    const bytes = bench.options.sizeMib * MIB;
    const pool = join(bench.folder, 'portal-pool');
    await makePool(pool, `${bench.options.sizeMib + 64}M`, `${bench.options.sizeMib}M`);
    const ours = await ThinlunPeer.start(pool, bench.nodeArgs);
    const servers = new Map([['thinlun', ours.at()]]);
    const stops = [() => ours.stop()];
    const obstacle =
      findTool('tgtd') === null
        ? missingToolMessage('tgtd')
        : process.getuid?.() === 0
          ? null
          : 'tgtd has to run as root';
    if (obstacle === null) {
      const file = join(bench.folder, 'tgt.img');
      const fd = openSync(file, 'w');
      ftruncateSync(fd, bytes);
      closeSync(fd);
      const tgt = await startTgt(join(bench.folder, 'tgt'), file);
      servers.set('tgt', tgt.at('tgt', FILE_LUN)).set('tgt-null', tgt.at('tgt-null', NULL_LUN));
      stops.push(tgt.stop);
    } else bench.leaveOut(`the comparison with tgt: ${obstacle}`);
    for (const [name, server] of servers) {
      if (name === 'tgt-null') continue;
      bench.settings[`${name} over iSCSI`] = await describeWriteCache(server);
      await bench.fill(server, bytes);
    }
    await bench.settle();
    /** @param {import('../lib/measure.mjs').Measurement} measurement @param {string} side @param {number} seed @param {number} seconds */
    const run = (measurement, side, seed, seconds) => {
      const { load } = /** @type {PortalMeasurement} */ (measurement);
      const server = /** @type {import('../load/load.mjs').Server} */ (servers.get(side));
      const positions = Math.floor(bytes / (load.size ?? 1));
      return bench.load(server, { ...load, positions, seed, measureMs: seconds * 1000 });
    };
    const { seconds } = bench.options;
    return {
      has: (side) => servers.has(side),
      warmUp: (measurement, side) => run(measurement, side, 999, Math.min(seconds, 0.5)),
      // The same positions for all sides, others every round.
      sample: (measurement, side, round) => run(measurement, side, 1000 + round, seconds),
      close: async () => {
        for (const stop of stops) await stop();
      },
    };
  },
};
