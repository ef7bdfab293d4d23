import { beforeEach, describe, expect, it } from 'vitest';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import { MetadataImage } from '../support/metadata-image.ts';
import { damageOf, expectClean, goldenImage } from '../support/metadata-judges.ts';
import { TestDevice } from '../support/test-device.ts';

/**
 * Every rule of the format broken alone: everything that would follow from it is put right, so that nothing but the rule itself can
 * notice. What the kernel and thin_check make of each is in docs/on-disk-format.md.
 */

const VALUES_8 = 8 + 2 * 252;
const EMPTY_DEVICE = 40;

let image: MetadataImage;
beforeEach(() => {
  image = new MetadataImage(goldenImage('a11-five-snaps-broke-one-overflow-tree'));
});

/** Root of the first device's tree: a leaf of its own with 7 mappings. */
const firstLeaf = (): number => image.words(image.mappingRoot)[VALUES_8]!;

/** The leaf of a device without mappings. */
function emptyLeaf(): number {
  const top = image.words(image.mappingRoot);
  for (let i = 0; i < top[4]!; i++) if (top[8 + 2 * i] === EMPTY_DEVICE) return top[VALUES_8 + 2 * i]!;
  throw new Error('no such device');
}

const bitsOf = (count: number): number => [0, 2, 1, 3][count]!;

/** Sets a data block's count, and the totals with it. */
function setDataCount(block: number, count: number, before: number): void {
  image.change(image.dataBitmap, (words) => image.setBits(words, block, bitsOf(count)));
  const used = Math.sign(count) - Math.sign(before);
  image.change(image.dataIndexRoot, (words) => {
    words[8 + 2 * 168 + 2]! -= used;
  });
  image.changeSuperblock((words) => {
    words[18]! += used;
  });
}

function setMetadataCount(block: number, count: number): void {
  image.change(image.metadataBitmap, (words) => image.setBits(words, block, bitsOf(count)));
  image.change(image.metadataIndex, (words) => {
    words[6]!--;
  });
  image.changeSuperblock((words) => {
    words[50]!++;
  });
}

function add(words: Uint32Array, at: number, difference: number): void {
  words[at]! += difference;
}

const blockOf = (leaf: Uint32Array, i: number): number =>
  leaf[VALUES_8 + 2 * i + 1]! * 256 + (leaf[VALUES_8 + 2 * i]! >>> 24);

function setBlock(leaf: Uint32Array, i: number, block: number): void {
  leaf[VALUES_8 + 2 * i] = ((block % 256) * 2 ** 24 + (leaf[VALUES_8 + 2 * i]! % 2 ** 24)) >>> 0;
  leaf[VALUES_8 + 2 * i + 1] = Math.floor(block / 256);
}

/** A mapping of the first device whose data block nothing else has. */
function exclusive(): number {
  const leaf = image.words(firstLeaf());
  const bitmap = image.words(image.dataBitmap);
  for (let i = 0; i < leaf[4]!; i++) {
    const block = blockOf(leaf, i);
    if (((bitmap[4 + (block >>> 4)]! >>> (2 * (block & 15))) & 3) === bitsOf(1)) return i;
  }
  throw new Error('no exclusive block');
}

const RULES: readonly [number: string, rule: string, found: string, work: () => void][] = [
  ['1', 'a checksum', 'block error', () => image.words(emptyLeaf()).fill(77, 90, 91)],
  ['1', 'a block number', 'block error', () => image.change(emptyLeaf(), (words) => words.fill(5, 2, 3))],
  ['2', 'a node’s room', 'node error', () => image.change(emptyLeaf(), (words) => words.fill(251, 5, 6))],
  ['2', 'the order of keys', 'node error', swapKeys],
  ['3', 'a metadata block’s count', 'metadata-count leak', () => setMetadataCount(1500, 1)],
  ['4', 'a data block’s count', 'data-count leak', () => setDataCount(900, 1, 0)],
  ['5', 'overflow tree and bitmap', 'overflow error', addOverflow],
  ['6', 'a root’s total', 'allocated error', () => image.changeSuperblock((words) => add(words, 18, 1))],
  [
    '7',
    'an index entry’s free count',
    'index warning',
    () => image.change(image.metadataIndex, (words) => add(words, 6, -1)),
  ],
  [
    '7',
    'an index entry’s first free',
    'index warning',
    () => image.change(image.metadataIndex, (words) => words.fill(500, 7, 8)),
  ],
  ['8', 'the devices of both trees', 'devices error', renameDetails],
  [
    '9',
    'mapped blocks',
    'mapped-blocks error',
    () => image.change(image.detailsRoot, (words) => add(words, 8 + 2 * 126, 1)),
  ],
  ['10', 'the magic', 'superblock error', () => image.changeSuperblock((words) => words.fill(1, 8, 9))],
  ['11', 'the superblock’s own number', 'block error', () => image.changeSuperblock((words) => words.fill(1, 2, 3))],
  ['11', 'the version', 'superblock error', () => image.changeSuperblock((words) => words.fill(3, 10, 11))],
  ['11', 'incompat flags', 'superblock error', () => image.changeSuperblock((words) => words.fill(1, 90, 91))],
  ['12', 'the data block size', 'superblock error', () => image.changeSuperblock((words) => words.fill(129, 84, 85))],
  ['12', 'the size at format', 'superblock error', () => image.changeSuperblock((words) => words.fill(2049, 86, 87))],
  [
    '13',
    'a mapping’s time',
    'time error',
    () => image.change(firstLeaf(), (words) => words.fill(words[VALUES_8]! + 90, VALUES_8, VALUES_8 + 1)),
  ],
  ['14', 'bits past the end', 'tail error', setTail],
  ['15', 'where a mapping leads', 'data-block error', mapOutside],
  ['16', 'how full a node is', 'node-fill warning', fillUnevenly],
  ['17', 'a node’s flags', 'node error', () => image.change(emptyLeaf(), (words) => words.fill(3, 1, 2))],
  ['18', 'one data block twice in a leaf', 'data-count error', mapTwice],
];

function swapKeys(): void {
  image.change(image.detailsRoot, (words) => {
    // Two devices of one kind change places; both are still there.
    [words[8 + 2 * 4], words[8 + 2 * 5]] = [words[8 + 2 * 5]!, words[8 + 2 * 4]!];
  });
}

function addOverflow(): void {
  image.change(image.dataOverflow, (words) => {
    words[4] = 1;
    words[8] = 900;
    words[8 + 2 * 336] = 3;
  });
}

function renameDetails(): void {
  image.change(image.detailsRoot, (words) => {
    for (let i = 0; i < words[4]!; i++) if (words[8 + 2 * i] === EMPTY_DEVICE) words[8 + 2 * i] = EMPTY_DEVICE + 1;
  });
}

function setTail(): void {
  image.change(image.dataBitmap, (words) => image.setBits(words, 1024, bitsOf(1)));
  image.change(image.dataIndexRoot, (words) => add(words, 8 + 2 * 168 + 2, -1));
}

function mapOutside(): void {
  const i = exclusive();
  const old = blockOf(image.words(firstLeaf()), i);
  image.change(firstLeaf(), (words) => setBlock(words, i, 5000));
  setDataCount(old, 0, 1);
}

function mapTwice(): void {
  const i = exclusive();
  const leaf = image.words(firstLeaf());
  const old = blockOf(leaf, i);
  const other = blockOf(leaf, i === 0 ? 1 : 0);
  image.change(firstLeaf(), (words) => setBlock(words, i, other));
  setDataCount(old, 0, 1);
}

function fillUnevenly(): void {
  const device = new TestDevice(1 << 20);
  const pool = PoolMetadata.format(device, { dataBlockSizeBytes: 65536, dataBlockCount: 1000 });
  pool.createThin(1);
  const thin = pool.openThin(1);
  for (let i = 0; i < 300; i++) pool.insert(thin, i, pool.allocateDataBlock());
  pool.commitSync();
  pool.close();
  image = new MetadataImage(device);
  expectClean(device);
  const root = firstLeaf();
  const [left, right] = [image.words(root)[VALUES_8]!, image.words(root)[VALUES_8 + 2]!];
  const take = (from: Uint32Array, at: number): number[] => [...from.subarray(at, at + 2 * from[4]!)];
  const keys = [...take(image.words(left), 8), ...take(image.words(right), 8)];
  const values = [...take(image.words(left), VALUES_8), ...take(image.words(right), VALUES_8)];
  const put = (block: number, begin: number, end: number): void =>
    image.change(block, (words) => {
      words[4] = end - begin;
      words.set(keys.slice(2 * begin, 2 * end), 8);
      words.set(values.slice(2 * begin, 2 * end), VALUES_8);
    });
  put(left, 0, 60);
  put(right, 60, 300);
  image.change(root, (words) => words.fill(60, 10, 11));
}

describe('a broken rule alone', () => {
  it.each(RULES)('%s: %s', (_, __, found, work) => {
    work();
    const damages = damageOf(image.device);
    expect(
      new Set(damages.map(({ invariant, severity }) => `${invariant} ${severity}`)),
      JSON.stringify(damages),
    ).toEqual(new Set([found]));
  });

  it('is there for each of the 18', () => {
    const numbers = new Set(RULES.map(([number]) => Number(number)));
    expect([...numbers].sort((a, b) => a - b)).toEqual(Array.from({ length: 18 }, (_, i) => i + 1));
  });
});
