/**
 * One measured load on one target, in a process of its own. usage: node load.mjs JSON, with the fields of `Load`; prints a `Sample` as JSON.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { Command, FastInitiator } from '../support/fast-initiator.mjs';

/**
 * @typedef {object} Load
 * @property {string} host
 * @property {number} port
 * @property {string} target
 * @property {number} lun
 * @property {number} pid The server, whose CPU time is counted.
 * @property {'read' | 'write' | 'fill'} operation
 * @property {boolean} isRandom
 * @property {number} size Bytes of one command.
 * @property {number} depth
 * @property {number} warmupMs
 * @property {number} measureMs
 * @property {number} spanBytes The part of the volume that is used, from 0.
 * @property {number} seed
 */

/**
 * @typedef {object} Sample
 * @property {number} iops
 * @property {number} bytesPerSecond
 * @property {number} medianUs Latency.
 * @property {number} p99Us
 * @property {number} serverCpuUs Per command, all threads.
 * @property {number} clientCores Of this process: near 1 it would measure itself.
 */

/** A small generator (xorshift32): the same positions for every target. */
class Random {
  #state;
  /** @param {number} seed */
  constructor(seed) {
    this.#state = seed | 1;
  }
  /** A whole number below `limit`. @param {number} limit */
  below(limit) {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return (state >>> 0) % limit;
  }
}

/** Nanoseconds of CPU that all threads of a process have used. @param {number} pid */
function cpuOf(pid) {
  let total = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      total += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
    } catch {
      // The thread has ended.
    }
  }
  return total;
}

/** @param {Load} load @returns {Promise<Sample>} */
async function measure(load) {
  const initiator = await FastInitiator.connect(load);
  const { blockSize } = initiator;
  const blocks = load.size / blockSize;
  const positions = Math.floor(load.spanBytes / load.size);
  const random = new Random(load.seed);
  // Not compressible, not zero: no server may get away with less work.
  const data = Buffer.allocUnsafe(load.size);
  for (let i = 0; i < data.length; i++) data[i] = random.below(256);

  const startedAt = new Float64Array(load.depth);
  /** Latencies of the measured part, by microsecond up to 1 s. */
  const histogram = new Uint32Array(1_000_001);
  let next = load.isRandom ? 0 : random.below(positions);
  let done = 0;
  let measuring = false;
  let stopping = load.operation === 'fill' && positions === 0;
  let live = 0;
  /** @type {() => void} */
  let finished = () => {};
  /** @type {Error | null} */
  let broken = null;

  /** @param {Command} command @param {number} slot */
  const issue = (command, slot) => {
    let position = next;
    if (load.isRandom) position = random.below(positions);
    else next = load.operation === 'fill' ? next + 1 : (next + 1) % positions;
    if (load.operation === 'read') command.read(position * blocks, blocks, blockSize);
    else command.write(position * blocks, blocks, data);
    startedAt[slot] = performance.now();
    initiator.submit(command);
  };
  if (load.operation === 'fill') next = 0;
  const begun = performance.now();
  for (let slot = 0; slot < load.depth; slot++) {
    const command = new Command((completed) => {
      if (completed.status !== 0) {
        broken ??= initiator.failure ?? new Error(`status ${completed.status}: ${completed.sense?.toString('hex')}`);
        stopping = true;
      }
      if (measuring) {
        const took = Math.round((performance.now() - startedAt[slot]) * 1000);
        histogram[Math.min(took, histogram.length - 1)]++;
        done++;
      }
      if (stopping || (load.operation === 'fill' && next >= positions)) {
        if (--live === 0) finished();
      } else issue(completed, slot);
    });
    live++;
    issue(command, slot);
  }
  const end = new Promise((resolve) => {
    finished = () => resolve(undefined);
  });
  let seconds = 0;
  let serverNs = 0;
  let client = { user: 0, system: 0 };
  if (load.operation === 'fill') {
    await end;
    await initiator.runGood((command) => command.flush());
    seconds = (performance.now() - begun) / 1000;
    done = positions;
  } else {
    await sleep(load.warmupMs);
    const cpuBefore = cpuOf(load.pid);
    const clientBefore = process.cpuUsage();
    const from = performance.now();
    measuring = true;
    await sleep(load.measureMs);
    measuring = false;
    seconds = (performance.now() - from) / 1000;
    serverNs = cpuOf(load.pid) - cpuBefore;
    client = process.cpuUsage(clientBefore);
    stopping = true;
    await end;
  }
  if (broken) throw broken;
  await initiator.close();
  return {
    iops: done / seconds,
    bytesPerSecond: (done * load.size) / seconds,
    medianUs: percentile(histogram, 0.5),
    p99Us: percentile(histogram, 0.99),
    serverCpuUs: done === 0 ? 0 : serverNs / 1000 / done,
    clientCores: (client.user + client.system) / 1e6 / seconds,
  };
}

/** @param {Uint32Array} histogram @param {number} share */
function percentile(histogram, share) {
  const total = histogram.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  for (let i = 0; i < histogram.length; i++) {
    seen += histogram[i];
    if (seen >= total * share) return i;
  }
  return histogram.length;
}

/** @param {number} ms */
function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

console.log(JSON.stringify(await measure(JSON.parse(process.argv[2] ?? '{}'))));
