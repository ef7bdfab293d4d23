/** Figures for people. */

/** @typedef {'iops' | 'bytes/s' | 'us' | 's' | 'ns' | 'bytes' | 'lookups/s'} Unit */

/** Three digits that mean something. @param {number} value */
export function digits(value) {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  if (value >= 1000) return String(Math.round(value));
  return value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(value))));
}

/** @param {number} value @param {Unit} unit */
export function quantity(value, unit) {
  switch (unit) {
    case 'iops':
      return value >= 1000 ? `${digits(value / 1000)} k/s` : `${digits(value)} /s`;
    case 'lookups/s':
      return `${digits(value / 1e6)} M/s`;
    case 'bytes/s':
      return `${digits(value / 1e6)} MB/s`;
    case 'bytes':
      return `${digits(value / 2 ** 20)} MiB`;
    case 's':
      return value < 1 ? `${digits(value * 1000)} ms` : `${digits(value)} s`;
    default:
      return `${digits(value)} ${unit}`;
  }
}

/** Columns in line; the first to the left. @param {readonly (readonly string[])[]} rows @returns {string} */
export function table(rows) {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((cells) => (cells[column] ?? '').length)));
  return rows
    .map((cells) =>
      cells
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
