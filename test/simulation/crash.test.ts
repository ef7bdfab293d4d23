import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../support/seeded-random.ts';
import { CRASHES, CrashExaminer } from './crash-examiner.ts';
import { play, round } from './operations.ts';
import { SimulatedPool } from './simulated-pool.ts';

/** Crashes examined in one run, at least; with `THINLUN_CRASHES` in the environment, so many. */
const STATES = Number(process.env['THINLUN_CRASHES'] ?? 3000);
const WORKLOADS = 12;
const ROUNDS = 30;

const { seed } = new SeededRandom();
const counts = new Map<string, number>();
const add = (key: string, count: number): unknown => counts.set(key, (counts.get(key) ?? 0) + count);

/** Plays random operations on a recorded pool, and then crashes it at random moments, whatever the seed says. */
async function crash(workload: number): Promise<void> {
  const random = new SeededRandom(seed + workload);
  const simulated = await SimulatedPool.create({
    seed: seed + workload,
    recorded: true,
    dataBlocks: random.pick([12, 24, 40]),
    metadataBlocks: random.pick([96, 160]),
  });
  try {
    for (const name of ['v0', 'v1']) {
      simulated.createVolume(name, 4 * simulated.blockSectors);
      await simulated.settle();
    }
    for (const operations of fc.sample(round, { seed: seed + workload, numRuns: ROUNDS })) {
      await play(simulated, operations);
      simulated.expectKept();
    }
    await simulated.close();
    const examiner = new CrashExaminer(simulated, random);
    const wanted = STATES / WORKLOADS;
    const moments = examiner.positions(200);
    // As many as are wanted, spread over all of them.
    const step = Math.max(1, (moments.length * 3) / wanted);
    for (let at = random.below(Math.ceil(step)); at < moments.length; at += step) {
      const position = moments[Math.floor(at)]!;
      await examiner.examine(position, 'power: nothing');
      if (!examiner.isInDoubt(position)) continue;
      await examiner.examine(position, random.pick(['power: some blocks', 'power: some sectors']));
      await examiner.examine(position, random.pick(CRASHES));
    }
    for (const [kind, count] of examiner.counts) add(kind, count);
    for (const [kind, count] of Object.entries(simulated.counts)) add(kind, count);
    for (const [errno, count] of simulated.errors) add(errno, count);
    add('moments', moments.length);
  } finally {
    await simulated.dispose();
  }
}

describe('a crash at any moment', () => {
  const workloads = Array.from({ length: WORKLOADS }, (_, i) => i);
  it.each(workloads)('leaves a pool that keeps its promises: workload %i', { timeout: 120_000 }, crash);

  it('was examined often enough', () => {
    const states = CRASHES.reduce((sum, kind) => sum + (counts.get(kind) ?? 0), 0);
    expect(states).toBeGreaterThan(STATES * 0.7);
    for (const kind of ['snapshot', 'delete', 'resize', 'rollback', 'UNMAP', 'ENOSPC', ...CRASHES]) {
      expect(counts.get(kind) ?? 0, kind).toBeGreaterThan(STATES / 500);
    }
  });
});

afterAll(() => console.log(`THINLUN_SEED=${seed}:`, Object.fromEntries(counts)));
