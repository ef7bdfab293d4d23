import { StorageError } from '../base/errors.ts';
import { until } from '../base/until.ts';
import type { ReceivingRecord, VolumeRecord } from './catalogue.ts';
import { PoolSending } from './pool-sending.ts';
import type { VolumeInfo } from './pool-volumes.ts';
import { encodeToken, type StreamHeader } from './stream-format.ts';
import { StreamReader } from './stream-reader.ts';
import type { ThinDevice } from './thin-device.ts';
import { clearBeyond } from './volume-end.ts';
import { ReceiveMemory, receiveRecords } from './volume-receiver.ts';
import { newSnapshotRecord, newVolumeRecord, withOrigin } from './volume-records.ts';

/** Sending and receiving volumes. */
export abstract class PoolTransfers extends PoolSending {
  private readonly receiving: Set<Promise<unknown>> = new Set();
  private stopTransfers: (error: Error) => void = () => {};
  private readonly transfersStopped: Promise<never> = new Promise((_, reject) => {
    this.stopTransfers = reject;
  });

  /**
   * Makes the volume `name` of a stream, or brings it from the stream's base to what the stream has. Until the whole stream has been read and
   * proved right, what has come is kept apart: a volume that is marked as received in part, and that a later stream can go on with. The result is
   * read-only. Throws EEXIST; ENOENT; EINVAL when the stream is not for this volume, or damaged; what `input` throws; ENOSPC.
   */
  receiveVolume(name: string, input: AsyncIterable<Uint8Array>): Promise<VolumeInfo> {
    const work = this.receiveStream(name, until(input, this.transfersStopped));
    const ended = work.then(
      () => {},
      () => {},
    );
    this.receiving.add(ended);
    void ended.then(() => this.receiving.delete(ended));
    return work;
  }

  /** Ends every stream that is on its way. What has been received is kept. */
  async endTransfers(): Promise<void> {
    this.transfersEnded = true;
    this.transfersStopped.catch(() => {});
    this.stopTransfers(new StorageError('ESHUTDOWN', 'The pool is being closed'));
    await Promise.allSettled([...this.receiving, ...[...this.sending.keys()].map((close) => close())]);
  }

  private async receiveStream(name: string, input: AsyncIterable<Uint8Array>): Promise<VolumeInfo> {
    this.checkTransfers(`receive the volume "${name}"`);
    const memory = new ReceiveMemory();
    const reader = new StreamReader(input, () => memory.acquire());
    try {
      const header = await reader.header();
      const { record, device } = await this.exclusive(() => this.beginReceive(name, header));
      try {
        await receiveRecords(reader, device, memory, header.beginBytes, async (positionBytes) => {
          await this.engine.commits.flushAll();
          await this.exclusive(async () => this.updateReceiving(record.id, positionBytes));
        });
      } finally {
        await this.closeVolume(device);
      }
      return await this.exclusive(() => this.finishReceive(record.id, header));
    } finally {
      await reader.close().catch(() => {});
    }
  }

  /** The volume that holds what has been received of `name`; null when nothing is kept apart. */
  receivedPart(name: string): VolumeInfo | null {
    const partial = this.partOf(this.catalogue.find(name), name);
    return partial === null ? null : this.info(partial);
  }

  /** Where the stream of a volume that was received in part has to go on, as a word for `parseToken`. Throws ENOENT, EINVAL. */
  resumeToken(name: string): string {
    const partial = this.partOf(this.catalogue.find(name), name);
    if (partial === null) {
      if (this.catalogue.find(name) === undefined) this.record(name);
      throw new StorageError(
        'EINVAL',
        `Cannot resume the volume "${name}": it has been received whole, or was never received`,
      );
    }
    const { contentId, baseContentId, positionBytes } = partial.receiving!;
    return encodeToken({ contentId, baseContentId, positionBytes });
  }

  /** The volume into which `target` is being received; null when it is not. */
  private partOf(target: VolumeRecord | undefined, name: string): VolumeRecord | null {
    const { volumes } = this.catalogue;
    const isPart = ({ name: own, receiving }: VolumeRecord): boolean =>
      receiving !== undefined && (receiving.targetId === null ? own === name : receiving.targetId === target?.id);
    return volumes.find(isPart) ?? null;
  }

  private async beginReceive(
    name: string,
    header: StreamHeader,
  ): Promise<{ record: VolumeRecord; device: ThinDevice }> {
    const action = `receive the volume "${name}"`;
    if (this.catalogue.options.skipBlockZeroing) {
      // Nobody would zero what the stream leaves out of a block.
      throw new StorageError('EOPNOTSUPP', `Cannot ${action}: the pool does not zero its blocks`);
    }
    const target = this.catalogue.find(name);
    const partial = this.partOf(target, name);
    if (target?.contentId === header.contentId) {
      throw new StorageError('EEXIST', `Cannot ${action}: it holds what the stream has already`);
    }
    if (header.baseContentId !== null) this.checkBase(action, target, header);
    if (partial !== null) this.checkPart(action, partial, header);
    const part = partial ?? (await this.makePart(action, name, target, header));
    const record = await this.resizePart(part, header.sizeBytes);
    return { record, device: this.openVolume(record.name) };
  }

  private checkBase(action: string, target: VolumeRecord | undefined, header: StreamHeader): void {
    if (target === undefined) {
      throw new StorageError(
        'ENOENT',
        `Cannot ${action}: the stream has only what differs from an earlier one, and there is no such volume`,
      );
    }
    if (target.contentId !== header.baseContentId) {
      throw new StorageError(
        'EINVAL',
        `Cannot ${action}: the stream differs from something else than what the volume holds`,
      );
    }
    if (target.logicalBlockSize !== header.logicalBlockSize) {
      throw new StorageError(
        'EINVAL',
        `Cannot ${action}: the stream's logical blocks have ${header.logicalBlockSize} bytes`,
      );
    }
  }

  /** The stream goes on with what is there. */
  private checkPart(action: string, { name, receiving }: VolumeRecord, header: StreamHeader): void {
    const { contentId, baseContentId, positionBytes } = receiving!;
    if (contentId !== header.contentId || baseContentId !== header.baseContentId) {
      throw new StorageError(
        'EEXIST',
        `Cannot ${action}: it has been received in part, as "${name}", from another stream`,
      );
    }
    if (header.beginBytes > positionBytes) {
      const reason = `the stream begins at byte ${header.beginBytes}, what has been received ends at ${positionBytes}`;
      throw new StorageError('EINVAL', `Cannot ${action}: ${reason}`);
    }
    if (this.devices.has(name)) throw new StorageError('EBUSY', `Cannot ${action}: it is being received`);
  }

  private async makePart(
    action: string,
    name: string,
    target: VolumeRecord | undefined,
    header: StreamHeader,
  ): Promise<VolumeRecord> {
    const { contentId, baseContentId, sizeBytes, logicalBlockSize, beginBytes } = header;
    if (beginBytes > 0) {
      throw new StorageError('EINVAL', `Cannot ${action}: the stream is the rest of one whose beginning is not here`);
    }
    const receiving: ReceivingRecord = { contentId, baseContentId, targetId: null, positionBytes: 0 };
    const { volumes } = this.catalogue;
    if (baseContentId === null) {
      const record = newVolumeRecord(
        volumes,
        { name, sizeBytes, logicalBlockSize, receiving },
        this.random,
        this.catalogue.deleting,
      );
      await this.change([...volumes, record], (stamp) =>
        this.engine.mutate(() => {
          this.metadata.createThin(record.id);
          stamp();
        }),
      );
      return record;
    }
    const origin = target!;
    const wanted = { name: this.freeName(name, '.receiving'), readOnly: false };
    const made = newSnapshotRecord(volumes, origin, wanted, this.random, this.catalogue.deleting);
    const record = { ...made, receiving: { ...receiving, targetId: origin.id } };
    await this.snapshot([...volumes, record], [{ record, origin }]);
    return record;
  }

  /** Gives what is received its size. What comes into sight reads as zeroes, what is not seen any more is given back. */
  private async resizePart(record: VolumeRecord, sizeBytes: number): Promise<VolumeRecord> {
    if (record.sizeBytes === sizeBytes) return record;
    const thin = this.metadata.openThin(record.id);
    try {
      if (sizeBytes > record.sizeBytes)
        await clearBeyond(this.engine, thin, record.sizeBytes, record.externalOrigin !== undefined);
    } finally {
      this.metadata.closeThin(thin);
    }
    const resized = { ...record, sizeBytes };
    this.replaceRecord(resized);
    await this.finishShrink(resized);
    return resized;
  }

  private updateReceiving(id: number, positionBytes: number): void {
    const record = this.catalogue.volumes.find((volume) => volume.id === id);
    if (record?.receiving === undefined) return;
    if (positionBytes <= record.receiving.positionBytes) return;
    this.replaceRecord({ ...record, receiving: { ...record.receiving, positionBytes } });
  }

  protected replaceRecord(record: VolumeRecord): void {
    this.catalogue.replace(this.catalogue.volumes.map((volume) => (volume.id === record.id ? record : volume)));
  }

  /** Everything is there and durable: the volume becomes what it was received for, in one step. */
  private async finishReceive(id: number, header: StreamHeader): Promise<VolumeInfo> {
    const { volumes } = this.catalogue;
    const partial = volumes.find((volume) => volume.id === id);
    const { contentId } = header;
    if (partial?.receiving === undefined) {
      throw new StorageError('ENOENT', 'Cannot end receiving: the volume that was received in part has been deleted');
    }
    const { targetId } = partial.receiving;
    if (targetId === null) {
      const { receiving: _, ...whole } = partial;
      const record: VolumeRecord = { ...whole, readOnly: true, contentId };
      this.replaceRecord(record);
      return this.info(record);
    }
    const target = volumes.find((volume) => volume.id === targetId);
    this.checkBase('end receiving', target, header);
    const from = target!;
    const to: VolumeRecord = { ...from, id, sizeBytes: partial.sizeBytes, readOnly: true, contentId };
    const others = volumes.filter((volume) => volume !== partial).map((volume) => (volume === from ? to : volume));
    await this.change(withOrigin(others, from.id, id), (stamp) => this.exchange(from, to, null, stamp), {
      gone: from.id,
    });
    return this.info(to);
  }
}
