import type { Output } from './output.ts';

/** What every command is given. */
export interface RunContext {
  readonly output: Output;
  /** The exit status unless the command fails: `check` sets 64 when it finds damage. */
  exitCode: number;
  /** The exit status when the command fails: 1, and `TOOL_FAILURE` for the tools. */
  failureCode: number;
  /** A failure is told by the exit status alone. */
  silent: boolean;
}

/** A command line that parses but asks for nothing that can be: exit status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}
