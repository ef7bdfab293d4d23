import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { describeDamage } from '../../src/tools/damage.ts';
import { contentsOf, damageOf, goldenContents, goldenImage } from '../support/metadata-judges.ts';

const NAMES = readdirSync(join(import.meta.dirname, '..', 'golden'))
  .filter((name) => name.endsWith('.md.xz'))
  .map((name) => name.slice(0, -6));

describe.each(NAMES)('the image %s, written by a kernel', (name) => {
  it('checks clean', () => {
    expect(damageOf(goldenImage(name)).map(describeDamage)).toEqual([]);
  });

  it('holds exactly the mappings of its XML', () => {
    expect(contentsOf(goldenImage(name))).toEqual(goldenContents(name));
  });
});
