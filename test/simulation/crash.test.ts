import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../support/seeded-random.ts';
import { CRASHES, type Crash, CrashExaminer } from './crash-examiner.ts';
import { play, round } from './operations.ts';
import { playAdministration, playScript } from './scripted-workload.ts';
import { SimulatedPool } from './simulated-pool.ts';

/** Crashes of random workloads examined in one run, nearly; with `THINLUN_CRASHES` in the environment, so many. */
const STATES = Number(process.env['THINLUN_CRASHES'] ?? 2000);
const WORKLOADS = 10;
const ROUNDS = 30;
const SCRIPT_STATES = Math.min(STATES, 600);

const { seed } = new SeededRandom();
const counts = new Map<string, number>();
const add = (key: string, count: number): unknown => counts.set(key, (counts.get(key) ?? 0) + count);

/** Plays on a recorded pool, and then lets `examine` crash it. */
async function crash(
  random: SeededRandom,
  workload: (simulated: SimulatedPool) => Promise<unknown>,
  examine: (examiner: CrashExaminer) => Promise<unknown>,
): Promise<void> {
  const simulated = await SimulatedPool.create({
    seed: random.seed,
    recorded: true,
    dataBlocks: random.pick([12, 24, 40]),
    metadataBlocks: random.pick([96, 160]),
    pool: { noSpaceTimeoutMs: 5000 },
  });
  try {
    await workload(simulated);
    simulated.expectKept();
    await simulated.close();
    const examiner = new CrashExaminer(simulated, random);
    await examine(examiner);
    for (const [kind, count] of examiner.counts) add(kind, count);
    for (const [kind, count] of Object.entries(simulated.counts)) add(kind, count);
    for (const [errno, count] of simulated.errors) add(errno, count);
  } finally {
    await simulated.dispose();
  }
}

/** About `wanted` crashes, spread over the moments at which something is in doubt. */
async function examineSome(examiner: CrashExaminer, random: SeededRandom, wanted: number): Promise<void> {
  const moments = examiner.positions(200);
  const step = Math.max(1, (moments.length * 2.5) / wanted);
  for (let at = random.below(Math.ceil(step)); at < moments.length; at += step) {
    const position = moments[Math.floor(at)]!;
    await examiner.examine(position, 'power: nothing');
    if (!examiner.isInDoubt(position)) continue;
    await examiner.examine(position, random.pick(['power: some blocks', 'power: some sectors']));
    await examiner.examine(position, random.pick(CRASHES));
  }
}

describe('a crash at any moment', () => {
  const workloads = Array.from({ length: WORKLOADS }, (_, i) => i);

  it.each(workloads)('leaves a pool that keeps its promises: random workload %i', { timeout: 240_000 }, (workload) => {
    const random = new SeededRandom(seed + workload);
    const rounds = async (simulated: SimulatedPool): Promise<void> => {
      for (const name of ['v0', 'v1']) {
        simulated.createVolume(name, 4 * simulated.blockSectors);
        await simulated.settle();
      }
      for (const operations of fc.sample(round, { seed: seed + workload, numRuns: ROUNDS })) {
        await play(simulated, operations);
        simulated.expectKept();
      }
    };
    return crash(random, rounds, (examiner) => examineSome(examiner, random, STATES / WORKLOADS));
  });

  it('leaves a pool that keeps its promises: a bit of everything', { timeout: 240_000 }, () => {
    const random = new SeededRandom(seed);
    return crash(random, playScript, (examiner) => examineSome(examiner, random, SCRIPT_STATES));
  });

  it('leaves catalogue and metadata in step, at every single moment of every administrative call', {
    timeout: 240_000,
  }, () => {
    const random = new SeededRandom(seed);
    return crash(random, playAdministration, async (examiner) => {
      const kinds: Crash[] = ['power: nothing', 'power: some blocks', 'kill'];
      for (let position = 0, i = 0; position <= examiner.end; position++, i++) {
        await examiner.examine(position, kinds[i % kinds.length]!);
      }
    });
  });

  it('was examined often enough', () => {
    const states = CRASHES.reduce((sum, kind) => sum + (counts.get(kind) ?? 0), 0);
    expect(states).toBeGreaterThan(STATES === 2000 ? 2000 : STATES / 2);
    for (const kind of ['snapshot', 'delete', 'resize', 'rollback', 'grow', 'UNMAP', 'COPY', 'ENOSPC', ...CRASHES]) {
      expect(counts.get(kind) ?? 0, kind).toBeGreaterThan(0);
    }
  });
});

afterAll(() => console.log(`THINLUN_SEED=${seed}:`, Object.fromEntries(counts)));
