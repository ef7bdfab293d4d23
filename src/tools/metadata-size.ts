/** What `thin_metadata_size` 1.1.0 says, to the letter. */
import { StorageError } from '../base/errors.ts';

const MIN_BLOCK_SIZE = 65536n;
const MAX_BLOCK_SIZE = 2n ** 30n;
/** Mappings in a leaf that is half full. */
const MAPPINGS_PER_LEAF = 126n;
const MAX_BLOCKS = 255n * 16320n;
const METADATA_BLOCK_SIZE = 4096n;

interface Unit {
  readonly bytes: bigint;
  /** Followed by an "s" in the plural. */
  readonly name: string;
  readonly letter: string;
}

const PREFIXES = ['kilo', 'mega', 'giga', 'tera', 'peta', 'exa'];
const BINARY_PREFIXES = ['kibi', 'mebi', 'gibi', 'tebi', 'pebi', 'exbi'];

/** By every way to write it. Small letters are powers of 1024, as in LVM. */
const UNITS: ReadonlyMap<string, Unit> = new Map([
  ...spellings({ bytes: 1n, name: 'byte', letter: 'b' }, 'byte', 'b'),
  ...spellings({ bytes: 512n, name: 'sector', letter: 's' }, 'sector', 's'),
  ...[...'KMGTPE'].flatMap((capital, i) => {
    const letter = capital.toLowerCase();
    const binary = `${BINARY_PREFIXES[i]}byte`;
    const decimal = `${PREFIXES[i]}byte`;
    // The tool calls tebibytes "terabytes" when it prints them.
    const printed = letter === 't' ? decimal : binary;
    return [
      ...spellings({ bytes: 1024n ** BigInt(i + 1), name: printed, letter }, binary, `${capital}iB`, letter),
      ...spellings(
        { bytes: 1000n ** BigInt(i + 1), name: decimal, letter: capital },
        decimal,
        `${capital === 'K' ? 'k' : capital}B`,
        capital,
      ),
    ];
  }),
]);

function spellings(unit: Unit, ...names: string[]): [string, Unit][] {
  return names.map((name) => [name, unit]);
}

/** How a size is printed: `short` puts the unit's letter behind the number, `long` its name, `none` nothing; `words` is for people. */
export type SizeFormat = 'words' | 'none' | 'short' | 'long';

/** Bytes of a size as that tool takes it: `64k`, `1t`, `2048` (sectors). Throws EINVAL. */
export function parseUnitSize(text: string): bigint {
  const [, digits, suffix] = /^(\d+)(.*)$/s.exec(text) ?? [];
  const unit = UNITS.get(suffix === '' ? 's' : (suffix ?? ''));
  if (digits === undefined || unit === undefined) throw new StorageError('EINVAL', 'Invalid unit specifier');
  const bytes = BigInt(digits) * unit.bytes;
  if (bytes >= 2n ** 64n) throw new StorageError('EINVAL', 'value out of bounds');
  return bytes;
}

export function isUnit(text: string): boolean {
  return UNITS.has(text);
}

/** Bytes of metadata for a pool of that size in blocks of that size with so many devices and snapshots. Throws EINVAL. */
export function metadataSize(blockSize: bigint, poolSize: bigint, maxThins: bigint): bigint {
  if (blockSize === 0n || blockSize % MIN_BLOCK_SIZE !== 0n) {
    throw new StorageError('EINVAL', 'block size must be a multiple of 64 KiB');
  }
  if (blockSize > MAX_BLOCK_SIZE) throw new StorageError('EINVAL', 'maximum block size is 1 GiB');
  if (poolSize < blockSize) throw new StorageError('EINVAL', 'pool size must be larger than block size');
  const mappings = poolSize / blockSize;
  const blocks = 1n + divideUp(mappings, MAPPINGS_PER_LEAF) + maxThins;
  return (blocks < MAX_BLOCKS ? blocks : MAX_BLOCKS) * METADATA_BLOCK_SIZE;
}

/** The size in a unit, as a text. */
export function formatUnitSize(bytes: bigint, unitName: string, format: SizeFormat): string {
  const unit = UNITS.get(unitName)!;
  const number = plainNumber(Number(bytes) / Number(unit.bytes));
  if (format === 'none') return number;
  if (format === 'short') return `${number}${unit.letter}`;
  return `${number}${format === 'long' ? '' : ' '}${unit.name}s`;
}

/** Whole as it is, above 1 with two digits, below 1 with all of them and never with an exponent. */
function plainNumber(value: number): string {
  if (Number.isInteger(value)) return String(value);
  // Exactly in the middle it rounds to the even digit, toFixed up.
  if (value >= 1) return ((value * 8) % 4 === 1 ? value - 0.004 : value).toFixed(2);
  // As many digits as it takes; of two numbers with so many that are equally near, the larger.
  const digits = value.toExponential().replace(/[-.]|e.*/g, '').length;
  const [mantissa, exponent] = value.toExponential(digits - 1).split('e-') as [string, string];
  return `0.${'0'.repeat(Number(exponent) - 1)}${mantissa.replace('.', '')}`;
}

function divideUp(value: bigint, by: bigint): bigint {
  return (value + by - 1n) / by;
}
