import { join } from 'node:path';
import { runOk } from './processes.mjs';

/** Builds the program that the end-to-end tests start, so that they never judge an old one. */
export async function setup(): Promise<void> {
  const root = join(import.meta.dirname, '../..');
  await runOk('npm', ['run', '--silent', 'build'], { cwd: root, timeoutMs: 120_000 });
}
