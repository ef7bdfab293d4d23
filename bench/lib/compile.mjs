import { join } from 'node:path';
import { runOk } from '../../test/support/processes.mjs';
import { ROOT } from './bench.mjs';

/** Compiles one of bench/c as a distribution would; the program is in `folder`. @param {string} name @param {string} folder @returns {Promise<string>} */
export async function compile(name, folder) {
  const program = join(folder, name);
  await runOk('gcc', ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-o', program, join(ROOT, 'bench', 'c', `${name}.c`)]);
  return program;
}
