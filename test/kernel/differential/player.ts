import { execFileSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { roundDown, SECTOR_SIZE } from '../../../src/base/units.ts';
import { openBlockDevice } from '../../../src/block/file-device.ts';
import { PoolMetadata } from '../../../src/thin/pool-metadata.ts';
import { expectBytes, pattern } from '../../support/lun-client.ts';
import type { SeededRandom } from '../../support/seeded-random.ts';
import { compareContents, compareMappings, compareStatus, dump, same } from './compare.ts';
import type { Outcome, PoolSettings, PoolSide } from './pool-side.ts';

const DEVICE_IDS = 10;
const SECTOR_ALIGNMENT = 4096;

/** Mappings that always fit into one leaf. */
const LEAF_MAPPINGS = 126;

/** Messages that are wrong whatever the pool holds. */
const BAD_MESSAGES: readonly string[] = [
  'create_thin 16777216',
  'create_snap 16777216 1',
  'create_snap 900 901',
  'delete 902',
  'set_transaction_id 999999 1000000',
  'create_thin',
  'create_thin 1 2',
  'create_thin one',
  'create_thin -1',
  'create_thin 0x10',
  'create_thin 1.0',
  'create_thin 99999999999999999999',
  'CREATE_SNAP 3',
  'create_snap 902 900 ',
  '  delete  903',
  'Delete +904',
  'set_transaction_id 1',
  'set_transaction_id a b',
  'reserve_metadata_snap 1',
  'release_metadata_snap now',
  'frobnicate 1',
  'create-thin 1',
];

interface Operation {
  weight: number;
  run(player: Player): Promise<void>;
}

/** Does the same operations to two pools and wants the same answers, and now and then compares all that they hold. */
export class Player {
  readonly log: string[] = [];
  readonly counts: { operations: number; comparisons: number; blocks: number; crossings: number } = {
    operations: 0,
    comparisons: 0,
    blocks: 0,
    crossings: 0,
  };
  /** How often an errno was the answer of both. */
  readonly refusals: Record<string, number> = {};
  readonly kernel: PoolSide;
  readonly ours: PoolSide;
  readonly settings: PoolSettings;
  readonly random: SeededRandom;
  readonly active: Set<number> = new Set();
  /** What the pool may hold after the next commit. */
  existing: Set<number> = new Set();
  transactionId = 0;
  /** There is a metadata snapshot. */
  held = false;
  dataBlocks: number;
  metadataBlocks: number;
  #seed = 0;

  constructor(kernel: PoolSide, ours: PoolSide, settings: PoolSettings, random: SeededRandom) {
    this.kernel = kernel;
    this.ours = ours;
    this.settings = settings;
    this.random = random;
    this.dataBlocks = settings.dataBlocks;
    this.metadataBlocks = settings.metadataBlocks;
  }

  async play(operations: number): Promise<void> {
    const choices = OPERATIONS.flatMap((operation) => new Array<Operation>(operation.weight).fill(operation));
    for (let i = 0; i < operations; i++) {
      await this.random.pick(choices).run(this);
      this.counts.operations++;
    }
  }

  /** Both do it; their answers are the same, but for a `quirk` of the kernel's that we have not. */
  async both(what: string, work: (side: PoolSide) => Promise<Outcome>, quirk?: Outcome): Promise<Outcome> {
    const kernel = await work(this.kernel);
    const ours = await work(this.ours);
    this.log.push(`${what}${kernel === null ? '' : ` (${kernel})`}`);
    if (kernel === null || kernel !== quirk || ours !== null) same(what, kernel, ours);
    if (kernel !== null) this.refusals[kernel] = (this.refusals[kernel] ?? 0) + 1;
    return kernel;
  }

  message(text: string): Promise<Outcome> {
    return this.both(text, (side) => side.message(text));
  }

  async commit(): Promise<void> {
    this.log.push('commit');
    await this.kernel.commit();
    await this.ours.commit();
  }

  async compare(): Promise<void> {
    this.log.push('compare');
    const [kernelStatus, ourStatus] = [await this.kernel.status(), await this.ours.status()];
    const [kernel, ours] = [dump(this.kernel), dump(this.ours)];
    compareMappings(kernel, ours, !this.settings.exactSharing);
    compareStatus(kernelStatus, ourStatus, this.settings.volumeBlocks <= LEAF_MAPPINGS);
    if (this.held) {
      const held = [dump(this.kernel, '--metadata-snap'), dump(this.ours, '--metadata-snap')] as const;
      compareMappings(...held, !this.settings.exactSharing);
    }
    for (const id of this.active) {
      same(`status of device ${id}`, await this.kernel.deviceStatus(id), await this.ours.deviceStatus(id));
      if (this.settings.originPath !== null) await this.readAll(id);
    }
    this.counts.blocks += compareContents(this.kernel, this.ours, kernel, ours);
    this.counts.comparisons++;
  }

  /** Each pool goes to the other side, which goes on with it. */
  async cross(): Promise<void> {
    const active = [...this.active];
    await this.compare();
    await this.close();
    const { metadataPath, dataPath } = this.kernel;
    Object.assign(this.kernel, { metadataPath: this.ours.metadataPath, dataPath: this.ours.dataPath });
    Object.assign(this.ours, { metadataPath, dataPath });
    await this.open(active);
    this.counts.crossings++;
    await this.compare();
  }

  async open(active: readonly number[] = []): Promise<void> {
    this.log.push('open');
    await this.kernel.open();
    await this.ours.open();
    for (const id of active) await this.activate(id);
  }

  /** Closes both; thin_check finds nothing in either. */
  async close(): Promise<void> {
    this.log.push('close');
    this.active.clear();
    for (const side of [this.kernel, this.ours]) {
      await side.close();
      execFileSync('thin_check', ['-q', side.metadataPath], { stdio: 'pipe' });
    }
  }

  /** A device that is active and has a block; made where there is none. */
  async written(): Promise<number> {
    if (this.existing.size === 0 && (await this.message('create_thin 0')) === null) this.existing.add(0);
    const id = (await this.anyActive())!;
    await this.growData(8);
    await this.write(id, 0, this.settings.blockSizeBytes);
    return id;
  }

  /**
   * Crosses with a metadata snapshot, and with leaves and blocks that so many devices share that their counts are in the overflow
   * trees.
   */
  async crossShared(): Promise<void> {
    const id = await this.written();
    const snapshots = [20, 21, 22, 23, 24];
    for (const snapshot of snapshots) await this.message(`create_snap ${snapshot} ${id}`);
    if (!this.held) await this.message('reserve_metadata_snap');
    this.held = true;
    for (const snapshot of snapshots) {
      await this.activate(snapshot);
      await this.write(snapshot, 0, SECTOR_ALIGNMENT);
      await this.deactivate(snapshot);
    }
    await this.cross();
    await this.message('release_metadata_snap');
    this.held = false;
    for (const snapshot of snapshots) await this.message(`delete ${snapshot}`);
    await this.compare();
  }

  /**
   * Marks both as needing a check and opens them: what is mapped can be read and written, no metadata changes, and thin_check clears
   * it.
   */
  async needCheck(): Promise<void> {
    const id = await this.written();
    const { blockSizeBytes, volumeBlocks } = this.settings;
    const mapped = (block: number): Promise<void> => this.write(id, block * blockSizeBytes, blockSizeBytes);
    await this.close();
    for (const side of [this.kernel, this.ours]) {
      const device = openBlockDevice(side.metadataPath);
      const metadata = PoolMetadata.open(device);
      metadata.setNeedsCheck();
      metadata.close();
      await device.close();
    }
    await this.open([id]);
    await this.compare();
    await mapped(0);
    const hole = dump(this.ours).devices.get(id)!.mappings;
    const at = Array.from({ length: volumeBlocks }, (_, block) => block).find((block) => !hole.has(block))!;
    const bytes = new Uint8Array(blockSizeBytes);
    await this.bothRefuse('create_thin 77', (side) => side.message('create_thin 77'));
    await this.bothRefuse('delete 902', (side) => side.message('delete 902'));
    await this.bothRefuse(`write ${id}, unmapped`, (side) => side.write(id, at * blockSizeBytes, bytes));
    await this.readAll(id);
    await this.compare();
    await this.close();
    for (const { metadataPath } of [this.kernel, this.ours]) {
      execFileSync('thin_check', ['-q', '--clear-needs-check-flag', metadataPath], { stdio: 'pipe' });
    }
    await this.open([id]);
    await this.compare();
  }

  /** Neither does it; which errno says so is each one's own: the kernel has EIO and EOPNOTSUPP where we say EROFS. */
  async bothRefuse(what: string, work: (side: PoolSide) => Promise<Outcome>): Promise<void> {
    this.log.push(`${what} (refused)`);
    for (const side of [this.kernel, this.ours]) {
      if ((await work(side)) === null) throw new Error(`${what}: ${side.name} did it`);
    }
  }

  async growData(blocks: number): Promise<void> {
    this.dataBlocks += blocks;
    this.log.push(`grow data to ${this.dataBlocks}`);
    await this.kernel.growData(this.dataBlocks);
    await this.ours.growData(this.dataBlocks);
  }

  async activate(id: number): Promise<void> {
    if ((await this.both(`activate ${id}`, (side) => side.activate(id))) === null) this.active.add(id);
  }

  async deactivate(id: number): Promise<void> {
    this.log.push(`deactivate ${id}`);
    await this.kernel.deactivate(id);
    await this.ours.deactivate(id);
    this.active.delete(id);
  }

  /** A write that may find no space goes block by block, after a commit: which blocks of a longer one get space is nobody's promise. */
  async write(id: number, offset: number, length: number): Promise<void> {
    const size = this.settings.blockSizeBytes;
    const blocks = Math.ceil((offset + length) / size) - Math.floor(offset / size);
    const scarce = await this.isScarce(2 * blocks + 4);
    for (let at = offset; at < offset + length; ) {
      const end = scarce ? Math.min(offset + length, (Math.floor(at / size) + 1) * size) : offset + length;
      if (scarce) await this.commit();
      const bytes = pattern(end - at, ++this.#seed);
      await this.both(`write ${id} ${at}..${end} seed ${this.#seed}`, (side) => side.write(id, at, bytes));
      at = end;
    }
  }

  async readBoth(id: number, offset: number, length: number): Promise<void> {
    this.log.push(`read ${id} ${offset}..${offset + length}`);
    expectBytes(await this.ours.read(id, offset, length), await this.kernel.read(id, offset, length));
  }

  /** All of a device; of a pool that is read-only, what lies within the external origin: past its end the kernel has EIO then. */
  async readAll(id: number): Promise<void> {
    const { blockSizeBytes, volumeBlocks, originPath } = this.settings;
    const size = volumeBlocks * blockSizeBytes;
    if (originPath === null || !(await this.ours.status('noflush')).includes(' ro ')) await this.readBoth(id, 0, size);
    else await this.readBoth(id, 0, Math.min(size, roundDown(statSync(originPath).size, blockSizeBytes)));
  }

  anyId(): number {
    return this.random.below(DEVICE_IDS);
  }

  /** An active device; activates one when there is none. */
  async anyActive(): Promise<number | null> {
    if (this.active.size > 0) return this.random.pick([...this.active]);
    if (this.existing.size === 0) return null;
    const id = this.random.pick([...this.existing]);
    await this.activate(id);
    return id;
  }

  /** A range of whole blocks, or any range of the device. */
  range(whole: boolean): { offset: number; length: number } {
    const { volumeBlocks, blockSizeBytes } = this.settings;
    const blocks = 1 + this.random.below(this.random.oneIn(6) ? 24 : 3);
    const first = this.random.below(volumeBlocks - Math.min(blocks, volumeBlocks - 1));
    if (whole) return { offset: first * blockSizeBytes, length: blocks * blockSizeBytes };
    const pieces = (blocks * blockSizeBytes) / SECTOR_ALIGNMENT;
    const begin = this.random.below(pieces);
    const length = 1 + this.random.below(pieces - begin);
    return { offset: first * blockSizeBytes + begin * SECTOR_ALIGNMENT, length: length * SECTOR_ALIGNMENT };
  }

  private async isScarce(blocks: number): Promise<boolean> {
    const status = (await this.ours.status('noflush')).split(' ');
    const [used, total] = status[5]!.split('/').map(Number);
    return total! - used! < blocks || !status.includes('rw');
  }
}

/**
 * Whether the kernel gives dm-thin a discard from `offset` on in one piece. Its block layer rounds the beginning up to the granularity as if that
 * were a power of two, and so cuts others in the middle of blocks, of which dm-thin then discards nothing.
 */
function kernelKeepsWhole(offset: number, blockSizeBytes: number): boolean {
  const [sector, granularity] = [offset / SECTOR_SIZE, blockSizeBytes / SECTOR_SIZE];
  return ((sector - 1) | (granularity - 1)) + 1 === sector;
}

const OPERATIONS: readonly Operation[] = [
  {
    weight: 40,
    async run(player) {
      const id = await player.anyActive();
      if (id === null) return;
      const { offset, length } = player.range(player.random.oneIn(2));
      await player.write(id, offset, length);
    },
  },
  {
    weight: 14,
    async run(player) {
      const id = await player.anyActive();
      if (id === null) return;
      const { offset, length } = player.range(true);
      if (!kernelKeepsWhole(offset, player.settings.blockSizeBytes)) return;
      await player.both(`discard ${id} ${offset}..${offset + length}`, (side) => side.discard(id, offset, length));
    },
  },
  {
    weight: 6,
    async run(player) {
      const id = await player.anyActive();
      if (id === null) return;
      const { offset, length } = player.range(false);
      await player.readBoth(id, offset, length);
    },
  },
  {
    weight: 6,
    async run(player) {
      const id = player.anyId();
      if ((await player.message(`create_thin ${id}`)) === null) player.existing.add(id);
    },
  },
  {
    weight: 10,
    async run(player) {
      const [id, origin] = [player.anyId(), player.anyId()];
      if ((await player.message(`create_snap ${id} ${origin}`)) === null) player.existing.add(id);
    },
  },
  {
    weight: 4,
    async run(player) {
      const id = player.anyId();
      if ((await player.message(`delete ${id}`)) === null) player.existing.delete(id);
    },
  },
  {
    weight: 8,
    async run(player) {
      const id = player.anyId();
      if (player.active.has(id)) await player.deactivate(id);
      else await player.activate(id);
    },
  },
  {
    weight: 4,
    async run(player) {
      const id = await player.anyActive();
      if (id === null) return;
      // Out of data space, the kernel takes a flush for a write to block 0, and refuses it where that is not mapped.
      await player.both(`flush ${id}`, (side) => side.flush(id), 'ENOSPC');
    },
  },
  { weight: 4, run: (player) => player.commit() },
  {
    weight: 3,
    async run(player) {
      const next = player.transactionId + player.random.below(3);
      const old = player.transactionId + (player.random.oneIn(3) ? 1 : 0);
      if ((await player.message(`set_transaction_id ${old} ${next}`)) === null) player.transactionId = next;
    },
  },
  {
    weight: 2,
    async run(player) {
      if ((await player.message('reserve_metadata_snap')) === null) player.held = true;
    },
  },
  {
    weight: 2,
    async run(player) {
      if ((await player.message('release_metadata_snap')) === null) player.held = false;
    },
  },
  {
    weight: 6,
    async run(player) {
      await player.message(player.random.pick(BAD_MESSAGES));
    },
  },
  {
    weight: 1,
    async run(player) {
      if (player.dataBlocks < 1.5 * player.settings.dataBlocks) await player.growData(1 + player.random.below(20));
    },
  },
  {
    weight: 1,
    async run(player) {
      player.metadataBlocks += 1 + player.random.below(40);
      player.log.push(`grow metadata to ${player.metadataBlocks}`);
      await player.kernel.growMetadata(player.metadataBlocks);
      await player.ours.growMetadata(player.metadataBlocks);
    },
  },
  { weight: 3, run: (player) => player.compare() },
];
