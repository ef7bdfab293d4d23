import { afterEach, describe, expect, it } from 'vitest';
import { KIB } from '../../src/base/units.ts';
import { MemoryLun } from '../../src/block/memory-lun.ts';
import { Access } from '../../src/scsi/command.ts';
import { buildPdu, Initiator, opcodeOf, read10, USUAL_KEYS, u32, write10 } from '../support/iscsi-initiator.ts';
import { makeUnit, startPortal, type TestPortal, type TestPortalOptions, until } from '../support/iscsi-portal.ts';

const RESPONSE = 0x22;
const TASK_ABORTED = 0x40;
const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0];
/** Task management functions. */
const ABORT_TASK = 1;
const ABORT_TASK_SET = 2;
const CLEAR_TASK_SET = 4;
const LUN_RESET = 5;
const WARM_RESET = 6;
const QUERY_TASK = 9;
const QUERY_TASK_SET = 10;
const NEXUS_RESET = 11;
const QUERY_ASYNC = 12;
const COMPLETE = 0;
const SUCCEEDED = 7;

let world: TestPortal;
const initiators: Initiator[] = [];

async function start(options: TestPortalOptions = {}): Promise<void> {
  world = await startPortal(options);
}

afterEach(() => world.end(initiators));

async function login(isid = 1, keys: Record<string, string> = {}): Promise<Initiator> {
  const initiator = await Initiator.login(world.port, { keys: { ...USUAL_KEYS, ...keys }, isid });
  initiators.push(initiator);
  await initiator.settle();
  return initiator;
}

async function manage(initiator: Initiator, code: number, options = {}): Promise<{ response: number; info: number[] }> {
  const tag = initiator.sendTaskManagement(code, options);
  const response = await initiator.receive();
  expect([opcodeOf(response), u32(response, 16)]).toEqual([RESPONSE, tag]);
  return { response: response.header[2]!, info: [...response.header.subarray(8, 11)] };
}

const held = (count: number): Promise<void> => until(() => world.lun.held.length === count, `${count} at the medium`);
const senseOf = ({ sense }: { sense: Uint8Array }): number[] => [sense[2]! & 0xf, sense[12]!, sense[13]!];

describe('the task attribute', () => {
  it('ORDERED waits for what came before, and what comes later waits for it', async () => {
    await start();
    const [mine, other] = [await login(1), await login(2)];
    world.lun.holding = true;
    const before = other.sendCommand(read10(0, 1), { read: 512 });
    await held(1);
    const ordered = mine.sendCommand(write10(0, 1), { write: 512, data: new Uint8Array(512).fill(7), attribute: 2 });
    const later = mine.sendCommand(read10(0, 1), { read: 512 });
    expect(await mine.isSilent()).toBe(true);
    expect(world.lun.held).toHaveLength(1);
    world.lun.release();
    expect((await mine.result(ordered)).status).toBe(0);
    expect((await mine.result(later)).data[0]).toBe(7);
    expect((await other.result(before)).status).toBe(0);
  });

  it('HEAD OF QUEUE passes an ORDERED task that waits', async () => {
    await start();
    const mine = await login();
    const tag = mine.sendCommand(write10(0, 8), { write: 4096 });
    const r2t = await mine.receive();
    const ordered = mine.sendCommand(read10(8, 1), { read: 512, attribute: 2 });
    const head = mine.sendCommand(read10(0, 1), { read: 512, attribute: 3 });
    expect((await mine.result(head)).status).toBe(0);
    mine.sendDataOut(tag, u32(r2t, 20), 0, 0, new Uint8Array(4096), true);
    expect((await mine.result(tag)).status).toBe(0);
    expect((await mine.result(ordered)).status).toBe(0);
  });

  it('ACA is refused', async () => {
    await start();
    expect(senseOf(await (await login()).command(TEST_UNIT_READY, { attribute: 4 }))).toEqual([5, 0x49, 0]);
  });

  it('never makes tasks wait for each other’s memory', { timeout: 20_000 }, async () => {
    await start({
      limits: {
        slabBytes: 256 * KIB,
        slabBytesPerConnection: 64 * KIB,
        maxBurstLength: 16 * KIB,
        firstBurstLength: 8 * KIB,
      },
    });
    const all = await Promise.all([1, 2, 3, 4, 5, 6].map((isid) => login(isid)));
    const counts = new Map<number, number>();
    await Promise.all(
      all.map(async (initiator, who) => {
        for (let round = 0; round < 12; round++) {
          const tags: number[] = [];
          for (let i = 0; i < 16; i++) {
            const attribute = (i + who + round) % 5 === 0 ? 2 : (i + round) % 7 === 0 ? 3 : 1;
            tags.push(
              i % 2 === 0
                ? initiator.sendCommand(write10(0, 64), { write: 32 * KIB, data: new Uint8Array(8 * KIB), attribute })
                : initiator.sendCommand(read10(0, 64), { read: 32 * KIB, attribute }),
            );
          }
          for (let left = tags.length; left > 0; ) {
            const pdu = await initiator.receive();
            if (opcodeOf(pdu) === 0x31) {
              initiator.sendDataOut(u32(pdu, 16), u32(pdu, 20), 0, u32(pdu, 40), new Uint8Array(u32(pdu, 44)), true);
            } else if (opcodeOf(pdu) === 0x21 || (pdu.header[1]! & 1) !== 0) {
              counts.set(pdu.header[3]!, (counts.get(pdu.header[3]!) ?? 0) + 1);
              left--;
            }
          }
        }
      }),
    );
    expect([...counts.keys()].every((status) => [0, 8, 0x28].includes(status))).toBe(true);
    expect(counts.get(0)).toBeGreaterThan(100);
  });
});

describe('CLEAR TASK SET and LOGICAL UNIT RESET with TAS', () => {
  it.each([
    ['CLEAR TASK SET', CLEAR_TASK_SET],
    ['LOGICAL UNIT RESET', LUN_RESET],
  ])('%s ends the tasks of others with TASK ABORTED, when they have sent what they may', async (_name, code) => {
    await start();
    const [mine, other] = [await login(1), await login(2)];
    world.lun.holding = true;
    mine.sendCommand(read10(0, 1), { read: 512 });
    const running = other.sendCommand(read10(0, 1), { read: 512 });
    await held(2);
    const asked = other.sendCommand(write10(0, 8), { write: 4096 });
    const r2t = await other.receive();
    const dormant = other.sendCommand(read10(0, 1), { read: 512, attribute: 2 });
    await until(() => world.unit.taskSet.count === 4, 'all are there');
    const function_ = mine.sendTaskManagement(code);
    expect((await other.result(dormant)).status).toBe(TASK_ABORTED);
    expect(await other.isSilent()).toBe(true);
    other.sendDataOut(asked, u32(r2t, 20), 0, 0, new Uint8Array(4096).fill(1), true);
    expect((await other.result(asked)).status).toBe(TASK_ABORTED);
    expect(await mine.isSilent()).toBe(true);
    world.lun.release();
    expect((await other.result(running)).status).toBe(TASK_ABORTED);
    const response = await mine.receive();
    expect([opcodeOf(response), u32(response, 16), response.header[2]]).toEqual([RESPONSE, function_, COMPLETE]);
    expect(await mine.isSilent()).toBe(true);
    expect((await other.command(TEST_UNIT_READY)).status).toBe(code === LUN_RESET ? 2 : 0);
    if (code === LUN_RESET) expect((await mine.command(TEST_UNIT_READY)).status).toBe(2);
    const { status, data } = await mine.readBlocks(0, 8);
    expect([status, data.every((byte) => byte === 0)]).toEqual([0, true]);
  });
});

describe('a task whose command is still arriving', () => {
  const data = new Uint8Array(8192).fill(5);
  /** The command PDU of a write with its data, cut in the middle. */
  function halves(initiator: Initiator, tag: number): [Buffer, Buffer] {
    const pdu = Buffer.from(
      buildPdu({
        opcode: 1,
        flags: 0xa0,
        tag,
        cdb: write10(0, 16),
        fields: { 20: data.length, 24: initiator.cmdSn },
        data,
      }),
    );
    initiator.cmdSn++;
    return [pdu.subarray(0, 3000), pdu.subarray(3000)];
  }

  it.each([
    ['silently', false],
    ['with TASK ABORTED', true],
  ])('can be aborted by others, %s', async (_how, reported) => {
    await start();
    const [mine, other] = [await login(1), await login(2)];
    world.unit.taskSet.reportsAborted = reported;
    const [first, second] = halves(other, 99);
    other.write(first);
    await until(() => world.unit.taskSet.count === 1, 'the command has begun to arrive');
    expect((await manage(mine, CLEAR_TASK_SET)).response).toBe(COMPLETE);
    other.write(second);
    if (reported) expect((await other.result(99)).status).toBe(TASK_ABORTED);
    else expect(await other.isSilent()).toBe(true);
    expect((await other.command(TEST_UNIT_READY)).status).toBe(reported ? 0 : 2);
    expect((await other.readBlocks(0, 16)).data.every((byte) => byte === 0)).toBe(true);
  });

  it('can be aborted by others while it has no room', async () => {
    await start({
      limits: {
        slabBytes: 128 * KIB,
        slabBytesPerConnection: 64 * KIB,
        maxBurstLength: 16 * KIB,
        firstBurstLength: 8 * KIB,
      },
    });
    const [mine, other, third] = [await login(1), await login(2), await login(3)];
    world.target.setLun(1, makeUnit(new MemoryLun(2 ** 20), 2));
    for (const each of [mine, other, third]) await each.command(TEST_UNIT_READY);
    await mine.settle(1);
    world.lun.holding = true;
    for (let i = 0; i < 40; i++) {
      third.sendCommand(write10(0, 16), { write: 8192, data });
      mine.sendCommand(write10(0, 16), { write: 8192, data });
    }
    const started = world.unit.taskSet;
    await until(() => started.count >= 10, 'the memory is taken');
    const aborted = other.sendCommand(write10(0, 16), { write: 8192, data });
    await new Promise((resolve) => setTimeout(resolve, 30));
    world.unit.clearTaskSet(
      world.portal.sessions().length === 3 ? [...world.unit.state.nexuses.keys()][0]! : never(),
      () => {},
    );
    world.lun.release();
    await until(() => started.count === 0, 'all have ended');
    expect((await other.result(aborted)).status).toBe(TASK_ABORTED);
    expect((await other.command(TEST_UNIT_READY)).status).toBe(0);
  });
});

function never(): never {
  throw new Error('there are three sessions');
}

describe('the functions of RFC 7144', () => {
  it('ask for a task, and for a set of them', async () => {
    await start();
    const [mine, other] = [await login(1), await login(2)];
    world.lun.holding = true;
    const tag = mine.sendCommand(read10(0, 1), { read: 512 });
    await held(1);
    expect((await manage(mine, QUERY_TASK, { refTag: tag })).response).toBe(SUCCEEDED);
    expect((await manage(mine, QUERY_TASK, { refTag: tag, lun: 3 })).response).toBe(COMPLETE);
    expect((await manage(other, QUERY_TASK, { refTag: tag })).response).toBe(COMPLETE);
    expect((await manage(mine, QUERY_TASK_SET)).response).toBe(SUCCEEDED);
    expect((await manage(other, QUERY_TASK_SET)).response).toBe(COMPLETE);
    expect((await manage(mine, QUERY_TASK_SET, { lun: 3 })).response).toBe(2);
    world.lun.release();
    expect((await mine.result(tag)).status).toBe(0);
    expect((await manage(mine, QUERY_TASK, { refTag: tag })).response).toBe(COMPLETE);
    expect((await manage(mine, QUERY_TASK_SET)).response).toBe(COMPLETE);
  });

  it('ask for a unit attention without taking it', async () => {
    await start();
    const mine = await login();
    expect(await manage(mine, QUERY_ASYNC)).toEqual({ response: COMPLETE, info: [0, 0, 0] });
    world.unit.inquiryChanged();
    expect(await manage(mine, QUERY_ASYNC)).toEqual({ response: SUCCEEDED, info: [0x16, 0x3f, 0x03] });
    world.unit.contentChanged();
    expect(await manage(mine, QUERY_ASYNC)).toEqual({ response: SUCCEEDED, info: [0x26, 0x3f, 0x03] });
    for (const wanted of [
      [6, 0x3f, 3],
      [6, 0x28, 0],
    ]) {
      expect(senseOf(await mine.command(TEST_UNIT_READY))).toEqual(wanted);
    }
  });

  it('I_T NEXUS RESET ends the tasks of the nexus everywhere, and no others', async () => {
    await start();
    world.target.setLun(1, makeUnit(new MemoryLun(2 ** 20), 2));
    const [mine, other] = [await login(1), await login(2)];
    await mine.settle(1);
    world.lun.holding = true;
    mine.sendCommand(read10(0, 1), { read: 512 });
    mine.sendCommand(write10(0, 8), { write: 4096, lun: 1 });
    await mine.receive();
    const theirs = other.sendCommand(read10(0, 1), { read: 512 });
    await held(2);
    mine.sendTaskManagement(NEXUS_RESET, { lun: 77 });
    expect(await mine.isSilent()).toBe(true);
    world.lun.release();
    expect((await mine.receive()).header[2]).toBe(COMPLETE);
    expect((await other.result(theirs)).status).toBe(0);
    for (const lun of [0, 1]) expect(senseOf(await mine.command(TEST_UNIT_READY, { lun }))).toEqual([6, 0x29, 7]);
    expect((await other.command(TEST_UNIT_READY)).status).toBe(0);
  });
});

describe('commands before a function', () => {
  it('that wait for their CmdSN are aborted with the others of their LUN', async () => {
    await start();
    world.target.setLun(1, makeUnit(new MemoryLun(2 ** 20), 2));
    const mine = await login();
    await mine.settle(1);
    const { cmdSn } = mine;
    const options = { write: 512, data: new Uint8Array(512).fill(9) };
    mine.sendCommand(write10(0, 1), { ...options, cmdSn: cmdSn + 1 });
    const elsewhere = mine.sendCommand(write10(0, 1), { ...options, cmdSn: cmdSn + 2, lun: 1 });
    mine.cmdSn = cmdSn + 3;
    const later = mine.sendCommand(write10(1, 1), { ...options, cmdSn: cmdSn + 4 });
    expect((await manage(mine, ABORT_TASK_SET)).response).toBe(COMPLETE);
    mine.sendNop(undefined, { cmdSn, immediate: false });
    expect(opcodeOf(await mine.receive())).toBe(0x20);
    expect((await mine.result(elsewhere)).status).toBe(0);
    mine.sendCommand(TEST_UNIT_READY, { cmdSn: cmdSn + 3, tag: 41 });
    expect((await mine.result(41)).status).toBe(0);
    expect((await mine.result(later)).status).toBe(0);
    mine.cmdSn = cmdSn + 5;
    expect((await mine.readBlocks(0, 1)).data[0]).toBe(0);
    expect((await mine.readBlocks(1, 1)).data[0]).toBe(9);
  });

  it('are aborted when they come after it, by the same connection or another one', async () => {
    await start();
    world.target.setLun(1, makeUnit(new MemoryLun(2 ** 20), 2));
    const mine = await Initiator.login(world.port, { keys: { ...USUAL_KEYS, MaxConnections: '2' } });
    initiators.push(mine);
    for (const lun of [0, 1]) await mine.settle(lun);
    const second = await Initiator.connect(world.port);
    initiators.push(second);
    await second.logIn({ tsih: mine.tsih, cid: 2, keys: {} });
    const { cmdSn } = mine;
    const options = { write: 512, data: new Uint8Array(512).fill(9) };
    mine.cmdSn = cmdSn + 4;
    expect((await manage(mine, LUN_RESET)).response).toBe(COMPLETE);
    const elsewhere = second.sendCommand(write10(0, 1), { ...options, cmdSn: cmdSn + 2, lun: 1, tag: 52 });
    second.sendCommand(write10(0, 1), { ...options, cmdSn, tag: 50 });
    mine.sendCommand(write10(1, 1), { ...options, cmdSn: cmdSn + 1 });
    mine.sendCommand(write10(2, 1), { ...options, cmdSn: cmdSn + 3 });
    expect((await second.result(elsewhere)).status).toBe(0);
    expect(await second.isSilent()).toBe(true);
    expect(senseOf(await mine.command(TEST_UNIT_READY))).toEqual([6, 0x29, 3]);
    expect((await mine.readBlocks(0, 3)).data.every((byte) => byte === 0)).toBe(true);
    expect((await mine.writeBlocks(0, new Uint8Array(512).fill(1))).status).toBe(0);
  });

  it('are not meant by a function whose number no command can have', async () => {
    await start();
    const mine = await login();
    const { cmdSn } = mine;
    mine.cmdSn = (cmdSn + 0x40000000) >>> 0;
    expect((await manage(mine, ABORT_TASK_SET)).response).toBe(COMPLETE);
    mine.cmdSn = cmdSn;
    expect((await mine.command(TEST_UNIT_READY)).status).toBe(0);
  });

  it('have had their turn when the function is not immediate', async () => {
    await start();
    const mine = await login();
    world.lun.holding = true;
    mine.sendCommand(read10(0, 1), { read: 512 });
    await held(1);
    const function_ = mine.sendTaskManagement(ABORT_TASK_SET, { immediate: false });
    const after = mine.sendCommand(TEST_UNIT_READY);
    expect((await mine.result(after)).status).toBe(0);
    world.lun.release();
    const response = await mine.receive();
    expect([opcodeOf(response), u32(response, 16), u32(response, 28)]).toEqual([RESPONSE, function_, mine.cmdSn]);
    expect(u32(response, 32)).toBe(mine.cmdSn + 127);
  });

  it('with a response that waits for data are not answered after the function', async () => {
    await start();
    const mine = await login(1, { InitialR2T: 'No' });
    // Past the end: it fails at once, and its response waits for the data that it announced.
    const tag = mine.sendCommand([0x2a, 0, 0xff, 0, 0, 0, 0, 0, 8, 0], { write: 4096, final: false });
    expect(await mine.isSilent()).toBe(true);
    expect((await manage(mine, ABORT_TASK_SET)).response).toBe(COMPLETE);
    mine.sendDataOut(tag, 0xffffffff, 0, 0, new Uint8Array(4096), true);
    expect(await mine.isSilent()).toBe(true);
    expect((await manage(mine, ABORT_TASK, { refTag: tag })).response).toBe(1);
  });
});

describe('resets of the target', () => {
  it('are a unit attention of their own', async () => {
    await start();
    const [mine, other] = [await login(1), await login(2)];
    expect((await manage(mine, WARM_RESET)).response).toBe(COMPLETE);
    for (const each of [mine, other]) expect(senseOf(await each.command(TEST_UNIT_READY))).toEqual([6, 0x29, 2]);
  });

  it('do not concern what the initiator may not see', async () => {
    await start();
    world.target.setLun(1, makeUnit(new MemoryLun(2 ** 20), 2));
    const [mine, other] = [await login(1), await login(2)];
    await other.settle(1);
    const nexus = [...world.unit.state.nexuses.keys()].find(({ initiatorPort }) => initiatorPort.endsWith('1'))!;
    world.target.detach(nexus);
    world.target.attach(nexus, { of: (lun) => (lun === 0 ? Access.WRITE : Access.NONE) });
    await mine.settle();
    expect((await manage(mine, WARM_RESET)).response).toBe(COMPLETE);
    expect((await other.command(TEST_UNIT_READY, { lun: 1 })).status).toBe(0);
    expect((await other.command(TEST_UNIT_READY)).status).toBe(2);
  });
});
