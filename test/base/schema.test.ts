import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as z from 'zod';
import * as is from '../../src/base/schema.ts';

/** The same rule here and in zod, and values that mostly keep it. */
interface Rule {
  ours: is.Schema<unknown>;
  judge: z.ZodType;
  value: fc.Arbitrary<unknown>;
}

const anything = fc.oneof(
  fc.jsonValue(),
  fc.constantFrom(undefined, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, -1, 0.5, '', '__proto__'),
);
const mostly = (value: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> =>
  fc.oneof({ weight: 12, arbitrary: value }, { weight: 1, arbitrary: anything });
const leaf = (ours: is.Schema<unknown>, judge: z.ZodType, value: fc.Arbitrary<unknown>): Rule => ({
  ours,
  judge,
  value: mostly(value),
});

const LEAVES: readonly Rule[] = [
  leaf(is.string(), z.string(), fc.string()),
  leaf(is.string().min(1).max(3), z.string().min(1).max(3), fc.string({ maxLength: 4 })),
  leaf(is.string().regex(/^[0-9a-f]+$/), z.string().regex(/^[0-9a-f]+$/), fc.constantFrom('0a', 'g', 'ff\n')),
  leaf(is.string().startsWith('/'), z.string().startsWith('/'), fc.constantFrom('/', '/a', 'a/')),
  leaf(is.uuid(), z.uuid(), fc.oneof(fc.uuid(), fc.constantFrom('00000000-0000-0000-0000-000000000000', 'no'))),
  leaf(is.base64(), z.base64(), fc.constantFrom('', 'AA==', 'AAA=', 'AAAA', 'AAAAA', 'AA=', '====', 'A-==', 'AAAA\n')),
  leaf(is.int(), z.int(), fc.oneof(fc.integer(), fc.maxSafeInteger(), fc.double())),
  leaf(is.int().min(0).max(9), z.int().min(0).max(9), fc.integer({ min: -1, max: 10 })),
  leaf(is.number().min(0), z.number().min(0), fc.double()),
  leaf(is.boolean(), z.boolean(), fc.boolean()),
  leaf(is.literal('hello'), z.literal('hello'), fc.constantFrom('hello', 'Hello')),
  leaf(is.oneOf(['a', 'b']), z.enum(['a', 'b']), fc.constantFrom('a', 'b', 'c')),
  leaf(is.oneOf([512, 4096]), z.union([z.literal(512), z.literal(4096)]), fc.constantFrom(512, 4096, '512')),
  leaf(
    is.string().refine((text) => text !== 'x', 'is x'),
    z.string().refine((text) => text !== 'x', 'is x'),
    fc.constantFrom('x', 'y'),
  ),
];

const KEYS = ['a', 'b', 'c'];
const { rule } = fc.letrec<{ rule: Rule }>((tie) => ({
  rule: fc.oneof(
    { maxDepth: 3 },
    fc.constantFrom(...LEAVES),
    tie('rule').map(
      ({ ours, judge, value }): Rule => ({
        ours: ours.nullable(),
        judge: judge.nullable(),
        value: fc.option(value),
      }),
    ),
    tie('rule').map(
      ({ ours, judge, value }): Rule => ({
        ours: is.array(ours).min(1).max(2),
        judge: z.array(judge).min(1).max(2),
        value: mostly(fc.array(value, { maxLength: 3 })),
      }),
    ),
    tie('rule').map(
      ({ ours, judge, value }): Rule => ({
        ours: is.record(is.string().max(3), ours),
        judge: z.record(z.string().max(3), judge),
        value: mostly(fc.dictionary(fc.string({ maxLength: 4 }), value, { maxKeys: 3 })),
      }),
    ),
    fc
      .tuple(
        fc.boolean(),
        fc.array(fc.tuple(tie('rule'), fc.constantFrom('', 'optional', 'default')), { maxLength: 3 }),
      )
      .map(([strict, fields]): Rule => {
        const ours: Record<string, is.Schema<unknown>> = {};
        const judge: Record<string, z.ZodType> = {};
        const value: Record<string, fc.Arbitrary<unknown>> = {};
        fields.forEach(([field, kind], i) => {
          const key = KEYS[i]!;
          ours[key] =
            kind === 'optional' ? field.ours.optional() : kind === 'default' ? field.ours.default(7) : field.ours;
          judge[key] =
            kind === 'optional' ? field.judge.optional() : kind === 'default' ? field.judge.default(7) : field.judge;
          value[key] = field.value;
        });
        const given = fc.tuple(
          fc.record(value, { requiredKeys: [] }),
          fc.oneof({ weight: 6, arbitrary: fc.constant({}) }, { weight: 1, arbitrary: fc.constant({ more: 1 }) }),
        );
        return {
          ours: strict ? is.strictObject(ours) : is.object(ours),
          judge: strict ? z.strictObject(judge) : z.object(judge),
          // What comes is JSON: nothing is there and undefined.
          value: mostly(given.map(([known, more]) => JSON.parse(JSON.stringify({ ...known, ...more })))),
        };
      }),
  ),
}));

describe('a schema', () => {
  it('lets through what zod lets through, and gives back the same', () => {
    const tried = rule.chain(({ ours, judge, value }) => value.map((each) => ({ ours, judge, each })));
    let good = 0;
    fc.assert(
      fc.property(tried, ({ ours, judge, each }) => {
        const expected = judge.safeParse(each);
        const found = ours.safeParse(each);
        expect(found.success).toBe(expected.success);
        if (expected.success) good++;
        if (found.success) expect(found.data).toEqual(expected.data);
      }),
      { numRuns: 3000 },
    );
    expect(good).toBeGreaterThan(500);
  });

  it('says where something is wrong, and all of it', () => {
    const schema = is.strictObject({ list: is.array(is.object({ size: is.int().min(1) })), name: is.string() });
    const result = schema.safeParse({ list: [{ size: 1 }, { size: 0 }], colour: 'red' });
    expect(result).toMatchObject({
      success: false,
      error: {
        issues: [
          { path: ['list', 1, 'size'], message: 'Too small: expected number to be >=1' },
          { path: ['name'], message: 'Invalid input: expected string, received undefined' },
          { path: [], message: 'Unrecognized key: "colour"' },
        ],
      },
    });
    expect(() => schema.parse([])).toThrow('value: Invalid input: expected object, received array');
  });

  it('asks what else has to hold only of what has the right form', () => {
    const schema = is
      .object({ begin: is.int(), end: is.int() })
      .refine(({ begin, end }) => begin <= end, { path: ['end'], message: 'it is before the beginning' });
    expect(schema.safeParse({ begin: 2, end: 1 })).toMatchObject({ error: { issues: [{ path: ['end'] }] } });
    expect(schema.safeParse({ begin: 2 })).toMatchObject({
      error: { issues: [{ path: ['end'], message: expect.stringContaining('int') }] },
    });
    expect(schema.parse({ begin: 1, end: 2 })).toEqual({ begin: 1, end: 2 });
  });

  it('knows objects apart by what one of their fields says', () => {
    const schema = is.taggedUnion('event', [
      is.object({ event: is.literal('taken') }),
      is.object({ event: is.literal('failed'), message: is.string() }),
    ]);
    expect(schema.parse({ event: 'failed', message: 'no' })).toEqual({ event: 'failed', message: 'no' });
    for (const bad of [{ event: 'failed' }, { event: 'other' }, {}, null, 'taken', { event: ['taken'] }]) {
      expect(schema.safeParse(bad).success, JSON.stringify(bad)).toBe(false);
    }
  });

  it('takes no field from a prototype, and puts none there', () => {
    const text = '{"__proto__": {"size": 1}}';
    expect(is.object({ size: is.int() }).safeParse(JSON.parse(text)).success).toBe(false);
    const read = is.record(is.string(), is.object({ size: is.int() })).parse(JSON.parse(text));
    expect(Object.getPrototypeOf(read)).toBe(Object.prototype);
    expect(Object.keys(read)).toEqual(['__proto__']);
  });
});
