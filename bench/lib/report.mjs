/** The tables and the file that a run leaves. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { digits, quantity, table } from './format.mjs';
import { MAX_SPREAD, MIN_ROUNDS, summary } from './statistics.mjs';

/**
 * @typedef {ReturnType<typeof import('./measure.mjs').evaluate>} EvaluatedFigure
 * @typedef {object} Result
 * @property {string} id
 * @property {string} title
 * @property {Record<string, unknown>} plot
 * @property {import('./measure.mjs').SideResult[]} sides
 * @property {EvaluatedFigure[]} figures
 */

/** What a machine too noisy gets in the place of a ratio. */
const NOISY = 'NOISY';

/** @param {readonly Result[]} results @returns {string} */
export function figureTable(results) {
  const rows = [['what', 'ours', '(min to max)', 'peer', '(min to max)', 'ratio', 'target', '', 'against', 'remarks']];
  for (const { figures } of results) {
    for (const figure of figures) {
      const { ours, theirs, unit } = figure;
      rows.push([
        figure.what,
        ours === null ? '-' : quantity(ours.median, unit),
        ours === null ? '' : `(${quantity(ours.min, unit)} to ${quantity(ours.max, unit)})`,
        theirs === null ? '' : quantity(theirs.median, unit),
        theirs === null ? '' : `(${quantity(theirs.min, unit)} to ${quantity(theirs.max, unit)})`,
        figure.verdict === 'noisy' ? NOISY : figure.ratio === null ? '' : `${figure.ratio.toFixed(2)}x`,
        targetText(figure),
        figure.verdict === 'noisy' || figure.verdict === 'no target' ? '' : figure.verdict,
        figure.against,
        figure.remarks.join(', '),
      ]);
    }
  }
  return table(rows);
}

/** @param {EvaluatedFigure} figure */
function targetText({ target, unit, isRatio }) {
  const [sign, value] = target.atLeast === undefined ? ['<=', target.atMost] : ['>=', target.atLeast];
  if (value === undefined) return '';
  return isRatio ? `${sign} ${value.toFixed(2)}x` : `${sign} ${quantity(value, unit)}`;
}

/** How the sides did it. @param {readonly Result[]} results @returns {string} */
export function detailTable(results) {
  const head = [
    'measurement',
    'side',
    'IOPS',
    'MB/s',
    'CPU us',
    'server',
    'client',
    'others',
    'p50 us',
    '90',
    '99',
    '99.9',
    'spread',
  ];
  const rows = [head];
  for (const { title, sides } of results) {
    for (const { name, samples } of sides) {
      if (samples.length === 0 || samples[0]?.iops === undefined) continue;
      /** @param {(sample: any) => number | undefined} value */
      const median = (value) => summary(samples.map((sample) => value(sample) ?? Number.NaN)).median;
      /** @param {(sample: any) => number | undefined} value */
      const cell = (value) => (Number.isNaN(median(value)) ? '' : digits(median(value)));
      const spread = summary(samples.map(({ iops }) => iops ?? 0)).spread;
      rows.push([
        title,
        name,
        quantity(
          median(({ iops }) => iops),
          'iops',
        ),
        cell(({ bytesPerSecond }) => bytesPerSecond / 1e6),
        cell(({ serverCpuUs }) => serverCpuUs),
        cell(({ serverCores }) => serverCores),
        cell(({ clientCores }) => clientCores),
        cell(({ otherCores }) => otherCores),
        cell(({ latencyUs }) => latencyUs?.p50),
        cell(({ latencyUs }) => latencyUs?.p90),
        cell(({ latencyUs }) => latencyUs?.p99),
        cell(({ latencyUs }) => latencyUs?.p999),
        `${(spread * 100).toFixed(0)}%`,
      ]);
    }
  }
  return rows.length === 1 ? '' : table(rows);
}

/** What has to be said below the tables. @param {readonly Result[]} results */
export function caveats(results) {
  const figures = results.flatMap((result) => result.figures);
  const lines = [];
  const noisy = figures.filter(({ verdict }) => verdict === 'noisy').length;
  if (noisy > 0) {
    lines.push(
      `${noisy} figures are ${NOISY}: the middle half of the ratios of their rounds lies more than ${MAX_SPREAD * 100}% of the median apart. They prove nothing: run again on a quiet machine.`,
    );
  }
  if (figures.some(({ verdict }) => verdict === 'few rounds')) {
    lines.push(`Fewer than ${MIN_ROUNDS} rounds: nothing is known about the spread, so nothing is reached or missed.`);
  }
  if (figures.some(({ remarks }) => remarks.some((remark) => remark.startsWith('client-bound')))) {
    lines.push('client-bound: the load generator used up its core there; the server may be faster than that.');
  }
  return lines;
}

/** @param {string} file @param {object} content */
export function writeJson(file, content) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(content, null, 1)}\n`);
}
