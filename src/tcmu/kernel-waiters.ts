import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Where a thread sleeps, uninterruptibly and for ever, until somebody answers its event. */
const WAITING_IN = 'tcmu_netlink_event_send';

/** The threads of this host that wait for an answer to a TCMU event, as `tid:start time`; null when the kernel does not tell where threads wait. */
export function netlinkWaiters(proc: string): Set<string> | null {
  const waiters = new Set<string>();
  let unknown = false;
  for (const pid of numbersIn(proc)) {
    for (const tid of numbersIn(join(proc, pid, 'task'))) {
      const task = join(proc, pid, 'task', tid);
      // Behind the name in parentheses: state is the first field, start time the twentieth.
      const fields = read(join(task, 'stat'))
        .replace(/^.*\)\s*/s, '')
        .split(' ');
      if (fields[0] !== 'D') continue;
      // Some architectures tell something else in the first, and only root may read the second.
      const where = read(join(task, 'wchan')).replace(/^0$/, '') + read(join(task, 'stack'));
      if (where === '') unknown = true;
      if (where.includes(WAITING_IN)) waiters.add(`${tid}:${fields[19] ?? ''}`);
    }
  }
  return unknown && waiters.size === 0 ? null : waiters;
}

function numbersIn(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => /^\d+$/.test(name));
  } catch {
    return []; // ended meanwhile
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
