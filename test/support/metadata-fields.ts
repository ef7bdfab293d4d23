/** Every field of every structure on a metadata device, for tests that damage one at a time. Sources: see docs/on-disk-format.md. */

/** A field of a structure: bits `[bit, bit + bits)` from its byte `offset` on. */
export interface Field {
  name: string;
  offset: number;
  /** Bytes that it takes. */
  size: number;
  /** Its lowest and its highest bit from `offset` on, where it shares its bytes with another field. */
  bits?: readonly [lowest: number, highest: number];
}

function layout(...fields: readonly (readonly [name: string, size: number])[]): Field[] {
  let offset = 0;
  return fields.map(([name, size]) => {
    const field = { name, offset, size };
    offset += size;
    return field;
  });
}

function spaceMapRoot(name: string): (readonly [string, number])[] {
  return [
    [`${name}.nr_blocks`, 8],
    [`${name}.nr_allocated`, 8],
    [`${name}.bitmap_root`, 8],
    [`${name}.ref_count_root`, 8],
    [`${name}.unused`, 96],
  ];
}

export const SUPERBLOCK_FIELDS: readonly Field[] = layout(
  ['csum', 4],
  ['flags', 4],
  ['blocknr', 8],
  ['uuid', 16],
  ['magic', 8],
  ['version', 4],
  ['time', 4],
  ['trans_id', 8],
  ['held_root', 8],
  ...spaceMapRoot('data_space_map'),
  ...spaceMapRoot('metadata_space_map'),
  ['data_mapping_root', 8],
  ['device_details_root', 8],
  ['data_block_size', 4],
  ['metadata_block_size', 4],
  ['metadata_nr_blocks', 8],
  ['compat_flags', 4],
  ['compat_ro_flags', 4],
  ['incompat_flags', 4],
);

export const NODE_FIELDS: readonly Field[] = layout(
  ['csum', 4],
  ['flags', 4],
  ['blocknr', 8],
  ['nr_entries', 4],
  ['max_entries', 4],
  ['value_size', 4],
  ['padding', 4],
);

export const BITMAP_FIELDS: readonly Field[] = layout(['csum', 4], ['not_used', 4], ['blocknr', 8]);
export const INDEX_FIELDS: readonly Field[] = layout(['csum', 4], ['padding', 4], ['blocknr', 8]);
export const INDEX_ENTRY_FIELDS: readonly Field[] = layout(['blocknr', 8], ['nr_free', 4], ['none_free_before', 4]);
export const DETAILS_FIELDS: readonly Field[] = layout(
  ['mapped_blocks', 8],
  ['transaction_id', 8],
  ['creation_time', 4],
  ['snapshotted_time', 4],
);
export const POINTER_FIELDS: readonly Field[] = layout(['block', 8]);
export const COUNT_FIELDS: readonly Field[] = layout(['count', 4]);
export const MAPPING_FIELDS: readonly Field[] = [
  { name: 'time', offset: 0, size: 8, bits: [0, 23] },
  { name: 'data_block', offset: 0, size: 8, bits: [24, 63] },
];

/** The kinds of values in trees, and how many bytes each has. */
export const VALUE_FIELDS: Readonly<Record<string, { size: number; fields: readonly Field[] }>> = {
  pointer: { size: 8, fields: POINTER_FIELDS },
  mapping: { size: 8, fields: MAPPING_FIELDS },
  details: { size: 24, fields: DETAILS_FIELDS },
  index: { size: 16, fields: INDEX_ENTRY_FIELDS },
  count: { size: 4, fields: COUNT_FIELDS },
};

/** Bits `[0, 8 * size)` that no field has, or that more than one has. */
export function uncovered(fields: readonly Field[], size: number): number[] {
  const owners = new Array<number>(8 * size).fill(0);
  for (const { offset, size: length, bits: [lowest, highest] = [0, 8 * length - 1] } of fields) {
    for (let bit = lowest; bit <= highest; bit++) owners[8 * offset + bit]!++;
  }
  return owners.flatMap((count, bit) => (count === 1 ? [] : [bit]));
}
