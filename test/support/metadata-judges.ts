import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { BlockDevice } from '../../src/block/block-device.ts';
import { type CheckSummary, checkMetadata } from '../../src/tools/check.ts';
import { type Damage, describeDamage } from '../../src/tools/damage.ts';
import { visitMetadata } from '../../src/tools/mappings.ts';
import { TestDevice } from './test-device.ts';
import { ContentsCollector, type PoolContents, parseThinXml } from './thin-xml.ts';
import { requireTool } from './tools.ts';

const GOLDEN = join(import.meta.dirname, '..', 'golden');

/** A metadata image that a real kernel wrote. */
export function goldenImage(name: string): TestDevice {
  const image = execFileSync(requireTool('xz'), ['-dc', join(GOLDEN, `${name}.md.xz`)], { maxBuffer: 1 << 26 });
  return new TestDevice(new Uint8Array(image));
}

/** What thin_dump said about it. */
export function goldenContents(name: string): PoolContents {
  return parseThinXml(readFileSync(join(GOLDEN, `${name}.xml`), 'utf8'));
}

/** Everything in the metadata, or in its metadata snapshot, read by the tools' own reader. */
export function contentsOf(device: BlockDevice, metadataSnapshot: boolean = false): PoolContents {
  const collector = new ContentsCollector();
  visitMetadata(device, collector, { metadataSnapshot });
  return collector.contents;
}

/** Everything that our checker finds. */
export function damageOf(device: BlockDevice): Damage[] {
  const found: Damage[] = [];
  checkMetadata(device, (damage) => found.push(damage));
  return found;
}

/** Our checker finds nothing at all. */
export function expectClean(device: BlockDevice): CheckSummary {
  const found: Damage[] = [];
  const summary = checkMetadata(device, (damage) => found.push(damage));
  expect(found.map(describeDamage)).toEqual([]);
  return summary;
}

/** Runs a program on the device's contents in a file. */
export function withImage<T>(device: TestDevice, run: (path: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'thinlun-metadata-'));
  try {
    const path = join(folder, 'image');
    writeFileSync(path, device.memory);
    return run(path);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** thin_check accepts the metadata. */
export function expectThinCheck(device: TestDevice): void {
  withImage(device, (path) => execFileSync(requireTool('thin_check'), ['-q', path], { stdio: 'pipe' }));
}

/** What thin_dump says about the metadata. */
export function thinDump(device: TestDevice): PoolContents {
  const xml = withImage(device, (path) =>
    execFileSync(requireTool('thin_dump'), [path], { encoding: 'utf8', maxBuffer: 1 << 28 }),
  );
  return parseThinXml(xml);
}
