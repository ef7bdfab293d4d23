import { describe, expect, it } from 'vitest';
import { codeOnly, moduleReferences } from './source-text.ts';

describe('codeOnly', () => {
  it('blanks comments and what is in strings, and keeps the code and the lines', () => {
    const source =
      "const a = 'Date.now()'; // Date.now()\n/* Math\n.random() */ b();\nconst c = `x ${f('}')} await`;\n";
    const code = codeOnly(source);
    expect(code).toHaveLength(source.length);
    expect(code.split('\n')).toHaveLength(source.split('\n').length);
    expect(code).not.toMatch(/Date|Math|await|random/);
    expect(code).toMatch(/b\(\);/);
    expect(code).toMatch(/f\(/);
  });

  it('knows a regular expression from a division', () => {
    const code = codeOnly("const half = a / 2; const r = /['\"`/*]/.test(x); const q = b / c; return /async '/;");
    expect(code).toMatch(/a \/ 2; const r = /);
    expect(code).toMatch(/\.test\(x\); const q = b \/ c;/);
    expect(code).not.toMatch(/async/);
  });

  it('survives nested templates and braces inside them', () => {
    const code = codeOnly('const a = `one ${ { b: `two ${c} await` }.b } await`; finish();');
    expect(code).not.toMatch(/await|two|one/);
    expect(code).toMatch(/\$\{c\}/);
    expect(code).toMatch(/finish\(\);$/);
  });
});

describe('moduleReferences', () => {
  it('finds every way to name a module, and none in comments or strings', () => {
    const source = `
      import type { A } from './a.ts';
      import {
        b,
        type C,
      } from '../b/b.ts';
      import * as fs from 'node:fs';
      import './side-effect.ts';
      export { d } from './d.ts';
      export * from './e.ts';
      export const from = 'x';
      const lazy = await import('./lazy.ts');
      const worker = new Worker(new URL('./worker.ts', import.meta.url));
      // import { no } from './comment.ts';
      const text = "import { no } from './string.ts'";
    `;
    expect(moduleReferences(source).map((reference) => [reference.kind, reference.specifier])).toEqual([
      ['import', './a.ts'],
      ['import', '../b/b.ts'],
      ['import', 'node:fs'],
      ['import', './side-effect.ts'],
      ['export', './d.ts'],
      ['export', './e.ts'],
      ['dynamic', './lazy.ts'],
      ['worker', './worker.ts'],
    ]);
    expect(moduleReferences(source)[1]!.line).toBe(6);
  });

  it('tells statements that only name types from those that run', () => {
    const source = `
      import type { A } from './1.ts';
      import { type B, type C } from './2.ts';
      import { type D, e } from './3.ts';
      import f, { type G } from './4.ts';
      import './5.ts';
      export type { H } from './6.ts';
    `;
    expect(moduleReferences(source).map((reference) => reference.isTypeOnly)).toEqual([
      true,
      true,
      false,
      false,
      false,
      true,
    ]);
  });
});
