import { timeOf } from './thin-visitors.ts';
import type { DevicesTree, TreeScan } from './tree-scan.ts';

type Counts = ReadonlyMap<number, number>;

/** How many mappings were made at which time: tells the newer of two states of a pool. Of trees that a scan has found whole. */
export class TimeCounts {
  readonly #scan: TreeScan;
  /** Of internal nodes and of devices' roots: states of a pool share most of them. */
  readonly #known: Map<number, Counts> = new Map();

  constructor(scan: TreeScan) {
    this.#scan = scan;
  }

  /** Below 0 when `a` is newer than `b`: it has the later time, or more of it. 0 when they are alike in this. */
  compare(a: DevicesTree, b: DevicesTree): number {
    const left = this.#ofDevices(a.block, a.height);
    const right = this.#ofDevices(b.block, b.height);
    const times = [...new Set([...left.keys(), ...right.keys()])].sort((x, y) => y - x);
    for (const time of times) {
      const difference = (right.get(time) ?? 0) - (left.get(time) ?? 0);
      if (difference !== 0) return difference;
    }
    return 0;
  }

  #ofDevices(block: number, height: number): Counts {
    return this.#remembered(-block, (sum) => {
      this.#scan.entries(block, (node) => {
        for (let i = 0; i < node.count; i++) {
          const child = node.value64(i);
          add(sum, height > 1 ? this.#ofDevices(child, height - 1) : this.#ofMappings(child));
        }
      });
    });
  }

  #ofMappings(block: number): Counts {
    return this.#remembered(block, (sum) => this.#addMappings(block, sum));
  }

  #addMappings(block: number, sum: Map<number, number>): void {
    this.#scan.entries(block, (node) => {
      for (let i = 0; i < node.count; i++) {
        if (node.isLeaf) add(sum, new Map([[timeOf(node, i), 1]]));
        else if (this.#known.has(node.value64(i))) add(sum, this.#known.get(node.value64(i))!);
        else this.#addChild(node.value64(i), sum);
      }
    });
  }

  /** Leaves are not remembered: they are too many. */
  #addChild(block: number, sum: Map<number, number>): void {
    const counts = new Map<number, number>();
    let isLeaf = true;
    this.#scan.entries(block, (node) => {
      isLeaf = node.isLeaf;
      for (let i = 0; i < node.count && isLeaf; i++) increment(counts, timeOf(node, i), 1);
    });
    add(sum, isLeaf ? counts : this.#ofMappings(block));
  }

  #remembered(key: number, fill: (sum: Map<number, number>) => void): Counts {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const sum = new Map<number, number>();
    fill(sum);
    this.#known.set(key, sum);
    return sum;
  }
}

function add(sum: Map<number, number>, counts: Counts): void {
  for (const [time, count] of counts) increment(sum, time, count);
}

function increment(sum: Map<number, number>, time: number, by: number): void {
  sum.set(time, (sum.get(time) ?? 0) + by);
}
