import { assert } from '../base/assert.ts';
import { StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { isValidName } from '../base/names.ts';
import { formatSize } from '../base/units.ts';
import type { LogicalUnit } from '../scsi/logical-unit.ts';
import { MAX_REPORTED_LUNS } from '../scsi/report.ts';
import type { TcmuDeviceInfo } from '../tcmu/handler-options.ts';
import { AdvisedError } from './advised-error.ts';
import type { PoolServer } from './host-registry.ts';
import { servedBy } from './pool-access.ts';
import type { PoolService } from './pool-service.ts';

export interface VolumePath {
  readonly pool: string;
  readonly volume: string;
}

/** `POOL/VOLUME`, what targetcli is given as cfgstring. Throws EINVAL. */
export function parseVolumePath(cfgstring: string): VolumePath {
  const [pool, volume, ...more] = cfgstring.split('/');
  if (!pool || !volume || more.length > 0) {
    throw new StorageError(
      'EINVAL',
      `Cannot read "${cfgstring}": expected POOL/VOLUME, the names of a pool and a volume in it`,
    );
  }
  return { pool, volume };
}

/** The volumes of the served pools as LIO's backstores see them. */
export class TcmuVolumes {
  /** Pools by their names. */
  readonly #find: (poolName: string) => PoolService | undefined;
  /** Pools of other processes. */
  readonly #findElsewhere: (poolName: string) => PoolServer | null;
  readonly #logger: Logger;

  constructor(
    find: (poolName: string) => PoolService | undefined,
    findElsewhere: (poolName: string) => PoolServer | null,
    logger: Logger,
  ) {
    this.#find = find;
    this.#findElsewhere = findElsewhere;
    this.#logger = logger;
  }

  /** Whether its pool is served here, and has not failed. */
  has(cfgstring: string): boolean {
    return this.#find(parseVolumePath(cfgstring).pool) !== undefined;
  }

  /**
   * Whether a backstore could be made of it by us or another process of this host, before LIO makes it: its size is not known then. Changes
   * nothing. Rejects with a `StorageError` that has the reason, after some seconds where the pool's process does not answer.
   */
  async check(cfgstring: string): Promise<void> {
    const { pool } = parseVolumePath(cfgstring);
    const other = this.#find(pool) === undefined ? this.#findElsewhere(pool) : null;
    if (other === null) this.#checkHere(cfgstring);
    else await this.#checkElsewhere(pool, other);
  }

  #checkHere(cfgstring: string): void {
    const { service, volume } = this.#locate(cfgstring);
    const { pool } = service;
    if (pool.mode === 'fail') {
      throw new StorageError('EIO', `Cannot use "${cfgstring}": the pool has failed; see "thinlun pool status"`);
    }
    const known = pool.volumes().find(({ name }) => name === volume);
    if (known === undefined) requireRoom(cfgstring, service, volume);
    else if (known.receiving !== undefined || known.temporary) {
      throw new StorageError('EBUSY', `Cannot use the volume "${volume}": it has not been received whole`);
    }
  }

  async #checkElsewhere(pool: string, { pid, directory }: PoolServer): Promise<void> {
    if ((await servedBy(directory)) === null) {
      throw new StorageError('EAGAIN', `Cannot use "${pool}": process ${pid} has it and is starting or ending`);
    }
  }

  /** The unit of `POOL/VOLUME`; a volume that is not there is made. */
  async resolve(
    cfgstring: string,
    sizeBytes: number,
    { name: backstore, blockSizeBytes, isNew }: Pick<TcmuDeviceInfo, 'name' | 'blockSizeBytes' | 'isNew'>,
  ): Promise<LogicalUnit> {
    const { service, volume } = this.#locate(cfgstring);
    const known = service.pool.volumes().find(({ name }) => name === volume);
    if (known === undefined) {
      if (!isNew) {
        // An initiator may have it mounted: it would see an empty disk.
        throw new AdvisedError(
          'ENOENT',
          `Cannot serve "${cfgstring}": the backstore is older than this server, and its volume is not there`,
          `Delete the backstore with targetcli, or give it an empty volume with "thinlun volume create ${service.pool.dir} ${volume} --size ${sizeBytes}".`,
        );
      }
      const logicalBlockSize = blockSizeBytes === 4096 ? 4096 : 512;
      await service.createVolume({ name: volume, sizeBytes, logicalBlockSize });
      this.#logger.info({ cfgstring, sizeBytes }, 'made the volume for a new backstore');
    } else if (known.logicalBlockSize !== blockSizeBytes) {
      throw new AdvisedError(
        'EINVAL',
        `Cannot use the volume "${volume}": it has blocks of ${known.logicalBlockSize} bytes, the backstore of ${blockSizeBytes}`,
        `Create the backstore with hw_block_size=${known.logicalBlockSize}.`,
      );
    } else if (known.sizeBytes !== sizeBytes) {
      // Refusing would take a volume away that was resized while LIO did not look.
      const sizes = { volume: formatSize(known.sizeBytes), backstore: formatSize(sizeBytes) };
      this.#logger.warn({ cfgstring, ...sizes }, "the volume's size is served, not the backstore's");
    }
    assert(service.exports !== null, 'a served pool has exports');
    return service.exports.acquire(volume, backstore);
  }

  release(cfgstring: string, unit: LogicalUnit, backstore: string): void {
    const { pool } = parseVolumePath(cfgstring);
    this.#find(pool)?.exports?.release(unit, backstore);
  }

  async resize(cfgstring: string, sizeBytes: number): Promise<void> {
    const { service, volume } = this.#locate(cfgstring);
    await service.resizeVolume(volume, { sizeBytes });
  }

  #locate(cfgstring: string): { service: PoolService; volume: string } {
    const { pool, volume } = parseVolumePath(cfgstring);
    const service = this.#find(pool);
    if (service === undefined) {
      throw new AdvisedError(
        'ENODEV',
        `Cannot use "${cfgstring}": no pool "${pool}" is served here`,
        `Serve it with "thinlun serve DIR --tcmu".`,
      );
    }
    return { service, volume };
  }
}

/** Throws unless a volume of this name, which is not there, could be made. */
function requireRoom(cfgstring: string, { pool, exports }: PoolService, volume: string): void {
  if (!isValidName(volume)) {
    throw new StorageError(
      'EINVAL',
      `Cannot make the volume "${volume}": a name has letters, digits, ".", "_" and "-", begins with a letter or a digit, and has 128 at most`,
    );
  }
  if (pool.mode !== 'write' && pool.mode !== 'out-of-data-space') {
    throw new StorageError(
      'EROFS',
      `Cannot make the volume "${volume}": the pool is in mode ${pool.mode}; see "thinlun pool status ${pool.dir}"`,
    );
  }
  assert(exports !== null, 'a served pool has exports');
  if (exports.target.allLuns.length >= MAX_REPORTED_LUNS) {
    throw new StorageError('ENOSPC', `Cannot use "${cfgstring}": the pool has all the volumes that can be served`);
  }
}
