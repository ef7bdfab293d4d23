#!/usr/bin/env node
/**
 * `npm run bench:clone`: a volume is copied to another one of its pool over iSCSI, by EXTENDED COPY as VMware does it, by ROD tokens as Windows does it,
 * and for comparison by an initiator that reads and writes. Beside the time it counts what the server reads from and writes to storage (`/proc/PID/io`; the
 * source is not in the page cache), and the space that the copy takes.
 */
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { FastInitiator } from '../test/support/fast-initiator.mjs';
import { runOk } from '../test/support/processes.mjs';
import { ThinlunServer, thinlun } from '../test/support/thinlun-server.mjs';
import { scratchFolder } from './lib/scratch.mjs';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const BLOCK = 512;

const { values: options } = parseArgs({
  options: { gib: { type: 'string', default: '10' }, help: { type: 'boolean', short: 'h', default: false } },
});
if (options.help) {
  console.log('usage: npm run bench:clone -- [--gib N]');
  process.exit(0);
}
if (!/^[1-9]\d*$/.test(options.gib)) throw new Error(`--gib ${options.gib} is not a whole number`);
const SIZE = Number(options.gib) * GIB;

const { folder, removeAtExit } = scratchFolder(tmpdir());
const pool = join(folder, 'pool');

/** @param {number} pid */
function storageIo(pid) {
  const fields = new Map(
    readFileSync(`/proc/${pid}/io`, 'utf8')
      .trim()
      .split('\n')
      .map((line) => /** @type {[string, string]} */ (line.split(': '))),
  );
  return { read: Number(fields.get('read_bytes')), written: Number(fields.get('write_bytes')) };
}

/** `work` for every `step` bytes of the volume, `depth` at a time. @param {number} step @param {number} depth @param {(at: number) => Promise<unknown>} work */
async function everywhere(step, depth, work) {
  let next = 0;
  const lane = async () => {
    while (next < SIZE) {
      const at = next;
      next += step;
      await work(at);
    }
  };
  await Promise.all(Array.from({ length: depth }, lane));
}

/** @param {FastInitiator} initiator @param {number[]} cdb @param {Buffer} list */
function send(initiator, cdb, list) {
  return initiator.runGood((command) => {
    command.cdb.fill(0);
    command.cdb.set(cdb);
    command.cdb.writeUInt32BE(list.length, 10);
    command.dataOut = list;
  });
}

/** @param {FastInitiator} initiator @param {number[]} cdb @param {number} length */
async function receive(initiator, cdb, length) {
  const data = Buffer.alloc(length);
  await initiator.runGood((command) => {
    command.cdb.fill(0);
    command.cdb.set(cdb);
    command.dataIn = data;
    command.dataInLength = length;
  });
  return data;
}

/** A CSCD descriptor that names the unit. @param {FastInitiator} initiator */
async function describe(initiator) {
  const page = await receive(initiator, [0x12, 1, 0x83, 0, 255, 0], 255);
  const descriptor = Buffer.alloc(32);
  descriptor[0] = 0xe4;
  page.copy(descriptor, 4, 4, 8 + page.readUInt8(7));
  descriptor.writeUInt32BE(BLOCK, 28);
  return descriptor;
}

/** @param {number} lba @param {number} blocks */
function range(lba, blocks) {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64BE(BigInt(lba));
  bytes.writeUInt32BE(blocks, 8);
  return bytes;
}

/** @param {FastInitiator} source @param {FastInitiator} destination */
async function byExtendedCopy(source, destination) {
  const step = 4 * MIB;
  const descriptors = [await describe(source), await describe(destination)];
  await everywhere(step, 8, (at) => {
    const header = Buffer.alloc(16);
    // No list identifier.
    header[1] = 0x18;
    header.writeUInt16BE(64, 2);
    header.writeUInt32BE(28, 8);
    const segment = Buffer.alloc(28);
    segment[0] = 0x02;
    segment[3] = 0x18;
    segment.writeUInt16BE(1, 6);
    segment.writeUInt16BE(step / BLOCK, 10);
    segment.writeBigUInt64BE(BigInt(at / BLOCK), 12);
    segment.writeBigUInt64BE(BigInt(at / BLOCK), 20);
    return send(destination, [0x83, 0x00], Buffer.concat([header, ...descriptors, segment]));
  });
}

/** @param {FastInitiator} source @param {FastInitiator} destination */
async function byTokens(source, destination) {
  const step = 256 * MIB;
  await everywhere(step, 1, async (at) => {
    const one = range(at / BLOCK, step / BLOCK);
    const populate = Buffer.alloc(16);
    populate.writeUInt16BE(30);
    populate.writeUInt16BE(16, 14);
    await send(source, [0x83, 0x10, 0, 0, 0, 0, 0, 0, 0, 1], Buffer.concat([populate, one]));
    const information = await receive(source, [0x84, 0x07, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4, 0], 1024);
    const write = Buffer.alloc(536);
    write.writeUInt16BE(550);
    information.copy(write, 16, 38, 38 + 512);
    write.writeUInt16BE(16, 534);
    await send(destination, [0x83, 0x11, 0, 0, 0, 0, 0, 0, 0, 2], Buffer.concat([write, one]));
  });
}

/** @param {FastInitiator} source @param {FastInitiator} destination */
async function byReadAndWrite(source, destination) {
  await everywhere(MIB, 8, async (at) => {
    const data = Buffer.allocUnsafe(MIB);
    await source.runGood((command) => command.read(at / BLOCK, MIB / BLOCK, BLOCK, data));
    await destination.runGood((command) => command.write(at / BLOCK, MIB / BLOCK, data));
  });
}

async function usedBytes() {
  return Number(JSON.parse(await thinlun('pool', 'status', pool, '--json')).dataUsedBytes);
}

try {
  await thinlun('pool', 'create', pool, '--data-size', String(3 * SIZE));
  for (const name of ['source', 'destination']) await thinlun('volume', 'create', pool, name, '--size', String(SIZE));
  const server = await ThinlunServer.start([pool]);
  const url = new URL(/** @type {{ url: string }} */ (server.luns[0]).url);
  const [host, port] = url.host.split(':');
  /** @param {number} lun */
  const connect = (lun) =>
    FastInitiator.connect({
      host: String(host),
      port: Number(port),
      target: decodeURIComponent(String(url.pathname.split('/')[1])),
      lun,
    });
  const [source, destination] = [await connect(0), await connect(1)];
  const pid = Number(server.process.pid);
  const data = Buffer.alloc(MIB, 0x5a);
  await everywhere(MIB, 8, (at) => source.runGood((command) => command.write(at / BLOCK, MIB / BLOCK, data)));
  await source.runGood((command) => command.flush());

  console.log(`copies of ${options.gib} GiB         seconds  read MiB  written MiB  space MiB`);
  for (const [name, copy] of /** @type {const} */ ([
    ['EXTENDED COPY, 4 MiB, depth 8', byExtendedCopy],
    ['ROD tokens, 256 MiB', byTokens],
    ['READ and WRITE, 1 MiB, depth 8', byReadAndWrite],
  ])) {
    await destination.runGood((command) => command.unmap(0, SIZE / BLOCK));
    await destination.runGood((command) => command.flush());
    // Out of the page cache.
    await runOk('dd', [`if=${join(pool, 'data')}`, 'iflag=nocache', 'count=0', 'status=none']);
    const [usedBefore, before, begun] = [await usedBytes(), storageIo(pid), performance.now()];
    await copy(source, destination);
    await destination.runGood((command) => command.flush());
    const seconds = (performance.now() - begun) / 1000;
    const after = storageIo(pid);
    const counts = [after.read - before.read, after.written - before.written, (await usedBytes()) - usedBefore];
    const cells = counts.map((count) => (count / MIB).toFixed(1).padStart(10)).join(' ');
    console.log(`${name.padEnd(31)} ${seconds.toFixed(2).padStart(7)} ${cells}`);
  }
  await source.close();
  await destination.close();
  await server.stop();
} finally {
  removeAtExit();
}
