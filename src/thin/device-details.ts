/**
 * What the metadata knows about a thin device, apart from its mappings. Its size is not among it.
 *
 *      0                8                16       20       24
 *     +----------------+----------------+--------+--------+
 *     | mapped blocks  | transaction id | created| snap-  |
 *     |                | when created   |        | shotted|
 *     +----------------+----------------+--------+--------+
 *
 * The last two are times of the superblock. Source: dm-thin-metadata.c.
 */
import { type ReadonlyWords, readU64, writeU64 } from '../persistent-data/block.ts';

export const DEVICE_DETAILS_SIZE = 24;
export const DEVICE_DETAILS_WORDS: number = DEVICE_DETAILS_SIZE / 4;

export interface DeviceDetails {
  mappedBlocks: number;
  transactionId: number;
  creationTime: number;
  snapshottedTime: number;
}

export function decodeDetails(words: ReadonlyWords, at: number, details: DeviceDetails): void {
  details.mappedBlocks = readU64(words, at);
  details.transactionId = readU64(words, at + 2);
  details.creationTime = words[at + 4]!;
  details.snapshottedTime = words[at + 5]!;
}

export function encodeDetails(details: DeviceDetails, words: Uint32Array): void {
  writeU64(words, 0, details.mappedBlocks);
  writeU64(words, 2, details.transactionId);
  words[4] = details.creationTime;
  words[5] = details.snapshottedTime;
}
