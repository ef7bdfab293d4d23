/**
 * One sample of a disk in the guest. usage: fio-sample.mjs MEASUREMENT SIDE DISK RW DEPTH SECONDS PID; prints `result: {...}`. PID is the server, 0 where the kernel is.
 */
import { execFileSync } from 'node:child_process';
import { cpuOf } from '../lib/cpu.mjs';

const WARMUP_MS = 300;
const [measurement, side, disk, rw, depth, seconds, pidText] = process.argv.slice(2);
const pid = Number(pidText);
/** @param {number} ms */
const fio = (ms) =>
  execFileSync(
    'fio',
    [
      '--name=sample',
      `--filename=${disk}`,
      `--rw=${rw}`,
      '--bs=4k',
      '--ioengine=libaio',
      '--direct=1',
      `--iodepth=${depth}`,
      '--time_based',
      `--runtime=${ms}ms`,
      '--norandommap',
      '--eta=never',
      '--output-format=json',
    ],
    { encoding: 'utf8' },
  );
// Not fio's own ramp: what it costs the server could not be told apart.
fio(WARMUP_MS);
const before = pid === 0 ? 0 : cpuOf(pid);
const output = fio(Number(seconds) * 1000);
const serverNs = pid === 0 ? 0 : cpuOf(pid) - before;
const [job] = JSON.parse(output.slice(output.indexOf('{'))).jobs;
const direction = rw?.includes('read') ? job.read : job.write;
const percentile = direction.clat_ns.percentile;
const us = (/** @type {string} */ key) => percentile[key] / 1000;
const sample = {
  iops: direction.iops,
  bytesPerSecond: direction.bw_bytes,
  latencyUs: {
    mean: direction.clat_ns.mean / 1000,
    p50: us('50.000000'),
    p90: us('90.000000'),
    p99: us('99.000000'),
    p999: us('99.900000'),
  },
  ...(pid === 0 ? {} : { serverCpuUs: serverNs / 1000 / direction.total_ios }),
};
console.log(`result: ${JSON.stringify({ measurement, side, sample })}`);
