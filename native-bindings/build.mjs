// Builds the addon with node-gyp: the `install` script of the package, and by hand `node native-bindings/build.mjs`.
// Quick when nothing changed. A machine that has no compiler is not an error: thinlun then works on plain node:fs.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const addon = join(here, 'build', 'Release', 'thinlun_native.node');
const stamp = join(here, 'build', 'sources.sha256');

/** Changes with the sources and the machine, not with Node's version: Node-API is the same in all of them. */
function fingerprint() {
  const hash = createHash('sha256').update(`${process.platform} ${process.arch}\n`);
  for (const name of [
    'binding.gyp',
    ...readdirSync(join(here, 'src'))
      .sort()
      .map((file) => join('src', file)),
  ]) {
    hash.update(`${name}\n`).update(readFileSync(join(here, name)));
  }
  return hash.digest('hex');
}

/** The file of a program on PATH, symbolic links resolved; null when there is none. */
function which(program) {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const file = join(folder || '.', program);
    try {
      accessSync(file, constants.X_OK);
      return realpathSync(file);
    } catch {
      // Not in this folder.
    }
  }
  return null;
}

/** The script of node-gyp: what npm tells its scripts, the one inside npm, the distribution's, or null. */
function findNodeGyp() {
  const npm = process.env.npm_execpath ?? which('npm');
  const candidates = [
    process.env.npm_config_node_gyp,
    npm && join(dirname(npm), '..', 'node_modules', 'node-gyp', 'bin', 'node-gyp.js'),
    which('node-gyp'),
    '/usr/share/nodejs/node-gyp/bin/node-gyp.js',
  ];
  return candidates.find((file) => file?.endsWith('.js') && existsSync(file)) ?? null;
}

/** Where Node's headers are on this machine; null leaves it to node-gyp, which then downloads them. */
function findHeaders() {
  const prefix = dirname(dirname(realpathSync(process.execPath)));
  return existsSync(join(prefix, 'include', 'node', 'common.gypi')) ? prefix : null;
}

function withoutAddon(reason) {
  console.log(`thinlun: the native addon was not built: ${reason}.`);
  console.log(
    'thinlun: the portal works without it (plain file I/O, slower); TCMU needs it. On Debian: apt install build-essential python3',
  );
}

function build(print) {
  if (process.platform !== 'linux') return withoutAddon(`it is for Linux, this is ${process.platform}`);
  const nodeGyp = findNodeGyp();
  if (nodeGyp === null) return withoutAddon('node-gyp (part of npm) was not found');
  for (const [program, names] of [
    ['C compiler', [process.env.CC?.split(' ')[0], 'cc', 'gcc', 'clang']],
    ['make', ['make']],
    ['Python 3', [process.env.PYTHON, process.env.npm_config_python, 'python3']],
  ]) {
    if (!names.some((name) => name && (which(name) ?? (existsSync(name) && name))))
      return withoutAddon(`there is no ${program}`);
  }
  const headers = findHeaders();
  const options = ['rebuild', '--silent', '--directory', here, ...(headers === null ? [] : ['--nodedir', headers])];
  const run = spawnSync(process.execPath, [nodeGyp, ...options], { encoding: 'utf8' });
  if (run.status === 0 && existsSync(addon)) {
    writeFileSync(stamp, print);
    return console.log('thinlun: the native addon was built');
  }
  console.error(`${run.stdout ?? ''}${run.stderr ?? ''}`.trimEnd());
  withoutAddon('the build failed, see above');
  // There is a compiler and it refused our sources. A user goes on without; we want to know.
  if (process.env.CI) process.exitCode = 1;
}

const print = fingerprint();
const upToDate = existsSync(addon) && existsSync(stamp) && readFileSync(stamp, 'utf8') === print;
if (upToDate) console.log('thinlun: the native addon is up to date');
else build(print);
