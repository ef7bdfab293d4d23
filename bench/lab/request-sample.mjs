/**
 * How long a server takes for a snapshot, its commit included: the message that `thinlun volume snapshot` sends, after another one, so that neither
 * the start of a program nor that of its HTTP is in it. usage: request-sample.mjs MEASUREMENT SIDE POOL ORIGIN NAME; prints `result: {...}`.
 */
import { ControlClient } from '../../dist/daemon/control-client.js';

const [measurement, side, pool = '', origin = '', name = ''] = process.argv.slice(2);
const server = await ControlClient.connect(pool);
if (server === null) throw new Error(`no server has ${pool} open`);
const from = performance.now();
await server.createSnapshots({ snapshots: [{ origin, name }] });
const commandSeconds = (performance.now() - from) / 1000;
await server.close();
console.log(`result: ${JSON.stringify({ measurement, side, sample: { commandSeconds } })}`);
