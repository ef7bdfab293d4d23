import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { monotonicClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { MIB } from '../../src/base/units.ts';
import { Daemon } from '../../src/daemon/daemon.ts';
import { PoolService } from '../../src/daemon/pool-service.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { Status } from '../../src/scsi/spec.ts';
import { outCdb, outList, PR_OUT } from '../scsi/support/cluster.ts';
import { Pending, type Result } from '../scsi/support/initiator.ts';
import { createPool, openServed, RecordingLogger, send, TEST_UNIT_READY } from './served-pool.ts';

const WERO = 5;
const RESERVE_6 = [0x16, 0, 0, 0, 0, 0];

type Served = Awaited<ReturnType<typeof openServed>>;

function logIn({ exports }: Served, name: string): Nexus {
  const nexus = new Nexus(`iqn.y:${name},i,0x000000000001`, 'iqn.x:pool,t,0x1', 1);
  exports.target.attach(nexus);
  return nexus;
}

/** The first unit attention of every LUN is a login's. */
async function settle({ exports }: Served, nexus: Nexus): Promise<void> {
  for (const lun of exports.target.allLuns) await send(exports.target, lun, nexus, TEST_UNIT_READY);
}

async function out(
  { exports: { target } }: Served,
  nexus: Nexus,
  action: number,
  fields: Parameters<typeof outList>[0],
  lun = 0,
): Promise<Result> {
  const pending = new Pending(nexus);
  const list = outList(fields);
  await new Promise<void>((resolve) => {
    pending.onDone = resolve;
    const server = {
      prepare: (task: Pending['task']) => target.prepare(task, lun),
      execute: (task: Pending['task']) => target.execute(task),
    };
    pending.start(server, outCdb(action, list.length, fields.type ?? 0), list, 0);
    if (pending.isDone) resolve();
  });
  return pending.result();
}

/** Two nodes with a reservation of the first one, kept across restarts. */
async function openCluster(dir: string): Promise<Served & { one: Nexus; two: Nexus }> {
  const served = await openServed(dir);
  await served.service.createVolume({ name: 'shared', sizeBytes: MIB });
  const [one, two] = [logIn(served, 'one'), logIn(served, 'two')];
  await settle(served, one);
  await settle(served, two);
  expect((await out(served, one, PR_OUT.REGISTER, { newKey: 1, aptpl: true })).status).toBe(Status.GOOD);
  expect((await out(served, two, PR_OUT.REGISTER, { newKey: 2, aptpl: true })).status).toBe(Status.GOOD);
  expect((await out(served, one, PR_OUT.RESERVE, { key: 1, type: WERO })).status).toBe(Status.GOOD);
  return { ...served, one, two };
}

const registrantsIn = async (service: PoolService): Promise<[string, string, boolean][]> =>
  (await service.listReservations()).flatMap(({ volume, registrants }) =>
    registrants.map(({ initiator, holdsReservation }): [string, string, boolean] => [
      volume,
      initiator,
      holdsReservation,
    ]),
  );

describe('reservations of a pool', () => {
  it('are told with and without a server, which alone knows who is logged in', async () => {
    const dir = await createPool();
    const { service, exports, two } = await openCluster(dir);
    exports.target.detach(two);
    expect(await service.listReservations()).toEqual([
      {
        volume: 'shared',
        type: 'write-exclusive-registrants-only',
        survivesRestart: true,
        generation: 2,
        registrants: [
          {
            initiator: 'iqn.y:one',
            isid: '000000000001',
            targetPort: 1,
            key: '0x0000000000000001',
            holdsReservation: true,
            loggedIn: true,
          },
          {
            initiator: 'iqn.y:two',
            isid: '000000000001',
            targetPort: 1,
            key: '0x0000000000000002',
            holdsReservation: false,
            loggedIn: false,
          },
        ],
        reservedBy: null,
      },
    ]);
    await service.close();
    const alone = await PoolService.open(dir, { logger: silentLogger, clock: monotonicClock });
    const [volume] = await alone.listReservations();
    expect([volume!.generation, volume!.type, volume!.registrants.map(({ loggedIn }) => loggedIn)]).toEqual([
      null,
      'write-exclusive-registrants-only',
      [null, null],
    ]);
    await alone.close();
  });

  it('follow their volume through a rename and a rollback, and go with it', async () => {
    const dir = await createPool();
    const served = await openCluster(dir);
    const { service } = served;
    await service.createSnapshots({ snapshots: [{ origin: 'shared', name: 'snap' }] });
    await service.renameVolume('shared', { name: 'renamed' });
    await service.rollbackVolume('renamed', { snapshot: 'snap', force: true });
    const expected = [
      ['renamed', 'iqn.y:one', true],
      ['renamed', 'iqn.y:two', false],
    ];
    expect(await registrantsIn(service)).toEqual(expected);
    await service.close();
    const again = await openServed(dir);
    expect(await registrantsIn(again.service)).toEqual(expected);
    expect(existsSync(join(dir, 'reservations.json'))).toBe(true);
    await again.service.deleteVolume('renamed');
    expect(existsSync(join(dir, 'reservations.json'))).toBe(false);
    await again.service.createVolume({ name: 'renamed', sizeBytes: MIB });
    expect(await registrantsIn(again.service)).toEqual([]);
  });

  it('are cleared by the administrator, who has to insist while their initiator is logged in', async () => {
    const dir = await createPool();
    const served = await openCluster(dir);
    const { service, exports, one, two } = served;
    await expect(service.clearReservations('shared', {})).rejects.toMatchObject({
      code: 'EBUSY',
      message: /iqn\.y:one is logged in and relies on them/,
    });
    exports.target.detach(one);
    const left = await service.clearReservations('shared', { initiator: 'IQN.Y:one' });
    expect(left.registrants.map(({ initiator }) => initiator)).toEqual(['iqn.y:two']);
    expect(left.type).toBeNull();
    // The other registrant learns that the reservation is gone, the one that lost its registration when it comes back.
    expect((await send(exports.target, 0, two, TEST_UNIT_READY)).sense).toBe('6/2a/04');
    const back = logIn(served, 'one');
    await settle(served, back);
    expect((await send(exports.target, 0, back, TEST_UNIT_READY)).sense).toBe('6/2a/05');
    await expect(service.clearReservations('shared', { initiator: 'iqn.y:one' })).rejects.toMatchObject({
      code: 'ENOENT',
    });
    await service.clearReservations('shared', { force: true });
    expect(await registrantsIn(service)).toEqual([]);
    expect((await send(exports.target, 0, two, TEST_UNIT_READY)).sense).toBe('6/2a/05');
    expect(existsSync(join(dir, 'reservations.json'))).toBe(false);
    await expect(service.clearReservations('absent', {})).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('of RESERVE are told and cleared, too', async () => {
    const served = await openServed(await createPool());
    const { service, exports } = served;
    await service.createVolume({ name: 'shared', sizeBytes: MIB });
    const nexus = logIn(served, 'one');
    await settle(served, nexus);
    expect((await send(exports.target, 0, nexus, RESERVE_6)).status).toBe(Status.GOOD);
    expect((await service.listReservations())[0]!.reservedBy).toEqual({
      initiator: 'iqn.y:one',
      isid: '000000000001',
      targetPort: 1,
      loggedIn: true,
    });
    await expect(service.clearReservations('shared', {})).rejects.toMatchObject({ code: 'EBUSY' });
    await service.clearReservations('shared', { force: true });
    expect((await service.listReservations())[0]!.reservedBy).toBeNull();
    expect((await send(exports.target, 0, nexus, TEST_UNIT_READY)).sense).toBe('6/2a/03');
  });

  it('are cleared without a server, for the next one', async () => {
    const dir = await createPool();
    await (await openCluster(dir)).service.close();
    const alone = await PoolService.open(dir, { logger: silentLogger, clock: monotonicClock });
    await alone.clearReservations('shared', { initiator: 'iqn.y:one' });
    await alone.close();
    const again = await openServed(dir);
    expect(await registrantsIn(again.service)).toEqual([['shared', 'iqn.y:two', false]]);
  });

  it('that cannot be read keep a pool from being served, and nothing else', async () => {
    const dir = await createPool();
    writeFileSync(join(dir, 'reservations.json'), '{}');
    const options = { dirs: [dir], portals: [], tcmu: false, logger: new RecordingLogger(), clock: monotonicClock };
    await expect(Daemon.start(options)).rejects.toMatchObject({
      code: 'EINVAL',
      message: /^Cannot read the reservations/,
    });
    const alone = await PoolService.open(dir, { logger: silentLogger, clock: monotonicClock });
    await alone.createVolume({ name: 'a', sizeBytes: MIB });
    await expect(alone.listReservations()).rejects.toMatchObject({ code: 'EINVAL' });
    await alone.deleteVolume('a');
    await alone.close();
  });
});
