import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { FastInitiator } from '../support/fast-initiator.mjs';
import { SeededRandom } from '../support/seeded-random.ts';
import { memoryOf, ServedPool } from '../support/server.ts';

const MIB = 1024 * 1024;
const BHS_SIZE = 48;
const REQUEST_OPCODES = [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x1c, 0x1e];

let pool: ServedPool | null = null;

afterEach(async () => {
  const last = pool;
  pool = null;
  await last?.close();
});

/** Sends the pieces, one write each, and waits until the target has closed or has nothing more to say for a moment. */
function say(port: number, pieces: readonly Uint8Array[]): Promise<void> {
  return new Promise((resolve) => {
    const socket: Socket = connect({ host: '127.0.0.1', port });
    const quiet = setTimeout(() => socket.destroy(), 30);
    socket.on('connect', () => {
      for (const piece of pieces) socket.write(piece);
    });
    socket.on('data', () => quiet.refresh());
    socket.on('error', () => {});
    socket.on('close', () => {
      clearTimeout(quiet);
      resolve();
    });
  });
}

function loginPdu(target: string): Buffer {
  const keys = [
    'InitiatorName=iqn.2026-11.test:garbage',
    `TargetName=${target}`,
    'SessionType=Normal',
    'HeaderDigest=None',
    'DataDigest=None',
    '',
  ].join('\0');
  const text = Buffer.from(keys);
  const pdu = Buffer.alloc(BHS_SIZE + ((text.length + 3) & ~3));
  pdu[0] = 0x43;
  pdu[1] = 0x87;
  pdu.writeUInt32BE(text.length, 4);
  pdu[8] = 0x80;
  text.copy(pdu, BHS_SIZE);
  return pdu;
}

/** A request with a plausible header, in which some bytes are anything. */
function damagedPdu(random: SeededRandom): Buffer {
  const dataLength = random.pick([0, 0, 8, 512, 4096]);
  const pdu = Buffer.alloc(BHS_SIZE + dataLength);
  pdu[0] = random.pick(REQUEST_OPCODES) | (random.oneIn(2) ? 0x40 : 0);
  pdu[1] = random.pick([0x80, 0x81, 0xa1, 0xc1, 0x00, 0xe1]);
  pdu.writeUInt32BE(random.oneIn(8) ? random.below(2 ** 32) : dataLength, 4);
  pdu.writeUInt32BE(random.below(8), 16);
  pdu.writeUInt32BE(random.pick([0, dataLength, 2 ** 32 - 1]), 20);
  pdu.writeUInt32BE(random.pick([1, 1, 1, 2, 77]), 24);
  for (let i = 32; i < BHS_SIZE; i++) pdu[i] = random.below(256);
  const damage = random.below(6);
  for (let i = 0; i < damage; i++) pdu[random.below(pdu.length)] = random.below(256);
  return pdu;
}

describe('what is no iSCSI', () => {
  it('costs its sender the connection and nobody else anything', async () => {
    pool = await ServedPool.create('256M', { disk: '128M' });
    const server = await pool.serve();
    const { target, lun } = server.lun;
    const random = new SeededRandom();
    const neighbour = await FastInitiator.connect({ host: server.host, port: server.port, target, lun });
    const data = Buffer.alloc(MIB);
    random.fill(data);
    await neighbour.runGood((command) => command.write(4096, 2048, data));
    for (let round = 0; round < 40; round++) {
      await Promise.all(
        Array.from({ length: 8 }, () => {
          const noise = Buffer.alloc(1 + random.below(3000));
          random.fill(noise);
          const damaged = Array.from({ length: 1 + random.below(10) }, () => damagedPdu(random));
          const conversation = random.pick([
            [noise],
            [loginPdu(target).subarray(0, random.below(200))],
            [damagedPdu(random)],
            [loginPdu(target), noise],
            [loginPdu(target), ...damaged],
            [loginPdu(target), ...damaged, noise],
          ]);
          return say(server.port, conversation);
        }),
      );
      expect(server.isRunning, `THINLUN_SEED=${random.seed}\n${server.process.describeOutput()}`).toBe(true);
    }
    // Random CDBs may well have been valid, resets and STOP UNIT among them: what must hold is that it still serves, and in little memory.
    await neighbour.run((command) => {
      command.cdb[0] = 0x1b; // START UNIT
      command.cdb[4] = 1;
    });
    for (let i = 0; i < 5; i++) await neighbour.run((command) => command.cdb.fill(0)); // Unit attentions.
    await neighbour.runGood((command) => command.write(4096, 2048, data));
    const back = Buffer.alloc(MIB);
    await neighbour.runGood((command) => command.read(4096, 2048, 512, back));
    expect(back.equals(data)).toBe(true);
    await neighbour.close();
    const late = await FastInitiator.connect({ host: server.host, port: server.port, target, lun });
    await late.close();
    expect(await memoryOf(server.pid, 'VmHWM')).toBeLessThan(250 * MIB);
  });
});
