/**
 * How long a server takes for a snapshot, its commit included: the message that `thinlun volume snapshot` sends, on a connection that has
 * been used, so that neither the start of a program nor that of its HTTP is in it. usage: request-sample.mjs MEASUREMENT SIDE POOL ORIGIN NAME; prints `result: {...}`.
 */
import { Agent, request } from 'node:http';
import { join } from 'node:path';

const [measurement, side, pool = '', origin, name] = process.argv.slice(2);
const agent = new Agent({ keepAlive: true, maxSockets: 1 });

/** @param {string} method @param {string} path @param {unknown} [message] @returns {Promise<void>} */
function ask(method, path, message) {
  const body = message === undefined ? '' : JSON.stringify(message);
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: join(pool, 'control.sock'), method, path, agent, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => {
        if (Math.floor((response.statusCode ?? 0) / 100) === 2) resolve();
        else reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`));
      });
    });
    asked.on('error', reject);
    asked.end(body);
  });
}

await ask('GET', '/v1/pool');
const from = performance.now();
await ask('POST', '/v1/snapshots', { snapshots: [{ origin, name }] });
const commandSeconds = (performance.now() - from) / 1000;
agent.destroy();
console.log(`result: ${JSON.stringify({ measurement, side, sample: { commandSeconds } })}`);
