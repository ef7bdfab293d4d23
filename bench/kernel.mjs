#!/usr/bin/env node
/** `npm run bench:kernel`: what needs a kernel with LIO, in the guest of the kernel tests. The scenarios measure; here it is put together. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { ROOT } from './lib/bench.mjs';
import { describeMachine } from './lib/machine.mjs';
import { evaluate, iopsOf } from './lib/measure.mjs';
import { caveats, detailTable, figureTable, writeJson } from './lib/report.mjs';
import { INTERRUPTED } from './lib/scratch.mjs';

/** @typedef {import('./lib/measure.mjs').Measurement & { scenario: string }} LabMeasurement */

/** @param {'read' | 'write'} operation @param {number} depth @returns {LabMeasurement} */
function random(operation, depth) {
  const id = `lab-rand${operation}-${depth}`;
  const title = `tcm_loop disk, 4 KiB random ${operation}, depth ${depth}`;
  const base = { what: title, ours: 'thinlun', unit: /** @type {const} */ ('iops'), value: iopsOf };
  return {
    id,
    title,
    scenario: 'bench-tcm-loop',
    sides: ['thinlun', 'runner', 'dm-thin', 'memory'],
    figures: [
      { ...base, id, against: 'tcmu-runner, qcow2', theirs: 'runner', target: { atLeast: 2 } },
      {
        ...base,
        id: `${id}-dm-thin`,
        against: "LIO iblock, the kernel's dm-thin",
        theirs: 'dm-thin',
        target: { atLeast: 0.5 },
      },
    ],
    plot: { kind: 'lab', operation, depth },
  };
}

/** @param {import('./lib/measure.mjs').Sample} sample */
const secondsOf = ({ commandSeconds }) => Number(commandSeconds);

/** @type {readonly LabMeasurement[]} */
const MEASUREMENTS = [
  ...[1, 32].flatMap((depth) => [random('read', depth), random('write', depth)]),
  {
    id: 'lab-snapshot',
    title: 'snapshot of a volume with 1 M mapped blocks, the whole command',
    scenario: 'bench-snapshot',
    sides: ['thinlun', 'lvcreate', 'request', 'volume-list', 'lvs', 'node-alone', 'lvm-alone'],
    figures: [
      {
        id: 'lab-snapshot',
        what: 'snapshot of 1 M mapped blocks, the command with its commit',
        against: 'lvcreate -s',
        ours: 'thinlun',
        theirs: 'lvcreate',
        unit: 's',
        value: secondsOf,
        target: { atMost: 1 },
      },
      {
        id: 'lab-snapshot-request',
        what: '- the request to the server alone, commit included',
        against: 'the whole lvcreate -s',
        ours: 'request',
        theirs: 'lvcreate',
        unit: 's',
        value: secondsOf,
        target: {},
      },
      {
        id: 'lab-snapshot-list',
        what: '- a command that only asks: thinlun volume list',
        against: 'lvs',
        ours: 'volume-list',
        theirs: 'lvs',
        unit: 's',
        value: secondsOf,
        target: {},
      },
      {
        id: 'lab-snapshot-start',
        what: '- of all of them, the mere start: node -e 0',
        against: 'lvm version',
        ours: 'node-alone',
        theirs: 'lvm-alone',
        unit: 's',
        value: secondsOf,
        target: {},
      },
    ],
  },
  {
    id: 'lab-discard',
    title: 'discard of 1 M mapped blocks by one blkdiscard',
    scenario: 'bench-discard',
    sides: ['thinlun', 'dm-thin'],
    figures: [
      {
        id: 'lab-discard',
        what: 'discard of 1 M mapped blocks by one blkdiscard',
        against: "the kernel's dm-thin",
        ours: 'thinlun',
        theirs: 'dm-thin',
        unit: 's',
        value: secondsOf,
        // Half as fast.
        target: { atMost: 2 },
      },
    ],
  },
];

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    only: { type: 'string', default: '.' },
    json: { type: 'string', default: join(ROOT, 'bench-results', 'kernel.json') },
    list: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

const HELP = `usage: npm run bench:kernel -- [options]
  --list           what is measured, by id
  --only REGEX     only scenarios of which something has an id that matches
  --rounds N       samples of each side, in turn (5)
  --seconds S      length of a sample of fio (2)
  --json FILE      where the figures go (bench-results/kernel.json)
Needs root and what the kernel tests need: see test/kernel/README.md. The guest has one processor, and a system call is dear in it: ratios mean something, absolute figures do not.`;

/**
 * Runs scenarios; what they say comes by line.
 * @param {readonly string[]} names @param {(line: string) => void} onLine @returns {Promise<number>} its exit status
 */
function runScenarios(names, onLine) {
  const env = [`ROUNDS=${flags.rounds}`, `SECONDS_EACH=${flags.seconds}`].flatMap((setting) => ['--env', setting]);
  const args = [join(ROOT, 'test', 'kernel', 'run.mjs'), '-v', '--total-timeout', '3600', ...env, ...names];
  return new Promise((resolve) => {
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    createInterface({ input: child.stdout }).on('line', onLine);
    // The runner ends its guest first.
    const interrupted = () => {
      child.kill('SIGINT');
      child.once('close', () => process.exit(INTERRUPTED));
    };
    for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM'])) process.once(signal, interrupted);
    child.on('close', (code) => resolve(code ?? 1));
  });
}

async function main() {
  if (flags.help) return console.log(HELP);
  const only = new RegExp(flags.only);
  const matching = MEASUREMENTS.filter(
    ({ id, figures }) => only.test(id) || figures.some((figure) => only.test(figure.id)),
  );
  const names = [...new Set(matching.map(({ scenario }) => scenario))];
  if (names.length === 0) throw new Error(`nothing has an id that matches ${flags.only} (--list shows them)`);
  const wanted = MEASUREMENTS.filter(({ scenario }) => names.includes(scenario));
  if (flags.list) {
    for (const { figures, scenario } of wanted) {
      for (const { id, what, against } of figures) console.log(`${id.padEnd(28)} ${what} / ${against} (${scenario})`);
    }
    return;
  }
  const machine = await describeMachine('/tmp', []);
  /** @type {Record<string, string>} */
  const settings = {};
  const results = wanted.map(({ id, title, plot = {}, sides }) => ({
    id,
    title,
    plot,
    sides: sides.map((name) => ({ name, samples: /** @type {import('./lib/measure.mjs').Sample[]} */ ([]) })),
  }));
  const status = await runScenarios(names, (line) => {
    const text = /^result: (\{.*\})\r?$/.exec(line)?.[1];
    if (text === undefined) return console.log(line);
    const { setting, text: value, measurement, side, sample } = JSON.parse(text);
    if (setting !== undefined) settings[setting] = value;
    else
      results
        .find(({ id }) => id === measurement)
        ?.sides.find(({ name }) => name === side)
        ?.samples.push(sample);
    process.stderr.write('.');
  });
  process.stderr.write('\n');
  for (const [name, value] of Object.entries({ ...machine, ...settings })) console.log(`${name.padEnd(20)} ${value}`);
  const evaluated = results.map((result, index) => ({
    ...result,
    sides: result.sides.filter(({ samples }) => samples.length > 0),
    figures: (wanted[index]?.figures ?? []).map((figure) => evaluate(figure, result.sides)),
  }));
  for (const text of [figureTable(evaluated), detailTable(evaluated), caveats(evaluated).join('\n')]) {
    if (text !== '') console.log(`\n${text}`);
  }
  const options = { rounds: Number(flags.rounds), seconds: Number(flags.seconds) };
  writeJson(flags.json, { machine, settings, leftOut: [], options, results: evaluated });
  console.log(`\nAll figures: ${flags.json}`);
  process.exitCode = status;
}

await main();
