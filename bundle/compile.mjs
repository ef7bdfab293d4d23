#!/usr/bin/env node
/**
 * Has V8 compile what a command needs that a server answers, for the start of later ones: `dist/bundle/main.cjs.v8`. It serves the Node that runs this, and is
 * ignored by others. Throws what keeps it from working; nothing has been made then.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const DIR = import.meta.dirname;
const PROGRAM = join(DIR, '..', 'bin', 'thinlun');

const home = await mkdtemp(join(tmpdir(), 'thinlun-build-'));
const pool = join(home, 'pool');
try {
  const args = [PROGRAM, 'demo', '--dir', pool, '--portal', '127.0.0.1:0', '--json', '--log-level', 'error'];
  const server = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  const ended = once(server, 'exit');
  try {
    await Promise.race([once(server.stdout, 'data'), ended.then(() => Promise.reject(new Error('no server started')))]);
    const command = ['volume', 'snapshot', pool, 'vol0', 'snapshot'];
    await promisify(execFile)(process.execPath, [join(DIR, 'compiled-run.cjs'), ...command]);
  } finally {
    server.kill();
    await ended;
  }
} finally {
  await rm(home, { recursive: true });
}
