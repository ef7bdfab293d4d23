/**
 * What lies between metadata and every format that it is written in or read from: a pool as a sequence of calls. Dump, restore,
 * delta and the others are pairings of something that calls and something that is called.
 */
export interface PoolRecord {
  time: number;
  transactionId: number;
  flags: number;
  version: number;
  /** 512-byte sectors. */
  dataBlockSize: number;
  dataBlockCount: number;
  /** Block of the metadata snapshot; 0: none. */
  metadataSnapshot: number;
}

export interface DeviceRecord {
  id: number;
  mappedBlocks: number;
  transactionId: number;
  creationTime: number;
  snapshottedTime: number;
}

/** Virtual blocks `[virtualBegin, virtualBegin + length)` on consecutive data blocks, all mapped at the same time. */
export interface MappingRun {
  virtualBegin: number;
  dataBegin: number;
  length: number;
  time: number;
}

/** The calls come in this order: `pool`, then for each device by ascending id `deviceBegin`, its runs, `deviceEnd`; then `poolEnd`. */
export interface MetadataVisitor {
  pool(pool: PoolRecord): void;
  deviceBegin(device: DeviceRecord): void;
  /** As long as they can be; ascending. The object is used again for the next. */
  run(run: MappingRun): void;
  deviceEnd(): void;
  poolEnd(): void;
}

/**
 * Told which mappings devices share, each only once. Between `pool` and the first device come the definitions: `defBegin`, runs, `defEnd`.
 * Then a `ref` among the runs of a device stands for all runs of that definition, in their place.
 */
export interface SharingVisitor extends MetadataVisitor {
  defBegin(name: string): void;
  defEnd(): void;
  ref(name: string): void;
}
