import type { DeviceRecord, MappingRun, MetadataVisitor, PoolRecord } from '../../src/tools/ir.ts';

/** A pool's metadata as plain data, to compare. */
export interface PoolContents {
  time: number;
  transactionId: number;
  dataBlockSize: number;
  dataBlockCount: number;
  devices: Map<number, DeviceContents>;
}

export interface DeviceContents {
  mappedBlocks: number;
  transactionId: number;
  creationTime: number;
  snapshottedTime: number;
  /** `virtual block -> data block @ time`, one entry each. */
  mappings: Map<number, { dataBlock: number; time: number }>;
}

/** Collects what a `MetadataVisitor` is called with. */
export class ContentsCollector implements MetadataVisitor {
  readonly contents: PoolContents = {
    time: 0,
    transactionId: 0,
    dataBlockSize: 0,
    dataBlockCount: 0,
    devices: new Map(),
  };
  #device: DeviceContents | null = null;

  pool(pool: PoolRecord): void {
    const { time, transactionId, dataBlockSize, dataBlockCount } = pool;
    Object.assign(this.contents, { time, transactionId, dataBlockSize, dataBlockCount });
  }

  deviceBegin(device: DeviceRecord): void {
    const { id, mappedBlocks, transactionId, creationTime, snapshottedTime } = device;
    this.#device = { mappedBlocks, transactionId, creationTime, snapshottedTime, mappings: new Map() };
    this.contents.devices.set(id, this.#device);
  }

  run(run: MappingRun): void {
    for (let i = 0; i < run.length; i++) {
      this.#device!.mappings.set(run.virtualBegin + i, { dataBlock: run.dataBegin + i, time: run.time });
    }
  }

  deviceEnd(): void {
    this.#device = null;
  }

  poolEnd(): void {}
}

/** Reads the XML that thin_dump writes: superblock, def, device, single_mapping, range_mapping, ref. Throws at anything else. */
export function parseThinXml(xml: string): PoolContents {
  const contents: PoolContents = { time: 0, transactionId: 0, dataBlockSize: 0, dataBlockCount: 0, devices: new Map() };
  const definitions = new Map<string, DeviceContents['mappings']>();
  let mappings: DeviceContents['mappings'] | null = null;
  for (const [, closing, element, text] of xml.matchAll(/<(\/?)([a-z_]+)([^>]*?)\/?>/g)) {
    if (closing) continue;
    const attributes = new Map([...text!.matchAll(/([a-z_]+)="([^"]*)"/g)].map((match) => [match[1]!, match[2]!]));
    const number = (name: string): number => {
      const value = attributes.get(name);
      if (value === undefined) throw new Error(`<${element}> without ${name}`);
      return Number(value);
    };
    if (element === 'superblock') {
      contents.time = number('time');
      contents.transactionId = number('transaction');
      contents.dataBlockSize = number('data_block_size');
      contents.dataBlockCount = number('nr_data_blocks');
    } else if (element === 'def') {
      mappings = new Map();
      definitions.set(attributes.get('name')!, mappings);
    } else if (element === 'device') {
      mappings = new Map();
      contents.devices.set(number('dev_id'), {
        mappedBlocks: number('mapped_blocks'),
        transactionId: number('transaction'),
        creationTime: number('creation_time'),
        snapshottedTime: number('snap_time'),
        mappings,
      });
    } else if (element === 'single_mapping') {
      mappings!.set(number('origin_block'), { dataBlock: number('data_block'), time: number('time') });
    } else if (element === 'range_mapping') {
      for (let i = 0; i < number('length'); i++) {
        mappings!.set(number('origin_begin') + i, { dataBlock: number('data_begin') + i, time: number('time') });
      }
    } else if (element === 'ref') {
      for (const [key, value] of definitions.get(attributes.get('name')!)!) mappings!.set(key, value);
    } else {
      throw new Error(`unknown element <${element}>`);
    }
  }
  return contents;
}
