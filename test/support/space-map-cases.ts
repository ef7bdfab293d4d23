import type { SpaceMap } from '../../src/persistent-data/space-map.ts';

/** What a space map must do, as arrays. */
export class SpaceMapModel {
  counts: number[];
  committed: number[];

  constructor(blockCount: number) {
    this.counts = new Array(blockCount).fill(0);
    this.committed = [...this.counts];
  }

  get free(): number {
    return this.counts.filter((count) => count === 0).length;
  }

  /** May be handed out. */
  isAllocatable(block: number): boolean {
    return this.counts[block] === 0 && this.committed[block] === 0;
  }

  add(begin: number, end: number, difference: number): void {
    for (let block = begin; block < end; block++) this.counts[block]! += difference;
  }

  extend(blockCount: number): void {
    while (this.counts.length < blockCount) {
      this.counts.push(0);
      this.committed.push(0);
    }
  }

  commit(): void {
    this.committed = [...this.counts];
  }
}

/** Every count of a map, in order. */
export function countsOf(map: SpaceMap): number[] {
  return Array.from({ length: map.blockCount }, (_, block) => map.count(block));
}
