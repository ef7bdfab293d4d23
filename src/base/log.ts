/** What a layer may say. A pino logger is one. Fields first, then constant text. Never per command. */
export interface Logger {
  debug(fields: object, text: string): void;
  info(fields: object, text: string): void;
  warn(fields: object, text: string): void;
  error(fields: object, text: string): void;
}

const nothing = (): void => {};

/** Says nothing: for tests and tools. */
export const silentLogger: Logger = { debug: nothing, info: nothing, warn: nothing, error: nothing };
