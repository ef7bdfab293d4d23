// Our side of the exchange of a pool with the kernel: works on the metadata and data devices of a pool with `PoolMetadata`, and
// keeps a list of what every block of every thin device has to hold, so that either side can be checked against it.
//   format META DATA | change META DATA SEED | verify META DATA | device ID DEVICE (reads a thin device of the kernel's)
//   kernel-write ID DEVICE SEED (writes and discards on a thin device of the kernel's) | snap ID ORIGIN | forget ID
//   copy META DATA FROM BEGIN TO BEGIN LENGTH (blocks, by reference) | kernel-touch ID DEVICE BEGIN LENGTH SEED (writes a part of each block)
import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { openBlockDevice } from '/project/dist/block/file-device.js';
import { PoolMetadata } from '/project/dist/thin/pool-metadata.js';
import { RunResult } from '/project/dist/thin/run-lookup.js';

const BLOCK = 65536;
export const VOLUME_BLOCKS = 2048;
const TOUCHED = 4096;
const LIST = '/tmp/expected.json';
/**
 * Thin device id -> virtual block -> version, or where a block was copied or touched: the block that it was written as, the version, and that of its first bytes.
 * A block that is not listed reads as zeroes and is not mapped.
 */
const expected = existsSync(LIST) ? JSON.parse(readFileSync(LIST, 'utf8')) : {};

function pattern(block, version) {
  const bytes = Buffer.alloc(BLOCK);
  for (let i = 0; i < BLOCK; i += 8) {
    bytes.writeUInt32LE((block * 0x9e3779b1 + i) >>> 0, i);
    bytes.writeUInt32LE(version, i + 4);
  }
  return bytes;
}

function random(seed) {
  let state = seed * 2654435761 + 1;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

/** @param {number} block @param {number | number[]} what */
function contents(block, what) {
  const [written, version, touched] = Array.isArray(what) ? what : [block, what];
  const bytes = pattern(written, version);
  if (touched !== undefined) pattern(written, touched).copy(bytes, 0, 0, TOUCHED);
  return bytes;
}

function checkBlock(id, block, bytes) {
  const what = expected[id][block];
  const wanted = what === undefined ? Buffer.alloc(BLOCK) : contents(block, what);
  if (wanted.equals(bytes)) return;
  const at = bytes.findIndex((byte, i) => byte !== wanted[i]);
  const found = `${bytes.readUInt32LE(at - (at % 8))}, version ${bytes.readUInt32LE(at - (at % 8) + 4)}`;
  throw new Error(`device ${id}, block ${block}: not what was written (${what}), at byte ${at}: ${found}`);
}

function withPool(meta, work) {
  const device = openBlockDevice(meta);
  const pool = PoolMetadata.open(device);
  work(pool);
  pool.close();
  return device.close();
}

const [command, ...args] = process.argv.slice(2);
if (command === 'format') {
  const [meta, data] = args;
  const device = openBlockDevice(meta);
  const dataDevice = openBlockDevice(data);
  const pool = PoolMetadata.format(device, {
    dataBlockSizeBytes: BLOCK,
    dataBlockCount: Math.floor(dataDevice.sizeBytes / BLOCK),
  });
  pool.createThin(1);
  pool.commitSync();
  pool.close();
  expected[1] = {};
  await device.close();
  await dataDevice.close();
} else if (command === 'change') {
  const [meta, data, seed] = args;
  const pick = random(Number(seed));
  const fd = openSync(data, 'r+');
  await withPool(meta, (pool) => {
    const result = new RunResult();
    const write = (id, thin, block, version) => {
      pool.lookupRun(thin, block, block + 1, result, false);
      let dataBlock = result.dataBlock;
      if (!result.mapped || result.shared) {
        dataBlock = pool.allocateDataBlock();
        writeSync(fd, pattern(block, version), 0, BLOCK, dataBlock * BLOCK);
        pool.insert(thin, block, dataBlock);
      } else writeSync(fd, pattern(block, version), 0, BLOCK, dataBlock * BLOCK);
      expected[id][block] = version;
    };
    for (const id of pool.thinIds()) {
      const thin = pool.openThin(id);
      for (let i = 0; i < 200; i++) write(id, thin, pick(VOLUME_BLOCKS), Number(seed));
      const begin = pick(VOLUME_BLOCKS - 100);
      for (let at = begin; at < begin + 60; ) at = pool.removeRange(thin, at, begin + 60, 7);
      for (let block = begin; block < begin + 60; block++) delete expected[id][block];
      pool.closeThin(thin);
      fsyncSync(fd);
      pool.commitSync();
    }
    const snap = Math.max(...pool.thinIds()) + 1;
    pool.createSnap(snap, 1);
    expected[snap] = { ...expected[1] };
    pool.commitSync();
  });
  closeSync(fd);
} else if (command === 'verify') {
  const [meta, data] = args;
  const fd = openSync(data, 'r');
  const bytes = Buffer.alloc(BLOCK);
  let blocks = 0;
  await withPool(meta, (pool) => {
    const ids = Object.keys(expected).map(Number);
    if (JSON.stringify(pool.thinIds()) !== JSON.stringify(ids))
      throw new Error(`devices ${pool.thinIds()}, expected ${ids}`);
    const result = new RunResult();
    for (const id of ids) {
      const thin = pool.openThin(id);
      let mapped = 0;
      for (let block = 0; block < VOLUME_BLOCKS; ) {
        pool.lookupRun(thin, block, VOLUME_BLOCKS, result, false);
        for (let i = block; i < result.end; i++) {
          if (!result.mapped && expected[id][i] !== undefined)
            throw new Error(`device ${id}, block ${i} is not mapped`);
          if (!result.mapped) continue;
          mapped++;
          readSync(fd, bytes, 0, BLOCK, (result.dataBlock + i - block) * BLOCK);
          checkBlock(id, i, bytes);
        }
        block = result.end;
      }
      if (mapped !== thin.mappedBlocks) throw new Error(`device ${id}: ${mapped} mapped, ${thin.mappedBlocks} counted`);
      if (mapped !== Object.keys(expected[id]).length) throw new Error(`device ${id}: ${mapped} mapped, too many`);
      blocks += mapped;
      pool.closeThin(thin);
    }
  });
  closeSync(fd);
  console.log(`${blocks} blocks are right`);
} else if (command === 'device') {
  const [id, path] = args;
  const fd = openSync(path, 'r');
  const bytes = Buffer.alloc(BLOCK);
  for (let block = 0; block < VOLUME_BLOCKS; block++) {
    readSync(fd, bytes, 0, BLOCK, block * BLOCK);
    checkBlock(id, block, bytes);
  }
  closeSync(fd);
} else if (command === 'kernel-write') {
  const [id, path, seed] = args;
  const pick = random(Number(seed));
  const fd = openSync(path, 'r+');
  for (let i = 0; i < 150; i++) {
    const block = pick(VOLUME_BLOCKS);
    writeSync(fd, pattern(block, Number(seed)), 0, BLOCK, block * BLOCK);
    expected[id] ??= {};
    expected[id][block] = Number(seed);
  }
  fsyncSync(fd);
  closeSync(fd);
  const begin = pick(VOLUME_BLOCKS - 100);
  execFileSync('blkdiscard', ['-o', String(begin * BLOCK), '-l', String(50 * BLOCK), path]);
  for (let block = begin; block < begin + 50; block++) delete expected[id][block];
} else if (command === 'copy') {
  const [meta, data] = args;
  const [from, sourceBegin, to, begin, length] = args.slice(2).map(Number);
  const fd = openSync(data, 'r+');
  let moved = 0;
  await withPool(meta, (pool) => {
    const [source, target] = [pool.openThin(from), pool.openThin(to)];
    const end = begin + length;
    const result = new RunResult();
    const bytes = Buffer.alloc(BLOCK);
    for (let at = begin; at < end; ) {
      const first = sourceBegin + at - begin;
      while (!pool.learnShared(target, 100)) {}
      try {
        at = pool.shareRange({ source, sourceBegin: first, target, begin: at, end, keepsSource: false }, 100);
      } catch (error) {
        if (error.code !== 'EEXIST') throw error;
        // What the target has already is moved.
        pool.lookupRun(source, first, first + 1, result, false);
        readSync(fd, bytes, 0, BLOCK, result.dataBlock * BLOCK);
        const dataBlock = pool.allocateDataBlock();
        writeSync(fd, bytes, 0, BLOCK, dataBlock * BLOCK);
        pool.insert(target, at, dataBlock);
        at++;
        moved++;
      }
    }
    fsyncSync(fd);
    pool.commitSync();
  });
  closeSync(fd);
  console.log(`${moved} blocks of ${length} were moved`);
  for (let i = 0; i < length; i++) {
    const what = expected[from][sourceBegin + i];
    if (what === undefined) delete expected[to][begin + i];
    else expected[to][begin + i] = Array.isArray(what) ? what : [sourceBegin + i, what];
  }
} else if (command === 'kernel-touch') {
  const [id, path] = args;
  const [begin, length, seed] = args.slice(2).map(Number);
  const fd = openSync(path, 'r+');
  for (let block = begin; block < begin + length; block++) {
    const what = expected[id][block];
    if (what === undefined) continue;
    const [written, version] = Array.isArray(what) ? what : [block, what];
    expected[id][block] = [written, version, seed];
    writeSync(fd, pattern(written, seed), 0, TOUCHED, block * BLOCK);
  }
  fsyncSync(fd);
  closeSync(fd);
} else if (command === 'snap') {
  const [id, origin] = args;
  expected[id] = { ...expected[origin] };
} else if (command === 'new') {
  expected[args[0]] = {};
} else if (command === 'forget') {
  delete expected[args[0]];
} else throw new Error(`no such command: ${command}`);
writeFileSync(LIST, JSON.stringify(expected));
