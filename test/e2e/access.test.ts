import { writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunResult, run, runOk } from '../support/processes.mjs';
import { ServedPool } from '../support/server.ts';
import { thinlun } from '../support/thinlun-server.mjs';
import { requireTool } from '../support/tools.ts';

for (const name of ['iscsi-ls', 'iscsi-inq', 'qemu-img', 'qemu-iscsi']) requireTool(name);

/** What libiscsi's tools and qemu call themselves, unless they are told otherwise. */
const LIBISCSI = 'iqn.2007-10.com.github:sahlberg:libiscsi:';
const QEMU = 'iqn.2008-11.org.linux-kvm';
const SECRET = 'secret-of-alice';
const TARGET_SECRET = 'secret-of-the-target';

describe('with an access list', () => {
  let pool: ServedPool;
  let portal: string;
  let target: string;

  const allow = (initiator: string, ...flags: string[]): Promise<string> =>
    thinlun('access', 'allow', pool.folder, initiator, ...flags);
  const url = (lun: number, user: string | null, secret: string = SECRET, query = ''): string =>
    `iscsi://${user === null ? '' : `${user}%${secret}@`}${portal}/${target}/${lun}${query}`;
  const inquiry = (...args: Parameters<typeof url>): Promise<RunResult> => run('iscsi-inq', [url(...args)]);

  beforeAll(async () => {
    pool = await ServedPool.create('256M', { one: '64M', two: '64M', three: '64M' });
    const server = await pool.serve();
    portal = `${server.host}:${server.port}`;
    target = server.luns[0]!.target;
    writeFileSync(pool.path('secret'), SECRET);
    writeFileSync(pool.path('target-secret'), TARGET_SECRET);
    const chap = ['--secret-file', pool.path('secret')];
    const mutual = ['--mutual-user', 'target', '--mutual-secret-file', pool.path('target-secret')];
    for (const user of ['alice', '0xA11CE', '0bQWxpY2U='])
      await allow(`${LIBISCSI}*`, '--user', user, ...chap, ...mutual);
    await allow(QEMU, '--user', 'alice', ...chap, '--volumes', 'two');
  });

  afterAll(async () => {
    await pool?.close();
  });

  it('iscsi-ls sees the target and its LUNs with the right secret, and nothing without', async () => {
    const listed = await runOk('iscsi-ls', ['-s', `iscsi://alice%${SECRET}@${portal}`]);
    expect(listed).toContain(`Target:${target} Portal:${portal},1`);
    expect(listed.match(/^Lun:/gm)).toHaveLength(3);
    for (const portalUrl of [
      `iscsi://alice%${SECRET}2@${portal}`,
      `iscsi://eve%${SECRET}@${portal}`,
      `iscsi://${portal}`,
    ]) {
      const { code, stdout } = await run('iscsi-ls', ['-s', portalUrl]);
      expect([code === 0, stdout], portalUrl).toEqual([false, '']);
    }
  });

  it.each(['alice', '0xA11CE', '0bQWxpY2U='])('iscsi-inq logs in as %s, one-way and mutually', async (user) => {
    expect((await inquiry(0, user)).stdout).toContain('Peripheral Device Type:DIRECT_ACCESS');
    const mutual = `?target_user=target&target_password=${TARGET_SECRET}`;
    expect((await inquiry(0, user, SECRET, mutual)).stdout).toContain('Peripheral Device Type:DIRECT_ACCESS');
    // The initiator itself finds out a target that does not know the secret.
    const wrong = await inquiry(0, user, SECRET, `?target_user=target&target_password=${SECRET}-`);
    expect(wrong.stderr).toMatch(/Invalid CHAP_R response from the target/);
  });

  it('iscsi-inq cannot tell a wrong secret, a wrong user and a target that is not there', async () => {
    const status = async (result: Promise<RunResult>): Promise<string> =>
      (await result).stderr.replace(/.*Status: /s, '');
    const wrong = await status(inquiry(0, 'alice', 'not the secret of'));
    expect(wrong).toMatch(/Authentication failure\(513\)/);
    expect(await status(inquiry(0, 'eve'))).toBe(wrong);
    expect(await status(run('iscsi-inq', [url(0, 'alice').replace(target, `${target}2`)]))).toBe(wrong);
    expect(await status(inquiry(0, null))).toBe(wrong);
  });

  it('qemu-img reads the volume that it may have, and no other', async () => {
    const info = await runOk('qemu-img', ['info', '--output=json', url(1, 'alice')]);
    expect(JSON.parse(info)).toMatchObject({ 'virtual-size': 64 * 1024 * 1024 });
    expect((await run('qemu-img', ['info', url(0, 'alice')])).code).not.toBe(0);
    expect((await run('qemu-img', ['info', url(1, 'alice', 'not the secret of')])).code).not.toBe(0);
    await runOk('qemu-img', ['bench', '-f', 'raw', '-w', '-c', '200', '-s', '4096', url(1, 'alice')]);
    await allow(QEMU, '--user', 'alice', '--read-only');
    expect(
      (await run('qemu-img', ['bench', '-f', 'raw', '-w', '-c', '200', '-s', '4096', url(1, 'alice')])).code,
    ).not.toBe(0);
    await runOk('qemu-img', ['bench', '-f', 'raw', '-c', '200', '-s', '4096', url(1, 'alice')]);
  });
});
