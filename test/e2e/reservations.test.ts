import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, it } from 'vitest';
import { parse } from '../../src/base/schema.ts';
import { volumeReservationsSchema } from '../../src/daemon/reservation-messages.ts';
import { Status } from '../../src/scsi/spec.ts';
import { outCdb, outList, PR_OUT } from '../scsi/support/cluster.ts';
import { FastInitiator } from '../support/fast-initiator.mjs';
import { SeededRandom } from '../support/seeded-random.ts';
import { ServedPool } from '../support/server.ts';
import { thinlun } from '../support/thinlun-server.mjs';

const ROUNDS = 8;
const NODES = 4;
const WERO = 5;

let created: ServedPool | null = null;
const initiators: FastInitiator[] = [];

afterEach(async () => {
  for (const initiator of initiators.splice(0)) initiator.destroy();
  const last = created;
  created = null;
  await last?.close();
});

function isidOf(node: number): string {
  return (0x80_0000_000000 + node).toString(16).padStart(12, '0');
}

/** The same initiator port every time. */
async function connect(pool: ServedPool, node: number): Promise<FastInitiator> {
  const { host, port, lun } = pool.server;
  const initiator = await FastInitiator.connect({ host, port, target: lun.target, lun: lun.lun, isid: isidOf(node) });
  initiators.push(initiator);
  return initiator;
}

async function reserveOut(
  node: FastInitiator,
  action: number,
  fields: { key?: number; newKey?: number; type?: number; aptpl?: boolean },
): Promise<number> {
  const list = Buffer.from(outList(fields));
  const { status } = await node.run((command) => {
    command.cdb.set(outCdb(action, list.length, fields.type ?? 0));
    command.dataOut = list;
  });
  return status;
}

async function write(node: FastInitiator): Promise<number> {
  const { status } = await node.run((command) => command.write(0, 1, Buffer.alloc(512)));
  return status;
}

/** Key by ISID, as the command says. */
async function keysOf(pool: ServedPool): Promise<Map<string, number>> {
  const text = await thinlun('volume', 'reservations', pool.folder, 'shared', '--json');
  const { registrants } = parse(volumeReservationsSchema, (JSON.parse(text) as unknown[])[0]);
  return new Map(registrants.map(({ isid, key }) => [isid, Number(key)]));
}

it(`keeps every acknowledged registration with APTPL over ${ROUNDS} kills at random moments`, async () => {
  const random = new SeededRandom();
  const pool = await ServedPool.create('64M', { shared: '32M' });
  created = pool;
  const acknowledged = new Array<number>(NODES).fill(0);
  const asked = new Array<number>(NODES).fill(0);
  for (let round = 0; round < ROUNDS; round++) {
    const where = `round ${round} with THINLUN_SEED=${random.seed}`;
    await pool.serve();
    const keys = await keysOf(pool);
    for (let node = 0; node < NODES; node++) {
      const key = keys.get(isidOf(node)) ?? 0;
      // What was on its way may have become so; then it is what has to stay.
      expect([acknowledged[node], asked[node]], where).toContain(key);
      acknowledged[node] = key;
    }
    /** Ends when the server does. */
    const registerAgainAndAgain = async (node: number): Promise<void> => {
      const initiator = await connect(pool, node);
      for (;;) {
        const newKey = asked[node]! + 1;
        asked[node] = newKey;
        expect(await reserveOut(initiator, PR_OUT.REGISTER_AND_IGNORE, { newKey, aptpl: true })).toBe(Status.GOOD);
        acknowledged[node] = newKey;
      }
    };
    const ends = Promise.allSettled(Array.from({ length: NODES }, (_, node) => registerAgainAndAgain(node)));
    await sleep(50 + random.below(250));
    await pool.crash();
    for (const end of await ends)
      expect(String((end as PromiseRejectedResult).reason), where).toMatch(/Error: (?:read|write|connect|the target)/);
  }
  expect(Math.min(...acknowledged)).toBeGreaterThan(ROUNDS);
}, 120_000);

it('keeps a fenced node out over a kill, and lets the administrator free the volume', async () => {
  const pool = await ServedPool.create('64M', { shared: '32M' });
  created = pool;
  await pool.serve();
  let [first, second] = [await connect(pool, 1), await connect(pool, 2)];
  expect(await reserveOut(first, PR_OUT.REGISTER, { newKey: 0xa, aptpl: true })).toBe(Status.GOOD);
  expect(await reserveOut(second, PR_OUT.REGISTER, { newKey: 0xb, aptpl: true })).toBe(Status.GOOD);
  expect(await reserveOut(first, PR_OUT.RESERVE, { key: 0xa, type: WERO })).toBe(Status.GOOD);
  expect(await write(second)).toBe(Status.GOOD);
  // The first node fences the second one.
  expect(await reserveOut(first, PR_OUT.PREEMPT_AND_ABORT, { key: 0xa, newKey: 0xb, type: WERO })).toBe(Status.GOOD);
  await pool.crash();
  await pool.serve();
  [first, second] = [await connect(pool, 1), await connect(pool, 2)];
  expect([await write(first), await write(second)]).toEqual([Status.GOOD, Status.RESERVATION_CONFLICT]);

  await expect(thinlun('volume', 'reservations', 'clear', pool.folder, 'shared')).rejects.toThrow(/is logged in/);
  await first.close();
  await thinlun('volume', 'reservations', 'clear', pool.folder, 'shared', '--initiator', 'iqn.2026-11.test:fast');
  expect(await write(second)).toBe(Status.GOOD);
  await second.close();
  await pool.restart();
  expect(await keysOf(pool)).toEqual(new Map());
}, 60_000);
