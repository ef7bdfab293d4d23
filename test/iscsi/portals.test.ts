import { networkInterfaces } from 'node:os';
import { afterEach, describe, expect, it } from 'vitest';
import { targetAddresses } from '../../src/iscsi/portal-listener.ts';
import { PORTAL_GROUP } from '../../src/scsi/front-end.ts';
import { INITIATOR_NAME, Initiator, loginStatus, TARGET_NAME, textData, textList } from '../support/iscsi-initiator.ts';
import { startPortal, type TestPortal } from '../support/iscsi-portal.ts';

const GROUP = [PORTAL_GROUP >>> 8, PORTAL_GROUP & 0xff];

let world: TestPortal;
const initiators: Initiator[] = [];

/** Portal group 1 on 127.0.0.1, portal group 2 on 127.0.0.2 and ::1. */
async function start(): Promise<{ second: number; third: number }> {
  world = await startPortal({ targetPorts: [1, 2] });
  const second = await world.portal.listen('127.0.0.2', 0, { tag: 2 });
  const third = await world.portal.listen('::1', 0, { tag: 2 });
  return { second: second.port, third: third.port };
}

afterEach(() => world.end(initiators));

async function login(port: number, host: string, options: object = {}): Promise<Initiator> {
  const initiator = await Initiator.login(port, { host, ...options });
  initiators.push(initiator);
  return initiator;
}

async function discover(port: number, host: string): Promise<string[]> {
  const initiator = await login(port, host, { target: null, keys: {}, isid: 99 });
  initiator.sendText(textData({ SendTargets: 'All' }));
  return textList((await initiator.receive()).data);
}

describe('portal groups', () => {
  it('are all told by SendTargets, each address with its tag, whichever the initiator came by', async () => {
    const { second, third } = await start();
    const expected = [
      `TargetName=${TARGET_NAME}`,
      `TargetAddress=127.0.0.1:${world.port},1`,
      `TargetAddress=127.0.0.2:${second},2`,
      `TargetAddress=[::1]:${third},2`,
    ];
    expect(await discover(world.port, '127.0.0.1')).toEqual(expected);
    expect(await discover(second, '127.0.0.2')).toEqual(expected);
    expect(await discover(third, '::1')).toEqual(expected);
  });

  it('of all addresses are told with the one that the initiator came to', async () => {
    await start();
    const any = await world.portal.listen('::', 0, { tag: 3 });
    expect(await discover(any.port, '127.0.0.3')).toContain(`TargetAddress=127.0.0.3:${any.port},3`);
    expect(await discover(any.port, '::1')).toContain(`TargetAddress=[::1]:${any.port},3`);
    const ipv4 = await world.portal.listen('0.0.0.0', 0);
    expect(await discover(ipv4.port, '127.0.0.4')).toContain(`TargetAddress=127.0.0.4:${ipv4.port},1`);
    expect((await discover(any.port, '::1')).join()).not.toContain(`:${ipv4.port},`);
  });

  it('are target ports: each has its tag in the login, its identifier in VPD page 83h, and one place in the ALUA group', async () => {
    const { second } = await start();
    const paths = [await login(world.port, '127.0.0.1'), await login(second, '127.0.0.2')];
    const pages: Buffer[] = [];
    for (const [index, path] of paths.entries()) {
      const tag = index + 1;
      expect(path.agreed['TargetPortalGroupTag']).toBe(String(tag));
      await path.settle();
      const page = Buffer.from((await path.command([0x12, 1, 0x83, 1, 0, 0], { read: 256 })).data);
      pages.push(page);
      // Relative target port, target port group, SCSI name of the port.
      expect(page.includes(Buffer.from([0x51, 0x94, 0, 4, 0, 0, 0, tag]))).toBe(true);
      expect(page.includes(Buffer.from([0x51, 0x95, 0, 4, 0, 0, ...GROUP]))).toBe(true);
      expect(page.includes(Buffer.from(`${TARGET_NAME},t,0x000${tag}`))).toBe(true);
      const groups = (await path.command([0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], { read: 256 })).data;
      expect([...groups]).toEqual([0, 0, 0, 16, 0, 1, ...GROUP, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
    }
    // The designator of the logical unit, NAA, comes first and is the same on both paths.
    expect(pages[0]!.subarray(4, 8)).toEqual(Buffer.from([0x01, 0x03, 0x00, 0x10]));
    expect(pages[1]!.subarray(4, 24)).toEqual(pages[0]!.subarray(4, 24));
  });

  it('make different nexuses of one ISID: neither login ends the other, and each has its unit attentions', async () => {
    const { second, third } = await start();
    const first = await login(world.port, '127.0.0.1');
    const other = await login(second, '127.0.0.2');
    expect((await first.command([0])).sense[12]).toBe(0x29);
    expect((await other.command([0])).sense[12]).toBe(0x29);
    expect((await first.command([0])).status).toBe(0);
    expect(world.portal.sessions().map(({ portalGroupTag }) => portalGroupTag)).toEqual([1, 2]);
    // The same group by another portal is the same target port: that reinstates the session.
    await login(third, '::1');
    expect(await other.closes()).toBe(true);
    expect(await first.ping()).toBe(true);
    expect(world.portal.sessions()).toHaveLength(2);
  });

  it('do not share sessions: a connection cannot join one of another group', async () => {
    const { second } = await start();
    const first = await login(world.port, '127.0.0.1');
    const stray = await Initiator.connect(second, '127.0.0.2');
    initiators.push(stray);
    expect(loginStatus(await stray.logIn({ tsih: first.tsih, cid: 2 }))).toBe(0x020a);
    expect(world.portal.sessions()).toMatchObject([{ initiator: INITIATOR_NAME }]);
  });

  it('may have a link-local address with its zone', async (context) => {
    await start();
    const own = Object.entries(networkInterfaces()).flatMap(([zone, addresses]) =>
      (addresses ?? []).filter(({ address }) => address.startsWith('fe80:')).map(({ address }) => `${address}%${zone}`),
    )[0];
    if (own === undefined) return context.skip('this machine has no link-local address');
    const { port, address } = await world.portal.listen(own, 0);
    expect(address).toBe(`[${own}]:${port}`);
    expect(await discover(port, own)).toContain(`TargetAddress=[${own.split('%')[0]}]:${port},1`);
    expect((await discover(world.port, '127.0.0.1')).join()).not.toContain('fe80');
  });
});

describe('addresses that mean something else to other machines', () => {
  it('are told to nobody who came from elsewhere', () => {
    const listeners = ['127.0.0.1', '::1', 'fe80::1%eth0', '169.254.3.4', '10.0.0.1', '2001:db8::1'].map((host) => ({
      host,
      port: 3260,
      tag: 1,
    }));
    expect(targetAddresses(listeners, '::ffff:10.0.0.1')).toEqual(['10.0.0.1:3260,1', '[2001:db8::1]:3260,1']);
    expect(targetAddresses(listeners, 'fe80::9')).toContain('[fe80::1]:3260,1');
    expect(targetAddresses(listeners, '127.0.0.1')).toContain('[::1]:3260,1');
  });
});
