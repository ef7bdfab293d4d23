import type { DeviceRecord, MappingRun, PoolRecord, SharingVisitor } from './ir.ts';

const NEEDS_CHECK = 1;

/** Writes thin_dump's XML, byte for byte that of 1.1.0: no newline at the end; flags only when the pool needs a check. */
export class XmlWriter implements SharingVisitor {
  readonly #write: (text: string) => void;

  constructor(write: (text: string) => void) {
    this.#write = write;
  }

  pool(pool: PoolRecord): void {
    const flags = (pool.flags & NEEDS_CHECK) !== 0 ? ' flags="1"' : '';
    this.#write(
      `<superblock uuid="" time="${pool.time}" transaction="${pool.transactionId}"${flags} version="${pool.version}" ` +
        `data_block_size="${pool.dataBlockSize}" nr_data_blocks="${pool.dataBlockCount}">`,
    );
  }

  defBegin(name: string): void {
    this.#write(`\n  <def name="${name}">`);
  }

  defEnd(): void {
    this.#write('\n  </def>');
  }

  deviceBegin(device: DeviceRecord): void {
    this.#write(
      `\n  <device dev_id="${device.id}" mapped_blocks="${device.mappedBlocks}" transaction="${device.transactionId}" ` +
        `creation_time="${device.creationTime}" snap_time="${device.snapshottedTime}">`,
    );
  }

  run({ virtualBegin, dataBegin, length, time }: MappingRun): void {
    if (length === 1) {
      this.#write(`\n    <single_mapping origin_block="${virtualBegin}" data_block="${dataBegin}" time="${time}"/>`);
      return;
    }
    this.#write(
      `\n    <range_mapping origin_begin="${virtualBegin}" data_begin="${dataBegin}" length="${length}" time="${time}"/>`,
    );
  }

  ref(name: string): void {
    this.#write(`\n    <ref name="${name}"/>`);
  }

  deviceEnd(): void {
    this.#write('\n  </device>');
  }

  poolEnd(): void {
    this.#write('\n</superblock>');
  }
}
