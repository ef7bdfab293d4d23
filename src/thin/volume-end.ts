/** What lies past the end of a volume: nobody sees it, and it is not to be seen when the volume grows. */
import { roundUp } from '../base/units.ts';
import type { PoolEngine } from './pool-engine.ts';
import { ThinDevice } from './thin-device.ts';
import type { ThinMetadata } from './thin-metadata.ts';

/** Bytes up to the end of the last block that is mapped. */
export function mappedEnd(engine: PoolEngine, thin: ThinMetadata): number {
  return (engine.metadata.highestMapped(thin) + 1) * engine.blockSizeBytes;
}

/**
 * Before a volume grows: `[sizeBytes, ...)` reads as zeroes, durably. A smaller size leaves the rest of its last block as it is, as to zero it
 * may take a new block where none is free; over an external origin (`isOverlay`) that rest may be the origin's and stays. Throws what the
 * discard is answered, EIO.
 */
export async function clearBeyond(
  engine: PoolEngine,
  thin: ThinMetadata,
  sizeBytes: number,
  isOverlay: boolean,
): Promise<void> {
  const begin = isOverlay ? roundUp(sizeBytes, engine.blockSizeBytes) : sizeBytes;
  const end = mappedEnd(engine, thin);
  if (begin >= end) return;
  await new ThinDevice(engine, thin, end).unmap(begin, end);
  await engine.commits.flushAll();
}

/** Gives back the blocks past the end of a volume that is held or not open. Throws what the discard is answered, EIO. */
export async function dropBeyond(engine: PoolEngine, thin: ThinMetadata, sizeBytes: number): Promise<void> {
  const begin = roundUp(sizeBytes, engine.blockSizeBytes);
  const end = mappedEnd(engine, thin);
  if (begin >= end) return;
  await new ThinDevice(engine, thin, end).unmap(begin, end);
  await engine.commits.commit();
}
