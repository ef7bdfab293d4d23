import { describe, expect, it } from 'vitest';
import { readU32BE } from '../../src/base/bytes.ts';
import { StorageError } from '../../src/base/errors.ts';
import { MIB } from '../../src/base/units.ts';
import { hintOf } from '../../src/daemon/advised-error.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';
import { createPool, openServed, READ_CAPACITY_10, send, TEST_UNIT_READY } from './served-pool.ts';

const LUNS_CHANGED = '6/3f/0e';
const MEDIUM_CHANGED = '6/28/00';
const CAPACITY_CHANGED = '6/2a/09';
const WRITE_PROTECTED = '7/27/00';
const WRITE_10 = [0x2a, 0, 0, 0, 0, 0, 0, 0, 0, 0];

type Served = Awaited<ReturnType<typeof openServed>>;

function backendOf({ exports }: Served, lun: number): LunClient {
  return new LunClient(exports.target.unitAt(lun)!.state.backend);
}

/** An initiator that has seen everything there was to see. */
async function logIn({ exports }: Served): Promise<Nexus> {
  const nexus = new Nexus('iqn.y:host,i,0x1', 'iqn.x:pool,t,0x1', 1);
  exports.target.attach(nexus);
  for (const lun of exports.target.allLuns) {
    while ((await send(exports.target, lun, nexus, TEST_UNIT_READY)).sense !== '') {}
  }
  return nexus;
}

async function failureOf(call: Promise<unknown>): Promise<[string, string, string | null]> {
  const error: unknown = await call.catch((thrown: unknown) => thrown);
  if (!(error instanceof StorageError)) throw new Error(`no StorageError: ${String(error)}`);
  return [error.code, error.message, hintOf(error)];
}

describe('a snapshot of a served pool', () => {
  it('is a new LUN at once, and initiators are told', async () => {
    const served = await openServed(await createPool());
    const { service, exports } = served;
    await service.createVolume({ name: 'a', sizeBytes: 4 * MIB, logicalBlockSize: 4096 });
    await service.createVolume({ name: 'b', sizeBytes: MIB });
    await backendOf(served, 0).write(0, pattern(MIB, 1));
    const nexus = await logIn(served);
    const snapshots = [
      { origin: 'a', name: 'a1' },
      { origin: 'b', name: 'b1' },
    ];
    const made = await service.createSnapshots({ snapshots, readOnly: true });
    expect(made.map(({ name, lun, origin, readOnly }) => [name, lun, origin, readOnly])).toEqual([
      ['a1', 2, 'a', true],
      ['b1', 3, 'b', true],
    ]);
    expect((await send(exports.target, 0, nexus, TEST_UNIT_READY)).sense).toBe(LUNS_CHANGED);
    expect(exports.target.allLuns).toEqual([0, 1, 2, 3]);
    expect(exports.target.unitAt(2)!.state.blockSize).toBe(4096);
    expectBytes(await backendOf(served, 2).read(0, MIB), pattern(MIB, 1));
    while ((await send(exports.target, 2, nexus, TEST_UNIT_READY)).sense !== '') {}
    expect((await send(exports.target, 2, nexus, WRITE_10)).sense).toBe(WRITE_PROTECTED);
    await service.renameVolume('a', { name: 'c' });
    expect((await service.listVolumes()).map(({ name, origin }) => [name, origin])).toEqual([
      ['c', null],
      ['b', null],
      ['a1', 'c'],
      ['b1', 'b'],
    ]);
    await service.deleteVolume('c');
    expect(exports.target.allLuns).toEqual([1, 2, 3]);
    expect((await service.listVolumes())[1]).toMatchObject({ name: 'a1', origin: null });
  });

  it('is what a volume is rolled back to, which its users must know', async () => {
    const served = await openServed(await createPool());
    const { service, exports } = served;
    const { target } = exports;
    const before = await service.createVolume({ name: 'a', sizeBytes: 4 * MIB });
    await service.createVolume({ name: 'other', sizeBytes: MIB });
    await backendOf(served, 0).write(0, pattern(MIB, 1));
    await service.createSnapshots({ snapshots: [{ origin: 'a', name: 's' }] });
    await backendOf(served, 0).write(0, pattern(MIB, 2));
    await service.resizeVolume('a', { sizeBytes: 8 * MIB });
    expect(await failureOf(service.rollbackVolume('a', { snapshot: 'other' }))).toEqual([
      'EINVAL',
      expect.stringContaining('that is no snapshot of it'),
      expect.stringContaining('--force'),
    ]);
    const nexus = await logIn(served);
    expect(await failureOf(service.rollbackVolume('a', { snapshot: 's' }))).toEqual([
      'EBUSY',
      'Cannot roll back the volume "a": 1 initiator uses it',
      expect.stringContaining('--force'),
    ]);
    expect((await failureOf(service.rollbackVolume('a', { snapshot: 'a', force: true })))[1]).toMatch(/the same$/);
    const rolled = await service.rollbackVolume('a', { snapshot: 's', force: true });
    expect(rolled).toEqual({ ...before, id: expect.any(Number), mappedBytes: MIB });
    expect((await send(target, 0, nexus, TEST_UNIT_READY)).sense).toBe(MEDIUM_CHANGED);
    expect((await send(target, 0, nexus, TEST_UNIT_READY)).sense).toBe(CAPACITY_CHANGED);
    const { data } = await send(target, 0, nexus, READ_CAPACITY_10, 8);
    expect((readU32BE(data, 0) + 1) * readU32BE(data, 4)).toBe(4 * MIB);
    expectBytes(await backendOf(served, 0).read(0, MIB), pattern(MIB, 1));
    target.detach(nexus);
    await backendOf(served, 0).write(0, pattern(MIB, 3));
    await service.rollbackVolume('a', { snapshot: 's' });
    expectBytes(await backendOf(served, 0).read(0, MIB), pattern(MIB, 1));
  });

  it('is not taken from a TCMU device by a new name', async () => {
    const { service, exports } = await openServed(await createPool());
    await service.createVolume({ name: 'a', sizeBytes: MIB });
    const unit = exports.acquire('a', 'lun');
    expect(await failureOf(service.renameVolume('a', { name: 'b' }))).toEqual([
      'EBUSY',
      expect.stringContaining('the backstore "lun" of LIO'),
      expect.stringContaining('targetcli'),
    ]);
    expect((await failureOf(service.rollbackVolume('a', { snapshot: 'a' })))[0]).toBe('EBUSY');
    exports.release(unit, 'lun');
    await service.renameVolume('a', { name: 'b' });
    exports.release(exports.acquire('b', 'lun'), 'lun');
    await service.deleteVolume('b');
    expect(exports.target.allLuns).toEqual([]);
  });
});

describe('a message to a served pool', () => {
  it('makes LUNs come and go', async () => {
    const served = await openServed(await createPool());
    const { service, exports } = served;
    expect(await service.message({ message: 'new-thin 3 2048' })).toBe(0);
    await service.message({ message: 'CREATE_SNAP 4 3' });
    expect(exports.target.allLuns).toEqual([0, 1]);
    expect(await service.message({ message: 'set_transaction_id 0 8' })).toBe(8);
    await service.message({ message: 'reserve_metadata_snap' });
    expect((await failureOf(service.message({ message: 'reserve_metadata_snap' })))[0]).toBe('EBUSY');
    await service.message({ message: 'release_metadata_snap' });
    await service.message({ message: 'trim 3 128' });
    const { pool, volumes } = await service.statusLines();
    expect([pool.name, pool.line]).toEqual(['pool', expect.stringMatching(/^0 2097152 thin-pool 8 /)]);
    expect(volumes).toEqual([
      { name: 'thin-3', line: '0 128 thin 0 -' },
      { name: 'thin-4', line: '0 2048 thin 0 -' },
    ]);
    const nexus = await logIn(served);
    const busy = await failureOf(service.message({ message: 'delete 3' }));
    expect(busy.slice(0, 2)).toEqual(['EBUSY', expect.stringContaining('initiators use its volume "thin-3"')]);
    exports.target.detach(nexus);
    await service.message({ message: 'delete 3' });
    expect(exports.target.allLuns).toEqual([1]);
    expect((await failureOf(service.message({ message: 'delete 3' })))[0]).toBe('ENODATA');
    expect((await failureOf(service.message({ message: 'explode' })))[0]).toBe('EINVAL');
  });

  it('is refused in a pool that is read-only', async () => {
    const { service } = await openServed(await createPool());
    await service.message({ message: 'create_thin 1' });
    await service.setOptions({ readOnly: true });
    for (const message of ['create_thin 2', 'delete 1', 'set_transaction_id 0 1', 'nonsense']) {
      expect((await failureOf(service.message({ message })))[0]).toBe('EOPNOTSUPP');
    }
    await service.setOptions({ readOnly: false });
    await service.message({ message: 'delete 1' });
  });
});
