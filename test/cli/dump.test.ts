import { execFileSync } from 'node:child_process';
import { copyFileSync, createWriteStream, existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { goldenImage } from '../support/metadata-judges.ts';
import { run } from '../support/processes.mjs';
import {
  COMMAND,
  createPool,
  createVolume,
  serve,
  start,
  statusOf,
  temporaryFolder,
  thinlun,
  volumesOf,
  withPool,
} from './command.ts';

const GOLDEN = join(import.meta.dirname, '..', 'golden');
const A11 = 'a11-five-snaps-broke-one-overflow-tree';
const MIB = 1024 * 1024;

/** A golden image as a file. */
function imageFile(name: string): string {
  const path = join(temporaryFolder(), 'image');
  writeFileSync(path, goldenImage(name).memory);
  return path;
}

function emptyFile(sizeBytes: number): string {
  const path = join(temporaryFolder(), 'empty');
  writeFileSync(path, '');
  truncateSync(path, sizeBytes);
  return path;
}

/** Overwrites one block of a file. */
function destroyBlock(path: string, block: number): void {
  const bytes = readFileSync(path);
  bytes.fill(0x5a, block * 4096, (block + 1) * 4096);
  writeFileSync(path, bytes);
}

describe('dump', () => {
  it('writes the XML of thin_dump 1.1.0 to standard output or a file', async () => {
    const image = imageFile(A11);
    const xml = readFileSync(join(GOLDEN, `${A11}.xml`), 'utf8');
    expect(await thinlun(['dump', image])).toMatchObject({ code: 0, stdout: xml, stderr: '' });
    const file = join(temporaryFolder(), 'pool.xml');
    expect(await thinlun(['dump', image, '-o', file, '-q'])).toMatchObject({ code: 0, stdout: '', stderr: '' });
    expect(readFileSync(file, 'utf8')).toBe(xml);
  });

  it('takes the options of thin_dump', async () => {
    const image = imageFile(A11);
    const args = ['--dev-id', '1', '--dev-id=40', '--skip-mappings', '--transaction-id', '99', '-f', 'human_readable'];
    expect((await thinlun(['dump', ...args, image])).stdout).toMatch(
      /^begin superblock: "", 6, 99, 0, 2, 128, 1024\ndevice: 1\n(?:.*\n){5}device: 40\n(?:.*\n){5}end superblock\n$/,
    );
    const held = imageFile('a05-metadata-snap-reserved');
    for (const option of ['-m', '-m=50', '--metadata-snap', '--metadata-snap=50']) {
      expect((await thinlun(['dump', option, held])).stdout).toMatch(/^<superblock .* nr_data_blocks="0">\n/);
    }
    expect(await thinlun(['dump', '-m=51', held])).toMatchObject({ code: 64, stdout: '' });
    expect(JSON.parse((await thinlun(['dump', image, '--format=json'])).stdout).devices).toHaveLength(7);
  });

  it('ends with 64 when it fails and with 2 when it is asked for what cannot be', async () => {
    const missing = await thinlun(['dump', '/nonexistent']);
    expect(missing).toMatchObject({ code: 64, stdout: '' });
    expect(missing.stderr).toMatch(/^thinlun: Cannot open "\/nonexistent": ENOENT/);
    const image = imageFile(A11);
    destroyBlock(image, 0);
    const damaged = await thinlun(['dump', image]);
    expect(damaged).toMatchObject({ code: 64, stdout: '' });
    expect(damaged.stderr).toMatch(/Cannot read the metadata of ".*": block 0 has checksum/);
    const wrong = [
      ['dump'],
      ['dump', '-f', 'yaml', image],
      ['dump', '--dev-id', 'x', image],
      ['dump', '-r', '-m', image],
    ];
    for (const args of wrong) expect(await thinlun(args)).toMatchObject({ code: 2, stdout: '' });
  });

  it('is content when its reader has seen enough', async () => {
    const { code, stdout, stderr } = await run('bash', [
      '-c',
      `set -o pipefail; "${COMMAND}" dump "${imageFile('a13-out-of-data-space')}" -f json | head -n 1`,
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^\{"time":/);
  });

  it('refuses a pool that is being served, and says what can be done', async () => {
    const dir = await createPool();
    await createVolume(dir, 'a');
    const server = await serve([dir]);
    const { code, stderr } = await thinlun(['dump', dir]);
    expect(code).toBe(64);
    expect(stderr).toMatch(
      /process \d+ serves it\n {2}End it with "kill \d+", or take a metadata snapshot with "thinlun message /,
    );
    expect(await thinlun(['message', dir, 'reserve_metadata_snap'])).toMatchObject({ code: 0 });
    const held = await thinlun(['dump', '-m', dir]);
    expect(held).toMatchObject({ code: 0, stderr: '' });
    expect(held.stdout).toContain('<device dev_id="1" mapped_blocks="0"');
    await server.stop();
    expect((await thinlun(['dump', dir])).code).toBe(0);
  });

  it('of damaged metadata needs --repair, and says what it took', async () => {
    const image = imageFile('a12-filled-900');
    destroyBlock(image, 0);
    const lost = await thinlun(['dump', '--repair', image]);
    expect(lost).toMatchObject({ code: 64, stdout: '' });
    expect(lost.stderr).toContain('give --data-block-size');
    const found = await thinlun(['dump', '--repair', image, '--data-block-size', '128', '--nr-data-blocks', '1024']);
    expect(found.code).toBe(0);
    expect(found.stderr).toMatch(
      /^The superblock is lost: .*\nTrees of mappings: .*\n(?:Of the same age: .*\n)?Taken: mappings in block \d+/,
    );
    const devices = (xml: string): string => xml.slice(xml.indexOf('\n'));
    expect(devices(found.stdout)).toBe(devices(readFileSync(join(GOLDEN, 'a12-filled-900.xml'), 'utf8')));
  });
});

describe('restore', () => {
  it('makes metadata that the judges accept, from a file or standard input', async () => {
    for (const source of ['file', '-']) {
      const output = emptyFile(8 * MIB);
      const xml = join(GOLDEN, `${A11}.xml`);
      const options = source === '-' ? { input: readFileSync(xml, 'utf8') } : {};
      const result = await thinlun(['restore', '-i', source === '-' ? '-' : xml, '-o', output], options);
      expect(result).toMatchObject({ code: 0, stdout: '', stderr: '' });
      expect(await thinlun(['check', '-q', output])).toMatchObject({ code: 0 });
    }
  });

  it('puts a pool back as it was: volumes, names and all', async () => {
    const dir = await createPool();
    await createVolume(dir, 'a');
    await createVolume(dir, 'b');
    const xml = (await thinlun(['dump', dir])).stdout;
    await withPool(dir, (pool) => pool.deleteVolume('b'));
    await createVolume(dir, 'c');
    writeFileSync(join(dir, 'journal'), 'stale');
    const result = await thinlun(['restore', '-i', '-', '-o', dir], { input: xml });
    expect(result).toMatchObject({ code: 0, stdout: '', stderr: '' });
    expect(existsSync(join(dir, 'journal'))).toBe(false);
    const volumes = await volumesOf(dir);
    expect(volumes.map(({ name }) => name)[0]).toBe('a');
    expect(volumes).toHaveLength(2);
    expect(await thinlun(['check', dir])).toMatchObject({ code: 0 });
  });

  it('to a pool refuses metadata that does not fit it, and changes nothing', async () => {
    const dir = await createPool();
    await createVolume(dir, 'a');
    const before = ['metadata', 'pool.json'].map((name) => readFileSync(join(dir, name)).toString('base64'));
    const head = '<superblock uuid="" time="0" transaction="1" version="2"';
    for (const [sizes, reason] of [
      ['data_block_size="256" nr_data_blocks="100"', 'the blocks have 256 sectors, those of the pool ".*" have 128'],
      ['data_block_size="128" nr_data_blocks="16385"', 'there are 16385 data blocks, the pool ".*" has room for 16384'],
    ]) {
      const result = await thinlun(['restore', '-i', '-', '-o', dir], { input: `${head} ${sizes}></superblock>` });
      expect(result.code).toBe(64);
      expect(result.stderr).toMatch(new RegExp(`^thinlun: Cannot restore "-" to ".*": line 1: ${reason}\n$`));
    }
    expect(['metadata', 'pool.json'].map((name) => readFileSync(join(dir, name)).toString('base64'))).toEqual(before);
  });

  it('refuses a pool that is being served', async () => {
    const dir = await createPool();
    const server = await serve([dir]);
    const { code, stderr } = await thinlun(['restore', '-i', join(GOLDEN, `${A11}.xml`), '-o', dir]);
    expect(code).toBe(64);
    expect(stderr).toMatch(/process \d+ serves it\n {2}End it with "kill \d+"\.\n$/);
    expect((await statusOf(dir)).mode).toBe('write');
    await server.stop();
  });

  it('names the line of what is wrong, and needs an output that is there', async () => {
    const output = emptyFile(MIB);
    const input = '<superblock uuid="" time="0" transaction="1" data_block_size="128" nr_data_blocks="9">\n<devise/>';
    const wrong = await thinlun(['restore', '-i', '-', '-o', output], { input });
    expect(wrong).toMatchObject({ code: 64, stdout: '' });
    expect(wrong.stderr).toMatch(/: line 2: unknown element <devise>\n$/);
    const missing = await thinlun(['restore', '-i', join(GOLDEN, `${A11}.xml`), '-o', `${output}-not`]);
    expect(missing.code).toBe(64);
    expect(missing.stderr).toMatch(/ENOENT.*\n {2}A file is made with "truncate -s 64M .*-not"/);
    expect(await thinlun(['restore', '-i', '/nonexistent', '-o', output])).toMatchObject({ code: 64 });
    expect(await thinlun(['restore', '-o', output])).toMatchObject({ code: 2 });
  });

  it('leaves no pool behind when Ctrl-C ends it', async () => {
    const output = imageFile('a12-filled-900');
    const fifo = join(temporaryFolder(), 'fifo');
    execFileSync('mkfifo', [fifo]);
    const restore = start(['restore', '-i', fifo, '-o', output]);
    const xml = createWriteStream(fifo);
    xml.on('error', () => {});
    xml.write('<superblock uuid="" time="0" transaction="1" data_block_size="128" nr_data_blocks="999999">');
    xml.write('<device dev_id="1" mapped_blocks="0" transaction="0" creation_time="0" snap_time="0">');
    xml.write('<range_mapping origin_begin="0" data_begin="0" length="90000" time="0"/>');
    xml.write(`<!--${' '.repeat(MIB)}-->`);
    const superblock = (): Buffer => readFileSync(output).subarray(0, 4096);
    for (let i = 0; i < 200 && superblock().some((byte) => byte !== 0); i++) await sleep(50);
    restore.signalGroup('SIGINT');
    expect(await restore.exited).toEqual({ code: null, signal: 'SIGINT' });
    xml.destroy();
    expect(superblock().every((byte) => byte === 0)).toBe(true);
    expect((await thinlun(['check', output])).code).toBe(64);
  });
});

describe('repair', () => {
  it('makes a pool of a damaged copy again, with what its folder knows', async () => {
    const dir = await createPool();
    await createVolume(dir, 'a');
    const xml = (await thinlun(['dump', dir])).stdout;
    const copy = join(temporaryFolder(), 'damaged');
    copyFileSync(join(dir, 'metadata'), copy);
    destroyBlock(copy, 0);
    destroyBlock(join(dir, 'metadata'), 0);
    const result = await thinlun(['repair', '-i', copy, '-o', dir]);
    expect(result).toMatchObject({ code: 0, stdout: '' });
    expect(result.stderr).toMatch(
      /^The superblock is lost: .*\n.*\n(?:Of the same age: .*\n)?Taken: mappings in block \d+ \(devices: 1\), details in \d+\.\n$/,
    );
    expect((await volumesOf(dir)).map(({ name }) => name)).toEqual(['a']);
    expect((await thinlun(['dump', dir])).stdout).toBe(xml);
    expect(await thinlun(['check', '-q', dir])).toMatchObject({ code: 0 });
  });

  it('takes the options of thin_repair', async () => {
    const image = imageFile(A11);
    destroyBlock(image, 0);
    const output = emptyFile(8 * MIB);
    expect(await thinlun(['repair', '-i', image, '-o', output])).toMatchObject({ code: 64, stdout: '' });
    const options = ['--data-block-size', '128', '--nr-data-blocks=2000', '--transaction-id', '17'];
    const result = await thinlun(['repair', '-q', '-i', image, '-o', output, ...options]);
    expect(result).toMatchObject({ code: 0, stdout: '', stderr: '' });
    const [head] = (await thinlun(['dump', output])).stdout.split('\n');
    expect(head).toContain('transaction="17" version="2" data_block_size="128" nr_data_blocks="2000"');
    expect(await thinlun(['repair', '-i', image])).toMatchObject({ code: 2 });
  });

  it('does not write on what it reads', async () => {
    const dir = await createPool();
    for (const output of [dir, join(dir, 'metadata')]) {
      const { code, stderr } = await thinlun(['repair', '-i', dir, '-o', output]);
      expect(code).toBe(64);
      expect(stderr).toContain('onto itself: copy it first');
    }
  });
});
