import { afterEach } from 'vitest';
import type { Clock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { KIB, MIB } from '../../src/base/units.ts';
import type { BlockDevice } from '../../src/block/block-device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import type { EngineOptions } from '../../src/thin/engine-options.ts';
import { PoolEngine } from '../../src/thin/pool-engine.ts';
import { PoolMetadata } from '../../src/thin/pool-metadata.ts';
import type { PoolEvent } from '../../src/thin/pool-mode.ts';
import { ThinDevice } from '../../src/thin/thin-device.ts';
import { checkMetadata } from '../../src/tools/check.ts';
import { LunClient } from '../support/lun-client.ts';

export const BLOCK = 64 * KIB;

/** A clock that stands still until told to go on. */
export class ManualClock implements Clock {
  private time = 0;
  private timers: { at: number; callback: () => void }[] = [];

  nowMs(): number {
    return this.time;
  }

  setTimer(delayMs: number, callback: () => void): { cancel: () => void } {
    const timer = { at: this.time + delayMs, callback };
    this.timers.push(timer);
    return {
      cancel: () => {
        this.timers = this.timers.filter((other) => other !== timer);
      },
    };
  }

  advance(ms: number): void {
    this.time += ms;
    const due = this.timers.filter((timer) => timer.at <= this.time);
    this.timers = this.timers.filter((timer) => timer.at > this.time);
    for (const timer of due) timer.callback();
  }
}

export interface Fixture {
  metadataDevice: BlockDevice;
  data: BlockDevice;
  metadata: PoolMetadata;
  engine: PoolEngine;
  clock: ManualClock;
  events: PoolEvent[];
  /** Makes the thin device `id` and opens it. */
  volume(id: number, sizeBytes: number): ThinDevice;
  client(id: number, sizeBytes: number): LunClient;
  /** Stops the engine and checks the metadata. */
  close(): Promise<void>;
  /** Do not check at the end: the test broke the metadata on purpose. */
  broken: boolean;
}

const open: Fixture[] = [];

/** A pool on two devices in memory; closed and checked after the test. */
export function makePool(
  options: Partial<EngineOptions> & {
    dataBlocks?: number;
    metadataSize?: number;
    blockSizeBytes?: number;
    cacheBlocks?: number;
    wrapData?: (device: BlockDevice) => BlockDevice;
    wrapMetadata?: (device: BlockDevice) => BlockDevice;
  } = {},
): Fixture {
  const blockSizeBytes = options.blockSizeBytes ?? BLOCK;
  const dataBlocks = options.dataBlocks ?? 256;
  const rawMetadata = new MemoryDevice(options.metadataSize ?? 2 * MIB);
  const rawData = new MemoryDevice(dataBlocks * blockSizeBytes);
  PoolMetadata.format(rawMetadata, { dataBlockSizeBytes: blockSizeBytes, dataBlockCount: dataBlocks }).close();
  const metadataDevice = options.wrapMetadata?.(rawMetadata) ?? rawMetadata;
  const data = options.wrapData?.(rawData) ?? rawData;
  const metadata = PoolMetadata.open(metadataDevice, { cacheBlocks: options.cacheBlocks ?? 512 });
  const clock = new ManualClock();
  const events: PoolEvent[] = [];
  const engine = new PoolEngine(metadata, data, {
    logger: silentLogger,
    clock,
    lowWaterBlocks: 0,
    noSpaceTimeoutMs: 60_000,
    errorIfNoSpace: false,
    readOnly: false,
    ignoreDiscard: false,
    discardPassdown: true,
    journal: null,
    zeroNewBlocks: true,
    copyMemory: new Uint8Array(4 * Math.min(MIB, blockSizeBytes)),
    onEvent: (event) => events.push(event),
    ...options,
  });
  const fixture: Fixture = {
    metadataDevice: rawMetadata,
    data: rawData,
    metadata,
    engine,
    clock,
    events,
    broken: false,
    volume(id, sizeBytes) {
      if (!metadata.hasThin(id)) metadata.createThin(id);
      return new ThinDevice(engine, metadata.openThin(id), sizeBytes);
    },
    client(id, sizeBytes) {
      return new LunClient(fixture.volume(id, sizeBytes));
    },
    async close() {
      open.splice(open.indexOf(fixture), 1);
      await engine.stop();
      metadata.close();
      if (!fixture.broken) expectClean(rawMetadata);
    },
  };
  open.push(fixture);
  return fixture;
}

afterEach(async () => {
  for (const fixture of [...open]) await fixture.close();
});

/** Throws with every finding when our check finds anything in the metadata. */
export function expectClean(device: BlockDevice): void {
  const found: string[] = [];
  checkMetadata(device, (finding) => found.push(finding.message));
  if (found.length > 0) throw new Error(`check found:\n${found.join('\n')}`);
}
