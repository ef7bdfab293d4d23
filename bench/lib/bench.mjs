/** One run of a benchmark: its options, its folder, what it had to leave out, and how it ends. */
import { join } from 'node:path';
import { runOk } from '../../test/support/processes.mjs';
import { scratchFolder } from './scratch.mjs';

export const ROOT = join(import.meta.dirname, '..', '..');
const LOAD = join(ROOT, 'bench', 'load', 'load.mjs');

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
  /** Call it late: what has been started is to be ended before. */
  removeAtExit;
  /** What is not measured, and why. @type {string[]} */
  leftOut = [];
  /** What a reader of the figures has to know: how each peer is set. @type {Record<string, string>} */
  settings = {};

  /** @param {BenchOptions} options */
  constructor(options) {
    this.options = options;
    const { folder, removeAtExit } = scratchFolder(options.folder);
    this.folder = folder;
    this.removeAtExit = removeAtExit;
  }

  get nodeArgs() {
    return this.options.nodeArgs ?? [];
  }

  /** @param {string} reason */
  leaveOut(reason) {
    this.leftOut.push(reason);
    console.log(`Left out: ${reason}`);
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
