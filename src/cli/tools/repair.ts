import { statSync } from 'node:fs';
import type { Command } from 'commander';
import { StorageError } from '../../base/errors.ts';
import type { PoolKnowledge } from '../../tools/find-roots.ts';
import { poolFolderOf } from '../../tools/metadata-source.ts';
import { PoolTarget } from '../../tools/pool-target.ts';
import { repairMetadata } from '../../tools/repair.ts';
import { createProgress } from '../progress.ts';
import type { RunContext } from '../run-context.ts';
import { addOverrideOptions, type OverrideFlags, overridesOf } from './override-options.ts';
import { useOutput } from './restore.ts';
import { toolAction } from './tool-command.ts';
import { useMetadata } from './use-metadata.ts';

interface RepairFlags extends OverrideFlags {
  input: string;
  output: string;
  quiet?: boolean;
}

export function addRepairCommand(program: Command, context: RunContext): void {
  const command = program
    .command('repair')
    .description('make new metadata from what is whole in damaged metadata, as thin_repair does')
    .requiredOption('-i, --input <path>', "the damaged metadata, a file or device or a pool's folder; only read")
    .requiredOption(
      '-o, --output <path>',
      "a metadata file or device that is there, or a pool's folder; what it holds is lost",
    );
  addOverrideOptions(command)
    .option('-q, --quiet', 'no progress bars, and not a word about what was found')
    .addHelpText(
      'after',
      `
It takes the superblock's trees when they are whole, else the newest ones on the device that belong together; space maps are made anew. When
the superblock is lost, the block size has to be given, unless a pool's folder tells it.

Examples:
  thinlun repair -i damaged -o /srv/pool                after: cp /srv/pool/metadata damaged
  thinlun repair -i /dev/vg0/damaged -o /dev/vg0/metadata --data-block-size 128
  thinlun dump --repair damaged | less                  look first`,
    )
    .action(toolAction(context, (flags: RepairFlags) => repair(flags)));
}

async function repair(flags: RepairFlags): Promise<void> {
  const { input, output, quiet } = flags;
  await useMetadata(input, {}, (source) => {
    if (isSame(source.device.path, output)) {
      throw new StorageError('EINVAL', `Cannot repair "${input}" onto itself: copy it first, and repair the copy`);
    }
    return useOutput(output, async ({ device, dir }) => {
      const search = createProgress('Searching', { quiet });
      const copy = createProgress('Copying', { quiet });
      const target = dir === null ? undefined : await PoolTarget.open(dir);
      const known = (await knowledgeOf(input)) ?? target;
      try {
        repairMetadata(source.device, device, {
          target,
          known,
          found: quiet ? () => {} : say,
          progress: search.update,
          copyProgress: (done, total) => {
            search.end();
            copy.update(done, total);
          },
          ...overridesOf(flags),
        });
      } finally {
        search.end();
        copy.end();
      }
    });
  });
}

/** What the folder of damaged metadata tells of the pool; undefined when there is none, or it is damaged, too. */
export async function knowledgeOf(path: string): Promise<PoolKnowledge | undefined> {
  const dir = poolFolderOf(path);
  if (dir === null) return undefined;
  try {
    return await PoolTarget.open(dir);
  } catch (error) {
    if (error instanceof StorageError) return undefined;
    throw error;
  }
}

/** A remark beside the output. */
export function say(message: string): void {
  process.stderr.write(`${message}\n`);
}

/** Whether `path`, or the metadata in it, is the file or device `device`. What is not there is not the same. */
function isSame(device: string, path: string): boolean {
  const there = statSync(path, { throwIfNoEntry: false });
  const output = there?.isDirectory() ? statSync(`${path}/metadata`, { throwIfNoEntry: false }) : there;
  const input = statSync(device);
  if (output === undefined) return false;
  return input.isBlockDevice() ? output.rdev === input.rdev : output.dev === input.dev && output.ino === input.ino;
}
