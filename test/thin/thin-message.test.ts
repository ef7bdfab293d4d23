import { describe, expect, it } from 'vitest';
import { parseThinMessage } from '../../src/thin/thin-message.ts';

describe('a message', () => {
  it.each([
    ['create_thin 0', { kind: 'create_thin', id: 0, sizeBytes: null }],
    ['CREATE_THIN 40', { kind: 'create_thin', id: 40, sizeBytes: null }],
    ['create_thin 16777215', { kind: 'create_thin', id: 16777215, sizeBytes: null }],
    ['  create_snap\t2   1 ', { kind: 'create_snap', id: 2, origin: 1 }],
    ['delete +3', { kind: 'delete', id: 3 }],
    ['set_transaction_id 0 9007199254740991', { kind: 'set_transaction_id', expected: 0, next: 9007199254740991 }],
    ['reserve_metadata_snap', { kind: 'reserve_metadata_snap' }],
    ['Release_Metadata_Snap', { kind: 'release_metadata_snap' }],
    ['new-thin 1 2048', { kind: 'create_thin', id: 1, sizeBytes: 1048576 }],
    ['new-snap 2 1', { kind: 'create_snap', id: 2, origin: 1 }],
    ['del 2', { kind: 'delete', id: 2 }],
    ['trim 1 128', { kind: 'trim', id: 1, sizeBytes: 65536 }],
    ['trans-id 1 0', { kind: 'set_transaction_id', expected: 1, next: 0 }],
  ])('%j is read as the kernel reads it', (text, message) => {
    expect(parseThinMessage(text)).toEqual(message);
  });

  it.each([
    ['', 'it is empty'],
    ['create_thing 1', '"create_thing" is none that dm-thin knows'],
    ['__proto__ 1', 'is none that dm-thin knows'],
    ['toString', 'is none that dm-thin knows'],
    ['create_thin', '0 arguments, expected create_thin <id>'],
    ['create_thin 1 2', '2 arguments'],
    ['reserve_metadata_snap 1', '1 arguments'],
    ['new-thin 1', 'expected new-thin <id> <sectors>'],
    ['create_thin 16777216', 'no device id, which has 24 bits'],
    ['create_thin -1', '"-1" is no number'],
    ['create_thin 0x10', '"0x10" is no number'],
    ['create_thin 1e3', '"1e3" is no number'],
    ['create_thin ١', 'is no number'],
    ['set_transaction_id 0 9007199254740992', 'is not below 2^53'],
    ['trim 1 99999999999999', 'sectors are too many'],
  ])('%j is refused with EINVAL', (text, reason) => {
    expect(() => parseThinMessage(text)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(() => parseThinMessage(text)).toThrow(reason);
  });
});
