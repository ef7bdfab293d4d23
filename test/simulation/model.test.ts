import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { expectThinCheck } from '../support/metadata-judges.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { TestDevice } from '../support/test-device.ts';
import { play, type Round, round } from './operations.ts';
import { SimulatedPool } from './simulated-pool.ts';

/** Operations of one run; with `THINLUN_OPERATIONS` in the environment, so many. */
const OPERATIONS = Number(process.env['THINLUN_OPERATIONS'] ?? 10_000);
/** How long a failing sequence is shrunk, at most. */
const SHRINK_MS = Number(process.env['THINLUN_SHRINK_MS'] ?? 60_000);
const ROUNDS = 40;
/** A round has so many operations, nearly. */
const OPERATIONS_A_ROUND = 3;

/** Requests by their names, calls by the first word that the history has for them. */
const EVERY_KIND: readonly string[] = [
  ...['READ', 'WRITE', 'WRITE_ZEROES', 'UNMAP', 'COPY', 'EXTENT', 'FLUSH'],
  ...[
    'create',
    'snapshot',
    'delete',
    'rename',
    'rollback',
    'resize',
    'set',
    'grow',
    'hold',
    'release',
    'commit',
    'trim',
  ],
  ...['create_thin', 'create_snap', 'set_transaction_id', 'close'],
];

const seed = new SeededRandom().seed;
const counts = new Map<string, number>();

interface World {
  seed: number;
  blockSizeBytes: number;
  dataBlocks: number;
  metadataBlocks: number;
  errorIfNoSpace: boolean;
}

const world: fc.Arbitrary<World> = fc.record({
  seed: fc.nat(),
  blockSizeBytes: fc.constantFrom(65536, 65536, 3 * 65536),
  dataBlocks: fc.constantFrom(16, 40, 64),
  metadataBlocks: fc.constantFrom(96, 200, 400),
  errorIfNoSpace: fc.boolean(),
});

let failedAtMs: number | null = null;

/** Once it has failed for long enough, nothing fails any more: the smallest sequence so far is what is printed. */
async function runUnlessTired(world: World, rounds: readonly Round[]): Promise<void> {
  if (failedAtMs !== null && performance.now() - failedAtMs > SHRINK_MS) return;
  try {
    await run(world, rounds);
  } catch (error) {
    failedAtMs ??= performance.now();
    throw error;
  }
}

async function run({ errorIfNoSpace, ...rest }: World, rounds: readonly Round[]): Promise<void> {
  const simulated = await SimulatedPool.create({ ...rest, discardFill: 0xdb, pool: { errorIfNoSpace } });
  try {
    let played = 2;
    for (const name of ['v0', 'v1']) {
      simulated.createVolume(name, 8 * simulated.blockSectors);
      await simulated.settle();
    }
    for (const [i, operations] of rounds.entries()) {
      played += await play(simulated, operations);
      simulated.expectKept();
      if (i % 2 === 1 || i === rounds.length - 1) await simulated.verify();
    }
    expect(simulated.pool.status().needsCheck).toBe(false);
    await simulated.close();
    if (rest.seed % 8 === 0) expectThinCheck(new TestDevice(simulated.metadataMemory.memory));
    counts.set('operations', (counts.get('operations') ?? 0) + played);
    for (const [kind, count] of Object.entries(simulated.counts)) counts.set(kind, (counts.get(kind) ?? 0) + count);
    for (const [errno, count] of simulated.errors) counts.set(errno, (counts.get(errno) ?? 0) + count);
  } finally {
    await simulated.dispose();
  }
}

describe('a pool beside its model', () => {
  it('rolls back to a volume that is being written: all that was submitted before is in, and nothing later', async () => {
    for (let seed = 0; seed < 5; seed++) {
      const simulated = await SimulatedPool.create({ seed });
      for (const name of ['from', 'to']) {
        simulated.createVolume(name, 4 * simulated.blockSectors);
        await simulated.settle();
        simulated.write(name, 0, 100);
        await simulated.settle();
      }
      for (let at = 0; at < 400; at += 40) simulated.write('from', at, at + 10);
      simulated.rollbackVolume('to', 'from');
      for (let at = 20; at < 400; at += 40) simulated.write('from', at, at + 10);
      await simulated.settle();
      await simulated.verify();
      await simulated.dispose();
    }
  });

  it('agrees with it after any sequence of operations, many of them at once', {
    timeout: OPERATIONS * 20 + 60_000,
  }, async () => {
    const rounds = fc.array(round, { minLength: 1, maxLength: 2 * ROUNDS, size: 'max' });
    const property = fc.asyncProperty(world, rounds, runUnlessTired);
    const numRuns = Math.ceil(OPERATIONS / ROUNDS / OPERATIONS_A_ROUND);
    await fc.assert(property, { seed, numRuns });
    expect(counts.get('operations')).toBeGreaterThan(OPERATIONS * 0.9);
    if (OPERATIONS >= 10_000) expect(EVERY_KIND.filter((kind) => !counts.has(kind))).toEqual([]);
  });
});

afterAll(() => console.log(`THINLUN_SEED=${seed}:`, Object.fromEntries(counts)));
