import type { BlockDevice } from '../block/block-device.ts';
import type { MappingRun, MetadataVisitor, SharingVisitor } from './ir.ts';
import { LeafRuns } from './leaf-runs.ts';
import { LeafWalk } from './leaf-walk.ts';
import { MetadataReader } from './metadata-reader.ts';
import { type DeviceRoot, type PoolRoots, type RootOptions, readPoolRoots } from './pool-roots.ts';
import { dataBlockOf, timeOf } from './thin-visitors.ts';
import type { NodeView } from './tree-walker.ts';

/** Is told how far a walk is: leaves read (or devices), of how many. */
export type ProgressReport = (done: number, total: number) => void;

/** Calls `visitor` with everything that is in a pool's metadata. Reads the device by itself. EILSEQ at the first damage. */
export function visitMetadata(device: BlockDevice, visitor: MetadataVisitor, options: RootOptions = {}): void {
  const reader = new MetadataReader(device);
  visitMappings(reader, readPoolRoots(reader, options), visitor);
}

/** Calls `visitor` with everything below `roots`, each device by itself. EILSEQ at the first damage. */
export function visitMappings(
  reader: MetadataReader,
  roots: PoolRoots,
  visitor: MetadataVisitor,
  progress: ProgressReport = () => {},
): void {
  const walk = new LeafWalk(reader);
  const runs = new RunJoiner(visitor);
  let done = 0;
  visitor.pool(roots.pool);
  for (const device of roots.devices) {
    visitor.deviceBegin(device);
    const path = pathOf(device);
    for (const place of walk.leaves(device.root, path)) walk.read(place, path, runs.leaf);
    runs.end();
    visitor.deviceEnd();
    progress(++done, roots.devices.length);
  }
  visitor.poolEnd();
}

/**
 * Calls `visitor` with everything below `roots`; what devices share only once. A definition is a run of leaves that more than one device
 * has; its name is its first leaf's block. EILSEQ at the first damage.
 */
export function visitSharedMappings(
  reader: MetadataReader,
  roots: PoolRoots,
  visitor: SharingVisitor,
  progress: ProgressReport = () => {},
): void {
  const walk = new LeafWalk(reader);
  const shared = findRuns(reader, roots.devices, walk);
  const runs = new RunJoiner(visitor);
  let done = 0;
  const visitLeaf = (leaf: NodeView): void => {
    runs.leaf(leaf);
    progress(++done, shared.leafCount);
  };
  visitor.pool(roots.pool);
  for (const head of shared.sharedHeads()) {
    visitor.defBegin(`${head}`);
    for (let block = head; block !== 0; block = shared.next(block)) {
      walk.read({ block, begin: 0, end: Number.MAX_SAFE_INTEGER }, 'shared mappings', visitLeaf);
    }
    runs.end();
    visitor.defEnd();
  }
  for (const device of roots.devices) {
    visitor.deviceBegin(device);
    const path = pathOf(device);
    let inShared = false;
    for (const place of walk.leaves(device.root, path)) {
      if (shared.isHead(place.block)) {
        inShared = shared.isShared(place.block);
        if (inShared) {
          runs.end();
          visitor.ref(`${place.block}`);
        }
      }
      if (!inShared) walk.read(place, path, visitLeaf);
    }
    runs.end();
    visitor.deviceEnd();
  }
  visitor.poolEnd();
}

function pathOf(device: DeviceRoot): string {
  return `device ${device.id}`;
}

function findRuns(reader: MetadataReader, devices: readonly DeviceRoot[], walk: LeafWalk): LeafRuns {
  const runs = new LeafRuns(reader.blockCount);
  for (const device of devices) {
    for (const { block } of walk.leaves(device.root, pathOf(device))) runs.add(block);
    runs.endSequence();
  }
  runs.finish();
  return runs;
}

/** Joins mappings to runs, across leaves. */
class RunJoiner {
  readonly #visitor: MetadataVisitor;
  readonly #run: MappingRun = { virtualBegin: 0, dataBegin: 0, length: 0, time: 0 };

  constructor(visitor: MetadataVisitor) {
    this.#visitor = visitor;
  }

  readonly leaf = (leaf: NodeView): void => {
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
  };

  end(): void {
    if (this.#run.length > 0) this.#visitor.run(this.#run);
    this.#run.length = 0;
  }
}
