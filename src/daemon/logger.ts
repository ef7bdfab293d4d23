import { isatty } from 'node:tty';
import { styleText } from 'node:util';
import { type DestinationStream, type Logger as PinoLogger, pino } from 'pino';
import type { LogLevel } from './log-level.ts';

const STANDARD_ERROR = 2;
/** Fields of every line that say nothing to somebody who watches. */
const COMMON_FIELDS = new Set(['level', 'time', 'msg', 'err', 'stack']);
const LEVEL_NAMES: Readonly<Record<string, string>> = { 20: 'debug', 30: 'info', 40: 'warn', 50: 'error', 60: 'fatal' };
const LEVEL_COLOURS = { debug: 'dim', info: 'green', warn: 'yellow', error: 'red', fatal: 'red' } as const;

/** The process's log, on standard error: JSON lines for programs, short lines for a terminal. Written before the call returns. */
export function createLogger(level: LogLevel): PinoLogger {
  const destination = pino.destination({ dest: STANDARD_ERROR, sync: true });
  // The reader went away (EPIPE) or its disk is full: serving goes on without a log.
  destination.on('error', () => {});
  const stream: DestinationStream = isatty(STANDARD_ERROR)
    ? { write: (line) => void destination.write(formatLogLine(line, process.env['NO_COLOR'] === undefined)) }
    : destination;
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, stream);
}

/** A JSON log line as `12:30:05.123 warn  text  key=value ...`, with the stack of an error below. */
export function formatLogLine(line: string, colours: boolean): string {
  const fields = JSON.parse(line) as Record<string, unknown> & {
    err?: { message?: string; stack?: string };
    stack?: string;
  };
  const level = LEVEL_NAMES[String(fields['level'])] ?? String(fields['level']);
  const rest = Object.entries(fields)
    .filter(([key]) => !COMMON_FIELDS.has(key))
    .map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  if (fields.err?.message !== undefined) rest.push(`error=${fields.err.message}`);
  const time = String(fields['time']).slice(11, 23);
  const paint = (style: 'dim' | 'green' | 'yellow' | 'red', text: string): string =>
    colours ? styleText(style, text, { validateStream: false }) : text;
  const colour = LEVEL_COLOURS[level as keyof typeof LEVEL_COLOURS] ?? 'dim';
  const head = `${paint('dim', time)} ${paint(colour, level.padEnd(5))} ${String(fields['msg'])}`;
  const tail = rest.length > 0 ? `  ${paint('dim', rest.join(' '))}` : '';
  const stackText = fields.err?.stack ?? fields.stack;
  const stack = stackText === undefined ? '' : `\n${stackText}`;
  return `${head}${tail}${stack}\n`;
}
