/**
 * What JSON from outside has to look like: valibot, where that is too lenient (it takes an array for an object) or too talkative (it shows what came).
 */
import * as v from 'valibot';

/** What a value that it accepts is: a copy with what it knows. */
export type Schema<T> = v.GenericSchema<unknown, T>;
type Issues = readonly v.BaseIssue<unknown>[];

/** Names that valibot leaves out of a record without a word. */
const FORBIDDEN_KEYS = ['__proto__', 'constructor', 'prototype'] as const;

const VERSIONED_UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i;
const SPECIAL_UUID = /^(?:0{8}-0{4}-0{4}-0{4}-0{12}|f{8}-f{4}-f{4}-f{4}-f{12})$/i;
const BASE64 = /^(?:[0-9a-zA-Z+/]{4})*(?:[0-9a-zA-Z+/]{2}==|[0-9a-zA-Z+/]{3}=)?$/;

const plainObject = v.custom<object>(
  (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
  ({ input }) => mismatch('Object', input),
);

/** Fields that are not known are dropped. */
export function object<const E extends v.ObjectEntries>(
  entries: E,
): Schema<v.InferOutput<v.ObjectSchema<E, undefined>>> {
  return v.pipe(plainObject, v.object(entries));
}

/** Fields that are not known are refused. */
export function strictObject<const E extends v.ObjectEntries>(
  entries: E,
): Schema<v.InferOutput<v.StrictObjectSchema<E, undefined>>> {
  return v.pipe(plainObject, v.strictObject(entries));
}

/** Any names that `key` accepts. */
export function record<T>(key: v.GenericSchema<string>, value: Schema<T>): Schema<Record<string, T>> {
  return v.pipe(
    plainObject,
    v.check((given) => !FORBIDDEN_KEYS.some((name) => Object.hasOwn(given, name)), 'Invalid key'),
    v.record(key, value),
  );
}

/** An integer that a number holds exactly. */
export function integer(min: number = Number.MIN_SAFE_INTEGER, max: number = Number.MAX_SAFE_INTEGER): Schema<number> {
  return v.pipe(v.number(), v.safeInteger(), v.minValue(min), v.maxValue(max));
}

/** JSON has infinite numbers: 1e999. */
export const finiteNumber: Schema<number> = v.pipe(v.number(), v.finite());

/** Of RFC 9562 4, with the nil and the max one. valibot's accepts any hexadecimal digits. */
export const uuid: Schema<string> = v.pipe(
  v.string(),
  v.check((text) => VERSIONED_UUID.test(text) || SPECIAL_UUID.test(text), 'Invalid UUID'),
);

/** With its padding (RFC 4648 4). valibot's accepts letters outside of ASCII. */
export const base64: Schema<string> = v.pipe(v.string(), v.regex(BASE64, 'Invalid Base64'));

/** As valibot's, with the texts of this program. */
export function safeParse<T>(schema: Schema<T>, value: unknown): v.SafeParseResult<Schema<T>> {
  return v.safeParse(schema, value, { message: describe });
}

/** Throws what `describeIssues` says. */
export function parse<T>(schema: Schema<T>, value: unknown): T {
  const parsed = safeParse(schema, value);
  if (!parsed.success) throw new Error(describeIssues(parsed.issues, 'value'));
  return parsed.output;
}

/** What is wrong, in one line, each with where it is; `whole` is what the outermost is called. */
export function describeIssues(issues: Issues, whole: string): string {
  return issues.map(({ path, message }) => `${path?.map(({ key }) => key).join('.') || whole}: ${message}`).join('; ');
}

/** Without the text or number that came, which may be a secret, or long. */
function describe({ kind, type, path, expected, received, input, message }: v.BaseIssue<unknown>): string {
  if (kind === 'validation') return received.startsWith('"') ? `Invalid format: Expected ${expected}` : message;
  if (path?.at(-1)?.origin === 'key') return expected === 'never' ? 'Unrecognized key' : 'Missing key';
  if (type === 'literal' || type === 'picklist') return `Invalid value: Expected ${expected}`;
  return mismatch(expected ?? 'another type', input);
}

function mismatch(expected: string, input: unknown): string {
  const type = input === null ? 'null' : Array.isArray(input) ? 'Array' : typeof input;
  return `Invalid type: Expected ${expected} but received ${type}`;
}
