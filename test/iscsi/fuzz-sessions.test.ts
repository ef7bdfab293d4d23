import { afterEach, describe, expect, it } from 'vitest';
import { KIB } from '../../src/base/units.ts';
import type { PortalLimits } from '../../src/iscsi/limits.ts';
import { Target } from '../../src/scsi/target.ts';
import { INITIATOR_NAME } from '../support/iscsi-initiator.ts';
import { makeUnit, startPortal, type TestPortal, until } from '../support/iscsi-portal.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import {
  BLOCK,
  ContentModel,
  type FuzzedTarget,
  SCRATCH_BLOCKS,
  SessionFuzzer,
  TRACKED_BLOCKS,
} from '../support/session-fuzzer.ts';
import { SlowLun } from '../support/slow-lun.ts';

/** Inputs (PDUs) of one run; `THINLUN_SEED` makes a run again. */
const INPUTS = Number(process.env['THINLUN_FUZZ_INPUTS'] ?? 15_000);
const LANES = 6;

/** So little memory that commands wait for it, stop the input or are refused. */
const LITTLE_MEMORY: Partial<PortalLimits> = {
  slabBytes: 256 * KIB,
  slabBytesPerConnection: 64 * KIB,
  maxBurstLength: 16 * KIB,
  firstBurstLength: 8 * KIB,
};

const random = new SeededRandom();
let world: TestPortal;
let luns: SlowLun[];
let made: number;

afterEach(async () => {
  await world.close();
});

/** A target of its own with a disk of zeroes. */
function makeTarget(lane: number): FuzzedTarget {
  const name = `iqn.2026-01.org.thinlun:lane-${lane}`;
  const target = new Target(name);
  const lun = new SlowLun((TRACKED_BLOCKS + SCRATCH_BLOCKS) * BLOCK, random);
  luns.push(lun);
  target.setLun(0, makeUnit(lun, ++made % 200));
  world.targets.set(name, target);
  return { port: world.port, target: name, initiator: `${INITIATOR_NAME}.${lane}`, model: new ContentModel() };
}

describe('sessions that go wrong', () => {
  it.each<[string, number, Partial<PortalLimits>]>([
    ['', INPUTS, {}],
    [' with little memory', INPUTS / 4, LITTLE_MEMORY],
  ])(
    `lose nothing that was acknowledged, leave nothing behind and stop nobody%s: %d (seed ${random.seed})`,
    { timeout: 1_000_000 },
    async (_name, wanted, limits) => {
      world = await startPortal({
        limits: { connections: 200, loginsInProgress: 100, loginsPerAddress: 100, ...limits },
      });
      luns = [];
      made = 0;
      let inputs = 0;
      const ends = { clean: 0, cut: 0, damaged: 0, wild: 0 };
      const lane = async (number: number): Promise<void> => {
        let target = makeTarget(number);
        while (inputs < wanted) {
          const session = new SessionFuzzer(random, target);
          // The session before may still have tasks in the engine: this one takes its place when they are done.
          expect(await session.logIn(1 + random.below(3))).toBe(true);
          await session.verify();
          for (let bursts = random.below(6); bursts > 0; bursts--) await session.clean();
          const end = random.below(5);
          if (end === 0) ends.clean++;
          else if (end < 3) {
            ends.cut++;
            await session.cut();
          } else {
            ends.damaged++;
            await session.damaged();
          }
          await session.end();
          inputs += session.inputs;
          if (session.wild) {
            // Anything may have been written: another disk.
            ends.wild++;
            await until(
              () => world.portal.sessions().every((each) => each.target !== target.target),
              'the session ends',
            );
            target = makeTarget(number);
          }
        }
      };
      await Promise.all(Array.from({ length: LANES }, (_, number) => lane(number)));
      for (const [kind, count] of Object.entries(ends)) expect(count, kind).toBeGreaterThan(wanted / 10_000);
      await until(() => world.portal.connectionCount === 0, 'all connections end');
      expect(world.portal.sessions()).toEqual([]);
      expect(world.portal.memoryUsedBytes).toBe(0);
      expect(luns.map(({ pending }) => pending)).toEqual(luns.map(() => 0));
    },
  );
});
