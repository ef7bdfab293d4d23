/** What `--trace-gc` says. */

const COLLECTION =
  /\s(\d+) ms: (Scavenge|Mark-Compact|Mark-sweep|Minor)[^\d]*([\d.]+) \([\d.]+\) -> ([\d.]+) \([\d.]+\) MB,.*?([\d.]+) \/ [\d.]+ ms/;
const MB = 2 ** 20;

/**
 * @typedef {object} Collection
 * @property {number} atMs Since the process began.
 * @property {boolean} isMinor
 * @property {number} beforeBytes In use.
 * @property {number} afterBytes
 * @property {number} ms How long it took.
 */

/** @param {string} line @returns {Collection | null} */
export function readCollection(line) {
  const match = COLLECTION.exec(line);
  if (match === null) return null;
  const [, at, kind, before, after, ms] = match;
  return {
    atMs: Number(at),
    isMinor: kind === 'Scavenge' || kind === 'Minor',
    beforeBytes: Number(before) * MB,
    afterBytes: Number(after) * MB,
    ms: Number(ms),
  };
}

/**
 * What was allocated between the first and the last collection, and what collecting cost; `bytesPerCommand` is null when there were fewer than two.
 * @param {readonly Collection[]} collections @param {number} commandsPerSecond @param {number} seconds
 */
export function summarize(collections, commandsPerSecond, seconds) {
  let bytes = 0;
  for (let i = 1; i < collections.length; i++) {
    bytes += Math.max(0, (collections[i]?.beforeBytes ?? 0) - (collections[i - 1]?.afterBytes ?? 0));
  }
  const between = ((collections.at(-1)?.atMs ?? 0) - (collections[0]?.atMs ?? 0)) / 1000;
  const totalMs = collections.reduce((sum, { ms }) => sum + ms, 0);
  const commands = commandsPerSecond * between;
  return {
    commands: Math.round(commandsPerSecond * seconds),
    bytesPerCommand: collections.length < 2 || commands === 0 ? null : bytes / commands,
    minor: collections.filter(({ isMinor }) => isMinor).length,
    major: collections.filter(({ isMinor }) => !isMinor).length,
    longestMs: Math.max(0, ...collections.map(({ ms }) => ms)),
    share: totalMs / 1000 / seconds,
  };
}
