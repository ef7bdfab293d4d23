import { type Command, Option } from 'commander';
import { DUMP_FORMATS, type DumpFormat } from '../../tools/dump-formats.ts';
import type { RunContext } from '../run-context.ts';
import { addOverrideOptions, type OverrideFlags } from './override-options.ts';
import { addMetadataSnapshotOption, addQuietOption, addTool, numberArgument, toolAction } from './tool-command.ts';

export interface DumpFlags extends OverrideFlags {
  format: DumpFormat;
  repair?: boolean;
  metadataSnap?: true | number;
  devId?: number[];
  skipMappings?: boolean;
  output?: string;
  quiet?: boolean;
}

export function addDumpCommand(program: Command, context: RunContext): void {
  const command = addTool(program, 'dump')
    .description("write a pool's metadata as text, as thin_dump does")
    .argument('<path>', "a metadata file or device, or a pool's folder")
    .addOption(new Option('-f, --format <format>', 'xml is what restore reads').choices(DUMP_FORMATS).default('xml'))
    .option('-o, --output <file>', 'write to a file instead of standard output')
    .option('-r, --repair', 'dump what can be found in damaged metadata');
  addMetadataSnapshotOption(command)
    .option('--dev-id <id>', 'only this device; may be given more than once', collectNumbers)
    .option('--skip-mappings', 'only the devices');
  addQuietOption(addOverrideOptions(command), context)
    .addHelpText(
      'after',
      `
Examples:
  thinlun dump /srv/pool > pool.xml
  thinlun dump /dev/vg0/metadata -o pool.xml
  thinlun dump -m /srv/pool > pool.xml              while it is served: the metadata snapshot
  thinlun dump /srv/pool -f json | jq '.devices[] | {id, mappedBlocks}'`,
    )
    .action(
      toolAction(context, async (path: string, flags: DumpFlags) => (await import('./dump.ts')).dump(path, flags)),
    );
}

function collectNumbers(text: string, before: number[] = []): number[] {
  return [...before, numberArgument(text)];
}
