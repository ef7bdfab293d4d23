import { writeSync } from 'node:fs';
import { beforeEach, TestRunner } from 'vitest';
import { findTool, missingToolMessage, VITEST_TOOLS } from './debian-tools.mjs';

/** Nothing may be left out: a missing program is a failure. */
export const EVERYTHING_REQUIRED: boolean = process.env['CI'] === 'true';

const announced = new Set<string>();

/**
 * The path of a program that this test cannot do without. Where it is missing: throws with `CI=true`; otherwise says
 * `SKIPPED: <why>` once on standard error and skips the running test. At the top level of a file or of a `describe` it skips
 * every test in it. Inside a hook there is nothing that could be skipped, so there it throws.
 */
export function requireTool(name: string): string {
  const path = find(name);
  if (path !== null) return path;
  skipBecause(missingToolMessage(name));
  return name;
}

/** As `requireTool`, for anything else that a machine may lack: `reason` is null when it is there. */
export function requireMachine(reason: string | null): void {
  if (reason !== null) skipBecause(reason);
}

/** The path of a program that makes a test stricter but is not its subject; null where it is missing. Throws with `CI=true`. */
export function optionalTool(name: string): string | null {
  const path = find(name);
  if (path !== null) return path;
  const reason = missingToolMessage(name);
  if (EVERYTHING_REQUIRED) throw new Error(reason);
  announce(`CHECKED LESS: ${reason}`);
  return null;
}

function find(name: string): string | null {
  if (!VITEST_TOOLS.includes(name)) throw new Error(`${name} is not among VITEST_TOOLS, so nothing installs it`);
  return findTool(name);
}

function skipBecause(reason: string): void {
  if (EVERYTHING_REQUIRED) throw new Error(`${reason}; with CI=true nothing may be skipped`);
  announce(`SKIPPED: ${reason}`);
  const running = TestRunner.getCurrentTest();
  if (running) running.context.skip(reason);
  // While the file is being collected: every test of the current file or `describe`. In a hook this call itself throws.
  beforeEach((context) => context.skip(reason));
}

/** Past vitest's capturing of output, so that it stands in every log exactly once per process. */
function announce(text: string): void {
  if (announced.has(text)) return;
  announced.add(text);
  writeSync(2, `${text}\n`);
}
