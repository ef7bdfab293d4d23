import type { DeviceRecord, MappingRun, PoolRecord, SharingVisitor } from './ir.ts';

const NEEDS_CHECK = 1;

/** Writes what `thin_dump -f human_readable` 1.1.0 does. The ends of ranges are part of them. */
export class HumanWriter implements SharingVisitor {
  readonly #write: (text: string) => void;

  constructor(write: (text: string) => void) {
    this.#write = write;
  }

  pool(pool: PoolRecord): void {
    const { time, transactionId, flags, version, dataBlockSize, dataBlockCount } = pool;
    const fields = [time, transactionId, flags & NEEDS_CHECK, version, dataBlockSize, dataBlockCount];
    this.#write(`begin superblock: "", ${fields.join(', ')}\n`);
  }

  defBegin(name: string): void {
    this.#write(`def: ${name}\n`);
  }

  defEnd(): void {
    this.#write('\n');
  }

  deviceBegin(device: DeviceRecord): void {
    this.#write(
      `device: ${device.id}\nmapped_blocks: ${device.mappedBlocks}\ntransaction: ${device.transactionId}\n` +
        `creation time: ${device.creationTime}\nsnap time: ${device.snapshottedTime}\n`,
    );
  }

  run({ virtualBegin, dataBegin, length, time }: MappingRun): void {
    const virtualLast = virtualBegin + length - 1;
    const dataLast = dataBegin + length - 1;
    this.#write(`    (${virtualBegin}..${virtualLast}) -> (${dataBegin}..${dataLast}), ${time}\n`);
  }

  ref(name: string): void {
    this.#write(`    ref: ${name}\n`);
  }

  deviceEnd(): void {
    this.#write('\n');
  }

  poolEnd(): void {
    this.#write('end superblock\n');
  }
}
