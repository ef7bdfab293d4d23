import { describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { Pending } from '../scsi/support/initiator.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';
import { createPool, openServed, RecordingLogger, send, TEST_UNIT_READY } from './served-pool.ts';

type Served = Awaited<ReturnType<typeof openServed>>;

/** An initiator that has seen everything there was to see. */
async function logIn({ exports }: Served, lun = 0): Promise<(cdb: readonly number[], length?: number) => Sent> {
  const nexus = new Nexus('iqn.y:host,i,0x1', 'iqn.x:pool,t,0x1', 1);
  exports.target.attach(nexus);
  while ((await send(exports.target, lun, nexus, TEST_UNIT_READY)).sense.startsWith('6')) {}
  return (cdb, length = 0) => send(exports.target, lun, nexus, cdb, length);
}

type Sent = ReturnType<typeof send>;

const dataOf = ({ exports }: Served, lun = 0): LunClient => new LunClient(exports.target.unitAt(lun)!.state.backend);

describe('what a logical unit keeps', () => {
  it('is there after a restart: saved mode parameters, also when the volume was renamed or rolled back; snapshots begin anew', async () => {
    const dir = await createPool();
    const first = await openServed(dir);
    await first.service.createVolume({ name: 'a', sizeBytes: MIB });
    const { modes } = first.exports.target.unitAt(0)!.state;
    const caching = modes.pages.find(({ code }) => code === 0x08)!;
    const bytes = new Uint8Array(caching.length);
    await first.service.pool.keepUnit(first.service.pool.volume('a').serial, {
      modePages: modes.savedWith(new Map([[caching, bytes]])),
      operation: null,
    });
    await first.service.createSnapshots({ snapshots: [{ origin: 'a', name: 's' }] });
    await first.service.rollbackVolume('a', { snapshot: 's', force: true });
    await first.service.renameVolume('a', { name: 'b' });
    await first.service.close();

    const second = await openServed(dir);
    const caches = [0, 1].map((lun) => second.exports.target.unitAt(lun)!.state.writeCache);
    expect(caches).toEqual([false, true]);
    await expect(second.service.pool.keepUnit('absent', { modePages: {}, operation: null })).rejects.toThrow(
      /no volume with the serial number/,
    );
  });

  it('makes SANITIZE go on after a restart, to its end', async () => {
    const dir = await createPool();
    const first = await openServed(dir);
    await first.service.createVolume({ name: 'a', sizeBytes: 8 * MIB });
    await dataOf(first).write(0, pattern(4 * MIB, 1));
    const run = await logIn(first);
    // The pool is closed as soon as the command is answered.
    expect((await run([0x48, 0x82, 0, 0, 0, 0, 0, 0, 0, 0])).sense).toBe('');
    expect(first.service.pool.volume('a').unit?.operation).toMatchObject({ command: 'sanitize', failed: false });
    await first.service.close();

    const second = await openServed(dir);
    const again = await logIn(second);
    let sense = '2/04/1b';
    while (sense === '2/04/1b') {
      await new Promise((done) => setTimeout(done, 5));
      sense = (await again(TEST_UNIT_READY)).sense;
    }
    expect(sense).toBe('');
    expectBytes(await dataOf(second).read(0, 8 * MIB), new Uint8Array(8 * MIB));
    expect(second.service.pool.volume('a')).toMatchObject({ mappedBytes: 0, unit: { operation: null } });
  });

  it('lets the pool be closed while everything is being overwritten, and overwrites it afterwards', async () => {
    const dir = await createPool();
    const logger = new RecordingLogger();
    const first = await openServed(dir, logger);
    await first.service.createVolume({ name: 'a', sizeBytes: 16 * MIB });
    const { target } = first.exports;
    const pending = new Pending(new Nexus('iqn.y:host,i,0x1', 'iqn.x:pool,t,0x1', 1));
    target.attach(pending.task.nexus);
    const unit = target.unitAt(0)!;
    while (!unit.state.nexuses.get(pending.task.nexus)!.attentions.isEmpty) {
      unit.state.nexuses.get(pending.task.nexus)!.attentions.take();
    }
    await new Promise<void>((done) => {
      pending.onDone = done;
      pending.start(unit, [0x48, 0x81, 0, 0, 0, 0, 0, 0, 5, 0], Uint8Array.from([1, 0, 0, 1, 0x5a]), 0);
    });
    expect(pending.result().status).toBe(0);
    await new Promise((done) => setTimeout(done, 20));
    await first.service.close();
    await new Promise((done) => setTimeout(done, 50));
    expect(logger.texts('error')).toEqual([]);

    const second = await openServed(dir);
    const state = second.exports.target.unitAt(0)!.state;
    while (state.operation !== null) await new Promise((done) => setTimeout(done, 5));
    expectBytes(await dataOf(second).read(0, 16 * MIB), new Uint8Array(16 * MIB).fill(0x5a));
  });

  it('tells initiators when the space of the pool comes to its low-water mark', async () => {
    const served = await openServed(await createPool());
    await served.service.createVolume({ name: 'a', sizeBytes: 64 * MIB });
    const run = await logIn(served);
    const log = async (): Promise<Buffer> => Buffer.from((await run([0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 28, 0], 28)).data);
    const before = await log();
    await dataOf(served).write(0, pattern(8 * MIB, 1));
    const after = await log();
    expect([before.readUInt32BE(8) - after.readUInt32BE(8), after.readUInt32BE(20)]).toEqual([8, 8]);
    const free = after.readUInt32BE(8);
    await served.service.setOptions({ lowWaterBytes: (free - 4) * MIB });
    expect((await run(TEST_UNIT_READY)).sense).toBe('');
    await dataOf(served).write(8 * MIB, pattern(4 * MIB, 1));
    expect((await run(TEST_UNIT_READY)).sense).toBe('6/38/07');
    expect((await run(TEST_UNIT_READY)).sense).toBe('');
  });
});
