import { StorageError } from '../base/errors.ts';

/**
 * Reference counts of the blocks `[0, blockCount)`, and the allocation of free ones.
 *
 * The rule that everything rests on: **a block that the last commit has in use is never handed out, even if this
 * transaction has freed it.** So the last commit stays whole on the device until the next one is durable, and a crash at
 * any moment finds it.
 *
 * Counts are of references, not of users: a metadata block has as many as blocks point to it, a data block as many as
 * leaves hold it.
 *
 * A method that throws anything but a complaint about its arguments leaves the map unusable until the transaction is
 * aborted. Source: dm-space-map.h.
 */
export interface SpaceMap {
  readonly blockCount: number;
  /** Blocks with count 0 now, whether or not they may be handed out before the next commit. */
  readonly freeCount: number;
  /** EINVAL past the end. */
  count(block: number): number;
  /** Whether the count is above one; cheaper than `count`. EINVAL past the end. */
  isShared(block: number): boolean;
  /** One more reference for each of `[begin, end)`. EINVAL past the end. */
  increment(begin: number, end: number): void;
  /** One less for each of `[begin, end)`. EINVAL past the end or when a count would go below zero: then the metadata is damaged. */
  decrement(begin: number, end: number): void;
  /** A block that is free now and was at the last commit; its count becomes 1. ENOSPC. */
  allocate(): number;
  /** Makes the map larger. The new blocks are free. EINVAL when it would shrink or the format does not reach so far. */
  extend(blockCount: number): void;
  /** Brings everything into blocks that the next commit writes; after it nothing may change before `committed`. */
  prepareCommit(): void;
  /** The commit is durable: what it freed may be handed out from now on. */
  committed(): void;
}

/** In what order free blocks are handed out. */
export type AllocationOrder =
  /** From where the last one was found onwards, wrapping at the end: the kernel's order. */
  | 'sweep'
  /** The lowest first: keeps a sparse file small. */
  | 'first-fit';

/** Where a space map is: the first 32 bytes of its slot in the superblock. */
export interface SpaceMapRoot {
  blockCount: number;
  /** Blocks with a count above 0. */
  allocatedCount: number;
  /** Data: root of the index tree. Metadata: the index block. */
  bitmapRoot: number;
  /** Root of the tree with the counts of 3 and more. */
  refCountRoot: number;
}

/** ENOSPC of the metadata device, as opposed to that of the data device. */
export class MetadataSpaceError extends StorageError {
  constructor(message: string) {
    super('ENOSPC', message);
  }
}
