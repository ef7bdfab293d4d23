import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { contentsOf, expectClean, expectThinCheck, thinDump } from '../support/metadata-judges.ts';
import { PoolModel } from '../support/pool-model.ts';
import { TestDevice } from '../support/test-device.ts';

const BLOCK_SIZE = 65536;
const VIRTUAL_BLOCKS = 3000;
const DATA_BLOCKS = 40_000;

type Step =
  | { op: 'create' | 'delete'; id: number }
  | { op: 'snapshot'; id: number; origin: number }
  | { op: 'write' | 'remove'; id: number; begin: number; length: number; atATime: number }
  | { op: 'commit' | 'abort' | 'reopen' };

const id = fc.nat(5);
const range = {
  id,
  begin: fc.nat(VIRTUAL_BLOCKS - 1),
  length: fc.oneof({ weight: 3, arbitrary: fc.integer({ min: 1, max: 20 }) }, fc.integer({ min: 1, max: 1500 })),
  atATime: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.constant(100_000)),
};
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 2, arbitrary: fc.record({ op: fc.constant('create' as const), id }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('delete' as const), id }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('snapshot' as const), id, origin: id }) },
  { weight: 12, arbitrary: fc.record({ op: fc.constant('write' as const), ...range }) },
  { weight: 5, arbitrary: fc.record({ op: fc.constant('remove' as const), ...range }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constantFrom('commit' as const, 'abort' as const, 'reopen' as const) }) },
);

function apply(model: PoolModel, change: Step): void {
  if (change.op === 'create') {
    if (!model.has(change.id)) model.create(change.id);
  } else if (change.op === 'delete') {
    if (model.has(change.id)) model.delete(change.id);
  } else if (change.op === 'snapshot') {
    if (model.has(change.origin) && !model.has(change.id)) model.snapshot(change.id, change.origin);
  } else if (change.op === 'write' || change.op === 'remove') {
    if (!model.has(change.id)) return;
    const end = Math.min(change.begin + change.length, VIRTUAL_BLOCKS);
    if (change.op === 'write') model.write(change.id, change.begin, end);
    else model.remove(change.id, change.begin, end, change.atATime);
  } else if (change.op === 'abort') {
    model.abort();
  } else {
    model.commit();
  }
}

describe('PoolMetadata beside a model', () => {
  it('agrees after any sequence of changes, snapshots, commits and aborts', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 5, maxLength: 60 }), (steps) => {
        const device = new TestDevice(16 << 20);
        let pool = PoolMetadata.format(device, {
          dataBlockSizeBytes: BLOCK_SIZE,
          dataBlockCount: DATA_BLOCKS,
          cacheBlocks: 128,
        });
        const model = new PoolModel(pool);
        for (const change of steps) {
          apply(model, change);
          if (change.op === 'commit' || change.op === 'reopen' || change.op === 'abort') {
            expectClean(device);
            expect(contentsOf(device).devices).toEqual(model.contents);
            model.expectLookups(VIRTUAL_BLOCKS);
          }
          if (change.op === 'reopen') {
            pool.close();
            pool = PoolMetadata.open(device, { cacheBlocks: 128 });
            model.pool = pool;
          }
          expect(pool.freeDataBlocks).toBe(DATA_BLOCKS - model.usedDataBlocks);
        }
        model.commit();
        expectClean(device);
        expect(contentsOf(device).devices).toEqual(model.contents);
        model.expectLookups(VIRTUAL_BLOCKS);
        expectThinCheck(device);
        expect(thinDump(device)).toEqual(contentsOf(device));
      }),
      { numRuns: 30 },
    );
  });
});
