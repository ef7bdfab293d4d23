import type { LunBackend, LunRequest } from '../../src/block/lun-backend.ts';
import { MemoryLun } from '../../src/block/memory-lun.ts';
import type { SeededRandom } from './seeded-random.ts';

/** A RAM disk on which each request takes a random number of turns of the event loop, so that something is always in flight. */
export class SlowLun implements LunBackend {
  readonly inner: MemoryLun;
  readonly readOnly = false;
  /** Requests that have not been passed on. */
  pending = 0;
  readonly #random: SeededRandom;

  constructor(sizeBytes: number, random: SeededRandom) {
    this.inner = new MemoryLun(sizeBytes);
    this.#random = random;
  }

  get sizeBytes(): number {
    return this.inner.sizeBytes;
  }

  get unmapGranularityBytes(): number {
    return this.inner.unmapGranularityBytes;
  }

  get unmappedReadsZeroes(): boolean {
    return this.inner.unmappedReadsZeroes;
  }

  copiesFrom(): boolean {
    return false;
  }

  submit(request: LunRequest): void {
    this.pending++;
    this.#later(request, this.#random.below(6));
  }

  #later(request: LunRequest, turns: number): void {
    if (turns > 0) {
      setImmediate(() => this.#later(request, turns - 1));
      return;
    }
    this.pending--;
    this.inner.submit(request);
  }
}
