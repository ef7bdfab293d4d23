/** One run of a benchmark: its options, its folder, what it had to leave out, and how it ends. */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { runOk } from '../../test/support/processes.mjs';

export const ROOT = join(import.meta.dirname, '..', '..');
const LOAD = join(ROOT, 'bench', 'load', 'load.mjs');
/** Exit status after Ctrl-C. */
export const INTERRUPTED = 130;

/**
 * @typedef {object} BenchOptions
 * @property {number} rounds
 * @property {number} seconds
 * @property {number} sizeMib Of the volume of the portal's loads.
 * @property {string} folder Where everything that is made for the run lies.
 * @property {readonly string[]} [nodeArgs] For the processes whose code is ours.
 */

export class Bench {
  options;
  /** Removed at the end, whatever the end is. */
  folder;
  /** What is not measured, and why. @type {string[]} */
  leftOut = [];
  /** What a reader of the figures has to know: how each peer is set. @type {Record<string, string>} */
  settings = {};

  /** @param {BenchOptions} options */
  constructor(options) {
    this.options = options;
    this.folder = mkdtempSync(join(options.folder, 'thinlun-bench-'));
    const interrupted = () => {
      this.removeAtExit();
      process.exit(INTERRUPTED);
    };
    for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) process.once(signal, interrupted);
  }

  get nodeArgs() {
    return this.options.nodeArgs ?? [];
  }

  /** @param {string} reason */
  leaveOut(reason) {
    this.leftOut.push(reason);
    console.log(`Left out: ${reason}`);
  }

  /** Call it late: it is to be the last of the exit hooks, when what was started has been ended. */
  removeAtExit() {
    process.once('exit', () => this.#remove());
  }

  #remove() {
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  }

  /** What is dirty in the page cache belongs to what was measured before. */
  async settle() {
    await runOk('sync', ['-f', this.folder], { timeoutMs: 300_000 });
  }

  /**
   * Runs a load on a server. @param {import('../load/load.mjs').Server} server
   * @param {Partial<import('../load/load.mjs').Load>} load @returns {Promise<import('../load/load.mjs').Sample>}
   */
  async load(server, load) {
    const { seconds } = this.options;
    const whole = { server, warmupMs: 300, measureMs: seconds * 1000, seed: 1, stride: load.size, ...load };
    const timeoutMs = 300_000 + whole.warmupMs + whole.measureMs;
    return JSON.parse(await runOk(process.execPath, [LOAD, JSON.stringify(whole)], { timeoutMs }));
  }

  /** Writes all of a volume in its order. @param {import('../load/load.mjs').Server} server @param {number} bytes */
  fill(server, bytes) {
    const size = 2 ** 20;
    const once = { pattern: /** @type {const} */ ('once'), warmupMs: 0, measureMs: 0, flush: true };
    return this.load(server, { operation: 'write', size, positions: Math.floor(bytes / size), depth: 8, ...once });
  }
}
