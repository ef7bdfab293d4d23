import type { MappingJournal } from './mapping-journal.ts';
import type { SpaceOptions, SpaceSettings } from './pool-space.ts';

/** What may be set anew while the pool is in use. */
export interface EngineSettings extends SpaceSettings {
  discardPassdown: boolean;
  /** New blocks are zeroed where the write does not cover them. */
  zeroNewBlocks: boolean;
  /** Volumes do not offer UNMAP. Only set anew while none is open. */
  ignoreDiscard: boolean;
}

export interface EngineOptions extends SpaceOptions, EngineSettings {
  /** Where changes of the mapping are noted before they are acknowledged; null: the end of the process takes back what is not committed. */
  journal: MappingJournal | null;
  /** Memory for copies, aligned as the data device asks; becomes the engine's. */
  copyMemory: Uint8Array;
}
