/**
 * CRC-32C (Castagnoli), reflected polynomial 0x82F63B78, eight bytes a step ("slicing by 8").
 */
const POLYNOMIAL = 0x82f63b78;
const SLICES = 8;
const TABLE = new Uint32Array(256 * SLICES);

for (let byte = 0; byte < 256; byte++) {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
  TABLE[byte] = crc;
}
for (let i = 256; i < TABLE.length; i++) {
  const crc = TABLE[i - 256]!;
  TABLE[i] = (crc >>> 8) ^ TABLE[crc & 0xff]!;
}

/** CRC-32C of `bytes[begin, end)`: the register starts all ones and is not inverted at the end. */
export function crc32cRaw(bytes: Uint8Array, begin: number, end: number): number {
  let crc = 0xffffffff | 0;
  let at = begin;
  for (; at + 8 <= end; at += 8) {
    crc =
      TABLE[1792 + (bytes[at]! ^ (crc & 0xff))]! ^
      TABLE[1536 + (bytes[at + 1]! ^ ((crc >>> 8) & 0xff))]! ^
      TABLE[1280 + (bytes[at + 2]! ^ ((crc >>> 16) & 0xff))]! ^
      TABLE[1024 + (bytes[at + 3]! ^ (crc >>> 24))]! ^
      TABLE[768 + bytes[at + 4]!]! ^
      TABLE[512 + bytes[at + 5]!]! ^
      TABLE[256 + bytes[at + 6]!]! ^
      TABLE[bytes[at + 7]!]!;
  }
  for (; at < end; at++) crc = (crc >>> 8) ^ TABLE[(crc ^ bytes[at]!) & 0xff]!;
  return crc >>> 0;
}
