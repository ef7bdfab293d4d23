import { assert } from '../base/assert.ts';
import { StorageError } from '../base/errors.ts';
import { type LunBackend, LunOp, LunRequest } from '../block/lun-backend.ts';
import { BioPrison } from './bio-prison.ts';
import type { ExternalOrigin } from './external-origin.ts';
import type { PoolEngine } from './pool-engine.ts';
import type { ThinMetadata } from './thin-metadata.ts';

/**
 * An open thin volume. Sizes are the catalogue's: the metadata knows only which blocks are mapped.
 * Made and closed by `Pool`; shared by everyone who serves the volume.
 */
export class ThinDevice implements LunBackend {
  readonly engine: PoolEngine;
  readonly thin: ThinMetadata;
  readonly prison: BioPrison = new BioPrison();
  /** What is not mapped reads from here; null: as zeroes. */
  readonly origin: ExternalOrigin | null;
  readonly unmapGranularityBytes: number;
  sizeBytes: number;
  readOnly = false;
  /** Requests that have been submitted and not answered. */
  inFlight = 0;
  closed = false;
  private onIdle: (() => void) | null = null;
  /** Requests that came while the device was held, or null when it is not. */
  private heldRequests: LunRequest[] | null = null;

  constructor(engine: PoolEngine, thin: ThinMetadata, sizeBytes: number, origin: ExternalOrigin | null = null) {
    this.engine = engine;
    this.thin = thin;
    this.sizeBytes = sizeBytes;
    this.origin = origin;
    this.unmapGranularityBytes = engine.ignoreDiscard ? 0 : engine.blockSizeBytes;
  }

  /** Not where an origin shows again, nor where a write to a part of a block brings back what was on the data device. */
  get unmappedReadsZeroes(): boolean {
    return this.origin === null && this.engine.zeroNewBlocks;
  }

  submit(request: LunRequest): void {
    if (this.heldRequests === null) this.engine.submit(this, request);
    else this.heldRequests.push(request);
  }

  /** Called by the engine whenever `inFlight` falls to zero. */
  idle(): void {
    const { onIdle } = this;
    this.onIdle = null;
    onIdle?.();
  }

  /** Discards `[begin, end)` bytes. Throws what the request is answered. */
  unmap(begin: number, end: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const request = new LunRequest({
        requestDone: (_, error) => {
          if (error === null) resolve();
          else reject(new StorageError(error, `Cannot discard blocks of thin device ${this.thin.id}: ${error}`));
        },
      });
      request.op = LunOp.UNMAP;
      request.offset = begin;
      request.length = end - begin;
      this.submit(request);
    });
  }

  /** Resolves when nothing that was submitted is unanswered. One waiter at a time. */
  drained(): Promise<void> {
    if (this.inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.onIdle = resolve;
    });
  }

  /** Runs `change` at a moment when no request is under way: what came before is answered, what comes meanwhile waits. */
  async whileHeld<T>(change: () => Promise<T>): Promise<T> {
    assert(this.heldRequests === null, 'a device is held once at a time');
    this.heldRequests = [];
    try {
      await this.drained();
      return await change();
    } finally {
      const held = this.heldRequests;
      this.heldRequests = null;
      for (const request of held) this.engine.submit(this, request);
    }
  }
}
