import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { NativeBindings } from '../../src/base/native.ts';
import { protectProcess } from '../../src/daemon/process-protection.ts';
import { RecordingLogger } from './served-pool.ts';

const NO_SWAP = 'Filename\tType\tSize\tUsed\tPriority\n';
const ONE_SWAP = `${NO_SWAP}/dev/sda2 partition 1000 0 -2\n`;
const MAPS = [
  '00400000-00500000 r-xp 00000000 08:01 1234                    /usr/bin/node',
  '00500000-00501000 rw-p 00100000 08:01 1234                    /usr/bin/node',
  '01000000-02000000 rw-p 00000000 00:00 0                       [heap]',
  '10000000-20000000 rw-p 00000000 00:00 0 ',
  '30000000-70000000 rw-s 00000000 00:05 77                      /dev/uio0',
  '7f0000000000-7f0000010000 r-xp 00000000 08:01 99              /lib/libc.so.6',
  '7ff000000000-7ff000001000 r-xp 00000000 00:00 0               [vdso]',
].join('\n');

let root: string;
let proc: string;
let cgroups: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'thinlun-protection-'));
  proc = join(root, 'proc');
  cgroups = join(root, 'cgroup');
  put('proc/swaps', NO_SWAP);
  put('proc/self/cgroup', '0::/system.slice/thinlun.service\n');
  put('proc/self/maps', MAPS);
  put('proc/self/task/10/status', 'SigBlk:\t0000000000000000\n');
  put('proc/self/task/11/status', 'SigBlk:\t0000000000000200\n');
  put('proc/self/task/12/status', 'SigBlk:\tfffffffe7ffbfeff\n');
});
afterEach(() => rmSync(root, { recursive: true }));

function put(file: string, text: string): void {
  mkdirSync(dirname(join(root, file)), { recursive: true });
  writeFileSync(join(root, file), text);
}

/** The two calls; each throws an error with the code that is given for it. */
function calls(refuse: { flusher?: string; lock?: string } = {}) {
  const asked: number[] = [];
  const locked: [number, number][] = [];
  const fail = (code: string): never => {
    throw Object.assign(new Error(`${code}: no`), { code });
  };
  const bindings = {
    setIoFlusher: (thread: number) => (refuse.flusher === undefined ? void asked.push(thread) : fail(refuse.flusher)),
    lockMemory: (begin: number, end: number) =>
      refuse.lock === undefined ? void locked.push([begin, end]) : fail(refuse.lock),
  };
  return { asked, locked, bindings: bindings as unknown as NativeBindings };
}

function protect(bindings: NativeBindings | null, localDisks = true) {
  const logger = new RecordingLogger();
  const protection = protectProcess({ logger, localDisks, native: bindings, proc, cgroups });
  return { protection, logger };
}

describe('protection against waiting for itself', () => {
  test('asks every thread that can be asked, and locks what lies in files but not the maps of devices', () => {
    const { asked, locked, bindings } = calls();
    const { protection, logger } = protect(bindings);
    expect(asked).toEqual([10, 11]);
    expect(locked).toEqual([
      [0x400000, 0x500000],
      [0x500000, 0x501000],
      [0x7f0000000000, 0x7f0000010000],
    ]);
    expect(protection).toEqual({ ioFlusher: true, lockedBytes: 0x101000 + 0x10000, swap: 'none' });
    expect(logger.lines).toEqual([]);
  });

  test.each([
    [true, 'warn'],
    [false, 'debug'],
  ] as const)('says once what was refused (disks on this machine: %s)', (localDisks, level) => {
    const { bindings } = calls({ flusher: 'EPERM', lock: 'ENOMEM' });
    const { protection, logger } = protect(bindings, localDisks);
    expect(protection).toEqual({ ioFlusher: false, lockedBytes: 0, swap: 'none' });
    expect(logger.lines).toHaveLength(1);
    expect(logger.lines[0]).toMatchObject({ level, fields: { ioFlusher: 'EPERM: no', lockMemory: 'ENOMEM: no' } });
  });

  test('a thread that has ended meanwhile does not matter', () => {
    expect(protect(calls({ flusher: 'ESRCH' }).bindings).protection.ioFlusher).toBe(true);
  });

  test('works without the addon', () => {
    expect(protect(null).protection).toEqual({ ioFlusher: false, lockedBytes: 0, swap: 'none' });
  });

  test('tells whether memory may be swapped out', () => {
    const { bindings } = calls();
    put('proc/swaps', ONE_SWAP);
    const { protection, logger } = protect(bindings);
    expect(protection.swap).toBe('possible');
    expect(logger.lines).toHaveLength(1);
    put('cgroup/system.slice/memory.swap.max', 'max\n');
    expect(protect(bindings).protection.swap).toBe('possible');
    put('cgroup/system.slice/memory.swap.max', '0\n');
    expect(protect(bindings).protection.swap).toBe('excluded');
  });
});
