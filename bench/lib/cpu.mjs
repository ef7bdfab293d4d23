import { readdirSync, readFileSync } from 'node:fs';

const NS_PER_TICK = 1e7;

/** Nanoseconds of CPU that all threads of a process have used; io_uring's workers are among them. @param {number} pid */
export function cpuOf(pid) {
  let total = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      total += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
    } catch {
      // The thread has ended.
    }
  }
  return total;
}

/** Nanoseconds that the machine's processors were not idle, of all of them together. */
export function cpuOfMachine() {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = readFileSync('/proc/stat', 'utf8')
    .slice(5, 200)
    .trim()
    .split(/\s+/)
    .map(Number);
  return (user + nice + system + irq + softirq + steal) * NS_PER_TICK;
}

/** Bytes of a process in memory. @param {number} pid @param {'VmRSS' | 'VmHWM'} field */
export function memoryOf(pid, field) {
  const kib = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kib) * 1024;
}
