import { afterEach, describe, expect, it } from 'vitest';
import { UnitAttention } from '../../src/scsi/unit-attention.ts';
import { buildPdu, Initiator, opcodeOf, read10, USUAL_KEYS, u32, write10 } from '../support/iscsi-initiator.ts';
import { startPortal, type TestPortal, until } from '../support/iscsi-portal.ts';
import { takeOver } from '../support/portal-takeover.ts';

let world: TestPortal;
const initiators: Initiator[] = [];

afterEach(async () => {
  const { portal, unit, lun } = world;
  lun.release();
  for (const initiator of initiators.splice(0)) await initiator.close();
  await until(() => portal.connectionCount === 0, 'all connections end');
  expect(portal.sessions()).toEqual([]);
  expect([portal.memoryUsedBytes, unit.taskSet.count]).toEqual([0, 0]);
  await portal.close();
});

async function login(keys: Record<string, string> = {}): Promise<Initiator> {
  const isid = initiators.length === 0 ? {} : { isid: 100 + initiators.length };
  const initiator = await Initiator.login(world.port, { keys: { ...USUAL_KEYS, ...keys }, ...isid });
  initiators.push(initiator);
  await initiator.settle();
  return initiator;
}

const filled = (byte: number, length = 512): Uint8Array => new Uint8Array(length).fill(byte);
const DIGESTS = { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' };

describe('a portal that goes on from another one', () => {
  for (const [what, keys] of [
    ['without digests', {}],
    ['with digests', DIGESTS],
  ] as const) {
    it(`has the sessions where they were, ${what}`, async () => {
      world = await startPortal();
      const initiator = await login(keys);
      await initiator.writeBlocks(7, filled(7));
      for (let round = 0; round < 3; round++) {
        const { expStatSn } = initiator;
        await takeOver(world);
        const { status, data, pdus } = await initiator.readBlocks(7, 1);
        expect([status, data]).toEqual([0, Buffer.from(filled(7))]);
        expect(u32(pdus[0]!, 24)).toBe(expStatSn);
        expect((await initiator.writeBlocks(8, filled(round))).status).toBe(0);
        expect(await initiator.ping()).toBe(true);
      }
      expect(world.portal.sessions()).toMatchObject([{ connections: 1, commands: 0, luns: [0] }]);
    });
  }

  it('delivers what came while the old one let a write have its data', async () => {
    world = await startPortal();
    const initiator = await login({ ImmediateData: 'No', InitialR2T: 'Yes' });
    const first = initiator.sendCommand(write10(0, 8), { write: 4096 });
    const r2t = await initiator.receive();
    expect(opcodeOf(r2t)).toBe(0x31);
    const over = takeOver(world);
    // Both come before the data that the first one waits for.
    const second = initiator.sendCommand(read10(7, 1), { read: 512 });
    const third = initiator.sendCommand(read10(0, 1), { read: 512 });
    expect(await initiator.isSilent()).toBe(true);
    initiator.sendDataOut(first, u32(r2t, 20), 0, 0, filled(3, 4096), true);
    expect((await initiator.result(first)).status).toBe(0);
    await over;
    expect((await initiator.result(second)).data).toEqual(Buffer.from(filled(3)));
    expect((await initiator.result(third)).data).toEqual(Buffer.from(filled(3)));
  });

  it('reads on in the middle of a header, and after a PDU whose data came in pieces', async () => {
    world = await startPortal();
    const initiator = await login(DIGESTS);
    const tag = initiator.takeTag();
    const cdb = write10(1, 1);
    const parts = { opcode: 0x01, flags: 0xa0, lun: 0, tag, fields: { 20: 512, 24: initiator.cmdSn++ }, cdb };
    const pdu = buildPdu({ ...parts, data: filled(5) }, initiator);
    initiator.write(pdu.subarray(0, 200));
    await new Promise((resolve) => setTimeout(resolve, 20));
    const over = takeOver(world);
    await new Promise((resolve) => setTimeout(resolve, 20));
    // The rest, and a part of the next one.
    const next = buildPdu(
      { ...parts, tag: tag + 1, fields: { 20: 512, 24: initiator.cmdSn++ }, data: filled(6) },
      initiator,
    );
    initiator.nextTag = tag + 2;
    initiator.write(Buffer.concat([pdu.subarray(200), next.subarray(0, 20)]));
    expect((await initiator.result(tag)).status).toBe(0);
    await over;
    expect(await initiator.isSilent()).toBe(true);
    initiator.write(next.subarray(20));
    expect((await initiator.result(tag + 1)).status).toBe(0);
    expect((await initiator.readBlocks(1, 1)).data).toEqual(Buffer.from(filled(6)));
  });

  it('lets those in that have come meanwhile', async () => {
    world = await startPortal();
    await world.portal.stopAccepting();
    const waiting = login();
    expect(
      await Promise.race([waiting.then(() => 'in'), new Promise((resolve) => setTimeout(resolve, 100, 'waits'))]),
    ).toBe('waits');
    await takeOver(world);
    expect((await (await waiting).readBlocks(0, 1)).status).toBe(0);
  });

  it('keeps several connections of a session together, and the commands that wait for an earlier one', async () => {
    world = await startPortal();
    const first = await login({ MaxConnections: '2' });
    const second = await Initiator.join(first, world.port, { cid: 2 });
    initiators.push(second);
    const { cmdSn } = first;
    const late = second.sendCommand(read10(0, 1), { read: 512, cmdSn: cmdSn + 1 });
    expect(await second.isSilent()).toBe(true);
    await takeOver(world);
    expect(await second.isSilent()).toBe(true);
    first.cmdSn = cmdSn + 2;
    const early = first.sendCommand(write10(0, 1), { write: 512, cmdSn, data: filled(4) });
    expect((await first.result(early)).status).toBe(0);
    expect((await second.result(late)).data).toEqual(Buffer.from(filled(4)));
    second.cmdSn = first.cmdSn;
    expect(world.portal.sessions()).toMatchObject([{ connections: 2 }]);
  });

  it('keeps unit attentions that nobody has asked for yet, and makes none', async () => {
    world = await startPortal();
    const initiator = await login();
    world.unit.state.raiseAttention(UnitAttention.CAPACITY_CHANGED, null);
    await takeOver(world);
    const { status, sense } = await initiator.readBlocks(0, 1);
    expect([status, sense[2], sense[12], sense[13]]).toEqual([2, 6, 0x2a, 0x09]);
    expect((await initiator.readBlocks(0, 1)).status).toBe(0);
  });

  it('is refused when a command does not end, and the old one goes on as if nothing had been', async () => {
    world = await startPortal();
    const initiator = await login();
    world.lun.holding = true;
    const slow = initiator.sendCommand(read10(0, 1), { read: 512 });
    await until(() => world.lun.held.length > 0, 'the command is in the engine');
    await world.portal.stopAccepting();
    await expect(world.portal.freeze(50)).rejects.toThrow(/have not ended within 0.05 s/);
    const behind = initiator.sendCommand(read10(1, 1), { read: 512 });
    const waiting = login();
    await world.portal.thaw();
    world.lun.release();
    expect((await initiator.result(slow)).status).toBe(0);
    expect((await initiator.result(behind)).status).toBe(0);
    expect((await (await waiting).readBlocks(0, 1)).status).toBe(0);
  });

  it('does not wait long for an initiator that owes data, which has to come again', async () => {
    world = await startPortal();
    const [good, bad] = [await login(), await login({ ImmediateData: 'No', InitialR2T: 'Yes' })];
    bad.sendCommand(write10(0, 8), { write: 4096 });
    await bad.receive();
    await takeOver(world);
    expect(await bad.closes()).toBe(true);
    expect((await good.readBlocks(0, 1)).status).toBe(0);
    expect(world.portal.sessions()).toHaveLength(1);
  });
});
