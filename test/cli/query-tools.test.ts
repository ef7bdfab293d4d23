import { execFileSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import { Pool } from '../../src/thin/pool.ts';
import { LunClient, pattern } from '../support/lun-client.ts';
import { requireTool } from '../support/tools.ts';
import { createPool, createVolume, ROOT, serve, temporaryFolder, thinlun } from './command.ts';

const IMAGE = 'a11-five-snaps-broke-one-overflow-tree';

/** A metadata image that a kernel wrote, as a file. */
function imageFile(): string {
  const path = join(temporaryFolder(), 'image');
  const packed = join(ROOT, 'test', 'golden', `${IMAGE}.md.xz`);
  writeFileSync(path, execFileSync(requireTool('xz'), ['-dc', packed], { maxBuffer: 1 << 26 }));
  return path;
}

async function output(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await thinlun(args);
  expect(stderr.toString()).toBe('');
  expect(code).toBe(0);
  return stdout.toString();
}

async function failure(...args: string[]): Promise<string> {
  const { code, stderr } = await thinlun(args);
  return `${code} ${stderr.toString().split('\n')[0]}`;
}

describe('the tools that ask', () => {
  it('print what those of thin-provisioning-tools print', async () => {
    const image = imageFile();
    const before = readFileSync(image);
    expect(await output('ls', image, '--no-headers', '-o', 'DEV,MAPPED,EXCLUSIVE_BLOCKS')).toBe(
      [' 1 448KiB 1 ', '40     0b 0 ', ...[50, 51, 52, 53, 54].map((id) => `${id} 384KiB 0 `), ''].join('\n'),
    );
    expect(await output('rmap', image, '--region', '9..12', '--region', '3..4')).toBe(
      [
        'data 3..4 -> thin(1) 3..4',
        ...[50, 51, 52, 53, 54].map((id) => `data 3..4 -> thin(${id}) 3..4`),
        'data 9..10 -> thin(1) 1..2',
        '',
      ].join('\n'),
    );
    expect(await output('delta', image, '--snap1', '1', '--thin2', '54', '--no-same')).toBe(
      '<superblock uuid="" time="6" transaction="6" data_block_size="128" nr_data_blocks="1024">\n' +
        '  <diff left="1" right="54">\n    <left_only begin="1" length="1"/>\n  </diff>\n</superblock>',
    );
    expect(await output('inspect', image, '87')).toContain('used as       device 50: root; device 51: root');
    expect((await output('inspect', image, '0', '--hex')).split('\n').at(-2)).toMatch(/^0ff0 /);
    expect(readFileSync(image).equals(before)).toBe(true);
  });

  it('end as those end', async () => {
    const image = imageFile();
    expect(await failure('ls', '/nowhere')).toMatch(/^64 thinlun: Cannot open "\/nowhere"/);
    expect(await failure('ls', image, '-m')).toMatch(
      /^64 thinlun: Cannot read the metadata snapshot .*: there is none$/,
    );
    expect(await failure('ls', image, '-o', 'FOO')).toMatch(/^2 thinlun: .*There is no field "FOO"/);
    expect(await failure('rmap', image)).toMatch(/^2 thinlun: required option '--region/);
    expect(await failure('rmap', image, '--region', '5..5')).toMatch(
      /^2 thinlun: .*its end is not behind its beginning/,
    );
    expect(await failure('delta', image, '--thin1', '1', '--thin2', '99')).toMatch(
      /^64 thinlun: Cannot find device 99/,
    );
    expect(await failure('delta', image, '--thin1', '1')).toBe(
      '64 thinlun: Cannot compare: neither --thin2 nor --root2 is given',
    );
    expect(await failure('delta', image, '--thin1', '1', '--root1', '5', '--thin2', '1')).toMatch(
      /^2 thinlun: option '--thin1 <id>' cannot be used with option '--root1/,
    );
    expect(await failure('inspect', image, 'x')).toMatch(/^2 thinlun: .*A whole number is expected/);
    expect(await failure('inspect', image, '2048')).toMatch(/^64 thinlun: Cannot inspect block 2048/);
    expect(await failure('trim')).toMatch(/^2 thinlun: Give either/);
  });

  it('know the names of volumes in a folder of a pool, and leave one alone that is served', async () => {
    const dir = await createPool('tank');
    await createVolume(dir, 'web');
    expect(await output('ls', dir)).toBe(
      'DEV NAME MAPPED CREATE_TIME SNAP_TIME \n  1  web     0b           0         0 \n',
    );
    const server = await serve([dir]);
    expect(await failure('ls', dir)).toBe(
      `64 thinlun: Cannot open the metadata of the pool "${dir}": process ${server.pid} serves it`,
    );
    await server.stop();
  });

  it.each([
    ['alone', false],
    ['at its server', true],
  ])('give back the free space of a pool, %s', async (_, served) => {
    const dir = await createPool('tank');
    await createVolume(dir, 'web');
    const pool = await Pool.open(dir);
    await pool.setOptions({ noDiscardPassdown: true });
    const web = new LunClient(pool.openVolume('web'));
    await web.write(0, pattern(8 * MIB, 1));
    await web.unmap(0, 6 * MIB);
    await pool.close();
    const allocated = (): number => statSync(join(dir, 'data')).blocks * 512;
    expect(allocated()).toBeGreaterThanOrEqual(8 * MIB);
    if (served) await serve([dir]);
    expect(await output('trim', dir)).toBe('Discarded 1022 MiB of free space.\n');
    expect(allocated()).toBeLessThan(3 * MIB);
  });

  it('give back the free space of a pool without a folder', async () => {
    const image = imageFile();
    const data = join(temporaryFolder(), 'data');
    writeFileSync(data, pattern(64 * MIB, 1));
    expect(await output('trim', '--metadata-dev', image, '--data-dev', data)).toMatch(
      /^Discarded 63.\d+ MiB of free space.\n$/,
    );
    expect(statSync(data).blocks * 512).toBe(7 * 65536);
    expect(
      readFileSync(data)
        .subarray(2 * 65536, 7 * 65536)
        .equals(pattern(64 * MIB, 1).subarray(2 * 65536, 7 * 65536)),
    ).toBe(true);
    const bytes = readFileSync(image);
    bytes[87 * 4096 + 100]! ^= 1;
    writeFileSync(image, bytes);
    expect(await failure('trim', '--metadata-dev', image, '--data-dev', data)).toMatch(
      /^64 thinlun: Cannot trim .*: the metadata is damaged/,
    );
    const dir = await createPool('tank');
    expect(await failure('trim', '--metadata-dev', join(dir, 'metadata'), '--data-dev', join(dir, 'data'))).toMatch(
      /belongs to a pool's folder$/,
    );
  });
});
