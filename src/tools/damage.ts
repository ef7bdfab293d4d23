/** How bad it is. */
export type Severity =
  /** Data is lost or will be. */
  | 'error'
  /** Space is taken by nothing. */
  | 'leak'
  /** Legal to read, and not as it should have been written. */
  | 'warning';

/** The rules of the format, one for each way to break it. */
export type Invariant =
  | 'block' // checksum, block number, or not readable at all
  | 'node' // a node's header, the order of its keys, its place in the tree
  | 'node-fill' // a node other than a root is a third full
  | 'metadata-count' // of references to a metadata block
  | 'data-count' // of references to a data block
  | 'overflow' // the overflow tree has exactly the counts of 3 and more
  | 'allocated' // a space map root's count of blocks in use
  | 'index' // every bitmap has its index entry; its free count and first free entry are right
  | 'tail' // bitmap entries past the end are 0
  | 'devices' // the mapping tree and the details tree have the same devices
  | 'mapped-blocks' // a device's details count its mappings
  | 'superblock' // its fields
  | 'time' // nothing is younger than the superblock
  | 'data-block' // a mapping leads to a block that exists
  | 'catalogue'; // pool.json and the metadata have the same volumes

/** One broken rule. */
export interface Damage {
  invariant: Invariant;
  severity: Severity;
  /** From the superblock to the block concerned: `device 1 > block 12 > block 34`. */
  path: string;
  /** What is lost or wrong: keys (or blocks) `[begin, end)` of the structure that `path` names; null when it is not about keys. */
  begin: number | null;
  end: number | null;
  message: string;
}

export type DamageReport = (damage: Damage) => void;

/** One line for people. */
export function describeDamage(damage: Damage): string {
  const { begin, end } = damage;
  let keys = '';
  if (begin !== null) keys = end === begin + 1 ? ` [${begin}]` : ` [${begin}..${end === null ? '' : end - 1}]`;
  return `${damage.severity}: ${damage.path}${keys}: ${damage.message}`;
}
