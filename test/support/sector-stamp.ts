/** Sectors that say who wrote them, so that nothing else passes for it. */
export const SECTOR_WORDS = 128;

/** Stands for all zeroes: never written, or given back. */
export const ZEROES = 0;

const MOVED = 2 ** 32;

/** Fills the sector at word `at` with what says which sector it is and which write it comes from, in all of its bytes. */
export function fillSector(words: Uint32Array, at: number, sector: number, sequence: number): void {
  words[at] = sector;
  words[at + 1] = sequence;
  let state = (Math.imul(sector, 0x9e3779b1) ^ Math.imul(sequence, 0x85ebca6b)) | 1;
  for (let i = 2; i < SECTOR_WORDS; i++) {
    state = (Math.imul(state, 0x5bd1e995) + i) | 0;
    words[at + i] = state;
  }
}

/** The sequence number of the write that all bytes of the sector come from; `ZEROES`; null for anything else. */
export function readSector(words: Uint32Array, at: number, sector: number): number | null {
  const sequence = words[at + 1]!;
  if (sequence === ZEROES) {
    for (let i = 0; i < SECTOR_WORDS; i++) if (words[at + i] !== 0) return null;
    return ZEROES;
  }
  if (words[at] !== sector) return null;
  let state = (Math.imul(sector, 0x9e3779b1) ^ Math.imul(sequence, 0x85ebca6b)) | 1;
  for (let i = 2; i < SECTOR_WORDS; i++) {
    state = (Math.imul(state, 0x5bd1e995) + i) | 0;
    if (words[at + i] !== state >>> 0) return null;
  }
  return sequence;
}

/** What a sector that holds `value` holds after a copy to a sector `by` higher. */
export function moved(value: number, by: number): number {
  return value === ZEROES ? ZEROES : value + by * MOVED;
}

/** As `readSector`, of a sector that may have been copied here from another one: the sequence number as `moved` has it. */
export function readMovedSector(words: Uint32Array, at: number, sector: number): number | null {
  const stamped = words[at]!;
  const sequence = readSector(words, at, stamped);
  return sequence === null ? null : moved(sequence, sector - stamped);
}
