import { statSync } from 'node:fs';
import { StorageError } from '../../base/errors.ts';
import type { PoolKnowledge } from '../../tools/find-roots.ts';
import { poolFolderOf } from '../../tools/metadata-source.ts';
import { PoolTarget } from '../../tools/pool-target.ts';
import { repairMetadata } from '../../tools/repair.ts';
import { standardError } from '../output.ts';
import { createProgress } from '../progress.ts';
import { overridesOf } from './override-options.ts';
import type { RepairFlags } from './repair-command.ts';
import { useOutput } from './restore.ts';
import { useMetadata } from './use-metadata.ts';

/** `thinlun repair`. */
export async function repair(flags: RepairFlags): Promise<void> {
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
  standardError().write(`${message}\n`);
}

/** Whether `path`, or the metadata in it, is the file or device `device`. What is not there is not the same. */
function isSame(device: string, path: string): boolean {
  const there = statSync(path, { throwIfNoEntry: false });
  const output = there?.isDirectory() ? statSync(`${path}/metadata`, { throwIfNoEntry: false }) : there;
  const input = statSync(device);
  if (output === undefined) return false;
  return input.isBlockDevice() ? output.rdev === input.rdev : output.dev === input.dev && output.ino === input.ino;
}
