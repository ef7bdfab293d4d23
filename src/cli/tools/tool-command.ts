import { type Command, InvalidArgumentError, Option } from 'commander';
import { VERSION } from '../../daemon/version.ts';
import type { RunContext } from '../run-context.ts';

/** The exit status of a tool that fails: that of thin-provisioning-tools since 1.0. Wrong usage is 2 there, too. */
export const TOOL_FAILURE = 64;

/** Adds the command of a tool, which has its version as those of thin-provisioning-tools have theirs. */
export function addTool(program: Command, name: string): Command {
  return program.command(name).version(VERSION, '-V, --version', 'print the version');
}

/** Adds `-q, --quiet` as thin-provisioning-tools have it: what is asked for is done, and the exit status is all that tells of a failure. */
export function addQuietOption(command: Command, context: RunContext): Command {
  return command
    .option('-q, --quiet', 'print nothing but what was asked for: the exit status tells whether it was done')
    .on('option:quiet', () => {
      context.silent = true;
    });
}

/** What a tool's command does: `action`, ending with `TOOL_FAILURE` when that throws. */
export function toolAction<Arguments extends unknown[]>(
  context: RunContext,
  action: (...args: Arguments) => void | Promise<void>,
): (...args: Arguments) => Promise<void> {
  return async (...args) => {
    context.failureCode = TOOL_FAILURE;
    await action(...args);
  };
}

/**
 * Adds `-m, --metadata-snap[=block]`. The flag `metadataSnap` is true, or the block. A block comes with "=" only: the command's next
 * argument must not be taken for it.
 */
export function addMetadataSnapshotOption(command: Command): Command {
  const parse = command.parseOptions.bind(command);
  const spelled = (arg: string): string => arg.replace(/^(?:-m|--metadata-snap)(?:$|=)/, '--metadata-snap=');
  command.parseOptions = (args) => parse(args.map(spelled));
  const description = 'the metadata snapshot, of a pool that may be in use; -m=BLOCK says which block it has to be';
  return command.addOption(
    new Option('-m, --metadata-snap [block]', description).argParser((text: string) =>
      text === '' ? true : numberArgument(text),
    ),
  );
}

/** A whole number below 2^53. */
export function numberArgument(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) {
    throw new InvalidArgumentError('A whole number is expected');
  }
  return value;
}
