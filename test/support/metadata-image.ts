import { crc32cRaw } from '../../src/base/crc32c.ts';
import { BlockType } from '../../src/tools/metadata-reader.ts';
import type { TestDevice } from './test-device.ts';

const BLOCK_SIZE = 4096;

/** An image of metadata whose bytes a test changes on purpose; finds its parts by itself. */
export class MetadataImage {
  readonly device: TestDevice;

  constructor(device: TestDevice) {
    this.device = device;
  }

  words(block: number): Uint32Array {
    const { memory } = this.device;
    return new Uint32Array(memory.buffer, memory.byteOffset + block * BLOCK_SIZE, BLOCK_SIZE / 4);
  }

  /** The constant of the block's type, if its checksum is right. */
  typeOf(block: number): number {
    const bytes = this.device.memory.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
    return (crc32cRaw(bytes, 4, BLOCK_SIZE) ^ this.words(block)[0]!) >>> 0;
  }

  /** Makes a changed block's checksum right again. */
  stamp(block: number, type: number): void {
    const bytes = this.device.memory.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
    this.words(block)[0] = crc32cRaw(bytes, 4, BLOCK_SIZE) ^ type;
  }

  /** Changes a good block, and it stays good. */
  change(block: number, work: (words: Uint32Array) => void): void {
    const type = this.typeOf(block);
    work(this.words(block));
    this.stamp(block, type);
  }

  changeSuperblock(work: (words: Uint32Array) => void): void {
    work(this.words(0));
    this.stamp(0, BlockType.superblock);
  }

  /** Sets the two bits of a bitmap's entry, the lower first. */
  setBits(bitmap: Uint32Array, entry: number, bits: number): void {
    const shift = 2 * (entry % 16);
    const at = 4 + Math.floor(entry / 16);
    bitmap[at] = (bitmap[at]! & ~(3 << shift)) | (bits << shift);
  }

  get held(): number {
    return this.words(0)[14]!;
  }

  get dataIndexRoot(): number {
    return this.words(0)[20]!;
  }

  get dataOverflow(): number {
    return this.words(0)[22]!;
  }

  get metadataIndex(): number {
    return this.words(0)[52]!;
  }

  get metadataOverflow(): number {
    return this.words(0)[54]!;
  }

  get mappingRoot(): number {
    return this.words(0)[80]!;
  }

  get detailsRoot(): number {
    return this.words(0)[82]!;
  }

  /** The first. */
  get dataBitmap(): number {
    return this.words(this.dataIndexRoot)[8 + 2 * 168]!;
  }

  /** The first. */
  get metadataBitmap(): number {
    return this.words(this.metadataIndex)[4]!;
  }
}
