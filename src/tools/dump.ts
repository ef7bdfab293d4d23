import type { BlockDevice } from '../block/block-device.ts';
import type { DumpFormat } from './dump-formats.ts';
import { type FindOptions, findRoots } from './find-roots.ts';
import { HumanWriter } from './human-writer.ts';
import type { MetadataVisitor, PoolRecord, SharingVisitor } from './ir.ts';
import { JsonWriter } from './json-writer.ts';
import { type ProgressReport, visitMappings, visitSharedMappings } from './mappings.ts';
import { MetadataReader } from './metadata-reader.ts';
import {
  type DeviceRoot,
  overridden,
  type PoolOverrides,
  type PoolRoots,
  type RootOptions,
  readPoolRoots,
} from './pool-roots.ts';
import { XmlWriter } from './xml-writer.ts';

export interface DumpOptions extends RootOptions, PoolOverrides {
  format?: DumpFormat | undefined;
  /** Only these; those that do not exist are left out. Default: all. */
  deviceIds?: readonly number[] | undefined;
  skipMappings?: boolean | undefined;
  progress?: ProgressReport | undefined;
}

/** Writes a pool's metadata as text, as thin_dump does. Bounded memory. EILSEQ at the first damage; what was written till then stays written. */
export function dumpMetadata(device: BlockDevice, write: (text: string) => void, options: DumpOptions = {}): void {
  const reader = new MetadataReader(device);
  const roots = readPoolRoots(reader, options);
  dumpRoots(reader, options.metadataSnapshot ? roots : overridden(roots, options), write, options);
}

/** As `dumpMetadata`, of damaged metadata: what `findRoots` finds. */
export function dumpDamaged(
  device: BlockDevice,
  write: (text: string) => void,
  options: DumpOptions & { search: FindOptions },
): void {
  const reader = new MetadataReader(device);
  dumpRoots(reader, findRoots(reader, options.search), write, options);
}

function dumpRoots(
  reader: MetadataReader,
  roots: PoolRoots,
  write: (text: string) => void,
  options: DumpOptions,
): void {
  const { format, deviceIds, skipMappings, progress } = options;
  const asked = deviceIds === undefined ? null : new Set(deviceIds);
  const chosen = { pool: roots.pool, devices: roots.devices.filter(({ id }) => asked === null || asked.has(id)) };
  if (skipMappings) {
    visitDevices(chosen.pool, chosen.devices, format === 'json' ? new JsonWriter(write) : sharing(format, write));
  } else if (format === 'json') {
    visitMappings(reader, chosen, new JsonWriter(write), progress);
  } else {
    visitSharedMappings(reader, chosen, sharing(format, write), progress);
  }
}

function sharing(format: 'xml' | 'human_readable' | undefined, write: (text: string) => void): SharingVisitor {
  return format === 'human_readable' ? new HumanWriter(write) : new XmlWriter(write);
}

function visitDevices(pool: PoolRecord, devices: readonly DeviceRoot[], visitor: MetadataVisitor): void {
  visitor.pool(pool);
  for (const device of devices) {
    visitor.deviceBegin(device);
    visitor.deviceEnd();
  }
  visitor.poolEnd();
}
