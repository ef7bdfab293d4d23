import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { requireTool } from '../support/tools.ts';

const SCRIPT = join(import.meta.dirname, '..', '..', 'targetcli-scripts', 'thinlun-service');

describe('thinlun-service', () => {
  requireTool('systemctl');
  let home: string;
  let root: string;
  let program: string;
  beforeEach(() => {
    home = mkdtempSync(join(tmpdir(), 'thinlun-service-'));
    root = join(home, 'root');
    mkdirSync(root);
    // All that is asked of it is the name of a pool, which is that of the folder.
    program = join(home, 'thinlun');
    writeFileSync(program, '#!/bin/sh\necho "{\\"name\\":\\"$(basename "$3")\\",\\"uuid\\":\\"x\\"}"\n');
    chmodSync(program, 0o755);
  });
  afterEach(() => rmSync(home, { recursive: true }));

  function run(...args: string[]): { status: number | null; stdout: string; stderr: string } {
    return spawnSync(SCRIPT, ['--root', root, '--program', program, ...args], { encoding: 'utf8', input: '' });
  }

  function pool(name: string, links: Record<string, string> = {}): string {
    const dir = join(home, name);
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, 'pool.json'), '{}');
    for (const [link, target] of Object.entries(links)) symlinkSync(target, join(dir, link));
    return dir;
  }

  const text = (path: string): string => readFileSync(join(root, path), 'utf8');
  const CONFIG = '/etc/thinlun/web.conf';
  const OWN = '/etc/systemd/system/thinlun@web.service.d/pool.conf';
  /** What the link that starts it at boot leads to. */
  function enabled(): string | null {
    try {
      return readlinkSync(join(root, '/etc/systemd/system/multi-user.target.wants/thinlun@web.service'));
    } catch {
      return null;
    }
  }

  it('serves a pool at every boot, and twice is once', () => {
    const dir = pool('web');
    const first = run('add', dir);
    expect([first.status, first.stderr]).toEqual([0, '']);
    expect(text(CONFIG)).toBe(`POOL="${dir}"\nOPTIONS=--tcmu --no-portal\n`);
    expect(text(OWN)).toBe(`[Unit]\nRequiresMountsFor="${dir}"\n`);
    expect(text('/etc/systemd/system/thinlun@.service')).toContain(`ExecStart=${program} serve $OPTIONS \${POOL}\n`);
    expect(enabled()).toBe('/etc/systemd/system/thinlun@.service');
    expect(run('add', dir)).toMatchObject({ status: 0, stdout: '', stderr: '' });
    expect(run('add', dir, '--', '--tcmu', '--portal', '192.0.2.1').stdout).toContain('writing');
    expect(text(CONFIG)).toContain('OPTIONS=--tcmu --portal 192.0.2.1\n');
    expect(run('list').stdout).toMatch(/^web .*--portal 192\.0\.2\.1/);
  });

  it.each([
    ['--portal 192.0.2.1', true],
    ['--portal=[2001:db8::1]:3260', true],
    ['--portal 127.0.0.1:3260 --portal 0.0.0.0', true],
    ['--portal 127.0.0.1:3260 --portal [::1]', false],
    ['--portal localhost', false],
    ['--tcmu --no-portal', false],
    ['--log-level warn', false],
  ])('with "%s" waits for the network: %s', (options, waits) => {
    expect(run('add', pool('web'), '--', ...options.split(' ')).status).toBe(0);
    expect(text(OWN).includes('After=network-online.target')).toBe(waits);
  });

  it('waits for what the pool stands on', () => {
    pool('web', { data: '/mnt/far/data', metadata: '../elsewhere/metadata' });
    expect(run('add', join(home, 'web')).status).toBe(0);
    expect(text(OWN).split('\n').slice(2, -1)).toEqual([
      'RequiresMountsFor="/mnt/far/data"',
      `RequiresMountsFor="${join(home, 'elsewhere', 'metadata')}"`,
    ]);
  });

  it('takes everything away again, but not under a pool', () => {
    run('add', pool('web'));
    expect(run('uninstall')).toMatchObject({ status: 1, stderr: expect.stringContaining('pools are served: web') });
    expect(run('remove', 'web').status).toBe(0);
    expect(run('remove', 'web').stdout).toContain('web is not served by a service');
    expect([existsSync(join(root, CONFIG)), enabled()]).toEqual([false, null]);
    expect([run('uninstall').status, run('uninstall').status]).toEqual([0, 0]);
    const left = spawnSync('find', [root, '-type', 'f', '-o', '-type', 'l'], { encoding: 'utf8' });
    expect(left.stdout).toBe('');
  });

  it('leaves tcmu-runner alone where that is wanted', () => {
    const condition = join(root, '/etc/systemd/system/tcmu-runner.service.d/thinlun.conf');
    const activation = join(root, '/usr/local/share/dbus-1/system-services/org.kernel.TCMUService1.service');
    run('install');
    expect([existsSync(condition), existsSync(activation)]).toEqual([true, true]);
    run('--beside-tcmu-runner', 'install');
    expect([existsSync(condition), existsSync(activation)]).toEqual([false, false]);
  });

  it('shows with --dry-run what it would do, and does nothing', () => {
    const { status, stdout } = run('--dry-run', 'add', pool('web'));
    expect(status).toBe(0);
    expect(stdout).toContain(`writing ${root}${CONFIG}`);
    expect(stdout).toMatch(/systemctl .*enable thinlun@web\.service/);
    expect(existsSync(join(root, 'etc'))).toBe(false);
  });

  it.each([
    { status: 2, words: 'what is to be done', args: [] },
    { status: 2, words: 'unknown: start', args: ['start'] },
    { status: 2, words: 'unknown option --nonsense', args: ['--nonsense', 'list'] },
    { status: 2, words: '--program needs a value', args: ['--program'] },
    { status: 2, words: "the pool's folder is missing", args: ['add'] },
    { status: 2, words: 'which pool?', args: ['remove'] },
    { status: 2, words: 'is too much', args: ['install', 'x'] },
    { status: 1, words: 'no pool in /nonexistent', args: ['add', '/nonexistent'] },
  ])('ends with $status and says "$words" for: $args', ({ status, words, args }) => {
    const result = run(...args);
    expect(result.stderr).toContain(words);
    expect(result.status).toBe(status);
    expect(existsSync(join(root, 'etc'))).toBe(false);
  });

  it('refuses what systemd would read otherwise, and two pools of a name', () => {
    const dir = pool('web');
    for (const option of ["it's", 'a b', '$HOME', 'back\\slash']) {
      expect(run('add', dir, '--', option)).toMatchObject({
        status: 2,
        stderr: expect.stringContaining('cannot be an option'),
      });
    }
    expect(run('add', dir, '--tcmu')).toMatchObject({ status: 2, stderr: expect.stringContaining('stand behind --') });
    expect(run('add', pool('bad$name')).status).toBe(1);
    expect(run('add', dir).status).toBe(0);
    expect(run('add', pool('other/web'))).toMatchObject({
      status: 1,
      stderr: expect.stringContaining(`another pool is called web: POOL="${dir}"`),
    });
  });
});
