import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { ADDON_PATH, requireAddon } from '../support/native-addon.ts';

requireAddon();

/** In a process of its own: what it does to it cannot be taken back. */
const SCRIPT = `
const { readdirSync, readFileSync, promises } = require('node:fs');
const { setIoFlusher, lockMemory } = require(${JSON.stringify(ADDON_PATH)});
const codeOf = (call) => { try { call(); return 'ok'; } catch (error) { return error.code; } };
(async () => {
  await promises.readFile('/proc/self/status'); // starts the thread pool
  const codes = {};
  let lockedBytes = 0;
  for (const thread of readdirSync('/proc/self/task')) {
    const blocked = /SigBlk:\\s*([0-9a-f]+)/.exec(readFileSync('/proc/self/task/' + thread + '/status', 'utf8'))[1];
    const code = blocked[0] === '0' ? codeOf(() => setIoFlusher(Number(thread))) : 'not asked';
    codes[code] = (codes[code] ?? 0) + 1;
  }
  for (const line of readFileSync('/proc/self/maps', 'utf8').split('\\n')) {
    const match = /^([0-9a-f]+)-([0-9a-f]+) .* \\//.exec(line);
    if (match === null) continue;
    const [begin, end] = [parseInt(match[1], 16), parseInt(match[2], 16)];
    if (codeOf(() => lockMemory(begin, end)) === 'ok') lockedBytes += end - begin;
  }
  let garbage = [];
  for (let i = 0; i < 300000; i++) garbage.push({ i, text: 'x' + i });
  garbage = [];
  gc({ type: 'major' });
  const noIo = readdirSync('/proc/self/task').map((thread) => {
    const stat = readFileSync('/proc/self/task/' + thread + '/stat', 'utf8').replace(/^.*\\) /, '');
    return Math.floor(Number(stat.split(' ')[6]) / 0x80000) % 2 === 1; // PF_MEMALLOC_NOIO
  });
  const status = readFileSync('/proc/self/status', 'utf8');
  const mayFlush = (BigInt('0x' + /CapEff:\\s*(.*)/.exec(status)[1]) >> 24n) % 2n === 1n; // CAP_SYS_RESOURCE
  const lockedKiB = Number(/VmLck:\\s*(\\d+)/.exec(status)[1]);
  console.log(JSON.stringify({ codes, noIo, mayFlush, lockedBytes, lockedKiB, gone: codeOf(() => setIoFlusher(2 ** 31 - 1)) }));
})();
`.replaceAll('\\\\', '\\');

test('every thread but the one for debuggers becomes an I/O flusher where the machine allows it, and V8 goes on with a locked program', () => {
  const output = execFileSync(process.execPath, ['--expose-gc', '-e', SCRIPT], { encoding: 'utf8' });
  const { codes, noIo, mayFlush, lockedBytes, lockedKiB, gone } = JSON.parse(output);
  const threads = noIo.length;
  expect(codes).toEqual(mayFlush ? { ok: threads - 1, 'not asked': 1 } : { EPERM: threads - 1, 'not asked': 1 });
  expect(noIo.filter((on: boolean) => on)).toHaveLength(mayFlush ? threads - 1 : 0);
  expect(lockedKiB * 1024).toBe(lockedBytes);
  expect(gone).toBe('ESRCH');
});
