/**
 * What a value from outside has to look like: JSON of a file, a socket, another process. A schema is made once and reads many values; what it
 * gives back holds only what it knows. Small on purpose: every start of the program loads it.
 */

/** Something wrong, and where. */
export interface Issue {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

export class SchemaError extends Error {
  override readonly name = 'SchemaError';
  readonly issues: readonly Issue[];

  constructor(issues: readonly Issue[]) {
    super(issues.map(({ path, message }) => `${path.join('.') || 'value'}: ${message}`).join('; '));
    this.issues = issues;
  }
}

export type SafeResult<T> = { success: true; data: T } | { success: false; error: SchemaError };

/** Collects what is wrong, and knows where the reading is. */
class Reading {
  readonly issues: Issue[] = [];
  readonly path: (string | number)[] = [];

  refuse(message: string): undefined {
    this.issues.push({ path: [...this.path], message });
    return undefined;
  }

  at<T>(key: string | number, schema: Schema<T>, value: unknown): T | undefined {
    this.path.push(key);
    const result = schema.read(value, this);
    this.path.pop();
    return result;
  }
}

/** What is wrong; with a path, with what is there. */
type Fault = string | { path: readonly string[]; message: string };
type Read<T> = (value: unknown, reading: Reading) => T | undefined;

/** Immutable: each method makes another schema. */
export class Schema<T> {
  /** The value as it is known; when something is wrong, `reading` has it and the result means nothing. */
  readonly read: Read<T>;

  constructor(read: Read<T>) {
    this.read = read;
  }

  /** Throws `SchemaError`. */
  parse(value: unknown): T {
    const result = this.safeParse(value);
    if (!result.success) throw result.error;
    return result.data;
  }

  safeParse(value: unknown): SafeResult<T> {
    const reading = new Reading();
    const data = this.read(value, reading);
    return reading.issues.length > 0
      ? { success: false, error: new SchemaError(reading.issues) }
      : { success: true, data: data as T };
  }

  /** May be left out of an object. */
  optional(): OptionalSchema<T> {
    return new OptionalSchema((value, reading) => (value === undefined ? undefined : this.read(value, reading)));
  }

  nullable(): Schema<T | null> {
    return new Schema<T | null>((value, reading) => (value === null ? null : this.read(value, reading)));
  }

  /** `given` where it is left out. */
  default(given: T): Schema<T> {
    return new Schema((value, reading) => (value === undefined ? given : this.read(value, reading)));
  }

  /** What else has to hold of a value that has the right form. */
  refine<U extends T>(holds: (value: T) => value is U, fault: Fault): Schema<U>;
  refine(holds: (value: T) => boolean, fault: Fault): Schema<T>;
  refine(holds: (value: T) => boolean, fault: Fault): Schema<T> {
    return new Schema(checked(this.read, holds, fault));
  }
}

export class OptionalSchema<T> extends Schema<T | undefined> {
  readonly isOptional = true;
}

function checked<T>(read: Read<T>, holds: (value: T) => boolean, fault: Fault): Read<T> {
  const { path, message } = typeof fault === 'string' ? { path: [], message: fault } : fault;
  return (value, reading) => {
    const before = reading.issues.length;
    const result = read(value, reading);
    if (reading.issues.length === before && !holds(result as T)) {
      reading.issues.push({ path: [...reading.path, ...path], message });
    }
    return result;
  };
}

function typeOf(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'array' : typeof value;
}

function expected(what: string, value: unknown): string {
  return `Invalid input: expected ${what}, received ${typeOf(value)}`;
}

/** Text; `min` and `max` are UTF-16 code units. */
export class StringSchema extends Schema<string> {
  min(length: number): StringSchema {
    return this.#with((text) => text.length >= length, `Too small: expected string to have >=${length} characters`);
  }

  max(length: number): StringSchema {
    return this.#with((text) => text.length <= length, `Too big: expected string to have <=${length} characters`);
  }

  /** `pattern` must have neither `g` nor `y`. */
  regex(pattern: RegExp): StringSchema {
    return this.#with((text) => pattern.test(text), `Invalid string: must match pattern ${pattern}`);
  }

  startsWith(beginning: string): StringSchema {
    return this.#with((text) => text.startsWith(beginning), `Invalid string: must start with "${beginning}"`);
  }

  #with(holds: (text: string) => boolean, fault: string): StringSchema {
    return new StringSchema(checked(this.read, holds, fault));
  }
}

export class NumberSchema extends Schema<number> {
  min(least: number): NumberSchema {
    return this.#with((value) => value >= least, `Too small: expected number to be >=${least}`);
  }

  max(most: number): NumberSchema {
    return this.#with((value) => value <= most, `Too big: expected number to be <=${most}`);
  }

  #with(holds: (value: number) => boolean, fault: string): NumberSchema {
    return new NumberSchema(checked(this.read, holds, fault));
  }
}

export class ArraySchema<T> extends Schema<T[]> {
  min(length: number): ArraySchema<T> {
    return this.#with((items) => items.length >= length, `Too small: expected array to have >=${length} items`);
  }

  /** Checked before the items: however many there are, no more are looked at. */
  max(length: number): ArraySchema<T> {
    return new ArraySchema((value, reading) =>
      Array.isArray(value) && value.length > length
        ? reading.refuse(`Too big: expected array to have <=${length} items`)
        : this.read(value, reading),
    );
  }

  #with(holds: (items: T[]) => boolean, fault: string): ArraySchema<T> {
    return new ArraySchema(checked(this.read, holds, fault));
  }
}

export type Shape = Readonly<Record<string, Schema<unknown>>>;
export type Output<S> = S extends Schema<infer T> ? T : never;
type OptionalKeys<S extends Shape> = { [K in keyof S]: S[K] extends { isOptional: true } ? K : never }[keyof S];
export type ObjectOf<S extends Shape> = { [K in Exclude<keyof S, OptionalKeys<S>>]: Output<S[K]> } & {
  [K in OptionalKeys<S>]?: Output<S[K]>;
};

export class ObjectSchema<S extends Shape> extends Schema<ObjectOf<S>> {
  readonly shape: S;

  constructor(shape: S, isStrict: boolean) {
    const known = Object.entries(shape);
    super((value, reading) => {
      if (typeof value !== 'object' || value === null || Array.isArray(value)) {
        return reading.refuse(expected('object', value));
      }
      const result: Record<string, unknown> = {};
      for (const [key, schema] of known) {
        const given = Object.hasOwn(value, key) ? (value as Record<string, unknown>)[key] : undefined;
        const field = reading.at(key, schema, given);
        if (field !== undefined) result[key] = field;
      }
      if (isStrict) {
        const unknown = Object.keys(value).filter((key) => !Object.hasOwn(shape, key));
        const names = unknown.map((key) => JSON.stringify(key)).join(', ');
        if (unknown.length > 0) reading.refuse(`Unrecognized key${unknown.length > 1 ? 's' : ''}: ${names}`);
      }
      return result as ObjectOf<S>;
    });
    this.shape = shape;
  }
}

export function string(): StringSchema {
  return new StringSchema((value, reading) =>
    typeof value === 'string' ? value : reading.refuse(expected('string', value)),
  );
}

/** A UUID (RFC 9562 4), the nil and max ones included. */
export function uuid(): Schema<string> {
  const version = /^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i;
  const special = /^(?:0{8}-0{4}-0{4}-0{4}-0{12}|f{8}-f{4}-f{4}-f{4}-f{12})$/i;
  return string().refine((text) => version.test(text) || special.test(text), 'Invalid UUID');
}

/** Base64 with its padding (RFC 4648 4). */
export function base64(): Schema<string> {
  const pattern = /^(?:[0-9a-zA-Z+/]{4})*(?:[0-9a-zA-Z+/]{2}==|[0-9a-zA-Z+/]{3}=)?$/;
  return string().refine((text) => pattern.test(text), 'Invalid base64-encoded string');
}

/** A finite number. */
export function number(): NumberSchema {
  return new NumberSchema((value, reading) =>
    typeof value === 'number' && Number.isFinite(value) ? value : reading.refuse(expected('number', value)),
  );
}

/** A whole number that is exact: its amount is below 2^53. */
export function int(): NumberSchema {
  return new NumberSchema((value, reading) =>
    Number.isSafeInteger(value) ? (value as number) : reading.refuse(expected('int', value)),
  );
}

export function boolean(): Schema<boolean> {
  return new Schema((value, reading) =>
    typeof value === 'boolean' ? value : reading.refuse(expected('boolean', value)),
  );
}

export function literal<const T extends string | number | boolean>(wanted: T): Schema<T> {
  const fault = `Invalid input: expected ${JSON.stringify(wanted)}`;
  return new Schema((value, reading) => (value === wanted ? wanted : reading.refuse(fault)));
}

export function oneOf<const T extends string | number>(values: readonly T[]): Schema<T> {
  const fault = `Invalid option: expected one of ${values.map((value) => JSON.stringify(value)).join('|')}`;
  return new Schema((value, reading) =>
    (values as readonly unknown[]).includes(value) ? (value as T) : reading.refuse(fault),
  );
}

export function array<T>(item: Schema<T>): ArraySchema<T> {
  return new ArraySchema((value, reading) => {
    if (!Array.isArray(value)) return reading.refuse(expected('array', value));
    return value.map((each, index) => reading.at(index, item, each) as T);
  });
}

/** Any names, as far as `key` lets them. */
export function record<T>(key: Schema<string>, item: Schema<T>): Schema<Record<string, T>> {
  return new Schema((value, reading) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      return reading.refuse(expected('record', value));
    }
    const read = ([name, each]: [string, unknown]): [string, T] => {
      reading.at(name, key, name);
      return [name, reading.at(name, item, each) as T];
    };
    // Defines what `__proto__` names, and does not assign it.
    return Object.fromEntries(Object.entries(value).map(read));
  });
}

/** Fields that are not known are dropped. */
export function object<S extends Shape>(shape: S): ObjectSchema<S> {
  return new ObjectSchema(shape, false);
}

/** Fields that are not known are refused. */
export function strictObject<S extends Shape>(shape: S): ObjectSchema<S> {
  return new ObjectSchema(shape, true);
}

/** Objects that differ by what `key` says, which has a `literal` in each of them. */
export function taggedUnion<const Members extends readonly ObjectSchema<Shape>[]>(
  key: string,
  members: Members,
): Schema<Output<Members[number]>> {
  return new Schema((value, reading) => {
    const tag = typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined;
    const member = members.find(({ shape }) => tag !== undefined && shape[key]?.safeParse(tag).success);
    if (member === undefined) return reading.refuse(`Invalid input: no known "${key}"`);
    return member.read(value, reading) as Output<Members[number]> | undefined;
  });
}
