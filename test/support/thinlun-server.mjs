/**
 * The built program, started the way a user starts it. Plain JavaScript, because benchmarks and conformance runs use it as well.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { runOk, TestProcess } from './processes.mjs';

const ROOT = dirname(dirname(import.meta.dirname));
const COMMAND = join(ROOT, 'bin', 'thinlun');

/**
 * @typedef {object} ServedLun
 * @property {string} pool
 * @property {string} volume
 * @property {string} target The target's iSCSI name.
 * @property {number} lun
 * @property {string} url For libiscsi and qemu.
 */

/** Node's arguments for `bin/thinlun`. @param {readonly string[]} args */
function nodeArgs(args) {
  if (!existsSync(join(ROOT, 'dist', 'bundle', 'main.cjs')))
    throw new Error('thinlun is not built: run npm run build first');
  return [COMMAND, ...args];
}

/**
 * Runs one `thinlun` command to its end; resolves with standard output, rejects on any other exit status than 0.
 * @param {...string} args
 * @returns {Promise<string>}
 */
export function thinlun(...args) {
  return runOk(process.execPath, nodeArgs(args), { timeoutMs: 60_000 });
}

/** A running `thinlun serve` with its portal on a free port of 127.0.0.1. */
export class ThinlunServer {
  /** @type {TestProcess} */
  process;
  host = '127.0.0.1';
  port = 0;
  /** @type {ServedLun[]} */
  luns = [];
  /** What it said when it was ready. @type {any} */
  ready = null;

  /** @param {TestProcess} child */
  constructor(child) {
    this.process = child;
  }

  /**
   * Serves the pool folders; resolves when it says that it is ready.
   * @param {readonly string[]} folders
   * @param {{ args?: readonly string[], env?: Record<string, string>, nodeArgs?: readonly string[], port?: number, takeover?: boolean }} [options]
   * @returns {Promise<ThinlunServer>}
   */
  static async start(folders, options = {}) {
    const portal = options.takeover ? ['--takeover'] : ['--portal', `127.0.0.1:${options.port ?? 0}`];
    const args = nodeArgs(['serve', ...folders, ...portal, '--json', ...(options.args ?? [])]);
    const child = new TestProcess(process.execPath, [...(options.nodeArgs ?? []), ...args], { env: options.env ?? {} });
    const server = new ThinlunServer(child);
    try {
      const match = await child.waitForLine(/^\{"event":"ready".*\}$/, 30_000);
      server.#read(JSON.parse(match[0]));
    } catch (error) {
      await child.kill();
      throw error;
    }
    return server;
  }

  /** The only LUN that is served. @returns {ServedLun} */
  get lun() {
    const [lun] = this.luns;
    if (!lun || this.luns.length !== 1) throw new Error(`expected one LUN, there are ${this.luns.length}`);
    return lun;
  }

  get pid() {
    return this.process.pid;
  }

  get isRunning() {
    return this.process.exitStatus === null;
  }

  /** As a user stops it: SIGTERM, and it has to end well. */
  async stop() {
    const status = await this.process.stop(30_000);
    if (status.code !== 0) {
      throw new Error(`thinlun serve ended with ${status.signal ?? status.code}\n${this.process.describeOutput()}`);
    }
  }

  /** Another process has taken over: it ends by itself, and well. */
  async ended() {
    const status = await this.process.waitForExit(30_000);
    if (status.code !== 0)
      throw new Error(`thinlun serve ended with ${status.signal ?? status.code}\n${this.process.describeOutput()}`);
  }

  /** As a crash: SIGKILL. */
  async kill() {
    await this.process.kill();
  }

  /** @param {any} ready */
  #read(ready) {
    this.ready = ready;
    this.port = Number(ready.portals[0].split(':').at(-1));
    this.luns = ready.pools.flatMap((/** @type {any} */ pool) =>
      pool.volumes.map((/** @type {any} */ volume) => ({
        pool: pool.name,
        volume: volume.name,
        target: pool.target,
        lun: volume.lun,
        url: `iscsi://${this.host}:${this.port}/${pool.target}/${volume.lun}`,
      })),
    );
  }
}
