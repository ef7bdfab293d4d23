import { describe, expect, it } from 'vitest';
import { formatUnitSize, isUnit, metadataSize, parseUnitSize, type SizeFormat } from '../../src/tools/metadata-size.ts';

/** What thin_metadata_size 1.1.0 prints. */
const MEASURED: readonly [
  block: string,
  pool: string,
  thins: bigint,
  unit: string,
  format: SizeFormat,
  printed: string,
][] = [
  ['64k', '1t', 1000n, 'sector', 'words', '1073232 sectors'],
  ['64k', '1t', 1000n, 'sector', 'none', '1073232'],
  ['64k', '1t', 1000n, 's', 'short', '1073232s'],
  ['64k', '1t', 1000n, 's', 'long', '1073232sectors'],
  ['64k', '1t', 1000n, 'm', 'words', '524.04 mebibytes'],
  ['64k', '1t', 1000n, 'm', 'short', '524.04m'],
  ['64k', '1t', 1000n, 'M', 'words', '549.49 megabytes'],
  ['64k', '1t', 1000n, 'MB', 'short', '549.49M'],
  ['64k', '1t', 1000n, 'b', 'words', '549494784 bytes'],
  ['64k', '1t', 1000n, 'k', 'words', '536616 kibibytes'],
  ['64k', '1t', 1000n, 'K', 'words', '549494.78 kilobytes'],
  ['64k', '1t', 1000n, 'g', 'words', '0.5117568969726563 gibibytes'],
  ['64k', '1t', 1000n, 'G', 'words', '0.549494784 gigabytes'],
  ['64k', '1t', 1000n, 't', 'words', '0.0004997625946998596 terabytes'],
  ['64k', '1g', 0n, 't', 'long', '0.0000004917383193969727terabytes'],
  ['64k', '1g', 0n, 'e', 'words', '0.0000000000004689582056016661 exbibytes'],
  ['64k', '1g', 16n, 'M', 'none', '0.606208'],
  ['64k', '8064k', 286n, 'm', 'words', '1.12 mebibytes'],
  ['64k', '8064k', 350n, 'm', 'words', '1.38 mebibytes'],
  ['128', '1g', 1n, 'sector', 'words', '1064 sectors'],
  ['64kibibyte', '1gibibyte', 3n, 'sector', 'words', '1080 sectors'],
  ['1g', '10g', 0n, 'sector', 'words', '16 sectors'],
  ['64k', '1000000', 1n, 'sector', 'words', '512 sectors'],
  ['64k', '65k', 1n, 'sector', 'words', '24 sectors'],
  ['64k', '64k', 0n, 'sector', 'words', '16 sectors'],
  ['64k', '1e', 1n, 'sector', 'words', '33292800 sectors'],
  ['64k', '1g', 99999999999n, 'sector', 'words', '33292800 sectors'],
];

describe('the size of metadata', () => {
  it.each(MEASURED)(
    'is that of thin_metadata_size: %s blocks, %s, %i thins, in %s, %s',
    (block, pool, thins, unit, format, printed) => {
      const bytes = metadataSize(parseUnitSize(block), parseUnitSize(pool), thins);
      expect(formatUnitSize(bytes, unit, format)).toBe(printed);
    },
  );

  it.each([
    ['100k', '1g', 'block size must be a multiple of 64 KiB'],
    ['0', '1g', 'block size must be a multiple of 64 KiB'],
    ['64K', '1g', 'block size must be a multiple of 64 KiB'],
    ['2g', '10g', 'maximum block size is 1 GiB'],
    ['64k', '32k', 'pool size must be larger than block size'],
  ])('of blocks of %s and a pool of %s is refused', (block, pool, message) => {
    expect(() => metadataSize(parseUnitSize(block), parseUnitSize(pool), 1n)).toThrow(message);
  });

  it.each(['64kb', '1.5m', '-1', '', 'k', '16777216t', '1x'])('does not come from "%s"', (text) => {
    expect(() => parseUnitSize(text)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });

  it('is printed in units that the tool knows', () => {
    for (const unit of ['b', 's', 'k', 'K', 'KiB', 'kB', 'mebibyte', 'EB', 'e']) expect(isUnit(unit)).toBe(true);
    for (const unit of ['kib', 'KB', 'foo', '', 'sectors']) expect(isUnit(unit)).toBe(false);
  });
});
