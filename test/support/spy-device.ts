import type { Errno } from '../../src/base/errors.ts';
import type { BlockDevice, IoCompletion } from '../../src/block/block-device.ts';

/**
 * Passes everything on to another device, writes down the asynchronous operations (`write 65536 512`), fails those of a kind with an
 * errno, and holds reads, writes and discards back until `let()`.
 */
export class SpyDevice implements BlockDevice {
  readonly log: string[] = [];
  /** By kind of operation: read, write, flush, discard, zeroes. */
  readonly fail: Map<string, Errno> = new Map();
  hold = false;
  private readonly device: BlockDevice;
  private readonly tell: (entry: string) => void;
  private readonly held: (() => void)[] = [];

  constructor(device: BlockDevice, tell: (entry: string) => void = () => {}) {
    this.device = device;
    this.tell = tell;
  }

  get path(): string {
    return this.device.path;
  }

  get sizeBytes(): number {
    return this.device.sizeBytes;
  }

  get alignmentBytes(): number {
    return this.device.alignmentBytes;
  }

  get readOnly(): boolean {
    return this.device.readOnly;
  }

  get discardGranularityBytes(): number {
    return this.device.discardGranularityBytes;
  }

  /** Starts what was held back. */
  let(): void {
    this.hold = false;
    for (const go of this.held.splice(0)) go();
    this.device.submit();
  }

  read(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void {
    this.pass('read', `read ${offset} ${length}`, completion, () =>
      this.device.read(offset, memory, memoryOffset, length, completion),
    );
  }

  write(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void {
    this.pass('write', `write ${offset} ${length}`, completion, () =>
      this.device.write(offset, memory, memoryOffset, length, completion),
    );
  }

  flush(completion: IoCompletion): void {
    this.pass('flush', 'flush', completion, () => this.device.flush(completion));
  }

  discard(offset: number, length: number, completion: IoCompletion): void {
    this.pass('discard', `discard ${offset} ${length}`, completion, () =>
      this.device.discard(offset, length, completion),
    );
  }

  writeZeroes(offset: number, length: number, completion: IoCompletion): void {
    this.pass('zeroes', `zeroes ${offset} ${length}`, completion, () =>
      this.device.writeZeroes(offset, length, completion),
    );
  }

  submit(): void {
    this.device.submit();
  }

  readSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    this.device.readSync(offset, memory, memoryOffset, length);
  }

  writeSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    this.device.writeSync(offset, memory, memoryOffset, length);
  }

  flushSync(): void {
    this.device.flushSync();
  }

  resize(sizeBytes: number): void {
    this.device.resize(sizeBytes);
  }

  refreshSize(): number {
    return this.device.refreshSize();
  }

  close(): Promise<void> {
    return this.device.close();
  }

  private pass(kind: string, entry: string, completion: IoCompletion, go: () => void): void {
    this.log.push(entry);
    this.tell(entry);
    const error = this.fail.get(kind);
    if (error !== undefined) setImmediate(() => completion.ioDone(error));
    else if (this.hold && kind !== 'flush') this.held.push(go);
    else go();
  }
}
