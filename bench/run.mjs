#!/usr/bin/env node
/** `npm run bench`: what docs/performance.md promises, measured. See --help there and here. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { installTools } from '../test/support/debian-install.mjs';
import { growthGroup } from './groups/growth.mjs';
import { portalGroup } from './groups/portal.mjs';
import { provisioningGroup } from './groups/provisioning.mjs';
import { ringGroup } from './groups/ring.mjs';
import { volumesGroup } from './groups/volumes.mjs';
import { Bench, ROOT } from './lib/bench.mjs';
import { describeMachine } from './lib/machine.mjs';
import { evaluate, measure } from './lib/measure.mjs';
import { Progress } from './lib/progress.mjs';
import { caveats, detailTable, figureTable, writeJson } from './lib/report.mjs';
import { garbage, profile } from './modes.mjs';

const GROUPS = [portalGroup, provisioningGroup, ringGroup, volumesGroup, growthGroup];

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string' },
    size: { type: 'string', default: '512' },
    only: { type: 'string', default: '.' },
    folder: { type: 'string', default: tmpdir() },
    json: { type: 'string' },
    profile: { type: 'string' },
    garbage: { type: 'boolean', default: false },
    install: { type: 'boolean', default: true },
    strict: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
  allowNegative: true,
});

const HELP = `usage: npm run bench -- [options]                 all of it takes about 15 minutes
  --list           what is measured, by id
  --only REGEX     only what has an id that matches
  --rounds N       samples of each side, in turn (5)
  --seconds S      length of a sample (2)
  --size MIB       the volume of the portal's loads (512)
  --folder DIR     where all files of the run are; it takes up to 15 GB there for its time (the temporary folder)
  --json FILE      where the figures go (bench-results/latest.json, with --garbage garbage.json)
  --profile ID     one measurement with a CPU profile of our process: where its time goes, by module and by function (5 s)
  --garbage        loads with --trace-gc: bytes allocated for a command, collections and their lengths (60 s each)
  --no-install     installs no peers, even as root on Debian
  --strict         exit status 3 when a figure is noisy, 4 when one misses its target`;

/** @param {readonly import('./lib/measure.mjs').Group[]} groups @param {RegExp} only */
function wantedOf(groups, only) {
  return groups.flatMap((group) => {
    const wanted = group.measurements.filter(
      ({ id, figures }) => only.test(id) || figures.some((one) => only.test(one.id)),
    );
    return wanted.length === 0 ? [] : [{ group, wanted }];
  });
}

/** @param {string} name */
function jsonFile(name) {
  return flags.json ?? join(ROOT, 'bench-results', `${name}.json`);
}

/**
 * Measures; what fails is said and left out, so that the rest of a long run is not lost. `save` is called with what there is after each measurement.
 * @param {Bench} bench @param {ReturnType<typeof wantedOf>} chosen @param {number} rounds
 * @param {(results: import('./lib/report.mjs').Result[]) => void} save
 */
async function measureAll(bench, chosen, rounds, save) {
  const progress = new Progress();
  /** @type {import('./lib/report.mjs').Result[]} */
  const results = [];
  /** @param {string} what @param {() => Promise<void>} work */
  const attempt = async (what, work) => {
    try {
      await work();
    } catch (error) {
      progress.end();
      bench.leaveOut(`${what}, which failed`);
      console.error(error);
      process.exitCode = 1;
    }
  };
  for (const { group, wanted } of chosen) {
    await attempt(`the group ${group.name}`, async () => {
      progress.show(`${group.name}: setting up`);
      const setup = await group.open(bench, wanted);
      for (const measurement of wanted) {
        await attempt(measurement.title, async () => {
          const sides = await measure(measurement, setup, rounds, (text) => progress.show(text));
          const { id, title, plot = {} } = measurement;
          results.push({ id, title, plot, sides, figures: measurement.figures.map((one) => evaluate(one, sides)) });
        });
        save(results);
      }
      progress.show(`${group.name}: ending`);
      await setup.close();
    });
  }
  progress.end();
  return results;
}

async function main() {
  if (flags.help) return console.log(HELP);
  const { profile: profiled } = flags;
  const pattern = profiled === undefined ? flags.only : `^${profiled}$`;
  const chosen = wantedOf(GROUPS, new RegExp(pattern));
  if (chosen.length === 0) throw new Error(`nothing has an id that matches ${pattern} (--list shows them)`);
  if (flags.list) {
    for (const { wanted } of chosen)
      for (const { figures } of wanted)
        for (const { id, what, against } of figures) console.log(`${id.padEnd(28)} ${what} / ${against}`);
    return;
  }
  const tools = [...new Set(chosen.flatMap(({ group }) => group.tools))];
  const seconds = Number(flags.seconds ?? (flags.garbage ? 60 : profiled === undefined ? 2 : 5));
  const [rounds, sizeMib] = [Number(flags.rounds), Number(flags.size)];
  const bench = new Bench({ rounds, seconds, sizeMib, folder: flags.folder });
  try {
    if (flags.garbage) {
      const machine = await describeMachine(bench.folder, []);
      writeJson(jsonFile('garbage'), { machine, options: { seconds, sizeMib }, garbage: await garbage(bench) });
      return;
    }
    if (profiled !== undefined) {
      const [{ group, wanted }] = chosen;
      return await profile(bench, group, wanted[0]);
    }
    if (flags.install) installTools(tools);
    const machine = await describeMachine(bench.folder, tools);
    for (const [name, value] of Object.entries(machine)) console.log(`${name.padEnd(20)} ${value}`);
    const file = jsonFile('latest');
    const results = await measureAll(bench, chosen, rounds, (sofar) => {
      const { settings, leftOut } = bench;
      writeJson(file, { machine, settings, leftOut, options: { rounds, seconds, sizeMib }, results: sofar });
    });
    for (const [name, value] of Object.entries(bench.settings)) console.log(`${name.padEnd(20)} ${value}`);
    for (const text of [figureTable(results), detailTable(results), caveats(results).join('\n')]) {
      if (text !== '') console.log(`\n${text}`);
    }
    console.log(`\nAll figures: ${file}`);
    const verdicts = new Set(results.flatMap(({ figures }) => figures.map(({ verdict }) => verdict)));
    if (flags.strict) process.exitCode ||= verdicts.has('noisy') ? 3 : verdicts.has('missed') ? 4 : 0;
  } finally {
    bench.removeAtExit();
  }
}

await main();
