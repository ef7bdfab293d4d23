/**
 * Writes that need a new block: the first to a place, and the first after a snapshot. Each 4 KiB write goes to another 64 KiB block, in no order, each block is
 * written once. The peer is a qcow2 image with clusters of the same size, served by QEMU's storage daemon over NBD: a fresh one, and a fresh overlay of a full one.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { findTool, missingToolMessage } from '../../test/support/debian-tools.mjs';
import { thinlun } from '../../test/support/thinlun-server.mjs';
import { iopsOf } from '../lib/measure.mjs';
import { makeQcow2, startQemuStorageDaemon } from '../peers/qemu.mjs';
import { makePool, ThinlunPeer } from '../peers/thinlun.mjs';

const MIB = 2 ** 20;
const BLOCK = 65536;
/** Volumes are this many times as large as the portal's: a sample ends when every block was written. */
const VOLUME_FACTOR = 4;
const DEPTH = 32;

/** @param {string} id @param {string} what @param {string} against @param {number} atLeast @returns {import('../lib/measure.mjs').Measurement} */
function measurement(id, what, against, atLeast) {
  const title = `${what}, 4 KiB random, depth ${DEPTH}`;
  const figure = { id, what: title, against, ours: 'thinlun', theirs: 'qemu', unit: /** @type {const} */ ('iops') };
  return { id, title, sides: ['thinlun', 'qemu'], figures: [{ ...figure, value: iopsOf, target: { atLeast } }] };
}

const FIRST = measurement('first-write', 'first write to unmapped blocks', 'qcow2 over NBD, fresh image', 2);
const OVERWRITE = measurement('overwrite-snapshot', 'overwrite after a snapshot', 'qcow2 over NBD, fresh overlay', 3);

/** Our side: one server, which is warm, and a new volume or snapshot for each sample. */
class OurSide {
  #pool;
  #peer;
  #bytes;

  /** @param {string} pool @param {ThinlunPeer} peer @param {number} bytes */
  constructor(pool, peer, bytes) {
    this.#pool = pool;
    this.#peer = peer;
    this.#bytes = bytes;
  }

  /** @param {import('../lib/bench.mjs').Bench} bench @param {number} bytes @param {boolean} mapped */
  static async start(bench, bytes, mapped) {
    const pool = join(bench.folder, 'provisioning-pool');
    await makePool(pool, String(3 * bytes + 64 * MIB), String(bytes));
    const side = new OurSide(pool, await ThinlunPeer.start(pool, bench.nodeArgs), bytes);
    if (mapped) await bench.fill(await side.at('bench'), bytes);
    return side;
  }

  /** @param {string} name */
  async at(name) {
    const volumes = JSON.parse(await thinlun('volume', 'list', this.#pool, '--json'));
    const { lun } = volumes.find((/** @type {{ name: string }} */ volume) => volume.name === name);
    return this.#peer.at('thinlun', [lun]);
  }

  async fresh() {
    await thinlun('volume', 'create', this.#pool, 'fresh', '--size', String(this.#bytes));
    return this.at('fresh');
  }

  async snapshotted() {
    await thinlun('volume', 'snapshot', this.#pool, 'bench', 'fresh');
    return this.at('bench');
  }

  async forget() {
    await thinlun('volume', 'delete', this.#pool, 'fresh');
    // What it had goes back to the file system in the background.
    const volumes = async () => JSON.parse(await thinlun('pool', 'status', this.#pool, '--json'));
    for (let before = -1; ; ) {
      const { dataUsedBytes } = await volumes();
      if (dataUsedBytes === before) break;
      before = dataUsedBytes;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }

  async stop() {
    await this.#peer.stop();
    rmSync(this.#pool, { recursive: true, force: true });
  }
}

/** The peer: a new image and a new daemon for each sample. */
class QemuSide {
  #folder;
  #bytes;
  #aio = '';

  /** @param {string} folder @param {number} bytes */
  constructor(folder, bytes) {
    this.#folder = folder;
    this.#bytes = bytes;
  }

  get settings() {
    return `write cache on (cache.direct=off, flushes obeyed), aio=${this.#aio}, 64 KiB clusters, all tables cached`;
  }

  get #base() {
    return join(this.#folder, 'base.qcow2');
  }

  /** @param {import('../lib/bench.mjs').Bench} bench */
  async makeBase(bench) {
    await makeQcow2(this.#base, this.#bytes);
    const daemon = await startQemuStorageDaemon(this.#base);
    await bench.fill(daemon.at(), this.#bytes);
    await daemon.stop();
  }

  /** @template T @param {boolean} isOverlay @param {(server: import('../load/load.mjs').Server) => Promise<T>} work */
  async with(isOverlay, work) {
    const file = join(this.#folder, 'fresh.qcow2');
    await makeQcow2(file, this.#bytes, isOverlay ? this.#base : undefined);
    const daemon = await startQemuStorageDaemon(file);
    this.#aio = daemon.aio;
    try {
      return await work(daemon.at());
    } finally {
      await daemon.stop();
      rmSync(file);
    }
  }
}

/** @type {import('../lib/measure.mjs').Group} */
export const provisioningGroup = {
  name: 'provisioning',
  tools: ['qemu-storage-daemon', 'qemu-img'],
  measurements: [FIRST, OVERWRITE],
  async open(bench, wanted) {
    const bytes = VOLUME_FACTOR * bench.options.sizeMib * MIB;
    const needsBase = wanted.includes(OVERWRITE);
    const ours = await OurSide.start(bench, bytes, needsBase);
    const missing = ['qemu-storage-daemon', 'qemu-img'].filter((name) => findTool(name) === null);
    const qemu = missing.length === 0 ? new QemuSide(bench.folder, bytes) : null;
    if (qemu === null) bench.leaveOut(`the comparison with qcow2: ${missing.map(missingToolMessage).join(', ')}`);
    else if (needsBase) await qemu.makeBase(bench);
    /** @param {import('../load/load.mjs').Server} server @param {number} round */
    const load = (server, round) =>
      bench.load(server, {
        operation: 'write',
        pattern: 'once-shuffled',
        size: 4096,
        stride: BLOCK,
        positions: bytes / BLOCK,
        depth: DEPTH,
        warmupMs: 0,
        seed: 2000 + round,
        flush: true,
      });
    /** @param {import('../lib/measure.mjs').Measurement} measurement @param {string} side @param {number} round */
    const sample = async (measurement, side, round) => {
      await bench.settle();
      if (side === 'qemu') return qemu.with(measurement === OVERWRITE, (server) => load(server, round));
      const server = measurement === OVERWRITE ? await ours.snapshotted() : await ours.fresh();
      try {
        return await load(server, round);
      } finally {
        await ours.forget();
      }
    };
    return {
      has: (side) => side === 'thinlun' || qemu !== null,
      warmUp: (measurement, side) => sample(measurement, side, -1),
      sample,
      close: async () => {
        if (qemu !== null) bench.settings['qemu over NBD'] = qemu.settings;
        await ours.stop();
      },
    };
  },
};
