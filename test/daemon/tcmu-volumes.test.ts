import { beforeEach, describe, expect, it } from 'vitest';
import { StorageError } from '../../src/base/errors.ts';
import { GIB, MIB } from '../../src/base/units.ts';
import { hintOf } from '../../src/daemon/advised-error.ts';
import type { PoolService } from '../../src/daemon/pool-service.ts';
import { parseVolumePath, TcmuVolumes } from '../../src/daemon/tcmu-volumes.ts';
import { createPool, openServed, RecordingLogger } from './served-pool.ts';

const NEW = { name: 'lun', blockSizeBytes: 512, isNew: true };
const NEW_4K = { name: 'lun', blockSizeBytes: 4096, isNew: true };

let service: PoolService;
let logger: RecordingLogger;
let volumes: TcmuVolumes;

beforeEach(async () => {
  service = (await openServed(await createPool())).service;
  logger = new RecordingLogger();
  volumes = new TcmuVolumes(
    (name) => (name === 'pool' ? service : undefined),
    () => null,
    logger,
  );
});

async function failureOf(call: () => unknown): Promise<StorageError> {
  const error = await Promise.resolve()
    .then(call)
    .then(
      () => null,
      (thrown: unknown) => thrown,
    );
  expect(error).toBeInstanceOf(StorageError);
  return error as StorageError;
}

describe('a backstore of LIO', () => {
  it('stands on the unit that the portal serves', async () => {
    await service.createVolume({ name: 'a', sizeBytes: GIB });
    const unit = await volumes.resolve('pool/a', GIB, NEW);
    expect(unit).toBe(service.exports!.target.unitAt(0));
    expect(logger.lines).toEqual([]);
  });

  it('makes the volume that is not there, with its size and its blocks', async () => {
    const unit = await volumes.resolve('pool/new', 3 * MIB, NEW_4K);
    expect(unit).toBe(service.exports!.target.unitAt(0));
    expect(await service.listVolumes()).toMatchObject([{ name: 'new', sizeBytes: 3 * MIB, logicalBlockSize: 4096 }]);
  });

  it('that is older than the server gets no empty volume in the place of one that is gone', async () => {
    const failure = await failureOf(() => volumes.resolve('pool/gone', MIB, { ...NEW, isNew: false }));
    expect([failure.code, hintOf(failure)]).toEqual(['ENOENT', expect.stringContaining('thinlun volume create')]);
    expect(await service.listVolumes()).toEqual([]);
  });

  it('keeps its volume from being deleted until it is gone', async () => {
    const unit = await volumes.resolve('pool/a', MIB, NEW);
    expect((await failureOf(() => service.deleteVolume('a'))).code).toBe('EBUSY');
    volumes.release('pool/a', unit, 'lun');
    await service.deleteVolume('a');
  });

  it('of another size is served with the size of the volume, and that is said', async () => {
    await service.createVolume({ name: 'a', sizeBytes: 2 * GIB });
    const unit = await volumes.resolve('pool/a', GIB, NEW);
    expect(unit.state.backend.sizeBytes).toBe(2 * GIB);
    expect(logger.texts('warn')).toEqual(["the volume's size is served, not the backstore's"]);
  });

  it('of another block size is refused', async () => {
    await service.createVolume({ name: 'a', sizeBytes: GIB, logicalBlockSize: 4096 });
    const failure = await failureOf(() => volumes.resolve('pool/a', GIB, NEW));
    expect([failure.code, hintOf(failure)]).toEqual(['EINVAL', expect.stringContaining('hw_block_size=4096')]);
    await service.deleteVolume('a');
  });

  it('grows its volume, and does not make it smaller', async () => {
    await service.createVolume({ name: 'a', sizeBytes: GIB });
    await volumes.resize('pool/a', 2 * GIB);
    expect((await service.listVolumes())[0]!.sizeBytes).toBe(2 * GIB);
    expect((await failureOf(() => volumes.resize('pool/a', GIB))).code).toBe('EINVAL');
    await volumes.resize('pool/a', 2 * GIB);
  });

  it('of a pool that is not served here is refused before LIO makes it', async () => {
    const failure = await failureOf(() => volumes.check('other/a'));
    expect([failure.code, failure.message]).toEqual(['ENODEV', 'Cannot use "other/a": no pool "other" is served here']);
    await volumes.check('pool/whatever');
    expect(await service.listVolumes()).toEqual([]);
  });

  it.each(['pool/a b', 'pool/-a', `pool/${'x'.repeat(129)}`])(
    'with the name of no volume ("%s") is refused, too',
    async (text) => {
      const failure = await failureOf(() => volumes.check(text));
      expect([failure.code, failure.message]).toEqual([
        'EINVAL',
        expect.stringContaining('a name has letters, digits'),
      ]);
    },
  );

  it('on a volume that another one stands on is a second path to it; what LIO cannot do then is said', async () => {
    const first = await volumes.resolve('pool/a', MIB, { ...NEW, name: 'first' });
    await volumes.check('pool/a');
    expect(await volumes.resolve('pool/a', MIB, { ...NEW, name: 'second' })).toBe(first);
    expect(await service.listVolumes()).toMatchObject([{ name: 'a', backstores: ['first', 'second'] }]);
    volumes.release('pool/a', first, 'first');
    expect((await failureOf(() => service.deleteVolume('a'))).message).toContain('the backstore "second" of LIO');
    volumes.release('pool/a', first, 'second');
    await service.deleteVolume('a');
  });

  it('of a pool that takes no writes needs a volume that is there', async () => {
    await service.createVolume({ name: 'a', sizeBytes: GIB });
    await service.setOptions({ readOnly: true });
    await volumes.check('pool/a');
    const failure = await failureOf(() => volumes.check('pool/new'));
    expect([failure.code, failure.message]).toEqual([
      'EROFS',
      expect.stringContaining('the pool is in mode read-only'),
    ]);
  });

  it.each(['', 'pool', 'pool/', '/a', 'pool/a/b', '/'])('with the configuration "%s" is refused', (text) => {
    expect(() => parseVolumePath(text)).toThrow(/expected POOL\/VOLUME/);
  });

  it.each(['pool/a b', 'pool/ü', 'pool/-a'])('with the name of no volume ("%s") makes none', async (text) => {
    expect((await failureOf(() => volumes.resolve(text, MIB, NEW))).code).toBe('EINVAL');
    expect(await service.listVolumes()).toEqual([]);
  });
});
