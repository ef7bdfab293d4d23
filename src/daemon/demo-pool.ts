import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { GIB } from '../base/units.ts';
import { createPool } from '../thin/pool-create.ts';
import { type PoolAccessOptions, usePool } from './pool-access.ts';

export const DEMO_DATA_SIZE: number = 10 * GIB;
export const DEMO_VOLUME_SIZE: number = GIB;
const DEMO_VOLUME = 'vol0';

/** Makes the demo pool of sparse files, with one volume, unless there is one. Returns whether it was made. */
export async function ensureDemoPool(dir: string, options: PoolAccessOptions): Promise<boolean> {
  const made = !existsSync(join(dir, 'pool.json'));
  if (made) await createPool(dir, { dataSizeBytes: DEMO_DATA_SIZE });
  await usePool(dir, options, async (pool) => {
    // Also when an earlier start ended between the two.
    if ((await pool.listVolumes()).length > 0) return;
    await pool.createVolume({ name: DEMO_VOLUME, sizeBytes: DEMO_VOLUME_SIZE });
  });
  return made;
}
