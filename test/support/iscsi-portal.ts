import { randomBytes, randomFillSync } from 'node:crypto';
import { expect } from 'vitest';
import type { Clock } from '../../src/base/clock.ts';
import type { Logger } from '../../src/base/log.ts';
import { MIB } from '../../src/base/units.ts';
import type { LunBackend, LunRequest } from '../../src/block/lun-backend.ts';
import { MemoryLun } from '../../src/block/memory-lun.ts';
import type { TargetDirectory } from '../../src/iscsi/access.ts';
import type { PortalLimits } from '../../src/iscsi/limits.ts';
import { OpenDirectory } from '../../src/iscsi/open-directory.ts';
import { Portal } from '../../src/iscsi/portal.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { Target } from '../../src/scsi/target.ts';
import { type Initiator, TARGET_NAME } from './iscsi-initiator.ts';

/** A RAM disk whose requests can be held back, so that a test decides when the engine finishes. */
export class GatedLun implements LunBackend {
  readonly inner: MemoryLun;
  readonly held: LunRequest[] = [];
  holding = false;
  /** Requests that came. */
  submitted = 0;

  constructor(sizeBytes: number) {
    this.inner = new MemoryLun(sizeBytes);
  }

  get sizeBytes(): number {
    return this.inner.sizeBytes;
  }

  get readOnly(): boolean {
    return false;
  }

  get unmapGranularityBytes(): number {
    return this.inner.unmapGranularityBytes;
  }

  get unmappedReadsZeroes(): boolean {
    return this.inner.unmappedReadsZeroes;
  }

  copiesFrom(source: LunBackend): boolean {
    return source instanceof GatedLun;
  }

  submit(request: LunRequest): void {
    this.submitted++;
    if (request.source instanceof GatedLun) request.source = request.source.inner;
    if (this.holding) this.held.push(request);
    else this.inner.submit(request);
  }

  /** Lets everything that was held go on. */
  release(): void {
    this.holding = false;
    for (const request of this.held.splice(0)) this.inner.submit(request);
  }
}

export interface TestPortalOptions {
  /** Default: the usual ones, but the data of a write stays where it came in from the first byte on. */
  limits?: Partial<PortalLimits>;
  clock?: Clock;
  logger?: Logger;
  sizeBytes?: number;
  host?: string;
  /** Who may have the targets; default: everybody. */
  directory?: (targets: ReadonlyMap<string, Target>) => TargetDirectory;
  logicalBlockSize?: 512 | 4096;
  /** Tags of the portal groups that the target has ports for. */
  targetPorts?: readonly number[];
}

export interface TestPortal {
  portal: Portal;
  target: Target;
  targets: Map<string, Target>;
  unit: LogicalUnit;
  lun: GatedLun;
  port: number;
  /** `iscsi://host:port/target/0` */
  url: string;
  portalUrl: string;
  close(): Promise<void>;
  /** Lets held I/O go on and the initiators leave, wants nothing of them left behind, and closes. */
  end(initiators: Initiator[]): Promise<void>;
}

export function makeUnit(backend: LunBackend, number: number, logicalBlockSize: 512 | 4096 = 512): LogicalUnit {
  const naa = new Uint8Array(16);
  naa[0] = 0x60;
  naa[15] = number;
  return new LogicalUnit({
    backend,
    serial: `test-${number}`,
    naa,
    designation: `test-${number}`,
    logicalBlockSize,
    writeCache: true,
    random: (bytes) => randomFillSync(bytes),
  });
}

/** A portal on a free port of 127.0.0.1 with one target and a RAM disk at LUN 0. */
export async function startPortal(options: TestPortalOptions = {}): Promise<TestPortal> {
  const target = new Target(TARGET_NAME, options.targetPorts);
  const targets = new Map([[TARGET_NAME, target]]);
  const lun = new GatedLun(options.sizeBytes ?? 64 * MIB);
  const unit = makeUnit(lun, 1, options.logicalBlockSize);
  target.setLun(0, unit);
  const portal = new Portal({
    targets: options.directory?.(targets) ?? new OpenDirectory(targets),
    randomBytes,
    limits: { inputChunkFromBytes: 0, ...options.limits },
    ...(options.clock === undefined ? {} : { clock: options.clock }),
    ...(options.logger === undefined ? {} : { logger: options.logger }),
  });
  const { port, address } = await portal.listen(options.host ?? '127.0.0.1', 0);
  return {
    portal,
    target,
    targets,
    unit,
    lun,
    port,
    url: `iscsi://${address}/${TARGET_NAME}/0`,
    portalUrl: `iscsi://${address}`,
    close: () => portal.close(),
    end: async (initiators) => {
      lun.release();
      for (const initiator of initiators.splice(0)) await initiator.close();
      await until(() => portal.connectionCount === 0, 'all connections end');
      expect(portal.sessions()).toEqual([]);
      expect([portal.memoryUsedBytes, portal.inputChunkCount, unit.taskSet.count]).toEqual([0, 0, 0]);
      await portal.close();
    },
  };
}

/** Waits until `condition` holds. */
export async function until(condition: () => boolean, what: string, timeoutMs: number = 5000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
