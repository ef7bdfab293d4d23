import type { PoolReader } from './pool-reader.ts';
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
  const scan = new ReverseScan(pool, mergeRegions(regions));
  const { devices } = pool;
  devices.forEach(({ id, root }, index) => {
    progress(index, devices.length);
    scan.device(id, root);
  });
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

class ReverseScan {
  readonly found: OwnedRun[] = [];
  readonly #pool: PoolReader;
  readonly #regions: readonly Region[];
  /** For each metadata block: 1 when it is a node with nothing in a region below it. */
  readonly #nothing: Uint8Array;
  #device = 0;
  #run: OwnedRun | null = null;

  constructor(pool: PoolReader, regions: readonly Region[]) {
    this.#pool = pool;
    this.#regions = regions;
    this.#nothing = new Uint8Array(pool.reader.blockCount);
  }

  device(id: number, root: number): void {
    this.#device = id;
    this.#run = null;
    this.#visit(root);
  }

  /** Whether anything was found. */
  #visit(number: number): boolean {
    if (this.#nothing[number] === 1) return false;
    const node = this.#pool.node(number);
    let found = false;
    if (node.isLeaf) found = this.#leaf(node);
    else for (let i = 0; i < node.count; i++) if (this.#visit(node.value64(i))) found = true;
    this.#pool.release(node);
    if (!found) this.#nothing[number] = 1;
    return found;
  }

  #leaf(leaf: NodeView): boolean {
    let found = false;
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
