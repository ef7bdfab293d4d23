import { type Command, InvalidArgumentError } from 'commander';
import { messageOf } from '../../base/errors.ts';
import { parseRegion, type Region } from '../../tools/region.ts';
import type { RunContext } from '../run-context.ts';
import { addTool, toolAction } from './tool-command.ts';

export interface RmapFlags {
  region: readonly Region[];
  metadataSnap?: boolean;
  quiet?: boolean;
}

export function addRmapCommand(program: Command, context: RunContext): void {
  addTool(program, 'rmap')
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
      toolAction(context, async (path: string, flags: RmapFlags) =>
        (await import('./rmap.ts')).rmap(context, path, flags),
      ),
    );
}

function regionArgument(text: string, before: readonly Region[] = []): readonly Region[] {
  try {
    return [...before, parseRegion(text)];
  } catch (error) {
    throw new InvalidArgumentError(messageOf(error));
  }
}
