import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { StorageError } from '../base/errors.ts';
import { SECTOR_SIZE } from '../base/units.ts';
import { Catalogue } from '../thin/catalogue.ts';
import { openPoolFile } from '../thin/pool-files.ts';
import type { PoolRecord } from './ir.ts';
import type { RestoreTarget } from './restorer.ts';

/**
 * New metadata for a pool that has a folder. It has to fit the pool's data; the catalogue follows it to its transaction. Which volumes there are the
 * metadata says: the pool gives a name to those that the catalogue does not know, and forgets those that are gone, when it is opened.
 */
export class PoolTarget implements RestoreTarget {
  readonly #dir: string;
  readonly #catalogue: Catalogue;
  readonly #dataSizeBytes: number;

  private constructor(dir: string, catalogue: Catalogue, dataSizeBytes: number) {
    this.#dir = dir;
    this.#catalogue = catalogue;
    this.#dataSizeBytes = dataSizeBytes;
  }

  /** Throws `StorageError` when the pool has no catalogue or no data. */
  static async open(dir: string): Promise<PoolTarget> {
    const catalogue = Catalogue.load(dir);
    const data = openPoolFile(dir, 'data', true, false);
    const { sizeBytes } = data;
    await data.close();
    return new PoolTarget(dir, catalogue, sizeBytes);
  }

  /** The size of its blocks, in sectors of 512 bytes. */
  get dataBlockSize(): number {
    return this.#catalogue.blockSizeBytes / SECTOR_SIZE;
  }

  /** Blocks that its data has room for. */
  get dataBlockCount(): number {
    return Math.floor(this.#dataSizeBytes / this.#catalogue.blockSizeBytes);
  }

  get transactionId(): number {
    return this.#catalogue.transactionId;
  }

  begin(pool: PoolRecord): void {
    if (pool.dataBlockSize !== this.dataBlockSize) {
      refuse(
        `the blocks have ${pool.dataBlockSize} sectors, those of the pool "${this.#dir}" have ${this.dataBlockSize}`,
      );
    }
    if (pool.dataBlockCount > this.dataBlockCount) {
      refuse(
        `there are ${pool.dataBlockCount} data blocks, the pool "${this.#dir}" has room for ${this.dataBlockCount}`,
      );
    }
  }

  beforeSuperblock(pool: PoolRecord): void {
    // Its changes follow the metadata that is gone.
    rmSync(join(this.#dir, 'journal'), { force: true });
    this.#catalogue.follow(pool.transactionId);
  }
}

function refuse(reason: string): never {
  throw new StorageError('EINVAL', reason);
}
