import {
  BITMAP_FIELDS,
  type Field,
  INDEX_ENTRY_FIELDS,
  INDEX_FIELDS,
  NODE_FIELDS,
  SUPERBLOCK_FIELDS,
  VALUE_FIELDS,
} from './metadata-fields.ts';
import { MetadataImage } from './metadata-image.ts';
import { goldenImage } from './metadata-judges.ts';
import { TestDevice } from './test-device.ts';

/** One bit of a metadata image: what to turn over. */
export interface Spot {
  /** For people: `top-level leaf: nr_entries, highest bit`. */
  name: string;
  image: string;
  block: number;
  /** Bytes from the beginning of the block. */
  offset: number;
  mask: number;
  isChecksum: boolean;
}

const A05 = 'a05-metadata-snap-reserved';
const A11 = 'a11-five-snaps-broke-one-overflow-tree';
const A12 = 'a12-filled-900';
const C00 = 'c00-restored-by-0.9.0-then-grown-by-kernel';

const images = new Map<string, MetadataImage>();

/** A kernel's image; not to be changed. */
export function pristine(name: string): MetadataImage {
  let image = images.get(name);
  if (image === undefined) {
    image = new MetadataImage(goldenImage(name));
    images.set(name, image);
  }
  return image;
}

/** A tree's node: where it is, and what its values are. */
interface Node {
  name: string;
  image: string;
  block: (image: MetadataImage) => number;
  value: keyof typeof VALUE_FIELDS & string;
  isInternal?: true;
}

/** The root of the n-th device's tree. */
const deviceRoot =
  (n: number) =>
  (image: MetadataImage): number =>
    image.words(image.mappingRoot)[8 + 2 * 252 + 2 * n]!;

const NODES: readonly Node[] = [
  {
    name: 'top-level internal node',
    image: C00,
    block: (image) => image.mappingRoot,
    value: 'pointer',
    isInternal: true,
  },
  { name: 'top-level leaf', image: A11, block: (image) => image.mappingRoot, value: 'pointer' },
  { name: 'mapping internal node', image: A12, block: deviceRoot(1), value: 'pointer', isInternal: true },
  { name: 'mapping leaf', image: A11, block: deviceRoot(0), value: 'mapping' },
  {
    name: 'details internal node',
    image: C00,
    block: (image) => image.detailsRoot,
    value: 'pointer',
    isInternal: true,
  },
  { name: 'details leaf', image: A11, block: (image) => image.detailsRoot, value: 'details' },
  { name: 'data index leaf', image: A11, block: (image) => image.dataIndexRoot, value: 'index' },
  { name: 'data ref count leaf', image: C00, block: (image) => image.dataOverflow, value: 'count' },
  { name: 'metadata ref count leaf', image: A11, block: (image) => image.metadataOverflow, value: 'count' },
];

/** Both ends of every field: a bit that changes it a little and one that changes it a lot. */
function* ends(fields: readonly Field[], at: number): Iterable<{ name: string; offset: number; mask: number }> {
  for (const { name, offset, size, bits: [lowest, highest] = [0, 8 * size - 1] } of fields) {
    for (const [which, bit] of [
      ['lowest', lowest],
      ['highest', highest],
    ] as const) {
      yield { name: `${name}, ${which} bit`, offset: at + offset + Math.floor(bit / 8), mask: 1 << (bit % 8) };
    }
  }
}

function* spotsOf(
  name: string,
  image: string,
  block: number,
  fields: readonly Field[],
  at: number = 0,
): Iterable<Spot> {
  for (const end of ends(fields, at)) {
    const { offset, mask } = end;
    yield { name: `${name}: ${end.name}`, image, block, offset, mask, isChecksum: offset < 4 };
  }
}

function* nodeSpots({ name, image, block: find, value, isInternal = undefined }: Node): Iterable<Spot> {
  const words = pristine(image).words(find(pristine(image)));
  const block = find(pristine(image));
  const { size, fields } = VALUE_FIELDS[value]!;
  const count = words[4]!;
  if (words[6] !== size || count === 0 || words[1] !== (isInternal ? 1 : 2))
    throw new Error(`${name} is not what the table says`);
  yield* spotsOf(name, image, block, NODE_FIELDS);
  const key: Field[] = [{ name: 'key', offset: 0, size: 8 }];
  const chosen = count === 1 ? [0] : [0, count - 1];
  for (const i of chosen) {
    const which = i === 0 ? 'first' : 'last';
    yield* spotsOf(`${name}, ${which} entry`, image, block, key, 32 + 8 * i);
    yield* spotsOf(`${name}, ${which} entry`, image, block, fields, 32 + 8 * words[5]! + size * i);
  }
}

function* bitmapSpots(name: string, image: string, block: number, blockCount: number): Iterable<Spot> {
  yield* spotsOf(name, image, block, BITMAP_FIELDS);
  const words = pristine(image).words(block);
  const bits = (entry: number): number => (words[4 + (entry >>> 4)]! >>> (2 * (entry & 15))) & 3;
  const first = (wanted: number): number => {
    for (let entry = 0; entry < blockCount; entry++) if (bits(entry) === wanted) return entry;
    return -1;
  };
  for (const [what, entry] of [
    ['free', first(0)],
    ['count 1', first(2)],
    ['count 2', first(1)],
    ['count 3', first(3)],
    ['behind the end', blockCount],
  ] as const) {
    if (entry < 0) continue;
    for (const bit of [0, 1]) {
      const offset = 16 + (entry >>> 2);
      const mask = 1 << (2 * (entry & 3) + bit);
      yield { name: `${name}: entry that is ${what}, bit ${bit}`, image, block, offset, mask, isChecksum: false };
    }
  }
}

/** A bit of every field of every structure. */
export function* spots(): Iterable<Spot> {
  const a11 = pristine(A11);
  yield* spotsOf('superblock', A11, 0, SUPERBLOCK_FIELDS);
  yield* spotsOf('metadata snapshot', A05, pristine(A05).held, SUPERBLOCK_FIELDS);
  for (const node of NODES) yield* nodeSpots(node);
  yield* bitmapSpots('data bitmap', A11, a11.dataBitmap, 1024);
  yield* bitmapSpots('metadata bitmap', A11, a11.metadataBitmap, 2048);
  yield* spotsOf('metadata index', A11, a11.metadataIndex, INDEX_FIELDS);
  yield* spotsOf('metadata index, first entry', A11, a11.metadataIndex, INDEX_ENTRY_FIELDS, 16);
  yield* spotsOf('metadata index, entry past the last', A11, a11.metadataIndex, INDEX_ENTRY_FIELDS, 32);
}

/** The spot's image with that bit turned over; `stamped`: the block's checksum is right again. */
export function damagedImage(spot: Spot, stamped: boolean): TestDevice {
  const original = pristine(spot.image);
  const type = original.typeOf(spot.block);
  const image = new MetadataImage(new TestDevice(original.device.memory.slice()));
  image.device.memory[spot.block * 4096 + spot.offset]! ^= spot.mask;
  if (stamped) image.stamp(spot.block, type);
  return image.device;
}
