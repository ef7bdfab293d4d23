/**
 * Runs a command as bin/thinlun does, and leaves the code that V8 has compiled for the bundle meanwhile for bin/thinlun to begin with. Run by compile.mjs, with the
 * command's arguments.
 */
const { writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { compiledCodeOf, load } = require('../bin/load.js');

const file = join(__dirname, '..', 'dist', 'bundle', 'main.cjs');
const { exports: program, script } = load(file);
process.on('exit', (code) => {
  if (code === 0) writeFileSync(compiledCodeOf(file), script.createCachedData());
});
program.main(process.argv.slice(2));
