import { truncateSync } from 'node:fs';
import { monotonicClock } from '../../../src/base/clock.ts';
import { errnoOf, StorageError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { MIB, SECTOR_SIZE } from '../../../src/base/units.ts';
import { alignedMemory } from '../../../src/block/aligned-memory.ts';
import type { BlockDevice } from '../../../src/block/block-device.ts';
import { openBlockDevice } from '../../../src/block/file-device.ts';
import { BLOCK_SIZE } from '../../../src/persistent-data/block.ts';
import { PoolEngine } from '../../../src/thin/pool-engine.ts';
import { PoolMetadata } from '../../../src/thin/pool-metadata.ts';
import { ThinDevice } from '../../../src/thin/thin-device.ts';
import { LunClient } from '../../support/lun-client.ts';
import type { Outcome, PoolSettings, PoolSide } from './pool-side.ts';

/** Our pool, in this process. */
export class OurSide implements PoolSide {
  readonly name = 'ours';
  metadataPath: string;
  dataPath: string;
  readonly #settings: PoolSettings;
  readonly #clients: Map<number, LunClient> = new Map();
  #metadataDevice!: BlockDevice;
  #data!: BlockDevice;
  #metadata!: PoolMetadata;
  #engine!: PoolEngine;

  constructor(settings: PoolSettings, metadataPath: string, dataPath: string) {
    this.#settings = settings;
    this.metadataPath = metadataPath;
    this.dataPath = dataPath;
  }

  async open(): Promise<void> {
    const { blockSizeBytes, features } = this.#settings;
    this.#metadataDevice = openBlockDevice(this.metadataPath);
    this.#data = openBlockDevice(this.dataPath);
    this.#metadata = PoolMetadata.open(this.#metadataDevice, { expectedDataBlockSizeBytes: blockSizeBytes });
    this.#engine = new PoolEngine(this.#metadata, this.#data, {
      logger: silentLogger,
      clock: monotonicClock,
      lowWaterBlocks: 0,
      noSpaceTimeoutMs: 60_000,
      errorIfNoSpace: features.includes('error_if_no_space'),
      discardPassdown: !features.includes('no_discard_passdown'),
      zeroNewBlocks: !features.includes('skip_block_zeroing'),
      journal: null,
      copyMemory: alignedMemory(4 * Math.min(MIB, blockSizeBytes)),
      onEvent: () => {},
    });
  }

  async close(): Promise<void> {
    for (const id of [...this.#clients.keys()]) await this.deactivate(id);
    await this.#engine.stop();
    this.#metadata.close();
    await this.#data.close();
    await this.#metadataDevice.close();
  }

  async message(text: string): Promise<Outcome> {
    try {
      if (text === 'reserve_metadata_snap') await this.commit();
      await this.#engine.mutate(() => this.#apply(text));
      return null;
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      return errnoOf(error);
    }
  }

  async activate(id: number): Promise<Outcome> {
    const { volumeBlocks, blockSizeBytes } = this.#settings;
    try {
      const thin = this.#metadata.openThin(id);
      this.#clients.set(id, new LunClient(new ThinDevice(this.#engine, thin, volumeBlocks * blockSizeBytes)));
      return null;
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      return error.code;
    }
  }

  async deactivate(id: number): Promise<void> {
    const device = this.#device(id);
    device.closed = true;
    await device.drained();
    this.#metadata.closeThin(device.thin);
    this.#clients.delete(id);
  }

  read(id: number, offset: number, length: number): Promise<Uint8Array> {
    return this.#clients.get(id)!.read(offset, length);
  }

  write(id: number, offset: number, bytes: Uint8Array): Promise<Outcome> {
    return outcomeOf(this.#clients.get(id)!.write(offset, bytes));
  }

  discard(id: number, offset: number, length: number): Promise<Outcome> {
    return outcomeOf(this.#clients.get(id)!.unmap(offset, length));
  }

  flush(id: number): Promise<Outcome> {
    return outcomeOf(this.#clients.get(id)!.flush());
  }

  commit(): Promise<void> {
    return this.#engine.commits.commit();
  }

  async growData(blocks: number): Promise<void> {
    truncateSync(this.dataPath, blocks * this.#settings.blockSizeBytes);
    this.#data.refreshSize();
    await this.#engine.mutate(() => this.#metadata.resizeData(blocks));
    this.#engine.space.check();
  }

  async growMetadata(blocks: number): Promise<void> {
    truncateSync(this.metadataPath, blocks * BLOCK_SIZE);
    await this.#engine.mutate(() => this.#metadata.resizeMetadata());
    this.#engine.space.check();
  }

  async status(option?: 'noflush'): Promise<string> {
    if (option !== 'noflush') await this.commit();
    const pool = this.#metadata;
    const used = pool.metadataBlockCount - pool.freeMetadataBlocks;
    return [
      pool.transactionId,
      `${used}/${pool.metadataBlockCount}`,
      `${pool.dataBlockCount - pool.freeDataBlocks}/${pool.dataBlockCount}`,
      pool.heldRoot === 0 ? '-' : pool.heldRoot,
      { write: 'rw', 'out-of-data-space': 'out_of_data_space' }[this.#engine.space.mode as string] ?? 'ro',
      this.#settings.features.includes('no_discard_passdown') ? 'no_discard_passdown' : 'discard_passdown',
      this.#settings.features.includes('error_if_no_space') ? 'error_if_no_space' : 'queue_if_no_space',
      pool.needsCheck ? 'needs_check' : '-',
      `${pool.metadataLowThresholdBlocks} `,
    ].join(' ');
  }

  async deviceStatus(id: number): Promise<string> {
    const { thin } = this.#device(id);
    const sectors = this.#settings.blockSizeBytes / SECTOR_SIZE;
    const highest = this.#metadata.highestMapped(thin);
    return `${thin.mappedBlocks * sectors} ${highest < 0 ? '-' : (highest + 1) * sectors - 1}`;
  }

  #device(id: number): ThinDevice {
    return this.#clients.get(id)!.backend as ThinDevice;
  }

  #apply(text: string): void {
    const [word, ...args] = text.split(' ');
    const [first, second] = args.map(Number);
    if (word === 'create_thin') this.#metadata.createThin(first!);
    else if (word === 'create_snap') this.#metadata.createSnap(first!, second!);
    else if (word === 'delete') this.#metadata.deleteThin(first!);
    else if (word === 'set_transaction_id') this.#metadata.setTransactionId(first!, second!);
    else if (word === 'reserve_metadata_snap') this.#metadata.reserveSnapshot();
    else if (word === 'release_metadata_snap') this.#metadata.releaseSnapshot();
    else throw new Error(`no such message: ${text}`);
  }
}

async function outcomeOf(done: Promise<unknown>): Promise<Outcome> {
  try {
    await done;
    return null;
  } catch (error) {
    return errnoOf({ code: (error as Error).message });
  }
}
