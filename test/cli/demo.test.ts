import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

import { runOk } from '../support/processes.mjs';
import { requireTool } from '../support/tools.ts';
import { start, statusOf, temporaryFolder } from './command.ts';

describe('demo', () => {
  it('makes a pool with a volume where data of programs belongs, and serves it again later', async () => {
    const home = temporaryFolder();
    const args = ['demo', '--portal', '127.0.0.1:0'];
    const first = start(args, { env: { HOME: home, XDG_DATA_HOME: '' } });
    await first.waitForLine(/^Ready: /);
    const dir = join(home, '.local/share/thinlun/demo');
    expect(first.stdout.toString()).toContain(`Made a demo pool of sparse files in ${dir}.`);
    expect(first.stdout.toString()).toContain('/iqn.2026-11.io.thinlun:demo/0');
    expect(await first.stop()).toEqual({ code: 0, signal: null });
    const before = await statusOf(dir);
    expect(before).toMatchObject({ name: 'demo', volumeCount: 1, server: null });

    const second = start(args, { env: { HOME: home, XDG_DATA_HOME: '' } });
    await second.waitForLine(/^Ready: /);
    expect(second.stdout.toString()).not.toContain('Made');
    expect(await statusOf(dir)).toMatchObject({ uuid: before.uuid, volumeCount: 1 });
    expect(await second.stop()).toEqual({ code: 0, signal: null });
  });

  it.each(['qemu-img', 'iscsi-ls', 'iscsi-inq'])('prints a line that works as it is, for %s', async (program) => {
    requireTool(program);
    const demo = start(['demo', '--portal', '127.0.0.1:0', '--dir', join(temporaryFolder(), 'demo')]);
    await demo.waitForLine(/^Ready: /);
    const line = new RegExp(`^ +(${program} .*)$`, 'm').exec(demo.stdout.toString())![1]!;
    const said = await runOk('sh', ['-c', line]);
    expect(said).toMatch(/virtual size: 1 GiB|Lun:0 +Type:DIRECT_ACCESS|Vendor:THINLUN/);
    expect(await demo.stop()).toEqual({ code: 0, signal: null });
  });

  it('goes where XDG_DATA_HOME or --dir says', async () => {
    const data = temporaryFolder();
    const args = ['demo', '--portal', '127.0.0.1:0', '--json'];
    const byEnvironment = start(args, { env: { XDG_DATA_HOME: data } });
    const match = await byEnvironment.waitForLine(/"directory":"([^"]+)"/);
    expect(match[1]).toBe(join(data, 'thinlun/demo'));
    const byOption = start([...args, '--dir', join(data, 'mine')]);
    expect((await byOption.waitForLine(/"directory":"([^"]+)"/))[1]).toBe(join(data, 'mine'));
  });
});
