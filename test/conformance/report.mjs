/** `expected.json` and `docs/conformance.md`: what the last taken-over run said. The second follows from the first. */
import { existsSync, readFileSync } from 'node:fs';
import { exceptionsOf, RACES } from './exceptions.mjs';
import { PROFILES } from './profiles.mjs';
import { rank, VERDICTS } from './verdict.mjs';

/** What runs elsewhere than in the five profiles, and is in the same files. */
export const LIO_PROFILE = 'lio';

/**
 * @typedef {{ verdict: import('./verdict.mjs').Verdict, reason: string }} Told
 * @typedef {Map<string, Told>} Tests By name, ALL.Suite.Test.
 * @typedef {{ tool: string, profiles: Map<string, Tests> }} Record
 */

/** @param {string} file @returns {Record} */
export function readRecord(file) {
  if (!existsSync(file)) return { tool: '', profiles: new Map() };
  const { tool, profiles } = JSON.parse(readFileSync(file, 'utf8'));
  const tests = (/** @type {object} */ texts) =>
    new Map(Object.entries(texts).map(([name, text]) => [name, parse(text)]));
  return { tool, profiles: new Map(Object.entries(profiles).map(([id, texts]) => [id, tests(texts)])) };
}

/** @param {Record} record */
export function formatRecord({ tool, profiles }) {
  const texts = (/** @type {Tests} */ tests) =>
    Object.fromEntries([...tests].map(([name, told]) => [name, format(told)]));
  const all = Object.fromEntries([...profiles].map(([id, tests]) => [id, texts(tests)]));
  return `${JSON.stringify({ tool, profiles: all }, null, 2)}\n`;
}

/** @param {Told} told */
const format = ({ verdict, reason }) => (reason === '' ? verdict : `${verdict}: ${reason}`);

/** @param {string} text @returns {Told} */
export function parse(text) {
  const [, verdict = '', reason = ''] = /^(\w+)(?:: (.*))?$/s.exec(text) ?? [];
  const known = VERDICTS.find((one) => one === verdict);
  if (known === undefined) throw new Error(`"${text}" begins with no verdict`);
  return { verdict: known, reason };
}

/** The best that each test came to. @param {readonly Tests[]} runs @returns {Tests} */
export function union(runs) {
  /** @type {Tests} */
  const best = new Map();
  for (const tests of runs) {
    for (const [name, told] of tests) {
      const before = best.get(name);
      if (before === undefined || rank(told.verdict) < rank(before.verdict)) best.set(name, told);
    }
  }
  return best;
}

/** @param {Tests} tests */
export function countsOf(tests) {
  const counts = Object.fromEntries(VERDICTS.map((verdict) => [verdict, 0]));
  for (const { verdict } of tests.values()) counts[verdict] = (counts[verdict] ?? 0) + 1;
  return /** @type {Record<import('./verdict.mjs').Verdict, number>} */ (counts);
}

/** @param {Tests} tests */
const badIn = (tests) => {
  const { fail, timeout, crash } = countsOf(tests);
  return fail + timeout + crash;
};

/** @param {string} text */
const cell = (text) => text.replaceAll('|', '\\|');

/** @param {string} name */
const short = (name) => name.replace(/^ALL\./, '');

/** @param {Tests} tests @param {string} suite @returns {Tests} */
const ofSuite = (tests, suite) => new Map([...tests].filter(([name]) => name.split('.')[1] === suite));

/** @param {readonly { id: string, name: string, told: Told }[]} rows */
function badTable(rows) {
  const lines = rows.map(({ id, name, told }) => `| ${short(name)} | ${id} | ${told.verdict} | ${cell(told.reason)} |`);
  return ['| test | profile | result | what the tool says |', '|---|---|---|---|', ...lines].join('\n');
}

/** The profiles of a record, in their order. @param {Record} record */
function profilesOf({ profiles }) {
  return PROFILES.flatMap(({ id, title }) => {
    const tests = profiles.get(id);
    return tests ? [{ id, title, tests }] : [];
  });
}

/** @param {ReturnType<typeof profilesOf>} five @param {Tests} best */
function summaryTable(five, best) {
  const rows = [...five, { id: 'A to E', title: 'the best of them', tests: best }].map(({ id, title, tests }) => {
    const { pass, tool, empty, skip, refused } = countsOf(tests);
    return `| ${id} | ${title} | ${pass} | ${badIn(tests)} | ${skip} | ${refused} | ${tool} | ${empty} |`;
  });
  return [
    '| profile | what is tested | pass | fail | skipped | refused | tool | empty |',
    '|---|---|--:|--:|--:|--:|--:|--:|',
    ...rows,
  ].join('\n');
}

/** @param {readonly [string, Told][]} tests @param {string} title Of the last column. */
function resultTable(tests, title) {
  const rows = tests.map(([name, { verdict, reason }]) => `| ${short(name)} | ${verdict} | ${cell(reason)} |`);
  return [`| test | result | ${title} |`, '|---|---|---|', ...rows].join('\n');
}

/** @param {import('./exceptions.mjs').Exception} exception */
function exceptionRow({ test, profiles, unreleased, reason }) {
  const where = `${profiles?.join(', ') ?? 'all'}${unreleased ? ', unreleased tool' : ''}`;
  return `| ${short(test)} | ${where} | ${cell(reason)} |`;
}

/** @param {Record} record @param {Record} unreleased What the tool's development version said. */
export function document({ tool, profiles }, unreleased) {
  const five = profilesOf({ tool, profiles });
  const best = union(five.map(({ tests }) => tests));
  const counts = countsOf(best);
  const suites = [...new Set([...best.keys()].map((name) => name.split('.')[1] ?? ''))];
  const lio = profiles.get(LIO_PROFILE);
  const suiteRow = (/** @type {string} */ suite) => {
    const cells = [best, ...five.map(({ tests }) => tests), ...(lio ? [lio] : [])].map((tests, index) => {
      const part = ofSuite(tests, suite);
      const bad = badIn(part);
      return `${countsOf(part).pass}${bad > 0 && index > 0 ? ` (${bad} bad)` : ''}`;
    });
    return `| ${suite} | ${ofSuite(best, suite).size} | ${cells.join(' | ')} |`;
  };
  const notPassed = [...best].filter(([, { verdict }]) => verdict !== 'pass');
  const badOnes = five.flatMap(({ id, tests }) =>
    [...tests].filter(([, { verdict }]) => rank(verdict) >= rank('fail')).map(([name, told]) => ({ id, name, told })),
  );
  return `# Conformance

What libiscsi's \`iscsi-test-cu\` says about thin volumes behind the portal. Generated by
\`node test/conformance/iscsi-test-cu.mjs --write\`; \`npm test\` fails when a test does worse than this in any profile.

Tool: ${tool}, family ALL, one process per test, each with a volume of its own, destructive and sanitize tests allowed, the URL given twice.
A test that is skipped has not passed, nor has one that passes without asserting anything. Refused: it begins with a write, and the LUN is read-only and says so.

**${counts.pass} of ${best.size} pass** in at least one profile; ${badIn(best)} fail in all that they are not skipped in, ${counts.skip} are skipped in all, ${counts.tool} cannot be passed because of the
tool itself, ${counts.empty} pass without asserting anything.

${summaryTable(five, best)}

## What does not pass in any profile

${resultTable(notPassed, 'reason')}

## What fails in a profile, though it passes in another

${badOnes.length === 0 ? 'Nothing.' : badTable(badOnes)}

## The tool's own errors

The only excuses there are. One that a test passes with is reported as a failure, so that none outlives its error.

| test | profiles | why no correct target passes it |
|---|---|---|
${exceptionsOf(true).map(exceptionRow).join('\n')}

${unreleasedPart(unreleased, tool)}
## By suite

Tests that pass.

| suite | tests | best | ${five.map(({ id }) => id).join(' | ')} |${lio ? ' LIO+TCMU |' : ''}
|---|--:|--:|${five.map(() => '--:').join('|')}|${lio ? '--:|' : ''}
${suites.map(suiteRow).join('\n')}
${lio ? lioPart(lio) : ''}`;
}

/** @param {Record} record @param {string} released */
function unreleasedPart(record, released) {
  const five = profilesOf(record);
  const best = union(five.map(({ tests }) => tests));
  const { pass, tool } = countsOf(best);
  const notPassed = [...best].filter(([, { verdict }]) => verdict !== 'pass');
  const badOnes = five.flatMap(({ id, tests }) =>
    [...tests].filter(([, { verdict }]) => rank(verdict) >= rank('fail')).map(([name, told]) => ({ id, name, told })),
  );
  return `## The unreleased tool

The newest catalogue: libiscsi's development version ${record.tool}, built from source (\`./configure --enable-test-tool\`), in the same five profiles. It is not part of \`npm test\`,
which runs the newest release (${released}); \`node test/conformance/iscsi-test-cu.mjs --tool PATH --tool-version ${record.tool}\` compares with this, \`--write\` takes over.

**${pass} of ${best.size} pass** in at least one profile; ${badIn(best)} fail, ${tool} cannot be passed because of the tool itself.

${summaryTable(five, best)}

${resultTable(notPassed, 'reason')}

${badOnes.length === 0 ? 'Nothing fails in any profile.' : badTable(badOnes)}
`;
}

/** @param {Tests} tests */
function lioPart(tests) {
  const counts = countsOf(tests);
  const rows = [...tests].filter(([, { verdict }]) => verdict !== 'pass');
  return `
## Over LIO and TCMU

The same tool over the kernel's own iSCSI target, with our TCMU handler below it (\`node test/kernel/run.mjs tcmu-conformance\`). LIO answers part of the commands
itself, and all of iSCSI. Every test is run on the same LUN.

* Residual overflow: LIO does not compare the length in the CDB with the expected one for backstores that get whole CDBs, and TCMU has no field to say it in. Data-Out that is shorter than the CDB says is refused there (INVALID FIELD IN COMMAND INFORMATION UNIT).
* ReceiveCopyResults.CopyStatus: to a TCMU handler all initiators are one, and the list identifier that should be unknown is that of an earlier test's copy.
* PREVENT ALLOW, read-only and CHAP tests are skipped because this is one profile, a disk that is fixed and writable, with open access. Warm and cold target resets LIO does not do.
${RACES.map(({ test, reason }) => `* ${short(test)} is run again when it fails: ${reason}.`).join('\n')}

**${counts.pass} of ${tests.size} pass**, ${badIn(tests)} fail, ${counts.skip} are skipped, ${counts.tool} are the tool's errors, ${counts.empty} assert nothing.

${resultTable(rows, 'what the tool says')}
`;
}
