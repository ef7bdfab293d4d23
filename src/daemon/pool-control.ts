import type { AccessControl } from './access-messages.ts';
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
} from './control-messages.ts';
import type { ClearReservationsMessage, VolumeReservationsMessage } from './reservation-messages.ts';
import type {
  ResumeTokenMessage,
  SendVolumeMessage,
  StreamMessage,
  TrimMessage,
  TrimmedMessage,
} from './stream-messages.ts';

/** A stream on its way; it has to be closed, wherever it is. */
export interface VolumeChunks extends StreamMessage {
  /** To be read once. */
  readonly chunks: AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}

/**
 * What can be done with a pool, wherever it is open: in this process (`PoolService`) or in a server's (`ControlClient`).
 * Everything throws `StorageError`, with a hint where somebody knows one (`hintOf`).
 */
export interface PoolControl {
  /** Who may log in. */
  readonly access: AccessControl;
  status(): Promise<PoolMessage>;
  /** Makes the data device, the metadata device or both larger. EINVAL, also for a size that is not larger; EOPNOTSUPP; EROFS. */
  grow(request: GrowPoolMessage): Promise<PoolMessage>;
  /** Sets features of the pool, at once and for good. EINVAL; EBUSY for `ignoreDiscard` while the volumes are served; EROFS. */
  setOptions(request: SetOptionsMessage): Promise<PoolMessage>;
  /** In the order of their LUNs. */
  listVolumes(): Promise<VolumeMessage[]>;
  /** EEXIST; EINVAL for a name or size that cannot be; ENOSPC; EROFS. */
  createVolume(request: CreateVolumeMessage): Promise<VolumeMessage>;
  /** ENOENT; EINVAL, also for a smaller size that is not allowed explicitly. */
  resizeVolume(name: string, request: ResizeVolumeMessage): Promise<VolumeMessage>;
  /** Sets properties of a volume, at once and for good; initiators are told. ENOENT; EINVAL; EBUSY while it is sent or received. */
  setVolume(name: string, request: SetVolumeMessage): Promise<VolumeMessage>;
  /**
   * Takes snapshots of volumes, all at one moment; a server serves them at once. ENOENT; EEXIST; EINVAL for a name that cannot be; ENOSPC; EROFS;
   * ERANGE.
   */
  createSnapshots(request: CreateSnapshotsMessage): Promise<VolumeMessage[]>;
  /** ENOENT; EEXIST; EINVAL for a name that cannot be; EBUSY while a TCMU device stands on the volume. */
  renameVolume(name: string, request: RenameVolumeMessage): Promise<VolumeMessage>;
  /**
   * Gives a volume content and size of a snapshot. ENOENT; EINVAL where the two cannot have the same content; ENOSPC; EROFS. Unless forced: EBUSY while
   * initiators use the volume, EINVAL when `snapshot` is none of it.
   */
  rollbackVolume(name: string, request: RollbackVolumeMessage): Promise<VolumeMessage>;
  /**
   * Begins the stream of a volume at one moment. ENOENT; EINVAL where the base may have changed, and for a token that does not fit; EBUSY while it is
   * received itself; EEXIST for the name of a snapshot to be kept.
   */
  send(name: string, request: SendVolumeMessage): Promise<VolumeChunks>;
  /** Makes a volume of a stream, or brings one to the stream's moment. EEXIST; ENOENT; EINVAL, also for a damaged stream; ENOSPC; what `input` throws. */
  receive(name: string, input: AsyncIterable<Uint8Array>): Promise<VolumeMessage>;
  /** Where the stream of a volume has to go on that was received in part. ENOENT, EINVAL. */
  resumeToken(name: string): Promise<ResumeTokenMessage>;
  /** Discards a part of the free space, while the volumes are in use. EOPNOTSUPP where the device cannot; EROFS; EIO. */
  trim(request: TrimMessage): Promise<TrimmedMessage>;
  /** Does what one of dm-thin's messages says, with the kernel's errors; returns the transaction id. */
  message(request: DmMessage): Promise<number>;
  /** What `dmsetup status` says of the pool and its volumes, in the order of their LUNs. */
  statusLines(): Promise<StatusLinesMessage>;
  /** ENOENT; EBUSY. */
  deleteVolume(name: string): Promise<void>;
  /** Who has reserved what, in the order of the LUNs. EINVAL when what is kept of them cannot be read. */
  listReservations(): Promise<VolumeReservationsMessage[]>;
  /** Takes registrations and reservations of a volume away. ENOENT; unless forced, EBUSY while who loses them is logged in. */
  clearReservations(name: string, request: ClearReservationsMessage): Promise<VolumeReservationsMessage>;
  /** Makes everything written so far durable. Returns the superblock's transaction id. */
  commit(): Promise<number>;
  /** Ends the use; the pool itself is closed only where this process had opened it. */
  close(): Promise<void>;
}
