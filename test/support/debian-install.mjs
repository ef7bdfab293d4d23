/** Installs the programs of `debian-tools.mjs` where that is possible: as root on Debian. */
import { spawnSync } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { DEBIAN_PACKAGES, findTool } from './debian-tools.mjs';

const TIMEOUT_MS = 600_000;

/** What of `names` is missing is installed, or it is said how. @param {readonly string[]} names */
export function installTools(names) {
  const missing = [...new Set(names)].filter((name) => findTool(name) === null);
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map((name) => DEBIAN_PACKAGES[name]).filter((name) => name !== undefined))];
  if (process.getuid?.() !== 0 || !existsSync('/etc/debian_version') || findTool('apt-get') === null) {
    console.log(`Missing here: ${missing.join(', ')}. On Debian: apt-get install ${packages.join(' ')}`);
    return;
  }
  console.log(`Installing from Debian: ${packages.join(' ')}`);
  const allowServices = forbidServices();
  try {
    if (apt(['update'])) apt(['install', '-y', '--no-install-recommends', ...packages]);
  } finally {
    allowServices();
  }
}

/**
 * Packages must not start the services that they bring. Returns what undoes it: a machine that already forbids them stays so.
 * @returns {() => void}
 */
function forbidServices() {
  const policy = '/usr/sbin/policy-rc.d';
  if (existsSync(policy)) return () => {};
  writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  return () => rmSync(policy, { force: true });
}

/** @param {string[]} args */
function apt(args) {
  for (let attempt = 1; ; attempt++) {
    const result = spawnSync('apt-get', ['-q', '-o', 'DPkg::Lock::Timeout=120', ...args], {
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
      stdio: ['ignore', 'pipe', 'pipe'],
      encoding: 'utf8',
      timeout: TIMEOUT_MS,
      maxBuffer: 64 * 1024 * 1024,
    });
    if (result.status === 0) return true;
    console.log(`${result.stdout}\n${result.stderr}`.split('\n').slice(-30).join('\n'));
    console.log(`apt-get ${args[0]} failed${attempt < 2 ? '; once more' : ''}`);
    if (attempt === 2) return false;
  }
}
