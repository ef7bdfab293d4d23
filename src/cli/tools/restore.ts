import { createReadStream, statSync } from 'node:fs';
import { errnoOf, wrapError } from '../../base/errors.ts';
import { advise } from '../../daemon/advised-error.ts';
import { PoolTarget } from '../../tools/pool-target.ts';
import { restoreMetadata } from '../../tools/restore.ts';
import { createProgress } from '../progress.ts';
import { overridesOf } from './override-options.ts';
import type { RestoreFlags } from './restore-command.ts';
import { useMetadata } from './use-metadata.ts';

const STANDARD_INPUT = '-';
const PIECE_BYTES = 256 * 1024;

/** `thinlun restore`. */
export async function restore(flags: RestoreFlags): Promise<void> {
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
