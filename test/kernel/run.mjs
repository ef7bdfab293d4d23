#!/usr/bin/env node
// Runs the scenarios, each in a guest of its own, and prints a table. usage: see --help.
import { spawn } from 'node:child_process';
import {
  createWriteStream,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = dirname(fileURLToPath(import.meta.url));
const project = dirname(dirname(here));
const scenariosFolder = join(here, 'scenarios');
const logsFolder = join(project, 'build', 'kernel-logs');
const COMPILED = join('build', 'kernel-tests');
const DEFAULT_TIMEOUT_S = 120;
const DEFAULT_MEMORY = '1G';
/** Root agrees that the scenarios run on this machine's own kernel and not in guests. */
const onHost = process.env.THINLUN_HOST_TESTS === '1';

const { values: options, positionals: wanted } = parseArgs({
  allowPositionals: true,
  options: {
    list: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    verbose: { type: 'boolean', short: 'v', default: false },
    jobs: { type: 'string', default: String(Math.min(2, availableParallelism())) },
    env: { type: 'string', multiple: true, default: [] },
    timeout: { type: 'string' },
    'total-timeout': { type: 'string', default: '1200' },
  },
});

if (options.help) {
  console.log(`usage: node test/kernel/run.mjs [options] [SCENARIO...]
  --list               names and titles
  --verbose, -v        show what the guests say while they say it
  --jobs N             guests at once (as many as there are processors, at most 2; measurements run alone)
  --env NAME=VALUE     for the scenarios, as in --env 'SEEDS=10 11' --env OPERATIONS=1000 dm-thin-differential
  --timeout S          seconds for each, instead of what it says itself
  --total-timeout S    seconds for all of them together (1200); what is left then counts as failed
With THINLUN_HOST_TESTS=1 they run on this machine's own kernel, one at a time: see on-host.sh. Those that need a guest of their own are left out.`);
  process.exit(0);
}

/** The head of a scenario: `# key: value` lines. */
function readScenario(file) {
  const text = readFileSync(join(scenariosFolder, file), 'utf8');
  const field = (key) => new RegExp(`^(?:#|//) ${key}: *(.+)$`, 'm').exec(text)?.[1];
  return {
    name: file.replace(/\.(sh|mjs)$/, ''),
    file,
    title: field('title') ?? '(no title)',
    timeoutS: Number(field('timeout') ?? DEFAULT_TIMEOUT_S),
    memory: field('memory') ?? DEFAULT_MEMORY,
    systemd: field('init') === 'systemd',
    // A measurement, which asserts nothing: not among "all of them".
    measures: field('kind') === 'measurement',
    // It boots, or does to the kernel what nobody wants to have done to a machine.
    guestOnly: field('guest') === 'only',
    needs: (field('needs') ?? 'dist bin/thinlun').split(' ').filter((path) => path !== 'nothing'),
  };
}

/** What the guest's shell sets for a scenario. */
const environment = options.env
  .map((setting) =>
    setting.replace(/^(\w+)=(.*)$/s, (_, name, value) => `${name}='${value.replaceAll("'", `'\\''`)}' `),
  )
  .join('');

const all = readdirSync(scenariosFolder)
  .filter((file) => /\.(sh|mjs)$/.test(file))
  .sort()
  .map(readScenario);
const unknown = wanted.filter((name) => !all.some((scenario) => scenario.name === name));
if (unknown.length > 0) {
  console.error(`run.mjs: no such scenario: ${unknown.join(', ')} (--list shows them)`);
  process.exit(2);
}
const scenarios = all.filter(
  ({ name, measures, guestOnly }) => (wanted.length > 0 ? wanted.includes(name) : !measures) && !(onHost && guestOnly),
);

if (options.list) {
  for (const scenario of wanted.length > 0 ? scenarios : all) {
    console.log(`${scenario.name.padEnd(28)} ${scenario.title}${scenario.measures ? ' (only when named)' : ''}`);
  }
  process.exit(0);
}

function binds() {
  const list = [`${project}:/project:ro`];
  const modules = join(project, 'node_modules');
  // A linked node_modules: what it points at has to be there under the same name.
  if (existsSync(modules) && lstatSync(modules).isSymbolicLink()) {
    const real = realpathSync(modules);
    list.push(`${real}:${real}:ro`);
  }
  return list;
}

/** What runs now. */
const children = new Set();
let interrupted = false;

/** A guest is in a process group of its own, which Ctrl-C does not reach: it ends, and what booted it cleans up. */
function interrupt() {
  if (interrupted) return;
  interrupted = true;
  for (const child of children) spawn('pkill', ['-TERM', '-P', String(child.pid)], { stdio: 'ignore' });
}
if (!onHost) for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, interrupt);

function run(command, args, onText, limitS) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: project });
    children.add(child);
    // boot.sh bounds the guest; this bounds boot.sh.
    const timer = limitS === undefined ? null : setTimeout(() => child.kill('SIGKILL'), (limitS + 30) * 1000);
    child.stdout.on('data', onText);
    child.stderr.on('data', onText);
    child.on('error', (error) => {
      onText(`${error.message}\n`);
      resolve(127);
    });
    child.on('close', (code) => {
      children.delete(child);
      if (timer !== null) clearTimeout(timer);
      if (interrupted && children.size === 0) process.exit(130);
      resolve(code ?? 1);
    });
  });
}

/** The guest's Node takes no TypeScript: the programs of test/kernel, and what they import, as JavaScript. */
async function compile() {
  const out = join(project, COMPILED);
  const tsc = join(project, 'node_modules', '.bin', 'tsc');
  const status = await run(tsc, ['-p', join(here, 'tsconfig.json'), '--outDir', out], (text) =>
    process.stderr.write(text),
  );
  // Where the sources look for the addon.
  if (!existsSync(join(out, 'native-bindings'))) symlinkSync('../../native-bindings', join(out, 'native-bindings'));
  return status;
}

function notRun(scenario, why) {
  return { scenario, passed: false, seconds: 0, why: `not run: ${why}`, promises: 0, results: [] };
}

async function runScenario(scenario, remainingS) {
  const missing = scenario.needs.filter((path) => !existsSync(join(project, path)));
  if (missing.length > 0) return notRun(scenario, `${missing.join(' and ')} missing (npm run build)`);
  const limitS = Math.min(Number(options.timeout ?? scenario.timeoutS), Math.floor(remainingS));
  if (limitS < 5) return notRun(scenario, 'the total time was over');
  const log = join(logsFolder, `${scenario.name}.log`);
  const stream = createWriteStream(log);
  let said = '';
  const onText = (chunk) => {
    stream.write(chunk);
    said = (said + chunk).slice(-1_000_000);
    if (options.verbose) process.stdout.write(chunk);
  };
  const program = scenario.file.endsWith('.mjs') ? 'node' : 'bash';
  const args = [join(here, onHost ? 'on-host.sh' : 'boot.sh'), '--mem', scenario.memory, '--timeout', String(limitS)];
  for (const bind of binds()) args.push('--bind', bind);
  if (scenario.systemd) args.push('--systemd');
  args.push(
    '--',
    `cd /tmp && TIME_LIMIT_S=${limitS} ${environment}${program} /project/test/kernel/scenarios/${scenario.file}`,
  );
  const begin = performance.now();
  const status = await run('bash', args, onText, limitS);
  const seconds = (performance.now() - begin) / 1000;
  await new Promise((resolve) => stream.end(resolve));
  const promises = said.match(/^ok: /gm)?.length ?? 0;
  const measured = [...said.matchAll(/^result: (.+?)\r?$/gm)].map((match) => match[1]);
  let why = '';
  if (status === 124) why = `not finished after ${limitS} s`;
  else if (status !== 0) why = /^FAILED: (.+?)\r?$/m.exec(said)?.[1] ?? `status ${status}`;
  else if (promises === 0) why = 'it ended well but promised nothing';
  if (why === '') rmSync(log, { force: true });
  return { scenario, passed: why === '', seconds, why, promises, results: measured, log, said };
}

const begin = performance.now();
const totalS = Number(options['total-timeout']);
rmSync(logsFolder, { recursive: true, force: true });
mkdirSync(logsFolder, { recursive: true });

if (scenarios.some(({ needs }) => needs.includes(COMPILED)) && (await compile()) !== 0) process.exit(1);
if ((await run('bash', [join(here, 'build-rootfs.sh')], (text) => process.stderr.write(text))) !== 0) process.exit(1);

const results = [];
const queue = [...scenarios];
async function worker() {
  for (let scenario = queue.shift(); scenario !== undefined; scenario = queue.shift()) {
    const result = await runScenario(scenario, totalS - (performance.now() - begin) / 1000);
    results.push(result);
    const verdict = result.passed ? 'pass' : 'FAIL';
    console.log(
      `${verdict}  ${scenario.name.padEnd(28)} ${result.seconds.toFixed(0).padStart(4)} s  ${scenario.title}`,
    );
  }
}
// One kernel has one LIO.
const alone = onHost || scenarios.some(({ measures }) => measures);
const jobs = alone ? 1 : Math.max(1, Number(options.jobs));
await Promise.all(Array.from({ length: jobs }, worker));
results.sort((a, b) => a.scenario.name.localeCompare(b.scenario.name));

const failed = results.filter((result) => !result.passed);
for (const { scenario, why, log, said } of failed) {
  console.log(`\n=== ${scenario.name}: ${why}`);
  if (said === undefined) continue;
  console.log(said.split('\n').slice(-300).join('\n'));
  console.log(`=== the whole log: ${relative(process.cwd(), log)}`);
}
console.log(`\n${'scenario'.padEnd(28)} verdict  seconds  promises kept`);
for (const { scenario, passed, seconds, promises, why, results: measured } of results) {
  console.log(
    `${scenario.name.padEnd(28)} ${(passed ? 'pass' : 'FAIL').padEnd(7)}  ${seconds.toFixed(0).padStart(7)}  ${String(promises).padStart(13)}${why && `  ${why}`}`,
  );
  // What is for a program is in the log and, with -v, above.
  for (const line of measured.filter((text) => !text.startsWith('{'))) console.log(`${' '.repeat(28)} ${line}`);
}
console.log(`\n${results.length - failed.length} passed, ${failed.length} failed`);
process.exit(failed.length > 0 ? 1 : 0);
