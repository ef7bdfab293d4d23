import { promisify } from 'node:util';
import { deflate, inflate } from 'node:zlib';
import { crc32cRaw } from '../base/crc32c.ts';
import { messageOf, StorageError } from '../base/errors.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { BlockPacker } from './block-packer.ts';
import { BlockUnpacker } from './block-unpacker.ts';
import { BlockType } from './metadata-reader.ts';
import {
  CHUNK_BLOCKS,
  damagedPack,
  isKnownType,
  PACK_BLOCK_SIZE,
  PACK_HEADER_SIZE,
  PACK_MAGIC,
  PACK_VERSION,
} from './pack-format.ts';

/** Read at once. */
const READ_BLOCKS = 256;
/** A chunk that says more is damaged: a block is never longer than itself by much. */
const MAX_CHUNK_SIZE: number = 2 * CHUNK_BLOCKS * PACK_BLOCK_SIZE;
/** 256 GiB: of a metadata device the format reaches the first 15.875 GiB. */
const MAX_BLOCKS: number = 2 ** 26;

const deflateAsync = promisify(deflate);
const inflateAsync = promisify(inflate);

type OnProgress = (done: number, total: number) => void;

/**
 * Packs every block of `device` that is a block of metadata, in use or not. Gives the pack file's bytes to `write`, part by part. Throws EINVAL
 * for a device that is shorter than a block, and the device's errors.
 */
export async function packMetadata(
  device: BlockDevice,
  write: (bytes: Uint8Array) => void,
  onProgress?: OnProgress,
): Promise<void> {
  const blockCount = Math.floor(device.sizeBytes / PACK_BLOCK_SIZE);
  if (blockCount === 0) {
    throw new StorageError(
      'EINVAL',
      `Cannot pack "${device.path}": it has ${device.sizeBytes} bytes, less than a block`,
    );
  }
  const header = Buffer.alloc(PACK_HEADER_SIZE);
  for (const [i, field] of [PACK_MAGIC, BigInt(PACK_VERSION), BigInt(PACK_BLOCK_SIZE), BigInt(blockCount)].entries()) {
    header.writeBigUInt64LE(field, 8 * i);
  }
  write(header);
  const memory = alignedMemory(READ_BLOCKS * PACK_BLOCK_SIZE);
  const packer = new BlockPacker(CHUNK_BLOCKS);
  let packed = 0;
  const flush = async (): Promise<void> => {
    const chunk = await deflateAsync(packer.bytes.subarray(0, packer.length));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(chunk.length));
    write(length);
    write(chunk);
    packer.length = 0;
    packed = 0;
  };
  for (let first = 0; first < blockCount; first += READ_BLOCKS) {
    const count = Math.min(READ_BLOCKS, blockCount - first);
    await readBlocks(device, first, memory, count);
    for (let i = 0; i < count; i++) {
      const block = memory.subarray(i * PACK_BLOCK_SIZE, (i + 1) * PACK_BLOCK_SIZE);
      const type = typeOf(block);
      if (!isKnownType(type)) continue;
      packer.add(first + i, block, type === BlockType.node);
      if (++packed === CHUNK_BLOCKS) await flush();
    }
    onProgress?.(first + count, blockCount);
  }
  if (packed > 0) await flush();
}

/** Where a pack file's bytes come from. */
export interface PackSource {
  readonly sizeBytes: number;
  /** `length` bytes at `offset`, which lie inside. */
  read(offset: number, length: number): Uint8Array;
}

/** How many blocks the device has whose metadata was packed. Throws EILSEQ for anything that is no pack file. */
export function packedBlockCount(source: PackSource): number {
  if (source.sizeBytes < PACK_HEADER_SIZE) throw new StorageError('EILSEQ', 'it is not a pack file');
  const header = Buffer.from(source.read(0, PACK_HEADER_SIZE));
  if (header.readBigUInt64LE(0) !== PACK_MAGIC) throw new StorageError('EILSEQ', 'it is not a pack file');
  const version = header.readBigUInt64LE(8);
  if (version !== BigInt(PACK_VERSION)) {
    throw new StorageError('EILSEQ', `it is a pack file of version ${version}, expected ${PACK_VERSION}`);
  }
  const blockSize = header.readBigUInt64LE(16);
  if (blockSize !== BigInt(PACK_BLOCK_SIZE)) {
    throw new StorageError('EILSEQ', `its blocks have ${blockSize} bytes, expected ${PACK_BLOCK_SIZE}`);
  }
  const blockCount = Number(header.readBigUInt64LE(24));
  if (blockCount < 1 || blockCount > MAX_BLOCKS) throw damagedPack(`it is of a device of ${blockCount} blocks`);
  return blockCount;
}

/**
 * Writes the packed blocks to `device`, which has room for them; other blocks are left as they are. The superblock comes last, so
 * that nothing takes half of it for a pool's metadata. Throws EILSEQ for a damaged pack file, and the device's errors.
 */
export async function unpackMetadata(source: PackSource, device: BlockDevice, onProgress?: OnProgress): Promise<void> {
  const blockCount = packedBlockCount(source);
  const memory = alignedMemory(2 * PACK_BLOCK_SIZE);
  const block = memory.subarray(0, PACK_BLOCK_SIZE);
  let hasSuperblock = false;
  for (let at = PACK_HEADER_SIZE; at < source.sizeBytes; ) {
    if (at + 8 > source.sizeBytes) throw damagedPack('it ends early');
    const length = Number(Buffer.from(source.read(at, 8)).readBigUInt64LE());
    at += 8;
    if (length > MAX_CHUNK_SIZE) throw damagedPack(`a chunk of ${length} bytes`);
    if (at + length > source.sizeBytes) throw damagedPack('it ends early');
    const unpacker = new BlockUnpacker(await inflated(source.read(at, length)));
    at += length;
    for (let number = unpacker.next(block); number !== null; number = unpacker.next(block)) {
      if (number >= blockCount) throw damagedPack(`block ${number} of ${blockCount}`);
      if (!isKnownType(typeOf(block))) throw damagedPack(`block ${number} has a wrong checksum`);
      if (number === 0) {
        memory.copyWithin(PACK_BLOCK_SIZE, 0, PACK_BLOCK_SIZE);
        hasSuperblock = true;
      } else {
        device.writeSync(number * PACK_BLOCK_SIZE, memory, 0, PACK_BLOCK_SIZE);
      }
    }
    onProgress?.(at, source.sizeBytes);
  }
  device.flushSync();
  if (hasSuperblock) device.writeSync(0, memory, PACK_BLOCK_SIZE, PACK_BLOCK_SIZE);
  device.flushSync();
}

async function inflated(bytes: Uint8Array): Promise<Uint8Array> {
  try {
    return await inflateAsync(bytes, { maxOutputLength: MAX_CHUNK_SIZE });
  } catch (error) {
    throw damagedPack(messageOf(error));
  }
}

/** The constant of the block's type, if its checksum is right; else any number. */
function typeOf(block: Uint8Array): number {
  const stored = (block[0]! | (block[1]! << 8) | (block[2]! << 16) | (block[3]! << 24)) >>> 0;
  return (crc32cRaw(block, 4, PACK_BLOCK_SIZE) ^ stored) >>> 0;
}

function readBlocks(device: BlockDevice, first: number, memory: Uint8Array, count: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const ioDone = (error: ConstructorParameters<typeof StorageError>[0] | null): void => {
      if (error === null) resolve();
      else reject(new StorageError(error, `Cannot read "${device.path}" at block ${first}: ${error}`));
    };
    device.read(first * PACK_BLOCK_SIZE, memory, 0, count * PACK_BLOCK_SIZE, { ioDone });
    device.submit();
  });
}

/** Whether the device begins with a superblock. */
export function holdsMetadata(device: BlockDevice): boolean {
  if (device.sizeBytes < PACK_BLOCK_SIZE) return false;
  const block = alignedMemory(PACK_BLOCK_SIZE);
  device.readSync(0, block, 0, PACK_BLOCK_SIZE);
  return typeOf(block) === BlockType.superblock;
}
