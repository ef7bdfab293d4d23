/** What a run says other than the record that is committed. */
import { rank } from './verdict.mjs';

/**
 * @typedef {{ profile: { id: string }, results: import('./report.mjs').Tests }} Run
 * @typedef {object} Differences
 * @property {string[]} worse
 * @property {string[]} better
 * @property {string[]} unknown Tests and profiles that only one of the two has.
 */

/** @param {readonly Run[]} runs @param {import('./report.mjs').Record} record @param {boolean} whole The runs have all tests. @returns {Differences} */
export function differences(runs, record, whole) {
  /** @type {Differences} */
  const found = { worse: [], better: [], unknown: [] };
  for (const { profile, results } of runs) {
    const expected = record.profiles.get(profile.id);
    if (expected === undefined) {
      found.unknown.push(`profile ${profile.id}: not in the record`);
      continue;
    }
    for (const [name, { verdict, reason }] of results) {
      const before = expected.get(name);
      if (before === undefined) {
        found.unknown.push(`${profile.id} ${name}: not in the record`);
        continue;
      }
      const change = rank(verdict) - rank(before.verdict);
      const was = `${profile.id} ${name}: was ${before.verdict}, is ${verdict}`;
      if (change > 0) found.worse.push(`${was}: ${reason}`);
      if (change < 0) found.better.push(`${was} (take it over with --write)`);
    }
    if (!whole) continue;
    for (const name of expected.keys()) {
      if (!results.has(name)) found.unknown.push(`${profile.id} ${name}: is not there any more`);
    }
  }
  return found;
}

/** Less than, equal to or more than 0: the version in `a` is older than, that of, newer than the one in `b`. What Debian's package adds to it does not count. @param {string} a @param {string} b */
export function versionOrder(a, b) {
  const [left, right] = [a, b].map((text) => (/\d+(\.\d+)+/.exec(text)?.[0] ?? '').split('.').map(Number));
  for (let i = 0; i < Math.max(left?.length ?? 0, right?.length ?? 0); i++) {
    const difference = (left?.[i] ?? 0) - (right?.[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
