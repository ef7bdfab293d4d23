import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { describe, expect, it } from 'vitest';
import { codeOnly, type ModuleReference, moduleReferences } from './support/source-text.ts';

/**
 * The rules of the house that no compiler checks. Each test lists every place that breaks its rule, as `file:line`, with what to do.
 */

const ROOT = dirname(import.meta.dirname);

/** Which layers a layer may import, besides itself. `cli` is src/cli.ts and src/cli/; `index` is src/index.ts. */
const LAYERS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  block: ['base'],
  'persistent-data': ['base', 'block'],
  thin: ['base', 'block', 'persistent-data'],
  scsi: ['base', 'block'],
  iscsi: ['base', 'block', 'scsi'],
  tcmu: ['base', 'block', 'scsi'],
  daemon: ['base', 'block', 'persistent-data', 'thin', 'scsi', 'iscsi', 'tcmu'],
  tools: ['base', 'block', 'persistent-data', 'thin'],
  cli: ['base', 'block', 'persistent-data', 'thin', 'scsi', 'iscsi', 'tcmu', 'daemon', 'tools'],
  index: ['base', 'block', 'persistent-data', 'thin', 'scsi', 'iscsi', 'tcmu', 'daemon', 'tools'],
};

/** Packages from the registry that a layer below the daemon may know. All others stand on Node alone. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  base: ['valibot'],
  thin: ['valibot'],
  tools: ['saxes'],
};

/** Nobody imports these: programs start here. */
const ROOT_FILES: readonly string[] = ['src/cli.ts', 'src/index.ts'];

/** Longer than `MAX_LINES` for a reason. An entry that is not needed any more fails. */
const LONG_FILES: Readonly<Record<string, string>> = {};
const MAX_LINES = 400;

/** Put together here, so that this file does not contain what it looks for. */
const WORKPLACE_PATH = new RegExp(`(?<![\\w.])/${'work'}/(?:wt|main|plan|shared|\\.library)\\b`);
const LEFTOVER = new RegExp(`\\b(?:${['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X'].join('|')})\\b`);

interface SourceFile {
  path: string;
  text: string;
  code: string;
  references: readonly ModuleReference[];
}

/** What git has or would have: neither ignored nor deleted. */
const files: readonly string[] = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '-z'], { cwd: ROOT })
  .toString()
  .split('\0')
  .filter((path) => path !== '' && existsSync(join(ROOT, path)) && statSync(join(ROOT, path)).isFile());

const typescript = files.filter((path) => /^(?:src|test)\/.*\.ts$/.test(path)).map(readSource);
const sources = typescript.filter((file) => file.path.startsWith('src/'));
const tests = typescript.filter((file) => file.path.startsWith('test/'));
const byPath = new Map(typescript.map((file) => [file.path, file]));

function readSource(path: string): SourceFile {
  const text = readFileSync(join(ROOT, path), 'utf8');
  return { path, text, code: codeOnly(text), references: moduleReferences(text) };
}

function layerOf(path: string): string {
  const parts = path.split('/');
  return parts.length > 2 ? parts[1]! : basename(path, '.ts');
}

/** The file in the repository that a relative import names, or null for a package or built-in module. */
function targetOf(file: SourceFile, reference: ModuleReference): string | null {
  return reference.specifier.startsWith('.') ? join(dirname(file.path), reference.specifier) : null;
}

/** `file:line: matched text` for every match of `pattern` in the code of `file`. */
function places(file: SourceFile, pattern: RegExp, text: string = file.code): string[] {
  return [...text.matchAll(new RegExp(pattern, `${pattern.flags}g`))].map(
    (match) => `${file.path}:${text.slice(0, match.index).split('\n').length}: ${match[0].trim()}`,
  );
}

describe('the layers', () => {
  it('are all known: every file of src lies in one of them', () => {
    expect(sources.filter((file) => !(layerOf(file.path) in LAYERS)).map((file) => file.path)).toEqual([]);
  });

  it('import only what lies below them', () => {
    const wrong = sources.flatMap((file) =>
      file.references.flatMap((reference) => {
        const target = targetOf(file, reference);
        if (target === null) return [];
        const from = layerOf(file.path);
        const to = target.startsWith('src/') ? layerOf(target) : 'outside src';
        if (from === to || LAYERS[from]?.includes(to)) return [];
        return [`${file.path}:${reference.line}: ${from} must not import ${to} (${reference.specifier})`];
      }),
    );
    expect(wrong).toEqual([]);
  });

  it('name files that exist, with their ending', () => {
    const wrong = typescript.flatMap((file) =>
      file.references
        .filter((reference) => {
          const target = targetOf(file, reference);
          return target !== null && !existsSync(join(ROOT, target));
        })
        .map((reference) => `${file.path}:${reference.line}: ${reference.specifier}`),
    );
    expect(wrong).toEqual([]);
  });

  it('leave registry packages to the daemon and the command', () => {
    const wrong = sources
      .filter((file) => !['daemon', 'cli'].includes(layerOf(file.path)))
      .flatMap((file) =>
        file.references
          .filter(({ specifier }) => !specifier.startsWith('.') && !specifier.startsWith('node:'))
          .filter(({ specifier }) => !PACKAGES[layerOf(file.path)]?.includes(specifier))
          .map((reference) => `${file.path}:${reference.line}: ${reference.specifier}`),
      );
    expect(wrong).toEqual([]);
  });

  it('have no import cycles', () => {
    const cycles: string[] = [];
    const done = new Set<string>();
    const path: string[] = [];
    const visit = (name: string): void => {
      const at = path.indexOf(name);
      if (at >= 0) cycles.push([...path.slice(at), name].join(' -> '));
      const file = byPath.get(name);
      if (at >= 0 || done.has(name) || !file) return;
      path.push(name);
      for (const reference of file.references) {
        // A worker is started, not imported; what only names types is gone when the program runs.
        const target = reference.kind === 'worker' || reference.isTypeOnly ? null : targetOf(file, reference);
        if (target !== null) visit(target);
      }
      path.pop();
      done.add(name);
    };
    for (const file of sources) visit(file.path);
    expect(cycles).toEqual([]);
  });
});

describe('the sources', () => {
  it('re-export in src/index.ts only: no other barrel files', () => {
    const wrong = sources
      .filter((file) => file.path !== 'src/index.ts')
      .flatMap((file) =>
        file.references
          .filter((reference) => reference.kind === 'export')
          .map((reference) => `${file.path}:${reference.line}: export from ${reference.specifier}`),
      );
    expect(wrong).toEqual([]);
  });

  it('are all used: each is reachable from the command, the index or a worker', () => {
    const reached = new Set<string>();
    const visit = (name: string): void => {
      const file = byPath.get(name);
      if (!file || reached.has(name)) return;
      reached.add(name);
      for (const reference of file.references) {
        const target = targetOf(file, reference);
        if (target !== null) visit(target);
      }
    };
    for (const root of ROOT_FILES) visit(root);
    const unused = sources.map((file) => file.path).filter((path) => !reached.has(path));
    expect(unused, 'not imported, directly or not, by src/cli.ts or src/index.ts').toEqual([]);
  });

  it('use no promises in persistent-data', () => {
    const wrong = sources
      .filter((file) => layerOf(file.path) === 'persistent-data')
      .flatMap((file) => places(file, /\b(?:async|await|Promise(?:Like)?)\b|\.then\s*\(/));
    expect(wrong).toEqual([]);
  });

  it('take time and randomness through constructors, below daemon and the command', () => {
    const wrong = sources
      .filter((file) => !['daemon', 'cli'].includes(layerOf(file.path)) && file.path !== 'src/base/clock.ts')
      .flatMap((file) =>
        places(
          file,
          /\bDate\.now\b|\bnew\s+Date\b|\bMath\.random\b|\bperformance\.now\b|\bprocess\.hrtime\b|(?<!\.)\bset(?:Timeout|Interval)\s*\(|\b(?:randomBytes|randomUUID|randomFillSync|randomInt|getRandomValues)\s*\(/,
        ),
      );
    expect(wrong).toEqual([]);
  });

  it('write nothing to the console, below daemon and the command', () => {
    const wrong = sources
      .filter((file) => !['daemon', 'cli'].includes(layerOf(file.path)))
      .flatMap((file) => places(file, /\bconsole\s*\.|\bprocess\.std(?:out|err)\b/));
    expect(wrong).toEqual([]);
  });

  it('stay short', () => {
    const long = sources.filter((file) => file.text.split('\n').length - 1 > MAX_LINES).map((file) => file.path);
    const excused = Object.keys(LONG_FILES);
    expect(long.filter((path) => !excused.includes(path)).sort(), `over ${MAX_LINES} lines`).toEqual([]);
    expect(
      excused.filter((path) => !long.includes(path)),
      'excused, but not long',
    ).toEqual([]);
  });

  it('have kebab-case names', () => {
    const wrong = files.filter(
      (path) => /^(?:src|test|native-bindings)\//.test(path) && !path.startsWith('test/golden/'),
    );
    const pattern = /^[a-z0-9]+(?:[-.][a-z0-9]+)*$|^[A-Z]+\.md$|^binding\.gyp$/;
    expect(wrong.filter((path) => !pattern.test(basename(path)))).toEqual([]);
  });
});

describe('all TypeScript', () => {
  it('has named exports only', () => {
    // Programs that load a module by its name want a default export.
    const wanted = ['test/support/vitest-reporter.ts'];
    const wrong = typescript
      .filter((file) => !wanted.includes(file.path))
      .flatMap((file) => places(file, /\bexport\s+default\b|\bas\s+default\b/));
    expect(wrong).toEqual([]);
  });

  it('switches no test off and singles none out', () => {
    const wrong = tests.flatMap((file) =>
      places(file, /\b(?:it|test|describe|suite|bench)(?:\.\w+)*\.(?:only|skip|todo|fails)\b|\bx(?:it|describe)\s*\(/),
    );
    expect(wrong).toEqual([]);
  });

  it('mutes the type checker and the linter only with a reason', () => {
    const wrong = typescript.flatMap((file) =>
      places(file, /@ts-(?:ignore|nocheck)|@ts-expect-error\s*$|biome-ignore(?!.*: \S)/m, file.text),
    );
    expect(wrong.filter((place) => !place.startsWith('test/tidy.test.ts'))).toEqual([]);
  });
});

describe('the tests', () => {
  it('are all found by a runner: whatever defines a test is called .test.ts', () => {
    // These define tests for others to call: contract suites and helpers.
    const wrong = tests
      .filter((file) => !file.path.endsWith('.test.ts'))
      .filter((file) => !/^test\/(?:support|contracts)\//.test(file.path))
      .filter((file) => file.references.some((reference) => reference.specifier === 'vitest'))
      .filter((file) => /\b(?:it|test)(?:\.\w+)*\s*\(/.test(file.code))
      .map((file) => file.path);
    expect(wrong).toEqual([]);
  });

  it('have a folder that says what they test', () => {
    const known = [
      ...Object.keys(LAYERS),
      'support',
      'contracts',
      'simulation',
      'golden',
      'conformance',
      'dm-thin',
      'kernel',
    ];
    known.push('bench', 'e2e', 'native-bindings', 'targetcli-scripts', 'docs');
    const wrong = tests
      .map((file) => file.path)
      .filter((path) => !known.includes(layerOf(path)) && path !== 'test/tidy.test.ts');
    expect(wrong.filter((path) => !/^test\/(?:cli|index)\.test\.ts$/.test(path))).toEqual([]);
  });

  it('use every helper that there is', () => {
    const used = new Set<string>();
    for (const file of tests) {
      for (const reference of file.references) {
        const target = targetOf(file, reference);
        if (target !== null && target !== file.path) used.add(target);
      }
    }
    const configured = readFileSync(join(ROOT, 'vitest.config.ts'), 'utf8');
    const unused = tests
      .map((file) => file.path)
      .filter((path) => !path.endsWith('.test.ts') && !used.has(path) && !configured.includes(path));
    expect(unused.filter((path) => !/^test\/(?:kernel|bench)\//.test(path))).toEqual([]);
  });
});

describe('the repository', () => {
  /** Text that people read or machines run, written here. */
  const texts = files
    .filter((path) => !/^test\/golden\/|package-lock\.json$/.test(path))
    .filter((path) => !/\.(?:xz|png|gz|bin|node|svg|woff2?)$/.test(path))
    .map((path) => ({ path, text: readFileSync(join(ROOT, path), 'utf8') }));

  it('names no path of the place it was written in', () => {
    const wrong = texts.flatMap(({ path, text }) =>
      text
        .split('\n')
        .flatMap((line, index) => (WORKPLACE_PATH.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [])),
    );
    expect(wrong).toEqual([]);
  });

  it('has no reminders in place of work', () => {
    const wrong = texts.flatMap(({ path, text }) =>
      text.split('\n').flatMap((line, index) => (LEFTOVER.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [])),
    );
    expect(wrong).toEqual([]);
  });

  it('has run bits on what is run', () => {
    const wanted = files.filter((path) => /^bin\/[^.]+$|^\.ci\/run$|^targetcli-scripts\/[^.]+$/.test(path));
    expect(wanted.filter((path) => (statSync(join(ROOT, path)).mode & 0o111) !== 0o111)).toEqual([]);
    expect(wanted).toEqual(expect.arrayContaining(['.ci/run', 'bin/thinlun']));
  });

  it('is small: no file above 2 MiB', () => {
    const large = files.filter((path) => statSync(join(ROOT, path)).size > 2 * 1024 * 1024);
    expect(large.map((path) => relative('.', path))).toEqual([]);
  });
});
