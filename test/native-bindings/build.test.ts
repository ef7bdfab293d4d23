import { spawnSync } from 'node:child_process';
import { appendFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { findTool } from '../support/debian-tools.mjs';
import { requireMachine } from '../support/tools.ts';

const SOURCE = fileURLToPath(new URL('../../native-bindings', import.meta.url));

let home: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'thinlun-build-'));
  cpSync(SOURCE, home, { recursive: true, filter: (file) => !file.endsWith('/build') });
}, 180_000);
afterEach(() => rmSync(home, { recursive: true }));

function build(environment: Record<string, string> = {}): { status: number | null; stdout: string; stderr: string } {
  const { CI: _, ...inherited } = process.env;
  const options = { env: { ...inherited, ...environment }, encoding: 'utf8' } as const;
  return spawnSync(process.execPath, [join(home, 'build.mjs')], options);
}

const addonExists = (): boolean => existsSync(join(home, 'build', 'Release', 'thinlun_native.node'));

test('without a compiler the build says so in two lines and succeeds', () => {
  const bin = join(home, 'bin');
  mkdirSync(bin);
  symlinkSync(process.execPath, join(bin, 'node'));
  const { status, stdout, stderr } = build({ PATH: bin, CC: 'no-such-compiler', CI: 'true' });
  expect(stderr).toBe('');
  expect(stdout.trimEnd().split('\n')).toEqual([
    expect.stringMatching(
      /^thinlun: the native addon was not built: (there is no C compiler|node-gyp .* not found)\.$/,
    ),
    expect.stringMatching(/^thinlun: the portal works without it .* apt install build-essential python3$/),
  ]);
  expect(status).toBe(0);
  expect(addonExists()).toBe(false);
}, 180_000);

test('it builds once, and again only when a source changed', () => {
  requireMachine(findTool('cc') === null ? 'a C compiler is missing' : null);
  expect(build()).toMatchObject({ status: 0, stdout: 'thinlun: the native addon was built\n' });
  expect(addonExists()).toBe(true);
  expect(build()).toMatchObject({ status: 0, stdout: 'thinlun: the native addon is up to date\n' });
  appendFileSync(join(home, 'src', 'poll.c'), '\n/* changed */\n');
  expect(build()).toMatchObject({ status: 0, stdout: 'thinlun: the native addon was built\n' });
}, 180_000);

test('sources that do not compile are shown; they fail an integration, not an installation', () => {
  requireMachine(findTool('cc') === null ? 'a C compiler is missing' : null);
  appendFileSync(join(home, 'src', 'poll.c'), '\nint unused_function(int not_used) { }\n');
  const user = build();
  expect(user.status).toBe(0);
  expect(user.stderr).toContain('poll.c');
  expect(user.stdout).toContain('the build failed, see above');
  expect(build({ CI: 'true' }).status).toBe(1);
}, 180_000);
