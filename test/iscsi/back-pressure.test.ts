import { afterEach, describe, expect, it } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import type { PortalLimits } from '../../src/iscsi/limits.ts';
import { buildPdu, Initiator, opcodeOf, read10, u32, write10 } from '../support/iscsi-initiator.ts';
import { startPortal, type TestPortal, until } from '../support/iscsi-portal.ts';

let world: TestPortal;
const initiators: Initiator[] = [];

/** 1 MiB of data memory: 768 KiB regular, of it 256 KiB a connection, and 256 KiB for data that comes unasked. All data is copied there. */
const SMALL: Partial<PortalLimits> = {
  slabBytes: MIB,
  slabBytesPerConnection: 256 * KIB,
  maxBurstLength: 128 * KIB,
  firstBurstLength: 64 * KIB,
  inputChunks: 0,
};

async function start(limits: Partial<PortalLimits> = {}): Promise<void> {
  world = await startPortal({ limits });
}

afterEach(() => world.end(initiators));

async function login(isid = 1): Promise<Initiator> {
  const initiator = await Initiator.login(world.port, { isid });
  initiators.push(initiator);
  await initiator.settle();
  return initiator;
}

describe('a peer that does not read', () => {
  it('is not read from, holds a bounded amount, harms nobody, and gets everything when it reads again', async () => {
    await start();
    const lazy = await login(1);
    const other = await login(2);
    lazy.socket.pause();
    // Pings of 64 KiB have no window: only the socket can slow them down.
    const ping = new Uint8Array(65536).fill(5);
    const count = 500;
    for (let i = 0; i < count; i++) lazy.sendNop(ping, { tag: 1000 + i });
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(lazy.socket.writableLength).toBeGreaterThan(MIB);
    for (let i = 0; i < 20; i++) expect((await other.readBlocks(0, 8)).status).toBe(0);
    lazy.socket.resume();
    for (let i = 0; i < count; i++) {
      const pdu = await lazy.receive();
      expect(u32(pdu, 16)).toBe(1000 + i);
      expect(pdu.data).toHaveLength(65536);
    }
  });

  it('keeps no more memory than a connection may have', async () => {
    await start();
    const lazy = await login();
    lazy.socket.pause();
    for (let i = 0; i < 100; i++) lazy.sendCommand(read10(0, 2048), { read: MIB, tag: 1000 + i });
    await until(() => world.portal.memoryUsedBytes >= 15 * MIB, 'the memory fills');
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(world.portal.memoryUsedBytes).toBeLessThanOrEqual(16 * MIB);
    lazy.socket.resume();
    for (let i = 0; i < 100; i++) expect((await lazy.result(1000 + i)).data).toHaveLength(MIB);
  });
});

describe('when the memory is full', () => {
  it('reads wait in line and all of them come', async () => {
    await start(SMALL);
    const one = await login(1);
    const two = await login(2);
    for (let i = 0; i < 60; i++) {
      one.sendCommand(read10(0, 256), { read: 128 * KIB, tag: 1000 + i });
      two.sendCommand(read10(0, 100), { read: 50 * KIB, tag: 1000 + i });
    }
    for (let i = 0; i < 60; i++) {
      expect((await one.result(1000 + i)).data).toHaveLength(128 * KIB);
      expect((await two.result(1000 + i)).data).toHaveLength(50 * KIB);
    }
  });

  it('writes keep what came unasked and wait with asking for more', async () => {
    await start(SMALL);
    const initiator = await login();
    const data = new Uint8Array(128 * KIB);
    for (let i = 0; i < data.length; i++) data[i] = (i >>> 8) & 0xff;
    const tags = Array.from({ length: 5 }, (_, i) =>
      initiator.sendCommand(write10(i * 256, 256), { write: data.length, data: data.subarray(0, 64 * KIB) }),
    );
    for (let answered = 0; answered < tags.length; ) {
      const pdu = await initiator.receive();
      if (opcodeOf(pdu) === 0x31) {
        const offset = u32(pdu, 40);
        const piece = data.subarray(offset, offset + u32(pdu, 44));
        initiator.sendDataOut(u32(pdu, 16), u32(pdu, 20), 0, offset, piece, true);
      } else {
        expect([opcodeOf(pdu), pdu.header[3]]).toEqual([0x21, 0]);
        answered++;
      }
    }
    for (let i = 0; i < tags.length; i++) {
      expect(Buffer.compare((await initiator.readBlocks(i * 256, 256)).data, data)).toBe(0);
    }
  });

  it('the input stands still for a write that has no room, and goes on when there is', async () => {
    await start(SMALL);
    const initiator = await login();
    const data = new Uint8Array(64 * KIB).fill(3);
    world.lun.holding = true;
    // 4 of regular memory, 4 of the other kind, and one more.
    const tags = Array.from({ length: 9 }, (_, i) =>
      initiator.sendCommand(write10(i * 128, 128), { write: data.length, data }),
    );
    await until(() => world.lun.held.length === 8, 'eight writes reach the medium');
    const ping = initiator.takeTag();
    initiator.sendNop(undefined, { tag: ping });
    expect(await initiator.isSilent()).toBe(true);
    expect(world.lun.held).toHaveLength(8);
    world.lun.release();
    const seen: number[] = [];
    for (let i = 0; i < 10; i++) seen.push(u32(await initiator.receive(), 16));
    expect(new Set(seen)).toEqual(new Set([...tags, ping]));
  });

  it('a write that would block the data of others is told TASK SET FULL', async () => {
    await start(SMALL);
    const initiator = await login();
    const data = new Uint8Array(64 * KIB).fill(3);
    world.lun.holding = true;
    const owing = initiator.sendCommand(write10(0, 128), { write: data.length });
    const r2t = await initiator.receive();
    for (let i = 1; i < 8; i++)
      initiator.sendCommand(write10(i * 128, 128), { write: data.length, data, tag: 100 + i });
    await until(() => world.lun.held.length === 7, 'seven writes reach the medium');
    const full = initiator.sendCommand(write10(0, 128), { write: data.length, data });
    const refused = await initiator.result(full);
    expect(refused).toMatchObject({ status: 0x28, residual: data.length });
    initiator.sendDataOut(owing, u32(r2t, 20), 0, 0, data, true);
    await until(() => world.lun.held.length === 8, 'the data of the first write comes through');
    world.lun.release();
    for (let i = 0; i < 8; i++) expect((await initiator.receive()).header[3]).toBe(0);
  });

  it('a write that blocks the input gives up when memory comes for one whose data is behind it', async () => {
    await start({ slabBytes: 256 * KIB, slabBytesPerConnection: 128 * KIB, maxBurstLength: 128 * KIB, inputChunks: 0 });
    const other = await login(1);
    const initiator = await login(2);
    world.lun.holding = true;
    const held = other.sendCommand(read10(0, 256), { read: 128 * KIB });
    await until(() => world.lun.held.length === 1, 'half of the memory is taken');
    const data = new Uint8Array(128 * KIB).fill(6);
    const waiting = [1, 2].map((tag) => initiator.sendCommand(write10(0, 256), { write: data.length, tag }));
    // One has its data with it, the next one finds no room for its own and blocks.
    const quick = initiator.sendCommand(write10(512, 128), {
      write: 64 * KIB,
      data: data.subarray(0, 64 * KIB),
      tag: 3,
    });
    const blocked = initiator.sendCommand(write10(512, 128), {
      write: 64 * KIB,
      data: data.subarray(0, 64 * KIB),
      tag: 4,
    });
    await until(() => world.lun.held.length === 2, 'the quick one reaches the medium');
    expect(await initiator.isSilent()).toBe(true);
    world.lun.inner.submit(world.lun.held.shift()!);
    expect((await other.result(held)).status).toBe(0);
    await new Promise((resolve) => setTimeout(resolve, 30));
    world.lun.release();
    const statuses = new Map<number, number>();
    while (statuses.size < 4) {
      const pdu = await initiator.receive();
      const tag = u32(pdu, 16);
      if (opcodeOf(pdu) === 0x21) statuses.set(tag, pdu.header[3]!);
      else
        initiator.sendDataOut(
          tag,
          u32(pdu, 20),
          0,
          u32(pdu, 40),
          data.subarray(u32(pdu, 40), u32(pdu, 40) + u32(pdu, 44)),
          true,
        );
    }
    expect([...waiting, quick].map((tag) => statuses.get(tag))).toEqual([0, 0, 0]);
    expect(statuses.get(blocked)).toBe(0x28);
  });

  it('a connection that ends gives its place in line to the next', async () => {
    await start(SMALL);
    const all = [await login(1), await login(2), await login(3), await login(4)];
    world.lun.holding = true;
    // Each gets less than it asks for, and all wait for the rest.
    for (const each of all) {
      for (let i = 0; i < 4; i++) each.sendCommand(read10(0, 128), { read: 64 * KIB, tag: 500 + i });
    }
    await until(() => world.lun.held.length >= 6, 'the memory is nearly full');
    expect(await all[0]!.isSilent()).toBe(true);
    expect(world.lun.held.length).toBeLessThan(12);
    await all[0]!.close();
    await all[1]!.close();
    world.lun.release();
    for (const each of all.slice(2)) {
      for (let i = 0; i < 4; i++) expect((await each.result(500 + i)).data).toHaveLength(64 * KIB);
    }
  });
});

describe('teardown', () => {
  it('at any byte of a stream, with tasks in every state, leaves nothing and harms nobody', async () => {
    await start(SMALL);
    const witness = await login(99);
    const handles = (): number => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length;
    const handlesBefore = handles();
    let cmdSn = 5000;
    const command = (cdb: number[], flags: number, length: number, data?: Uint8Array): Uint8Array =>
      buildPdu({
        opcode: 1,
        flags,
        tag: cmdSn,
        fields: { 20: length, 24: cmdSn++ },
        cdb,
        ...(data === undefined ? {} : { data }),
      });
    const stream = Buffer.concat([
      command([0], 0x80, 0),
      command(read10(0, 8), 0xc0, 4096),
      command(write10(0, 2), 0xa0, 1024, new Uint8Array(1024).fill(1)),
      command(write10(0, 16), 0xa0, 8192),
      command(write10(0, 16), 0x20, 8192, new Uint8Array(700)),
      buildPdu({ opcode: 5, flags: 0, tag: 5004, fields: { 20: 0xffffffff, 40: 700 }, data: new Uint8Array(300) }),
      command(read10(0, 400), 0xc0, 204800),
      command(read10(0, 400), 0xc0, 204800),
      buildPdu({ opcode: 0, immediate: true, tag: 7, fields: { 24: cmdSn }, data: new Uint8Array(100) }),
    ]);
    for (let cut = 0; cut <= stream.length; cut += cut < 200 ? 7 : 61) {
      const victim = await Initiator.connect(world.port);
      victim.cmdSn = 5000;
      await victim.logIn();
      world.lun.holding = cut % 2 === 0;
      victim.write(stream.subarray(0, cut));
      await new Promise((resolve) => setTimeout(resolve, 1));
      if (cut % 3 === 0) victim.socket.resetAndDestroy();
      else victim.socket.destroy();
      world.lun.release();
    }
    await until(() => world.portal.connectionCount === 1, 'the victims are gone');
    await until(() => world.portal.memoryUsedBytes === 0, 'their memory is back');
    await until(() => handles() === handlesBefore, 'their sockets are closed');
    expect(world.portal.sessions()).toHaveLength(1);
    expect((await witness.readBlocks(0, 8)).status).toBe(0);
  });
});
