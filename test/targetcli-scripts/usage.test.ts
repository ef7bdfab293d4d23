import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';

const SCRIPTS = join(import.meta.dirname, '..', '..', 'targetcli-scripts');
const dir = mkdtempSync(join(tmpdir(), 'thinlun-scripts-'));
afterAll(() => rmSync(dir, { recursive: true }));
const TARGET = ['--size', '64M', 'pool/web', '--iscsi', 'iqn.2026-11.org.example:pool'];
const ADMITTED = [...TARGET, '--acl', 'iqn.2026-11.org.example:client'];

/** The words are wrong before anything is looked at: no root, no targetcli and no kernel are needed. */
function run(script: string, args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(join(SCRIPTS, `thinlun-${script}`), args, {
    encoding: 'utf8',
    input: '',
    env: { PATH: process.env['PATH'], THINLUN: '/nonexistent', THINLUN_CONFIGFS: '/nonexistent' },
  });
  return { status, stdout, stderr };
}

function secret(name: string, text: string): string {
  const path = join(dir, name);
  writeFileSync(path, text);
  return path;
}

const WRONG: readonly (readonly [words: string, status: number, script: string, ...args: string[]])[] = [
  ['which volume', 2, 'create-lun'],
  ['which volume', 2, 'create-lun', 'pool/a', 'pool/b'],
  ['is not POOL/VOLUME', 2, 'create-lun', '--size', '64M', 'web'],
  ['is not POOL/VOLUME', 2, 'create-lun', '--size', '64M', 'pool/we/b'],
  ['is not POOL/VOLUME', 2, 'create-lun', '--size', '64M', `pool/$(touch ${dir}/evil)`],
  ['cannot be a name', 2, 'create-lun', '--size', '64M', `${dir}/we b`],
  ['is not the folder of a pool', 1, 'create-lun', '--size', '64M', `${dir}/web`],
  ['--size needs a value', 2, 'create-lun', 'pool/web', '--size'],
  ['--size needs a value', 2, 'create-lun', 'pool/web', '--size='],
  ['--loop takes no value', 2, 'create-lun', 'pool/web', '--loop=yes'],
  ['is not a size', 2, 'create-lun', '--size', 'much', 'pool/web'],
  ['is not a size', 2, 'create-lun', '--size', '-4096', 'pool/web'],
  ['multiple of 4096', 2, 'create-lun', '--size=1000', 'pool/web'],
  ['takes 512 or 4096', 2, 'create-lun', '--size', '64M', '--block-size', '520', 'pool/web'],
  ['takes 8 to 65536', 2, 'create-lun', '--size', '64M', '--max-sectors', '1', 'pool/web'],
  ['takes 1 to 2048', 2, 'create-lun', '--size', '64M', '--data-area', '99999999999999999999', 'pool/web'],
  ['cannot be a name', 2, 'create-lun', '--size', '64M', '--name', 'a/b', 'pool/web'],
  ['--acl needs --iscsi', 2, 'create-lun', '--size', '64M', '--acl', 'iqn.2026-11.org.example:a', 'pool/web'],
  ['--loop or --iscsi?', 2, 'create-lun', '--loop', ...ADMITTED],
  ['who may log in?', 2, 'create-lun', ...TARGET],
  ['--anybody, or --acl?', 2, 'create-lun', ...ADMITTED, '--anybody'],
  ['is not an iSCSI name', 2, 'create-lun', '--size', '64M', '--iscsi', 'pool', '--anybody', 'pool/web'],
  ['is not an iSCSI name', 2, 'create-lun', ...ADMITTED, '--acl', 'client'],
  ['is not ADDRESS', 2, 'create-lun', ...ADMITTED, '--portal', 'here:3260'],
  ['is not ADDRESS', 2, 'create-lun', ...ADMITTED, '--portal', '10.0.0.1:70000'],
  ['--user needs --secret-file', 2, 'create-lun', ...ADMITTED, '--user', 'web'],
  ['--secret-file needs --user', 2, 'create-lun', ...ADMITTED, '--secret-file', '/dev/null'],
  [
    '--mutual-user needs --user',
    2,
    'create-lun',
    ...ADMITTED,
    '--mutual-user',
    'a',
    '--mutual-secret-file',
    '/dev/null',
  ],
  ['cannot read', 1, 'create-lun', ...ADMITTED, '--user', 'web', '--secret-file', `${dir}/absent`],
  ['there is no secret', 1, 'create-lun', ...ADMITTED, '--user', 'web', '--secret-file', '-'],
  ['12 to 255 bytes', 1, 'create-lun', ...ADMITTED, '--user', 'web', '--secret-file', secret('short', 'short\n')],
  ['12 to 255 bytes', 1, 'create-lun', ...ADMITTED, '--user', 'web', '--secret-file', secret('long', 'x'.repeat(256))],
  [
    'is one line',
    1,
    'create-lun',
    ...ADMITTED,
    '--user',
    'web',
    '--secret-file',
    secret('two', 'first of two\nsecond\n'),
  ],
  ['begins with NULL', 1, 'create-lun', ...ADMITTED, '--user', 'web', '--secret-file', secret('null', 'NULL and more')],
  ['which volume, and how large', 2, 'grow-lun', 'pool/web'],
  ['is not a size', 2, 'grow-lun', 'pool/web', '+1G'],
  ['which volume', 2, 'snapshot-lun', 'pool/web'],
  ['cannot be a name', 2, 'snapshot-lun', 'pool/web', 'x/y'],
  ['--name needs --loop or --iscsi', 2, 'snapshot-lun', '--name', 'x', 'pool/web', 'web-1'],
  ['unknown option --read-only', 2, 'clone-lun', '--read-only', 'pool/web', 'web-1'],
  ['which volume', 2, 'remove-lun', '--force'],
  ['unknown argument', 2, 'list-luns', 'pool/web'],
];

describe('the scripts for targetcli', () => {
  it.each(['create-lun', 'grow-lun', 'snapshot-lun', 'clone-lun', 'remove-lun', 'list-luns'])(
    'thinlun-%s has a help with its exit status, and refuses an option that it does not have',
    (script) => {
      const { status, stdout } = run(script, ['--help']);
      expect(status).toBe(0);
      expect(stdout).toMatch(new RegExp(`^usage: thinlun-${script} `));
      expect(stdout).toContain('Exit status: 0');
      const wrong = run(script, ['--nonsense']);
      expect([wrong.status, wrong.stdout]).toEqual([2, '']);
      expect(wrong.stderr).toContain('unknown option --nonsense');
    },
  );

  it.each(WRONG.map(([words, status, script, ...args]) => ({ words, status, script, args })))(
    'say "$words" and end with $status: $script $args',
    ({ words, status, script, args }) => {
      const result = run(script, args);
      expect(result.stderr).toContain(words);
      expect([result.status, result.stdout]).toEqual([status, '']);
      // A secret is not told, however wrong it is.
      expect(result.stderr).not.toMatch(/short\n|first of two|NULL and more|xxxx/);
      expect(existsSync(join(dir, 'evil'))).toBe(false);
    },
  );
});
