#!/usr/bin/env node
/**
 * `npm run bench:clone`: clones a volume to another one of its pool, as a hypervisor does with EXTENDED COPY: by reference, beside the same bytes read and written.
 *
 * For each: how long it takes, what is moved on the data device, what is written to the metadata device, and the longest turn of the event loop. Nothing is
 * asserted, as the machine has other things to do.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { alignedMemory } from '../../dist/block/aligned-memory.js';
import { openBlockDevice } from '../../dist/block/file-device.js';
import { LunOp, LunRequest } from '../../dist/block/lun-backend.js';
import { Pool } from '../../dist/thin/pool.js';
import { createPool } from '../../dist/thin/pool-create.js';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
/** What VMware copies at a time, and how many at once. */
const SEGMENT = 4 * MIB;
const DEPTH = 8;

const { values: flags } = parseArgs({
  options: { gib: { type: 'string', default: '10' }, dir: { type: 'string', default: tmpdir() } },
});
const SIZE = Number(flags.gib) * GIB;

/** Bytes of both devices since the last line. */
const moved = { dataRead: 0, dataWritten: 0, metadataWritten: 0 };

/** @param {string} dir @param {string} file @param {boolean} readOnly */
function openCounted(dir, file, readOnly) {
  const device = openBlockDevice(join(dir, file), { readOnly });
  const { read, write, writeZeroes } = device;
  const isData = file === 'data';
  device.read = (offset, memory, at, length, completion) => {
    if (isData) moved.dataRead += length;
    read.call(device, offset, memory, at, length, completion);
  };
  device.write = (offset, memory, at, length, completion) => {
    if (isData) moved.dataWritten += length;
    else moved.metadataWritten += length;
    write.call(device, offset, memory, at, length, completion);
  };
  device.writeZeroes = (offset, length, completion) => {
    if (isData) moved.dataWritten += length;
    writeZeroes.call(device, offset, length, completion);
  };
  return device;
}

/**
 * @param {import('../../dist/block/lun-backend.js').LunBackend} lun
 * @param {Partial<LunRequest>} fields
 * @param {Uint8Array | null} memory
 */
function request(lun, fields, memory = null) {
  return new Promise((resolve, reject) => {
    const one = new LunRequest({
      requestDone: (_, error) => (error === null ? resolve(null) : reject(new Error(error))),
    });
    Object.assign(one, fields);
    if (memory !== null) one.data.set(memory, 0, memory.length);
    lun.submit(one);
  });
}

/** @param {number} step @param {number} depth @param {(at: number, worker: number) => Promise<unknown>} work */
async function inSteps(step, depth, work) {
  let next = 0;
  const worker = async (/** @type {unknown} */ _, /** @type {number} */ index) => {
    for (let at = next; at < SIZE; at = next) {
      next += step;
      await work(at, index);
    }
  };
  await Promise.all(Array.from({ length: depth }, worker));
}

const rows = [['', 'seconds', 'GiB/s', 'data read MiB', 'data written MiB', 'metadata written MiB', 'longest turn ms']];

/** @param {string} name @param {Pool} pool @param {() => Promise<unknown>} work */
async function measure(name, pool, work) {
  await pool.commit();
  for (const key of /** @type {(keyof typeof moved)[]} */ (Object.keys(moved))) moved[key] = 0;
  let longest = 0;
  let last = performance.now();
  let isRunning = true;
  const turn = () => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    if (isRunning) setImmediate(turn);
  };
  setImmediate(turn);
  const begin = performance.now();
  await work();
  await pool.commit();
  const seconds = (performance.now() - begin) / 1000;
  isRunning = false;
  const mib = (/** @type {number} */ bytes) => (bytes / MIB).toFixed(1);
  const { dataRead, dataWritten, metadataWritten } = moved;
  const rate = (SIZE / GIB / seconds).toFixed(1);
  rows.push([
    name,
    seconds.toFixed(3),
    rate,
    mib(dataRead),
    mib(dataWritten),
    mib(metadataWritten),
    longest.toFixed(1),
  ]);
}

const dir = join(mkdtempSync(join(flags.dir, 'thinlun-bench-')), 'pool');
try {
  await createPool(dir, { dataSizeBytes: 4 * SIZE + GIB, metadataSizeBytes: 256 * MIB });
  const pool = await Pool.open(dir, { openDevice: (folder, file, readOnly) => openCounted(folder, file, readOnly) });
  const open = async (/** @type {string} */ name, spare = 0) => {
    await pool.createVolume(name, SIZE + spare);
    return pool.openVolume(name);
  };
  const buffers = Array.from({ length: DEPTH }, () => alignedMemory(SEGMENT).fill(0xa5));
  const template = await open('template');
  const write = (/** @type {number} */ at, /** @type {number} */ worker) =>
    request(template, { op: LunOp.WRITE, offset: at, length: SEGMENT }, /** @type {Uint8Array} */ (buffers[worker]));
  await measure('(writing the template)', pool, () => inSteps(SEGMENT, DEPTH, write));
  const first = await open('first');
  const copy = (/** @type {import('../../dist/block/lun-backend.js').LunBackend} */ lun, shift = 0) => {
    return (/** @type {number} */ at) =>
      request(lun, { op: LunOp.COPY, offset: at + shift, length: SEGMENT, source: template, sourceOffset: at });
  };
  await measure('clone, 4 MiB at a time', pool, () => inSteps(SEGMENT, DEPTH, copy(first)));
  const second = await open('second');
  const whole = { op: LunOp.COPY, length: SIZE, source: template };
  await measure('second clone, in one', pool, () => request(second, whole));
  const third = await open('third');
  const plain = async (/** @type {number} */ at, /** @type {number} */ worker) => {
    const memory = /** @type {Uint8Array} */ (buffers[worker]);
    await request(template, { op: LunOp.READ, offset: at, length: SEGMENT }, memory);
    await request(third, { op: LunOp.WRITE, offset: at, length: SEGMENT }, memory);
  };
  await measure('the same read and written', pool, () => inSteps(SEGMENT, DEPTH, plain));
  for (const device of [first, second, third]) await pool.closeVolume(device);
  await pool.deleteVolume('third');
  await pool.deletionsEnded();
  const shifted = await open('shifted', MIB);
  await measure('by copy, of another place in the block', pool, () => inSteps(SEGMENT, DEPTH, copy(shifted, 512)));
  for (const device of [shifted, template]) await pool.closeVolume(device);
  await pool.close();
} finally {
  rmSync(join(dir, '..'), { recursive: true });
}
const widths = /** @type {string[]} */ (rows[0]).map((_, i) =>
  Math.max(...rows.map((row) => /** @type {string} */ (row[i]).length)),
);
for (const row of rows) {
  console.log(row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  '));
}
