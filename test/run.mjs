#!/usr/bin/env node
/**
 * `npm test`: everything that is tested, one step after the other, with one list of what failed at the end.
 *
 * Plain Node without dependencies, because it is what says that a dependency is missing. It needs no terminal and no standard input.
 * What the steps need from Debian it installs when it runs as root on Debian; elsewhere it says which steps it leaves out.
 * With `CI=true` a step or test that is left out is a failure.
 *
 * A step that is a program of its own reports its counts by a line `N passed, N failed[, N skipped]` at the end of its output.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { installTools } from './support/debian-install.mjs';
import { DEBIAN_PACKAGES, findTool, searchPath, VITEST_TOOLS } from './support/debian-tools.mjs';
import { endRecordedGroups } from './support/processes.mjs';

const ROOT = dirname(import.meta.dirname);
const CI = process.env.CI === 'true';
const MINUTE = 60_000;
const ADDON = 'native-bindings/build/Release/thinlun_native.node';
/** What a test may take beyond its own limit before its process is killed: it may then still be in a hook, which has a limit too. */
const HANG_GRACE_MS = 150_000;

/**
 * @typedef {object} Step
 * @property {string} name
 * @property {string} what
 * @property {readonly string[]} command
 * @property {number} limitMs
 * @property {readonly string[]} [tools] Programs that it cannot do without, as in DEBIAN_PACKAGES.
 * @property {boolean} [root] It must run as root.
 * @property {boolean} [vitest] Its counts come from vitest's own report.
 * @property {readonly string[]} [after] Steps whose success it builds on.
 * @property {string} [file] What it runs or loads.
 */

const bin = (/** @type {string} */ name) => join(ROOT, 'node_modules', '.bin', name);

/** @type {readonly Step[]} */
const STEPS = [
  {
    name: 'lint',
    what: 'format and lint',
    command: [bin('biome'), 'ci', '--colors=off', '--error-on-warnings', '.'],
    limitMs: 5 * MINUTE,
  },
  { name: 'typecheck', what: 'types', command: [bin('tsc'), '-p', 'tsconfig.json'], limitMs: 5 * MINUTE },
  { name: 'build', what: 'the program', command: ['npm', 'run', '--silent', 'build'], limitMs: 5 * MINUTE },
  {
    name: 'addon',
    what: 'the native addon, which npm ci has built where there is a compiler',
    command: [process.execPath, '-e', `require(${JSON.stringify(`./${ADDON}`)})`],
    limitMs: MINUTE,
    file: ADDON,
  },
  {
    name: 'unit',
    what: 'every folder of src by itself, and the rules of the house',
    command: [bin('vitest'), 'run', '--project', 'unit'],
    limitMs: 20 * MINUTE,
    tools: VITEST_TOOLS,
    vitest: true,
  },
  {
    name: 'e2e',
    what: 'the built program, driven by qemu and libiscsi; kill -9 under load',
    command: [bin('vitest'), 'run', '--project', 'e2e'],
    limitMs: 15 * MINUTE,
    tools: VITEST_TOOLS,
    vitest: true,
    after: ['build'],
  },
  {
    name: 'lab',
    what: "the guest's root folder, which has the kernel and newer programs than the machine",
    command: ['bash', 'test/kernel/build-rootfs.sh'],
    limitMs: 15 * MINUTE,
    tools: ['mmdebstrap'],
    root: true,
    file: 'test/kernel/build-rootfs.sh',
  },
  {
    name: 'conformance',
    what: 'every test of iscsi-test-cu against the portal, in five profiles',
    command: [process.execPath, 'test/conformance/iscsi-test-cu.mjs'],
    limitMs: 15 * MINUTE,
    tools: ['iscsi-test-cu', 'thin_check'],
    after: ['build', 'lab'],
    file: 'test/conformance/iscsi-test-cu.mjs',
  },
  {
    name: 'kernel',
    what: 'a real kernel: dm-thin, LIO with TCMU, open-iscsi',
    command: [process.execPath, 'test/kernel/run.mjs'],
    limitMs: 30 * MINUTE,
    tools: ['mmdebstrap'],
    root: true,
    after: ['build', 'lab'],
    file: 'test/kernel/run.mjs',
  },
];

/** Only on demand. @type {readonly Step[]} */
const EXTRA_STEPS = [
  {
    name: 'tidy',
    what: 'the rules of the house alone (they are part of unit)',
    command: [bin('vitest'), 'run', '--project', 'unit', 'test/tidy.test.ts'],
    limitMs: 2 * MINUTE,
    vitest: true,
  },
];

/**
 * @typedef {object} Outcome
 * @property {Step} step
 * @property {number} passed
 * @property {number} failed
 * @property {number} skipped
 * @property {number} seconds
 * @property {string[]} failures Titles and reasons.
 * @property {string} [leftOut] Why it did not run.
 */

/** @type {Set<number>} Process groups that this program started and that still run. */
const groups = new Set();

function help() {
  const rows = [...STEPS, ...EXTRA_STEPS].map((step) => `  ${step.name.padEnd(12)} ${step.what}`);
  console.log(`Runs all tests: npm test [-- OPTIONS]

  --only STEP[,STEP]   only these steps (build runs too where one of them needs it)
  --skip STEP[,STEP]   all but these steps; not with CI=true
  --no-install         install nothing from Debian
  --help

Steps, in this order:
${rows.join('\n')}`);
}

async function main() {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true },
      skip: { type: 'string', multiple: true },
      'no-install': { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) return help();
  const steps = chooseSteps(names(values.only), names(values.skip));
  if (!existsSync(bin('vitest'))) {
    console.error('The dependencies are not installed: run npm ci first.');
    process.exitCode = 2;
    return;
  }
  process.env.PATH = searchPath();
  const work = mkdtempSync(join(tmpdir(), 'thinlun-test-'));
  for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
    process.once(signal, () => {
      for (const group of groups) killGroup(group, 'SIGKILL');
      endRecordedGroups(join(work, 'groups'));
      rmSync(work, { recursive: true, force: true });
      process.exit(130);
    });
  }
  try {
    if (!values['no-install']) installTools(steps.flatMap((step) => step.tools ?? []));
    /** @type {Outcome[]} */
    const outcomes = [];
    for (const step of steps) outcomes.push(await runStep(step, outcomes, work));
    summarize(outcomes);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** @param {string[] | undefined} lists */
function names(lists) {
  return (lists ?? []).flatMap((list) => list.split(',')).filter(Boolean);
}

/** @param {string[]} only @param {string[]} skip */
function chooseSteps(only, skip) {
  const all = [...STEPS, ...EXTRA_STEPS];
  for (const name of [...only, ...skip]) {
    if (!all.some((step) => step.name === name)) {
      console.error(`There is no step "${name}": choose from ${all.map((step) => step.name).join(', ')}`);
      process.exit(2);
    }
  }
  if (CI && skip.length > 0) {
    console.error('With CI=true nothing may be left out: --skip is refused.');
    process.exit(2);
  }
  if (only.length === 0) return STEPS.filter((step) => !skip.includes(step.name));
  const chosen = all.filter((step) => only.includes(step.name) && !skip.includes(step.name));
  const needed = new Set(chosen.flatMap((step) => step.after ?? []));
  return all.filter((step) => chosen.includes(step) || needed.has(step.name));
}

/** Why a step cannot run, or null. @param {Step} step @param {readonly Outcome[]} earlier */
function obstacle(step, earlier) {
  if (step.file && !existsSync(join(ROOT, step.file))) return `${step.file} does not exist`;
  const broken = earlier.find((outcome) => step.after?.includes(outcome.step.name) && outcome.failed > 0);
  if (broken) return `${broken.step.name} failed`;
  if (step.root && process.getuid?.() !== 0) return 'it must run as root';
  // A vitest step leaves out by itself, test by test, what it has no program for.
  const missing = step.vitest ? [] : (step.tools ?? []).filter((name) => findTool(name) === null);
  if (missing.length === 0) return null;
  return `missing: ${missing.map((name) => `${name} (Debian: ${DEBIAN_PACKAGES[name]})`).join(', ')}`;
}

/** @param {Step} step @param {readonly Outcome[]} earlier @param {string} work @returns {Promise<Outcome>} */
async function runStep(step, earlier, work) {
  console.log(`\n=== ${step.name}: ${step.what}`);
  /** @type {Outcome} */
  const outcome = { step, passed: 0, failed: 0, skipped: 0, seconds: 0, failures: [] };
  const reason = obstacle(step, earlier);
  if (reason !== null) {
    outcome.leftOut = reason;
    const dependsOnFailure = reason.endsWith(' failed');
    if (CI || dependsOnFailure) {
      outcome.failed = 1;
      outcome.failures.push(`did not run: ${reason}`);
    } else outcome.skipped = 1;
    console.log(`!!! LEFT OUT: ${step.name}: ${reason}`);
    return outcome;
  }
  const begun = performance.now();
  const state = join(work, 'state');
  const report = join(work, `${step.name}.json`);
  rmSync(state, { recursive: true, force: true });
  mkdirSync(state);
  const extra = step.vitest ? ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`] : [];
  const result = await runCommand([...step.command, ...extra], step.limitMs, state, join(work, 'groups'));
  outcome.seconds = (performance.now() - begun) / 1000;
  outcome.failures.push(...result.problems);
  const left = endRecordedGroups(join(work, 'groups'));
  if (left > 0) outcome.failures.push(`left ${left} programs running`);
  if (step.vitest) countVitest(outcome, report);
  else countLine(outcome, result.tail);
  const complained = outcome.failures.length > 0 || result.status !== 0;
  if (complained && outcome.failed === 0) {
    outcome.failed = 1;
    if (outcome.failures.length === 0) outcome.failures.push(`exit status ${result.status}`);
  }
  if (!complained && outcome.passed === 0 && outcome.failed === 0) outcome.passed = 1; // A check without counts of its own.
  if (CI && outcome.skipped > 0) outcome.failures.push(`${outcome.skipped} skipped, with CI=true`);
  console.log(`=== ${step.name}: ${countsOf(outcome)} in ${outcome.seconds.toFixed(1)} s`);
  return outcome;
}

/**
 * Runs one command with its output passed through, to its end or its limit. Tests that hang are killed and named.
 * @param {readonly string[]} command @param {number} limitMs @param {string} state @param {string} recorded
 * @returns {Promise<{ status: number | string, tail: string, problems: string[] }>}
 */
function runCommand(command, limitMs, state, recorded) {
  return new Promise((resolve) => {
    const [program, ...args] = command;
    /** @type {string[]} */
    const problems = [];
    let tail = '';
    const child = spawn(/** @type {string} */ (program), args, {
      cwd: ROOT,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...process.env,
        NO_COLOR: '1',
        npm_config_update_notifier: 'false',
        THINLUN_TEST_STATE: state,
        THINLUN_TEST_GROUPS: recorded,
      },
    });
    const pid = child.pid;
    if (pid !== undefined) groups.add(pid);
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        process.stdout.write(text);
        tail = (tail + text).slice(-65536);
      });
    }
    const limit = setTimeout(() => {
      problems.push(`was killed after ${limitMs / MINUTE} minutes; running then: ${describeRunning(state)}`);
      if (pid !== undefined) killGroup(pid, 'SIGKILL');
    }, limitMs);
    const watch = setInterval(() => problems.push(...endHungTests(state)), 2000);
    const finish = (/** @type {number | string} */ status) => {
      clearTimeout(limit);
      clearInterval(watch);
      if (pid !== undefined) groups.delete(pid);
      resolve({ status, tail, problems });
    };
    child.once('error', (error) => finish(error.message));
    child.once('exit', () => {
      if (pid !== undefined) killGroup(pid, 'SIGKILL'); // What it left behind keeps the pipes open.
    });
    child.once('close', (code, signal) => finish(code ?? signal ?? 'unknown'));
  });
}

/** @param {string} state @returns {{ pid: number, file: string, title: string, begunMs: number, timeoutMs: number }[]} */
function runningTests(state) {
  return readdirSync(state).flatMap((name) => {
    try {
      return [{ pid: Number(name), ...JSON.parse(readFileSync(join(state, name), 'utf8')) }];
    } catch {
      return []; // Just being written or removed.
    }
  });
}

/** @param {string} state */
function describeRunning(state) {
  return (
    runningTests(state)
      .map((test) => `${test.file} > ${test.title}`)
      .join('; ') || 'no test'
  );
}

/** Kills test processes whose test is far beyond its own limit: it never gives control back. @param {string} state */
function endHungTests(state) {
  /** @type {string[]} */
  const ended = [];
  for (const test of runningTests(state)) {
    const tookMs = Date.now() - test.begunMs;
    if (tookMs < test.timeoutMs + HANG_GRACE_MS) continue;
    try {
      process.kill(test.pid, 'SIGKILL');
    } catch {
      // Gone by itself.
    }
    rmSync(join(state, String(test.pid)), { force: true });
    const text = `${test.file} > ${test.title}: hung for ${Math.round(tookMs / 1000)} s and was killed`;
    console.log(`\n!!! ${text}`);
    ended.push(text);
  }
  return ended;
}

/** @param {Outcome} outcome @param {string} report */
function countVitest(outcome, report) {
  let json;
  try {
    json = JSON.parse(readFileSync(report, 'utf8'));
  } catch {
    outcome.failures.push('vitest wrote no report');
    outcome.failed = 1;
    return;
  }
  outcome.passed = json.numPassedTests;
  outcome.failed = json.numFailedTests;
  for (const file of json.testResults) {
    const name = file.name.startsWith(ROOT) ? file.name.slice(ROOT.length + 1) : file.name;
    let unfinished = 0;
    for (const test of file.assertionResults) {
      if (test.status === 'failed') outcome.failures.push(`${name} > ${test.fullName}`);
      if (test.status === 'skipped' || test.status === 'todo') outcome.skipped++;
      if (test.status === 'pending') unfinished++;
    }
    if (unfinished > 0) {
      outcome.failed += unfinished;
      outcome.failures.push(`${name}: ${unfinished} tests did not finish`);
    }
    if (
      file.status === 'failed' &&
      !file.assertionResults.some((/** @type {any} */ test) => test.status === 'failed')
    ) {
      outcome.failed++;
      outcome.failures.push(`${name}: ${String(file.message).split('\n')[0] || 'the file itself failed'}`);
    }
  }
}

/** The last line of counts in a program's output. @param {Outcome} outcome @param {string} tail */
function countLine(outcome, tail) {
  const lines = [...tail.matchAll(/^(?:\w+: )?(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/gm)];
  const last = lines.at(-1);
  if (!last) return;
  outcome.passed = Number(last[1]);
  outcome.failed = Number(last[2]);
  outcome.skipped = Number(last[3] ?? 0);
  if (outcome.failed > 0) outcome.failures.push(`${outcome.failed} failed, see its output above`);
}

/** @param {{ passed: number, failed: number, skipped: number }} counts */
function countsOf({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}

/** @param {readonly Outcome[]} outcomes */
function summarize(outcomes) {
  console.log('\n=== summary');
  const total = { passed: 0, failed: 0, skipped: 0 };
  let good = true;
  for (const outcome of outcomes) {
    total.passed += outcome.passed;
    total.failed += outcome.failed;
    total.skipped += outcome.skipped;
    const fine = outcome.failed === 0 && outcome.failures.length === 0;
    if (!fine) good = false;
    const word = !fine ? 'FAILED' : outcome.leftOut ? 'left out' : 'ok';
    const text = outcome.leftOut ?? countsOf(outcome);
    console.log(
      `${outcome.step.name.padEnd(12)} ${word.padEnd(9)} ${outcome.seconds.toFixed(1).padStart(7)} s  ${text}`,
    );
  }
  for (const outcome of outcomes) {
    for (const failure of outcome.failures.slice(0, 100)) console.log(`FAILED: ${outcome.step.name}: ${failure}`);
  }
  const omitted = outcomes.filter((outcome) => outcome.leftOut && outcome.failed === 0);
  for (const outcome of omitted) console.log(`NOT TESTED HERE: ${outcome.step.name}: ${outcome.leftOut}`);
  console.log(`\n${countsOf(total)}`);
  process.exitCode = good ? 0 : 1;
}

/** @param {number} pid @param {NodeJS.Signals} signal */
function killGroup(pid, signal) {
  try {
    process.kill(-pid, signal);
  } catch {
    // Ended already.
  }
}

await main();
