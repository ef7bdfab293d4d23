/**
 * Line charts as plain SVG, small multiples in one row. No background, and colours that are readable on white and on black: a README is shown on both.
 *
 * ```
 *   title
 *   panel title            panel title
 *   y unit                 y unit
 *   | ticks  plot          | ticks  plot
 *   +--- x ticks           +--- x ticks
 *       x label                x label
 *   legend
 * ```
 */

const PANEL_WIDTH = 380;
const PLOT_HEIGHT = 220;
const LEFT = 56;
const RIGHT = 16;
const TOP = 72;
const BOTTOM = 46;
const LEGEND_HEIGHT = 30;
const NOTE_HEIGHT = 16;
const WANTED_TICKS = 5;
/** At its middle between white and black; 4:1 against either. */
const INK = '#768390';
const FAINT = '#768390';
const COLOURS = ['#2f81c9', '#d1762c', '#3c9a56', '#a266c8', '#c9a227'];
const RADIUS = 4;

/**
 * @typedef {object} Point
 * @property {number} x Index of the x tick.
 * @property {number} y
 * @property {number} min
 * @property {number} max
 * @property {boolean} isNoisy Drawn hollow.
 * @typedef {object} Series
 * @property {string} name The same series has the same colour in all panels.
 * @property {readonly Point[]} points
 * @typedef {object} Panel
 * @property {string} title
 * @property {string} xLabel
 * @property {string} yLabel
 * @property {readonly string[]} xTicks
 * @property {readonly Series[]} series
 */

/** Round steps from 0 to at least `max`. @param {number} max @returns {number[]} */
export function ticksFor(max) {
  if (!(max > 0)) return [0, 1];
  const rough = max / WANTED_TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999) ?? 10) * power;
  const count = Math.ceil(max / step - 1e-9);
  return Array.from({ length: count + 1 }, (_, i) => Number((i * step).toPrecision(12)));
}

/** @param {string} text */
function escapeText(text) {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}

/** @param {number} value */
const at = (value) => String(Math.round(value * 10) / 10);

/** @param {string} title @param {readonly Panel[]} panels @param {readonly string[]} notes Lines below. @returns {string} */
export function chart(title, panels, notes) {
  const names = [...new Set(panels.flatMap(({ series }) => series.map(({ name }) => name)))];
  const width = panels.length * PANEL_WIDTH;
  const height = TOP + PLOT_HEIGHT + BOTTOM + LEGEND_HEIGHT + notes.length * NOTE_HEIGHT;
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escapeText(title)}" font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="12" fill="${INK}">`,
    `<title>${escapeText(title)}</title>`,
    `<text x="8" y="20" font-size="15" font-weight="600">${escapeText(title)}</text>`,
    ...panels.map((panel, index) => drawPanel(panel, index * PANEL_WIDTH, names)),
    ...legend(names, TOP + PLOT_HEIGHT + BOTTOM + 14),
  ];
  for (const [index, note] of notes.entries()) {
    const y = height - 6 - (notes.length - 1 - index) * NOTE_HEIGHT;
    parts.push(`<text x="8" y="${y}" font-size="11">${escapeText(note)}</text>`);
  }
  parts.push('</svg>', '');
  return parts.join('\n');
}

/** @param {readonly string[]} names @param {number} y */
function legend(names, y) {
  let x = LEFT;
  return names.map((name, index) => {
    const entry = `<circle cx="${x}" cy="${y - 4}" r="${RADIUS}" fill="${COLOURS[index % COLOURS.length]}"/><text x="${x + 9}" y="${y}">${escapeText(name)}</text>`;
    x += 34 + name.length * 6.6;
    return entry;
  });
}

/** @param {Panel} panel @param {number} left @param {readonly string[]} names */
function drawPanel(panel, left, names) {
  const { xTicks, series } = panel;
  const [x0, x1] = [left + LEFT, left + PANEL_WIDTH - RIGHT];
  const [y0, y1] = [TOP + PLOT_HEIGHT, TOP];
  const ticks = ticksFor(Math.max(0, ...series.flatMap(({ points }) => points.map(({ max }) => max))));
  const top = ticks.at(-1) ?? 1;
  const inset = (x1 - x0) / (2 * xTicks.length);
  /** @param {number} index */
  const xOf = (index) => x0 + inset + (index * (x1 - x0 - 2 * inset)) / Math.max(1, xTicks.length - 1);
  /** @param {number} value */
  const yOf = (value) => y0 - (value / top) * (y0 - y1);
  const parts = [
    `<text x="${x0}" y="${TOP - 30}" font-weight="600">${escapeText(panel.title)}</text>`,
    `<text x="${left + 8}" y="${TOP - 12}" font-size="11">${escapeText(panel.yLabel)}</text>`,
    `<text x="${at((x0 + x1) / 2)}" y="${y0 + 36}" text-anchor="middle">${escapeText(panel.xLabel)}</text>`,
    ...ticks.map(
      (tick) =>
        `<line x1="${x0}" x2="${x1}" y1="${at(yOf(tick))}" y2="${at(yOf(tick))}" stroke="${FAINT}" stroke-opacity="${tick === 0 ? 1 : 0.25}"/><text x="${x0 - 6}" y="${at(yOf(tick) + 4)}" text-anchor="end">${tick}</text>`,
    ),
    ...xTicks.map(
      (tick, i) => `<text x="${at(xOf(i))}" y="${y0 + 18}" text-anchor="middle">${escapeText(tick)}</text>`,
    ),
  ];
  for (const { name, points } of series) {
    const colour = COLOURS[names.indexOf(name) % COLOURS.length] ?? INK;
    const line = points.map(({ x, y }) => `${at(xOf(x))},${at(yOf(y))}`).join(' ');
    parts.push(`<polyline points="${line}" fill="none" stroke="${colour}" stroke-width="2"/>`);
    for (const { x, y, min, max, isNoisy } of points) {
      parts.push(
        `<line x1="${at(xOf(x))}" x2="${at(xOf(x))}" y1="${at(yOf(min))}" y2="${at(yOf(max))}" stroke="${colour}" stroke-opacity="0.6"/>`,
        `<circle cx="${at(xOf(x))}" cy="${at(yOf(y))}" r="${RADIUS}" stroke="${colour}" stroke-width="1.5" fill="${isNoisy ? 'none' : colour}"/>`,
      );
    }
  }
  return parts.join('\n');
}
