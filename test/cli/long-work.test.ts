import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { GIB, MIB } from '../../src/base/units.ts';
import { createPool } from '../../src/thin/pool-create.ts';
import { type RunResult, run } from '../support/processes.mjs';
import { SeededRandom } from '../support/seeded-random.ts';
import { requireTool } from '../support/tools.ts';
import { COMMAND, statusOf, temporaryFolder, thinlun, volumesOf } from './command.ts';

const MAPPINGS = 1_000_000;
const DATA_BYTES = 200 * GIB;
const MAX_MEMORY = 300 * MIB;
/** Writes down how much memory the process took at most, in KiB. */
const MEASURE =
  "data:text/javascript,import{writeFileSync}from'node:fs';process.on('exit',()=>writeFileSync(process.env.MEASURED,String(process.resourceUsage().maxRSS)))";

/** One device with so many blocks, at places of the data device in no order, no two beside each other. */
function strewnXml(): string {
  const random = new SeededRandom(1);
  const places = Uint32Array.from({ length: MAPPINGS }, (_, i) => i);
  for (let i = MAPPINGS - 1; i > 0; i--) {
    const other = random.below(i + 1);
    const place = places[i]!;
    places[i] = places[other]!;
    places[other] = place;
  }
  const lines = [
    `<superblock uuid="" time="0" transaction="0" data_block_size="128" nr_data_blocks="${DATA_BYTES / 65536}">`,
    `  <device dev_id="1" mapped_blocks="${MAPPINGS}" transaction="0" creation_time="0" snap_time="0">`,
  ];
  for (let i = 0; i < MAPPINGS; i++) {
    lines.push(`    <single_mapping origin_block="${i}" data_block="${2 * places[i]!}" time="0"/>`);
  }
  return `${lines.join('\n')}\n  </device>\n</superblock>\n`;
}

/** Runs the command on a terminal; what the terminal shows. */
async function onTerminal(...args: string[]): Promise<string> {
  const result = await run(requireTool('script'), ['-qec', [COMMAND, ...args].join(' '), '/dev/null']);
  expect(result.code).toBe(0);
  return result.stdout.toString();
}

async function measured(...args: string[]): Promise<RunResult & { memory: number }> {
  const file = join(temporaryFolder(), 'memory');
  const result = await thinlun(args, { env: { NODE_OPTIONS: `--import=${MEASURE}`, MEASURED: file } });
  expect(existsSync(file)).toBe(true);
  return { ...result, memory: Number(readFileSync(file, 'latin1')) * 1024 };
}

it('a million mappings are restored, checked, dumped and deleted in bounded memory, with a bar on a terminal unless it is to be quiet', {
  timeout: 240_000,
}, async () => {
  const folder = temporaryFolder();
  const [dir, xml, copy] = ['pool', 'pool.xml', 'copy.xml'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  writeFileSync(xml, strewnXml());
  await createPool(dir, { dataSizeBytes: DATA_BYTES });

  expect(await onTerminal('restore', '-i', xml, '-o', dir)).toMatch(/Restoring \[[=-]+\] \d+%/);
  expect(await onTerminal('restore', '--quiet', '-i', xml, '-o', dir)).toBe('');
  const checked = await measured('check', dir);
  expect(checked).toMatchObject({ code: 0, stderr: expect.stringContaining(`mapped blocks: ${MAPPINGS})`) });
  expect(checked.memory).toBeLessThan(MAX_MEMORY);
  expect(await onTerminal('dump', dir, '-o', copy)).toMatch(/Dumping \[[=-]+\] \d+%/);
  expect(await onTerminal('dump', '-q', dir, '-o', copy)).toBe('');
  expect(readFileSync(copy, 'latin1').split('\n').slice(1, -1)).toEqual(
    readFileSync(xml, 'latin1').split('\n').slice(1, -2),
  );

  const [volume] = await volumesOf(dir);
  const deleted = await measured('volume', 'delete', dir, volume!.name);
  expect(deleted).toMatchObject({ code: 0, stderr: '' });
  expect(deleted.memory).toBeLessThan(MAX_MEMORY);
  expect(await statusOf(dir)).toMatchObject({ dataUsedBytes: 0 });
});

it.each([
  ['dump', ['-q', '/nonexistent']],
  ['restore', ['-q', '-i', '/nonexistent', '-o', '/nonexistent']],
  ['repair', ['-q', '-i', '/nonexistent', '-o', '/nonexistent']],
  ['trim', ['--quiet', '--metadata-dev', '/nonexistent', '--data-dev', '/nonexistent']],
])('%s fails without a word when it is to be quiet, as that of thin-provisioning-tools does', async (name, args) => {
  expect(await thinlun([name, ...args])).toMatchObject({ code: 64, stdout: '', stderr: '' });
  const told = await thinlun([name, ...args.slice(1)]);
  expect(told).toMatchObject({ code: 64, stdout: '' });
  expect(told.stderr).toMatch(/^thinlun: Cannot open "\/nonexistent"/);
});
