import { type Errno, StorageError } from '../../src/base/errors.ts';
import type { BlockDevice, IoCompletion } from '../../src/block/block-device.ts';
import { WrappedDevice } from './wrapped-device.ts';

export type FaultyOperation = 'read' | 'write' | 'flush' | 'discard' | 'writeZeroes';

interface Fault {
  /** `change` is everything but reads. */
  operation: FaultyOperation | 'any' | 'change';
  /** Operations still to pass before it. */
  passes: number;
  /** Operations that fail, from there on. */
  times: number;
  /** Null: acknowledged, but it does not happen. */
  errno: Errno | null;
  /** Of a write: how much of it arrives all the same. */
  partialBytes: number;
  /** Nothing works after it. */
  isPowerCut: boolean;
}

const DEAD: Fault = { operation: 'any', passes: 0, times: 0, errno: 'EIO', partialBytes: 0, isPowerCut: true };
const DROP: Fault = { operation: 'change', passes: 0, times: 0, errno: null, partialBytes: 0, isPowerCut: false };

/**
 * A device that fails when told to; otherwise the device behind it. Queued and synchronous operations count alike, in the order in
 * which they are asked for. An operation that is made to fail does not reach the device behind, and completes in a later turn of
 * the event loop.
 */
export class FaultyDevice extends WrappedDevice {
  readonly #faults: Fault[] = [];
  /** Completions due after the next submit(). */
  #ended: { completion: IoCompletion; errno: Errno | null }[] = [];
  #telling = 0;
  #told: (() => void) | null = null;
  #isDropping = false;
  #isDead = false;
  /** Operations asked for so far. */
  readonly counts: Record<FaultyOperation, number> = { read: 0, write: 0, flush: 0, discard: 0, writeZeroes: 0 };
  /** Operations that were made to fail so far, dropped ones included. */
  failures = 0;

  constructor(inner: BlockDevice) {
    super(inner);
  }

  /**
   * The `nth` operation of a kind from now fails (1 is the next one), with `times` as many in a row. Of a write, the first
   * `partialBytes` arrive all the same.
   */
  failNth(
    operation: Fault['operation'],
    nth: number,
    errno: Errno = 'EIO',
    { times = 1, partialBytes = 0 }: { times?: number; partialBytes?: number } = {},
  ): void {
    this.#faults.push({ operation, passes: nth - 1, times, errno, partialBytes, isPowerCut: false });
  }

  /** Power goes before the `nth` change (write, flush, discard, zeroing) from now: that one and all that follows, reads too, is EIO. */
  cutPowerAtChange(nth: number): void {
    this.failNth('change', nth, 'EIO');
    this.#faults.at(-1)!.isPowerCut = true;
  }

  /** From now on changes are acknowledged and forgotten: a device that lies. Reads go on. */
  dropChanges(): void {
    this.#isDropping = true;
  }

  /** Works again. What was lost stays lost. */
  heal(): void {
    this.#faults.length = 0;
    this.#isDropping = false;
    this.#isDead = false;
  }

  override read(
    offset: number,
    memory: Uint8Array,
    memoryOffset: number,
    length: number,
    completion: IoCompletion,
  ): void {
    if (this.#passes('read', completion)) this.inner.read(offset, memory, memoryOffset, length, completion);
  }

  override write(
    offset: number,
    memory: Uint8Array,
    memoryOffset: number,
    length: number,
    completion: IoCompletion,
  ): void {
    const fault = this.#fault('write');
    if (fault === null) {
      this.inner.write(offset, memory, memoryOffset, length, completion);
    } else {
      this.#writePart(fault, offset, memory, memoryOffset);
      this.#ended.push({ completion, errno: fault.errno });
    }
  }

  override flush(completion: IoCompletion): void {
    if (this.#passes('flush', completion)) this.inner.flush(completion);
  }

  override discard(offset: number, length: number, completion: IoCompletion): void {
    if (this.#passes('discard', completion)) this.inner.discard(offset, length, completion);
  }

  override writeZeroes(offset: number, length: number, completion: IoCompletion): void {
    if (this.#passes('writeZeroes', completion)) this.inner.writeZeroes(offset, length, completion);
  }

  override submit(): void {
    this.#tell();
    this.inner.submit();
  }

  override readSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    if (this.#passesSync('read')) this.inner.readSync(offset, memory, memoryOffset, length);
  }

  override writeSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    const fault = this.#fault('write');
    if (fault === null) {
      this.inner.writeSync(offset, memory, memoryOffset, length);
    } else {
      this.#writePart(fault, offset, memory, memoryOffset);
      this.#throw(fault);
    }
  }

  override flushSync(): void {
    if (this.#passesSync('flush')) this.inner.flushSync();
  }

  override async close(): Promise<void> {
    this.#tell();
    if (this.#telling > 0) {
      await new Promise<void>((resolve) => {
        this.#told = resolve;
      });
    }
    await this.inner.close();
  }

  /** Counts the operation; the fault that hits it, or null. */
  #fault(operation: FaultyOperation): Fault | null {
    this.counts[operation]++;
    const isDropped = this.#isDropping && operation !== 'read';
    const hit = this.#isDead ? DEAD : (this.#nextFault(operation) ?? (isDropped ? DROP : null));
    if (hit !== null) {
      this.failures++;
      this.#isDead ||= hit.isPowerCut;
    }
    return hit;
  }

  #nextFault(operation: FaultyOperation): Fault | null {
    let hit: Fault | null = null;
    for (const fault of this.#faults) {
      const isMeant = fault.operation === operation || fault.operation === 'any';
      if (!isMeant && (fault.operation !== 'change' || operation === 'read')) continue;
      if (fault.passes > 0) {
        fault.passes--;
      } else if (fault.times > 0 && hit === null) {
        fault.times--;
        hit = fault;
      }
    }
    return hit;
  }

  #passes(operation: FaultyOperation, completion: IoCompletion): boolean {
    const fault = this.#fault(operation);
    if (fault !== null) this.#ended.push({ completion, errno: fault.errno });
    return fault === null;
  }

  #passesSync(operation: FaultyOperation): boolean {
    const fault = this.#fault(operation);
    if (fault !== null) this.#throw(fault);
    return fault === null;
  }

  #writePart(fault: Fault, offset: number, memory: Uint8Array, memoryOffset: number): void {
    if (fault.partialBytes > 0) this.inner.writeSync(offset, memory, memoryOffset, fault.partialBytes);
  }

  #throw(fault: Fault): void {
    if (fault.errno !== null) throw new StorageError(fault.errno, `${this.path}: a fault was injected`);
  }

  #tell(): void {
    if (this.#ended.length === 0) return;
    const ended = this.#ended;
    this.#ended = [];
    this.#telling++;
    setImmediate(() => {
      this.#telling--;
      if (this.#telling === 0) this.#told?.();
      for (const { completion, errno } of ended) completion.ioDone(errno);
    });
  }
}
