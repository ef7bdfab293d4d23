import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { GIB } from '../base/units.ts';
import { Pool } from '../thin/pool.ts';
import { accessPool } from './pool-access.ts';

export const DEMO_DATA_SIZE: number = 10 * GIB;
export const DEMO_VOLUME_SIZE: number = GIB;
const DEMO_VOLUME = 'vol0';

/** `$XDG_DATA_HOME/thinlun/demo`, by default `~/.local/share/thinlun/demo`. */
export function defaultDemoDir(): string {
  const data = process.env['XDG_DATA_HOME'];
  // The specification: a relative path is to be ignored.
  return join(data?.startsWith('/') ? data : join(homedir(), '.local', 'share'), 'thinlun', 'demo');
}

/** Makes the demo pool of sparse files, with one volume, unless there is one. Returns whether it was made. */
export async function ensureDemoPool(dir: string, options: { logger: Logger; clock: Clock }): Promise<boolean> {
  const made = !existsSync(join(dir, 'pool.json'));
  if (made) await Pool.create(dir, { dataSizeBytes: DEMO_DATA_SIZE });
  const pool = await accessPool(dir, options);
  try {
    // Also when an earlier start ended between the two.
    if ((await pool.listVolumes()).length === 0) {
      await pool.createVolume({ name: DEMO_VOLUME, sizeBytes: DEMO_VOLUME_SIZE });
    }
  } finally {
    await pool.close();
  }
  return made;
}
