import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { type NativeBindings, native } from '../base/native.ts';
import type { ProcessProtection } from './protection-message.ts';

export interface ProtectionOptions {
  readonly logger: Logger;
  /** LUNs of this process become disks of this machine: what is missing is worth a warning. */
  readonly localDisks: boolean;
  readonly native?: NativeBindings | null;
  /** /proc and the root of cgroup v2; other folders in tests. */
  readonly proc?: string;
  readonly cgroups?: string;
}

/** What could not be done, and why. */
interface Refused {
  ioFlusher?: string;
  lockMemory?: string;
  swap?: string;
}

/**
 * Protects this process against waiting for itself: memory that is full of dirty pages of a disk that this process serves is written
 * out by it, and so it may not wait for that when it allocates some, in any of its threads; nor may its own memory lie on that disk.
 * To be called before the server starts: threads that are started later do as those that start them. What is refused is logged.
 */
export function protectProcess(options: ProtectionOptions): ProcessProtection {
  const { logger, localDisks, proc = '/proc', cgroups = '/sys/fs/cgroup' } = options;
  const bindings = options.native === undefined ? native : options.native;
  const refused: Refused = {};
  const ioFlusher = bindings !== null && setIoFlusher(bindings, proc, refused);
  const lockedBytes = bindings === null ? 0 : lockProgram(bindings, proc, refused);
  const swap = swapOf(proc, cgroups);
  if (swap === 'possible') refused.swap = 'the machine has swap, and nothing keeps this process out of it';
  const say = localDisks ? logger.warn : logger.debug;
  if (Object.keys(refused).length > 0) {
    say.call(
      logger,
      refused,
      'a disk of ours that is used on this machine may hang when memory is short: run as root with CAP_SYS_RESOURCE, or as the service does',
    );
  }
  return { ioFlusher, lockedBytes, swap };
}

/** True when every thread that runs our code has it. */
function setIoFlusher(bindings: NativeBindings, proc: string, refused: Refused): boolean {
  for (const thread of readdirSync(join(proc, 'self/task'))) {
    if (blocksRequests(join(proc, 'self/task', thread, 'status'))) continue;
    try {
      bindings.setIoFlusher(Number(thread));
    } catch (error) {
      if ((error as { code?: unknown }).code === 'ESRCH') continue; // it has ended
      refused.ioFlusher = messageOf(error);
      return false;
    }
  }
  return true;
}

/**
 * Node's thread that waits for SIGUSR1, to open a port for a debugger, blocks all other signals and can so not be asked. It never runs
 * anything in a server.
 */
function blocksRequests(statusFile: string): boolean {
  const REQUEST_SIGNAL = 63;
  try {
    const blocked = /^SigBlk:\s*([0-9a-f]+)$/m.exec(readFileSync(statusFile, 'utf8'))?.[1];
    return blocked !== undefined && (BigInt(`0x${blocked}`) >> BigInt(REQUEST_SIGNAL - 1)) % 2n === 1n;
  } catch {
    return true; // the thread has ended
  }
}

/**
 * Keeps the program and its libraries in memory. Not the rest: V8 gives pages back with calls that fail on locked memory, and ends
 * the process then.
 */
function lockProgram(bindings: NativeBindings, proc: string, refused: Refused): number {
  let lockedBytes = 0;
  for (const line of readFileSync(join(proc, 'self/maps'), 'utf8').split('\n')) {
    const match = /^([0-9a-f]+)-([0-9a-f]+) ...p \S+ \S+ \d+ +\/(?!dev\/)/.exec(line);
    if (match === null) continue;
    const begin = Number.parseInt(match[1]!, 16);
    const end = Number.parseInt(match[2]!, 16);
    try {
      bindings.lockMemory(begin, end);
      lockedBytes += end - begin;
    } catch (error) {
      refused.lockMemory = messageOf(error);
      return lockedBytes;
    }
  }
  return lockedBytes;
}

function swapOf(proc: string, cgroups: string): ProcessProtection['swap'] {
  try {
    if (readFileSync(join(proc, 'swaps'), 'utf8').trim().split('\n').length < 2) return 'none';
  } catch {
    return 'none'; // a kernel without swap
  }
  let group = /^0::(.*)$/m.exec(readFileSync(join(proc, 'self/cgroup'), 'utf8'))?.[1] ?? '/';
  for (; group !== '' && group !== '/'; group = group.slice(0, group.lastIndexOf('/'))) {
    try {
      if (readFileSync(join(cgroups, group, 'memory.swap.max'), 'utf8').trim() === '0') return 'excluded';
    } catch {
      // no such controller here
    }
  }
  return 'possible';
}
