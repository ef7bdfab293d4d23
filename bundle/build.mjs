#!/usr/bin/env node
/**
 * Makes `dist/bundle/`: the commands as CommonJS, of which `bin/thinlun` runs `main.cjs`. Node starts that one file in half the time that it takes for dozens
 * of ES modules, and in half of that again with the code that V8 has compiled for it here. Servers run the ES modules of `dist/`; a process never loads of both.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { build } from 'rolldown';

const ROOT = join(import.meta.dirname, '..');
const DIR = join(ROOT, 'dist', 'bundle');
/** Of the packages that become a part of it. */
const LICENSES = ['commander/LICENSE', 'valibot/LICENSE.md'];

await build({
  cwd: ROOT,
  input: { main: 'src/cli.ts' },
  platform: 'node',
  // Loaded only when they are used; and what bin/thinlun never starts from here.
  external: ['cli-progress', 'pino', 'saxes', /\/src\/cli\/serve\.ts$/],
  preserveEntrySignatures: 'allow-extension',
  onLog: (_level, { message }) => {
    throw new Error(message);
  },
  output: {
    // As deep as the folders of src, because modules find package.json and the addon from where they are.
    dir: DIR,
    cleanDir: true,
    format: 'cjs',
    sourcemap: true,
    entryFileNames: '[name].cjs',
    chunkFileNames: '[name].cjs',
    // The options and help of all commands, with what they import, in one file; what an action itself imports comes in files of its own.
    codeSplitting: { groups: [{ name: 'main', test: /\/src\/cli(?:\.ts|\/.*-commands?\.ts)$|rolldown\/runtime/ }] },
  },
});

const licenses = LICENSES.map(async (name) => `${name}\n\n${await readFile(join(ROOT, 'node_modules', name), 'utf8')}`);
await writeFile(join(DIR, 'LICENSES'), (await Promise.all(licenses)).join('\n'));
await import('./compile.mjs').catch((error) => {
  console.warn(`thinlun: commands will start more slowly, without compiled code: ${error.message}`);
});
