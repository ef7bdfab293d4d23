import type { Clock } from '../base/clock.ts';
import { StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { formatSize } from '../base/units.ts';
import { CatalogueError } from '../thin/catalogue.ts';
import { Pool } from '../thin/pool.ts';
import type { PoolEvent } from '../thin/pool-mode.ts';
import type { VolumeInfo } from '../thin/pool-volumes.ts';
import { parseThinMessage, type ThinMessage } from '../thin/thin-message.ts';
import { AdvisedError, advise } from './advised-error.ts';
import type {
  CreateSnapshotsMessage,
  CreateVolumeMessage,
  DmMessage,
  GrowPoolMessage,
  PoolMessage,
  RenameVolumeMessage,
  ResizeVolumeMessage,
  RollbackVolumeMessage,
  ServerMessage,
  SetOptionsMessage,
  SetVolumeMessage,
  StatusLinesMessage,
  VolumeMessage,
} from './control-messages.ts';
import { PoolAccessControl } from './pool-access-control.ts';
import type { PoolControl, VolumeChunks } from './pool-control.ts';
import { poolMessage, poolOptions, volumeMessage } from './pool-messages.ts';
import type { ClearReservationsMessage, VolumeReservationsMessage } from './reservation-messages.ts';
import type { ResumeTokenMessage, SendVolumeMessage, TrimMessage, TrimmedMessage } from './stream-messages.ts';
import type { VolumeExports } from './volume-exports.ts';
import { VolumeReservations } from './volume-reservations.ts';
import { VolumeTransfers } from './volume-transfers.ts';

export interface PoolServiceOptions {
  logger: Logger;
  clock: Clock;
  readOnly?: boolean;
  onEvent?: (event: PoolEvent) => void;
  /** See `PoolOpenOptions`. */
  lockFd?: number;
}

/** A pool that this process has open: in a command for a moment, in a server together with its `exports`. */
export class PoolService implements PoolControl {
  readonly pool: Pool;
  /** What `status` says about this process as a server; null when it is none. */
  describeServer: () => ServerMessage | null = () => null;
  /** Where its volumes are logical units; null while they are not served. */
  exports: VolumeExports | null = null;
  readonly reservations: VolumeReservations;
  /** Administrative calls take turns, so that catalogue and LUNs always change together. */
  #turn: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | null = null;
  readonly access: PoolAccessControl;
  readonly #transfers: VolumeTransfers;

  private constructor(pool: Pool, logger: Logger) {
    this.pool = pool;
    this.access = new PoolAccessControl(pool.dir, (call) => this.#exclusive(call));
    this.reservations = new VolumeReservations(pool, logger);
    this.#transfers = new VolumeTransfers(pool);
  }

  /** Throws what `Pool.open` throws: EBUSY when another process has the pool. */
  static async open(dir: string, options: PoolServiceOptions): Promise<PoolService> {
    const { logger, clock, readOnly, onEvent, lockFd } = options;
    try {
      const pool = await Pool.open(dir, {
        logger,
        clock,
        ...(readOnly === undefined ? {} : { readOnly }),
        ...(onEvent === undefined ? {} : { onEvent }),
        ...(lockFd === undefined ? {} : { lockFd }),
      });
      return new PoolService(pool, logger);
    } catch (error) {
      throw adviseOpen(dir, error);
    }
  }

  async status(): Promise<PoolMessage> {
    return poolMessage(this.pool, this.access.summary(), this.describeServer());
  }

  grow({ dataSizeBytes, metadataSizeBytes }: GrowPoolMessage): Promise<PoolMessage> {
    return this.#exclusive(async () => {
      if (metadataSizeBytes !== undefined) await this.pool.growMetadata(metadataSizeBytes);
      if (dataSizeBytes !== undefined) await this.pool.growData(dataSizeBytes);
      return this.status();
    });
  }

  setOptions(request: SetOptionsMessage): Promise<PoolMessage> {
    return this.#exclusive(async () => {
      const before = this.pool.status();
      try {
        await this.pool.setOptions(poolOptions(request, before.blockSizeBytes));
      } catch (error) {
        const busy = error instanceof StorageError && error.code === 'EBUSY';
        throw busy ? advise(error, 'Stop the server of the pool, set it, and start the server again.') : error;
      }
      // LBPRZ follows it.
      if (this.pool.status().options.skipBlockZeroing !== before.options.skipBlockZeroing) {
        this.exports?.featuresChanged();
      }
      return this.status();
    });
  }

  async listVolumes(): Promise<VolumeMessage[]> {
    return this.pool
      .volumes()
      .map((volume) => this.#describe(volume))
      .sort((a, b) => a.lun - b.lun);
  }

  createVolume({ name, sizeBytes, ...options }: CreateVolumeMessage): Promise<VolumeMessage> {
    return this.#exclusive(async () => {
      const volume = await this.pool.createVolume(name, sizeBytes, options);
      this.exports?.add(volume);
      return this.#describe(volume);
    });
  }

  resizeVolume(name: string, { sizeBytes, allowShrink }: ResizeVolumeMessage): Promise<VolumeMessage> {
    return this.#exclusive(async () => {
      const now = this.pool.volume(name).sizeBytes;
      if (sizeBytes < now && !allowShrink) {
        throw new AdvisedError(
          'EINVAL',
          `Cannot resize the volume "${name}" to ${formatSize(sizeBytes)}: it has ${formatSize(now)}`,
          'Making it smaller drops what lies past the new end; add --shrink if that is what you want.',
        );
      }
      const volume = await this.pool.resizeVolume(name, sizeBytes);
      this.exports?.resized(name);
      return this.#describe(volume);
    });
  }

  setVolume(name: string, request: SetVolumeMessage): Promise<VolumeMessage> {
    return this.#exclusive(async () => {
      const before = this.pool.volume(name);
      const volume = await this.pool.setVolume(name, request);
      this.exports?.settingsChanged(before, volume);
      return this.#describe(volume);
    });
  }

  createSnapshots({ snapshots, readOnly }: CreateSnapshotsMessage): Promise<VolumeMessage[]> {
    return this.#exclusive(async () => {
      const made = await this.pool.createSnapshots(snapshots, { readOnly: readOnly ?? false });
      for (const volume of made) this.exports?.add(volume);
      return made.map((volume) => this.#describe(volume));
    });
  }

  renameVolume(name: string, request: RenameVolumeMessage): Promise<VolumeMessage> {
    return this.#exclusive(async () => {
      this.exports?.requireNoTcmu(name, 'rename');
      return this.access.renamed(name, request.name, async () => {
        const volume = await this.pool.renameVolume(name, request.name);
        this.exports?.rename(name, request.name);
        return this.#describe(volume);
      });
    });
  }

  rollbackVolume(name: string, { snapshot, force }: RollbackVolumeMessage): Promise<VolumeMessage> {
    return this.#exclusive(async () => {
      const related = this.pool.isSnapshotOf(snapshot, name);
      const users = this.exports?.usersOf(name) ?? 0;
      if (users > 0 && !force) {
        throw new AdvisedError(
          'EBUSY',
          `Cannot roll back the volume "${name}": ${users} ${users === 1 ? 'initiator uses' : 'initiators use'} it`,
          'Unmount it and log out there first. With --force it is done under their feet: they are told that the medium has changed, and ' +
            'what they have cached or mounted of the old content damages the new one when they write it.',
        );
      }
      if (!related && !force && snapshot !== name) {
        throw new AdvisedError(
          'EINVAL',
          `Cannot roll back the volume "${name}" to "${snapshot}": that is no snapshot of it`,
          'Add --force if the volume is to have its content all the same.',
        );
      }
      return this.#describe(await this.#changeContent(name, () => this.pool.rollbackVolume(name, snapshot)));
    });
  }

  async send(name: string, request: SendVolumeMessage): Promise<VolumeChunks> {
    const { keep } = request;
    if (keep === undefined) return this.#alive(() => this.#transfers.send(name, request));
    return this.#exclusive(async () => {
      const stream = await this.#transfers.send(name, request);
      this.exports?.add(this.pool.volume(keep));
      return stream;
    });
  }

  receive(name: string, input: AsyncIterable<Uint8Array>): Promise<VolumeMessage> {
    return this.#alive(async () => {
      const before = this.pool.volumes().find((volume) => volume.name === name && volume.receiving === undefined);
      const volume = await this.#changeContent(name, () => this.#transfers.receive(name, input));
      if (before === undefined) this.exports?.add(volume);
      else if (before.sizeBytes !== volume.sizeBytes) this.exports?.resized(volume.name);
      return this.#describe(volume);
    });
  }

  async resumeToken(name: string): Promise<ResumeTokenMessage> {
    return { token: this.pool.resumeToken(name) };
  }

  trim({ fromBlock }: TrimMessage): Promise<TrimmedMessage> {
    return this.#exclusive(async () => {
      const { trimmedBlocks, nextBlock } = await this.pool.trimFree(fromBlock);
      const { blockSizeBytes, dataBlocks: blockCount } = this.pool.status();
      return { trimmedBytes: trimmedBlocks * blockSizeBytes, nextBlock, blockCount };
    });
  }

  message({ message }: DmMessage): Promise<number> {
    return this.#exclusive(async () => {
      this.pool.requireMessages();
      await this.#obey(parseThinMessage(message));
      return this.pool.status().transactionId;
    });
  }

  async statusLines(): Promise<StatusLinesMessage> {
    const { pool, volumes } = await this.pool.statusLines();
    return { pool: { name: this.pool.name, line: pool }, volumes };
  }

  deleteVolume(name: string): Promise<void> {
    return this.#exclusive(async () => {
      await this.#withdrawn(name, () => this.pool.deleteVolume(name));
      // Without a server nobody would go on with it.
      if (this.exports === null) await this.pool.deletionsEnded();
    });
  }

  async listReservations(): Promise<VolumeReservationsMessage[]> {
    const volumes = this.pool.volumes().sort((a, b) => a.lun - b.lun);
    return volumes.map((volume) =>
      this.reservations.describe(volume, this.exports?.reservationsOf(volume.name) ?? null),
    );
  }

  clearReservations(name: string, request: ClearReservationsMessage): Promise<VolumeReservationsMessage> {
    return this.#exclusive(async () =>
      this.reservations.clear(this.pool.volume(name), this.exports?.reservationsOf(name) ?? null, request),
    );
  }

  async commit(): Promise<number> {
    await this.pool.commit();
    return this.pool.status().transactionId;
  }

  /** Withdraws the volumes, answers what is in flight, commits, gives the pool back. Every call waits for the same end. */
  close(): Promise<void> {
    this.#closing ??= this.#turn
      .catch(() => {})
      .then(() => this.pool.endTransfers())
      .then(() => this.exports?.close())
      .then(() => this.reservations.close())
      .finally(() => this.pool.close());
    return this.#closing;
  }

  async #obey(message: ThinMessage): Promise<void> {
    const { pool, exports } = this;
    switch (message.kind) {
      case 'create_thin': {
        const made = await pool.createThin(message.id, message.sizeBytes);
        exports?.add(made);
        break;
      }
      case 'create_snap': {
        const made = await pool.createSnap(message.id, message.origin);
        exports?.add(made);
        break;
      }
      case 'delete': {
        const { id } = message;
        const name = pool.nameOfThin(id);
        if ((exports?.usersOf(name) ?? 0) > 0) {
          throw new StorageError('EBUSY', `Cannot delete thin device ${id}: initiators use its volume "${name}"`);
        }
        await this.#withdrawn(name, () => pool.deleteThin(id));
        break;
      }
      case 'trim': {
        const { name } = await pool.trimThin(message.id, message.sizeBytes);
        exports?.resized(name);
        break;
      }
      case 'set_transaction_id':
        await pool.setTransactionId(message.expected, message.next);
        break;
      case 'reserve_metadata_snap':
        await pool.reserveMetadataSnapshot();
        break;
      default:
        await pool.releaseMetadataSnapshot();
    }
  }

  /** Deletes a volume that nobody can reach meanwhile; it is served again when that fails. */
  async #withdrawn(name: string, deleteIt: () => Promise<void>): Promise<void> {
    const volume = this.pool.volume(name);
    await this.exports?.remove(name);
    try {
      await deleteIt();
    } catch (error) {
      this.exports?.add(volume);
      throw error;
    }
    await this.reservations.forget(volume);
  }

  /** `work` puts something else into a volume. */
  #changeContent<T>(name: string, work: () => Promise<T>): Promise<T> {
    return this.exports === null ? work() : this.exports.changeContent(name, work);
  }

  #exclusive<T>(call: () => Promise<T>): Promise<T> {
    const result = this.#alive(() => this.#turn.catch(() => {}).then(call));
    this.#turn = result;
    return result;
  }

  #describe(volume: VolumeInfo): VolumeMessage {
    return volumeMessage(volume, this.exports?.backstoresOf(volume.name) ?? []);
  }

  async #alive<T>(call: () => Promise<T>): Promise<T> {
    if (this.#closing !== null) throw new StorageError('ESHUTDOWN', 'Cannot change the pool: it is being closed');
    try {
      return await call();
    } catch (error) {
      throw this.#advised(error);
    }
  }

  #advised(error: unknown): unknown {
    if (!(error instanceof StorageError)) return error;
    const { dir } = this.pool;
    switch (error.code) {
      case 'ENOENT':
        return advise(error, `See what is there with "thinlun volume list ${dir}".`);
      case 'EEXIST':
        return advise(error, `Choose another name, or see what is there with "thinlun volume list ${dir}".`);
      case 'EROFS':
        return advise(
          error,
          `See why with "thinlun pool status ${dir}", and look for damage with "thinlun check ${dir}".`,
        );
      case 'ENOSPC':
        return advise(error, `See what is full with "thinlun pool status ${dir}".`);
      default:
        return error;
    }
  }
}

/** Of metadata that is not what it ought to be. */
const DAMAGE: ReadonlySet<string> = new Set(['EILSEQ', 'ENOTBLK', 'ENODATA']);

/** What to do about a pool that does not open. */
function adviseOpen(dir: string, error: unknown): unknown {
  if (error instanceof CatalogueError) {
    const advice = `Put back the pool.json that belongs to the metadata; "thinlun check ${dir}" says whether the metadata itself is good.`;
    return advise(error, advice);
  }
  if (!(error instanceof StorageError) || !DAMAGE.has(error.code)) return error;
  const advice = `See all of it with "thinlun check ${dir}"; "thinlun repair -i ${dir} -o NEW" saves what can be read. Write nothing to it before.`;
  return advise(error, advice);
}
