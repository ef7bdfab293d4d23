#!/usr/bin/env node
/**
 * `npm run bench`: thinlun against tgt on this machine, in this minute, over the same kind of connection with the same load.
 *
 * For every load the two servers are measured in turn, A B A B ..., so that what else happens on the machine hits both; the table has the
 * medians. A row whose samples lie too far apart, or where the load generator itself was the limit, is marked: it proves nothing.
 * Both servers keep the volume in a file of the same file system, through the page cache, and answer a write when it is in there (write cache on).
 */
import { closeSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { findTool, missingToolMessage } from '../support/debian-tools.mjs';
import { run, runOk } from '../support/processes.mjs';
import { ThinlunServer, thinlun } from '../support/thinlun-server.mjs';
import { startTgt } from './tgt-server.mjs';

const MIB = 1024 * 1024;
/** Samples of one row further apart than this share of their median prove nothing. */
const MAX_SPREAD = 0.25;
/** A load generator that uses more of its core than this measures itself. */
const MAX_CLIENT_CORES = 0.9;

const ROOT = join(import.meta.dirname, '..', '..');

/**
 * @typedef {import('./load.mjs').Sample} Sample
 * @typedef {object} Server
 * @property {string} name
 * @property {string} host
 * @property {number} port
 * @property {string} target
 * @property {number} lun
 * @property {number} pid
 * @property {() => Promise<void>} stop
 * @typedef {object} Workload
 * @property {string} name
 * @property {'read' | 'write' | 'fill'} operation
 * @property {boolean} isRandom
 * @property {number} size
 * @property {number} depth
 */

/** @type {readonly Workload[]} */
const WORKLOADS = [
  ...[1, 32, 128].map((depth) => random('read', depth)),
  ...[1, 32, 128].map((depth) => random('write', depth)),
  { name: '1 MiB seq read, depth 8', operation: 'read', isRandom: false, size: MIB, depth: 8 },
  { name: '1 MiB seq write, depth 8', operation: 'write', isRandom: false, size: MIB, depth: 8 },
];

/** @param {'read' | 'write'} operation @param {number} depth @returns {Workload} */
function random(operation, depth) {
  return { name: `4 KiB random ${operation}, depth ${depth}`, operation, isRandom: true, size: 4096, depth };
}

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '1.2' },
    size: { type: 'string', default: '512' },
    only: { type: 'string', default: '.' },
    folder: { type: 'string', default: tmpdir() },
    'no-tgt': { type: 'boolean', default: false },
    json: { type: 'string', default: join(ROOT, 'bench-results', 'latest.json') },
    strict: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

/** @param {string} folder @param {number} sizeMib @returns {Promise<Server>} */
async function startThinlun(folder, sizeMib) {
  const pool = join(folder, 'pool');
  await thinlun('pool', 'create', pool, '--data-size', `${sizeMib + 64}M`);
  await thinlun('volume', 'create', pool, 'bench', '--size', `${sizeMib}M`);
  const server = await ThinlunServer.start([pool]);
  const { target, lun } = server.lun;
  const { host, port, pid } = server;
  return { name: 'thinlun', host, port, target, lun, pid, stop: () => server.stop() };
}

/** @param {string} folder @param {number} sizeMib @returns {Promise<Server>} */
async function startRival(folder, sizeMib) {
  const file = join(folder, 'tgt.img');
  const fd = openSync(file, 'w');
  ftruncateSync(fd, sizeMib * MIB);
  closeSync(fd);
  return startTgt(file);
}

/** @param {Server} server @param {Workload} workload @param {number} seed @returns {Promise<Sample>} */
async function sample(server, workload, seed) {
  const { stop: _stop, ...where } = server;
  const load = {
    ...where,
    ...workload,
    warmupMs: 300,
    measureMs: Number(options.seconds) * 1000,
    spanBytes: Number(options.size) * MIB,
    seed,
  };
  const output = await runOk(process.execPath, [join(import.meta.dirname, 'load.mjs'), JSON.stringify(load)], {
    timeoutMs: 60_000 + load.measureMs,
  });
  return JSON.parse(output);
}

/** The same kind of load by a program that somebody else wrote. @param {Server} server @param {number} depth */
async function qemuReads(server, depth) {
  const count = 40_000;
  const url = `iscsi://${server.host}:${server.port}/${server.target}/${server.lun}`;
  // Its positions go up by the step and wrap at the end: a large odd number of blocks scatters them.
  const args = [
    'bench',
    '-f',
    'raw',
    '-t',
    'none',
    '-c',
    `${count}`,
    '-d',
    `${depth}`,
    '-s',
    '4096',
    '-S',
    `${4096 * 7919}`,
    url,
  ];
  const output = await runOk('qemu-img', args, { timeoutMs: 60_000 });
  const seconds = Number(/Run completed in ([\d.]+) seconds/.exec(output)?.[1] ?? Number.NaN);
  return count / seconds;
}

/** @param {readonly number[]} values */
function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
  const min = sorted[0] ?? 0;
  const max = sorted.at(-1) ?? 0;
  return { median, min, max, spread: median === 0 ? 0 : (max - min) / median };
}

/** @param {readonly Sample[]} samples */
function row(samples) {
  const iops = summary(samples.map((one) => one.iops));
  return {
    iops,
    bytesPerSecond: summary(samples.map((one) => one.bytesPerSecond)),
    medianUs: summary(samples.map((one) => one.medianUs)).median,
    p99Us: summary(samples.map((one) => one.p99Us)).median,
    serverCpuUs: summary(samples.map((one) => one.serverCpuUs)).median,
    clientCores: summary(samples.map((one) => one.clientCores)).median,
  };
}

/** @param {Workload} workload @param {ReturnType<typeof row>} measured */
function speed(workload, measured) {
  return workload.size >= MIB
    ? `${(measured.bytesPerSecond.median / 1e6).toFixed(0)} MB/s`
    : `${(measured.iops.median / 1000).toFixed(1)} k/s`;
}

/** @param {readonly (readonly string[])[]} rows */
function printTable(rows) {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((cells) => (cells[column] ?? '').length)));
  for (const cells of rows) {
    const padded = cells.map((cell, column) =>
      column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0),
    );
    console.log(padded.join('  ').trimEnd());
  }
}

/** @returns {Promise<Record<string, string>>} */
async function machine() {
  const tgt = await run('dpkg-query', ['-W', '-f', '${Version}', 'tgt']);
  const commit = await run('git', ['rev-parse', '--short', 'HEAD'], { cwd: ROOT });
  const fileSystem = await run('stat', ['-f', '-c', '%T', options.folder]);
  return {
    cpu: `${availableParallelism()} x ${cpus()[0]?.model.trim() ?? 'unknown'}`,
    memory: `${(totalmem() / 2 ** 30).toFixed(1)} GiB`,
    kernel: (await runOk('uname', ['-r'])).trim(),
    fileSystem: fileSystem.stdout.trim(),
    node: process.version,
    tgt: tgt.code === 0 ? tgt.stdout : 'not from a package',
    commit: commit.code === 0 ? commit.stdout.trim() : 'unknown',
  };
}

async function main() {
  if (options.help) {
    console.log(`usage: npm run bench -- [options]
  --rounds N     samples of each server for each load (3)
  --seconds S    length of a sample (1.2)
  --size MIB     size of the volume (512)
  --only REGEX   only loads whose name matches
  --folder DIR   where both servers keep their files (the temporary folder)
  --no-tgt       thinlun alone
  --json FILE    where the figures go (bench-results/latest.json)
  --strict       exit status 3 when a row is too noisy to prove anything`);
    return;
  }
  const sizeMib = Number(options.size);
  const withRival = !options['no-tgt'] && findTool('tgtd') !== null && process.getuid?.() === 0;
  if (!withRival && !options['no-tgt']) {
    console.log(`Without tgt: ${findTool('tgtd') === null ? missingToolMessage('tgtd') : 'it has to run as root'}`);
  }
  const folder = mkdtempSync(join(options.folder, 'thinlun-bench-'));
  /** @type {Server[]} */
  const servers = [];
  try {
    servers.push(await startThinlun(folder, sizeMib));
    if (withRival) servers.push(await startRival(folder, sizeMib));
    await measureAll(servers);
  } finally {
    for (const server of servers) await server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @param {readonly Server[]} servers */
async function measureAll(servers) {
  const facts = await machine();
  for (const [name, value] of Object.entries(facts)) console.log(`${name.padEnd(10)} ${value}`);
  const fill = { name: 'fill', operation: /** @type {const} */ ('fill'), isRandom: false, size: MIB, depth: 8 };
  const filled = [];
  for (const server of servers)
    filled.push(`${server.name} ${((await sample(server, fill, 1)).bytesPerSecond / 1e6).toFixed(0)} MB/s`);
  console.log(`fill       ${filled.join(', ')} (1 MiB, depth 8, unmapped or sparse before, flushed after)\n`);

  const rows = [['load', ...servers.map((server) => server.name), 'ratio', 'CPU us/IO', 'p99 us', 'spread', '']];
  const results = [];
  let noisy = 0;
  const wanted = new RegExp(options.only);
  for (const workload of WORKLOADS.filter(({ name }) => wanted.test(name))) {
    /** @type {Sample[][]} */
    const samples = servers.map(() => []);
    for (let round = 0; round < Number(options.rounds); round++) {
      // The same positions for both servers, others every round.
      for (const [index, server] of servers.entries())
        samples[index]?.push(await sample(server, workload, 1000 + round));
    }
    const measured = samples.map(row);
    const [ours, theirs] = measured;
    const spread = Math.max(...measured.map((one) => one.iops.spread));
    const remarks = [];
    if (spread > MAX_SPREAD) remarks.push('NOISY');
    if (measured.some((one) => one.clientCores > MAX_CLIENT_CORES)) remarks.push('CLIENT-BOUND');
    if (remarks.includes('NOISY')) noisy++;
    const ratio = ours && theirs ? ours.iops.median / theirs.iops.median : null;
    rows.push([
      workload.name,
      ...measured.map((one) => speed(workload, one)),
      ratio === null ? '-' : `${ratio.toFixed(2)}x`,
      measured.map((one) => one.serverCpuUs.toFixed(1)).join(' / '),
      measured.map((one) => one.p99Us.toFixed(0)).join(' / '),
      measured.map((one) => `${(one.iops.spread * 100).toFixed(0)}%`).join(' / '),
      remarks.join(' '),
    ]);
    const byServer = Object.fromEntries(
      servers.map((server, index) => [server.name, { ...measured[index], samples: samples[index] }]),
    );
    results.push({ ...workload, ratio, remarks, servers: byServer });
    process.stderr.write('.');
  }
  process.stderr.write('\n');
  printTable(rows);
  const crossCheck = await crossChecks(servers);
  if (noisy > 0) {
    console.log(
      `\n${noisy} rows are NOISY: their samples lie more than ${MAX_SPREAD * 100}% apart. Do not quote them; run again on a quiet machine.`,
    );
  }
  mkdirSync(join(options.json, '..'), { recursive: true });
  writeFileSync(options.json, `${JSON.stringify({ machine: facts, options, results, crossCheck }, null, 2)}\n`);
  console.log(`\nAll figures: ${options.json}`);
  if (noisy > 0 && options.strict) process.exitCode = 3;
}

/** @param {readonly Server[]} servers */
async function crossChecks(servers) {
  if (findTool('qemu-img') === null || findTool('qemu-iscsi') === null) return null;
  /** @type {Record<string, number>} */
  const iops = {};
  for (const server of servers) {
    const runs = [];
    for (let round = 0; round < 3; round++) runs.push(await qemuReads(server, 32));
    iops[server.name] = summary(runs).median;
  }
  const texts = Object.entries(iops).map(([name, value]) => `${name} ${(value / 1000).toFixed(1)} k/s`);
  const [ours, theirs] = Object.values(iops);
  const ratio = ours && theirs ? `, ratio ${(ours / theirs).toFixed(2)}x` : '';
  console.log(`\nCross-check, qemu-img bench, 4 KiB scattered reads, depth 32: ${texts.join(', ')}${ratio}`);
  return iops;
}

await main();
