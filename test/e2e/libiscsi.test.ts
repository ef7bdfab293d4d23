import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run, runOk } from '../support/processes.mjs';
import { ServedPool } from '../support/server.ts';
import type { ServedLun } from '../support/thinlun-server.mjs';
import { requireTool } from '../support/tools.ts';

for (const name of ['iscsi-ls', 'iscsi-inq', 'iscsi-readcapacity16']) requireTool(name);

const GIB = 1024 ** 3;

describe('the tools of libiscsi', () => {
  let pool: ServedPool;
  let luns: ServedLun[];
  let portal: string;

  beforeAll(async () => {
    pool = await ServedPool.create('256M', { small: '1G', large: '3T' });
    const server = await pool.serve();
    luns = server.luns;
    portal = `iscsi://${server.host}:${server.port}`;
  });

  afterAll(async () => {
    await pool?.close();
  });

  it('discover the target with both of its units', async () => {
    const output = await runOk('iscsi-ls', ['-s', portal]);
    expect(output).toContain(`Target:${luns[0]!.target} Portal:${portal.slice('iscsi://'.length)},1`);
    for (const { lun } of luns) expect(output).toMatch(new RegExp(`^Lun:${lun}\\s+Type:DIRECT_ACCESS`, 'm'));
  });

  it('read the inquiry data and every page that it names', async () => {
    const { url } = luns[0]!;
    expect(await runOk('iscsi-inq', [url])).toMatch(/Peripheral Device Type:DIRECT_ACCESS/);
    const supported = await runOk('iscsi-inq', ['-e', '1', '-c', '0', url]);
    for (const page of ['0x00', '0x80', '0x83', '0xb0', '0xb1', '0xb2'])
      expect(supported.toLowerCase()).toContain(page);
    for (const page of ['0x80', '0x83', '0xb0', '0xb1', '0xb2']) {
      expect(await runOk('iscsi-inq', ['-e', '1', '-c', String(Number(page)), url]), page).not.toBe('');
    }
    expect(await runOk('iscsi-inq', ['-e', '1', '-c', String(0xb2), url])).toMatch(
      /lbpu:1|Logical Block Provisioning/i,
    );
  });

  it('read the capacity, also past what READ CAPACITY(10) can say', async () => {
    for (const [index, size] of [GIB, 3 * 1024 * GIB].entries()) {
      const output = await runOk('iscsi-readcapacity16', [luns[index]!.url]);
      expect(output).toMatch(new RegExp(`Total size:${size}\\b`));
      expect(output).toMatch(/LBPME:1/i);
    }
  });

  it('are refused a target, and a unit, that do not exist', async () => {
    const { url, target } = luns[0]!;
    expect((await run('iscsi-inq', [url.replace(target, `${target}.not`)])).code).not.toBe(0);
    expect((await run('iscsi-readcapacity16', [url.replace(/\d+$/, '77')])).code).not.toBe(0);
    expect((await run('iscsi-inq', [url])).code, 'others are not disturbed').toBe(0);
  });
});
