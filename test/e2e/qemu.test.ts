import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { run, runOk } from '../support/processes.mjs';
import { SeededRandom } from '../support/seeded-random.ts';
import { ServedPool } from '../support/server.ts';
import { requireTool } from '../support/tools.ts';

for (const name of ['qemu-img', 'qemu-io', 'qemu-iscsi', 'mkfs.ext4']) requireTool(name);

const MIB = 1024 * 1024;

let pool: ServedPool | null = null;

afterEach(async () => {
  const last = pool;
  pool = null;
  await last?.close();
});

/** Serves a new pool with one volume and returns its URL. */
async function serveVolume(size: string): Promise<string> {
  pool = await ServedPool.create('1G', { disk: size });
  return (await pool.serve()).lun.url;
}

/** One run of qemu-io with these commands; fails when any of them does. */
async function qemuIo(url: string, ...commands: string[]): Promise<string> {
  const output = await runOk('qemu-io', [
    '-f',
    'raw',
    '-t',
    'none',
    ...commands.flatMap((command) => ['-c', command]),
    url,
  ]);
  // Its exit status does not always tell.
  if (/failed|error|verification/i.test(output)) throw new Error(`qemu-io: ${commands.join('; ')}\n${output}`);
  return output;
}

/** A raw image with data here and there. */
function writeImage(path: string, sizeMib: number, seed: number): void {
  const random = new SeededRandom(seed);
  const image = Buffer.alloc(sizeMib * MIB);
  for (let i = 0; i < 40; i++) {
    const length = 512 * (1 + random.below(600));
    const at = 512 * random.below((image.length - length) / 512);
    random.fill(image.subarray(at, at + length));
  }
  writeFileSync(path, image);
}

describe('qemu', () => {
  it('copies an image in, finds it the same, also after a restart, and copies it out again', async () => {
    let url = await serveVolume('64M');
    const image = pool!.path('in.raw');
    writeImage(image, 64, 1);
    await runOk('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', '-t', 'none', image, url]);
    await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, url]);
    url = (await pool!.restart()).lun.url;
    await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, url]);
    const out = pool!.path('out.raw');
    await runOk('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', '-T', 'none', url, out]);
    expect(readFileSync(out).equals(readFileSync(image))).toBe(true);
  });

  it('keeps a file system that its own checker finds clean after a restart', async () => {
    requireTool('mkfs.ext4');
    let url = await serveVolume('64M');
    const folder = pool!.path('files');
    mkdirSync(join(folder, 'deep'), { recursive: true });
    const random = new SeededRandom(2);
    const content = Buffer.alloc(3 * MIB + 17);
    random.fill(content);
    writeFileSync(join(folder, 'deep', 'content'), content);
    const image = pool!.path('fs.raw');
    await runOk('mkfs.ext4', ['-q', '-d', folder, image, '64M']);
    await runOk('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', image, url]);
    url = (await pool!.restart()).lun.url;
    const out = pool!.path('out.raw');
    await runOk('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', url, out]);
    await runOk('e2fsck', ['-f', '-n', out]);
    await runOk('debugfs', ['-R', `dump /deep/content ${pool!.path('content')}`, out]);
    expect(readFileSync(pool!.path('content')).equals(content)).toBe(true);
  });

  it('writes patterns that it reads back, and zeroes where nothing was written', async () => {
    const url = await serveVolume('64M');
    await qemuIo(
      url,
      'write -P 0x11 0 512',
      'write -P 0x22 1M 65536',
      'write -P 0x33 5000k 200k',
      'write -P 0x44 67108352 512',
      'flush',
    );
    await qemuIo(
      url,
      'read -P 0x11 0 512',
      'read -P 0 512 65024',
      'read -P 0x22 1M 65536',
      'read -P 0x33 5000k 200k',
      'read -P 0 5200k 10M',
      'read -P 0x44 67108352 512',
    );
    const past = await run('qemu-io', ['-f', 'raw', '-c', 'read 67108864 512', url]);
    expect(past.stdout + past.stderr).toMatch(/Input\/output error|out of range|past|failed/i);
  });

  it('sees the map of the volume: data where it wrote, holes elsewhere', async () => {
    const url = await serveVolume('64M');
    await qemuIo(url, 'write -P 1 0 1M', 'write -P 2 32M 2M', 'flush');
    const map: { start: number; length: number; data: boolean }[] = JSON.parse(
      await runOk('qemu-img', ['map', '-f', 'raw', '--output=json', url]),
    );
    const data = map.filter((extent) => extent.data).map(({ start, length }) => [start, length]);
    expect(data).toEqual([
      [0, MIB],
      [32 * MIB, 2 * MIB],
    ]);
    expect(map.reduce((sum, { length }) => sum + length, 0)).toBe(64 * MIB);
  });

  it('gives space back with discard, and what it discarded reads as zeroes', async () => {
    const url = await serveVolume('64M');
    await qemuIo(url, 'write -P 7 0 16M', 'flush');
    const full = (await pool!.status()).dataUsedBytes;
    expect(full).toBe(16 * MIB);
    await runOk('qemu-io', [
      '-f',
      'raw',
      '-t',
      'none',
      '-d',
      'unmap',
      '-c',
      'discard 4M 8M',
      '-c',
      'discard 13000k 1000',
      '-c',
      'flush',
      url,
    ]);
    await qemuIo(url, 'read -P 7 0 4M', 'read -P 0 4M 8M', 'read -P 7 12M 700k', 'read -P 7 14M 2M');
    const less = (await pool!.status()).dataUsedBytes;
    expect(less).toBe(8 * MIB);
    await pool!.stop();
    expect((await pool!.status()).dataUsedBytes, 'without a server').toBe(8 * MIB);
  });

  it('writes zeroes and reads zeroes', async () => {
    const url = await serveVolume('64M');
    await qemuIo(url, 'write -P 9 0 4M', 'write -z 1M 1M', 'write -z -u 2M 1M', 'flush');
    await qemuIo(url, 'read -P 9 0 1M', 'read -P 0 1M 2M', 'read -P 9 3M 1M');
  });

  it('runs its own benchmark, reads and writes, at depth', async () => {
    const url = await serveVolume('64M');
    for (const direction of [['-w'], [], ['-w', '--flush-interval=64']]) {
      const output = await runOk('qemu-img', [
        'bench',
        '-f',
        'raw',
        '-t',
        'none',
        '-c',
        '4000',
        '-d',
        '64',
        '-s',
        '4096',
        ...direction,
        url,
      ]);
      expect(output).toMatch(/Run completed in [\d.]+ seconds/);
    }
  });
});
