/**
 * One measured load on one server, in a process of its own, over iSCSI or NBD. usage: node load.mjs JSON, with the fields of `Load`;
 * prints a `Sample` as JSON.
 */
import { FastInitiator, Command as ScsiCommand } from '../../test/support/fast-initiator.mjs';
import { FastNbd, NbdCommand } from '../../test/support/fast-nbd.mjs';
import { cpuOf, cpuOfMachine } from '../lib/cpu.mjs';
import { LatencyHistogram } from '../lib/latency.mjs';
import { Random } from '../lib/random.mjs';

/**
 * @typedef {object} Server
 * @property {string} name
 * @property {'iscsi' | 'nbd'} protocol
 * @property {string} host
 * @property {number} port
 * @property {string} target The iSCSI name of the target, or the name of the NBD export.
 * @property {readonly number[]} luns Commands go to them in turn.
 * @property {number} pid Whose CPU time is counted.
 *
 * @typedef {object} Load
 * @property {Server} server
 * @property {'read' | 'write'} operation
 * @property {'random' | 'sequential' | 'once' | 'once-shuffled'} pattern `once`: each position one time, then it ends.
 * @property {number} size Bytes of one command.
 * @property {number} stride Bytes from one position to the next.
 * @property {number} positions
 * @property {number} depth
 * @property {number} warmupMs
 * @property {number} measureMs 0: no limit.
 * @property {number} seed
 * @property {boolean} [flush] Afterwards; it is not part of the figures.
 *
 * @typedef {object} Sample
 * @property {number} iops
 * @property {number} bytesPerSecond
 * @property {{ mean: number, p50: number, p90: number, p99: number, p999: number }} latencyUs
 * @property {number} serverCpuUs Per command, all threads.
 * @property {number} serverCores
 * @property {number} clientCores Of this process: near 1 it measures itself.
 * @property {number} otherCores Of everything else on the machine.
 * @property {number} seconds
 */

/** @param {Server} server */
async function connect({ protocol, host, port, target, luns }) {
  if (protocol === 'nbd') return { client: await FastNbd.connect({ host, port, name: target }), Command: NbdCommand };
  const [lun = 0] = luns;
  const client = await FastInitiator.connect({ host, port, target, lun });
  for (const other of luns.slice(1)) await makeReady(client, other);
  return { client, Command: ScsiCommand };
}

/** TEST UNIT READY until the unit has told all that it had to tell. @param {FastInitiator} client @param {number} lun */
async function makeReady(client, lun) {
  for (let attempt = 0; ; attempt++) {
    const { status } = await client.run((command) => {
      command.lun = lun;
      command.cdb.fill(0);
    });
    if (status === 0) return;
    if (attempt === 10) throw new Error(`LUN ${lun} does not become ready: status ${status}`);
  }
}

/** Which position comes next; -1: none any more. @param {Load} load @param {Random} random @returns {() => number} */
function positionsOf({ pattern, positions }, random) {
  if (pattern === 'random') return () => random.below(positions);
  if (pattern === 'sequential') {
    let next = random.below(positions);
    return () => {
      next = (next + 1) % positions;
      return next;
    };
  }
  const order = Uint32Array.from({ length: positions }, (_, i) => i);
  if (pattern === 'once-shuffled') random.shuffle(order);
  let at = 0;
  return () => (at < order.length ? /** @type {number} */ (order[at++]) : -1);
}

/** @param {Load} load @returns {Promise<Sample>} */
async function measure(load) {
  const { operation, size, depth, server } = load;
  const { client, Command } = await connect(server);
  const { blockSize } = client;
  const [blocks, strideBlocks] = [size / blockSize, load.stride / blockSize];
  const random = new Random(load.seed);
  const nextPosition = positionsOf(load, random);
  // Not compressible, not zero: no server may get away with less work.
  const data = Buffer.allocUnsafe(size);
  for (let i = 0; i < data.length; i++) data[i] = random.below(256);

  const startedAt = new Float64Array(depth);
  const latencies = new LatencyHistogram();
  let measuring = load.warmupMs === 0;
  let stopping = false;
  let live = 0;
  let turn = 0;
  /** @type {() => void} */
  let ended = () => {};
  const end = new Promise((resolve) => {
    ended = () => resolve('ended');
  });
  /** @type {Error | null} */
  let broken = null;

  const issue = (command, slot) => {
    const position = stopping ? -1 : nextPosition();
    if (position < 0) {
      if (--live === 0) ended();
      return;
    }
    if (server.luns.length > 1) command.lun = server.luns[turn++ % server.luns.length];
    if (operation === 'read') command.read(position * strideBlocks, blocks, blockSize);
    else command.write(position * strideBlocks, blocks, data);
    startedAt[slot] = performance.now();
    client.submit(command);
  };
  const meter = new Meter(server.pid);
  for (let slot = 0; slot < depth; slot++) {
    const command = new Command((completed) => {
      if (completed.status !== 0) {
        broken ??= client.failure ?? new Error(`status ${completed.status}: ${completed.sense?.toString('hex')}`);
        stopping = true;
      }
      if (measuring) latencies.add((performance.now() - startedAt[slot]) * 1000);
      issue(completed, slot);
    });
    live++;
    issue(command, slot);
  }
  if (load.warmupMs > 0) {
    await Promise.race([sleep(load.warmupMs), end]);
    meter.begin();
    measuring = true;
  }
  if (load.measureMs > 0) await Promise.race([sleep(load.measureMs), end]);
  else await end;
  measuring = false;
  const used = meter.end();
  stopping = true;
  await end;
  if (broken) throw broken;
  if (load.flush) await client.runGood((command) => command.flush());
  await client.close();
  const done = latencies.count;
  return {
    iops: done / used.seconds,
    bytesPerSecond: (done * size) / used.seconds,
    latencyUs: latencies.describe(),
    serverCpuUs: done === 0 ? 0 : (used.serverCores * used.seconds * 1e6) / done,
    ...used,
  };
}

/** Time, and who used the processors meanwhile. */
class Meter {
  #pid;
  #from = 0;
  #server = 0;
  #client = 0;
  #machine = 0;

  /** @param {number} pid */
  constructor(pid) {
    this.#pid = pid;
    this.begin();
  }

  begin() {
    this.#server = cpuOf(this.#pid);
    this.#client = cpuOf(process.pid);
    this.#machine = cpuOfMachine();
    this.#from = performance.now();
  }

  end() {
    const seconds = (performance.now() - this.#from) / 1000;
    const [server, client] = [cpuOf(this.#pid) - this.#server, cpuOf(process.pid) - this.#client];
    const others = cpuOfMachine() - this.#machine - server - client;
    return {
      seconds,
      serverCores: server / 1e9 / seconds,
      clientCores: client / 1e9 / seconds,
      otherCores: Math.max(0, others) / 1e9 / seconds,
    };
  }
}

/** @param {number} ms */
function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms, 'time'));
}

console.log(JSON.stringify(await measure(JSON.parse(process.argv[2] ?? '{}'))));
