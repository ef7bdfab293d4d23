/**
 * thinlun as a library: pools of thin volumes, logical units over anything, the iSCSI portal, and the server that puts them
 * together. Everything that takes time or randomness takes it through its constructor.
 */
export { AssertionError } from './base/assert.ts';
export { type Clock, monotonicClock, type Timer } from './base/clock.ts';
export { type Errno, StorageError } from './base/errors.ts';
export { type Logger, silentLogger } from './base/log.ts';
export { formatSize, parseSize } from './base/units.ts';
export type { BlockDevice, IoCompletion } from './block/block-device.ts';
export { openBlockDevice } from './block/file-device.ts';
export { IoVector } from './block/io-vector.ts';
export { type LunBackend, LunOp, LunRequest, type LunRequestOwner } from './block/lun-backend.ts';
export { MemoryDevice, type MemoryDeviceOptions } from './block/memory-device.ts';
export { MemoryLun, type MemoryLunOptions } from './block/memory-lun.ts';
export { ControlClient } from './daemon/control-client.ts';
export type { CreateVolumeMessage, PoolMessage, ServerMessage, VolumeMessage } from './daemon/control-messages.ts';
export { Daemon, type DaemonOptions } from './daemon/daemon.ts';
export { accessPool } from './daemon/pool-access.ts';
export type { PoolControl } from './daemon/pool-control.ts';
export type { Admission, Credential, Gate, Identity, TargetDirectory } from './iscsi/access.ts';
export { OpenDirectory } from './iscsi/open-directory.ts';
export { Portal } from './iscsi/portal.ts';
export { LogicalUnit } from './scsi/logical-unit.ts';
export { Nexus } from './scsi/nexus.ts';
export { Target } from './scsi/target.ts';
export { ScsiTask, type ScsiTaskOwner } from './scsi/task.ts';
export type { LogicalUnitOptions } from './scsi/unit-state.ts';
export { Pool, type PoolOpenOptions } from './thin/pool.ts';
export { createPool, type PoolCreateOptions } from './thin/pool-create.ts';
export type { PoolEvent, PoolMode } from './thin/pool-mode.ts';
export type { AutoExtend, PoolOptions } from './thin/pool-options.ts';
export type { SendOptions, VolumeStream } from './thin/pool-sending.ts';
export type { PoolStatus, PoolStatusLines } from './thin/pool-status.ts';
export type { SnapshotWish, VolumeInfo } from './thin/pool-volumes.ts';
export { parseToken, type ResumePoint, type StreamHeader } from './thin/stream-format.ts';
export { ThinDevice } from './thin/thin-device.ts';
export { type CheckSummary, checkMetadata } from './tools/check.ts';
export { checkPool, type PoolCheck } from './tools/check-pool.ts';
export { type Damage, describeDamage } from './tools/damage.ts';
export type { MetadataVisitor } from './tools/ir.ts';
export { visitMetadata } from './tools/mappings.ts';
