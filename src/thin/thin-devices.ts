import { assert } from '../base/assert.ts';
import { StorageError } from '../base/errors.ts';
import { NO_KEY } from '../persistent-data/btree.ts';
import type { DeviceDetails } from './device-details.ts';
import type { PoolTransaction } from './pool-transaction.ts';
import type { PoolTrees } from './pool-trees.ts';
import { RecentMappings } from './recent-mappings.ts';
import { NO_ROOT, ThinMetadata } from './thin-metadata.ts';

/** So many are forgotten one by one; of more, all that the device has. */
const FEW_MAPPINGS = 4096;

/** The thin devices of a pool: which are open, and which have changed in this transaction. */
export class ThinDevices {
  /** Of all devices, in front of their trees. */
  readonly recent: RecentMappings = new RecentMappings();
  readonly #transaction: PoolTransaction;
  readonly #open: Map<number, ThinMetadata> = new Map();
  readonly #changed: ThinMetadata[] = [];
  /** Created or made an origin while not open: opened in the same transaction, they have changes. */
  readonly #changedIds: Set<number> = new Set();
  readonly #details: DeviceDetails = { mappedBlocks: 0, transactionId: 0, creationTime: 0, snapshottedTime: 0 };

  constructor(transaction: PoolTransaction) {
    this.#transaction = transaction;
  }

  get #trees(): PoolTrees {
    return this.#transaction.trees;
  }

  /** Devices whose details the next commit writes. */
  get changedCount(): number {
    return this.#changed.length;
  }

  has(id: number): boolean {
    return this.#trees.deviceRoot(id) !== NO_KEY;
  }

  /** Ascending. */
  ids(): number[] {
    const ids: number[] = [];
    for (let id = this.#trees.nextDevice(0); id !== NO_KEY; id = this.#trees.nextDevice(id + 1)) ids.push(id);
    return ids;
  }

  /** Made in this transaction, or snapshotted: then the last commit does not tell what it shares. */
  isNew(id: number): boolean {
    return this.#changedIds.has(id);
  }

  isOpen(id: number): boolean {
    return (this.#open.get(id)?.openCount ?? 0) > 0;
  }

  /** One that somebody has open; `NO_KEY` when there is none. */
  get openId(): number {
    for (const thin of this.#open.values()) if (thin.openCount > 0) return thin.id;
    return NO_KEY;
  }

  open(id: number): ThinMetadata {
    let thin = this.#open.get(id);
    if (thin === undefined) {
      thin = new ThinMetadata(id);
      if (!this.#load(thin)) throw new StorageError('ENODATA', `Cannot open thin device ${id}: no such thin device`);
      this.#open.set(id, thin);
      if (this.#changedIds.has(id)) this.markChanged(thin);
    }
    thin.openCount++;
    return thin;
  }

  close(thin: ThinMetadata): void {
    assert(thin.openCount > 0, 'A thin device is closed more often than opened');
    thin.openCount--;
    if (thin.openCount === 0 && !thin.changed && !thin.abortedWithChanges) this.#forget(thin);
  }

  markChanged(thin: ThinMetadata): void {
    this.#transaction.changed = true;
    if (thin.changed) return;
    thin.changed = true;
    this.#changed.push(thin);
  }

  /** A new device without mappings. */
  create(id: number): void {
    const { time, transactionId } = this.#transaction.superblock;
    this.#trees.setDeviceRoot(id, this.#trees.mappings.empty());
    this.#trees.writeDetails(id, { mappedBlocks: 0, transactionId, creationTime: time, snapshottedTime: time });
    this.#changedIds.add(id);
  }

  /** A new device with the mappings of `origin`: both then share all nodes from the root, which has one more reference. */
  snapshot(id: number, origin: number, time: number): void {
    const trees = this.#trees;
    const { transactionId } = this.#transaction.superblock;
    const root = trees.deviceRoot(origin);
    trees.mappings.share(root);
    trees.setDeviceRoot(id, root);
    const thin = this.#open.get(origin);
    const details = thin ?? this.#closedDetails(origin);
    const { mappedBlocks } = details;
    details.snapshottedTime = time;
    if (thin === undefined) trees.writeDetails(origin, details);
    else this.markChanged(thin);
    trees.writeDetails(id, { mappedBlocks, transactionId, creationTime: time, snapshottedTime: time });
    this.#changedIds.add(origin).add(id);
  }

  /** Deletes part of a device that nobody has open; returns whether it is gone. */
  deleteStep(id: number, maxLeaves: number): boolean {
    const { mappings, metadataBlocks } = this.#trees;
    const thin = this.open(id);
    let gone = mappings.deletionCost(thin.root, maxLeaves) <= maxLeaves;
    if (!gone) {
      this.beginTreeChange(thin, 0, Number.POSITIVE_INFINITY);
      gone = metadataBlocks.isShared(thin.root);
    }
    if (!gone) {
      this.endTreeChange(thin, mappings.deleteSome(thin.root, maxLeaves));
      thin.mappedBlocks = Math.max(thin.mappedBlocks - mappings.removedCount, 0);
    }
    this.close(thin);
    if (gone) this.#delete(id);
    return gone;
  }

  /**
   * Comes before a change of the device's mappings in `[begin, end)`. The leaf of the top-level tree comes first: if it is shared with the metadata
   * snapshot, copying it is what makes the device's root shared.
   */
  beginTreeChange(thin: ThinMetadata, begin: number, end: number): void {
    this.markChanged(thin);
    this.#forgetRecent(thin, begin, end);
    const trees = this.#trees;
    trees.mappings.nodes.copiedShared = false;
    const mayChange = trees.metadataBlocks.isNew(thin.root) && !trees.metadataBlocks.isShared(thin.root);
    if (!mayChange) trees.setDeviceRoot(thin.id, thin.root);
  }

  /** Comes after it: where the tree is now. */
  endTreeChange(thin: ThinMetadata, root: number): void {
    thin.copiedShared ||= this.#trees.mappings.nodes.copiedShared;
    if (root === thin.root) return;
    thin.root = root;
    this.#trees.setDeviceRoot(thin.id, root);
  }

  #forgetRecent(thin: ThinMetadata, begin: number, end: number): void {
    if (end - begin <= FEW_MAPPINGS) {
      for (let key = begin; key < end; key++) this.recent.forget(thin.recentOwner, key);
      return;
    }
    if (!this.recent.hasOwners) {
      this.recent.clear();
      for (const one of this.#open.values()) one.recentOwner = this.recent.newOwner();
    }
    thin.recentOwner = this.recent.newOwner();
  }

  #delete(id: number): void {
    const thin = this.#open.get(id);
    if (thin !== undefined) {
      this.#open.delete(id);
      const index = this.#changed.indexOf(thin);
      if (index >= 0) this.#changed.splice(index, 1);
    }
    this.#changedIds.delete(id);
    this.#trees.removeDetails(id);
    this.#trees.removeDeviceRoot(id);
  }

  /** Brings the details of changed devices into their tree. */
  writeDetails(): void {
    for (const thin of this.#changed) this.#trees.writeDetails(thin.id, thin);
  }

  committed(): void {
    for (const thin of this.#changed) {
      thin.changed = false;
      thin.copiedShared = false;
      if (thin.openCount === 0) this.#forget(thin);
    }
    this.#changed.length = 0;
    this.#changedIds.clear();
  }

  /** Details are read again: the kernel leaves them as the aborted transaction had them. */
  aborted(): void {
    this.#changed.length = 0;
    this.#changedIds.clear();
    for (const thin of this.#open.values()) {
      thin.abortedWithChanges ||= thin.changed;
      thin.changed = false;
      thin.copiedShared = false;
      thin.sharedBlocks = null;
      const exists = this.#load(thin);
      // Whoever has it open keeps an object that is of no use; the id is free for another device.
      if (!exists) thin.root = NO_ROOT;
      // Whoever opens it next is told of what was lost.
      if (!exists || (thin.openCount === 0 && !thin.abortedWithChanges)) this.#forget(thin);
    }
  }

  dataLost(): void {
    for (const thin of this.#open.values()) thin.abortedWithChanges = true;
  }

  closeAll(): void {
    this.#open.clear();
    this.#changed.length = 0;
  }

  #forget(thin: ThinMetadata): void {
    if (this.#open.get(thin.id) === thin) this.#open.delete(thin.id);
  }

  #closedDetails(id: number): DeviceDetails {
    this.#readDetails(id, this.#details);
    return this.#details;
  }

  /** False when there is no such device. */
  #load(thin: ThinMetadata): boolean {
    this.#forgetRecent(thin, 0, Number.POSITIVE_INFINITY);
    const root = this.#trees.deviceRoot(thin.id);
    if (root === NO_KEY) return false;
    this.#readDetails(thin.id, thin);
    thin.root = root;
    return true;
  }

  /** EILSEQ for a device that has none, or none that can be. */
  #readDetails(id: number, details: DeviceDetails): void {
    const found = this.#trees.readDetails(id, details);
    const { time } = this.#transaction.superblock;
    let reason: string | null = null;
    if (!found) reason = 'it has mappings and no details';
    else if (!Number.isSafeInteger(details.mappedBlocks)) reason = 'its number of mapped blocks is not below 2^53';
    else if (!Number.isSafeInteger(details.transactionId)) reason = 'its transaction id is not below 2^53';
    else if (details.creationTime > time) reason = `it was created at time ${details.creationTime}, now is ${time}`;
    else if (details.snapshottedTime > time) {
      reason = `its last snapshot was at time ${details.snapshottedTime}, now is ${time}`;
    }
    if (reason !== null) throw new StorageError('EILSEQ', `Cannot use thin device ${id}: ${reason}`);
  }
}
