import { StorageError } from '../base/errors.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { describeDamage } from './damage.ts';
import type { MappingRun, MetadataVisitor } from './ir.ts';
import { MetadataReader } from './metadata-reader.ts';
import { checkSuperblockFields, magicDamage, readSuperblockFields, type SuperblockFields } from './superblock-check.ts';
import { DetailsVisitor, DeviceIdVisitor, dataBlockOf, timeOf } from './thin-visitors.ts';
import { type NodeView, type TreeVisitor, TreeWalker, unregistered } from './tree-walker.ts';

export interface VisitOptions {
  /** The metadata snapshot instead of the live metadata. ENODATA when there is none. */
  metadataSnapshot?: boolean;
}

/** Calls `visitor` with everything that is in a pool's metadata. Reads the device by itself. EILSEQ at the first damage. */
export function visitMetadata(device: BlockDevice, visitor: MetadataVisitor, options: VisitOptions = {}): void {
  const reader = new MetadataReader(device);
  const walker = new TreeWalker(reader, unregistered, (damage) => {
    if (damage.severity !== 'error') return;
    throw new StorageError('EILSEQ', `Cannot read the metadata of "${device.path}": ${describeDamage(damage)}`);
  });
  const live = readSuperblock(reader, 0);
  let superblock = live;
  if (options.metadataSnapshot) {
    if (live.heldRoot === 0) {
      throw new StorageError('ENODATA', `Cannot read the metadata snapshot of "${device.path}": there is none`);
    }
    superblock = readSuperblock(reader, live.heldRoot);
  }
  reader.blockCount = live.metadataSpaceMap.blockCount;
  visitor.pool({
    time: superblock.time,
    transactionId: superblock.transactionId,
    flags: superblock.flags,
    version: superblock.version,
    dataBlockSize: superblock.dataBlockSize,
    dataBlockCount: superblock.dataSpaceMap.blockCount,
    metadataSnapshot: superblock.heldRoot,
  });
  const details = new DetailsVisitor();
  walker.walk(superblock.detailsRoot, details, 'superblock');
  const runs = new RunVisitor(visitor);
  const roots = new DeviceIdVisitor((id, root, path) => {
    const device = details.devices.get(id);
    if (device === undefined)
      throw new StorageError('EILSEQ', `Cannot read device ${id}: it has mappings and no details`);
    visitor.deviceBegin({ id, ...device });
    walker.walk(root, runs, path);
    runs.end();
    visitor.deviceEnd();
  });
  walker.walk(superblock.mappingRoot, roots, 'superblock');
  visitor.poolEnd();
}

function readSuperblock(reader: MetadataReader, number: number): SuperblockFields {
  const view = reader.acquire();
  const unreadable = reader.read(number, 'superblock', view) ?? magicDamage(view);
  const fields = readSuperblockFields(view);
  reader.release(view);
  const action = `Cannot read the metadata of "${reader.device.path}"`;
  if (unreadable !== null) throw new StorageError('EILSEQ', `${action}: ${unreadable}`);
  if (number === 0) {
    checkSuperblockFields(fields, reader.blockCount, 'superblock', (damage) => {
      throw new StorageError('EILSEQ', `${action}: ${describeDamage(damage)}`);
    });
  }
  return fields;
}

/** Joins mappings to runs, across leaves. */
class RunVisitor implements TreeVisitor {
  readonly name = 'device';
  readonly valueSize = 8;
  readonly #visitor: MetadataVisitor;
  readonly #run: MappingRun = { virtualBegin: 0, dataBegin: 0, length: 0, time: 0 };

  constructor(visitor: MetadataVisitor) {
    this.#visitor = visitor;
  }

  leaf(leaf: NodeView): void {
    const run = this.#run;
    for (let i = 0; i < leaf.count; i++) {
      const key = leaf.key(i);
      const block = dataBlockOf(leaf, i);
      const time = timeOf(leaf, i);
      const { length } = run;
      const goesOn = key === run.virtualBegin + length && block === run.dataBegin + length && time === run.time;
      if (length > 0 && goesOn) {
        run.length++;
        continue;
      }
      this.end();
      run.virtualBegin = key;
      run.dataBegin = block;
      run.length = 1;
      run.time = time;
    }
  }

  end(): void {
    if (this.#run.length > 0) this.#visitor.run(this.#run);
    this.#run.length = 0;
  }
}
