import { StorageError } from '../base/errors.ts';
import { KIB, MIB } from '../base/units.ts';
import type { VolumeRecord } from './catalogue.ts';

/** What may be set of a volume when it is made and at any time later. What is left out stays as it is. */
export interface VolumeSettings {
  /** Nobody writes to it. */
  readOnly?: boolean | undefined;
  /** Initiators may eject it. */
  removable?: boolean | undefined;
  /** Bytes that initiators are told to align to: a power of two, at least a logical block. */
  physicalBlockSize?: number | undefined;
}

const DEFAULT_PHYSICAL_BLOCK_SIZE = 4 * KIB;
const MAX_PHYSICAL_BLOCK_SIZE = MIB;

/** Bytes that initiators are told to align to. */
export function physicalBlockSizeOf({ physicalBlockSize }: Pick<VolumeRecord, 'physicalBlockSize'>): number {
  return physicalBlockSize ?? DEFAULT_PHYSICAL_BLOCK_SIZE;
}

/** The record with other settings. What can be written has no content that could be named. Throws EINVAL. */
export function withSettings<Record extends Omit<VolumeRecord, 'id' | 'lun' | 'serial' | 'naa'>>(
  record: Record,
  settings: VolumeSettings,
): Record {
  const next = { ...record };
  const { readOnly, removable, physicalBlockSize } = settings;
  if (readOnly === true) next.readOnly = true;
  else if (readOnly === false) {
    delete next.readOnly;
    delete next.contentId;
  }
  if (removable === true) next.removable = true;
  else if (removable === false) delete next.removable;
  if (physicalBlockSize !== undefined) {
    const isPowerOfTwo = Number.isInteger(Math.log2(physicalBlockSize));
    if (!isPowerOfTwo || physicalBlockSize < record.logicalBlockSize || physicalBlockSize > MAX_PHYSICAL_BLOCK_SIZE) {
      throw new StorageError(
        'EINVAL',
        `Cannot give the volume "${record.name}" physical blocks of ${physicalBlockSize} bytes: ` +
          `it is a power of two from ${record.logicalBlockSize} to ${MAX_PHYSICAL_BLOCK_SIZE}`,
      );
    }
    next.physicalBlockSize = physicalBlockSize;
  }
  return next;
}
