import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { run, runOk } from '../support/processes.mjs';
import { SeededRandom } from '../support/seeded-random.ts';
import { ServedPool } from '../support/server.ts';
import { thinlun } from '../support/thinlun-server.mjs';
import { requireTool } from '../support/tools.ts';

for (const name of ['qemu-img', 'qemu-io', 'qemu-iscsi', 'iscsi-inq', 'iscsi-readcapacity16']) requireTool(name);

const MIB = 1024 * 1024;

let pool: ServedPool | null = null;

afterEach(async () => {
  const last = pool;
  pool = null;
  await last?.close();
});

/** One run of qemu-io with these commands. */
async function qemuIo(url: string, ...commands: string[]): Promise<string> {
  const flags = commands.flatMap((command) => ['-c', command]);
  return runOk('qemu-io', ['-f', 'raw', '-t', 'none', '-d', 'unmap', ...flags, url]);
}

function writeImage(path: string, size: number, seed: number): Buffer {
  const image = Buffer.alloc(size);
  new SeededRandom(seed).fill(image);
  writeFileSync(path, image);
  return image;
}

async function contentOf(url: string, name: string): Promise<Buffer> {
  const out = pool!.path(name);
  await runOk('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', url, out]);
  return readFileSync(out);
}

describe('a volume over an image, served', () => {
  it('is the image for qemu, takes writes, and leaves the image alone; its space is what was written', async () => {
    pool = await ServedPool.create('256M', {});
    const path = pool.path('image.raw');
    const image = writeImage(path, 20 * MIB + 512 * 37, 1);
    await thinlun('volume', 'create', pool.folder, 'vm', '--external-origin', path);
    let { url } = (await pool.serve()).lun;
    expect((await contentOf(url, 'first.raw')).equals(image)).toBe(true);
    await qemuIo(url, 'write -P 0x5a 1M 4k', 'write -P 0x5b 64k 64k', 'write -z 10M 1M', 'discard 64k 64k', 'flush');
    const expected = Buffer.from(image);
    expected.fill(0x5a, MIB, MIB + 4096);
    expected.fill(0, 10 * MIB, 11 * MIB);
    expect((await contentOf(url, 'second.raw')).equals(expected)).toBe(true);
    ({ url } = (await pool.restart()).lun);
    expect((await contentOf(url, 'third.raw')).equals(expected)).toBe(true);
    expect(readFileSync(path).equals(image)).toBe(true);
    const [volume] = JSON.parse(await thinlun('volume', 'list', pool.folder, '--json'));
    expect(volume).toMatchObject({ mappedBytes: 17 * 64 * 1024, externalOrigin: { path, problem: null } });
  });
});

describe('a served pool that may grow by itself', () => {
  it('takes what was written beyond its first size, and stops at its limit', async () => {
    pool = await ServedPool.create('8M', { disk: '64M' });
    await thinlun(
      'pool',
      'set',
      pool.folder,
      '--auto-extend-limit',
      '24M',
      '--low-water',
      '2M',
      '--error-if-no-space',
      'on',
    );
    const { url } = (await pool.serve()).lun;
    const image = writeImage(pool.path('in.raw'), 20 * MIB, 2);
    await runOk('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', '-t', 'none', pool.path('in.raw'), url]);
    expect((await contentOf(url, 'out.raw')).subarray(0, 20 * MIB).equals(image)).toBe(true);
    const full = await run('qemu-io', ['-f', 'raw', '-t', 'none', '-c', 'write 32M 8M', url]);
    expect(full.stdout + full.stderr).toMatch(/No space|failed|error/i);
    const status = JSON.parse(await thinlun('pool', 'status', pool.folder, '--json'));
    expect(status).toMatchObject({ dataSizeBytes: 24 * MIB, mode: 'out-of-data-space', dataIsLow: true });
    expect(statSync(`${pool.folder}/data`).size).toBe(24 * MIB);
    await thinlun('pool', 'set', pool.folder, '--auto-extend-limit', '64M');
    await qemuIo(url, 'write -P 7 32M 8M', 'read -P 7 32M 8M');
  });
});

describe('a served pool whose volumes do not offer UNMAP', () => {
  it('says so to initiators', async () => {
    pool = await ServedPool.create('64M', { disk: '16M' });
    await thinlun('pool', 'set', pool.folder, '--ignore-discard', 'on');
    const { url } = (await pool.serve()).lun;
    const provisioning = await runOk('iscsi-inq', ['-e', '1', '-c', '178', url]);
    expect(provisioning).toMatch(/lbpu:0/i);
    const capacity = await runOk('iscsi-readcapacity16', [url]);
    expect(capacity).toMatch(/LBPME:0 LBPRZ:0/);
    const refused = thinlun('pool', 'set', pool.folder, '--ignore-discard', 'off');
    await expect(refused).rejects.toThrow('volumes are in use');
  });
});
