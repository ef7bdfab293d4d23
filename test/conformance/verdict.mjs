/** What one run of iscsi-test-cu for one test says, told more strictly than CUnit's own summary does. */

/**
 * From best to worst. `tool`: the tool's own error (exceptions.mjs); `empty`: passed without having asserted anything; `refused`: it wants to
 * write, and the LUN is read-only and said so.
 */
export const VERDICTS = /** @type {const} */ (['pass', 'tool', 'empty', 'skip', 'refused', 'fail', 'timeout', 'crash']);

/**
 * @typedef {(typeof VERDICTS)[number]} Verdict
 * @typedef {object} Judgement
 * @property {Verdict} verdict
 * @property {string} reason Empty for `pass`.
 * @property {number} asserts
 * @property {string} body What the tool said during the test itself.
 */

/** @param {Verdict} verdict */
export const rank = (verdict) => VERDICTS.indexOf(verdict);

/**
 * @param {string} text Standard output and standard error.
 * @param {import('../support/processes.mjs').ExitStatus} status
 * @param {number | null} timedOutMs The limit that it was ended at.
 * @returns {Judgement}
 */
export function judge(text, status, timedOutMs) {
  const asserts = Number(/^\s*asserts\s+\d+\s+(\d+)/m.exec(text)?.[1] ?? 0);
  // What the tool says before and after the test itself comes from its own setting up and clearing away.
  const told = /Test: \S+ \.\.\.([\s\S]*?)(?<=\.\.\.|^)(passed|FAILED)/m.exec(text);
  const hasSummary = /^\s*tests\s+\d+\s+1\s+/m.test(text);
  const body = told?.[1] ?? text;
  const result = (/** @type {Verdict} */ verdict, /** @type {string} */ reason) => ({ verdict, reason, asserts, body });
  if (timedOutMs !== null) {
    return result('timeout', complaintIn(body, text) || `no end within ${timedOutMs / 1000} s`);
  }
  if (!told || !hasSummary) {
    const how = status.signal ?? `exit status ${status.code}`;
    return result('crash', complaintIn(body, text) || `${how}: ${lastLine(text)}`);
  }
  // A complaint in a test that passed is about something that the test wanted to fail.
  if (told[2] === 'FAILED') return result('fail', complaintIn(body, text));
  const skipped = /\[SKIPPED\]\s*(.*)/.exec(body);
  if (skipped) return result('skip', skipped[1]?.trim() ?? '');
  if (asserts === 0) return result('empty', 'passed without asserting anything');
  return result('pass', '');
}

/** Where the first assertion failed, and what the tool did not like. @param {string} body @param {string} rest What it said after the test. */
function complaintIn(body, rest) {
  const [, place = '', assertion = ''] = /^\s*\d+\. (\S+:\d+)\s+- (.*)$/m.exec(rest) ?? [];
  const complaint = /\[FAILED\]\s*(.*)/.exec(body)?.[1] ?? assertion.replace(/\)\s.*/, ')');
  return `${place} ${complaint}`.trim().slice(0, 240);
}

/** @param {string} text */
function lastLine(text) {
  return text.trim().split('\n').at(-1)?.slice(0, 200) ?? '';
}
