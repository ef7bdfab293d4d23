import { truncateSync } from 'node:fs';
import { monotonicClock } from '../../../src/base/clock.ts';
import { errnoOf, StorageError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { MIB } from '../../../src/base/units.ts';
import { alignedMemory } from '../../../src/block/aligned-memory.ts';
import type { BlockDevice } from '../../../src/block/block-device.ts';
import { openBlockDevice } from '../../../src/block/file-device.ts';
import { BLOCK_SIZE } from '../../../src/persistent-data/block.ts';
import type { ExternalOrigin } from '../../../src/thin/external-origin.ts';
import { PoolEngine } from '../../../src/thin/pool-engine.ts';
import { PoolMetadata } from '../../../src/thin/pool-metadata.ts';
import { poolStatusLine, thinStatusLine } from '../../../src/thin/status-line.ts';
import { ThinDevice } from '../../../src/thin/thin-device.ts';
import { parseThinMessage, type ThinMessage } from '../../../src/thin/thin-message.ts';
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
  #origin: ExternalOrigin | null = null;

  constructor(settings: PoolSettings, metadataPath: string, dataPath: string) {
    this.#settings = settings;
    this.metadataPath = metadataPath;
    this.dataPath = dataPath;
  }

  async open(): Promise<void> {
    const { blockSizeBytes, features } = this.#settings;
    this.#metadataDevice = openBlockDevice(this.metadataPath);
    this.#data = openBlockDevice(this.dataPath);
    const { originPath, exactSharing } = this.#settings;
    if (originPath !== null) {
      const device = openBlockDevice(originPath, { readOnly: true });
      this.#origin = { device, sizeBytes: device.sizeBytes, queued: false };
    }
    this.#metadata = PoolMetadata.open(this.#metadataDevice, {
      expectedDataBlockSizeBytes: blockSizeBytes,
      exactSharing,
    });
    this.#engine = new PoolEngine(this.#metadata, this.#data, {
      logger: silentLogger,
      clock: monotonicClock,
      lowWaterBlocks: 0,
      noSpaceTimeoutMs: 60_000,
      errorIfNoSpace: features.includes('error_if_no_space'),
      readOnly: false,
      ignoreDiscard: features.includes('ignore_discard'),
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
    await this.#origin?.device.close();
  }

  async message(text: string): Promise<Outcome> {
    try {
      const message = parseThinMessage(text);
      const { kind } = message;
      await this.#engine.mutate(() => this.#apply(message), kind === 'delete', kind === 'reserve_metadata_snap');
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
      this.#clients.set(
        id,
        new LunClient(new ThinDevice(this.#engine, thin, volumeBlocks * blockSizeBytes, this.#origin)),
      );
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
    await this.#engine.mutate(() => this.#metadata.resizeData(blocks), true);
    this.#engine.space.grown(0);
  }

  async growMetadata(blocks: number): Promise<void> {
    truncateSync(this.metadataPath, blocks * BLOCK_SIZE);
    await this.#engine.mutate(() => this.#metadata.resizeMetadata(), true);
    this.#engine.space.grown(0);
  }

  async status(option?: 'noflush'): Promise<string> {
    if (option !== 'noflush') await this.commit();
    const { features, blockSizeBytes } = this.#settings;
    const pool = this.#metadata;
    return poolStatusLine({
      mode: this.#engine.space.mode,
      transactionId: pool.transactionId,
      blockSizeBytes,
      usedMetadataBlocks: pool.metadataBlockCount - pool.freeMetadataBlocks,
      metadataBlocks: pool.metadataBlockCount,
      usedDataBlocks: pool.dataBlockCount - pool.freeDataBlocks,
      dataBlocks: pool.dataBlockCount,
      heldRoot: pool.heldRoot,
      ignoreDiscard: features.includes('ignore_discard'),
      discardPassdown: this.#engine.reclaimer.passdown,
      failsWhenFull: this.#engine.space.failsWhenFull,
      needsCheck: pool.needsCheck,
      metadataLowThresholdBlocks: pool.metadataLowThresholdBlocks,
    });
  }

  async deviceStatus(id: number): Promise<string> {
    const { thin, sizeBytes } = this.#device(id);
    return thinStatusLine({
      mode: this.#engine.space.mode,
      blockSizeBytes: this.#settings.blockSizeBytes,
      sizeBytes,
      mappedBlocks: thin.mappedBlocks,
      highestMappedBlock: this.#metadata.highestMapped(thin),
    });
  }

  #device(id: number): ThinDevice {
    return this.#clients.get(id)!.backend as ThinDevice;
  }

  #apply(message: ThinMessage): void {
    const metadata = this.#metadata;
    if (message.kind === 'create_thin') metadata.createThin(message.id);
    else if (message.kind === 'create_snap') metadata.createSnap(message.id, message.origin);
    else if (message.kind === 'delete') metadata.deleteThin(message.id);
    else if (message.kind === 'set_transaction_id') metadata.setTransactionId(message.expected, message.next);
    else if (message.kind === 'reserve_metadata_snap') metadata.reserveSnapshot();
    else if (message.kind === 'release_metadata_snap') metadata.releaseSnapshot();
    else throw new Error(`${message.kind} is none of the kernel's messages`);
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
