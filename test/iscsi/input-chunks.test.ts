import { afterEach, describe, expect, it } from 'vitest';
import { KIB } from '../../src/base/units.ts';
import type { PortalLimits } from '../../src/iscsi/limits.ts';
import { buildPdu, Initiator, opcodeOf, USUAL_KEYS, u32, write10 } from '../support/iscsi-initiator.ts';
import { startPortal, type TestPortal, until } from '../support/iscsi-portal.ts';
import { SeededRandom } from '../support/seeded-random.ts';

let world: TestPortal;
const initiators: Initiator[] = [];

afterEach(() => world.end(initiators));

async function start(limits: Partial<PortalLimits> = {}): Promise<void> {
  world = await startPortal({ limits });
}

async function login(isid = 1, keys: Record<string, string> = USUAL_KEYS): Promise<Initiator> {
  const initiator = await Initiator.login(world.port, { isid, keys });
  initiators.push(initiator);
  await initiator.settle();
  return initiator;
}

interface Write {
  lba: number;
  data: Uint8Array;
}

/** Writes of 512 bytes to 64 KiB, one behind the other on the medium. */
function someWrites(random: SeededRandom, count: number, longest: number = 64 * KIB): Write[] {
  let lba = 0;
  return Array.from({ length: count }, () => {
    const data = new Uint8Array((1 + random.below(longest / 512)) * 512);
    random.fill(data);
    lba += data.length / 512;
    return { lba: lba - data.length / 512, data };
  });
}

/** Sends them without a pause between them. */
function send(initiator: Initiator, writes: readonly Write[]): void {
  initiator.socket.cork();
  for (const { lba, data } of writes)
    initiator.sendCommand(write10(lba, data.length / 512), { write: data.length, data });
  initiator.socket.uncork();
}

async function answered(initiator: Initiator, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const pdu = await initiator.receive();
    expect([opcodeOf(pdu), pdu.header[3]]).toEqual([0x21, 0]);
  }
}

async function expectWritten(initiator: Initiator, writes: readonly Write[]): Promise<void> {
  for (const { lba, data } of writes) {
    const { status, data: read } = await initiator.readBlocks(lba, data.length / 512);
    expect([status, Buffer.compare(read, data)], `at ${lba}`).toEqual([0, 0]);
  }
}

/** Memories that the writes at the medium lie in. */
const memories = (): number => new Set(world.lun.held.map((request) => request.data.memory)).size;

describe('the data of writes stays where it came in', () => {
  it.each([
    ['', {}],
    [' with digests', { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' }],
  ])('until they are done, whatever comes meanwhile%s', async (_how, digests) => {
    await start();
    const initiator = await login(1, { ...USUAL_KEYS, ...digests });
    const random = new SeededRandom();
    const writes = someWrites(random, 100);
    world.lun.holding = true;
    send(initiator, writes);
    await until(() => world.lun.held.length === writes.length, 'all reach the medium');
    expect(memories(), `seed ${random.seed}`).toBeGreaterThan(4);
    world.lun.release();
    await answered(initiator, writes.length);
    await expectWritten(initiator, writes);
  });

  it('and is copied when there are no more chunks, or they are too short', async () => {
    await start({ inputChunks: 2 });
    const initiator = await login();
    const random = new SeededRandom();
    const writes = someWrites(random, 100);
    world.lun.holding = true;
    send(initiator, writes);
    await until(() => world.lun.held.length === writes.length, 'all reach the medium');
    // The data memory is the third.
    expect([memories(), world.portal.inputChunkCount], `seed ${random.seed}`).toEqual([3, 2]);
    world.lun.release();
    await answered(initiator, writes.length);
    await expectWritten(initiator, writes);
  });

  it('and is not written over when its connection has gone', async () => {
    await start();
    const lost = await login(1);
    const random = new SeededRandom();
    const writes = someWrites(random, 20);
    world.lun.holding = true;
    send(lost, writes);
    await until(() => world.lun.held.length === writes.length, 'all reach the medium');
    const held = [...world.lun.held];
    lost.socket.resetAndDestroy();
    // Its session waits for the medium.
    await lost.closes();
    await turn();
    world.lun.holding = false;
    const other = await login(2);
    const others = someWrites(random, 100);
    send(other, others);
    await answered(other, others.length);
    await expectWritten(other, others);
    for (const [i, { data, lba }] of writes.entries()) {
      const came = new Uint8Array(data.length);
      held[i]!.data.copyTo(came, 0, 0, came.length);
      expect(Buffer.compare(came, data), `seed ${random.seed}, at ${lba}`).toBe(0);
    }
  });

  it('also when it comes byte by byte, and when its command is ended in the middle of it', async () => {
    await start();
    const initiator = await login(1);
    const admin = await login(2);
    const random = new SeededRandom();
    const writes = someWrites(random, 8, 8 * KIB);
    for (const [i, { lba, data }] of writes.entries()) {
      const pdu = buildPdu({
        opcode: 1,
        flags: 0xa0,
        tag: 500 + i,
        cdb: write10(lba, data.length / 512),
        fields: { 20: data.length, 24: initiator.cmdSn++ },
        data,
      });
      const middle = 48 + random.below(data.length);
      initiator.write(pdu.subarray(0, 20));
      await turn();
      initiator.write(pdu.subarray(20, middle));
      await turn();
      const isReset = i === 5;
      if (isReset) {
        const tag = admin.sendTaskManagement(5);
        expect(u32(await admin.receive(), 16)).toBe(tag);
      }
      initiator.write(pdu.subarray(middle, pdu.length - 1));
      await turn();
      initiator.write(pdu.subarray(pdu.length - 1));
      // TASK ABORTED, and the next command is told of the reset.
      expect((await initiator.result(500 + i)).status).toBe(isReset ? 0x40 : 0);
      if (isReset) await initiator.settle();
    }
    await expectWritten(initiator, writes.toSpliced(5, 1));
  });

  it('a connection that receives little gives its chunk to one that receives much', async () => {
    await start({ inputChunks: 1, inputChunkFromBytes: 32 * KIB });
    const one = await login(1);
    const two = await login(2);
    expect(world.portal.inputChunkCount).toBe(0);
    const random = new SeededRandom();
    for (const [initiator, idle] of [
      [one, two],
      [two, one],
    ] as const) {
      const writes = someWrites(random, 60);
      send(initiator, writes);
      await answered(initiator, writes.length);
      await expectWritten(initiator, writes);
      await idle.settle();
      await initiator.settle();
      await initiator.settle();
      expect(world.portal.inputChunkCount).toBe(0);
    }
  });
});

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 2));
