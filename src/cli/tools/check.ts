import { setTimeout as sleep } from 'node:timers/promises';
import { monotonicClock } from '../../base/clock.ts';
import { AdvisedError } from '../../daemon/advised-error.ts';
import { ControlClient } from '../../daemon/control-client.ts';
import { requirePool } from '../../daemon/pool-access.ts';
import { checkDevice, checkPool, type PoolCheck, type PoolCheckOptions } from '../../tools/check-pool.ts';
import { describeDamage } from '../../tools/damage.ts';
import { poolFolderOf } from '../../tools/metadata-source.ts';
import { say } from '../output.ts';
import { createProgress } from '../progress.ts';
import type { RunContext } from '../run-context.ts';
import type { CheckFlags } from './check-command.ts';
import type { CheckMessage } from './check-message.ts';
import { TOOL_FAILURE } from './tool-command.ts';
import { useMetadata } from './use-metadata.ts';

const ATTEMPTS = 5;
const PAUSE_MS = 300;

/** `thinlun check`. */
export async function check(context: RunContext, path: string, flags: CheckFlags): Promise<void> {
  const progress = createProgress('Checking', { quiet: flags.quiet || flags.json });
  const options: PoolCheckOptions = {
    clock: monotonicClock,
    onProgress: progress.update,
    superblockOnly: flags.superBlockOnly,
    skipMappings: flags.skipMappings,
    metadataSnapshot: flags.metadataSnap,
    mappingRoot: flags.overrideMappingRoot,
    detailsRoot: flags.overrideDetailsRoot,
    repair: flags.autoRepair || flags.clearNeedsCheckFlag,
  };
  let found: PoolCheck;
  try {
    found = await checkWherever(path, options);
  } finally {
    progress.end();
  }
  const ok = found.errors === 0 && found.leaks === 0;
  if (found.errors > 0 || (found.leaks > 0 && !flags.ignoreNonFatalErrors)) context.exitCode = TOOL_FAILURE;
  if (flags.json) context.output.json({ ok, ...found } satisfies CheckMessage);
  else if (!flags.quiet) describe(context, path, found);
}

async function checkWherever(path: string, options: PoolCheckOptions): Promise<PoolCheck> {
  const dir = poolFolderOf(path);
  const isRead = !options.repair && !options.metadataSnapshot;
  const server = dir === null || !isRead ? null : await serverOf(dir);
  if (dir !== null && server !== null) return checkServed(dir, server, options);
  return useMetadata(
    path,
    { write: options.repair === true, metadataSnapshot: options.metadataSnapshot === true },
    async (source) => {
      const found = await checkDevice(source.device, source.dir, options);
      if (found !== null) return found;
      throw new AdvisedError(
        'EBUSY',
        `Cannot check "${path}": the metadata changed meanwhile`,
        'Something other than thinlun writes to it: look whether the kernel has it open, with "dmsetup table".',
      );
    },
  );
}

async function serverOf(dir: string): Promise<ControlClient | null> {
  requirePool(dir);
  return ControlClient.connect(dir);
}

async function checkServed(dir: string, server: ControlClient, options: PoolCheckOptions): Promise<PoolCheck> {
  try {
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      // Whoever goes on writing has at least the time until the next commit for us.
      await server.commit();
      const found = await checkPool(dir, options);
      if (found !== null) return found;
      await sleep(PAUSE_MS);
    }
  } finally {
    await server.close();
  }
  throw new AdvisedError(
    'EBUSY',
    `Cannot check the pool "${dir}": it changes faster than it can be checked`,
    `Check a metadata snapshot ("thinlun message ${dir} reserve_metadata_snap", then "thinlun check -m ${dir}"), or stop its server first.`,
  );
}

function describe({ output }: RunContext, path: string, found: PoolCheck): void {
  if (found.transactionId !== null) {
    // As thin_check prints them, and nothing else there: scripts read them.
    output.line(`TRANSACTION_ID=${found.transactionId}`);
    output.line(`METADATA_FREE_BLOCKS=${found.freeMetadataBlocks}`);
  }
  for (const damage of found.damages) say(describeDamage(damage));
  const omitted = found.errors + found.leaks + found.warnings - found.damages.length;
  if (omitted > 0) say(`... and ${omitted} more`);
  const counts = `devices: ${found.deviceCount}, mapped blocks: ${found.mappingCount}`;
  if (found.repaired) say('The metadata has been repaired.');
  if (found.errors > 0) {
    say(`The metadata is damaged (errors: ${found.errors}, leaks: ${found.leaks}, ${counts}).`);
    say(adviceFor(path, found));
  } else if (found.leaks > 0) {
    say(`The metadata has leaks and no other error (leaks: ${found.leaks}, ${counts}).`);
    say('Nothing is wrong with the data: blocks that nobody uses are counted as used. To free them:');
    say(`  thinlun check --auto-repair ${path}`);
  } else {
    say(`The metadata is clean (${counts}).`);
    if (found.needsCheck) {
      say('The pool stays read-only until its mark is cleared:');
      say(`  thinlun check --clear-needs-check-flag ${path}`);
    }
  }
}

function adviceFor(path: string, found: PoolCheck): string {
  const only = (invariant: string): boolean =>
    found.damages.every((damage) => damage.invariant === invariant || damage.severity !== 'error');
  if (only('allocated')) {
    return `Only totals are wrong, which free space is calculated from. To set them right:\n  thinlun check --auto-repair ${path}`;
  }
  if (only('catalogue')) {
    return 'The metadata itself is good: put back the file that belongs to it. "thinlun dump" reads every device without the others.';
  }
  return `Write nothing to it. To save what can be read into new metadata (a file or device of the same size):\n  thinlun repair -i ${path} -o NEW`;
}
