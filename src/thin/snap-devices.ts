import type { VolumeRecord } from './catalogue.ts';
import type { PoolMetadata } from './pool-metadata.ts';

export interface NewSnapshot {
  record: VolumeRecord;
  origin: VolumeRecord;
}

/** Makes the devices of new snapshots: all of them or, when one is refused, none. Throws what `PoolMetadata.createSnap` throws. */
export function snapDevices(metadata: PoolMetadata, wanted: readonly NewSnapshot[]): void {
  let made = 0;
  try {
    for (; made < wanted.length; made++) {
      const { record, origin } = wanted[made]!;
      metadata.createSnap(record.id, origin.id);
    }
  } catch (error) {
    if (!metadata.mustAbort) for (const { record } of wanted.slice(0, made)) metadata.deleteThin(record.id);
    throw error;
  }
}
