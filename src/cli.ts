import { Command, CommanderError } from 'commander';
import { errnoOf, messageOf, StorageError } from './base/errors.ts';
import { createOutput, guardOutput, standardError } from './cli/output.ts';
import { type RunContext, UsageError } from './cli/run-context.ts';
import { hintOf } from './daemon/advised-error.ts';
import { VERSION } from './daemon/version.ts';

/** Adds commands with their options and help. What they do is loaded by their actions, and not before. */
type AddCommands = (program: Command, context: RunContext) => void;

/** In the order of the help. */
const COMMANDS: readonly { names: readonly string[]; load: () => Promise<AddCommands> }[] = [
  { names: ['pool'], load: async () => (await import('./cli/pool-commands.ts')).addPoolCommands },
  { names: ['volume'], load: async () => (await import('./cli/volume-commands.ts')).addVolumeCommands },
  { names: ['access'], load: async () => (await import('./cli/access-commands.ts')).addAccessCommands },
  { names: ['message'], load: async () => (await import('./cli/message-command.ts')).addMessageCommand },
  { names: ['serve', 'demo'], load: async () => (await import('./cli/serve-commands.ts')).addServeCommands },
  { names: ['send', 'receive'], load: async () => (await import('./cli/transfer-commands.ts')).addTransferCommands },
  { names: ['ls'], load: async () => (await import('./cli/tools/ls-command.ts')).addLsCommand },
  { names: ['rmap'], load: async () => (await import('./cli/tools/rmap-command.ts')).addRmapCommand },
  { names: ['delta'], load: async () => (await import('./cli/tools/delta-command.ts')).addDeltaCommand },
  { names: ['inspect'], load: async () => (await import('./cli/tools/inspect-command.ts')).addInspectCommand },
  { names: ['trim'], load: async () => (await import('./cli/tools/trim-command.ts')).addTrimCommand },
  { names: ['dump'], load: async () => (await import('./cli/tools/dump-command.ts')).addDumpCommand },
  { names: ['restore'], load: async () => (await import('./cli/tools/restore-command.ts')).addRestoreCommand },
  { names: ['repair'], load: async () => (await import('./cli/tools/repair-command.ts')).addRepairCommand },
  { names: ['check'], load: async () => (await import('./cli/tools/check-command.ts')).addCheckCommand },
  { names: ['pack', 'unpack'], load: async () => (await import('./cli/tools/pack-command.ts')).addPackCommands },
  {
    names: ['metadata-size'],
    load: async () => (await import('./cli/tools/metadata-size-command.ts')).addMetadataSizeCommand,
  },
];

const EXIT_FAILURE = 1;
const EXIT_USAGE = 2;

/** The command: parses `args`, runs what they ask for, and ends the process with 0, 1 (failure; the tools: 64) or 2 (wrong usage). */
export async function main(args: readonly string[]): Promise<void> {
  guardOutput((error) => {
    standardError().write(`thinlun: Cannot write the output: ${error.message}\n`);
    process.exit(EXIT_FAILURE);
  });
  const context: RunContext = { output: createOutput(), exitCode: 0, failureCode: EXIT_FAILURE, silent: false };
  const program = createProgram();
  try {
    await addCommands(program, context, args);
    await program.parseAsync(args, { from: 'user' });
    process.exitCode = context.exitCode;
  } catch (error) {
    process.exitCode = report(error, context);
  }
  // What keeps the output from being written is reported (guardOutput) before this goes on. Then nothing may keep a finished
  // command alive.
  await new Promise((resolve) => process.stdout.write('', resolve));
  process.exit();
}

function createProgram(): Command {
  const program = new Command('thinlun')
    .description("thin-provisioned volumes as SCSI logical units, in the kernel's own dm-thin format")
    .version(VERSION, '-V, --version', 'print the version')
    // An option belongs to the last command that was named, also where the one before has it, too.
    .enablePositionalOptions()
    .addHelpText(
      'after',
      `
Sizes are written as in 10G, 512M or 64K (powers of 1024). Every command works whether or not a server has the pool open.

Examples:
  thinlun pool create /srv/pool --data-size 100G
  thinlun volume create /srv/pool web --size 20G
  thinlun serve /srv/pool --portal 0.0.0.0:3260
  thinlun demo`,
    );
  strict(program);
  return program;
}

/** Adds the command that `args` names; all of them when it names none that there is, as for the help. */
async function addCommands(program: Command, context: RunContext, args: readonly string[]): Promise<void> {
  const name = args.find((arg) => !arg.startsWith('-'));
  const named = COMMANDS.filter(({ names }) => name !== undefined && names.includes(name));
  for (const { load } of named.length > 0 ? named : COMMANDS) (await load())(program, context);
  for (const command of everyCommand(program)) strict(command);
}

function* everyCommand(program: Command): Iterable<Command> {
  for (const command of program.commands) {
    yield command;
    yield* everyCommand(command);
  }
}

function strict(command: Command): void {
  command
    .exitOverride()
    .helpOption('-h, --help', 'print this help')
    .configureOutput({ outputError: () => {}, writeErr: (text) => void standardError().write(text) });
}

/** Says what went wrong, on standard error; returns the exit status. */
function report(error: unknown, { failureCode, silent }: RunContext): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0;
    // Help in place of a missing subcommand has been printed already.
    if (error.code !== 'commander.help') complain(`${oneLine(error.message.replace(/^error: /, ''))} (see --help)`);
    return EXIT_USAGE;
  }
  if (error instanceof UsageError) {
    complain(error.message);
    return EXIT_USAGE;
  }
  if (silent) return failureCode;
  complain(oneLine(messageOf(error)));
  const hint = hintOf(error);
  if (hint !== null) standardError().write(`  ${hint}\n`);
  const ours = !(error instanceof StorageError) && errnoOf(error) === 'EIO';
  if (ours) standardError().write('  This is a mistake in thinlun; THINLUN_DEBUG=1 shows where.\n');
  if (process.env['THINLUN_DEBUG'] === '1') standardError().write(`${(error as Error).stack ?? ''}\n`);
  return failureCode;
}

function complain(text: string): void {
  standardError().write(`thinlun: ${text}\n`);
}

function oneLine(text: string): string {
  return text.replaceAll(/\s*\n\s*/g, ' ');
}
