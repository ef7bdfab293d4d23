import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { PoolModel } from './pool-model.ts';
import { SeededRandom } from './seeded-random.ts';
import { TestDevice } from './test-device.ts';

export const RANDOM_POOL_BLOCKS = 3000;

/** Metadata with a few devices that share a lot, committed, beside the model of what is in it. */
export function randomPool(
  steps: number,
  random: SeededRandom = new SeededRandom(),
): { device: TestDevice; model: PoolModel; random: SeededRandom } {
  const device = new TestDevice(16 << 20);
  const pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 60_000, cacheBlocks: 256 });
  const model = new PoolModel(pool);
  model.create(1);
  model.write(1, 0, 1 + random.below(RANDOM_POOL_BLOCKS));
  for (let step = 0; step < steps; step++) {
    const { ids } = model;
    const id = ids[random.below(ids.length)]!;
    const begin = random.below(RANDOM_POOL_BLOCKS);
    const end = Math.min(RANDOM_POOL_BLOCKS, begin + 1 + random.below(random.below(4) === 0 ? 1200 : 10));
    const kind = random.below(10);
    if (kind < 3 && ids.length < 7) model.snapshot(1 + Math.max(...ids), id);
    else if (kind < 7) model.write(id, begin, end);
    else if (kind < 9) model.remove(id, begin, end, 1 + random.below(3000));
    else if (ids.length > 2) model.delete(id);
  }
  model.commit();
  return { device, model, random };
}
