import { describe, expect, it } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import type { LunBackend } from '../../src/block/lun-backend.ts';
import type { ThinDevice } from '../../src/thin/thin-device.ts';
import { COPY_LUN_SIZE, lunCopyContract } from '../contracts/lun-copy.ts';
import { unsharedForTheKernel } from '../support/kernel-sharing.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';
import { contentsOf } from '../support/metadata-judges.ts';
import { SpyDevice } from '../support/spy-device.ts';
import { BLOCK, type Fixture, makePool } from './pool-fixture.ts';

for (const zeroNewBlocks of [true, false]) {
  lunCopyContract(
    `a thin volume that ${zeroNewBlocks ? 'zeroes' : 'does not zero'} new blocks`,
    async () => {
      const pool = makePool({ zeroNewBlocks });
      const other = makePool();
      const luns = [1, 2].map((id) => pool.volume(id, COPY_LUN_SIZE)) as [ThinDevice, ThinDevice];
      return {
        luns,
        stranger: other.volume(1, COPY_LUN_SIZE),
        async close() {
          if (pool.metadata.changed) await pool.engine.commits.commit();
          expect(unsharedForTheKernel(contentsOf(pool.metadataDevice))).toEqual([]);
          await pool.close();
          await other.close();
        },
      };
    },
    { runs: 60, unmappedIsUndefined: !zeroNewBlocks },
  );
}
