import { createReadStream, statSync } from 'node:fs';
import type { Command } from 'commander';
import { errnoOf, wrapError } from '../../base/errors.ts';
import { advise } from '../../daemon/advised-error.ts';
import { PoolTarget } from '../../tools/pool-target.ts';
import { restoreMetadata } from '../../tools/restore.ts';
import { createProgress } from '../progress.ts';
import type { RunContext } from '../run-context.ts';
import { addOverrideOptions, type OverrideFlags, overridesOf } from './override-options.ts';
import { toolAction } from './tool-command.ts';
import { useMetadata } from './use-metadata.ts';

interface RestoreFlags extends OverrideFlags {
  input: string;
  output: string;
  quiet?: boolean;
}

const STANDARD_INPUT = '-';
const PIECE_BYTES = 256 * 1024;

export function addRestoreCommand(program: Command, context: RunContext): void {
  const command = program
    .command('restore')
    .description("make a pool's metadata from the XML that dump or thin_dump wrote, as thin_restore does")
    .requiredOption('-i, --input <file>', 'the XML; - is standard input')
    .requiredOption(
      '-o, --output <path>',
      "a metadata file or device that is there, or a pool's folder; what it holds is lost",
    );
  addOverrideOptions(command)
    .option('-q, --quiet', 'no progress bar')
    .addHelpText(
      'after',
      `
The superblock is written last: when it fails or is interrupted, the output is no pool. The metadata that is restored to a pool's folder has to
fit the pool's data; volumes that the folder has no name for get one when the pool is opened.

Examples:
  thinlun restore -i pool.xml -o /srv/pool
  truncate -s 64M metadata && thinlun restore -i pool.xml -o metadata
  thinlun dump /dev/vg0/small | thinlun restore -i - -o /dev/vg0/large`,
    )
    .action(toolAction(context, (flags: RestoreFlags) => restore(flags)));
}

async function restore(flags: RestoreFlags): Promise<void> {
  const { input, output, quiet } = flags;
  const total = sizeOf(input);
  await useOutput(output, async ({ device, dir }) => {
    const progress = createProgress('Restoring', { quiet: quiet || total === 0 });
    try {
      await restoreMetadata(device, open(input), {
        inputName: input,
        onRead: (done) => progress.update(Math.min(done, total), total),
        target: dir === null ? undefined : await PoolTarget.open(dir),
        ...overridesOf(flags),
      });
    } finally {
      progress.end();
    }
  });
}

/** Metadata that is going to be replaced, which is there or has to be made first. */
export async function useOutput(path: string, work: Parameters<typeof useMetadata>[2]): Promise<void> {
  try {
    await useMetadata(path, { write: true }, work);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    throw advise(error, `A file is made with "truncate -s 64M ${path}"; "thinlun metadata-size" says how large.`);
  }
}

function open(input: string): AsyncIterable<string> {
  if (input !== STANDARD_INPUT) return createReadStream(input, { encoding: 'utf8', highWaterMark: PIECE_BYTES });
  process.stdin.setEncoding('utf8');
  return process.stdin;
}

/** 0 where it is not known. */
function sizeOf(input: string): number {
  if (input === STANDARD_INPUT) return 0;
  try {
    return statSync(input).size;
  } catch (error) {
    throw wrapError(`Cannot open "${input}"`, error);
  }
}
