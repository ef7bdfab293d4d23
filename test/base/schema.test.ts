import * as v from 'valibot';
import { describe, expect, it } from 'vitest';
import {
  base64,
  describeIssues,
  finiteNumber,
  integer,
  object,
  parse,
  record,
  type Schema,
  safeParse,
  strictObject,
  uuid,
} from '../../src/base/schema.ts';

/** What is wrong with a value that the schema refuses. */
function refusal(schema: Schema<unknown>, value: unknown): string {
  const parsed = safeParse(schema, value);
  expect(parsed.success, JSON.stringify(value)).toBe(false);
  return describeIssues(parsed.issues ?? [], 'all of it');
}

describe('an object', () => {
  const fields = { size: integer(0), name: v.optional(v.string()) };

  it('is no array, and nothing else', () => {
    for (const schema of [object({}), strictObject({}), record(v.string(), integer())]) {
      for (const value of [[], null, undefined, 1, 'text']) expect(refusal(schema, value)).toMatch(/Expected Object/);
      expect(parse(schema, {})).toEqual({});
    }
  });

  it('loses or refuses fields that are not known', () => {
    expect(parse(object(fields), { size: 1, colour: 'red' })).toEqual({ size: 1 });
    expect(refusal(strictObject(fields), { size: 1, colour: 'red' })).toBe('colour: Unrecognized key');
    expect(refusal(object(fields), { name: 'a' })).toBe('size: Missing key');
  });

  it('takes no field from a prototype, and puts none there', () => {
    const value: unknown = JSON.parse('{"__proto__": {"size": 1}}');
    expect(refusal(object(fields), value)).toBe('size: Missing key');
    expect(refusal(strictObject({ name: fields.name }), value)).toBe('__proto__: Unrecognized key');
  });
});

describe('a record', () => {
  it('refuses the names that valibot would leave out', () => {
    const schema = record(v.string(), integer());
    for (const name of ['__proto__', 'constructor', 'prototype']) {
      expect(refusal(schema, JSON.parse(`{"a": 1, "${name}": 2}`))).toBe('all of it: Invalid key');
    }
    expect(parse(schema, { a: 1, toString: 2 })).toEqual({ a: 1, toString: 2 });
  });
});

describe('a number', () => {
  it('is exact, or at least finite', () => {
    for (const value of [2 ** 53, -(2 ** 53), 0.5, Number.NaN, JSON.parse('1e999'), '1', null])
      refusal(integer(), value);
    for (const value of [Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, 0])
      expect(parse(integer(), value)).toBe(value);
    for (const value of [Number.NaN, JSON.parse('1e999')]) refusal(finiteNumber, value);
    expect(parse(finiteNumber, -0.5)).toBe(-0.5);
  });

  it('keeps to its limits, which are shown', () => {
    expect(refusal(integer(1, 9), 0)).toBe('all of it: Invalid value: Expected >=1 but received 0');
    expect(refusal(integer(1, 9), 10)).toBe('all of it: Invalid value: Expected <=9 but received 10');
    for (const value of [1, 9]) expect(parse(integer(1, 9), value)).toBe(value);
  });
});

describe('a text', () => {
  it('is a UUID that RFC 9562 knows', () => {
    const known = ['6ba7b810-9dad-41d1-80b4-00c04fd430c8', '6BA7B810-9DAD-81D1-B0B4-00C04FD430C8'];
    for (const digit of ['0', 'f']) known.push('88888888-8888-8888-8888-888888888888'.replaceAll('8', digit));
    for (const text of known) expect(parse(uuid, text)).toBe(text);
    for (const text of [
      '6ba7b810-9dad-91d1-80b4-00c04fd430c8',
      '6ba7b810-9dad-41d1-70b4-00c04fd430c8',
      '',
      `${known[0]}\n`,
    ]) {
      expect(refusal(uuid, text)).toBe('all of it: Invalid UUID');
    }
  });

  it('is base64 with its padding, of ASCII', () => {
    for (const text of ['', 'AA==', 'AAA=', 'AAAA', '+/+/']) expect(parse(base64, text)).toBe(text);
    for (const text of ['A', 'AA', 'AA=', '====', 'A-==', 'AAAA\n', '\u212aAAA', 'AAA\u017f']) {
      expect(refusal(base64, text)).toBe('all of it: Invalid Base64');
    }
  });
});

describe('what is wrong', () => {
  it('is all said, each with where it is', () => {
    const schema = strictObject({
      list: v.array(object({ size: integer(1), mode: v.picklist(['read', 'write']) })),
      format: v.literal(1),
    });
    const value = {
      list: [
        { size: 1, mode: 'read' },
        { size: 0, mode: 'none' },
      ],
      format: 2,
      colour: 'red',
    };
    expect(refusal(schema, value).split('; ')).toEqual([
      'list.1.size: Invalid value: Expected >=1 but received 0',
      'list.1.mode: Invalid value: Expected ("read" | "write")',
      'format: Invalid value: Expected 1',
      'colour: Unrecognized key',
    ]);
    expect(() => parse(schema, [])).toThrow('value: Invalid type: Expected Object but received Array');
  });

  it('never shows the text that came, which may be a secret', () => {
    const secret = 'open sesame';
    const schema = object({
      a: object({}),
      b: v.array(integer()),
      c: v.pipe(v.string(), v.regex(/^[0-9a-f]+$/)),
      d: v.pipe(v.string(), v.startsWith('/')),
      e: v.pipe(v.string(), v.maxLength(4)),
      f: v.picklist(['a', 'b']),
      g: v.nullable(integer()),
      h: v.variant('kind', [v.object({ kind: v.literal('a') })]),
      i: uuid,
      j: base64,
    });
    const said = refusal(schema, {
      ...Object.fromEntries([...'abcdefgij'].map((key) => [key, secret])),
      h: { kind: secret },
    });
    expect(said).not.toContain('sesame');
    expect(said.split('; ').map((each) => each[0])).toEqual([...'abcdefghij']);
    expect(refusal(object({ secret: v.string() }), { secret: 12_345 })).toBe(
      'secret: Invalid type: Expected string but received number',
    );
  });
});
