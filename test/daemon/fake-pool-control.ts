import { StorageError } from '../../src/base/errors.ts';
import type { AccessControl, AccessMessage } from '../../src/daemon/access-messages.ts';
import type {
  CreateSnapshotsMessage,
  CreateVolumeMessage,
  DmMessage,
  GrowPoolMessage,
  PoolMessage,
  RenameVolumeMessage,
  ResizeVolumeMessage,
  RollbackVolumeMessage,
  SetOptionsMessage,
  SetVolumeMessage,
  StatusLinesMessage,
  VolumeMessage,
} from '../../src/daemon/control-messages.ts';
import type { PoolControl, VolumeChunks } from '../../src/daemon/pool-control.ts';
import type { ClearReservationsMessage, VolumeReservationsMessage } from '../../src/daemon/reservation-messages.ts';
import type {
  ResumeTokenMessage,
  SendVolumeMessage,
  TrimMessage,
  TrimmedMessage,
} from '../../src/daemon/stream-messages.ts';
import { DEFAULT_POOL_OPTIONS } from '../../src/thin/pool-options.ts';

const { lowWaterBlocks: _, ...DEFAULT_OPTIONS } = DEFAULT_POOL_OPTIONS;

export const FAKE_RESERVATIONS: VolumeReservationsMessage = {
  volume: 'web',
  type: 'write-exclusive-registrants-only',
  survivesRestart: true,
  generation: 3,
  registrants: [
    {
      initiator: 'iqn.x:one',
      isid: '000000000001',
      targetPort: 1,
      loggedIn: true,
      key: '0x0000000000000abc',
      holdsReservation: true,
    },
  ],
  reservedBy: null,
};

/** A pool without a pool behind it: for what the socket between the two sides does, and for failures that no pool has on demand. */
export class FakePoolControl implements PoolControl {
  readonly volumes: Map<string, VolumeMessage> = new Map();
  /** Thrown by the next call. */
  failure: unknown = null;
  /** Awaited by every call. */
  delay: Promise<void> = Promise.resolve();
  calls = 0;
  entries: AccessMessage['entries'] = [];
  readonly access: AccessControl = {
    list: async () => ({ open: this.entries.length === 0, entries: this.entries }),
    allow: async ({ initiator, user = null, volumes = null, readOnly = false, mutual }) => {
      await this.#enter();
      const mutualUser = mutual?.user ?? null;
      this.entries.push({ initiator, denied: false, user, volumes, readOnly, mutualUser });
      return this.access.list();
    },
    deny: async ({ initiator }) => {
      await this.#enter();
      this.entries = this.entries.filter((entry) => entry.initiator !== initiator);
      return this.access.list();
    },
    setOpen: async ({ open }) => {
      await this.#enter();
      return { open, entries: this.entries };
    },
  };
  statusOverride: Partial<Record<keyof PoolMessage, unknown>> = {};

  async #enter(): Promise<void> {
    this.calls++;
    await this.delay;
    const { failure } = this;
    this.failure = null;
    if (failure !== null) throw failure;
  }

  async status(): Promise<PoolMessage> {
    await this.#enter();
    const status: PoolMessage = {
      name: 'pool',
      uuid: '8d4b8ed7-3b0c-4a63-9b9e-1f0e8f1a2b3c',
      directory: '/srv/pool',
      mode: 'write',
      needsCheck: false,
      transactionId: 7,
      blockSizeBytes: 65536,
      dataSizeBytes: 2 ** 40,
      dataUsedBytes: 0,
      lowWaterBytes: 0,
      dataIsLow: false,
      metadataIsLow: false,
      options: { ...DEFAULT_OPTIONS, lowWaterBytes: null },
      failsWhenFull: false,
      discardPassdown: true,
      metadataSizeBytes: 2 ** 22,
      metadataUsedBytes: 4096,
      volumeCount: this.volumes.size,
      deletedVolumeCount: 0,
      deletedBytes: 0,
      access: { open: true, entryCount: 0, problem: null },
      server: null,
    };
    return { ...status, ...this.statusOverride } as PoolMessage;
  }

  async grow({ dataSizeBytes, metadataSizeBytes }: GrowPoolMessage): Promise<PoolMessage> {
    if (dataSizeBytes !== undefined) this.statusOverride.dataSizeBytes = dataSizeBytes;
    if (metadataSizeBytes !== undefined) this.statusOverride.metadataSizeBytes = metadataSizeBytes;
    return this.status();
  }

  async setOptions({ readOnly }: SetOptionsMessage): Promise<PoolMessage> {
    this.statusOverride.options = { ...DEFAULT_OPTIONS, lowWaterBytes: null, readOnly: readOnly ?? false };
    return this.status();
  }

  async listVolumes(): Promise<VolumeMessage[]> {
    await this.#enter();
    return [...this.volumes.values()];
  }

  async createVolume({ name, sizeBytes, logicalBlockSize }: CreateVolumeMessage): Promise<VolumeMessage> {
    await this.#enter();
    const id = this.volumes.size;
    const volume = {
      name,
      id,
      lun: id,
      sizeBytes: sizeBytes ?? 0,
      mappedBytes: 0,
      serial: `s${id}`,
      naa: '3000000000000000',
    };
    this.volumes.set(name, {
      ...volume,
      logicalBlockSize: logicalBlockSize ?? 512,
      origin: null,
      readOnly: false,
      removable: false,
      physicalBlockSize: 4096,
      receivedBytes: null,
      externalOrigin: null,
      backstores: [],
    });
    return this.#volume(name);
  }

  async resizeVolume(name: string, { sizeBytes }: ResizeVolumeMessage): Promise<VolumeMessage> {
    await this.#enter();
    this.volumes.set(name, { ...this.#volume(name), sizeBytes });
    return this.#volume(name);
  }

  async setVolume(name: string, { readOnly = false }: SetVolumeMessage): Promise<VolumeMessage> {
    await this.#enter();
    this.volumes.set(name, { ...this.#volume(name), readOnly });
    return this.#volume(name);
  }

  async createSnapshots({ snapshots, readOnly = false }: CreateSnapshotsMessage): Promise<VolumeMessage[]> {
    await this.#enter();
    for (const { origin, name } of snapshots) {
      const id = this.volumes.size;
      this.volumes.set(name, { ...this.#volume(origin), name, id, lun: id, origin, readOnly });
    }
    return snapshots.map(({ name }) => this.#volume(name));
  }

  async renameVolume(name: string, request: RenameVolumeMessage): Promise<VolumeMessage> {
    await this.#enter();
    const volume = this.#volume(name);
    this.volumes.delete(name);
    this.volumes.set(request.name, { ...volume, name: request.name });
    return this.#volume(request.name);
  }

  async rollbackVolume(name: string, { snapshot }: RollbackVolumeMessage): Promise<VolumeMessage> {
    await this.#enter();
    const { sizeBytes } = this.#volume(snapshot);
    this.volumes.set(name, { ...this.#volume(name), sizeBytes });
    return this.#volume(name);
  }

  async message({ message }: DmMessage): Promise<number> {
    await this.#enter();
    if (message !== 'create_thin 0') throw new StorageError('EINVAL', `Cannot read the message: ${message}`);
    return 7;
  }

  async statusLines(): Promise<StatusLinesMessage> {
    await this.#enter();
    return { pool: { name: 'pool', line: '0 2048 thin-pool Fail' }, volumes: [] };
  }

  async deleteVolume(name: string): Promise<void> {
    await this.#enter();
    this.volumes.delete(this.#volume(name).name);
  }

  async commit(): Promise<number> {
    await this.#enter();
    return 7;
  }

  async close(): Promise<void> {}

  #volume(name: string): VolumeMessage {
    const volume = this.volumes.get(name);
    if (volume === undefined) throw new StorageError('ENOENT', `There is no volume "${name}"`);
    return volume;
  }

  /** What `send` sends, until it is closed. */
  stream: AsyncIterable<Uint8Array> = (async function* () {})();
  /** Streams that are open. */
  streams = 0;

  async send(_name: string, { keep }: SendVolumeMessage): Promise<VolumeChunks> {
    await this.#enter();
    this.streams++;
    let open = true;
    const close = async (): Promise<void> => {
      if (open) this.streams--;
      open = false;
    };
    return { expectedBytes: keep === undefined ? 1 : 2, chunks: this.stream, close };
  }

  /** After so many bytes `receive` has enough. */
  receiveLimit = Number.POSITIVE_INFINITY;

  async receive(name: string, input: AsyncIterable<Uint8Array>): Promise<VolumeMessage> {
    await this.#enter();
    let sizeBytes = 0;
    for await (const chunk of input) {
      sizeBytes += chunk.length;
      if (sizeBytes > this.receiveLimit) throw new StorageError('ENOSPC', 'that is enough');
    }
    return this.createVolume({ name, sizeBytes });
  }

  async resumeToken(name: string): Promise<ResumeTokenMessage> {
    await this.#enter();
    return { token: name };
  }

  async listReservations(): Promise<VolumeReservationsMessage[]> {
    await this.#enter();
    return [FAKE_RESERVATIONS];
  }

  async clearReservations(volume: string, { initiator }: ClearReservationsMessage): Promise<VolumeReservationsMessage> {
    await this.#enter();
    const registrants = FAKE_RESERVATIONS.registrants.filter((one) => one.initiator !== initiator);
    return { ...FAKE_RESERVATIONS, volume, registrants };
  }

  async trim({ fromBlock }: TrimMessage): Promise<TrimmedMessage> {
    await this.#enter();
    return { trimmedBytes: 65536, nextBlock: fromBlock === 0 ? 1 : null, blockCount: 2 };
  }
}
