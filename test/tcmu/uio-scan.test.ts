import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { UioScan } from '../../src/tcmu/uio-scan.ts';
import { KernelFiles } from './kernel-files.ts';

let files: KernelFiles;
beforeEach(() => {
  files = new KernelFiles(mkdtempSync(join(tmpdir(), 'thinlun-uio-')));
});
afterEach(() => rmSync(files.root, { recursive: true }));

const namesOf = (view: { unserved: readonly { uioName: string }[] }): string[] =>
  view.unserved.map(({ uioName }) => uioName).sort();

/** A scan, and how many names it has read. */
function countedScan(): { scan: UioScan; reads: () => number } {
  let reads = 0;
  const scan = new UioScan({
    ...files.paths,
    // The listing and every name begin with this path.
    get uioClass() {
      reads++;
      return files.paths.uioClass;
    },
  });
  return { scan, reads: () => reads };
}

describe('a look at sysfs', () => {
  test('finds TCMU devices of every subtype, and nothing else', () => {
    const scan = new UioScan(files.paths);
    expect(scan.look(() => false, false)).toEqual({ present: new Set(), unserved: [] });
    files.addUio(11, 'tcm-user/1/b/thin/p/b');
    files.addUio(2, 'tcm-user/0/a/qcow/x');
    files.addUio(3, 'uio_pci_generic');
    const view = scan.look((minor) => minor === 11, false);
    expect([...view.present].sort((a, b) => a - b)).toEqual([2, 3, 11]);
    expect(namesOf(view)).toEqual(['tcm-user/0/a/qcow/x']);
  });

  test('costs one listing with a thousand devices that are served', () => {
    for (let minor = 0; minor < 1000; minor++) files.addUio(minor, `tcm-user/0/d${minor}/thin/p/v${minor}`);
    const { scan, reads } = countedScan();
    const view = scan.look(() => true, false);
    expect([view.present.size, view.unserved.length, reads()]).toEqual([1000, 0, 1]);
  });

  test('reads a bounded number of names with a thousand devices of others, and notices a changed one in time', () => {
    for (let minor = 0; minor < 1000; minor++) files.addUio(minor, `tcm-user/0/d${minor}/qcow/${minor}`);
    const { scan, reads } = countedScan();
    scan.look(() => false, false);
    files.addUio(777, 'tcm-user/0/new/thin/p/v');
    let looks = 0;
    for (; looks < 100; looks++) {
      const before = reads();
      const view = scan.look(() => false, false);
      expect(reads() - before).toBeLessThanOrEqual(65);
      if (view.unserved.some(({ name }) => name.device === 'new')) break;
    }
    expect(looks).toBeLessThan(1000 / 64 + 1);
  });

  test('that is thorough believes no name that it knows', () => {
    for (let minor = 0; minor < 200; minor++) files.addUio(minor, `tcm-user/0/d${minor}/qcow/${minor}`);
    const scan = new UioScan(files.paths);
    scan.look(() => false, false);
    for (let minor = 0; minor < 200; minor++) files.addUio(minor, `tcm-user/0/d${minor}/thin/p/${minor}`);
    expect(scan.look(() => false, true).unserved.every(({ name }) => name.subtype === 'thin')).toBe(true);
  });

  test('always knows what is there and what is not', () => {
    const step = fc.record({ minor: fc.nat(9), name: fc.option(fc.nat(2)), served: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        for (let minor = 0; minor < 10; minor++) files.addUio(minor, 'tcm-user/0/x/thin/p/0');
        const scan = new UioScan(files.paths);
        const names = new Map<number, string>();
        const served = new Set<number>();
        for (let minor = 0; minor < 10; minor++) names.set(minor, 'tcm-user/0/x/thin/p/0');
        for (const { minor, name, served: isServed } of steps) {
          if (names.has(minor)) files.removeUio(minor);
          names.delete(minor);
          served.delete(minor);
          if (name !== null) {
            names.set(minor, `tcm-user/0/x/thin/p/${name}`);
            files.addUio(minor, names.get(minor)!);
            if (isServed) served.add(minor);
          }
          const view = scan.look((one) => served.has(one), false);
          expect(new Set(view.present)).toEqual(new Set(names.keys()));
          const expected = [...names].filter(([one]) => !served.has(one)).map(([, text]) => text);
          expect(namesOf(view)).toEqual(expected.sort());
        }
        for (const minor of names.keys()) files.removeUio(minor);
      }),
      { numRuns: 30 },
    );
  });
});
