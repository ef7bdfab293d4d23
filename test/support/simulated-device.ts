import { assert } from '../../src/base/assert.ts';
import type { BlockDevice, IoCompletion } from '../../src/block/block-device.ts';
import type { SeededRandom } from './seeded-random.ts';

interface Request {
  perform: () => void;
  completion: IoCompletion;
}

/** Requests that end in one turn of the event loop, at most. */
const MAX_A_TURN = 6;

/**
 * A small device in RAM on which what is queued takes effect and ends when chance says so: in any order, some of it late. What was
 * discarded reads as `discardFill`. Without a random source, everything happens in the order in which it was asked for.
 */
export class SimulatedDevice implements BlockDevice {
  readonly path: string;
  readonly alignmentBytes: number = 1;
  readonly readOnly: boolean = false;
  readonly discardGranularityBytes: number = 4096;
  memory: Uint8Array;
  readonly #random: SeededRandom | null;
  readonly #discardFill: number;
  #queued: Request[] = [];
  #running: Request[] = [];
  #scheduled = false;
  #drained: (() => void) | null = null;

  constructor(path: string, memory: Uint8Array | number, random: SeededRandom | null = null, discardFill = 0) {
    this.path = path;
    this.memory = typeof memory === 'number' ? new Uint8Array(memory) : memory;
    this.#random = random;
    this.#discardFill = discardFill;
  }

  get sizeBytes(): number {
    return this.memory.length;
  }

  read(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void {
    this.#queue(offset, length, completion, () => this.readSync(offset, memory, memoryOffset, length));
  }

  write(offset: number, memory: Uint8Array, memoryOffset: number, length: number, completion: IoCompletion): void {
    this.#queue(offset, length, completion, () => this.writeSync(offset, memory, memoryOffset, length));
  }

  flush(completion: IoCompletion): void {
    this.#queue(0, 0, completion, () => {});
  }

  discard(offset: number, length: number, completion: IoCompletion): void {
    this.#queue(offset, length, completion, () => this.memory.fill(this.#discardFill, offset, offset + length));
  }

  writeZeroes(offset: number, length: number, completion: IoCompletion): void {
    this.#queue(offset, length, completion, () => this.memory.fill(0, offset, offset + length));
  }

  copyCached(): boolean {
    return false;
  }

  submit(): void {
    if (this.#queued.length === 0) return;
    this.#running.push(...this.#queued);
    this.#queued = [];
    this.#schedule();
  }

  readSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    this.#checkRange(offset, length);
    memory.set(this.memory.subarray(offset, offset + length), memoryOffset);
  }

  writeSync(offset: number, memory: Uint8Array, memoryOffset: number, length: number): void {
    this.#checkRange(offset, length);
    this.memory.set(memory.subarray(memoryOffset, memoryOffset + length), offset);
  }

  flushSync(): void {}

  resize(sizeBytes: number): void {
    const memory = new Uint8Array(sizeBytes);
    memory.set(this.memory.subarray(0, sizeBytes));
    this.memory = memory;
  }

  refreshSize(): number {
    return this.memory.length;
  }

  /** The contents stay: it can be opened again. */
  async close(): Promise<void> {
    this.submit();
    while (this.#running.length > 0) {
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
    }
  }

  #checkRange(offset: number, length: number): void {
    assert(offset >= 0 && length >= 0 && offset + length <= this.sizeBytes, 'a request past the end of the device');
  }

  #queue(offset: number, length: number, completion: IoCompletion, perform: () => void): void {
    this.#checkRange(offset, length);
    this.#queued.push({ perform, completion });
  }

  #schedule(): void {
    if (this.#scheduled || this.#running.length === 0) return;
    this.#scheduled = true;
    setImmediate(() => this.#turn());
  }

  #turn(): void {
    this.#scheduled = false;
    const random = this.#random;
    let left = random === null ? this.#running.length : Math.min(this.#running.length, 1 + random.below(MAX_A_TURN));
    for (; left > 0; left--) {
      const at = random === null ? 0 : random.below(this.#running.length);
      const [{ perform, completion }] = this.#running.splice(at, 1) as [Request];
      perform();
      completion.ioDone(null);
    }
    this.#schedule();
    if (this.#running.length === 0) this.#drained?.();
  }
}
