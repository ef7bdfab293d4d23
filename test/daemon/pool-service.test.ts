import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readU32BE } from '../../src/base/bytes.ts';
import { StorageError } from '../../src/base/errors.ts';
import { GIB, KIB, MIB } from '../../src/base/units.ts';
import { hintOf } from '../../src/daemon/advised-error.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { LunClient, pattern } from '../support/lun-client.ts';
import {
  createPool,
  openServed,
  READ_CAPACITY_10,
  READ_CAPACITY_16,
  RecordingLogger,
  send,
  TEST_UNIT_READY,
} from './served-pool.ts';

const WRITE_10 = [0x2a, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const CAPACITY_CHANGED = '6/2a/09';
const LUNS_CHANGED = '6/3f/0e';
const INQUIRY_CHANGED = '6/3f/03';
const POWER_ON = '6/29/00';
const NO_SUCH_LUN = '5/25/00';

const nexus = new Nexus('iqn.y:host,i,0x1', 'iqn.x:pool,t,0x1', 1);
const backendOf = ({ exports }: Awaited<ReturnType<typeof openServed>>, lun: number): LunClient =>
  new LunClient(exports.target.unitAt(lun)!.state.backend);

async function failureOf(call: Promise<unknown>): Promise<StorageError> {
  const error = await call.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(StorageError);
  return error as StorageError;
}

describe('the volumes of a served pool', () => {
  it('are at the LUNs of the catalogue, and at the same ones after a restart', async () => {
    const dir = await createPool();
    const first = await openServed(dir);
    for (const name of ['a', 'b', 'c']) await first.service.createVolume({ name, sizeBytes: MIB });
    await first.service.deleteVolume('b');
    expect(first.exports.target.allLuns).toEqual([0, 2]);
    const before = await first.service.listVolumes();
    await first.service.close();
    const second = await openServed(dir);
    expect(second.exports.target.allLuns).toEqual([0, 2]);
    expect(await second.service.listVolumes()).toEqual(before);
    expect(second.exports.target.unitAt(2)!.state.serial).toBe(before[1]!.serial);
  });

  it('appear, grow and vanish under initiators that are logged in, who are told', async () => {
    const { service, exports } = await openServed(await createPool());
    const { target } = exports;
    await service.createVolume({ name: 'a', sizeBytes: GIB });
    target.attach(nexus);
    expect((await send(target, 0, nexus, TEST_UNIT_READY)).sense).toBe(POWER_ON);
    expect((await send(target, 0, nexus, TEST_UNIT_READY)).sense).toBe('');

    await service.createVolume({ name: 'b', sizeBytes: GIB, logicalBlockSize: 4096 });
    expect((await send(target, 0, nexus, TEST_UNIT_READY)).sense).toBe(LUNS_CHANGED);
    const { data } = await send(target, 0, nexus, READ_CAPACITY_10, 8);
    expect((readU32BE(data, 0) + 1) * readU32BE(data, 4)).toBe(GIB);

    await service.resizeVolume('a', { sizeBytes: 2 * GIB });
    expect((await send(target, 0, nexus, TEST_UNIT_READY)).sense).toBe(CAPACITY_CHANGED);
    const grown = (await send(target, 0, nexus, READ_CAPACITY_10, 8)).data;
    expect((readU32BE(grown, 0) + 1) * readU32BE(grown, 4)).toBe(2 * GIB);

    await service.deleteVolume('a');
    expect((await send(target, 0, nexus, TEST_UNIT_READY)).sense).toBe(NO_SUCH_LUN);
    expect(target.allLuns).toEqual([1]);
  });

  it('keep what was written when they become smaller, up to the new end', async () => {
    const served = await openServed(await createPool());
    await served.service.createVolume({ name: 'a', sizeBytes: 4 * MIB });
    const client = backendOf(served, 0);
    const bytes = pattern(4 * MIB, 1);
    await client.write(0, bytes);
    const refused = await failureOf(served.service.resizeVolume('a', { sizeBytes: MIB }));
    expect([refused.code, hintOf(refused)]).toEqual(['EINVAL', expect.stringContaining('--shrink')]);
    await served.service.resizeVolume('a', { sizeBytes: MIB, allowShrink: true });
    expect(Buffer.compare(await client.read(0, MIB), bytes.subarray(0, MIB))).toBe(0);
    await served.service.resizeVolume('a', { sizeBytes: 4 * MIB });
    expect((await client.read(MIB, 3 * MIB)).every((byte) => byte === 0)).toBe(true);
    expect((await served.service.listVolumes())[0]!.mappedBytes).toBe(MIB);
  });

  it('answer what is in flight before they are deleted, and give their space back', async () => {
    const served = await openServed(await createPool());
    await served.service.createVolume({ name: 'a', sizeBytes: 8 * MIB });
    const client = backendOf(served, 0);
    const writes = Array.from({ length: 8 }, (_, i) => client.write(i * MIB, pattern(MIB, i)));
    const deleted = served.service.deleteVolume('a');
    await expect(Promise.all(writes)).resolves.toHaveLength(8);
    await deleted;
    await expect(client.read(0, 4096)).rejects.toThrow('ESHUTDOWN');
    await served.service.commit();
    expect((await served.service.status()).dataUsedBytes).toBe(0);
  });

  it('have properties that change under initiators that are logged in, who are told', async () => {
    const served = await openServed(await createPool());
    const { service, exports } = served;
    await service.createVolume({ name: 'a', sizeBytes: MIB });
    const nexus = new Nexus('iqn.y:host,i,0x1', 'iqn.x:pool,t,0x1', 1);
    exports.target.attach(nexus);
    const sense = async (cdb: readonly number[]): Promise<string> => (await send(exports.target, 0, nexus, cdb)).sense;
    while ((await sense(TEST_UNIT_READY)) !== '') {}

    await service.setVolume('a', { readOnly: true });
    expect(await sense(TEST_UNIT_READY)).toBe('6/2a/01');
    expect(await sense(WRITE_10)).toBe('7/27/00');
    await service.setVolume('a', { readOnly: false });
    expect(await sense(TEST_UNIT_READY)).toBe('6/2a/01');
    expect(await sense(WRITE_10)).toBe('');

    const EJECT = [0x1b, 0, 0, 0, 0x02, 0];
    const PREVENT = [0x1e, 0, 0, 0, 1, 0];
    expect(await sense(PREVENT)).toBe('5/20/00');
    await service.setVolume('a', { removable: true });
    expect(await sense(TEST_UNIT_READY)).toBe('6/3f/03');
    expect(await sense(PREVENT)).toBe('');
    expect(await sense(EJECT)).toBe('5/53/02');
    expect(await sense([0x1e, 0, 0, 0, 0, 0])).toBe('');
    expect(await sense(EJECT)).toBe('');
    expect(await sense(TEST_UNIT_READY)).toBe('2/3a/00');
    // A fixed one cannot be without its medium.
    await service.setVolume('a', { removable: false });
    expect(await sense(TEST_UNIT_READY)).toBe('6/3f/03');
    expect(await sense(TEST_UNIT_READY)).toBe('');

    await service.setVolume('a', { physicalBlockSize: 64 * KIB });
    expect(await sense(TEST_UNIT_READY)).toBe('6/2a/09');
    expect(exports.target.unit(nexus, 0)!.state.physicalBlockExponent).toBe(7);
    await service.setVolume('a', { physicalBlockSize: 64 * KIB, readOnly: false });
    expect(await sense(TEST_UNIT_READY)).toBe('');
  });

  it('stop promising zeroes when the pool skips zeroing, and initiators are told', async () => {
    const { service, exports } = await openServed(await createPool());
    const { target } = exports;
    await service.createVolume({ name: 'a', sizeBytes: GIB });
    target.attach(nexus);
    await send(target, 0, nexus, TEST_UNIT_READY);
    const lbprz = async (): Promise<number> => (await send(target, 0, nexus, READ_CAPACITY_16, 32)).data[14]! & 0x40;
    expect(await lbprz()).toBe(0x40);
    await service.setOptions({ errorIfNoSpace: true });
    expect((await send(target, 0, nexus, TEST_UNIT_READY)).sense).toBe('');
    await service.setOptions({ skipBlockZeroing: true });
    expect((await send(target, 0, nexus, TEST_UNIT_READY)).sense).toBe(INQUIRY_CHANGED);
    expect(await lbprz()).toBe(0);
    const failure = await failureOf(service.setOptions({ ignoreDiscard: true }));
    expect([failure.code, hintOf(failure)]).toEqual(['EBUSY', expect.stringContaining('Stop the server')]);
  });

  it('are served but for those whose external origin is not there, and the log says which', async () => {
    const dir = await createPool();
    const image = join(dir, '..', 'image');
    writeFileSync(image, new Uint8Array(MIB));
    const first = await openServed(dir);
    await first.service.createVolume({ name: 'over', externalOrigin: image });
    await first.service.createVolume({ name: 'plain', sizeBytes: MIB });
    expect(first.exports.target.allLuns).toEqual([0, 1]);
    await first.service.close();
    rmSync(image);
    const logger = new RecordingLogger();
    const second = await openServed(dir, logger);
    expect(second.exports.target.allLuns).toEqual([1]);
    expect(logger.texts('error')).toEqual(['the volume cannot be opened and is not served']);
    expect((await failureOf(Promise.resolve().then(() => second.exports.acquire('over', 'lun')))).code).toBe('ENODEV');
    await second.service.deleteVolume('over');
  });

  it('that could not be deleted are served again', async () => {
    const served = await openServed(await createPool());
    await served.service.createVolume({ name: 'a', sizeBytes: MIB });
    await backendOf(served, 0).write(0, pattern(4096, 1));
    const pool = served.service.pool as unknown as { deleteVolume: (name: string) => Promise<void> };
    const { deleteVolume } = pool;
    pool.deleteVolume = () => Promise.reject(new StorageError('EROFS', 'Cannot change the pool: it is read-only'));
    const failure = await failureOf(served.service.deleteVolume('a'));
    expect([failure.code, hintOf(failure)]).toEqual(['EROFS', expect.stringContaining('thinlun check')]);
    expect(await backendOf(served, 0).read(0, 4096)).toEqual(pattern(4096, 1));
    pool.deleteVolume = deleteVolume;
    await served.service.deleteVolume('a');
    expect(served.exports.target.allLuns).toEqual([]);
  });

  it('are not deleted while a TCMU device stands on them', async () => {
    const { service, exports } = await openServed(await createPool());
    await service.createVolume({ name: 'a', sizeBytes: MIB });
    const unit = exports.acquire('a', 'lun');
    const failure = await failureOf(service.deleteVolume('a'));
    expect([failure.code, hintOf(failure)]).toEqual(['EBUSY', expect.stringContaining('targetcli')]);
    expect(exports.target.unitAt(0)).toBe(unit);
    exports.release(unit, 'lun');
    await service.deleteVolume('a');
    expect((await failureOf(Promise.resolve().then(() => exports.acquire('a', 'lun')))).code).toBe('ENOENT');
  });
});

describe('a pool that is being closed', () => {
  it('finishes what was asked before, refuses what comes after, and is closed once', async () => {
    const dir = await createPool();
    const { service } = await openServed(dir);
    const before = service.createVolume({ name: 'a', sizeBytes: MIB });
    const closed = service.close();
    const after = failureOf(service.createVolume({ name: 'b', sizeBytes: MIB }));
    expect((await before).name).toBe('a');
    expect((await after).code).toBe('ESHUTDOWN');
    expect(service.close()).toBe(closed);
    await closed;
    const again = await openServed(dir);
    expect((await again.service.listVolumes()).map(({ name }) => name)).toEqual(['a']);
  });

  it('keeps what was written and not flushed', async () => {
    const dir = await createPool();
    const first = await openServed(dir);
    await first.service.createVolume({ name: 'a', sizeBytes: MIB });
    await backendOf(first, 0).write(0, pattern(MIB, 3));
    await first.service.close();
    const second = await openServed(dir);
    expect(await backendOf(second, 0).read(0, MIB)).toEqual(pattern(MIB, 3));
  });
});
