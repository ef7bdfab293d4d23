/** Serial number arithmetic on 32 bits (RFC 1982), which CmdSN, StatSN and DataSN follow. Values are 0 to 2^32 - 1. */

/** `a` comes before `b`. */
export function serialBefore(a: number, b: number): boolean {
  return a !== b && (b - a) >>> 0 < 0x80000000;
}

/** `a` plus a small whole number, which may be negative. */
export function serialAdd(a: number, delta: number): number {
  return (a + delta) >>> 0;
}

/** How far `to` is after `from`. */
export function serialDistance(from: number, to: number): number {
  return (to - from) >>> 0;
}
