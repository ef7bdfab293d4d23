/** What a `.cpuprofile` of V8 says: where the time went. */

/**
 * @typedef {object} Profile
 * @property {{ id: number, callFrame: { functionName: string, url: string, lineNumber: number } }[]} nodes
 * @property {number} startTime Microseconds of the machine's monotonic clock.
 * @property {number[]} samples Ids of nodes.
 * @property {number[]} timeDeltas Microseconds.
 *
 * @typedef {object} Share
 * @property {string} name
 * @property {number} us
 */

const IDLE = '(idle)';

/** A module by its path below `root`'s dist; what Node has by its name; what has no file as V8 calls it. @param {string} url @param {string} root */
export function moduleOf(url, root) {
  if (url === '') return 'V8, kernel and addon';
  return url
    .replace('file://', '')
    .replace(`${root}/`, '')
    .replace(/^dist\//, '');
}

/**
 * Self time by function and by module, between two moments of the monotonic clock.
 * @param {Profile} profile @param {string} root @param {number} fromUs @param {number} toUs
 */
export function selfTimes(profile, root, fromUs, toUs) {
  const frames = new Map(profile.nodes.map(({ id, callFrame }) => [id, callFrame]));
  /** @type {Map<string, number>} */
  const functions = new Map();
  /** @type {Map<string, number>} */
  const modules = new Map();
  let at = profile.startTime;
  let busyUs = 0;
  let idleUs = 0;
  for (const [index, id] of profile.samples.entries()) {
    const us = profile.timeDeltas[index] ?? 0;
    at += us;
    const frame = frames.get(id);
    if (frame === undefined || at < fromUs || at > toUs) continue;
    const { functionName, url, lineNumber } = frame;
    if (functionName === IDLE) {
      idleUs += us;
      continue;
    }
    busyUs += us;
    const module = moduleOf(url, root);
    const name =
      url === '' ? functionName || '(anonymous)' : `${functionName || '(anonymous)'}  ${module}:${lineNumber + 1}`;
    functions.set(name, (functions.get(name) ?? 0) + us);
    modules.set(module, (modules.get(module) ?? 0) + us);
  }
  return { busyUs, idleUs, functions: ranked(functions), modules: ranked(modules) };
}

/** @param {Map<string, number>} times @returns {Share[]} */
function ranked(times) {
  return [...times].map(([name, us]) => ({ name, us })).sort((a, b) => b.us - a.us);
}
