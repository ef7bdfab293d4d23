import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createPool, createVolume, temporaryFolder, thinlun } from './command.ts';

const MIB = 1024 * 1024;

describe('pack and unpack', () => {
  it('copy the metadata of a pool through a small file', async () => {
    const dir = await createPool();
    await createVolume(dir, 'a');
    const file = join(temporaryFolder(), 'pool.pack');
    const copy = join(temporaryFolder(), 'metadata');
    expect(await thinlun(['pack', '-i', dir, '-o', file])).toMatchObject({ code: 0, stdout: '', stderr: '' });
    expect(readFileSync(file).length).toBeLessThan(10_000);
    expect(await thinlun(['unpack', '-i', file, '-o', copy])).toMatchObject({ code: 0, stdout: '', stderr: '' });
    expect(Buffer.compare(readFileSync(copy), readFileSync(join(dir, 'metadata')))).toBe(0);
    expect(await thinlun(['check', '-q', copy])).toMatchObject({ code: 0, stdout: '' });
  });

  it('overwrite metadata only with --force, and anything else', async () => {
    const dir = await createPool();
    const file = join(temporaryFolder(), 'pool.pack');
    const copy = join(temporaryFolder(), 'metadata');
    writeFileSync(copy, Buffer.alloc(3 * MIB, 7));
    expect((await thinlun(['pack', '-i', join(dir, 'metadata'), '-o', file])).code).toBe(0);
    expect((await thinlun(['unpack', '-i', file, '-o', copy])).code).toBe(0);
    expect(Buffer.compare(readFileSync(copy), readFileSync(join(dir, 'metadata')))).toBe(0);
    const again = await thinlun(['unpack', '-i', file, '-o', copy]);
    expect(again).toMatchObject({ code: 64, stdout: '' });
    expect(again.stderr).toMatch(/it holds metadata\n {2}Overwrite it with --force/);
    expect((await thinlun(['unpack', '-f', '-i', file, '-o', copy])).code).toBe(0);
  });

  it('refuse what cannot be, and leave nothing behind', async () => {
    const dir = await createPool();
    const file = join(temporaryFolder(), 'pool.pack');
    expect(await thinlun(['pack', '-i', dir])).toMatchObject({ code: 2 });
    expect(await thinlun(['pack', '-i', '/nonexistent', '-o', file])).toMatchObject({ code: 64 });
    const same = await thinlun(['pack', '-i', join(dir, 'metadata'), '-o', join(dir, 'metadata')]);
    expect(same.code).toBe(64);
    expect(same.stderr).toContain('it is the input');
    await thinlun(['pack', '-i', dir, '-o', file]);
    writeFileSync(file, readFileSync(file).subarray(0, 300));
    const short = await thinlun(['unpack', '-i', file, '-o', `${file}.metadata`]);
    expect(short.code).toBe(64);
    expect(short.stderr).toMatch(/the pack file is damaged: it ends early\n {2}Pack the metadata again/);
    expect((await thinlun(['check', `${file}.metadata`])).stderr).toContain('ENOENT');
  });
});

describe('metadata-size', () => {
  it('prints what thin_metadata_size prints', async () => {
    const size = ['metadata-size', '-b', '64k', '-s', '1t', '-m', '1000'];
    expect(await thinlun(size)).toMatchObject({ code: 0, stdout: '1073232 sectors\n' });
    expect(await thinlun([...size, '-n'])).toMatchObject({ code: 0, stdout: '1073232\n' });
    expect(await thinlun([...size, '-n=short', '-u', 'm'])).toMatchObject({ code: 0, stdout: '524.04m\n' });
    expect(await thinlun([...size, '--numeric-only=long', '-u', 'M'])).toMatchObject({ stdout: '549.49megabytes\n' });
    expect(await thinlun([...size, '-n=foo'])).toMatchObject({ code: 2, stdout: '' });
    const odd = await thinlun(['metadata-size', '-b', '100k', '-s', '1t', '-m', '1']);
    expect(odd).toMatchObject({ code: 64, stdout: '', stderr: 'thinlun: block size must be a multiple of 64 KiB\n' });
    expect(await thinlun(['metadata-size', '-b', '64k', '-s', '1t'])).toMatchObject({ code: 2 });
  });
});
