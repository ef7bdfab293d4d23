import { describe, expect, it } from 'vitest';
import { type DiffNodes, DiffStep, MappingDiff } from '../../src/thin/mapping-diff.ts';
import { PoolReader } from '../../src/tools/pool-reader.ts';
import { RANDOM_POOL_BLOCKS, randomPool } from '../support/random-pool.ts';
import { SeededRandom } from '../support/seeded-random.ts';

type Mappings = Map<number, { dataBlock: number }>;

/** What `MappingDiff` is to find, in the form of `found`. */
function expected(left: Mappings, right: Mappings, begin: number, same: boolean): string[] {
  const lines: string[] = [];
  for (let key = begin; key < RANDOM_POOL_BLOCKS; key++) {
    const a = left.get(key)?.dataBlock;
    const b = right.get(key)?.dataBlock;
    if (a === b && (a === undefined || !same)) continue;
    const kind = a === b ? 'same' : a === undefined ? 'rightOnly' : b === undefined ? 'leftOnly' : 'different';
    lines.push(`${kind} ${key} ${a} ${b}`);
  }
  return lines;
}

function found(diff: MappingDiff, onWait: () => void = () => {}): string[] {
  const lines: string[] = [];
  for (let step = diff.next(); step !== DiffStep.end; step = diff.next()) {
    const { key, leftBlock, rightBlock } = diff;
    if (step === DiffStep.wait) onWait();
    else if (step === DiffStep.leftOnly) lines.push(`leftOnly ${key} ${leftBlock} undefined`);
    else if (step === DiffStep.rightOnly) lines.push(`rightOnly ${key} undefined ${rightBlock}`);
    else lines.push(`${step === DiffStep.same ? 'same' : 'different'} ${key} ${leftBlock} ${rightBlock}`);
  }
  return lines;
}

describe('the difference of two mapping trees', () => {
  it.each(Array.from({ length: 12 }, (_, i) => i))(
    'is what differs, from anywhere on, with and without what is the same (%i)',
    (i) => {
      const { device, model, random } = randomPool(4 + 4 * i);
      const pool = new PoolReader(device);
      const { contents } = model;
      for (const { id: leftId, root: leftRoot } of pool.devices) {
        for (const { id: rightId, root: rightRoot } of pool.devices) {
          const left = contents.get(leftId)!.mappings;
          const right = contents.get(rightId)!.mappings;
          for (const same of [false, true]) {
            const begin = random.below(2) * random.below(RANDOM_POOL_BLOCKS);
            const diff = new MappingDiff(pool, leftRoot, rightRoot, { begin, same });
            expect(found(diff), `seed ${random.seed}`).toEqual(expected(left, right, begin, same));
          }
        }
      }
    },
  );

  it('waits for nodes that are not there, and goes on where it was', () => {
    const { device, model } = randomPool(25, new SeededRandom(7));
    const pool = new PoolReader(device);
    const [first, second] = [pool.devices[0]!, pool.devices.at(-1)!];
    const there = new Set<number>();
    let missed = 0;
    let wanted = -1;
    const nodes: DiffNodes = {
      read: (number, words) => {
        if (there.has(number)) return pool.read(number, words);
        wanted = number;
        missed++;
        return false;
      },
    };
    const lines = found(new MappingDiff(nodes, first.root, second.root), () => there.add(wanted));
    const { contents } = model;
    expect(lines).toEqual(expected(contents.get(first.id)!.mappings, contents.get(second.id)!.mappings, 0, false));
    expect(missed).toBe(there.size);
  });

  it('costs what differs, and not what there is', () => {
    const { device, model } = randomPool(0, new SeededRandom(1));
    model.write(1, 0, RANDOM_POOL_BLOCKS);
    model.snapshot(2, 1);
    model.write(1, 1500, 1501);
    model.commit();
    const pool = new PoolReader(device);
    const before = pool.reader.readCount;
    const diff = new MappingDiff(pool, pool.device(2).root, pool.device(1).root);
    expect(found(diff)).toHaveLength(1);
    // Both roots twice (for the height once), the leaf of each, and the first leaf of each for the height.
    expect(pool.reader.readCount - before).toBeLessThanOrEqual(8);
    expect(found(new MappingDiff(pool, pool.device(1).root, pool.device(1).root))).toEqual([]);
  });

  it('refuses a tree whose keys do not ascend, or whose leaves are not on one level', () => {
    const { device, model } = randomPool(0, new SeededRandom(1));
    model.write(1, 0, RANDOM_POOL_BLOCKS);
    model.create(2);
    model.commit();
    const pool = new PoolReader(device);
    const { root } = pool.device(1);
    const empty = pool.device(2).root;
    const twisted = (twist: (words: Uint32Array, child: number) => void): DiffNodes => ({
      read: (number, words) => {
        pool.read(number, words);
        if (number === root) twist(words, 3);
        return true;
      },
    });
    const children = 8 + 2 * 252;
    const again = twisted((words, child) => words.copyWithin(children + 2 * child, children, children + 2));
    expect(() => found(new MappingDiff(again, root, empty))).toThrow(/key 0 comes after/);
    const looped = twisted((words, child) => words.fill(root, children + 2 * child, children + 2 * child + 1));
    expect(() => found(new MappingDiff(looped, root, empty))).toThrow('its leaves are not on one level');
  });
});
