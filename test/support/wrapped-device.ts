import type { BlockDevice, IoCompletion } from '../../src/block/block-device.ts';

/** Passes everything on to another device: a wrapper overrides what it is about. Copies are reads and writes for it. */
export class WrappedDevice implements BlockDevice {
  protected readonly inner: BlockDevice;

  constructor(inner: BlockDevice) {
    this.inner = inner;
  }

  get path(): string {
    return this.inner.path;
  }

  get sizeBytes(): number {
    return this.inner.sizeBytes;
  }

  get alignmentBytes(): number {
    return this.inner.alignmentBytes;
  }

  get readOnly(): boolean {
    return this.inner.readOnly;
  }

  get discardGranularityBytes(): number {
    return this.inner.discardGranularityBytes;
  }

  read(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void {
    this.inner.read(offset, memory, memoryOffset, length, completion);
  }

  write(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void {
    this.inner.write(offset, memory, memoryOffset, length, completion);
  }

  flush(completion: IoCompletion): void {
    this.inner.flush(completion);
  }

  discard(offset: number, length: number, completion: IoCompletion): void {
    this.inner.discard(offset, length, completion);
  }

  writeZeroes(offset: number, length: number, completion: IoCompletion): void {
    this.inner.writeZeroes(offset, length, completion);
  }

  copyCached(): boolean {
    return false;
  }

  submit(): void {
    this.inner.submit();
  }

  readSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    this.inner.readSync(offset, memory, memoryOffset, length);
  }

  writeSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    this.inner.writeSync(offset, memory, memoryOffset, length);
  }

  flushSync(): void {
    this.inner.flushSync();
  }

  resize(sizeBytes: number): void {
    this.inner.resize(sizeBytes);
  }

  refreshSize(): number {
    return this.inner.refreshSize();
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}
