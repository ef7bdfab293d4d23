import { Command, CommanderError } from 'commander';
import { errnoOf, messageOf, StorageError } from './base/errors.ts';
import { addAccessCommands } from './cli/access-commands.ts';
import { addMessageCommand } from './cli/message-command.ts';
import { createOutput, guardOutput } from './cli/output.ts';
import { addPoolCommands } from './cli/pool-commands.ts';
import { type RunContext, UsageError } from './cli/run-context.ts';
import { addServeCommands } from './cli/serve-commands.ts';
import { addCheckCommand } from './cli/tools/check.ts';
import { addDeltaCommand } from './cli/tools/delta.ts';
import { addDumpCommand } from './cli/tools/dump.ts';
import { addInspectCommand } from './cli/tools/inspect.ts';
import { addLsCommand } from './cli/tools/ls.ts';
import { addMetadataSizeCommand } from './cli/tools/metadata-size.ts';
import { addPackCommands } from './cli/tools/pack.ts';
import { addRepairCommand } from './cli/tools/repair.ts';
import { addRestoreCommand } from './cli/tools/restore.ts';
import { addRmapCommand } from './cli/tools/rmap.ts';
import { addTrimCommand } from './cli/tools/trim.ts';
import { addTransferCommands } from './cli/transfer-commands.ts';
import { addVolumeCommands } from './cli/volume-commands.ts';
import { hintOf } from './daemon/advised-error.ts';
import { VERSION } from './daemon/version.ts';

const EXIT_FAILURE = 1;
const EXIT_USAGE = 2;

/** The command: parses `args`, runs what they ask for, and ends the process with 0, 1 (failure; the tools: 64) or 2 (wrong usage). */
export async function main(args: readonly string[]): Promise<void> {
  guardOutput((error) => {
    process.stderr.write(`thinlun: Cannot write the output: ${error.message}\n`);
    process.exit(EXIT_FAILURE);
  });
  const context: RunContext = { output: createOutput(), exitCode: 0, failureCode: EXIT_FAILURE };
  const program = createProgram(context);
  try {
    await program.parseAsync(args, { from: 'user' });
    process.exitCode = context.exitCode;
  } catch (error) {
    process.exitCode = report(error, context.failureCode);
  }
  // What keeps the output from being written is reported (guardOutput) before this goes on. Then nothing may keep a finished
  // command alive.
  await new Promise((resolve) => process.stdout.write('', resolve));
  process.exit();
}

function createProgram(context: RunContext): Command {
  const program = new Command('thinlun')
    .description("thin-provisioned volumes as SCSI logical units, in the kernel's own dm-thin format")
    .version(VERSION, '--version', 'print the version')
    .helpOption('--help', 'print this help')
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
  addPoolCommands(program, context);
  addVolumeCommands(program, context);
  addAccessCommands(program, context);
  addMessageCommand(program, context);
  addServeCommands(program, context);
  addTransferCommands(program, context);
  addLsCommand(program, context);
  addRmapCommand(program, context);
  addDeltaCommand(program, context);
  addInspectCommand(program, context);
  addTrimCommand(program, context);
  addDumpCommand(program, context);
  addRestoreCommand(program, context);
  addRepairCommand(program, context);
  addCheckCommand(program, context);
  addPackCommands(program, context);
  addMetadataSizeCommand(program, context);
  for (const command of everyCommand(program)) strict(command);
  return program;
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
    .helpOption('--help', 'print this help')
    .configureOutput({ outputError: () => {} });
}

/** Says what went wrong, on standard error; returns the exit status. */
function report(error: unknown, failureCode: number): number {
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
  complain(oneLine(messageOf(error)));
  const hint = hintOf(error);
  if (hint !== null) process.stderr.write(`  ${hint}\n`);
  const ours = !(error instanceof StorageError) && errnoOf(error) === 'EIO';
  if (ours) process.stderr.write('  This is a mistake in thinlun; THINLUN_DEBUG=1 shows where.\n');
  if (process.env['THINLUN_DEBUG'] === '1') process.stderr.write(`${(error as Error).stack ?? ''}\n`);
  return failureCode;
}

function complain(text: string): void {
  process.stderr.write(`thinlun: ${text}\n`);
}

function oneLine(text: string): string {
  return text.replaceAll(/\s*\n\s*/g, ' ');
}
