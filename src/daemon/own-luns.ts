import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { StorageError } from '../base/errors.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import { VENDOR } from '../scsi/unit-state.ts';
import { AdvisedError } from './advised-error.ts';
import type { PoolService } from './pool-service.ts';
import { type DiskBelow, StorageBelow, type StoragePaths } from './storage-below.ts';

/** A volume that this process serves, as a disk of it can be told. */
export interface OwnVolume {
  readonly pool: string;
  readonly name: string;
  /** NAA designator, hexadecimal. */
  readonly naa: string;
  readonly serial: string;
}

/** How long a disk of another server may take to answer a read before the pool on it is left out. */
const ANSWER_TIMEOUT_MS = 10_000;

/**
 * Keeps a process from serving a pool that lies on a LUN of its own: a write to such a pool waits for a write that waits for it, and a
 * start finds its pool on a disk that answers only when the start is over. A pool on a LUN of another process is fine.
 */
export class OwnLuns {
  readonly #volumes: () => Iterable<OwnVolume>;
  readonly #storage: StorageBelow;

  /** `volumes` are those that this process serves when it is asked. */
  constructor(volumes: () => Iterable<OwnVolume>, paths?: StoragePaths) {
    this.#volumes = volumes;
    this.#storage = new StorageBelow(({ vendor }) => vendor === VENDOR, paths);
  }

  /** Whether the pool in `dir` lies on a disk of ours, of this process or another. Never waits for that disk. */
  liesOnLun(dir: string): boolean {
    return this.#below(dir).length > 0;
  }

  /** Throws EDEADLK, with the way down to the disk, when the pool in `dir` or one of `files` lies on a volume of this process, or one of `more`. */
  requireForeign(dir: string, files: readonly string[] = [], more: readonly OwnVolume[] = []): void {
    const volumes = [...this.#volumes(), ...more];
    for (const disk of [...this.#below(dir), ...files.flatMap((file) => this.#storage.disksBelow(file))]) {
      const volume = find(disk, volumes);
      if (volume === null) continue;
      throw new AdvisedError(
        'EDEADLK',
        `Cannot serve the pool "${dir}" here: it would wait for itself: ${describeChain(disk)}, which is the volume "${volume.name}" of the pool "${volume.pool}" that this process serves`,
        'Serve the two pools in different processes, or move this one to a disk of the machine.',
      );
    }
  }

  /** The same for a pool that is open. */
  requireForeignPool({ pool }: PoolService): void {
    const origins = pool.volumes().flatMap(({ externalOrigin }) => externalOrigin?.path ?? []);
    this.requireForeign(pool.dir, origins, ownVolumes({ pool }));
  }

  /** What it comes to when memory is swapped out to a volume of this process; null when it is not. */
  swapProblem(): string | null {
    const known = [...this.#volumes()];
    for (const disk of this.#storage.disksBelowSwap()) {
      const volume = find(disk, known);
      if (volume !== null) {
        return `${describeChain(disk)}, which is the volume "${volume.name}" of the pool "${volume.pool}" that this process serves`;
      }
    }
    return null;
  }

  /** Throws EIO when a disk below `dir` does not answer: opening the pool would wait for it, and everybody for that. */
  async requireAnswers(dir: string, clock: Clock): Promise<void> {
    for (const { chain } of this.#below(dir)) {
      const device = chain.at(-1)!;
      if (await answers(device, clock)) continue;
      throw new AdvisedError(
        'EIO',
        `Cannot serve the pool "${dir}": it lies on ${device}, a LUN of another server that does not answer`,
        'Start that server first, then this one again.',
      );
    }
  }

  #below(dir: string): DiskBelow[] {
    return [dir, ...['pool.json', 'metadata', 'data'].map((name) => join(dir, name))].flatMap((path) =>
      this.#storage.disksBelow(resolve(path)),
    );
  }
}

export function ownVolumes({ pool }: Pick<PoolService, 'pool'>): OwnVolume[] {
  return pool.volumes().map(({ name, naa, serial }) => ({ pool: pool.name, name, naa, serial }));
}

function find(disk: DiskBelow, volumes: Iterable<OwnVolume>): OwnVolume | null {
  for (const volume of volumes) {
    if (disk.naas.includes(volume.naa) || (disk.naas.length === 0 && disk.serial === volume.serial)) return volume;
  }
  return null;
}

function describeChain({ chain }: DiskBelow): string {
  return chain.join(' is on ');
}

async function answers(device: string, clock: Clock): Promise<boolean> {
  let timedOut: () => void = () => {};
  const late = new Promise<boolean>((resolve) => {
    timedOut = () => resolve(false);
  });
  const timer = clock.setTimer(ANSWER_TIMEOUT_MS, timedOut);
  try {
    return await Promise.race([late, readFirstBlock(device)]);
  } catch (error) {
    if (error instanceof StorageError) throw error;
    return true; // it answers, if only with an error: opening the pool will tell
  } finally {
    timer.cancel();
  }
}

/** From the disk, not from the page cache. */
async function readFirstBlock(device: string): Promise<boolean> {
  const file = await open(device, constants.O_DIRECT);
  try {
    await file.read(alignedMemory(4096), 0, 4096, 0);
  } finally {
    await file.close();
  }
  return true;
}
