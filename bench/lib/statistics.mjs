/** What samples say, and when they say nothing. */

/** Rounds from which on a spread means something. */
export const MIN_ROUNDS = 3;
/** The middle half of the rounds' ratios lies further apart than this share of their median: the machine was too noisy. */
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
 * @property {number | null} ratio Ours to theirs, the median of the rounds; null where it would mean nothing, or where there is no peer.
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
 * Compares two sides, or one with a limit of its own. The sides took turns, so each round is a comparison by itself: a machine that is slower for a while is so for both.
 * The ratio is the median of the rounds' ratios, and where these lie too far apart, there is no ratio and no verdict.
 * @param {readonly number[]} ours Samples in the order of the rounds.
 * @param {readonly number[] | null} theirs
 * @param {Target} target
 * @returns {Judgement}
 */
export function judge(ours, theirs, target) {
  const { median, spread, count } = summary(
    theirs === null ? ours : ours.slice(0, theirs.length).map((value, round) => value / (theirs[round] ?? 0)),
  );
  const isFew = count < MIN_ROUNDS;
  if (!Number.isFinite(median) || (!isFew && spread > MAX_SPREAD)) return { ratio: null, verdict: 'noisy' };
  const ratio = theirs === null ? null : median;
  if (isFew) return { ratio, verdict: 'few rounds' };
  const { atLeast, atMost } = target;
  if (atLeast === undefined && atMost === undefined) return { ratio, verdict: 'no target' };
  const isReached = (atLeast === undefined || median >= atLeast) && (atMost === undefined || median <= atMost);
  return { ratio, verdict: isReached ? 'reached' : 'missed' };
}
