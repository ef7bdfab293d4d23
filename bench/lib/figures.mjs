/** Which figures are drawn of the results of `npm run bench`. */
import { iopsOf, serverCpuOf } from './measure.mjs';
import { MAX_SPREAD, MIN_ROUNDS, summary } from './statistics.mjs';
import { chart } from './svg.mjs';

/** @typedef {import('./report.mjs').Result} Result */

/** What a side is called where nobody knows our words. @type {Readonly<Record<string, string>>} */
const NAMES = { thinlun: 'thinlun', tgt: 'tgt, file', 'tgt-null': 'tgt without storage' };

/** @param {import('./measure.mjs').SideResult} side @param {number} x @param {(sample: any) => number} value @returns {import('./svg.mjs').Point} */
function point({ samples }, x, value) {
  const { median, min, max, spread } = summary(samples.map(value));
  return { x, y: median, min, max, isNoisy: samples.length >= MIN_ROUNDS && spread > MAX_SPREAD };
}

/** @param {readonly import('./svg.mjs').Panel[]} panels @param {string} about */
function notesOf(panels, about) {
  const isNoisy = panels.some(({ series }) => series.some(({ points }) => points.some((one) => one.isNoisy)));
  return isNoisy ? [about, 'Hollow: the samples lie too far apart to prove anything.'] : [about];
}

/** IOPS by depth beside the peers; null when it was not measured. @param {readonly Result[]} results @param {string} about @returns {string | null} */
export function depthFigure(results, about) {
  const rows = results.filter(({ plot }) => plot['kind'] === 'depth');
  if (rows.length === 0) return null;
  const depths = [...new Set(rows.map(({ plot }) => Number(plot['depth'])))].sort((a, b) => a - b);
  const panels = ['read', 'write'].map((operation) => {
    const ofOperation = rows.filter(({ plot }) => plot['operation'] === operation);
    const names = [...new Set(ofOperation.flatMap(({ sides }) => sides.map(({ name }) => name)))];
    const series = names.map((name) => ({
      name: NAMES[name] ?? name,
      points: ofOperation.flatMap(({ plot, sides }) => {
        const side = sides.find((one) => one.name === name);
        return side === undefined
          ? []
          : [point(side, depths.indexOf(Number(plot['depth'])), (one) => iopsOf(one) / 1000)];
      }),
    }));
    return {
      title: `4 KiB random ${operation}`,
      xLabel: 'commands in flight',
      yLabel: 'thousand IOPS',
      xTicks: depths.map(String),
      series,
    };
  });
  return chart('iSCSI on loopback: IOPS by depth', panels, notesOf(panels, about));
}

/** What a larger pool costs; null when it was not measured. @param {readonly Result[]} results @param {string} about @returns {string | null} */
export function growthFigure(results, about) {
  const row = results.find(({ plot }) => plot['kind'] === 'growth');
  if (row === undefined) return null;
  const base = { xLabel: 'mapped blocks of 64 KiB', xTicks: row.sides.map(({ name }) => name) };
  const panels = [
    { title: '4 KiB random read', yLabel: 'thousand IOPS', value: (/** @type {any} */ one) => iopsOf(one) / 1000 },
    { title: 'CPU of the server', yLabel: 'us a read', value: serverCpuOf },
  ].map(({ title, yLabel, value }) => ({
    ...base,
    title,
    yLabel,
    series: [{ name: 'thinlun, default cache', points: row.sides.map((side, x) => point(side, x, value)) }],
  }));
  return chart('Cost as the pool grows', panels, notesOf(panels, about));
}
