import type { MappedDevice, PoolReader } from './pool-reader.ts';
import type { Region } from './region.ts';
import { dataBlockOf } from './thin-visitors.ts';
import type { NodeView } from './tree-walker.ts';

/** Virtual blocks of a device that are mapped to consecutive data blocks. */
export interface OwnedRun {
  dataBegin: number;
  dataEnd: number;
  device: number;
  virtualBegin: number;
}

/**
 * Who has the data blocks of `regions`: every device, also where devices share the metadata too (thin_rmap names the first one only).
 * By ascending data block. Reads what is shared once and once more for each device that has something of it in a region; memory: what is found.
 */
export function reverseMap(
  pool: PoolReader,
  regions: readonly Region[],
  progress: (done: number, total: number) => void,
): OwnedRun[] {
  const { devices } = pool;
  const total = devices.reduce((sum, { mappedBlocks }) => sum + mappedBlocks, 0);
  const scan = new ReverseScan(pool, mergeRegions(regions), (done) => progress(done, total));
  for (const device of devices) scan.device(device);
  return scan.found.sort(compareRuns);
}

/** As thin_rmap prints it. */
export function describeRun({ dataBegin, dataEnd, device, virtualBegin }: OwnedRun): string {
  return `data ${dataBegin}..${dataEnd} -> thin(${device}) ${virtualBegin}..${virtualBegin + dataEnd - dataBegin}`;
}

function compareRuns(a: OwnedRun, b: OwnedRun): number {
  return a.dataBegin - b.dataBegin || a.dataEnd - b.dataEnd || a.device - b.device || a.virtualBegin - b.virtualBegin;
}

/** Ascending, with a gap between each two. */
function mergeRegions(regions: readonly Region[]): Region[] {
  const merged: Region[] = [];
  for (const { begin, end } of [...regions].sort((a, b) => a.begin - b.begin)) {
    const last = merged.at(-1);
    if (last !== undefined && begin <= last.end) last.end = Math.max(last.end, end);
    else merged.push({ begin, end });
  }
  return merged;
}

/** What is known of a metadata block. */
const Known = {
  notYet: 0,
  /** It is a node with nothing in a region below it. */
  nothing: 1,
  /** It is above the node that is being looked at. */
  above: 2,
} as const;

class ReverseScan {
  readonly found: OwnedRun[] = [];
  readonly #pool: PoolReader;
  readonly #regions: readonly Region[];
  /** For each metadata block. */
  readonly #nodes: Uint8Array;
  readonly #progress: (mappings: number) => void;
  #device = 0;
  #run: OwnedRun | null = null;
  /** Mappings of the devices before, and of this one. */
  #before = 0;
  #seen = 0;

  constructor(pool: PoolReader, regions: readonly Region[], progress: (mappings: number) => void) {
    this.#pool = pool;
    this.#regions = regions;
    this.#progress = progress;
    this.#nodes = new Uint8Array(pool.reader.blockCount);
  }

  device({ id, root, mappedBlocks }: MappedDevice): void {
    this.#device = id;
    this.#run = null;
    this.#seen = 0;
    this.#visit(root);
    // What was met before has been passed over.
    this.#before += mappedBlocks;
  }

  /** Whether anything was found. */
  #visit(number: number): boolean {
    if (this.#nodes[number] === Known.nothing) return false;
    if (this.#nodes[number] === Known.above)
      throw this.#pool.damaged(`block ${number}: the tree leads back into itself`);
    this.#nodes[number] = Known.above;
    const node = this.#pool.node(number);
    let found = false;
    if (node.isLeaf) found = this.#leaf(node);
    else for (let i = 0; i < node.count; i++) if (this.#visit(node.value64(i))) found = true;
    this.#pool.release(node);
    this.#nodes[number] = found ? Known.notYet : Known.nothing;
    return found;
  }

  #leaf(leaf: NodeView): boolean {
    let found = false;
    this.#seen += leaf.count;
    this.#progress(this.#before + this.#seen);
    for (let i = 0; i < leaf.count; i++) {
      const block = dataBlockOf(leaf, i);
      if (!this.#asked(block)) continue;
      found = true;
      this.#add(block, leaf.key(i));
    }
    return found;
  }

  #add(block: number, key: number): void {
    const run = this.#run;
    if (run !== null && run.dataEnd === block && run.virtualBegin + block - run.dataBegin === key) {
      run.dataEnd++;
      return;
    }
    this.#run = { dataBegin: block, dataEnd: block + 1, device: this.#device, virtualBegin: key };
    this.found.push(this.#run);
  }

  #asked(block: number): boolean {
    let low = 0;
    let high = this.#regions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#regions[middle]!.end <= block) low = middle + 1;
      else high = middle;
    }
    const region = this.#regions[low];
    return region !== undefined && block >= region.begin;
  }
}
