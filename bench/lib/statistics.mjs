/** What samples say, and when they say nothing. */

/** Rounds from which on a spread means something. */
export const MIN_ROUNDS = 3;
/** The middle half of the samples of one side lies further apart than this share of their median: the machine was too noisy. */
export const MAX_SPREAD = 0.2;

/**
 * @typedef {object} Summary
 * @property {number} median
 * @property {number} min
 * @property {number} max
 * @property {number} spread Distance between the quartiles, as a share of the median: one sample gone astray does not count.
 * @property {number} count
 *
 * @typedef {object} Target
 * @property {number} [atLeast] The ratio, or without a peer the value, is to be this or more.
 * @property {number} [atMost] The same, or less.
 *
 * @typedef {object} Judgement
 * @property {number | null} ratio Ours to theirs; null where it would mean nothing, or where there is no peer.
 * @property {'reached' | 'missed' | 'noisy' | 'few rounds' | 'no target'} verdict
 */

/** By linear interpolation. @param {readonly number[]} sorted @param {number} share */
export function quantile(sorted, share) {
  const at = (sorted.length - 1) * share;
  const below = sorted[Math.floor(at)] ?? 0;
  const above = sorted[Math.ceil(at)] ?? 0;
  return below + (above - below) * (at - Math.floor(at));
}

/** @param {readonly number[]} values @returns {Summary} */
export function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const median = quantile(sorted, 0.5);
  const spread = median === 0 ? 0 : (quantile(sorted, 0.75) - quantile(sorted, 0.25)) / median;
  return { median, min: sorted[0] ?? 0, max: sorted.at(-1) ?? 0, spread, count: sorted.length };
}

/**
 * Compares two sides, or one with a limit of its own. A noisy side gives no ratio and no verdict.
 * @param {Summary} ours
 * @param {Summary | null} theirs
 * @param {Target} target
 * @returns {Judgement}
 */
export function judge(ours, theirs, target) {
  const sides = theirs === null ? [ours] : [ours, theirs];
  const few = sides.some(({ count }) => count < MIN_ROUNDS);
  if (!few && sides.some(({ spread }) => spread > MAX_SPREAD)) return { ratio: null, verdict: 'noisy' };
  const ratio = theirs === null ? null : theirs.median === 0 ? null : ours.median / theirs.median;
  if (few) return { ratio, verdict: 'few rounds' };
  if (theirs !== null && ratio === null) return { ratio, verdict: 'noisy' };
  const { atLeast, atMost } = target;
  if (atLeast === undefined && atMost === undefined) return { ratio, verdict: 'no target' };
  const value = ratio ?? ours.median;
  const isReached = (atLeast === undefined || value >= atLeast) && (atMost === undefined || value <= atMost);
  return { ratio, verdict: isReached ? 'reached' : 'missed' };
}
