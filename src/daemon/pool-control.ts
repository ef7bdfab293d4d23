import type {
  CreateVolumeMessage,
  GrowPoolMessage,
  PoolMessage,
  ResizeVolumeMessage,
  SetOptionsMessage,
  VolumeMessage,
} from './control-messages.ts';

/**
 * What can be done with a pool, wherever it is open: in this process (`PoolService`) or in a server's (`ControlClient`).
 * Everything throws `StorageError`, with a hint where somebody knows one (`hintOf`).
 */
export interface PoolControl {
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
  /** ENOENT; EBUSY. */
  deleteVolume(name: string): Promise<void>;
  /** Makes everything written so far durable. Returns the superblock's transaction id. */
  commit(): Promise<number>;
  /** Ends the use; the pool itself is closed only where this process had opened it. */
  close(): Promise<void>;
}
