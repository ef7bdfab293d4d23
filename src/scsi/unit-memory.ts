/** What a logical unit keeps when the process ends. Its owner stores it, by volume. */
export interface UnitMemory {
  /** Saved mode pages in hexadecimal, header included, by page and, behind a point, subpage code in hexadecimal. */
  readonly modePages: Readonly<Record<string, string>>;
  /** A SANITIZE or FORMAT UNIT that has been begun and has not ended well; null for none. */
  readonly operation: UnfinishedOperation | null;
}

export interface UnfinishedOperation {
  readonly command: 'sanitize' | 'format';
  /** What is written over everything, in hexadecimal and at most a logical block; null: everything is unmapped. */
  readonly pattern: string | null;
  /** How often, from 1. */
  readonly passes: number;
  /** Every second time with all bits inverted. */
  readonly inverts: boolean;
  /** AUSE: initiators may give up what has failed. */
  readonly mayBeGivenUp: boolean;
  readonly failed: boolean;
}

export const EMPTY_MEMORY: UnitMemory = { modePages: {}, operation: null };
