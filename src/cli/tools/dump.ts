import { type DumpOptions, dumpDamaged, dumpMetadata } from '../../tools/dump.ts';
import { OutputClosedError, TextOutput } from '../../tools/text-output.ts';
import { say } from '../output.ts';
import { createProgress } from '../progress.ts';
import { UsageError } from '../run-context.ts';
import type { DumpFlags } from './dump-command.ts';
import { overridesOf } from './override-options.ts';
import { knowledgeOf } from './repair.ts';
import { useMetadata } from './use-metadata.ts';

/** `thinlun dump`. */
export async function dump(path: string, flags: DumpFlags): Promise<void> {
  const { metadataSnap, repair, skipMappings, format, devId, quiet } = flags;
  if (repair && metadataSnap !== undefined) {
    throw new UsageError(
      '--repair cannot be used with --metadata-snap: a metadata snapshot is read while a pool is in use',
    );
  }
  await useMetadata(path, { metadataSnapshot: metadataSnap !== undefined }, async ({ device }) => {
    const known = repair ? await knowledgeOf(path) : undefined;
    const output = new TextOutput(flags.output ?? null);
    // A bar in the middle of the text would help nobody.
    const hidden = quiet || (flags.output === undefined && process.stdout.isTTY);
    const search = createProgress('Searching', { quiet: hidden });
    const progress = createProgress('Dumping', { quiet: hidden });
    const overrides = overridesOf(flags);
    const options: DumpOptions = {
      format,
      deviceIds: devId,
      skipMappings,
      progress: (done, total) => {
        search.end();
        progress.update(done, total);
      },
    };
    try {
      if (repair) {
        const found = quiet ? () => {} : say;
        dumpDamaged(device, output.write, {
          ...options,
          search: { ...overrides, known, found, progress: search.update },
        });
      } else {
        dumpMetadata(device, output.write, { ...options, ...overrides, metadataSnapshot: metadataSnap });
      }
      output.end();
    } catch (error) {
      if (!(error instanceof OutputClosedError)) throw error;
    } finally {
      search.end();
      progress.end();
      output.close();
    }
  });
}
