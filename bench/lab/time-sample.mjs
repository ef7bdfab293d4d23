/** How long a command takes. usage: time-sample.mjs MEASUREMENT SIDE COMMAND...; prints `result: {...}`. */
import { spawnSync } from 'node:child_process';

const [measurement, side, program = '', ...args] = process.argv.slice(2);
const from = performance.now();
const { status } = spawnSync(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
const commandSeconds = (performance.now() - from) / 1000;
if (status !== 0) throw new Error(`${program} ${args.join(' ')}: exit status ${status}`);
console.log(`result: ${JSON.stringify({ measurement, side, sample: { commandSeconds } })}`);
