import { crc32cRaw } from '../base/crc32c.ts';
import { StorageError } from '../base/errors.ts';
import { SECTOR_SIZE } from '../base/units.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { type BlockOwner, BlockOwners, type TreeKind } from './block-owners.ts';
import { BlockType, type BlockView, MetadataReader } from './metadata-reader.ts';
import { bitmapEntry } from './space-map-check.ts';
import { indexBlockEntries } from './space-map-fields.ts';
import { readSuperblockFields } from './superblock-check.ts';
import { dataBlockOf, timeOf } from './thin-visitors.ts';
import { NodeView, nodeDamage } from './tree-walker.ts';

const BLOCK_SIZE = 4096;
const BITMAP_ENTRIES = 16320;
const MAX_OWNERS = 10;
const TREE_VALUE_SIZES: Readonly<Record<TreeKind, number>> = {
  'device roots': 8,
  mappings: 8,
  details: 24,
  'data index': 16,
  'data counts': 4,
  'metadata counts': 4,
};

/** A name and what there is to say, or text that goes over the whole line. */
export type InspectLine = readonly [name: string, value: string] | string;

/**
 * Everything that can be told of a metadata block, right or wrong: whose it is, and what is in it. Throws EINVAL for a number past the end of
 * the device; damage is described, not thrown.
 */
export function inspectBlock(device: BlockDevice, number: number): InspectLine[] {
  const reader = new MetadataReader(device);
  if (number >= reader.blockCount) {
    throw new StorageError(
      'EINVAL',
      `Cannot inspect block ${number}: "${device.path}" has ${reader.blockCount} blocks`,
    );
  }
  const view = new BlockViewReader(device).read(number);
  const search = new BlockOwners(reader, number);
  const owners = search.find();
  const type = typeOf(view) ?? guessType(view, owners);
  const count = search.count();
  return [
    ['type', type ?? (view.bytes.every((byte) => byte === 0) ? 'zeroes' : 'none that is known')],
    ['used as', describeOwners(owners, count)],
    ['references', count === null ? 'not readable' : count === 3 ? '3 or more' : String(count)],
    ['checksum', describeChecksum(view, type)],
    ['block number', view.u64(8) === number ? `${number}, right` : `${view.u64(8)}, wrong: it is block ${number}`],
    ...(type === null ? [] : contentsOf(type, view, owners)),
  ];
}

/** The bytes of a block, 16 a line; lines like the one before are left out, as hexdump(1) does. */
export function* hexLines(device: BlockDevice, number: number): Iterable<string> {
  const { bytes } = new BlockViewReader(device).read(number);
  let before = '';
  let starred = false;
  for (let at = 0; at < BLOCK_SIZE; at += 16) {
    const line = Buffer.from(bytes.buffer, bytes.byteOffset + at, 16);
    const hex = line.toString('hex').replace(/(..)(?!$)/g, '$1 ');
    if (hex === before && at + 16 < BLOCK_SIZE) {
      if (!starred) yield '*';
      starred = true;
      continue;
    }
    before = hex;
    starred = false;
    const text = line.toString('latin1').replace(/[^ -~]/g, '.');
    yield `${at.toString(16).padStart(4, '0')}  ${hex}  ${text}`;
  }
}

/** Reads blocks whatever is wrong with them. */
class BlockViewReader {
  readonly #device: BlockDevice;

  constructor(device: BlockDevice) {
    this.#device = device;
  }

  read(number: number): BlockView {
    const view = new MetadataReader(this.#device).acquire();
    this.#device.readSync(number * BLOCK_SIZE, view.bytes, 0, BLOCK_SIZE);
    return view;
  }
}

function sumOf(view: BlockView): number {
  return crc32cRaw(view.bytes, 4, BLOCK_SIZE);
}

/** By its checksum: it is right for one type at most. */
function typeOf(view: BlockView): BlockType | null {
  const constant = (sumOf(view) ^ view.u32(0)) >>> 0;
  const entry = Object.entries(BlockType).find(([, known]) => known === constant);
  return entry === undefined ? null : (entry[0] as BlockType);
}

/** By its use, where the checksum is wrong. */
function guessType(view: BlockView, owners: readonly BlockOwner[]): BlockType | null {
  const [owner] = owners;
  if (owner === undefined) {
    const node = nodeOf(view);
    return [4, 8, 16, 24].includes(node.valueSize) && nodeDamage(node, node.valueSize) === null ? 'node' : null;
  }
  if (owner.tree !== null) return 'node';
  if (owner.name.includes('bitmaps')) return owner.isRoot ? 'index' : 'bitmap';
  return 'superblock';
}

function describeChecksum(view: BlockView, type: BlockType | null): string {
  const has = hex32(view.u32(0));
  if (type === null) return `${has}, right for no type of block`;
  const expected = (sumOf(view) ^ BlockType[type]) >>> 0;
  return view.u32(0) === expected ? `${has}, right` : `${has}, wrong: expected ${hex32(expected)}`;
}

function hex32(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}

function describeOwners(owners: readonly BlockOwner[], count: number | null): string {
  if (owners.length === 0) return count === 0 ? 'nothing: it is free' : 'nothing that the superblock leads to';
  const names = owners.slice(0, MAX_OWNERS).map(({ name, tree, isRoot }) => {
    return tree === null ? name : `${name}: ${isRoot ? 'root' : 'node'}`;
  });
  const more = owners.length - names.length;
  return names.join('; ') + (more > 0 ? `; and ${more} more` : '');
}

function contentsOf(type: BlockType, view: BlockView, owners: readonly BlockOwner[]): InspectLine[] {
  switch (type) {
    case 'superblock':
      return superblockLines(view);
    case 'node':
      return nodeLines(view, owners);
    case 'bitmap':
      return bitmapLines(view, owners);
    case 'index':
      return indexLines(view);
  }
}

function superblockLines(view: BlockView): InspectLine[] {
  const fields = readSuperblockFields(view);
  const { dataSpaceMap, metadataSpaceMap } = fields;
  const spaceMap = ({ blockCount, allocatedCount, bitmapRoot, refCountRoot }: typeof dataSpaceMap): string =>
    `${allocatedCount} of ${blockCount} blocks in use, index at ${bitmapRoot}, counts above 2 at ${refCountRoot}`;
  return [
    ['magic', String(view.u64(32))],
    ['version', String(fields.version)],
    ['flags', `${fields.flags}${fields.flags & 1 ? ' (needs check)' : ''}`],
    ['time', String(fields.time)],
    ['transaction', String(fields.transactionId)],
    ['metadata snapshot', fields.heldRoot === 0 ? 'none' : `at ${fields.heldRoot}`],
    ['data space map', spaceMap(dataSpaceMap)],
    ['metadata space map', spaceMap(metadataSpaceMap)],
    ['device roots', `at ${fields.mappingRoot}`],
    ['device details', `at ${fields.detailsRoot}`],
    ['data block size', `${fields.dataBlockSize} sectors (${fields.dataBlockSize * SECTOR_SIZE} bytes)`],
    ['metadata block size', `${fields.metadataBlockSize} sectors`],
    ['formatted with', `${fields.metadataBlockCount} metadata blocks`],
    ['features', `compat ${view.u32(352)}, compat_ro ${fields.compatRoFlags}, incompat ${fields.incompatFlags}`],
  ];
}

function nodeOf(view: BlockView): NodeView {
  const node = new NodeView(view);
  node.set();
  return node;
}

function nodeLines(view: BlockView, owners: readonly BlockOwner[]): InspectLine[] {
  const node = nodeOf(view);
  const tree = owners.find((owner) => owner.tree !== null)?.tree ?? null;
  const damage = nodeDamage(node, tree === null ? node.valueSize : TREE_VALUE_SIZES[tree]);
  const lines: InspectLine[] = [
    ['node', node.isLeaf ? 'leaf' : 'internal'],
    ['entries', `${node.count} of ${node.maxEntries}, values of ${node.valueSize} bytes`],
    ['shape', damage === null ? 'right' : `wrong: ${damage}`],
    '',
  ];
  const room = Math.floor((BLOCK_SIZE - node.valueOffset(0)) / Math.max(node.valueSize, 4));
  for (let i = 0; i < Math.min(node.count, node.maxEntries, Math.max(room, 0)); i++) {
    lines.push([String(node.key(i)), node.isLeaf ? valueText(node, i, tree) : `block ${node.value64(i)}`]);
  }
  return lines;
}

/** Where the tree is not known, a value of 8 bytes may be two things: both are said. */
function valueText(leaf: NodeView, index: number, tree: TreeKind | null): string {
  const { block } = leaf;
  const at = leaf.valueOffset(index);
  const mapping = `data block ${dataBlockOf(leaf, index)}, time ${timeOf(leaf, index)}`;
  switch (leaf.valueSize) {
    case 8:
      if (tree === 'mappings') return mapping;
      return tree === 'device roots' ? `block ${leaf.value64(index)}` : `${mapping}; or block ${leaf.value64(index)}`;
    case 24:
      return `${block.u64(at)} mapped blocks, transaction ${block.u64(at + 8)}, created at ${block.u32(at + 16)}, snapshotted at ${block.u32(at + 20)}`;
    case 16:
      return `bitmap at ${block.u64(at)}, ${block.u32(at + 8)} free, none before ${block.u32(at + 12)}`;
    case 4:
      return `count ${block.u32(at)}`;
    default:
      return 'unknown';
  }
}

function bitmapLines(view: BlockView, owners: readonly BlockOwner[]): InspectLine[] {
  const ordinal = Number(/number (\d+)/.exec(owners[0]?.name ?? '')?.[1] ?? 0);
  const lines: InspectLine[] = ['', owners.length > 0 ? 'BLOCKS  COUNT' : 'ENTRIES  COUNT'];
  for (let begin = 0; begin < BITMAP_ENTRIES; ) {
    const count = bitmapEntry(view, begin);
    let end = begin + 1;
    while (end < BITMAP_ENTRIES && bitmapEntry(view, end) === count) end++;
    const first = ordinal * BITMAP_ENTRIES;
    lines.push([`${first + begin}..${first + end}`, count === 3 ? '3 or more' : String(count)]);
    begin = end;
  }
  return lines;
}

function indexLines(view: BlockView): InspectLine[] {
  const lines: InspectLine[] = ['', 'BITMAP'];
  for (const { ordinal, block, freeCount, noneFreeBefore } of indexBlockEntries(view, 255)) {
    if (block === 0) continue;
    lines.push([String(ordinal), `at ${block}, ${freeCount} free, none before ${noneFreeBefore}`]);
  }
  return lines;
}
