import { GIB, MIB } from '../base/units.ts';

/** What the copy manager takes. Said to initiators in VPD page 8Fh and by RECEIVE COPY OPERATING PARAMETERS. */

export const MAX_CSCD_DESCRIPTORS = 64;
export const MAX_SEGMENT_DESCRIPTORS = 64;
/** Bytes of CSCD and segment descriptors together. */
export const MAX_DESCRIPTOR_LIST_LENGTH = 4096;
/** Bytes of the longest segment that a descriptor can name: 0Ah has 32 bits for it. A multiple of every block size. */
export const MAX_SEGMENT_LENGTH: number = 2 ** 32 - 4096;
/** Operations of one I_T nexus at one logical unit whose list identifiers are kept, under way and ended together. */
export const MAX_COPY_RECORDS = 64;

/** Range descriptors of POPULATE TOKEN and WRITE USING TOKEN. */
export const MAX_TOKEN_RANGES = 64;
/** Bytes that one token represents. As many are copied in a few seconds when they cannot be shared. */
export const MAX_TOKEN_BYTES: number = 8 * GIB;
export const OPTIMAL_TOKEN_BYTES: number = GIB;
/** Tokens of one logical unit, those that are remembered only to say what became of them included. */
export const MAX_TOKENS = 256;
/** Seconds. */
export const DEFAULT_TOKEN_TIMEOUT = 60;
export const MAX_TOKEN_TIMEOUT = 600;

/** Bytes that are copied by reference in one step, after which other commands have their turn. */
export const COPY_STEP_BYTES: number = 64 * MIB;
