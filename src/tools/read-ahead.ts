import type { Errno } from '../base/errors.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import type { BlockDevice } from '../block/block-device.ts';

const BLOCK_SIZE = 4096;
/** As many as a node has children. */
const BATCH_BLOCKS = 252;
/** One request of the device: 256 KiB. */
const MAX_RUN_BLOCKS = 64;

/** Blocks that are read together because they are needed together. */
export interface Batch {
  readonly memory: Uint8Array;
  numbers: number[];
}

/**
 * Reads blocks ahead of a walk, in the order in which they lie on the device and neighbours at once. A batch holds the children of one
 * node, so that a walk has as many of them as its tree is high. What could not be read is not there: the walk's own read says why.
 */
export class ReadAhead {
  readonly #device: BlockDevice;
  readonly #places: Map<number, Uint8Array> = new Map();
  readonly #spare: Batch[] = [];
  readonly #waiting: Batch[] = [];

  constructor(device: BlockDevice) {
    this.#device = device;
  }

  /** Queues at most `BATCH_BLOCKS` of the blocks, which lie on the device; the caller gives the batch back with `drop`. */
  want(numbers: readonly number[]): Batch {
    const batch = this.#spare.pop() ?? { memory: alignedMemory(BATCH_BLOCKS * BLOCK_SIZE), numbers: [] };
    batch.numbers = [...new Set(numbers)].filter((number) => !this.#places.has(number)).slice(0, BATCH_BLOCKS);
    batch.numbers.sort((a, b) => a - b);
    if (batch.numbers.length > 0) this.#waiting.push(batch);
    return batch;
  }

  drop(batch: Batch): void {
    for (const number of batch.numbers) this.#places.delete(number);
    this.#spare.push(batch);
  }

  /** The contents of a block that was read ahead; null when it was not. */
  find(number: number): Uint8Array | null {
    return this.#places.get(number) ?? null;
  }

  /** Reads what is queued; null when nothing is. */
  fetch(): Promise<void> | null {
    return this.#waiting.length === 0 ? null : this.#fetch(this.#waiting.splice(0));
  }

  #fetch(batches: readonly Batch[]): Promise<void> {
    return new Promise((resolve) => {
      let running = 1;
      const ended = (): void => {
        if (--running === 0) resolve();
      };
      for (const { memory, numbers } of batches) {
        for (let from = 0; from < numbers.length; ) {
          let to = from + 1;
          while (to < numbers.length && numbers[to] === numbers[to - 1]! + 1 && to - from < MAX_RUN_BLOCKS) to++;
          const begin = from;
          const end = to;
          running++;
          const ioDone = (error: Errno | null): void => {
            for (let i = begin; error === null && i < end; i++) {
              this.#places.set(numbers[i]!, memory.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE));
            }
            ended();
          };
          this.#device.read(numbers[from]! * BLOCK_SIZE, memory, from * BLOCK_SIZE, (to - from) * BLOCK_SIZE, {
            ioDone,
          });
          from = to;
        }
      }
      this.#device.submit();
      ended();
    });
  }
}
