import type { Command, CommandHandler } from './command.ts';

/** RESERVE and RELEASE of a whole unit for the nexus itself, in 6 and 10 bytes (SPC-2 7.16, 7.17, 7.21, 7.22). Third parties and extents do not exist. */

function handler(act: (command: Command) => boolean): CommandHandler {
  return {
    prepare: (command: Command): boolean => command.transferNone(),
    execute(command: Command): void {
      if (!act(command)) command.conflict();
      command.finish();
    },
    step(): void {},
  };
}

export const reserve: CommandHandler = handler(({ unit, task }) => unit.reservations.reserve(task.nexus));
export const release: CommandHandler = handler(({ unit, task }) => unit.reservations.release(task.nexus));
