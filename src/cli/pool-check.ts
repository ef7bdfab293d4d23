import { setTimeout as sleep } from 'node:timers/promises';
import { monotonicClock } from '../base/clock.ts';
import { AdvisedError } from '../daemon/advised-error.ts';
import { ControlClient } from '../daemon/control-client.ts';
import type { CheckMessage } from '../daemon/control-messages.ts';
import { untilFree } from '../daemon/pool-access.ts';
import { PoolLock } from '../thin/pool-lock.ts';
import { checkPool as checkFolder, type PoolCheck } from '../tools/check-pool.ts';
import { describeDamage } from '../tools/damage.ts';
import type { RunContext } from './run-context.ts';

const ATTEMPTS = 5;
const PAUSE_MS = 300;

/** `pool check`: the exit status is 1 when anything is wrong. */
export async function checkPool(context: RunContext, dir: string, flags: { json?: boolean }): Promise<void> {
  const check = await untilFree(dir, monotonicClock, async () => {
    const server = await ControlClient.connect(dir);
    return server === null ? checkAlone(dir) : checkServed(dir, server);
  });
  const ok = check.errors === 0 && check.leaks === 0;
  if (!ok) context.exitCode = 1;
  const { output } = context;
  if (flags.json) {
    output.json({ ok, ...check } satisfies CheckMessage);
    return;
  }
  for (const damage of check.damages) output.line(describeDamage(damage));
  const omitted = check.errors + check.leaks + check.warnings - check.damages.length;
  if (omitted > 0) output.line(`... and ${omitted} more`);
  const counts = `volumes: ${check.deviceCount}, mapped blocks: ${check.mappingCount}, transaction: ${check.transactionId}`;
  if (ok) output.line(`The metadata is clean (${counts}).`);
  else if (check.errors === 0) {
    output.line(`The metadata has leaks and no other error (leaks: ${check.leaks}, ${counts}).`);
    output.line(
      'Nothing is wrong with the data: blocks that nobody uses are counted as used. To free them with thin_check 1.0.9 or newer, with nothing having it open:',
    );
    output.line(`  thin_check --clear-needs-check-flag ${dir}/metadata`);
  } else output.line(`The metadata is damaged (errors: ${check.errors}, leaks: ${check.leaks}, ${counts}).`);
  if (ok && check.needsCheck) {
    output.line('The pool stays read-only until its mark is cleared, with nothing having it open:');
    output.line(`  thin_check --clear-needs-check-flag ${dir}/metadata`);
  }
  if (check.errors > 0) output.line('Write nothing to it: copy the metadata, then repair the copy with thin_repair.');
}

async function checkAlone(dir: string): Promise<PoolCheck> {
  const lock = await PoolLock.take(dir);
  try {
    const check = await checkFolder(dir);
    if (check !== null) return check;
  } finally {
    lock.release();
  }
  throw new AdvisedError(
    'EBUSY',
    `Cannot check the pool "${dir}": its metadata changed meanwhile`,
    'Something other than thinlun writes to it: look whether the kernel has it open, with "dmsetup table".',
  );
}

async function checkServed(dir: string, server: ControlClient): Promise<PoolCheck> {
  try {
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      // Whoever goes on writing has at least the time until the next commit for us.
      await server.commit();
      const check = await checkFolder(dir);
      if (check !== null) return check;
      await sleep(PAUSE_MS);
    }
  } finally {
    await server.close();
  }
  throw new AdvisedError(
    'EBUSY',
    `Cannot check the pool "${dir}": it changes faster than it can be checked`,
    'Try again when less is written to it, or stop its server first.',
  );
}
