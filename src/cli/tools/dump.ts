import { type Command, Option } from 'commander';
import { DUMP_FORMATS, type DumpFormat, type DumpOptions, dumpDamaged, dumpMetadata } from '../../tools/dump.ts';
import { OutputClosedError, TextOutput } from '../../tools/text-output.ts';
import { createProgress } from '../progress.ts';
import { type RunContext, UsageError } from '../run-context.ts';
import { addOverrideOptions, type OverrideFlags, overridesOf } from './override-options.ts';
import { knowledgeOf, say } from './repair.ts';
import { addMetadataSnapshotOption, numberArgument, toolAction } from './tool-command.ts';
import { useMetadata } from './use-metadata.ts';

interface DumpFlags extends OverrideFlags {
  format: DumpFormat;
  repair?: boolean;
  metadataSnap?: true | number;
  devId?: number[];
  skipMappings?: boolean;
  output?: string;
  quiet?: boolean;
}

export function addDumpCommand(program: Command, context: RunContext): void {
  const command = program
    .command('dump')
    .description("write a pool's metadata as text, as thin_dump does")
    .argument('<path>', "a metadata file or device, or a pool's folder")
    .addOption(new Option('-f, --format <format>', 'xml is what restore reads').choices(DUMP_FORMATS).default('xml'))
    .option('-o, --output <file>', 'write to a file instead of standard output')
    .option('-r, --repair', 'dump what can be found in damaged metadata');
  addMetadataSnapshotOption(command)
    .option('--dev-id <id>', 'only this device; may be given more than once', collectNumbers)
    .option('--skip-mappings', 'only the devices');
  addOverrideOptions(command)
    .option('-q, --quiet', 'no progress bar')
    .addHelpText(
      'after',
      `
Examples:
  thinlun dump /srv/pool > pool.xml
  thinlun dump /dev/vg0/metadata -o pool.xml
  thinlun dump -m /srv/pool > pool.xml              while it is served: the metadata snapshot
  thinlun dump /srv/pool -f json | jq '.devices[] | {id, mappedBlocks}'`,
    )
    .action(toolAction(context, (path: string, flags: DumpFlags) => dump(path, flags)));
}

async function dump(path: string, flags: DumpFlags): Promise<void> {
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

function collectNumbers(text: string, before: number[] = []): number[] {
  return [...before, numberArgument(text)];
}
