import { assert } from '../base/assert.ts';
import { StorageError } from '../base/errors.ts';
import { Waiters } from '../base/waiters.ts';
import { type LunBackend, LunOp, LunRequest, type ProvisioningResources } from '../block/lun-backend.ts';
import { atomicWriteBytes } from './atomic-writer.ts';
import { BioPrison } from './bio-prison.ts';
import type { ExternalOrigin } from './external-origin.ts';
import { IoQueue } from './io-queue.ts';
import type { PoolEngine } from './pool-engine.ts';
import type { ThinMetadata } from './thin-metadata.ts';

/**
 * An open thin volume. Sizes are the catalogue's: the metadata knows only which blocks are mapped.
 * Made and closed by `Pool`; shared by everyone who serves the volume.
 */
export class ThinDevice implements LunBackend {
  readonly engine: PoolEngine;
  /** Another one after a rollback. */
  thin: ThinMetadata;
  readonly prison: BioPrison = new BioPrison();
  /** What is not mapped reads from here; null: as zeroes. */
  readonly origin: ExternalOrigin | null;
  readonly unmapGranularityBytes: number;
  readonly atomicWriteBytes: number;
  readonly resources: ProvisioningResources;
  sizeBytes: number;
  readOnly = false;
  /** Requests that have been submitted and not answered. */
  inFlight = 0;
  /** Copies that read from this one or write to it: the pieces of one that are under way are `inFlight`, too. */
  copies = 0;
  /** Those of them that had waited for space when the device was held: they begin again afterwards. */
  readonly aside: IoQueue = new IoQueue();
  closed = false;
  private readonly idleWaiters: Waiters = new Waiters();
  private readonly releaseWaiters: Waiters = new Waiters();
  /** Requests that came while the device was held, or null when it is not. */
  private heldRequests: LunRequest[] | null = null;

  constructor(engine: PoolEngine, thin: ThinMetadata, sizeBytes: number, origin: ExternalOrigin | null = null) {
    this.engine = engine;
    this.thin = thin;
    this.sizeBytes = sizeBytes;
    this.origin = origin;
    this.atomicWriteBytes = atomicWriteBytes(engine.blockSizeBytes);
    this.resources = new DeviceResources(this);
    this.unmapGranularityBytes = engine.ignoreDiscard ? 0 : engine.blockSizeBytes;
  }

  /** Not where an origin shows again, nor where a write to a part of a block brings back what was on the data device. */
  get unmappedReadsZeroes(): boolean {
    return this.origin === null && this.engine.zeroNewBlocks;
  }

  /** From volumes of the same pool; not where an image shows through what one of them has not mapped. */
  copiesFrom(source: LunBackend): boolean {
    if (!(source instanceof ThinDevice) || source.engine !== this.engine) return false;
    return this.origin === null && source.origin === null;
  }

  submit(request: LunRequest): void {
    if (request.op === LunOp.COPY) this.engine.rangeCopier.submit(this, request);
    else if (this.heldRequests === null) this.engine.submit(this, request);
    else this.heldRequests.push(request);
  }

  giveUp(request: LunRequest): void {
    this.engine.space.giveUp(request);
  }

  get held(): boolean {
    return this.heldRequests !== null;
  }

  /** Called whenever nothing is in flight but what is set aside, and when a copy has ended. */
  idle(): void {
    this.idleWaiters.wake();
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

  /** Resolves when nothing that was submitted is under way. */
  async drained(): Promise<void> {
    while (this.inFlight !== this.aside.count) await this.idleWaiters.wait();
  }

  /** From now on requests wait, until `release`. Those that wait for space already are set aside; the others go on. */
  hold(): void {
    assert(this.heldRequests === null, 'a device is held once at a time');
    this.heldRequests = [];
    this.engine.space.withdraw(this, this.aside);
  }

  /** Answers the requests that were set aside: what they would write to is about to be something else. The device is held. */
  async refuseAside(): Promise<void> {
    for (let io = this.aside.shift(); io !== null; io = this.aside.shift()) this.engine.answer(io, 'ENOSPC');
    await this.drained();
  }

  release(): void {
    const held = this.heldRequests;
    assert(held !== null, 'a device that is released was held');
    this.heldRequests = null;
    this.engine.requeue(this.aside);
    for (const request of held) this.engine.submit(this, request);
    this.releaseWaiters.wake();
  }

  /** Resolves at the next `release`. */
  released(): Promise<void> {
    return this.releaseWaiters.wait();
  }

  /** Answers what is under way; everything else is refused with ESHUTDOWN from now on. */
  async close(): Promise<void> {
    this.closed = true;
    const waiting = new IoQueue();
    this.engine.space.withdraw(this, waiting);
    this.engine.requeue(waiting);
    while (this.copies > 0 || this.inFlight !== this.aside.count) await this.idleWaiters.wait();
  }
}

/** Data blocks: those of the volume, and those of the pool that are free for all. */
class DeviceResources implements ProvisioningResources {
  readonly #device: ThinDevice;

  constructor(device: ThinDevice) {
    this.#device = device;
  }

  get usedBytes(): number {
    const { thin, engine } = this.#device;
    return thin.mappedBlocks * engine.blockSizeBytes;
  }

  get availableBytes(): number {
    const { metadata, blockSizeBytes } = this.#device.engine;
    return metadata.freeDataBlocks * blockSizeBytes;
  }

  get lowWaterBytes(): number {
    const { space, blockSizeBytes } = this.#device.engine;
    return space.lowWaterBlocks * blockSizeBytes;
  }
}

/**
 * Runs `change` at a moment when no request for any of `devices` is under way: what had come before is answered (a write that waits for
 * space may have done a part of its blocks), what comes meanwhile waits.
 */
export async function whileHeld<T>(devices: readonly ThinDevice[], change: () => Promise<T>): Promise<T> {
  for (const device of devices) device.hold();
  try {
    for (const device of devices) await device.drained();
    return await change();
  } finally {
    for (const device of devices) device.release();
  }
}
