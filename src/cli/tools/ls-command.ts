import { type Command, InvalidArgumentError } from 'commander';
import { DEFAULT_LS_FIELDS, LS_FIELDS } from '../../tools/ls-fields.ts';
import type { RunContext } from '../run-context.ts';
import { addTool, toolAction } from './tool-command.ts';

export interface LsFlags {
  format?: readonly string[];
  /** false with --no-headers. */
  headers: boolean;
  metadataSnap?: boolean;
  quiet?: boolean;
}

export function addLsCommand(program: Command, context: RunContext): void {
  addTool(program, 'ls')
    .description('list the devices in metadata and what they use, as thin_ls does')
    .argument('<path>', "a pool's folder, or metadata: a file or block device")
    .option('-o, --format <fields>', 'fields to print, with commas between them', fieldsArgument)
    .option('--no-headers', 'print no headings')
    .option('-m, --metadata-snap', 'read the metadata snapshot: also while a server or the kernel has the pool')
    .option('-q, --quiet', 'show no progress')
    .addHelpText(
      'after',
      `
Fields: ${[...LS_FIELDS.keys()].join(', ')}.
Default: ${DEFAULT_LS_FIELDS.join(',')}, and NAME for a pool's folder. EXCLUSIVE and SHARED fields read every mapping.

Examples:
  thinlun ls /srv/pool
  thinlun ls /srv/pool -o DEV,NAME,MAPPED,EXCLUSIVE,SHARED
  thinlun ls /dev/vg0/metadata --no-headers -o DEV,MAPPED_BYTES`,
    )
    .action(
      toolAction(context, async (path: string, flags: LsFlags) => (await import('./ls.ts')).ls(context, path, flags)),
    );
}

function fieldsArgument(text: string): readonly string[] {
  const fields = text.split(',');
  const unknown = fields.find((field) => !LS_FIELDS.has(field));
  if (unknown !== undefined) {
    throw new InvalidArgumentError(`There is no field "${unknown}"; there are ${[...LS_FIELDS.keys()].join(', ')}`);
  }
  return fields;
}
