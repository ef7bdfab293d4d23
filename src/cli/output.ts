import { styleText } from 'node:util';

/** What a command prints. */
export interface Output {
  /** One line of text. */
  line(text?: string): void;
  /** A value for programs, as `--json` prints it: one document of its own. */
  json(value: unknown): void;
  /** Rows below their headings, in aligned columns. */
  table(columns: readonly Column[], rows: readonly (readonly string[])[]): void;
  /** Names and values, one a line. */
  fields(fields: readonly (readonly [name: string, value: string])[]): void;
}

export interface Column {
  readonly title: string;
  /** Numbers stand at the right. */
  readonly right?: boolean;
}

/** Writes to standard output. Headings stand out on a terminal. */
export function createOutput(): Output {
  const write = (text: string): void => void process.stdout.write(text);
  const bold = (text: string): string => {
    const plain = !process.stdout.isTTY || process.env['NO_COLOR'] !== undefined;
    return plain ? text : styleText('bold', text, { validateStream: false });
  };
  return {
    line: (text = '') => write(`${text}\n`),
    json: (value) => write(`${JSON.stringify(value, null, process.stdout.isTTY ? 2 : 0)}\n`),
    table: (columns, rows) => {
      const [head, ...body] = alignTable(columns, rows);
      write(`${bold(head!)}\n${body.map((line) => `${line}\n`).join('')}`);
    },
    fields: (fields) => {
      const width = Math.max(...fields.map(([name]) => name.length));
      write(fields.map(([name, value]) => `${bold(name.padEnd(width))}  ${value}\n`).join(''));
    },
  };
}

/** The lines of a table, headings first, without spaces at their ends. */
export function alignTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string[] {
  const all = [columns.map(({ title }) => title), ...rows];
  const widths = columns.map((_, i) => Math.max(...all.map((row) => row[i]!.length)));
  return all.map((row) =>
    row
      .map((cell, i) => (columns[i]!.right ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd(),
  );
}

/**
 * A reader that goes away (`| head`) is no failure: what is left to print is dropped and the work goes on. Anything else that
 * keeps the output from being written, as a full disk, is one.
 */
export function guardOutput(onFailure: (error: Error) => void): void {
  guard(process.stdout, onFailure);
}

let guarded: NodeJS.WriteStream | null = null;

/** Standard error, likewise. Asked for when there is something to say: Node takes milliseconds to open it. */
export function standardError(): NodeJS.WriteStream {
  if (guarded === null) {
    guarded = process.stderr;
    guard(guarded, () => process.exit(1));
  }
  return guarded;
}

function guard(stream: NodeJS.WriteStream, onFailure: (error: Error) => void): void {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') onFailure(error);
  });
}

/** A remark for people, beside the output: on standard error. */
export function say(message: string): void {
  standardError().write(`${message}\n`);
}
