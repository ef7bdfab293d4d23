import type { Errno } from '../../src/base/errors.ts';
import type { BlockDevice, IoCompletion } from '../../src/block/block-device.ts';
import { WrappedDevice } from './wrapped-device.ts';

/**
 * Passes everything on to another device, writes down the asynchronous operations (`write 65536 512`), fails those of a kind with an
 * errno, and holds reads, writes and discards back until `let()`.
 */
export class SpyDevice extends WrappedDevice {
  readonly log: string[] = [];
  /** By kind of operation: read, write, flush, discard, zeroes. */
  readonly fail: Map<string, Errno> = new Map();
  hold = false;
  private readonly tell: (entry: string) => void;
  private readonly held: (() => void)[] = [];

  constructor(device: BlockDevice, tell: (entry: string) => void = () => {}) {
    super(device);
    this.tell = tell;
  }

  /** Starts what was held back. */
  let(): void {
    this.hold = false;
    for (const go of this.held.splice(0)) go();
    this.inner.submit();
  }

  override read(
    offset: number,
    memory: Uint8Array,
    memoryOffset: number,
    length: number,
    completion: IoCompletion,
  ): void {
    this.pass('read', `read ${offset} ${length}`, completion, () =>
      this.inner.read(offset, memory, memoryOffset, length, completion),
    );
  }

  override write(
    offset: number,
    memory: Uint8Array,
    memoryOffset: number,
    length: number,
    completion: IoCompletion,
  ): void {
    this.pass('write', `write ${offset} ${length}`, completion, () =>
      this.inner.write(offset, memory, memoryOffset, length, completion),
    );
  }

  override flush(completion: IoCompletion): void {
    this.pass('flush', 'flush', completion, () => this.inner.flush(completion));
  }

  override discard(offset: number, length: number, completion: IoCompletion): void {
    this.pass('discard', `discard ${offset} ${length}`, completion, () =>
      this.inner.discard(offset, length, completion),
    );
  }

  override writeZeroes(offset: number, length: number, completion: IoCompletion): void {
    this.pass('zeroes', `zeroes ${offset} ${length}`, completion, () =>
      this.inner.writeZeroes(offset, length, completion),
    );
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
