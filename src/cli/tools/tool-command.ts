import { type Command, InvalidArgumentError, Option } from 'commander';
import type { RunContext } from '../run-context.ts';

/** The exit status of a tool that fails: that of thin-provisioning-tools since 1.0. Wrong usage is 2 there, too. */
export const TOOL_FAILURE = 64;

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
