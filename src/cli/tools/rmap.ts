import { type Command, InvalidArgumentError } from 'commander';
import { messageOf } from '../../base/errors.ts';
import { PoolReader } from '../../tools/pool-reader.ts';
import { describeRun, parseRegion, type Region, reverseMap } from '../../tools/rmap.ts';
import { createProgress } from '../progress.ts';
import type { RunContext } from '../run-context.ts';
import { toolAction } from './tool-command.ts';
import { useMetadata } from './use-metadata.ts';

interface RmapFlags {
  region: readonly Region[];
  metadataSnap?: boolean;
  quiet?: boolean;
}

export function addRmapCommand(program: Command, context: RunContext): void {
  program
    .command('rmap')
    .description('say which devices have which data blocks, in the format of thin_rmap')
    .argument('<path>', "a pool's folder, or metadata: a file or block device")
    .requiredOption(
      '--region <begin..end>',
      'data blocks, as in 0..1024 (1024 is not in it); may be repeated',
      regionArgument,
    )
    .option('-m, --metadata-snap', 'read the metadata snapshot: also while a server or the kernel has the pool')
    .option('-q, --quiet', 'show no progress')
    .addHelpText(
      'after',
      `
Every device that has a block is listed, also where snapshots share their metadata, of which thin_rmap lists one.

Examples:
  thinlun rmap /srv/pool --region 0..1024
  thinlun rmap /srv/pool/metadata --region 7..8 --region 100..200`,
    )
    .action(
      toolAction(context, (path: string, flags: RmapFlags) => {
        return useMetadata(path, { metadataSnapshot: flags.metadataSnap ?? false }, ({ device }) => {
          const pool = new PoolReader(device, { metadataSnapshot: flags.metadataSnap });
          const progress = createProgress('Reading the mappings', flags);
          try {
            const runs = reverseMap(pool, flags.region, progress.update);
            progress.end();
            for (const run of runs) context.output.line(describeRun(run));
          } finally {
            progress.end();
          }
        });
      }),
    );
}

function regionArgument(text: string, before: readonly Region[] = []): readonly Region[] {
  try {
    return [...before, parseRegion(text)];
  } catch (error) {
    throw new InvalidArgumentError(messageOf(error));
  }
}
