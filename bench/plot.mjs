#!/usr/bin/env node
/** `npm run bench:plot`: draws the figures of the README from what `npm run bench` has left. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ROOT } from './lib/bench.mjs';
import { depthFigure, growthFigure } from './lib/figures.mjs';

const { values: flags } = parseArgs({
  options: {
    json: { type: 'string', default: join(ROOT, 'bench-results', 'latest.json') },
    out: { type: 'string', default: join(ROOT, 'docs', 'figures') },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

if (flags.help) {
  console.log(`usage: npm run bench:plot -- [--json FILE] [--out FOLDER]
  --json FILE     the figures of a run (bench-results/latest.json)
  --out FOLDER    where the drawings go (docs/figures): iops-by-depth.svg, pool-growth.svg, those of them that were measured`);
} else {
  const { results, machine, options } = JSON.parse(readFileSync(flags.json, 'utf8'));
  const about = `Median, minimum and maximum of ${options.rounds} rounds; ${machine.cpu}, Linux ${machine.kernel}, Node ${machine.node}.`;
  mkdirSync(flags.out, { recursive: true });
  const drawings = {
    'iops-by-depth.svg': depthFigure(results, about),
    'pool-growth.svg': growthFigure(results, about),
  };
  for (const [name, svg] of Object.entries(drawings)) {
    if (svg === null) continue;
    writeFileSync(join(flags.out, name), svg);
    console.log(join(flags.out, name));
  }
}
