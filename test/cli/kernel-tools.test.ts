import {
  copyFileSync,
  linkSync,
  openSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import { Pool } from '../../src/thin/pool.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import { LunClient, pattern } from '../support/lun-client.ts';
import { parseThinXml } from '../support/thin-xml.ts';
import { serve, temporaryFolder, thinlun } from './command.ts';

const BLOCK = 64 * KIB;
const VOLUME_BLOCKS = 64;

/** The kernel's tests of thin-provisioning-tools, with our tools; see docs/kernel-tests.md. */

/** Runs a tool that must succeed; what it printed. */
async function tool(...args: string[]): Promise<string> {
  const result = await thinlun(args);
  if (result.code !== 0) throw new Error(`thinlun ${args.join(' ')}: ${result.code}\n${result.stderr}`);
  return result.stdout;
}

/** Runs a tool that must fail; what it said. */
async function refusal(...args: string[]): Promise<string> {
  const result = await thinlun(args);
  if (result.code === 0) throw new Error(`thinlun ${args.join(' ')} succeeded\n${result.stdout}`);
  return result.stderr;
}

/** A new pool that `work` does something with; closed. */
async function poolWith(work: (pool: Pool) => Promise<void>): Promise<string> {
  const dir = join(temporaryFolder(), 'pool');
  await createPool(dir, { dataSizeBytes: 64 * MIB });
  await withPool(dir, work);
  return dir;
}

async function withPool(dir: string, work: (pool: Pool) => Promise<void>): Promise<void> {
  const pool = await Pool.open(dir);
  await work(pool).finally(() => pool.close());
}

/** Writes these blocks of a volume, which is made where it is not there. */
async function write(pool: Pool, name: string, blocks: readonly number[], seed: number): Promise<void> {
  if (!pool.volumes().some((volume) => volume.name === name)) {
    await pool.createVolume(name, VOLUME_BLOCKS * BLOCK);
  }
  const device = pool.openVolume(name);
  const client = new LunClient(device);
  for (const block of blocks) await client.write(block * BLOCK, pattern(BLOCK, seed * 1000 + block));
  await pool.closeVolume(device);
}

function range(begin: number, end: number): number[] {
  return Array.from({ length: end - begin }, (_, i) => begin + i);
}

/** A device of one half, a scattered one, and a snapshot of it that has gone its own way. */
function busyPool(): Promise<string> {
  return poolWith(async (pool) => {
    await write(pool, 'linear', range(0, 32), 1);
    await write(
      pool,
      'random',
      range(0, 40).map((i) => (i * 37) % VOLUME_BLOCKS),
      2,
    );
    await pool.createSnapshot('random', 'snap');
    await write(pool, 'snap', range(10, 20), 3);
  });
}

/** The devices and mappings of a dump. */
function contents(xml: string): unknown {
  return [...parseThinXml(xml).devices].map(([id, { mappings, ...details }]) => [id, details, [...mappings]]);
}

/** The devices of a pool, as if it had no folder. */
function trimArguments(dir: string): string[] {
  const folder = temporaryFolder();
  for (const name of ['metadata', 'data']) linkSync(join(dir, name), join(folder, name));
  return ['trim', '--metadata-dev', join(folder, 'metadata'), '--data-dev', join(folder, 'data')];
}

describe('tools on live metadata', () => {
  it('you_cannot_run_thin_check_on_live_metadata: ours can, it checks the last commit', async () => {
    const dir = await busyPool();
    const server = await serve([dir]);
    await tool('check', '-q', dir);
    await server.stop();
    await tool('check', '-q', dir);
  });

  it.each([
    ['you_cannot_run_thin_dump_on_live_metadata', (dir: string) => ['dump', dir]],
    ['you_cannot_run_thin_restore_on_a_live_metadata', (dir: string) => ['restore', '-i', `${dir}/../xml`, '-o', dir]],
    ['you_cannot_run_thin_trim_on_live_metadata', trimArguments],
  ])('%s: of a pool that a server has', async (_, args) => {
    const dir = await busyPool();
    writeFileSync(`${dir}/../xml`, await tool('dump', dir));
    const server = await serve([dir]);
    expect(await refusal(...args(dir))).toMatch(/server|process|somebody/);
    await server.stop();
    await tool(...args(dir));
  });

  it('you_can_dump_a_metadata_snapshot', async () => {
    const dir = await busyPool();
    const before = await tool('dump', dir);
    await tool('message', dir, 'reserve_metadata_snap');
    await withPool(dir, (pool) => write(pool, 'linear', range(30, 64), 9));
    expect(contents(await tool('dump', '-m', dir))).toEqual(contents(before));
    expect(contents(await tool('dump', dir))).not.toEqual(contents(before));
  });

  it('thin_dump_a_metadata_snap_of_an_active_pool: while a server writes it', async () => {
    const dir = await busyPool();
    const before = await tool('dump', dir);
    const server = await serve([dir]);
    expect(await refusal('dump', '-m', dir)).toMatch(/snapshot/);
    await tool('message', dir, 'reserve_metadata_snap');
    await tool('volume', 'snapshot', dir, 'linear', 'another');
    const held = await tool('dump', '-m', dir);
    expect(contents(held)).toEqual(contents(before));
    // The space maps are no part of it, so nobody knows how many blocks there are.
    expect(held).toContain('nr_data_blocks="0"');
    await tool('message', dir, 'release_metadata_snap');
    await server.stop();
  });

  it.each([
    ['metadata_snap_stress1: reserved, read and released, again and again', 'dump'],
    ['metadata_snap_stress2: with a check of it each time', 'check'],
  ])('%s', async (_, command) => {
    const dir = await busyPool();
    const server = await serve([dir]);
    for (let i = 0; i < 3; i++) {
      await tool('message', dir, 'reserve_metadata_snap');
      const change = tool('volume', 'snapshot', dir, 'random', `stress-${i}`);
      expect(await tool(command, '-m', dir)).not.toBe('');
      await change;
      await tool('message', dir, 'release_metadata_snap');
    }
    await server.stop();
    await tool('check', '-q', dir);
  });
});

describe('tools', () => {
  it('thin_ls: exclusive blocks are those that no other device has, in the metadata snapshot, too', async () => {
    const dir = await busyPool();
    const { devices } = parseThinXml(await tool('dump', dir));
    const owners = new Map<number, number>();
    for (const { mappings } of devices.values()) {
      for (const { dataBlock } of mappings.values()) owners.set(dataBlock, (owners.get(dataBlock) ?? 0) + 1);
    }
    const expected = [...devices].map(([id, { mappings }]) => {
      const exclusive = [...mappings.values()].filter(({ dataBlock }) => owners.get(dataBlock) === 1).length;
      return [id, mappings.size, exclusive, mappings.size - exclusive];
    });
    const fields = ['ls', '--no-headers', '-o', 'DEV,MAPPED_BLOCKS,EXCLUSIVE_BLOCKS,SHARED_BLOCKS'];
    const rows = (text: string): number[][] =>
      text
        .trimEnd()
        .split('\n')
        .map((line) => line.trim().split(/ +/).map(Number));
    expect(rows(await tool(...fields, dir))).toEqual(expected);
    await tool('message', dir, 'reserve_metadata_snap');
    await withPool(dir, (pool) => write(pool, 'snap', range(0, 64), 9));
    expect(rows(await tool(...fields, '-m', dir))).toEqual(expected);
  });

  it('thin_repair_repeatable: 512 bytes of noise, repaired twice', async () => {
    const dir = await busyPool();
    const folder = temporaryFolder();
    const files = ['a', 'b', 'c'].map((name) => join(folder, name));
    copyFileSync(join(dir, 'metadata'), files[0]!);
    writeSync(openSync(files[0]!, 'r+'), pattern(512, 7), 0, 512, 40_960);
    for (const [from, to] of [
      [files[0]!, files[1]!],
      [files[1]!, files[2]!],
    ] as const) {
      writeFileSync(to, '');
      truncateSync(to, statSync(from).size);
      await tool('repair', '-q', '-i', from, '-o', to);
      await tool('check', '-q', to);
    }
    expect(await tool('dump', files[2]!)).toBe(await tool('dump', files[1]!));
  });

  it('thin_dump_restore_repeatable, dump_restore_dump_is_idempotent: nothing is lost, and nothing changes any more', async () => {
    const dir = await busyPool();
    const folder = temporaryFolder();
    let from = join(dir, 'metadata');
    const first = contents(await tool('dump', from));
    for (const round of ['1', '2']) {
      const [xml, to] = [join(folder, `${round}.xml`), join(folder, round)];
      writeFileSync(xml, await tool('dump', from));
      writeFileSync(to, '');
      truncateSync(to, statSync(from).size);
      await tool('restore', '-q', '-i', xml, '-o', to);
      await tool('check', '-q', to);
      expect(contents(await tool('dump', to))).toEqual(first);
      if (round !== '1') expect(readFileSync(to).equals(readFileSync(from))).toBe(true);
      from = to;
    }
  });

  it('dump_is_idempotent: the same text each time', async () => {
    const dir = await busyPool();
    expect(await tool('dump', dir)).toBe(await tool('dump', dir));
  });

  it.each([
    ['thin_trim_discards_correct_area: what is free is given back, what is mapped stays', trimArguments],
    ['thin_trim_discards_correct_area, by the pool’s folder', (dir: string) => ['trim', dir]],
  ])('%s', async (_, args) => {
    const dir = await busyPool();
    const data = join(dir, 'data');
    const { devices } = parseThinXml(await tool('dump', dir));
    const mapped = new Set(
      [...devices.values()].flatMap(({ mappings }) => [...mappings.values()]).map((m) => m.dataBlock),
    );
    const before = readFileSync(data);
    const fd = openSync(data, 'r+');
    const free = range(0, 1024).filter((block) => !mapped.has(block));
    for (const block of free) writeSync(fd, pattern(BLOCK, block), 0, BLOCK, block * BLOCK);
    await tool(...args(dir));
    const after = readFileSync(data);
    for (const block of range(0, 1024)) {
      const at = after.subarray(block * BLOCK, (block + 1) * BLOCK);
      const wanted = mapped.has(block) ? before.subarray(block * BLOCK, (block + 1) * BLOCK) : Buffer.alloc(BLOCK);
      expect(at.equals(wanted)).toBe(true);
    }
    expect(statSync(data).blocks * 512).toBeLessThanOrEqual(mapped.size * BLOCK);
  });
});

/** `kind begin length` of each line of a delta. */
function differences(xml: string): string[] {
  return [...xml.matchAll(/<(same|different|left_only|right_only) begin="(\d+)" length="(\d+)"/g)].map((found) =>
    found.slice(1).join(' '),
  );
}

describe('thin_delta', () => {
  it('delta: of two devices that have nothing in common', async () => {
    const dir = await poolWith(async (pool) => {
      await write(pool, 'one', range(0, 32), 1);
      await write(pool, 'two', range(16, 48), 2);
    });
    const [one, two] = parseThinXml(await tool('dump', dir)).devices.keys();
    expect(differences(await tool('delta', dir, '--thin1', `${one}`, '--thin2', `${two}`))).toEqual([
      'left_only 0 16',
      'different 16 16',
      'right_only 32 16',
    ]);
  });

  it('metadata_snap_with_live_pool: of what is held, while a server has the pool', async () => {
    const dir = await poolWith(async (pool) => {
      await write(pool, 'one', range(0, 32), 1);
      await pool.createSnapshot('one', 'snap');
    });
    const ids = [...parseThinXml(await tool('dump', dir)).devices.keys()];
    const args = ['delta', '-m', dir, '--snap1', `${ids[0]}`, '--snap2', `${ids[1]}`];
    await tool('message', dir, 'reserve_metadata_snap');
    await withPool(dir, (pool) => write(pool, 'one', range(0, 64), 2));
    const server = await serve([dir]);
    expect(differences(await tool(...args))).toEqual(['same 0 32']);
    await server.stop();
  });

  it.each([
    ['snap_with_single_block_difference1: the first', 'snap', [0], ['different 0 1', 'same 1 31']],
    ['snap_with_single_block_difference2: the last', 'snap', [31], ['same 0 31', 'different 31 1']],
    ['snap_with_single_block_difference3: one between', 'snap', [5], ['same 0 5', 'different 5 1', 'same 6 26']],
    [
      'snap_with_single_block_difference4: one that only the snapshot has',
      'snap',
      [40],
      ['same 0 32', 'right_only 40 1'],
    ],
    ['snap_with_single_block_difference5: one that only the origin has', 'one', [40], ['same 0 32', 'left_only 40 1']],
  ])('%s', async (_, changed, blocks, expected) => {
    const dir = await poolWith(async (pool) => {
      await write(pool, 'one', range(0, 32), 1);
      await pool.createSnapshot('one', 'snap');
      await write(pool, changed, blocks, 2);
    });
    const [one, snap] = parseThinXml(await tool('dump', dir)).devices.keys();
    expect(differences(await tool('delta', dir, '--thin1', `${one}`, '--thin2', `${snap}`))).toEqual(expected);
  });
});

describe('thin_migrate', () => {
  it.each([
    ['thin_to_thin: a volume as it is at one moment, in another pool', 64 * KIB],
    ['large_block_size: into a pool of larger blocks', 256 * KIB],
  ])('%s', async (_, blockSizeBytes) => {
    const dir = await busyPool();
    const other = join(temporaryFolder(), 'other');
    await createPool(other, { dataSizeBytes: 64 * MIB, blockSizeBytes });
    const stream = join(temporaryFolder(), 'stream');
    await tool('send', '-q', dir, 'snap', '-o', stream);
    await tool('receive', '-q', other, 'copy', '-i', stream);
    expect((await readAll(other, 'copy')).equals(await readAll(dir, 'snap'))).toBe(true);
  });

  it('thin_to_file: a stream in a file, which brings the volume back', async () => {
    const dir = await busyPool();
    const stream = join(temporaryFolder(), 'stream');
    await tool('send', '-q', dir, 'random', '-o', stream);
    await tool('receive', '-q', dir, 'again', '-i', stream);
    expect((await readAll(dir, 'again')).equals(await readAll(dir, 'random'))).toBe(true);
  });

  it('device_not_present_in_metadata_snap: a volume that is not there', async () => {
    const dir = await busyPool();
    expect(await refusal('send', dir, 'nobody')).toMatch(/no volume "nobody"/);
  });
});

async function readAll(dir: string, name: string): Promise<Buffer> {
  let bytes!: Uint8Array;
  await withPool(dir, async (pool) => {
    const device = pool.openVolume(name);
    bytes = await new LunClient(device).read(0, VOLUME_BLOCKS * BLOCK);
    await pool.closeVolume(device);
  });
  return Buffer.from(bytes);
}
