import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { MemoryLun } from '../../src/block/memory-lun.ts';
import {
  buildPdu,
  INITIATOR_NAME,
  Initiator,
  read10,
  TARGET_NAME,
  textData,
  USUAL_KEYS,
  write10,
} from '../support/iscsi-initiator.ts';
import { makeUnit, startPortal, type TestPortal, until } from '../support/iscsi-portal.ts';

let world: TestPortal;

afterEach(async () => {
  world.lun.release();
  await world.close();
});

const CMD_SN = 100;

/** Everything that an initiator sends in a session with I/O, in one piece. */
function conversation(isid: number, digests: boolean, ordered: boolean): Uint8Array {
  const keys = {
    ...USUAL_KEYS,
    InitialR2T: 'No',
    ...(digests ? { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' } : {}),
  };
  const login = buildPdu({
    opcode: 3,
    immediate: true,
    flags: 0x87,
    tag: 1,
    bytes: { 8: 0x80, 12: isid >>> 8, 13: isid & 0xff, 21: 1 },
    fields: { 24: CMD_SN },
    data: textData({ InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME, ...keys }),
  });
  const { headerDigest, dataDigest } = { headerDigest: digests, dataDigest: digests };
  let cmdSn = CMD_SN;
  const next = (): Record<number, number> => ({ 24: cmdSn++ });
  const data = (length: number): Uint8Array => new Uint8Array(length).fill(7);
  const parts: Parameters<typeof buildPdu>[0][] = [
    // The unit attention of a new nexus.
    { opcode: 1, flags: 0x80, tag: 10, cdb: [0], fields: { 20: 0, ...next() } },
    { opcode: 1, flags: 0xa0, tag: 11, cdb: write10(0, 1), fields: { 20: 512, ...next() }, data: data(512) },
    { opcode: 1, flags: 0xc0, tag: 12, cdb: read10(0, 8), fields: { 20: 4096, ...next() } },
    // Unsolicited Data-Out, and an R2T for the rest.
    { opcode: 1, flags: 0x20, tag: 13, cdb: write10(8, 2), fields: { 20: 1024, ...next() }, data: data(100) },
    { opcode: 5, flags: 0x80, tag: 13, fields: { 20: 0xffffffff, 36: 0, 40: 100 }, data: data(200) },
    { opcode: 1, flags: ordered ? 0xa2 : 0xa1, tag: 14, cdb: write10(16, 1), fields: { 20: 512, ...next() } },
    { opcode: 5, flags: 0x80, tag: 13, fields: { 20: 0, 36: 0, 40: 300 }, data: data(724) },
    { opcode: 1, flags: 0xc1, tag: 15, cdb: read10(0, 1), fields: { 20: 512, ...next() } },
    { opcode: 2, immediate: true, flags: 0x81, tag: 16, fields: { 20: 12, 24: cmdSn } },
    { opcode: 5, flags: 0x80, tag: 14, fields: { 20: 1, 36: 0, 40: 0 }, data: data(512) },
    { opcode: 0, tag: 17, fields: { 20: 0xffffffff, ...next() }, data: data(60) },
    { opcode: 4, flags: 0x80, tag: 18, fields: { 20: 0xffffffff, ...next() }, data: textData({ SendTargets: '' }) },
    // Ahead of its turn.
    { opcode: 1, flags: 0xa0, tag: 19, cdb: write10(24, 1), fields: { 20: 512, 24: cmdSn + 1 }, data: data(512) },
    { opcode: 2, immediate: true, flags: 0x85, tag: 20, fields: { 20: 0xffffffff, 24: cmdSn } },
    { opcode: 6, immediate: true, flags: 0x80, tag: 21, fields: { 24: cmdSn } },
  ];
  return Buffer.concat([login, ...parts.map((each) => buildPdu(each, { headerDigest, dataDigest }))]);
}

const turns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
};

describe('CVE-2026-23216 (LIO, use after free while a connection is torn down)', () => {
  it.each([
    ['', false],
    [', with digests', true],
  ])(
    'closing at every byte of a conversation while I/O is in flight leaves nothing behind%s',
    { timeout: 120_000 },
    async (_how, digests) => {
      world = await startPortal({ limits: { sessions: 250, connections: 250, loginsInProgress: 250 } });
      const { length } = conversation(0, digests, false);
      expect(length).toBeGreaterThan(3000);
      const ends: ((socket: Socket) => void)[] = [
        (each) => each.destroy(),
        (each) => each.resetAndDestroy(),
        (each) => each.end(),
      ];
      for (let from = 1; from <= length; from += 64) {
        world.lun.holding = true;
        const sockets = Array.from({ length: Math.min(64, length - from + 1) }, (_, i) => {
          const socket = connect({ port: world.port, host: '127.0.0.1' });
          socket.on('error', () => {});
          socket.on('data', () => {});
          // Some take the place of a session whose tasks are still in the engine.
          const isid = i % 7 === 6 ? i - 1 : i;
          socket.write(conversation(isid, digests, from % 3 === 0).subarray(0, from + i));
          return socket;
        });
        await turns(25);
        for (const [i, socket] of sockets.entries()) ends[(from + i) % ends.length]!(socket);
        await turns(from % 3);
        world.lun.release();
        await until(() => world.portal.connectionCount === 0, `all connections end, closed from byte ${from} on`);
        expect(world.portal.sessions()).toEqual([]);
        expect(world.portal.memoryUsedBytes).toBe(0);
        expect(world.unit.taskSet.count).toBe(0);
        expect(world.unit.state.nexuses.size).toBe(0);
      }
      expect(world.lun.submitted).toBeGreaterThan(length / 2);
      const survivor = await Initiator.login(world.port);
      await survivor.settle();
      expect((await survivor.readBlocks(0, 8)).status).toBe(0);
      await survivor.close();
    },
  );

  it('a unit that is withdrawn, reset and given back meanwhile leaves nothing behind either', {
    timeout: 60_000,
  }, async () => {
    world = await startPortal();
    const other = makeUnit(new MemoryLun(2 ** 20), 2);
    for (let round = 0; round < 40; round++) {
      world.lun.holding = true;
      const initiators = await Promise.all([1, 2, 3].map((isid) => Initiator.login(world.port, { isid })));
      for (const [i, each] of initiators.entries()) {
        await each.settle();
        each.sendCommand(read10(0, 8), { read: 4096 });
        each.sendCommand(write10(8, 8), { write: 4096, data: new Uint8Array(4096), attribute: 1 + (i % 3) });
        each.sendCommand(write10(16, 16), { write: 8192 });
      }
      await turns(round % 10);
      if (round % 4 === 0) initiators[1]!.sendTaskManagement(round % 8 === 0 ? 5 : 6);
      world.target.removeLun(0);
      if (round % 2 === 0) world.target.setLun(0, other);
      for (const [i, each] of initiators.entries()) {
        if ((round + i) % 3 === 0) each.socket.resetAndDestroy();
        else each.sendCommand([0]);
      }
      await turns(round % 5);
      world.target.removeLun(0);
      world.lun.release();
      await Promise.all(initiators.map((each) => each.close()));
      await until(() => world.portal.connectionCount === 0, 'all connections end');
      for (const { taskSet, state } of [world.unit, other]) {
        expect(taskSet.count).toBe(0);
        expect(state.nexuses.size).toBe(0);
      }
      expect(world.portal.memoryUsedBytes).toBe(0);
      world.target.setLun(0, world.unit);
    }
  });
});
