import { afterAll, describe, expect, it } from 'vitest';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import type { PoolMode } from '../../src/thin/pool-mode.ts';
import { checkMetadata } from '../../src/tools/check.ts';
import { describeDamage } from '../../src/tools/damage.ts';
import { FaultyDevice, type FaultyOperation } from '../support/faulty-device.ts';
import { playScript } from './scripted-workload.ts';
import { SimulatedPool } from './simulated-pool.ts';
import { findWrongSectors } from './verify-pool.ts';

/** With `THINLUN_FAULTS=1` in the environment every single one; otherwise some of those that are many. */
const ALL = process.env['THINLUN_FAULTS'] !== undefined;

type File = 'metadata' | 'data';

interface Fault {
  file: File;
  operation: FaultyOperation;
  /** All that come after it fail as well. */
  lasting: boolean;
}

/** What the documentation says that the pool is in after a fault that hit. */
function documentedModes({ file, operation, lasting }: Fault): readonly PoolMode[] {
  const working: PoolMode[] = ['write', 'out-of-data-space'];
  if (file === 'data') return operation === 'flush' ? [...working, 'read-only'] : working;
  if (operation === 'read') return lasting ? [...working, 'read-only', 'fail'] : [...working, 'read-only'];
  return lasting ? ['fail'] : ['read-only'];
}

const modes = new Map<string, number>();
let runs = 0;

/** Plays the script with a fault at the `nth` operation. False when there were not so many. */
async function run(fault: Fault, nth: number): Promise<boolean> {
  const devices: FaultyDevice[] = [];
  const wrap = (device: ConstructorParameters<typeof FaultyDevice>[0]): FaultyDevice => {
    devices.push(new FaultyDevice(device));
    return devices.at(-1)!;
  };
  const simulated = await SimulatedPool.create({
    seed: 1,
    dataBlocks: 20,
    metadataBlocks: 128,
    anyError: true,
    pool: { noSpaceTimeoutMs: 5000 },
    wrapMetadata: wrap,
    wrapData: wrap,
  });
  const faulty = devices[fault.file === 'metadata' ? 0 : 1]!;
  try {
    faulty.failNth(fault.operation, nth, 'EIO', { times: fault.lasting ? Infinity : 1 });
    try {
      await playScript(simulated);
    } catch (error) {
      // Only opening may throw.
      if (simulated.isOpen) throw error;
    }
    if (faulty.failures === 0) return false;
    runs++;
    const { history } = simulated;
    const where = `${nth}. ${fault.operation} of ${fault.file}${fault.lasting ? ' and all later ones' : ''}`;
    try {
      if (simulated.isOpen) judge(simulated, fault);
      faulty.heal();
      await expectRecovery(simulated);
    } catch (error) {
      throw new Error(`${where}: ${(error as Error).message}\n${history.join('\n')}`, { cause: error });
    }
    return true;
  } finally {
    faulty.heal();
    await simulated.dispose();
  }
}

/** The fault has brought the pool into a mode that is documented, and every command was answered. */
function judge(simulated: SimulatedPool, fault: Fault): void {
  const { mode, needsCheck } = simulated.pool.status();
  // Opened again after the fault, a pool that had failed is read-only.
  const hit = simulated.modes.find((told) => told === 'read-only' || told === 'fail') ?? mode;
  const key = `${fault.file} ${fault.operation}: ${hit}`;
  modes.set(key, (modes.get(key) ?? 0) + 1);
  expect(documentedModes(fault)).toContain(hit);
  expect(needsCheck).toBe(mode === 'read-only');
  simulated.expectKept();
}

/** With devices that work again: what was flushed is there, and after a check the pool can be used again. */
async function expectRecovery(simulated: SimulatedPool): Promise<void> {
  const flushErrors = new Set<string>();
  if (simulated.isOpen && simulated.pool.mode === 'read-only') {
    for (const name of simulated.names) {
      const flushed = simulated.flush(name);
      await simulated.settle();
      if ((await flushed) !== null) flushErrors.add(name);
    }
    for (const name of simulated.names) {
      expectNoSilentLoss(
        simulated,
        name,
        await simulated.contents(name),
        flushErrors.has(name) || simulated.flushErrors.has(name),
      );
    }
  }
  if (simulated.isOpen) await simulated.close({ mayFail: true });
  const damage: string[] = [];
  checkMetadata(simulated.metadataMemory, (found) => damage.push(describeDamage(found)));
  expect(damage).toEqual([]);
  clearNeedsCheck(simulated);
  await simulated.open();
  expect(simulated.pool.mode).not.toBe('read-only');
  simulated.expectation.doubt();
  for (const name of simulated.names) {
    const volume = simulated.expectation.volume(name);
    const contents = await simulated.contents(name);
    expect(
      findWrongSectors(contents, 0, (sector) => volume.afterCrash(sector)).map((line) => `${name}: ${line}`),
    ).toEqual([]);
    simulated.write(name, 0, 1);
    await simulated.settle();
  }
  await simulated.verify();
}

function expectNoSilentLoss(simulated: SimulatedPool, name: string, contents: Uint8Array, wasTold: boolean): void {
  const volume = simulated.expectation.volume(name);
  let isLost = false;
  const seen = (sector: number, value: number): void => {
    isLost ||= volume.isLost(sector, value);
  };
  const wrong = findWrongSectors(contents, 0, (sector) => volume.present(sector), seen);
  expect(wrong.map((line) => `${name}: ${line}`)).toEqual([]);
  expect(isLost && !wasTold, `${name} lost a write, and no flush said so`).toBe(false);
}

function clearNeedsCheck(simulated: SimulatedPool): void {
  const metadata = PoolMetadata.open(simulated.metadataMemory);
  if (metadata.needsCheck) metadata.clearNeedsCheck();
  metadata.close();
}

const faults: Fault[] = [];
for (const lasting of [false, true]) {
  for (const operation of ['read', 'write', 'flush'] as const) faults.push({ file: 'metadata', operation, lasting });
  for (const operation of ['read', 'write', 'flush', 'discard', 'writeZeroes'] as const) {
    faults.push({ file: 'data', operation, lasting });
  }
}

describe('a fault of a device', () => {
  it.each(faults)(
    'of the $file, whichever $operation it is (lasting: $lasting), leaves the pool in the mode that is documented and loses nothing that was flushed',
    { timeout: 120_000 },
    async (fault) => {
      let nth = 1;
      while (await run(fault, nth)) nth += ALL || !fault.lasting ? 1 : 4;
      expect(nth).toBeGreaterThan(fault.operation === 'discard' || fault.operation === 'writeZeroes' ? 3 : 8);
    },
  );
});

afterAll(() => console.log(`${runs} faults:`, Object.fromEntries(modes)));
