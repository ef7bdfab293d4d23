import { StorageError } from '../base/errors.ts';

/** Bytes of a secret: at least 96 bits (RFC 7143 9.2.1). */
export const MIN_SECRET_SIZE = 12;
export const MAX_SECRET_SIZE = 255;

/** Throws EINVAL unless `secret` can be one. The message does not show it. */
export function checkSecret(secret: string, whose: string): void {
  const size = Buffer.byteLength(secret);
  if (size < MIN_SECRET_SIZE) {
    throw invalid(
      `${whose} has ${size} bytes; whoever listens to a login finds one of less than ${MIN_SECRET_SIZE} by trying`,
    );
  }
  if (size > MAX_SECRET_SIZE) throw invalid(`${whose} has more than ${MAX_SECRET_SIZE} bytes`);
  if (/\p{Cc}/u.test(secret)) throw invalid(`${whose} has a control character or more than one line`);
}

function invalid(reason: string): StorageError {
  return new StorageError('EINVAL', `Cannot use the access list: ${reason}`);
}
