import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { createPool, createVolume, ROOT, serve, temporaryFolder, thinlun } from './command.ts';

const PROGRAM = pathToFileURL(join(ROOT, 'dist')).href;
const REPORTER = pathToFileURL(join(ROOT, 'test', 'support', 'report-modules.mjs')).href;
/** About a millisecond each, and three where system calls are slow. */
const MAX_MODULES = 45;

interface Loaded {
  /** Folders of src; `cli` has src/cli.ts, too. */
  layers: string[];
  packages: string[];
  count: number;
}

/** The environment that makes a process report, and what it has reported when it has ended. */
function reporter(): { env: Record<string, string>; loaded: () => Loaded } {
  const file = join(temporaryFolder(), 'modules');
  const env = { NODE_OPTIONS: `--import=${REPORTER}`, THINLUN_MODULES: file };
  const loaded = (): Loaded => {
    const urls = readFileSync(file, 'utf8').split('\n');
    const named = (pattern: RegExp): string[] =>
      [...new Set(urls.flatMap((url) => pattern.exec(url)?.[1] ?? []))].sort();
    return {
      layers: named(new RegExp(`^${PROGRAM}/([^/.]+)`)),
      packages: named(/.*\/node_modules\/((?:@[^/]+\/)?[^/]+)\//),
      count: urls.filter((url) => /\/(?:dist|node_modules)\//.test(url)).length,
    };
  };
  return { env, loaded };
}

async function loadedBy(...args: string[]): Promise<Loaded> {
  const { env, loaded } = reporter();
  expect(await thinlun(args, { env })).toMatchObject({ code: 0, stderr: '' });
  return loaded();
}

describe('a command that a server answers', () => {
  it('loads neither pools nor transports, nor what other commands need', async () => {
    const dir = await createPool();
    await createVolume(dir, 'v');
    await serve([dir]);
    for (const args of [
      ['volume', 'snapshot', dir, 'v', 's'],
      ['volume', 'list', dir],
      ['volume', 'set', dir, 'v', '--removable', 'on'],
      ['volume', 'delete', dir, 's'],
      ['volume', 'reservations', dir],
      ['pool', 'status', dir],
      ['pool', 'set', dir, '--low-water', '1M'],
      ['access', 'list', dir],
    ]) {
      const { layers, packages, count } = await loadedBy(...args);
      expect({ args, layers, packages }).toEqual({
        args,
        layers: ['base', 'cli', 'daemon'],
        packages: ['commander', 'valibot'],
      });
      expect(count, args.join(' ')).toBeLessThan(MAX_MODULES);
    }
  });
});

describe('the help', () => {
  it('loads what there is to be said, and not what would be done', async () => {
    const { layers, packages } = await loadedBy('--help');
    expect(packages).toEqual(['commander', 'valibot']);
    for (const layer of ['block', 'persistent-data', 'scsi', 'iscsi', 'tcmu']) expect(layers).not.toContain(layer);
  });
});

describe('a server', () => {
  it('without LIO loads neither D-Bus nor TCMU, and never the tools', async () => {
    const { env, loaded } = reporter();
    const server = await serve([await createPool()], { env });
    expect(await server.stop()).toMatchObject({ code: 0 });
    const { layers, packages } = loaded();
    expect(layers).toContain('iscsi');
    for (const layer of ['tcmu', 'tools']) expect(layers).not.toContain(layer);
    expect(packages).not.toContain('@homebridge/dbus-native');
  });
});
