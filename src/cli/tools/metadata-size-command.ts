import { type Command, InvalidArgumentError, Option } from 'commander';
import { messageOf } from '../../base/errors.ts';
import { formatUnitSize, isUnit, metadataSize, parseUnitSize, type SizeFormat } from '../../tools/metadata-size.ts';
import type { RunContext } from '../run-context.ts';
import { addTool, toolAction } from './tool-command.ts';

interface SizeFlags {
  blockSize: bigint;
  poolSize: bigint;
  maxThins: bigint;
  unit: string;
  numericOnly?: SizeFormat;
}

export function addMetadataSizeCommand(program: Command, context: RunContext): void {
  const command = addTool(program, 'metadata-size')
    .description('estimate how large the metadata of a pool has to be, as thin_metadata_size does')
    .requiredOption(
      '-b, --block-size <size>',
      'of the data: as in 64k (b, s, k, m, g; default: sectors)',
      unitSizeArgument,
    )
    .requiredOption('-s, --pool-size <size>', 'of the data device: as in 1t', unitSizeArgument)
    .requiredOption('-m, --max-thins <number>', 'devices and snapshots at most', countArgument)
    .option(
      '-u, --unit <unit>',
      'print it in b, s, k, K, m, M, g, G, ... (capitals: powers of 1000)',
      unitArgument,
      'sector',
    )
    .addOption(
      new Option(
        '-n, --numeric-only [format]',
        'the number alone, or with =short or =long a unit right behind it',
      ).argParser(formatArgument),
    )
    .addHelpText(
      'after',
      `
Examples:
  thinlun metadata-size -b 64k -s 1t -m 1000
  thinlun metadata-size -b 256k -s 10t -m 100 -u m -n=short`,
    );
  takeFormatAfterEquals(command);
  command.action(
    toolAction(context, (flags: SizeFlags) => {
      const bytes = metadataSize(flags.blockSize, flags.poolSize, flags.maxThins);
      const { numericOnly = 'words' } = flags;
      context.output.line(formatUnitSize(bytes, flags.unit, numericOnly));
    }),
  );
}

/** A format comes with "=" only: the command's next argument must not be taken for it. */
function takeFormatAfterEquals(command: Command): void {
  const parse = command.parseOptions.bind(command);
  command.parseOptions = (args) =>
    parse(
      args.map((arg, i) => {
        const isValue = i > 0 && /^-[bsmu]$/.test(args[i - 1]!);
        if (isValue || !/^(?:-n|--numeric-only)(?:$|=)/.test(arg)) return arg;
        return arg.replace(/^[^=]*=?/, '--numeric-only=');
      }),
    );
}

function formatArgument(text: string): SizeFormat {
  if (text === '') return 'none';
  if (text !== 'short' && text !== 'long') throw new InvalidArgumentError('Choose from short, long');
  return text;
}

function unitSizeArgument(text: string): bigint {
  try {
    return parseUnitSize(text);
  } catch (error) {
    throw new InvalidArgumentError(messageOf(error));
  }
}

function countArgument(text: string): bigint {
  if (!/^\d+$/.test(text) || BigInt(text) >= 2n ** 64n) throw new InvalidArgumentError('A whole number is expected');
  return BigInt(text);
}

function unitArgument(text: string): string {
  if (!isUnit(text)) throw new InvalidArgumentError('Invalid unit specifier');
  return text;
}
