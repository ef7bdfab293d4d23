import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { AssertionError } from '../../src/base/assert.ts';
import { monotonicClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { MIB } from '../../src/base/units.ts';
import { hintOf } from '../../src/daemon/advised-error.ts';
import { Daemon } from '../../src/daemon/daemon.ts';
import { usePool } from '../../src/daemon/pool-access.ts';
import type { PoolService } from '../../src/daemon/pool-service.ts';
import { LunClient, pattern } from '../support/lun-client.ts';
import { atEnd, createPool, RecordingLogger } from './served-pool.ts';

const access = { makeLogger: async () => silentLogger, clock: monotonicClock };

async function start(dirs: readonly string[], port = 0): Promise<{ daemon: Daemon; logger: RecordingLogger }> {
  const logger = new RecordingLogger();
  const portals = [{ host: '127.0.0.1', port, tag: 1 }];
  const daemon = await Daemon.start({ dirs, portals, tcmu: false, logger, clock: monotonicClock });
  atEnd(() => daemon.stop());
  return { daemon, logger };
}

async function createServedPool(name: string): Promise<string> {
  const dir = await createPool(name);
  await usePool(dir, access, (pool) => pool.createVolume({ name: 'v', sizeBytes: MIB }));
  return dir;
}

/** From now on the pool's metadata breaks a promise of its own whenever it is asked. */
function spoil(service: PoolService): void {
  const { metadata } = service.pool as unknown as { metadata: { lookupRun: () => boolean } };
  metadata.lookupRun = () => {
    throw new AssertionError('spoiled');
  };
}

const clientOf = (service: PoolService): LunClient => new LunClient(service.exports!.target.unitAt(0)!.state.backend);

describe('a server', () => {
  it('whose pool breaks a promise of its own stops that pool and goes on with the others', async () => {
    const [good, bad] = [await createServedPool('good'), await createServedPool('bad')];
    const { daemon, logger } = await start([good, bad]);
    const [goodService, badService] = daemon.services;
    const badTarget = badService!.exports!.target;
    await clientOf(badService!).write(0, pattern(4096, 1));
    await badService!.commit();
    spoil(badService!);
    await expect(clientOf(badService!).read(0, 4096)).rejects.toThrow('EIO');
    await vi.waitFor(() => expect(logger.texts('error').at(-1)).toMatch(/^the failed pool is closed: /));

    expect(daemon.failures).toMatchObject([{ dir: bad, error: { message: expect.stringMatching(/spoiled/) } }]);
    expect(logger.texts('error')).toContain('the pool failed and is not served any more; the others are');
    expect(badTarget.allLuns).toEqual([]);
    expect((await daemon.ready()).pools.map(({ name }) => name)).toEqual(['good']);
    await clientOf(goodService!).write(0, pattern(4096, 2));
    expect(await clientOf(goodService!).read(0, 4096)).toEqual(pattern(4096, 2));
    expect(await usePool(good, access, (pool) => pool.listVolumes())).toHaveLength(1);

    // The pool itself is as at its last commit, and free.
    const again = await start([bad]);
    expect(await clientOf(again.daemon.services[0]!).read(0, 4096)).toEqual(pattern(4096, 1));
  });

  it('says so when the last of its pools has failed', async () => {
    const { daemon } = await start([await createServedPool('only')]);
    const [service] = daemon.services;
    spoil(service!);
    await expect(clientOf(service!).read(0, 4096)).rejects.toThrow('EIO');
    await daemon.allFailed;
    expect(daemon.services).toEqual([]);
    await daemon.stop();
  });

  it('that cannot start leaves nothing behind', async () => {
    const dir = await createServedPool('pool');
    const other = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => other.once('listening', resolve));
    atEnd(() => other.close());
    const { port } = other.address() as { port: number };
    const failure = await start([dir], port).then(
      () => null,
      (error: Error) => error,
    );
    expect(failure?.message).toBe(`Cannot listen on 127.0.0.1:${port}: another program listens there`);
    expect(hintOf(failure)).toMatch(/Choose another port with --portal/);
    expect(existsSync(join(dir, 'control.sock'))).toBe(false);
    await start([dir]);
  });

  it('that ends before a command could ask it for anything leaves the work to the command', async () => {
    const dir = await createServedPool('pool');
    const { daemon } = await start([dir]);
    const tried: string[] = [];
    const volumes = await usePool(dir, access, async (pool) => {
      tried.push(pool.constructor.name);
      await daemon.stop();
      return pool.listVolumes();
    });
    expect(volumes.map(({ name }) => name)).toEqual(['v']);
    expect(tried).toEqual(['ControlClient', 'PoolService']);
  });

  it('that ends after it has answered a command once ends that command', async () => {
    const dir = await createServedPool('pool');
    const { daemon } = await start([dir]);
    const ended = usePool(dir, access, async (pool) => {
      await pool.commit();
      await daemon.stop();
      return pool.listVolumes();
    });
    await expect(ended).rejects.toThrow(/^Cannot reach the server of pool /);
  });

  it('can be asked to stop any number of times', async () => {
    const { daemon } = await start([await createServedPool('pool')]);
    await Promise.all([daemon.stop(), daemon.stop()]);
    await daemon.stop();
    expect(daemon.failures).toEqual([]);
  });
});
