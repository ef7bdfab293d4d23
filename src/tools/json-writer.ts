import type { DeviceRecord, MappingRun, MetadataVisitor, PoolRecord } from './ir.ts';

const NEEDS_CHECK = 1;

/**
 * Writes a pool as one JSON document, a line for each device and for each run of mappings:
 * `{ time, transactionId, needsCheck, version, dataBlockSizeSectors, dataBlockCount, devices: [{ id, mappedBlocks, transactionId,
 * creationTime, snapshottedTime, mappings: [{ virtualBegin, dataBegin, length, time }] }] }`. What devices share is in each of them.
 */
export class JsonWriter implements MetadataVisitor {
  readonly #write: (text: string) => void;
  #separator = '';

  constructor(write: (text: string) => void) {
    this.#write = write;
  }

  pool(pool: PoolRecord): void {
    const { time, transactionId, flags, version, dataBlockSize, dataBlockCount } = pool;
    const needsCheck = (flags & NEEDS_CHECK) !== 0;
    const fields = { time, transactionId, needsCheck, version, dataBlockSizeSectors: dataBlockSize, dataBlockCount };
    this.#write(`${open(fields)},"devices":[`);
    this.#separator = '';
  }

  deviceBegin(device: DeviceRecord): void {
    const { id, mappedBlocks, transactionId, creationTime, snapshottedTime } = device;
    const fields = { id, mappedBlocks, transactionId, creationTime, snapshottedTime };
    this.#write(`${this.#separator}\n${open(fields)},"mappings":[`);
    this.#separator = '';
  }

  run({ virtualBegin, dataBegin, length, time }: MappingRun): void {
    this.#write(
      `${this.#separator}\n{"virtualBegin":${virtualBegin},"dataBegin":${dataBegin},"length":${length},"time":${time}}`,
    );
    this.#separator = ',';
  }

  deviceEnd(): void {
    this.#write(']}');
    this.#separator = ',';
  }

  poolEnd(): void {
    this.#write(']}\n');
  }
}

/** An object without its closing brace. */
function open(fields: object): string {
  return JSON.stringify(fields).slice(0, -1);
}
