import { beforeEach, describe, expect, it } from 'vitest';
import { monotonicClock } from '../../src/base/clock.ts';
import { StorageError } from '../../src/base/errors.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { checkMetadata, checkMetadataInTurns } from '../../src/tools/check.ts';
import { checkDevice } from '../../src/tools/check-pool.ts';
import { describeDamage } from '../../src/tools/damage.ts';
import { MetadataImage } from '../support/metadata-image.ts';
import { damageOf, expectClean, expectThinCheck, goldenImage } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';

const A11 = 'a11-five-snaps-broke-one-overflow-tree';
const NEEDS_CHECK = 1;

let device: TestDevice;
let image: MetadataImage;
beforeEach(() => use(A11));

function use(name: string): void {
  device = goldenImage(name);
  image = new MetadataImage(device);
}

function damaged(options: Parameters<typeof checkMetadata>[2]): string[] {
  const found: string[] = [];
  checkMetadata(device, (damage) => found.push(describeDamage(damage)), options);
  return found;
}

describe('a check of a part', () => {
  it('of the superblock alone reads one block', () => {
    device.memory.fill(0, 4096);
    let reads = 0;
    device.hook = () => {
      reads++;
      return null;
    };
    expect(damaged({ superblockOnly: true })).toEqual([]);
    expect(reads).toBe(1);
  });

  it('without the mappings does not miss what they would have counted', () => {
    expect(damaged({ skipMappings: true })).toEqual([]);
    image.change(image.dataBitmap, (words) => image.setBits(words, 9, 0b11));
    expect(damaged({ skipMappings: true })).toEqual([expect.stringContaining('the overflow tree nothing')]);
  });

  it('from other roots takes those instead of the superblock’s', () => {
    const { mappingRoot, detailsRoot } = image;
    image.changeSuperblock((words) => words.fill(5, 80, 81).fill(5, 82, 83));
    expect(damaged({}).length).toBeGreaterThan(0);
    expect(damaged({ mappingRoot, detailsRoot })).toEqual([]);
    expect(damaged({ mappingRoot: 5, detailsRoot })).toEqual(
      expect.arrayContaining([expect.stringContaining('the value size is 4, expected 8')]),
    );
  });

  it('of the metadata snapshot sees that and nothing else', () => {
    expect(damaged({ metadataSnapshot: true })).toEqual(['error: metadata snapshot: there is none']);
    use('a05-metadata-snap-reserved');
    image.change(image.dataBitmap, (words) => image.setBits(words, 9, 0b11));
    const summary = checkMetadata(device, () => expect.unreachable(), { metadataSnapshot: true });
    expect(summary).toMatchObject({ errors: 0, deviceCount: 2, mappingCount: 12 });
    device.memory[image.held * 4096 + 100]! ^= 1;
    expect(damaged({ metadataSnapshot: true })[0]).toContain('metadata snapshot > block');
  });
});

describe('a check in turns', () => {
  it('finds what a check in one go finds', async () => {
    for (const name of [A11, 'a05-metadata-snap-reserved', 'c00-restored-by-0.9.0-then-grown-by-kernel']) {
      use(name);
      for (const spoil of [0, image.mappingRoot, image.dataBitmap, image.metadataOverflow]) {
        if (spoil !== 0) device.memory[spoil * 4096 + 99]! ^= 4;
        const found: unknown[] = [];
        const summary = await checkMetadataInTurns(device, (damage) => found.push(damage), { clock: monotonicClock });
        expect(found).toEqual(damageOf(device));
        expect(summary).toEqual(checkMetadata(device, () => {}));
      }
    }
  });

  it('reads every block once, in few requests', async () => {
    const { device: large } = manyMappings();
    let requests = 0;
    let blocks = 0;
    large.hook = ({ length }) => {
      requests++;
      blocks += length / 4096;
      return null;
    };
    const summary = await checkMetadataInTurns(large, () => expect.unreachable(), { clock: monotonicClock });
    expect(summary.mappingCount).toBe(20_000);
    expect(blocks).toBeLessThan(summary.blocksRead + 2);
    expect(requests).toBeLessThan(blocks / 2);
  });

  it('does not mind a read ahead that fails: the read after it says so', async () => {
    const { device: large } = manyMappings();
    large.hook = ({ length, kind }) => (kind === 'read' && length > 4096 ? 'EIO' : null);
    const summary = await checkMetadataInTurns(large, () => expect.unreachable(), { clock: monotonicClock });
    expect(summary.errors).toBe(0);
    large.hook = ({ offset }) => (offset === 300 * 4096 ? 'EIO' : null);
    const messages: string[] = [];
    await checkMetadataInTurns(large, (damage) => messages.push(damage.message), { clock: monotonicClock });
    for (const message of messages.slice(0, 1)) expect(message).toContain('block 300 cannot be read');
  });
});

function manyMappings(): { device: TestDevice } {
  const large = new TestDevice(4 << 20);
  const pool = PoolMetadata.format(large, { dataBlockSizeBytes: 65536, dataBlockCount: 30_000 });
  pool.createThin(1);
  const thin = pool.openThin(1);
  for (let i = 0; i < 20_000; i++) pool.insert(thin, i, pool.allocateDataBlock());
  pool.commitSync();
  return { device: large };
}

describe('a repair', () => {
  const repair = (options = {}) => checkDevice(device, null, { repair: true, ...options });

  it('of good metadata writes nothing', async () => {
    device.hook = ({ kind }) => {
      expect(kind).toBe('read');
      return null;
    };
    expect(await repair()).toMatchObject({ errors: 0, leaks: 0, repaired: false });
  });

  it('clears the needs-check flag with one write of the superblock', async () => {
    image.changeSuperblock((words) => words.fill(NEEDS_CHECK, 1, 2));
    const before = device.memory.slice();
    expect(checkMetadata(device, () => {}).needsCheck).toBe(true);
    expect(await repair()).toMatchObject({ errors: 0, needsCheck: false, repaired: true });
    expect(checkMetadata(device, () => {}).needsCheck).toBe(false);
    expect(Buffer.compare(device.memory.subarray(512), before.subarray(512))).toBe(0);
    expectThinCheck(device);
  });

  it.each([
    ['data blocks that nobody has', (): void => image.change(image.dataBitmap, (words) => spread(words, 900, 960))],
    [
      'metadata blocks that nobody has',
      (): void => image.change(image.metadataBitmap, (words) => spread(words, 1500, 1600)),
    ],
    ['data blocks counted twice', (): void => image.change(image.dataBitmap, (words) => image.setBits(words, 9, 0b01))],
    [
      'a tree’s root counted twice',
      (): void => image.change(image.metadataBitmap, (words) => image.setBits(words, image.detailsRoot, 0b01)),
    ],
    [
      'a space map’s root counted twice',
      (): void => image.change(image.metadataBitmap, (words) => image.setBits(words, image.dataIndexRoot, 0b01)),
    ],
    [
      'a bitmap counted twice',
      (): void => image.change(image.metadataBitmap, (words) => image.setBits(words, image.dataBitmap, 0b01)),
    ],
    [
      'an overflow tree counted twice',
      (): void => image.change(image.metadataBitmap, (words) => image.setBits(words, image.metadataOverflow, 0b01)),
    ],
    [
      'a count in the overflow tree that is too high',
      (): void => image.change(image.metadataOverflow, (words) => words.fill(9, 8 + 2 * 336, 9 + 2 * 336)),
    ],
    ['wrong totals', (): void => image.changeSuperblock((words) => words.fill(900, 18, 19).fill(7, 50, 51))],
  ])('sets right %s', async (_, spoil) => {
    image.changeSuperblock((words) => words.fill(NEEDS_CHECK, 1, 2));
    spoil();
    const before = device.memory.slice();
    expect(damageOf(device).length).toBeGreaterThan(0);
    const found = await repair();
    expect(found?.damages.map(describeDamage)).toEqual([]);
    expect(found).toMatchObject({ errors: 0, leaks: 0, needsCheck: false, repaired: true, mappingCount: 7 + 5 * 6 });
    expectClean(device);
    expectThinCheck(device);
    // The state before stays whole until the superblock is written.
    device.memory.set(before.subarray(0, 4096));
    expect(damageOf(device).length).toBeGreaterThan(0);
  });

  it('is whole or not at all wherever the power fails', async () => {
    image.changeSuperblock((words) => words.fill(NEEDS_CHECK, 1, 2));
    image.change(image.dataBitmap, (words) => spread(words, 900, 960));
    image.change(image.metadataBitmap, (words) => spread(words, 1500, 1600));
    const before = device.memory.slice();
    const expected = checkMetadata(device, () => {});
    for (let failAt = 0; ; failAt++) {
      device = new TestDevice(before.slice());
      let events = 0;
      device.hook = ({ kind }) => (kind !== 'read' && events++ >= failAt ? 'EIO' : null);
      const outcome = await repair().catch((error: unknown) => error);
      device.hook = null;
      if (!(outcome instanceof StorageError)) break;
      expect(outcome.code).toBe('EIO');
      const after = checkMetadata(device, () => {});
      const untouched = after.leaks === expected.leaks && after.errors === expected.errors;
      expect(untouched || (after.leaks === 0 && after.errors === 0), `event ${failAt}`).toBe(true);
      expect(after.mappingCount).toBe(expected.mappingCount);
      expect(failAt).toBeLessThan(100);
    }
    expectClean(device);
  });

  it('touches nothing when anything else is wrong, and leaves the flag', async () => {
    image.changeSuperblock((words) => words.fill(NEEDS_CHECK, 1, 2));
    image.change(image.dataBitmap, (words) => {
      spread(words, 900, 960);
      image.setBits(words, 9, 0);
    });
    const before = device.memory.slice();
    expect(await repair()).toMatchObject({ needsCheck: true, repaired: false });
    expect(Buffer.compare(device.memory, before)).toBe(0);
  });

  it('of a part only clears the flag', async () => {
    image.changeSuperblock((words) => words.fill(NEEDS_CHECK, 1, 2));
    image.change(image.dataBitmap, (words) => spread(words, 900, 960));
    expect(await repair({ skipMappings: true })).toMatchObject({ needsCheck: false, repaired: true });
    expect(checkMetadata(device, () => {})).toMatchObject({ leaks: 1, needsCheck: false });
  });
});

/** One reference for each of those blocks. */
function spread(words: Uint32Array, begin: number, end: number): void {
  for (let entry = begin; entry < end; entry++) image.setBits(words, entry, 0b10);
}
