/** A command that wants a scratch buffer. The fields are the pool's. */
export interface ScratchUser {
  scratch: Uint8Array | null;
  scratchNext: ScratchUser | null;
  /** `scratch` is set now. Called once per `acquire` that returned false. */
  scratchGranted(): void;
}

/**
 * A bounded number of equal buffers for the commands that compare or make up data (COMPARE AND WRITE, VERIFY, WRITE SAME). They are made when
 * first needed and kept; when all are in use, commands wait in order. A user never waits for a range lock while it has a buffer.
 * Contents are left over from earlier commands: a user reads only what it has put there itself.
 */
export class ScratchPool {
  readonly sizeBytes: number;
  readonly #allocate: (sizeBytes: number) => Uint8Array;
  readonly #free: Uint8Array[] = [];
  #unmade: number;
  #firstWaiting: ScratchUser | null = null;
  #lastWaiting: ScratchUser | null = null;

  constructor(sizeBytes: number, count: number, allocate: (sizeBytes: number) => Uint8Array) {
    this.sizeBytes = sizeBytes;
    this.#unmade = count;
    this.#allocate = allocate;
  }

  /** True: `user.scratch` is set now. False: it waits. */
  acquire(user: ScratchUser): boolean {
    if (this.#free.length > 0) {
      user.scratch = this.#free.pop()!;
      return true;
    }
    if (this.#unmade > 0) {
      this.#unmade--;
      user.scratch = this.#allocate(this.sizeBytes);
      return true;
    }
    user.scratchNext = null;
    if (this.#lastWaiting) this.#lastWaiting.scratchNext = user;
    else this.#firstWaiting = user;
    this.#lastWaiting = user;
    return false;
  }

  /** Takes the buffer of `user` back; does nothing when it has none. */
  release(user: ScratchUser): void {
    const scratch = user.scratch;
    if (scratch === null) return;
    user.scratch = null;
    const next = this.#firstWaiting;
    if (next === null) {
      this.#free.push(scratch);
      return;
    }
    this.#firstWaiting = next.scratchNext;
    if (this.#firstWaiting === null) this.#lastWaiting = null;
    next.scratchNext = null;
    next.scratch = scratch;
    next.scratchGranted();
  }
}
