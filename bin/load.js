const { existsSync, readFileSync } = require('node:fs');
const Module = require('node:module');
const { dirname } = require('node:path');
const { Script } = require('node:vm');

/** Where the code is that V8 compiled for `file` when the program was built; it need not be there. */
exports.compiledCodeOf = (file) => `${file}.v8`;

/** `require` of a CommonJS file with such code, if there is any; V8 compiles anew what another version has made. Returns its exports, and its script. */
exports.load = (file) => {
  const compiled = exports.compiledCodeOf(file);
  const cachedData = existsSync(compiled) ? readFileSync(compiled) : undefined;
  const script = new Script(Module.wrap(readFileSync(file, 'utf8')), { filename: file, cachedData });
  const loaded = new Module(file);
  require.cache[file] = loaded;
  script.runInThisContext()(loaded.exports, Module.createRequire(file), loaded, file, dirname(file));
  return { exports: loaded.exports, script };
};
