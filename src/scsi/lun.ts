/**
 * Logical unit numbers on the wire (SAM-5 4.7): eight bytes, of which a single level uses the first two.
 *
 *     peripheral device  00b BUS IDENTIFIER(6, zero) | LUN(8)
 *     flat space         01b LUN(14)
 */

/** Flat space addressing has 14 bits. */
export const MAX_LUN = 0x3fff;
/** A LUN that no unit can have. */
export const NO_LUN = -1;

/** The LUN in the eight bytes at `at`; NO_LUN for several levels and other addressing methods. */
export function decodeLun(bytes: Uint8Array, at: number): number {
  for (let i = 2; i < 8; i++) if (bytes[at + i] !== 0) return NO_LUN;
  const first = bytes[at]!;
  if (first === 0) return bytes[at + 1]!;
  return first >>> 6 === 1 ? ((first & 0x3f) << 8) | bytes[at + 1]! : NO_LUN;
}

/** Writes `lun` as eight bytes: peripheral device addressing below 256, flat space from there. */
export function encodeLun(lun: number, out: Uint8Array, at: number): void {
  out.fill(0, at, at + 8);
  out[at] = lun < 256 ? 0 : 0x40 | (lun >>> 8);
  out[at + 1] = lun;
}
