import { afterEach, describe, expect, it } from 'vitest';
import { Status } from '../../src/scsi/spec.ts';
import { outCdb, outList, PR_OUT } from '../scsi/support/cluster.ts';
import { Initiator, opcodeOf, read10, USUAL_KEYS, u32, write10 } from '../support/iscsi-initiator.ts';
import { startPortal, type TestPortal, until } from '../support/iscsi-portal.ts';

const R2T = 0x31;
const LOGOUT_RESPONSE = 0x26;
const WERO = 5;
const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0];

let world: TestPortal;
const nodes: Initiator[] = [];

afterEach(() => world.end(nodes));

/** The same initiator port for the same `isid`. */
async function login(isid: number): Promise<Initiator> {
  const node = await Initiator.login(world.port, { isid });
  nodes.push(node);
  await node.settle();
  return node;
}

async function out(
  node: Initiator,
  action: number,
  fields: { key?: number; newKey?: number; type?: number },
): Promise<number> {
  const data = outList(fields);
  const { status } = await node.command([...outCdb(action, data.length, fields.type ?? 0)], {
    write: data.length,
    data,
  });
  return status;
}

async function pair(): Promise<[Initiator, Initiator]> {
  world = await startPortal();
  const both: [Initiator, Initiator] = [await login(1), await login(2)];
  expect(await out(both[0], PR_OUT.REGISTER, { newKey: 1 })).toBe(Status.GOOD);
  expect(await out(both[1], PR_OUT.REGISTER, { newKey: 2 })).toBe(Status.GOOD);
  expect(await out(both[0], PR_OUT.RESERVE, { key: 1, type: WERO })).toBe(Status.GOOD);
  return both;
}

const senseOf = ({ sense }: { sense: Uint8Array }): number[] => [sense[2]! & 0xf, sense[12]!, sense[13]!];

describe('PREEMPT AND ABORT', () => {
  it('does not wait for the data of a node that is gone, and drops what comes of it', async () => {
    const [first, second] = await pair();
    const tag = second.sendCommand(write10(0, 8), { write: 4096 });
    const r2t = await second.receive();
    expect(opcodeOf(r2t)).toBe(R2T);
    expect(await out(first, PR_OUT.PREEMPT_AND_ABORT, { key: 1, newKey: 2, type: WERO })).toBe(Status.GOOD);
    second.sendDataOut(tag, u32(r2t, 20), 0, 0, new Uint8Array(4096).fill(0xee), true);
    expect((await second.result(tag)).status).toBe(Status.TASK_ABORTED);
    expect(senseOf(await second.command(TEST_UNIT_READY))).toEqual([6, 0x2a, 5]);
    expect((await second.command(write10(0, 1), { write: 512, data: new Uint8Array(512) })).status).toBe(
      Status.RESERVATION_CONFLICT,
    );
    expect((await second.command(read10(0, 8), { read: 4096 })).data.every((byte) => byte === 0)).toBe(true);
  });

  it('waits for what has reached the medium', async () => {
    const [first, second] = await pair();
    world.lun.holding = true;
    second.sendCommand(write10(0, 1), { write: 512, data: new Uint8Array(512) });
    await until(() => world.lun.held.length === 1, 'the write is at the medium');
    let done = false;
    const preempted = out(first, PR_OUT.PREEMPT_AND_ABORT, { key: 1, newKey: 2, type: WERO }).finally(() => {
      done = true;
    });
    expect(await second.isSilent()).toBe(true);
    expect(done).toBe(false);
    world.lun.release();
    expect(await preempted).toBe(Status.GOOD);
  });
});

describe('PREEMPT', () => {
  it('keeps a write from happening whose data comes afterwards', async () => {
    const [first, second] = await pair();
    const tag = second.sendCommand(write10(0, 8), { write: 4096 });
    const r2t = await second.receive();
    expect(await out(first, PR_OUT.PREEMPT, { key: 1, newKey: 2, type: WERO })).toBe(Status.GOOD);
    second.sendDataOut(tag, u32(r2t, 20), 0, 0, new Uint8Array(4096).fill(0xee), true);
    expect((await second.result(tag)).status).toBe(Status.RESERVATION_CONFLICT);
    expect((await first.command(read10(0, 8), { read: 4096 })).data.every((byte) => byte === 0)).toBe(true);
  });
});

describe('a session', () => {
  it('that comes again with its ISID is the nexus that has registered; with another one it is not', async () => {
    const [first] = await pair();
    await first.close();
    await until(() => world.portal.connectionCount === 1, 'the first one is gone');
    const again = await login(1);
    const data = new Uint8Array(512);
    expect((await again.command(write10(0, 1), { write: 512, data })).status).toBe(Status.GOOD);
    const other = await login(3);
    expect((await other.command(write10(0, 1), { write: 512, data })).status).toBe(Status.RESERVATION_CONFLICT);
  });

  it('that ends gives up what it had with RESERVE', async () => {
    world = await startPortal();
    const [first, second] = [await login(1), await login(2)];
    expect((await first.command([0x16, 0, 0, 0, 0, 0])).status).toBe(Status.GOOD);
    expect((await second.command(read10(0, 1), { read: 512 })).status).toBe(Status.RESERVATION_CONFLICT);
    await first.close();
    await until(() => world.portal.connectionCount === 1, 'the first one is gone');
    expect((await second.command(read10(0, 1), { read: 512 })).status).toBe(Status.GOOD);
  });
});

describe('a reservation of SPC-2', () => {
  const RESERVE6 = [0x16, 0, 0, 0, 0, 0];

  it('is gone when its initiator reads that it is logged out, though it keeps the connection', async () => {
    world = await startPortal();
    const [first, second] = [await login(1), await login(2)];
    expect((await first.command(RESERVE6)).status).toBe(Status.GOOD);
    expect((await second.command(RESERVE6)).status).toBe(Status.RESERVATION_CONFLICT);
    first.socket.allowHalfOpen = true;
    expect(opcodeOf(await first.logOut())).toBe(LOGOUT_RESPONSE);
    expect(world.portal.sessions()).toHaveLength(1);
    expect((await second.command(RESERVE6)).status).toBe(Status.GOOD);
    first.socket.end();
  });

  it('stays as long as one connection of its session does', async () => {
    world = await startPortal();
    const first = await Initiator.login(world.port, { isid: 1, keys: { ...USUAL_KEYS, MaxConnections: '2' } });
    nodes.push(first);
    await first.settle();
    const beside = await Initiator.join(first, world.port, { isid: 1, cid: 2 });
    nodes.push(beside);
    const other = await login(2);
    expect((await first.command(RESERVE6)).status).toBe(Status.GOOD);
    first.send({ opcode: 6, flags: 0x81, immediate: true, tag: 9, bytes: { 21: 1 }, fields: { 24: first.cmdSn } });
    expect(opcodeOf(await first.receive())).toBe(LOGOUT_RESPONSE);
    expect((await other.command(RESERVE6)).status).toBe(Status.RESERVATION_CONFLICT);
    beside.socket.destroy();
    await until(() => world.portal.sessions().length === 1, 'the session ends');
    expect((await other.command(RESERVE6)).status).toBe(Status.GOOD);
  });
});
