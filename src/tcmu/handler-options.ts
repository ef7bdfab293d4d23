import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { LogicalUnit } from '../scsi/logical-unit.ts';
import type { TcmuPaths } from './configfs.ts';
import type { Neighbours } from './neighbours.ts';

/** What LIO knows of a device that is to be served. */
export interface TcmuDeviceInfo {
  /** The backstore's name in LIO. */
  readonly name: string;
  readonly minor: number;
  /** hw_block_size. */
  readonly blockSizeBytes: number;
  /** It was made while we run; what was there before had a volume, and must not get an empty one. */
  readonly isNew: boolean;
}

export interface TcmuHandlerOptions {
  /** The first part of dev_config that means us. Devices of other subtypes are never answered for. */
  readonly subtype: string;
  /** The logical unit of `cfgstring` (what follows the subtype), `sizeBytes` long. Rejects with a `StorageError`. */
  resolve(cfgstring: string, sizeBytes: number, device: TcmuDeviceInfo): Promise<LogicalUnit>;
  /** The device with this name in LIO does not use the unit any more. */
  release(cfgstring: string, unit: LogicalUnit, device: string): Promise<void> | void;
  /** Changes the size on LIO's request; the unit says so to its initiators. Rejects with a `StorageError`. */
  resize(cfgstring: string, sizeBytes: number): Promise<void>;
  /**
   * False once what is behind the device has failed for good: when we leave it, initiators get BUSY until they give up, and are not
   * kept waiting for a next process without end. Default: it has not.
   */
  works?(cfgstring: string): boolean;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly paths?: TcmuPaths;
  /** Default: there are none. */
  readonly neighbours?: Neighbours;
  /** Bytes of events that may be waiting for us; default: some ten thousand of them. */
  readonly eventBufferSize?: number;
}
