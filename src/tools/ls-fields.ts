/** The columns of thin_ls, by its names, and how it writes sizes. */
import { SECTOR_SIZE } from '../base/units.ts';

const LARGE = 8192;
const STEP = 1024;
/** As they are spelled there. */
const UNITS = ['b', 'KiB', 'MiB', 'GiB', 'Tib', 'Pib', 'Eib'];

/** One device. */
export interface LsRow {
  id: number;
  /** Of the volume in the catalogue; empty when there is none. */
  name: string;
  mappedBlocks: number;
  exclusiveBlocks: number;
  highestBlock: number;
  transactionId: number;
  creationTime: number;
  snapshottedTime: number;
}

interface LsField {
  /** Needs every mapping to be read. */
  scan?: boolean;
  /** Needs the end of the device's tree. */
  highest?: boolean;
  text(row: LsRow, blockSize: number): string;
}

/** `blockSize` is in sectors, as everywhere in the superblock. */
function measures(name: string, blocks: (row: LsRow) => number, flags: Partial<LsField>): [string, LsField][] {
  const bytes = (row: LsRow, blockSize: number): number => blocks(row) * blockSize * SECTOR_SIZE;
  return [
    [`${name}_BLOCKS`, { ...flags, text: (row) => String(blocks(row)) }],
    [`${name}_SECTORS`, { ...flags, text: (row, blockSize) => String(blocks(row) * blockSize) }],
    [`${name}_BYTES`, { ...flags, text: (row, blockSize) => String(bytes(row, blockSize)) }],
    [name, { ...flags, text: (row, blockSize) => roundSize(bytes(row, blockSize)) }],
  ];
}

function highestByte({ highestBlock }: LsRow, blockSize: number): number {
  return (highestBlock + 1) * blockSize * SECTOR_SIZE - 1;
}

/** Every field, in the order of thin_ls's documentation; NAME is ours. */
export const LS_FIELDS: ReadonlyMap<string, LsField> = new Map<string, LsField>([
  ['DEV', { text: ({ id }) => String(id) }],
  ['NAME', { text: ({ name }) => name }],
  ...measures('MAPPED', (row) => row.mappedBlocks, {}),
  ...measures('EXCLUSIVE', (row) => row.exclusiveBlocks, { scan: true }),
  ...measures('SHARED', (row) => row.mappedBlocks - row.exclusiveBlocks, { scan: true }),
  ['HIGHEST_BLOCK', { highest: true, text: ({ highestBlock }) => String(highestBlock) }],
  ['HIGHEST_SECTOR', { highest: true, text: ({ highestBlock }, size) => String((highestBlock + 1) * size - 1) }],
  ['HIGHEST_BYTE', { highest: true, text: (row, blockSize) => String(highestByte(row, blockSize)) }],
  ['HIGHEST_MAPPED', { highest: true, text: (row, blockSize) => roundSize(highestByte(row, blockSize)) }],
  ['TRANSACTION', { text: ({ transactionId }) => String(transactionId) }],
  ['CREATE_TIME', { text: ({ creationTime }) => String(creationTime) }],
  ['SNAP_TIME', { text: ({ snapshottedTime }) => String(snapshottedTime) }],
]);

export const DEFAULT_LS_FIELDS: readonly string[] = ['DEV', 'MAPPED', 'CREATE_TIME', 'SNAP_TIME'];

/** A size as thin_ls writes it: at most 8192 of a unit, whole; the last division rounds when what is left is below 1024. */
export function roundSize(bytes: number): string {
  let value = bytes;
  let rest = 0;
  let unit = 0;
  while (value > LARGE && unit < UNITS.length - 1) {
    rest = value % STEP;
    value = Math.floor(value / STEP);
    unit++;
  }
  if (value < STEP && rest >= STEP / 2) value++;
  return `${value}${UNITS[unit]}`;
}

/** The lines that thin_ls prints: columns at the right, a space behind each. */
export function lsLines(
  fields: readonly string[],
  rows: readonly LsRow[],
  options: { blockSize: number; headers: boolean },
): string[] {
  const body = rows.map((row) => fields.map((field) => LS_FIELDS.get(field)!.text(row, options.blockSize)));
  const all = options.headers ? [fields, ...body] : body;
  const widths = fields.map((_, i) => Math.max(0, ...all.map((cells) => cells[i]!.length)));
  return all.map((cells) => cells.map((cell, i) => `${cell.padStart(widths[i]!)} `).join(''));
}
