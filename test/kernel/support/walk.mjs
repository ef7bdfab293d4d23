// Runs the walk of docs/operations.md, command by command, and wants what is printed there. usage: walk.mjs FILE [--show]
//
// The walk is the section "## A walk ..."; in its blocks ```console, a line "# COMMAND" (going on in the next line after a "\") is run by
// root, and what follows is what it prints: "…" stands for anything, alone in a line for any number of lines. What only looks is tried again for
// a while, as a reader would. A block below a comment "<!-- not run: WHY -->" is for readers only.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

const LOOKS =
  /^(?:lsblk|ls|cat|df|readlink|thinlun (?:pool status|volume list)|thinlun-list-luns|systemctl|targetcli ls|iscsiadm -m session)\b/;
const PATIENCE_MS = 60_000;
const [file, show] = process.argv.slice(2);

/** { commands: [{ line, text, expected }] } in the order of the walk. */
function readWalk(text) {
  const lines = text.split('\n');
  const commands = [];
  let inWalk = false;
  let block = null;
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i];
    if (block === null) {
      if (/^## /.test(line)) inWalk = /^## A walk\b/.test(line);
      if (inWalk && line === '```console') block = { run: !/^<!-- not run: .+ -->$/.test(lines[i - 1] ?? '') };
      else if (inWalk && line.startsWith('```')) throw new Error(`line ${i + 1}: a block of the walk is no console`);
    } else if (line === '```') {
      block = null;
    } else if (line.startsWith('# ')) {
      const command = { line: i + 1, text: line.slice(2), expected: [], run: block.run };
      while (lines[i].endsWith('\\')) command.text += `\n${lines[++i]}`;
      commands.push(command);
    } else {
      commands.at(-1).expected.push(line);
    }
  }
  return commands;
}

function run(text) {
  const { stdout, status } = spawnSync('bash', ['-c', `set -euo pipefail; exec 2>&1; ${text}`], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: 3 * PATIENCE_MS,
  });
  const output = stdout.replace(/[ \t]+$/gm, '').replace(/\n+$/, '');
  return { output, status };
}

/** Sizes and widths of columns may differ a little from one version of mkfs to the next. */
const SIZE = /\d+(?:\.\d+)? (?=[KMG]iB\b)/g;
const SIZE_TOLERANCE = 0.1;

function matches(expected, output) {
  const words = (text) => text.replaceAll(/ +/g, ' ');
  const pattern = expected
    .map((line) => (line.trim() === '…' ? '(?:.*\n)*?' : `${words(line).split('…').map(patternOf).join('.*')}\n`))
    .join('');
  const found = new RegExp(`^${pattern}$`).exec(output === '' ? '' : `${words(output)}\n`);
  if (found === null) return false;
  const sizes = expected.join('\n').match(SIZE) ?? [];
  return sizes.every((size, n) => Math.abs(Number(found[n + 1]) - Number(size)) <= SIZE_TOLERANCE * Number(size));
}

function patternOf(text) {
  return text
    .split(SIZE)
    .map((part) => part.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'))
    .join('(\\d+(?:\\.\\d+)? )');
}

const commands = readWalk(readFileSync(file, 'utf8'));
const failed = [];
for (const { line, text, expected, run: wanted } of commands) {
  if (!wanted) continue;
  const end = Date.now() + (show === undefined ? PATIENCE_MS : 3000);
  let result = run(text);
  while (!(result.status === 0 && matches(expected, result.output)) && LOOKS.test(text) && Date.now() < end) {
    spawnSync('sleep', ['0.3']);
    result = run(text);
  }
  const good = result.status === 0 && matches(expected, result.output);
  if (show !== undefined) console.log(`# ${text}${result.output === '' ? '' : `\n${result.output}`}`);
  if (good) continue;
  failed.push(
    `line ${line}: ${text}\n--- expected:\n${expected.join('\n')}\n--- printed (status ${result.status}):\n${result.output}`,
  );
  // What comes after stands on it.
  if (show === undefined || result.status !== 0) break;
}
if (failed.length > 0) {
  console.log(`FAILED: ${failed[0]}`);
  process.exit(1);
}
console.log(`walked ${commands.filter((command) => command.run).length} commands`);
