/** A source of random bytes; node:crypto's `randomBytes` in production. */
export type RandomBytes = (size: number) => Uint8Array;

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** A random UUID (RFC 9562 5.4). */
export function newUuid(random: RandomBytes): string {
  const bytes = random(16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return hex(bytes).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** A locally assigned name of 16 hexadecimal digits (SPC-5 7.8.6.6.5, NAA 3h): 60 random bits need no company's number. */
export function newNaa(random: RandomBytes): string {
  return `3${hex(random(8)).slice(1)}`;
}
