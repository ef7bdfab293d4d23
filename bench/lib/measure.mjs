/** Measurements: sides that take turns, and the figures that come of them. */
import { judge, summary } from './statistics.mjs';

/** A load generator that uses more of its core than this measures itself. */
export const MAX_CLIENT_CORES = 0.9;
/** So much work of others says something about them, and not about us. */
export const MAX_OTHER_CORES = 0.3;

/**
 * @typedef {Partial<import('../load/load.mjs').Sample> & Record<string, unknown>} Sample
 * @typedef {import('./statistics.mjs').Target} Target
 * @typedef {import('./format.mjs').Unit} Unit
 *
 * @typedef {object} Figure One row of the table.
 * @property {string} id
 * @property {string} what
 * @property {string} against
 * @property {string} ours A side.
 * @property {string | null} theirs Another one; null where the figure has a limit of its own.
 * @property {Unit} unit
 * @property {(sample: Sample) => number} value
 * @property {Target} target
 *
 * @typedef {object} Measurement
 * @property {string} id
 * @property {string} title
 * @property {readonly string[]} sides In the order in which they take turns.
 * @property {readonly Figure[]} figures
 * @property {Record<string, unknown>} [plot] What the drawings have to know of it.
 *
 * @typedef {object} Group Measurements that stand on the same set-up.
 * @property {string} name
 * @property {readonly string[]} tools Programs that it is better with.
 * @property {readonly Measurement[]} measurements
 * @property {(bench: import('./bench.mjs').Bench, wanted: readonly Measurement[]) => Promise<Setup>} open
 *
 * @typedef {object} Setup
 * @property {(side: string) => boolean} has A side that is missing here is left out.
 * @property {(measurement: Measurement, side: string) => Promise<unknown>} [warmUp] Before the first round.
 * @property {(measurement: Measurement, side: string, round: number) => Promise<Sample>} sample
 * @property {() => Promise<void>} close
 *
 * @typedef {object} SideResult
 * @property {string} name
 * @property {Sample[]} samples
 */

/** @param {Sample} sample */
export const iopsOf = (sample) => sample.iops ?? 0;
/** @param {Sample} sample */
export const bytesPerSecondOf = (sample) => sample.bytesPerSecond ?? 0;
/** @param {Sample} sample */
export const serverCpuOf = (sample) => sample.serverCpuUs ?? 0;
/** @param {Sample} sample */
export const medianLatencyOf = (sample) => sample.latencyUs?.p50 ?? 0;

/**
 * The sides in turn, A B A B ..., so that what else happens on the machine hits all of them.
 * @param {Measurement} measurement @param {Setup} setup @param {number} rounds @param {(text: string) => void} progress
 * @returns {Promise<SideResult[]>}
 */
export async function measure(measurement, setup, rounds, progress) {
  const sides = measurement.sides.filter(setup.has).map((name) => ({ name, samples: /** @type {Sample[]} */ ([]) }));
  for (const { name } of sides) {
    progress(`${measurement.title}: ${name}, warming up`);
    await setup.warmUp?.(measurement, name);
  }
  for (let round = 0; round < rounds; round++) {
    for (const side of sides) {
      progress(`${measurement.title}: ${side.name}, round ${round + 1} of ${rounds}`);
      side.samples.push(await setup.sample(measurement, side.name, round));
    }
  }
  return sides;
}

/** @param {Figure} figure @param {readonly SideResult[]} sides */
export function evaluate(figure, sides) {
  /** @param {string | null} name */
  const of = (name) => {
    const side = sides.find((one) => one.name === name);
    return side === undefined || side.samples.length === 0 ? null : side.samples.map(figure.value);
  };
  const { id, what, against, unit, target } = figure;
  const ours = of(figure.ours);
  const theirs = of(figure.theirs);
  const summaries = { ours: ours && summary(ours), theirs: theirs && summary(theirs) };
  const base = { id, what, against, unit, target, isRatio: figure.theirs !== null, ...summaries };
  if (ours === null || (figure.theirs !== null && theirs === null)) {
    return { ...base, ratio: null, verdict: /** @type {const} */ ('left out'), remarks: [] };
  }
  const names = [figure.ours, figure.theirs];
  return {
    ...base,
    ...judge(ours, theirs, target),
    remarks: remarksOf(sides.filter(({ name }) => names.includes(name))),
  };
}

/** @param {readonly SideResult[]} sides */
function remarksOf(sides) {
  const remarks = [];
  for (const { name, samples } of sides) {
    /** @param {'clientCores' | 'otherCores'} field */
    const median = (field) => summary(samples.map((sample) => sample[field] ?? 0)).median;
    if (median('clientCores') > MAX_CLIENT_CORES) remarks.push(`client-bound: ${name}`);
    if (median('otherCores') > MAX_OTHER_CORES)
      remarks.push(`others used ${median('otherCores').toFixed(1)} cores: ${name}`);
  }
  return remarks;
}
