import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from '../../src/base/schema.ts';
import { checkSchema } from '../../src/cli/tools/check-message.ts';
import { MetadataImage } from '../support/metadata-image.ts';
import { run } from '../support/processes.mjs';
import { TestDevice } from '../support/test-device.ts';
import { optionalTool } from '../support/tools.ts';
import { createPool, createVolume, serve, temporaryFolder, thinlun, thinlunJson, withPool } from './command.ts';

const BLOCK_SIZE = 4096;

interface CatalogueFile {
  transactionId: number;
  volumes: { id: number; name: string }[];
}

function editCatalogue(dir: string, edit: (catalogue: CatalogueFile) => void): void {
  const path = join(dir, 'pool.json');
  const catalogue = JSON.parse(readFileSync(path, 'utf8')) as CatalogueFile;
  edit(catalogue);
  writeFileSync(path, JSON.stringify(catalogue));
}

/** Turns one bit of every block that is in use, the superblock excepted. */
function spoilMetadata(dir: string): void {
  const path = join(dir, 'metadata');
  const bytes = readFileSync(path);
  for (let at = BLOCK_SIZE; at < bytes.length; at += BLOCK_SIZE) {
    if (bytes.subarray(at, at + BLOCK_SIZE).some((byte) => byte !== 0)) bytes[at + 100]! ^= 1;
  }
  writeFileSync(path, bytes);
}

describe('check', () => {
  it('says that a pool is clean, and changes nothing', async () => {
    const dir = await createPool();
    await createVolume(dir, 'a');
    await createVolume(dir, 'b');
    const before = ['metadata', 'pool.json'].map((name) => readFileSync(join(dir, name)).toString('base64'));
    const words = await thinlun(['check', dir]);
    expect(words).toMatchObject({
      code: 0,
      // That of thin_check 1.1.0: scripts read it.
      stdout: 'TRANSACTION_ID=2\nMETADATA_FREE_BLOCKS=500\n',
      stderr: 'The metadata is clean (devices: 2, mapped blocks: 0).\n',
    });
    expect(parse(checkSchema, await thinlunJson('check', dir))).toMatchObject({
      ok: true,
      transactionId: 2,
      errors: 0,
      leaks: 0,
      warnings: 0,
      needsCheck: false,
      deviceCount: 2,
      damages: [],
    });
    expect(['metadata', 'pool.json'].map((name) => readFileSync(join(dir, name)).toString('base64'))).toEqual(before);
    const judge = optionalTool('thin_check');
    if (judge !== null) expect((await run(judge, [join(dir, 'metadata')])).code).toBe(0);
  });

  it('works while a server changes the pool', async () => {
    const dir = await createPool();
    const server = await serve([dir]);
    let stop = false;
    const changes = withPool(dir, async (pool) => {
      for (let i = 0; !stop; i++) {
        await pool.createVolume({ name: `v${i}`, sizeBytes: 4096 });
        if (i % 2 === 0) await pool.deleteVolume(`v${i}`);
        // Time enough for a check between two commits, on a busy machine, too: it looks for that a few times.
        await new Promise((resolve) => setTimeout(resolve, 400));
      }
    });
    for (let i = 0; i < 3; i++) {
      expect(parse(checkSchema, await thinlunJson('check', dir))).toMatchObject({ ok: true, damages: [] });
    }
    stop = true;
    await changes;
    expect(await server.stop()).toEqual({ code: 0, signal: null });
    expect(parse(checkSchema, await thinlunJson('check', dir)).ok).toBe(true);
  });

  it('finds damaged metadata, says where it is, and ends with 64', async () => {
    const dir = await createPool();
    await createVolume(dir, 'a');
    spoilMetadata(dir);
    const words = await thinlun(['check', dir]);
    expect(words.code).toBe(64);
    expect(words.stdout).toMatch(/^TRANSACTION_ID=\d+\nMETADATA_FREE_BLOCKS=\d+\n$/);
    expect(words.stderr).toMatch(/^error: superblock > .*block \d+ has checksum/m);
    expect(words.stderr).toMatch(/^The metadata is damaged \(errors: \d+, leaks: \d+, devices: /m);
    expect(words.stderr).toMatch(/thinlun repair -i /);
    const json = await thinlun(['check', dir, '--json']);
    expect(json.code).toBe(64);
    const found = parse(checkSchema, JSON.parse(json.stdout));
    expect(found.ok).toBe(false);
    expect(found.damages.length).toBe(found.errors + found.leaks + found.warnings);
  });

  it('finds what is no metadata at all', async () => {
    const dir = await createPool();
    writeFileSync(join(dir, 'metadata'), Buffer.alloc(2 * 1024 * 1024));
    const { code, stdout, stderr } = await thinlun(['check', dir]);
    expect({ code, stdout }).toEqual({ code: 64, stdout: '' });
    expect(stderr).toMatch(/^error: superblock: /m);
  });

  it.each([
    [
      'a volume that the metadata does not have',
      /error: pool.json: the metadata has no device 1, which is the volume "a"/,
      64,
    ],
    ['a device without a name', /warning: pool.json: device 1 of the metadata has no name/, 0],
    ['the catalogue of another time', /error: pool.json: it belongs to another transaction/, 64],
    ['no catalogue that can be read', /error: pool.json: Cannot read the pool's catalogue/, 64],
  ])('compares catalogue and metadata and finds %s', async (what, line, status) => {
    const dir = await createPool();
    await createVolume(dir, 'a');
    if (what.startsWith('a volume')) {
      const volumes = JSON.parse(readFileSync(join(dir, 'pool.json'), 'utf8')).volumes;
      await withPool(dir, (pool) => pool.deleteVolume('a'));
      editCatalogue(dir, (catalogue) => {
        catalogue.volumes = volumes;
      });
    }
    if (what.startsWith('a device')) {
      editCatalogue(dir, (catalogue) => {
        catalogue.volumes = [];
      });
    }
    if (what.startsWith('the catalogue')) {
      editCatalogue(dir, (catalogue) => {
        catalogue.transactionId += 7;
      });
    }
    if (what.startsWith('no catalogue')) writeFileSync(join(dir, 'pool.json'), '{}');
    const { code, stderr } = await thinlun(['check', dir]);
    expect(stderr).toMatch(line);
    expect(code).toBe(status);
  });

  it('of a folder without a pool is refused', async () => {
    const result = await thinlun(['check', '/nonexistent']);
    expect(result).toMatchObject({ code: 64, stdout: '' });
    expect(result.stderr).toMatch(/Cannot open "\/nonexistent": ENOENT/);
    const folder = await thinlun(['check', temporaryFolder()]);
    expect(folder).toMatchObject({ code: 64, stdout: '' });
    expect(folder.stderr).toMatch(/there is no pool.json in it\n {2}Make a pool/);
  });

  it('sets leaks right and clears the mark, and says with its status what thin_check says', async () => {
    const dir = await createPool();
    await createVolume(dir, 'a');
    const path = join(dir, 'metadata');
    const device = new TestDevice(new Uint8Array(readFileSync(path)));
    const image = new MetadataImage(device);
    image.change(image.dataBitmap, (words) => image.setBits(words, 900, 0b10));
    image.changeSuperblock((words) => words.fill(1, 1, 2).fill(words[18]! + 1, 18, 19));
    writeFileSync(path, device.memory);
    const leaky = await thinlun(['check', dir]);
    expect(leaky.code).toBe(64);
    expect(leaky.stderr).toContain('leak: superblock > data space map [900]: a reference count of 1, expected 0\n');
    expect(leaky.stderr).toContain(`thinlun check --auto-repair ${dir}\n`);
    expect(await thinlun(['check', '-q', path])).toMatchObject({ code: 64, stdout: '', stderr: '' });
    expect((await thinlun(['check', '--ignore-non-fatal-errors', dir])).code).toBe(0);
    expect((await thinlun(['check', '--skip-mappings', dir])).code).toBe(0);
    expect((await thinlun(['check', '-m', dir])).stderr).toContain('error: metadata snapshot: there is none');
    const judge = optionalTool('thin_check');
    const repaired = await thinlun(['check', '--auto-repair', dir]);
    expect(repaired.code).toBe(0);
    expect(repaired.stderr).toMatch(/The metadata has been repaired\.\nThe metadata is clean/);
    expect(parse(checkSchema, await thinlunJson('check', dir))).toMatchObject({
      ok: true,
      needsCheck: false,
      warnings: 0,
    });
    if (judge !== null) expect((await run(judge, [path])).code).toBe(0);
  }, 60_000);

  it.each([
    [['-m', '--auto-repair']],
    [['-m', '--clear-needs-check-flag']],
    [['--auto-repair', '--skip-mappings']],
    [['--auto-repair', '--super-block-only']],
    [['--auto-repair', '--ignore-non-fatal-errors']],
    [['--override-mapping-root', '5', '--auto-repair']],
    [['--override-details-root', '5', '--clear-needs-check-flag']],
    [['--override-mapping-root', 'x']],
    [['-q', '--json']],
  ])('refuses %j, as thin_check does', async (options) => {
    const result = await thinlun(['check', ...options, '/nonexistent']);
    expect(result).toMatchObject({ code: 2, stdout: '' });
    expect(result.stderr).toMatch(/^thinlun: option /);
  });

  it('is silent where it is to be: the exit status says all', async () => {
    expect(await thinlun(['check', '-q', '/nonexistent'])).toMatchObject({ code: 64, stdout: '', stderr: '' });
    const dir = await createPool();
    expect(await thinlun(['check', '--quiet', dir])).toMatchObject({ code: 0, stdout: '', stderr: '' });
    const wrong = await thinlun(['check', '-q', '--override-mapping-root', 'x', dir]);
    expect(wrong).toMatchObject({ code: 2, stdout: '' });
    expect(wrong.stderr).toMatch(/A whole number is expected/);
  });

  it('does not repair what a server has', async () => {
    const dir = await createPool();
    const server = await serve([dir]);
    const result = await thinlun(['check', '--auto-repair', dir]);
    expect(result).toMatchObject({ code: 64, stdout: '' });
    expect(result.stderr).toMatch(/process \d+ serves it\n {2}End it with "kill \d+"/);
    expect(await server.stop()).toEqual({ code: 0, signal: null });
  }, 60_000);
});
