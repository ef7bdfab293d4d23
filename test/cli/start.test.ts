import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import Module from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Script } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { createPool, createVolume, ROOT, serve, temporaryFolder, thinlun } from './command.ts';

const DIST = join(ROOT, 'dist');
const PROGRAM = pathToFileURL(DIST).href;
const REPORTER = pathToFileURL(join(ROOT, 'test', 'support', 'report-modules.mjs')).href;
/** The file of the bundle that every command starts with. */
const MAIN = 'bundle/main.cjs';
/** Modules that say what can be asked for, and import nothing that does it. */
const DESCRIPTIONS = [
  'thin/device-id.ts',
  'thin/thin-message.ts',
  'tools/dump-formats.ts',
  'tools/ls-fields.ts',
  'tools/metadata-size.ts',
  'tools/region.ts',
];

interface Loaded {
  /** Files below `dist`. */
  files: string[];
  /** Registry packages that are loaded from node_modules. */
  packages: string[];
}

/** The environment that makes a process report, and what it has reported when it has ended. */
function reporter(): { env: Record<string, string>; loaded: () => Loaded } {
  const file = join(temporaryFolder(), 'modules');
  const env = { NODE_OPTIONS: `--import=${REPORTER}`, THINLUN_MODULES: file };
  const loaded = (): Loaded => {
    const urls = readFileSync(file, 'utf8').split('\n');
    return {
      files: urls.filter((url) => url.startsWith(`${PROGRAM}/`)).map((url) => url.slice(PROGRAM.length + 1)),
      packages: packagesOf(urls),
    };
  };
  return { env, loaded };
}

async function loadedBy(...args: string[]): Promise<Loaded> {
  const { env, loaded } = reporter();
  expect(await thinlun(args, { env })).toMatchObject({ code: 0, stderr: '' });
  return loaded();
}

function packagesOf(paths: readonly string[]): string[] {
  return [...new Set(paths.flatMap((path) => /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? []))].sort();
}

/** What a file of the bundle was made of, by its source map: paths below `src`, and packages. */
function contentsOf(file: string): { modules: string[]; packages: string[] } {
  const { sources } = JSON.parse(readFileSync(join(DIST, `${file}.map`), 'utf8')) as { sources: string[] };
  return {
    modules: sources.flatMap((path) => /^\.\.\/\.\.\/src\/(.*)/.exec(path)?.[1] ?? []),
    packages: packagesOf(sources),
  };
}

describe('a command that a server answers', () => {
  it('loads a single file', async () => {
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
      expect({ args, ...(await loadedBy(...args)) }).toEqual({ args, files: [MAIN], packages: [] });
    }
  });
});

describe('that file', () => {
  it('has neither pools nor transports in it, nor what the tools do', () => {
    const { modules, packages } = contentsOf(MAIN);
    expect(packages).toEqual(['commander', 'valibot']);
    expect(modules).toEqual(expect.arrayContaining(['cli.ts', 'cli/volume-commands.ts', 'daemon/control-client.ts']));
    expect(modules.filter((path) => !/^(?:base|cli|daemon)[/.]/.test(path)).sort()).toEqual(DESCRIPTIONS);
  });

  it('is all that the help loads', async () => {
    expect(await loadedBy('--help')).toEqual({ files: [MAIN], packages: [] });
    expect(await loadedBy('--version')).toEqual({ files: [MAIN], packages: [] });
  });
});

describe('a command that opens the pool itself', () => {
  it('loads the bundle alone: no module is there twice', async () => {
    const dir = await createPool();
    for (const args of [
      ['volume', 'create', dir, 'v', '--size', '1M'],
      ['check', '--quiet', dir],
    ]) {
      const { files } = await loadedBy(...args);
      expect(files.filter((file) => !file.startsWith('bundle/'))).toEqual([]);
      const modules = files.flatMap((file) => contentsOf(file).modules);
      expect(modules).toEqual(expect.arrayContaining(['persistent-data/btree.ts', 'base/errors.ts']));
      expect(modules.length).toBe(new Set(modules).size);
    }
  });
});

describe('a server', () => {
  it('without LIO loads neither D-Bus nor TCMU, and never the tools or the bundle', async () => {
    const { env, loaded } = reporter();
    const server = await serve([await createPool()], { env });
    expect(await server.stop()).toMatchObject({ code: 0 });
    const { files, packages } = loaded();
    const layers = new Set(files.map((file) => file.split('/')[0]));
    expect(layers).toContain('iscsi');
    for (const layer of ['tcmu', 'tools', 'bundle']) expect(layers).not.toContain(layer);
    expect(packages).not.toContain('@homebridge/dbus-native');
  });
});

describe('the code that was compiled when that file was made', () => {
  const compiled = join(DIST, `${MAIN}.v8`);

  it('is what this Node takes, and nothing of the file is compiled again', () => {
    const source = Module.wrap(readFileSync(join(DIST, MAIN), 'utf8'));
    const script = new Script(source, { filename: join(DIST, MAIN), cachedData: readFileSync(compiled) });
    expect(script.cachedDataRejected).toBe(false);
  });

  it('is not needed: commands do the same without it, and where it is cut short or of another version', () => {
    const program = temporaryFolder();
    for (const part of ['bin', 'dist', 'package.json'])
      cpSync(join(ROOT, part), join(program, part), { recursive: true });
    const version = (): string =>
      execFileSync(process.execPath, [join(program, 'bin', 'thinlun'), '--version'], { encoding: 'utf8' });
    const expected = version();
    const file = join(program, 'dist', `${MAIN}.v8`);
    const good = readFileSync(file);
    const older = Buffer.from(good);
    older[4]! ^= 0xff;
    for (const bytes of [good.subarray(0, 1000), Buffer.alloc(0), older]) {
      writeFileSync(file, bytes);
      expect(version()).toBe(expected);
    }
    rmSync(file);
    expect(version()).toBe(expected);
  });
});
