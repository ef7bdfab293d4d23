import { StorageError } from '../base/errors.ts';
import { SECTOR_SIZE } from '../base/units.ts';
import { DEVICE_ID_LIMIT } from './device-id.ts';

/** What one of dm-thin's messages asks for. Sizes are bytes; `null` is no size. */
export type ThinMessage =
  | { readonly kind: 'create_thin'; readonly id: number; readonly sizeBytes: number | null }
  | { readonly kind: 'create_snap'; readonly id: number; readonly origin: number }
  | { readonly kind: 'delete'; readonly id: number }
  | { readonly kind: 'trim'; readonly id: number; readonly sizeBytes: number }
  | { readonly kind: 'set_transaction_id'; readonly expected: number; readonly next: number }
  | { readonly kind: 'reserve_metadata_snap' }
  | { readonly kind: 'release_metadata_snap' };

interface Form {
  /** As people read them. */
  readonly arguments: readonly string[];
  readonly parse: (words: readonly string[]) => ThinMessage;
}

const createSnap: Form = {
  arguments: ['<id>', '<origin id>'],
  parse: ([id, origin]) => ({ kind: 'create_snap', id: deviceId(id!), origin: deviceId(origin!) }),
};
const deleteThin: Form = { arguments: ['<id>'], parse: ([id]) => ({ kind: 'delete', id: deviceId(id!) }) };
const setTransactionId: Form = {
  arguments: ['<current id>', '<new id>'],
  parse: ([expected, next]) => ({ kind: 'set_transaction_id', expected: count(expected!), next: count(next!) }),
};

/** The kernel's messages, and those of the first dm-thin document, where sizes are sectors. */
const FORMS: Readonly<Record<string, Form>> = {
  create_thin: {
    arguments: ['<id>'],
    parse: ([id]) => ({ kind: 'create_thin', id: deviceId(id!), sizeBytes: null }),
  },
  create_snap: createSnap,
  delete: deleteThin,
  set_transaction_id: setTransactionId,
  reserve_metadata_snap: { arguments: [], parse: () => ({ kind: 'reserve_metadata_snap' }) },
  release_metadata_snap: { arguments: [], parse: () => ({ kind: 'release_metadata_snap' }) },
  'new-thin': {
    arguments: ['<id>', '<sectors>'],
    parse: ([id, size]) => ({ kind: 'create_thin', id: deviceId(id!), sizeBytes: sectors(size!) }),
  },
  'new-snap': createSnap,
  del: deleteThin,
  trim: {
    arguments: ['<id>', '<sectors>'],
    parse: ([id, size]) => ({ kind: 'trim', id: deviceId(id!), sizeBytes: sectors(size!) }),
  },
  'trans-id': setTransactionId,
};

/** Every message, with its arguments, for people. */
export const MESSAGE_FORMS: readonly string[] = Object.entries(FORMS).map(([word, form]) =>
  [word, ...form.arguments].join(' '),
);

/** What `text` asks for, as the kernel reads it: the first word in any case, numbers to the base of 10. Throws EINVAL. */
export function parseThinMessage(text: string): ThinMessage {
  const [word = '', ...args] = text.split(/[ \t\n\v\f\r]+/).filter((part) => part !== '');
  const name = word.toLowerCase();
  const form = Object.hasOwn(FORMS, name) ? FORMS[name] : undefined;
  if (form === undefined) throw refused(word === '' ? 'it is empty' : `"${word}" is none that dm-thin knows`);
  if (args.length !== form.arguments.length) {
    throw refused(`${args.length} arguments, expected ${[name, ...form.arguments].join(' ')}`);
  }
  return form.parse(args);
}

function deviceId(text: string): number {
  const id = count(text);
  if (id >= DEVICE_ID_LIMIT) throw refused(`${text} is no device id, which has 24 bits`);
  return id;
}

function sectors(text: string): number {
  const bytes = count(text) * SECTOR_SIZE;
  if (!Number.isSafeInteger(bytes)) throw refused(`${text} sectors are too many`);
  return bytes;
}

function count(text: string): number {
  const value = Number(text);
  if (!/^\+?[0-9]+$/.test(text)) throw refused(`"${text}" is no number`);
  if (!Number.isSafeInteger(value)) throw refused(`${text} is not below 2^53`);
  return value;
}

function refused(reason: string): StorageError {
  return new StorageError('EINVAL', `Cannot read the message: ${reason}`);
}
