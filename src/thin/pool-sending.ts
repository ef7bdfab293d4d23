import { isDeepStrictEqual } from 'node:util';
import { messageOf, StorageError } from '../base/errors.ts';
import type { BlockDevice } from '../block/block-device.ts';
import type { VolumeRecord } from './catalogue.ts';
import { newUuid } from './identity.ts';
import { NO_TREE } from './mapping-diff.ts';
import { PoolDevices } from './pool-devices.ts';
import type { ResumePoint, StreamHeader } from './stream-format.ts';
import type { ThinDevice } from './thin-device.ts';
import { countDifference, type SendSource, sendStream } from './volume-sender.ts';

const MAX_NAME_LENGTH = 128;

export interface SendOptions {
  /** A read-only volume that the receiver has: only what differs from it is sent. */
  from?: string | undefined;
  /** Where a stream of the same volume was cut off. */
  resume?: ResumePoint | undefined;
  /** Keeps the snapshot that is taken of a writable volume, under this name, for later increments. */
  keep?: string | undefined;
}

/** A stream that has been begun. It holds volumes open and perhaps a snapshot until it is closed. */
export interface VolumeStream {
  readonly header: StreamHeader;
  /** To be read once. */
  readonly chunks: AsyncGenerator<Uint8Array, void>;
  /** Ends the stream, wherever it is. */
  close(): Promise<void>;
}

/** Sending volumes. */
export abstract class PoolSending extends PoolDevices {
  protected abstract readonly metadataDevice: BlockDevice;
  /** How each stream is ended, and the devices that have to stay as they are until then. */
  protected readonly sending: Map<() => Promise<void>, readonly number[]> = new Map();
  protected transfersEnded = false;

  /**
   * Begins the stream of a volume at one moment: of a read-only volume as it is, of another one as a snapshot has it that is taken now. Throws ENOENT;
   * EINVAL when the base can have changed since it was sent, or what was sent before is not what is sent now; EBUSY.
   */
  async sendVolume(name: string, options: SendOptions = {}): Promise<VolumeStream> {
    const { from, resume, keep } = options;
    const action = `send the volume "${name}"`;
    this.checkTransfers(action);
    const base = this.sendBase(action, from, resume);
    if (base?.name === name)
      throw new StorageError('EINVAL', `Cannot ${action}: it is the same as what it is to differ from`);
    const source = await this.sendSource(action, name, resume, keep);
    const opened: ThinDevice[] = [];
    let closing: Promise<void> | null = null;
    let chunks: AsyncGenerator<Uint8Array, void> | null = null;
    const close = (): Promise<void> => {
      closing ??= this.endSend(source, opened, chunks).finally(() => this.sending.delete(close));
      return closing;
    };
    this.sending.set(close, base === null ? [source.id] : [source.id, base.id]);
    try {
      if (base !== null && !isDeepStrictEqual(base.externalOrigin, source.externalOrigin)) {
        throw new StorageError('EINVAL', `Cannot ${action}: it and "${base.name}" stand on different external origins`);
      }
      const header = await this.sendHeader(name, source, base, resume);
      const device = this.openVolume(source.name);
      opened.push(device);
      let baseRoot = NO_TREE;
      if (base !== null) {
        const baseDevice = this.openVolume(base.name);
        opened.push(baseDevice);
        baseRoot = baseDevice.thin.root;
      }
      const externalBytes = Math.min(source.externalOrigin?.sizeBytes ?? 0, source.sizeBytes);
      const baseBytes = base?.sizeBytes ?? source.sizeBytes;
      const what: SendSource = { device, baseRoot, metadataDevice: this.metadataDevice, externalBytes, baseBytes };
      header.expectedBytes = await countDifference(what, header.beginBytes);
      chunks = sendStream(what, header);
      return { header, chunks, close };
    } catch (error) {
      await close();
      throw error;
    }
  }

  private sendBase(action: string, from: string | undefined, resume: ResumePoint | undefined): VolumeRecord | null {
    if (resume?.baseContentId) {
      const { baseContentId } = resume;
      const base = this.catalogue.volumes.find(({ contentId, readOnly }) => readOnly && contentId === baseContentId);
      if (base === undefined || (from !== undefined && base.name !== from)) {
        const reason = 'the snapshot that it was to differ from is not there any more';
        throw new StorageError(
          'EINVAL',
          `Cannot ${action}: ${from === undefined ? reason : `the token is not for "${from}"`}`,
        );
      }
      return base;
    }
    if (from === undefined) return null;
    if (resume !== undefined) throw new StorageError('EINVAL', `Cannot ${action}: the token is for the whole volume`);
    const base = this.record(from);
    if (base.readOnly) return base;
    const reason = `"${from}" can be written, so that it may not be any more what the receiver has`;
    throw new StorageError('EINVAL', `Cannot ${action}: ${reason}`);
  }

  /** The volume that is sent: `name` itself or a snapshot of it. */
  private async sendSource(
    action: string,
    name: string,
    resume: ResumePoint | undefined,
    keep: string | undefined,
  ): Promise<VolumeRecord> {
    const record = this.record(name);
    if (record.receiving !== undefined) {
      throw new StorageError('EBUSY', `Cannot ${action}: it has not been received whole`);
    }
    if (resume !== undefined && (!record.readOnly || record.contentId !== resume.contentId)) {
      throw new StorageError(
        'EINVAL',
        `Cannot ${action}: the token is for another volume, or for a snapshot that was not kept`,
      );
    }
    if (record.readOnly) {
      if (keep === undefined) return record;
      throw new StorageError(
        'EINVAL',
        `Cannot ${action}: it is read-only and is sent itself, so there is no snapshot to keep`,
      );
    }
    const snapshot = keep ?? this.freeName(name, '.sending');
    return this.createSnapshot(name, snapshot, { readOnly: true, temporary: keep === undefined });
  }

  private sendHeader(
    name: string,
    source: VolumeRecord,
    base: VolumeRecord | null,
    resume: ResumePoint | undefined,
  ): Promise<StreamHeader> {
    return this.exclusive(async () => {
      const { sizeBytes, logicalBlockSize } = source;
      return {
        volume: name,
        contentId: this.contentId(source.id),
        baseContentId: base === null ? null : this.contentId(base.id),
        sizeBytes,
        logicalBlockSize,
        blockSizeBytes: this.metadata.dataBlockSizeBytes,
        beginBytes: Math.min(resume?.positionBytes ?? 0, sizeBytes),
        expectedBytes: 0,
      };
    });
  }

  private async endSend(
    source: VolumeRecord,
    opened: readonly ThinDevice[],
    chunks: AsyncGenerator<Uint8Array, void> | null,
  ): Promise<void> {
    await chunks?.return();
    for (const device of opened) await this.closeVolume(device);
    if (!source.temporary) return;
    const record = this.catalogue.volumes.find(({ id }) => id === source.id);
    try {
      if (record !== undefined) await this.deleteVolume(record.name);
    } catch (error) {
      // The next open does it.
      this.logger.warn({ volume: source.name, error: messageOf(error) }, 'a temporary snapshot could not be deleted');
    }
  }

  /** What names the content of a read-only volume. */
  private contentId(id: number): string {
    const { volumes } = this.catalogue;
    const record = volumes.find((volume) => volume.id === id);
    if (record === undefined) throw new StorageError('ENOENT', `There is no device ${id} any more`);
    if (!record.readOnly)
      throw new StorageError('EBUSY', `Cannot send the volume "${record.name}": it can be written now`);
    if (record.contentId !== undefined) return record.contentId;
    const contentId = newUuid(this.random);
    this.catalogue.replace(volumes.map((volume) => (volume === record ? { ...record, contentId } : volume)));
    return contentId;
  }

  /** `name` with `ending`, or something like it, that no volume has. */
  protected freeName(name: string, ending: string): string {
    const taken = new Set(this.catalogue.volumes.map((volume) => volume.name));
    for (let count = 1; ; count++) {
      const suffix = count === 1 ? ending : `${ending}-${count}`;
      const candidate = `${name.slice(0, MAX_NAME_LENGTH - suffix.length)}${suffix}`;
      if (!taken.has(candidate)) return candidate;
    }
  }

  protected checkTransfers(action: string): void {
    if (this.transfersEnded) throw new StorageError('ESHUTDOWN', `Cannot ${action}: the pool is being closed`);
  }
}
