import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dataBlockAt, timeAt } from '../../src/thin/block-time.ts';
import { RecentMappings } from '../../src/thin/recent-mappings.ts';

/** `[data block, time]`, or null. */
function found(recent: RecentMappings, owner: number, key: number): [number, number] | null {
  const at = recent.find(owner, key);
  return at < 0 ? null : [dataBlockAt(recent.words, at), timeAt(recent.words, at)];
}

/** Also such as meet in one place, differ in their upper bits only, or are too large to be remembered. */
const keys = fc.oneof(
  fc.nat(40),
  fc.nat(2 ** 32 - 1),
  fc.nat(40).map((key) => key + 2 ** 31),
  fc.nat(40).map((key) => key + 2 ** 32),
);
const owners = fc.oneof(fc.integer({ min: 1, max: 3 }), fc.constant(2 ** 32 - 1));
const blocks = fc.nat(2 ** 31 - 1).map((block) => block * 500);

describe('recent mappings', () => {
  it('are what was added last for a device and a block, or not known; and not known when they were forgotten', () => {
    const changes = fc.array(
      fc.record({ owner: owners, key: keys, value: fc.option(fc.tuple(blocks, fc.nat(2 ** 24 - 1)), { freq: 4 }) }),
      { maxLength: 200 },
    );
    fc.assert(
      fc.property(changes, (list) => {
        const recent = new RecentMappings();
        const model = new Map<string, [number, number]>();
        for (const { owner, key, value } of list) {
          const name = `${owner} ${key}`;
          const before = found(recent, owner, key);
          if (before !== null) expect(before).toEqual(model.get(name));
          if (value === null) {
            recent.forget(owner, key);
            model.delete(name);
            expect(recent.find(owner, key)).toBe(-1);
          } else {
            recent.add(owner, key, ...value);
            model.set(name, value);
            expect(found(recent, owner, key)).toEqual(key < 2 ** 32 ? value : null);
          }
        }
      }),
      { numRuns: 20 },
    );
  });

  it('remember the blocks of a working set, in a row or far apart, and of several devices', () => {
    for (const stride of [1, 16, 1220, 65_536, 131_072]) {
      const recent = new RecentMappings();
      const first = recent.newOwner();
      const second = recent.newOwner();
      for (let i = 0; i < 32_768; i++) for (const owner of [first, second]) recent.add(owner, i * stride, i + owner, 0);
      let known = 0;
      let wrong = 0;
      for (let i = 0; i < 32_768; i++) {
        for (const owner of [first, second]) {
          const at = recent.find(owner, i * stride);
          if (at >= 0) known++;
          if (at >= 0 && dataBlockAt(recent.words, at) !== i + owner) wrong++;
        }
      }
      expect(wrong).toBe(0);
      expect(known, `stride ${stride}`).toBeGreaterThan(0.98 * 65_536);
    }
  });

  it('are those of a whole row of blocks, of as many as there are entries', () => {
    const recent = new RecentMappings();
    const owner = recent.newOwner();
    for (let key = 1000; key < 1000 + 262_144; key++) recent.add(owner, key, key, 0);
    let known = 0;
    for (let key = 1000; key < 1000 + 262_144; key++) if (recent.find(owner, key) >= 0) known++;
    // One row ends in it and another one begins, which is laid out as chance has it.
    expect(known).toBeGreaterThan(0.99 * 262_144);
  });

  it('are all forgotten when there are no more numbers for devices', () => {
    const recent = new RecentMappings(2 ** 32 - 2);
    const last = recent.newOwner();
    recent.add(last, 5, 6, 7);
    expect(recent.hasOwners).toBe(true);
    recent.newOwner();
    expect(recent.hasOwners).toBe(false);
    recent.clear();
    expect(recent.hasOwners).toBe(true);
    expect(recent.find(last, 5)).toBe(-1);
    expect(recent.newOwner()).toBe(1);
  });
});
