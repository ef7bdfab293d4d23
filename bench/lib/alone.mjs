/** Programs that make their own load and say how fast they were: of bench/load and bench/c. */
import { join } from 'node:path';
import { runOk } from '../../test/support/processes.mjs';
import { ROOT } from './bench.mjs';

const GRACE_MS = 120_000;

/** @param {string} program @param {readonly string[]} args @param {number} seconds @returns {Promise<import('./measure.mjs').Sample>} */
export async function runAlone(program, args, seconds) {
  const output = await runOk(program, args, { timeoutMs: GRACE_MS + seconds * 1000 });
  const { rate, cpuUs } = JSON.parse(output.split('\n').find((line) => line.startsWith('{')) ?? '');
  return { iops: rate, serverCpuUs: cpuUs };
}

/** One of bench/load. @param {string} name @param {{ seconds: number }} options @param {readonly string[]} nodeArgs */
export function runLoad(name, options, nodeArgs) {
  const script = join(ROOT, 'bench', 'load', name);
  return runAlone(process.execPath, [...nodeArgs, script, JSON.stringify(options)], options.seconds);
}
