#!/usr/bin/env node
/**
 * Runs every test of libiscsi's iscsi-test-cu against the portal in five profiles (profiles.mjs), and compares with what is committed in
 * `expected.json` (or `unreleased.json`): worse in any profile is a failure.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { differences, versionOrder } from './differences.mjs';
import { exceptionFor, exceptionsOf, excuse, isLostRace } from './exceptions.mjs';
import { PROFILES } from './profiles.mjs';
import { countsOf, document, formatRecord, LIO_PROFILE, parse, readRecord, union } from './report.mjs';
import { GivenSubject, PoolSubject } from './subject.mjs';
import { SLOW_TESTS, Tool } from './tool.mjs';
import { rank, VERDICTS } from './verdict.mjs';

const EXPECTED_FILE = join(import.meta.dirname, 'expected.json');
/** The same of the tool's development version, which `--tool` runs. */
const UNRELEASED_FILE = join(import.meta.dirname, 'unreleased.json');
/** A race that LIO may lose is run this often at most. */
const RACE_ROUNDS = 10;
const TABLE_FILE = join(import.meta.dirname, '..', '..', 'docs', 'conformance.md');

/**
 * @typedef {import('./profiles.mjs').Profile} Profile
 * @typedef {import('./report.mjs').Told} Told
 * @typedef {{ profile: Profile, results: Map<string, Told> }} Run
 * @typedef {{ run: Run, subject: import('./subject.mjs').Subject, waiting: string[], busy: boolean }} Lane
 */

const { values: options } = parseArgs({
  options: {
    tool: { type: 'string' },
    'tool-version': { type: 'string' },
    url: { type: 'string' },
    profile: { type: 'string', multiple: true, default: [] },
    only: { type: 'string', default: '.' },
    jobs: { type: 'string', default: String(availableParallelism()) },
    repeat: { type: 'string', default: '1' },
    expect: { type: 'string' },
    take: { type: 'string' },
    write: { type: 'boolean', default: false },
    verbose: { type: 'boolean', short: 'v', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

const HELP = `usage: node test/conformance/iscsi-test-cu.mjs [options]
  --only REGEX       only tests whose name (ALL.Suite.Test) matches
  --profile ID       only this profile (may be given several times): ${PROFILES.map(({ id }) => id).join(', ')}
  --tool PATH        libiscsi's development version, built from source, in place of the newest release that is here (the kernel lab's, or
                     else the one on PATH); compared with unreleased.json, when --tool-version says that it is the version recorded there
  --tool-version V   which version that is
  --url URL          a target that runs already, in place of our own; it is overwritten; --profile then only names it
  --jobs N           profiles at once
  --repeat N         each test N times; one that does not end the same every time is reported
  --expect FILE      compare with another record; - compares with nothing
  --write            write the record and docs/conformance.md from this run
  --take LOG         write them with what a run elsewhere (the kernel scenario tcmu-conformance) has printed
  --verbose, -v      show what the tool prints`;

const unreleased = options.tool !== undefined;
const recordFile = unreleased ? UNRELEASED_FILE : EXPECTED_FILE;

/** @returns {Profile[]} */
function chosenProfiles() {
  if (options.url !== undefined) {
    return [{ id: options.profile[0] ?? 'given', title: options.url, volume: {}, users: [] }];
  }
  for (const id of options.profile) {
    if (!PROFILES.some((profile) => profile.id === id)) throw new Error(`There is no profile ${id}`);
  }
  return PROFILES.filter(({ id }) => options.profile.length === 0 || options.profile.includes(id));
}

/** @param {Run} run @param {readonly string[]} tests @returns {Lane[]} */
function lane(run, tests) {
  if (tests.length === 0) return [];
  const subject = options.url === undefined ? new PoolSubject(run.profile) : new GivenSubject(options.url);
  return [{ run, subject, waiting: [...tests], busy: false }];
}

/** @param {string} url @param {{ name: string, secret: string } | undefined} user */
function withUser(url, user) {
  return user === undefined ? url : url.replace('//', `//${user.name}%${user.secret}@`);
}

/** One test, as each of the users that it is for: the worst, but for those that it skips. @param {Tool} tool @param {Lane} lane @param {string} test @returns {Promise<Told>} */
async function runOnce(tool, { run: { profile }, subject }, test) {
  const users = profile.users.length === 0 ? [undefined] : profile.users;
  /** @type {Told | undefined} */
  let told;
  for (const user of test.startsWith('ALL.iSCSICHAP.') ? users : users.slice(0, 1)) {
    const url = withUser(await subject.prepare(test), user);
    const { verdict, reason } = excuse(test, profile, await tool.run(test, url, options.verbose), unreleased);
    const worse =
      told === undefined || told.verdict === 'skip' || (verdict !== 'skip' && rank(verdict) > rank(told.verdict));
    if (worse) told = { verdict, reason };
  }
  if (told === undefined) throw new Error('nobody runs the test');
  return told;
}

/** One test, again where it may only have lost a race. @param {Tool} tool @param {Lane} lane @param {string} test @returns {Promise<Told>} */
async function runRaced(tool, lane, test) {
  for (let round = 1; ; round++) {
    const told = await runOnce(tool, lane, test);
    if (round === RACE_ROUNDS || !isLostRace(test, lane.run.profile.id, told)) return told;
    console.log(`again: ${lane.run.profile.id} ${test}: ${told.reason}`);
  }
}

/** @param {Tool} tool @param {Lane} lane @param {string[]} problems */
async function runNext(tool, lane, problems) {
  const test = lane.waiting.shift() ?? '';
  const { profile, results } = lane.run;
  const id = profile.id;
  for (let round = 1; round <= Number(options.repeat); round++) {
    const begun = performance.now();
    const told = await runRaced(tool, lane, test);
    const before = results.get(test);
    if (before !== undefined && before.verdict !== told.verdict) {
      problems.push(`${id} ${test}: ${before.verdict} (${before.reason}), and ${told.verdict} (${told.reason})`);
    }
    results.set(test, told);
    const seconds = (performance.now() - begun) / 1000;
    if (options.verbose && seconds > 2) console.log(`It took ${seconds.toFixed(1)} s`);
    console.log(`${told.verdict.padEnd(8)}${id} ${test.padEnd(48)}${told.reason}`);
    const said = await lane.subject.afterTest();
    if (said !== null) problems.push(`${id} ${test}: the server died\n${said}`);
  }
}

/** Works until nothing waits: each time in the lane with most left in which nobody else works. @param {Tool} tool @param {readonly Lane[]} all @param {string[]} problems */
async function work(tool, all, problems) {
  for (;;) {
    const free = all.filter((lane) => !lane.busy && lane.waiting.length > 0);
    const lane = free.reduce((a, b) => (b.waiting.length > a.waiting.length ? b : a), free[0]);
    if (lane === undefined) return;
    lane.busy = true;
    await runNext(tool, lane, problems);
    lane.busy = false;
  }
}

/** Exceptions that are none (any more). @param {readonly Run[]} all @param {readonly string[]} tests */
function staleExceptions(all, tests) {
  const passes = all.flatMap(({ profile, results }) =>
    [...results]
      .filter(([name, { verdict }]) => verdict === 'pass' && exceptionFor(name, profile.id, unreleased) !== undefined)
      .map(([name]) => `${profile.id} ${name}: passes, and is an exception: remove it`),
  );
  const gone = exceptionsOf(unreleased)
    .filter(({ test }) => !tests.includes(test))
    .map(({ test }) => `${test}: an exception for no test`);
  return [...passes, ...gone];
}

/** @param {import('./report.mjs').Record} record @param {string} file */
function write(record, file) {
  writeFileSync(file, formatRecord(record));
  writeFileSync(TABLE_FILE, document(readRecord(EXPECTED_FILE), readRecord(UNRELEASED_FILE)));
}

/** The results in what a run has printed. @param {string} text */
function resultsIn(text) {
  const lines = text.matchAll(/^(\w+) +\w+ (ALL\.\S+) *(.*?)\r?$/gm);
  return new Map(
    [...lines].map(([, verdict, name, reason]) => [name ?? '', parse(reason ? `${verdict}: ${reason}` : `${verdict}`)]),
  );
}

async function main() {
  if (options.help) return console.log(HELP);
  if (options.take !== undefined) {
    const record = readRecord(EXPECTED_FILE);
    record.profiles.set(LIO_PROFILE, resultsIn(readFileSync(options.take, 'utf8')));
    return write(record, EXPECTED_FILE);
  }
  const tool = await Tool.find(options.tool, options['tool-version']);
  const tests = await tool.list();
  const wanted = tests.filter((name) => new RegExp(options.only).test(name));
  /** @type {Run[]} */
  const all = chosenProfiles().map((profile) => ({ profile, results: new Map() }));
  // What mostly sleeps goes beside the others, on servers of its own. A given URL takes one test at a time.
  const apart = (/** @type {string} */ name) => name in SLOW_TESTS && options.url === undefined;
  const lanes = all.flatMap((one) =>
    lane(
      one,
      wanted.filter((name) => !apart(name)),
    ),
  );
  const slowLanes = all.flatMap((one) => lane(one, wanted.filter(apart)));
  /** @type {string[]} */
  const problems = [];
  try {
    await Promise.all([...lanes, ...slowLanes].map(({ subject }) => subject.start()));
    const workers = Array.from({ length: Math.max(1, Number(options.jobs)) }, () => work(tool, lanes, problems));
    await Promise.all([...workers, ...slowLanes.map((one) => work(tool, [one], problems))]);
  } finally {
    for (const { subject } of [...lanes, ...slowLanes]) problems.push(...(await subject.finish()));
  }
  for (const one of all) one.results = new Map(wanted.map((name) => [name, one.results.get(name) ?? parse('crash')]));

  const whole = wanted.length === tests.length;
  if (options.write) {
    if (!whole) throw new Error('--write takes over whole runs only');
    const record = readRecord(recordFile);
    for (const { profile, results } of all) record.profiles.set(profile.id, results);
    write({ tool: tool.version, profiles: record.profiles }, recordFile);
  } else if (options.expect !== '-') {
    const record = readRecord(options.expect ?? recordFile);
    const { worse, better, unknown } = differences(all, record, whole);
    for (const text of better) console.log(`better: ${text}`);
    // Other versions have other tests, and older ones other errors of their own: 1.19.0 fails where 1.20.0 does not.
    const order = options.url === undefined ? versionOrder(tool.version, record.tool) : 0;
    problems.push(...(order < 0 ? [] : worse), ...(order === 0 ? unknown : []));
    if (order !== 0) {
      for (const text of [...(order < 0 ? worse : []), ...unknown]) console.log(`differs: ${text}`);
      console.log(`That is with ${tool.version}; the record is of ${record.tool}.`);
    }
    if (order === 0 && options.url === undefined) problems.push(...staleExceptions(all, tests));
  }
  const best = union(all.map(({ results }) => results));
  const describe = (/** @type {import('./report.mjs').Tests} */ results) => {
    const counts = countsOf(results);
    return VERDICTS.map((verdict) => `${counts[verdict]} ${verdict}`).join(', ');
  };
  for (const { profile, results } of all) console.log(`profile ${profile.id}: ${describe(results)}`);
  console.log(`\n${best.size} tests: ${describe(best)}`);
  for (const problem of problems) console.log(`PROBLEM: ${problem}`);
  console.log(`\n${countsOf(best).pass} passed, ${problems.length} failed`);
  process.exitCode = problems.length > 0 || best.size === 0 ? 1 : 0;
}

await main();
