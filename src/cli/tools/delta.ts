import { type Command, Option } from 'commander';
import { StorageError } from '../../base/errors.ts';
import { type DeltaSide, deltaXml } from '../../tools/delta.ts';
import { PoolReader } from '../../tools/pool-reader.ts';
import { OutputClosedError, TextOutput } from '../../tools/text-output.ts';
import type { RunContext } from '../run-context.ts';
import { numberArgument, toolAction } from './tool-command.ts';
import { useMetadata } from './use-metadata.ts';

interface DeltaFlags {
  thin1?: number;
  snap1?: number;
  root1?: number;
  thin2?: number;
  snap2?: number;
  root2?: number;
  metadataSnap?: boolean;
  verbose?: boolean;
  /** false with --no-same. */
  same: boolean;
}

export function addDeltaCommand(program: Command, context: RunContext): void {
  const command = program
    .command('delta')
    .description('print how the mappings of two devices differ, as the XML of thin_delta')
    .argument('<path>', "a pool's folder, or metadata: a file or block device");
  for (const side of ['1', '2']) {
    const which = side === '1' ? 'first' : 'second';
    command
      .addOption(numberOption(`--thin${side} <id>`, `the ${which} device`).conflicts([`snap${side}`, `root${side}`]))
      .addOption(numberOption(`--snap${side} <id>`, `the same as --thin${side}`).conflicts(`root${side}`))
      .addOption(numberOption(`--root${side} <block>`, `the root of the ${which} mapping tree, instead of a device`));
  }
  command
    .option('-m, --metadata-snap', 'read the metadata snapshot: also while a server or the kernel has the pool')
    .option('--verbose', 'print the data blocks, too')
    .option('--no-same', 'leave out what is the same: then it costs no more than what differs')
    .addHelpText(
      'after',
      `
Examples:
  thinlun delta /srv/pool --thin1 1 --thin2 2
  thinlun delta /srv/pool --snap1 1 --snap2 2 --verbose --no-same`,
    )
    .action(
      toolAction(context, (path: string, flags: DeltaFlags) => {
        return useMetadata(path, { metadataSnapshot: flags.metadataSnap ?? false }, ({ device }) => {
          const pool = new PoolReader(device, { metadataSnapshot: flags.metadataSnap });
          const left = sideOf(pool, 1, flags.thin1 ?? flags.snap1, flags.root1);
          const right = sideOf(pool, 2, flags.thin2 ?? flags.snap2, flags.root2);
          const { verbose = false, same } = flags;
          const output = new TextOutput(null);
          try {
            for (const text of deltaXml(pool, left, right, { verbose, same })) output.write(text);
            output.end();
          } catch (error) {
            if (!(error instanceof OutputClosedError)) throw error;
          }
        });
      }),
    );
}

function sideOf(pool: PoolReader, side: 1 | 2, id: number | undefined, root: number | undefined): DeltaSide {
  if (id !== undefined) return { device: id, root: pool.device(id).root };
  if (root !== undefined) return { device: null, root };
  throw new StorageError('EINVAL', `Cannot compare: neither --thin${side} nor --root${side} is given`);
}

function numberOption(flags: string, description: string): Option {
  return new Option(flags, description).argParser(numberArgument);
}
