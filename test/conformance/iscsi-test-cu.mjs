#!/usr/bin/env node
/**
 * Runs every test of libiscsi's iscsi-test-cu against the portal, each in a process of its own (in one process an early test leaves
 * state that later ones trip over), and compares with what is committed in `expected.json`: worse is a failure.
 *
 * A test that is skipped, or that passes without having asserted anything, is not counted as passed: CUnit's own summary does both.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { findTool } from '../support/debian-tools.mjs';
import { run, runOk, TestProcess } from '../support/processes.mjs';
import { ThinlunServer, thinlun } from '../support/thinlun-server.mjs';

const ROOT = join(import.meta.dirname, '..', '..');
const EXPECTED_FILE = join(import.meta.dirname, 'expected.json');
const TABLE_FILE = join(ROOT, 'docs', 'conformance.md');
const DEFAULT_TOOL = 'iscsi-test-cu';
const TEST_LIMIT_MS = 25_000;

/** From best to worst. */
const VERDICTS = /** @type {const} */ (['pass', 'empty', 'skip', 'tool', 'fail', 'timeout', 'crash']);

/**
 * Tests of Debian's 1.19.0 that no target like ours can pass: whatever they end with other than `pass` is `tool`.
 * @type {Readonly<Record<string, string>>}
 */
const TOOL_DEFECTS = {
  'ALL.iSCSITMF.LUNResetSimpleAsync':
    'asserts, before it has waited for the answer, that the answer has come; at times it then crashes over memory it has freed',
  'ALL.GetLBAStatus.UnmapSingle':
    'asks for the status from one block after a physical block begins and expects the answer to begin one physical block later',
};

/**
 * @typedef {(typeof VERDICTS)[number]} Verdict
 * @typedef {object} Result
 * @property {string} name ALL.Suite.Test
 * @property {Verdict} verdict
 * @property {string} reason
 * @property {number} asserts
 */

const { values: options } = parseArgs({
  options: {
    tool: { type: 'string', default: DEFAULT_TOOL },
    url: { type: 'string' },
    only: { type: 'string', default: '.' },
    expect: { type: 'string', default: EXPECTED_FILE },
    write: { type: 'boolean', default: false },
    verbose: { type: 'boolean', short: 'v', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

/** Where the tests go: our own server, started again when it dies, or a URL that the user gave. */
class Subject {
  /** @type {ThinlunServer | null} */
  #server = null;
  #folder = mkdtempSync(join(tmpdir(), 'thinlun-conformance-'));
  deaths = 0;

  get #pool() {
    return join(this.#folder, 'pool');
  }

  async start() {
    if (options.url) return;
    await thinlun('pool', 'create', this.#pool, '--data-size', '4G');
    await thinlun('volume', 'create', this.#pool, 'conformance', '--size', '1G');
    this.#server = await ThinlunServer.start([this.#pool]);
  }

  get url() {
    return options.url ?? /** @type {ThinlunServer} */ (this.#server).lun.url;
  }

  /** What the server said when it died since the last call, or null. @returns {Promise<string | null>} */
  async reviveIfDead() {
    if (!this.#server || this.#server.isRunning) return null;
    const said = this.#server.process.describeOutput().slice(-2000);
    this.deaths++;
    this.#server = await ThinlunServer.start([this.#pool]);
    return said;
  }

  /** What is wrong with the server and its pool after all tests. @returns {Promise<string[]>} */
  async finish() {
    /** @type {string[]} */
    const problems = [];
    if (this.#server) {
      try {
        await this.#server.stop();
        await thinlun('check', this.#pool);
        if (findTool('thin_check')) await runOk('thin_check', [join(this.#pool, 'metadata')]);
      } catch (error) {
        problems.push(error instanceof Error ? error.message : String(error));
      }
    }
    rmSync(this.#folder, { recursive: true, force: true });
    return problems;
  }
}

/** @returns {Promise<string[]>} */
async function listTests() {
  const names = (await runOk(options.tool, ['--list'])).split('\n').map((line) => line.trim());
  const wanted = new RegExp(options.only);
  return names.filter((name) => /^ALL\.[^.]+\.[^.]+$/.test(name) && wanted.test(name));
}

/** @param {string} name @param {string} url @returns {Promise<Result>} */
async function runTest(name, url) {
  // The URL twice: that is how the multipath tests are enabled.
  const child = new TestProcess(options.tool, ['-d', '-S', '-v', '-t', name, url, url]);
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    child.signalGroup('SIGKILL');
  }, TEST_LIMIT_MS);
  const status = await child.exited;
  clearTimeout(timer);
  const text = `${child.stdout}\n${child.stderr}`;
  if (options.verbose) console.log(text);
  const judged = judge(text, status, timedOut);
  const defect = options.tool === DEFAULT_TOOL ? TOOL_DEFECTS[name] : undefined;
  if (defect === undefined || judged.verdict === 'pass') return { name, ...judged };
  return { name, verdict: 'tool', reason: defect, asserts: judged.asserts };
}

/**
 * @param {string} text
 * @param {import('../support/processes.mjs').ExitStatus} status
 * @param {boolean} timedOut
 * @returns {Omit<Result, 'name'>}
 */
function judge(text, status, timedOut) {
  const asserts = Number(/^\s*asserts\s+\d+\s+(\d+)/m.exec(text)?.[1] ?? 0);
  // What the tool says before and after the test itself comes from its own setting up and clearing away.
  const told = /Test: \S+ \.\.\.([\s\S]*?)(?<=\.\.\.|^)(passed|FAILED)/m.exec(text);
  const hasSummary = /^\s*tests\s+\d+\s+1\s+/m.test(text);
  const body = told?.[1] ?? text;
  if (timedOut) {
    return { verdict: 'timeout', reason: complaintIn(body) || `no end within ${TEST_LIMIT_MS / 1000} s`, asserts };
  }
  if (!told || !hasSummary) {
    const how = status.signal ?? `exit status ${status.code}`;
    return { verdict: 'crash', reason: complaintIn(body) || `${how}: ${lastLine(text)}`, asserts };
  }
  // A complaint in a test that passed is about something that the test wanted to fail.
  if (told[2] === 'FAILED') return { verdict: 'fail', reason: complaintIn(text), asserts };
  const skipped = /\[SKIPPED\]\s*(.*)/.exec(body);
  if (skipped) return { verdict: 'skip', reason: skipped[1]?.trim() ?? '', asserts };
  if (asserts === 0) return { verdict: 'empty', reason: 'passed without asserting anything', asserts };
  return { verdict: 'pass', reason: '', asserts };
}

/** The first line in which the tool says what it did not like. @param {string} text */
function complaintIn(text) {
  const line = /^\s*\d+\. (\S+:\d+\s+-.*)$/m.exec(text)?.[1] ?? /\[FAILED\]\s*(.*)/.exec(text)?.[1] ?? '';
  return line
    .replace(/\s*\[SKIPPED\].*/, '')
    .trim()
    .slice(0, 200);
}

/** @param {string} text */
function lastLine(text) {
  return text.trim().split('\n').at(-1)?.slice(0, 200) ?? '';
}

/** @param {readonly Result[]} results @param {string} version */
function table(results, version) {
  const suites = new Map();
  for (const result of results) {
    const suite = result.name.split('.')[1] ?? '';
    const counts = suites.get(suite) ?? { pass: 0, empty: 0, skip: 0, tool: 0, fail: 0, timeout: 0, crash: 0 };
    counts[result.verdict]++;
    suites.set(suite, counts);
  }
  const count = (/** @type {Verdict} */ verdict) => results.filter((result) => result.verdict === verdict).length;
  const rows = [...suites].map(([suite, counts]) => {
    const bad = counts.fail + counts.timeout + counts.crash;
    const total = counts.pass + counts.empty + counts.skip + counts.tool + bad;
    return `| ${suite} | ${total} | ${counts.pass} | ${bad} | ${counts.skip} | ${counts.tool} | ${counts.empty} |`;
  });
  const others = results
    .filter((result) => result.verdict !== 'pass')
    .map((result) => `| ${result.name.slice(4)} | ${result.verdict} | ${result.reason.replaceAll('|', '\\|')} |`);
  return `# Conformance

What libiscsi's \`iscsi-test-cu\` says about a thin volume behind the portal. Generated by
\`node test/conformance/iscsi-test-cu.mjs --write\`; \`npm test\` fails when a test does worse than this.

Tool: ${version}, family ALL, one process per test, destructive and sanitize tests allowed, the URL given twice.

**${count('pass')} of ${results.length} pass**, ${count('fail')} fail, ${count('timeout')} time out, ${count('crash')} crash, ${count('skip')} are
skipped by the tool (mostly: a command that is not there yet), ${count('tool')} cannot be passed because of the tool itself, ${count('empty')} pass without asserting
anything, which proves nothing.

| suite | tests | pass | fail | skipped | tool | empty |
|---|--:|--:|--:|--:|--:|--:|
${rows.join('\n')}

## What does not pass

| test | result | what the tool says |
|---|---|---|
${others.join('\n')}
`;
}

/** @returns {Promise<string>} */
async function toolVersion() {
  const result = await run('dpkg-query', ['-W', '-f', '${Version}', 'libiscsi-bin']);
  return options.tool === DEFAULT_TOOL && result.code === 0 ? `libiscsi-bin ${result.stdout}` : options.tool;
}

async function main() {
  if (options.help) {
    console.log(`usage: node test/conformance/iscsi-test-cu.mjs [options]
  --only REGEX   only tests whose name (ALL.Suite.Test) matches
  --tool PATH    another iscsi-test-cu than the one on PATH
  --url URL      a target that runs already, in place of a thin volume of our own; it is overwritten
  --expect FILE  compare with another file than expected.json; - compares with nothing
  --write        write expected.json and docs/conformance.md from this run
  --verbose, -v  show what the tool prints`);
    return;
  }
  const names = await listTests();
  const subject = new Subject();
  await subject.start();
  /** @type {Result[]} */
  const results = [];
  /** @type {string[]} */
  const problems = [];
  for (const name of names) {
    const result = await runTest(name, subject.url);
    results.push(result);
    const said = await subject.reviveIfDead();
    if (said !== null) problems.push(`${name}: the server died\n${said}`);
    console.log(`${result.verdict.padEnd(8)}${name.padEnd(48)}${result.reason}`);
  }
  problems.push(...(await subject.finish()));

  const version = await toolVersion();
  /** @type {Record<string, { verdict: Verdict, reason?: string }>} */
  const expected =
    options.expect !== '-' && existsSync(options.expect) ? JSON.parse(readFileSync(options.expect, 'utf8')).tests : {};
  let expectedCount = 0;
  for (const { name, verdict, reason } of results) {
    const before = expected[name];
    if (!before) {
      if (options.expect !== '-' && !options.write) problems.push(`${name}: not in ${options.expect}`);
      continue;
    }
    const change = VERDICTS.indexOf(verdict) - VERDICTS.indexOf(before.verdict);
    if (change > 0) problems.push(`${name}: was ${before.verdict}, is ${verdict}: ${reason}`);
    else expectedCount++;
    if (change < 0) console.log(`better: ${name}: was ${before.verdict}, is ${verdict} (take it over with --write)`);
  }
  if (options.write) {
    const tests = Object.fromEntries(
      results.map(({ name, verdict, reason }) => [name, verdict === 'pass' ? { verdict } : { verdict, reason }]),
    );
    writeFileSync(EXPECTED_FILE, `${JSON.stringify({ tool: version, tests }, null, 2)}\n`);
    mkdirSync(dirname(TABLE_FILE), { recursive: true });
    writeFileSync(TABLE_FILE, table(results, version));
  }
  const counts = VERDICTS.map(
    (verdict) => `${results.filter((result) => result.verdict === verdict).length} ${verdict}`,
  );
  console.log(`\n${results.length} tests: ${counts.join(', ')}`);
  for (const problem of problems) console.log(`PROBLEM: ${problem}`);
  const passed = results.filter((result) => result.verdict === 'pass').length;
  console.log(`${expectedCount} as expected or better, of which ${passed} pass\n`);
  console.log(`${passed} passed, ${problems.length} failed`);
  process.exitCode = problems.length > 0 || results.length === 0 ? 1 : 0;
}

await main();
