import { assert } from '../base/assert.ts';
import { type Clock, monotonicClock } from '../base/clock.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import type { LunBackend } from '../block/lun-backend.ts';
import { CopyRecords } from './copy-records.ts';
import { MediumOperation } from './medium-operation.ts';
import { ModeState } from './mode-state.ts';
import type { Nexus } from './nexus.ts';
import { RangeLock } from './range-lock.ts';
import { type NexusReservations, type ReservationStore, Reservations } from './reservations.ts';
import { RodTokens } from './rod-tokens.ts';
import { ScratchPool } from './scratch-pool.ts';
import { type NexusTasks, TaskSet } from './task-set.ts';
import { ProvisioningThresholds } from './thresholds.ts';
import { UnitAttention, UnitAttentionQueue } from './unit-attention.ts';
import { UnitBuffers } from './unit-buffers.ts';
import type { NexusHandover } from './unit-handover.ts';
import { EMPTY_MEMORY, type UnitMemory } from './unit-memory.ts';

/** What units call themselves (INQUIRY), unless told otherwise. */
export const VENDOR = 'THINLUN';

export interface LogicalUnitOptions {
  readonly backend: LunBackend;
  /** VPD page 80h; 1 to 64 printable ASCII characters. */
  readonly serial: string;
  /** NAA designator of VPD page 83h, 8 or 16 bytes; NAA 6 (16 bytes) for what we name ourselves. */
  readonly naa: Uint8Array;
  /** What follows the vendor in the T10 designator of VPD page 83h; up to 64 printable ASCII characters. */
  readonly designation: string;
  readonly logicalBlockSize: 512 | 4096;
  /** 2^n logical blocks make a physical block (READ CAPACITY(16)); default 0. */
  readonly logicalBlocksPerPhysicalBlockExponent?: number;
  /** Up to 8 characters; default `VENDOR`. */
  readonly vendor?: string;
  /** Up to 16 characters; default `THIN VOLUME`. */
  readonly product?: string;
  /** Up to 4 characters; default `0001`. */
  readonly revision?: string;
  /** The WCE bit at the start: false makes every write durable before its status. */
  readonly writeCache: boolean;
  /** The medium can be ejected (RMB, PREVENT ALLOW MEDIUM REMOVAL, LOEJ); default false. */
  readonly removable?: boolean;
  /** What the unit has kept; left out: nothing. */
  readonly memory?: UnitMemory;
  /** Keeps it, so that it is there in the next process; left out: nothing can be kept, and no mode parameters saved. */
  readonly keep?: (memory: UnitMemory) => Promise<void>;
  /** Keeps registrations with APTPL; without it APTPL is refused. */
  readonly reservations?: ReservationStore;
  /** Longest WRITE SAME (VPD B0h MAXIMUM WRITE SAME LENGTH); default 32768 blocks. */
  readonly maxWriteSameBytes?: number;
  /** Fills with bytes that nobody can guess; for ROD tokens. */
  readonly random: (bytes: Uint8Array) => void;
  /** Times copy tokens, by default with the machine's; paces what is done in the background, by default with none. */
  readonly clock?: Clock;
}

/** Bytes of a buffer for multi-step commands; bounds COMPARE AND WRITE and ORWRITE. */
export const SCRATCH_SIZE: number = 128 * 1024;
const SCRATCH_COUNT = 8;
/**
 * Blocks. Below 65536, as libiscsi's WriteSame16.Unmap writes that many in one WRITE when it may unmap as many, whatever MAXIMUM TRANSFER
 * LENGTH says; and a power of two, so that commands of that length stay aligned.
 */
const DEFAULT_MAX_WRITE_SAME_BLOCKS = 32768;
/** Bytes of the longest reply that is put together in memory (REPORT SUPPORTED OPERATION CODES with timeouts, REPORT LUNS of 256). */
export const REPLY_SIZE = 8192;

/** What READ and WRITE have done since the unit is there (log page 19h). */
export interface AccessStatistics {
  readCommands: number;
  writeCommands: number;
  readBlocks: number;
  writtenBlocks: number;
}

/** What a logical unit keeps for one I_T nexus. */
export class NexusState implements NexusTasks, NexusReservations {
  readonly attentions: UnitAttentionQueue = new UnitAttentionQueue();
  /** Set by PREVENT ALLOW MEDIUM REMOVAL. */
  preventsRemoval = false;
  /** See `Refusals`. */
  refusals = 0;
  /** Third-party copies that the nexus may ask about. */
  readonly copies: CopyRecords = new CopyRecords();
  /** The nexus may not write. */
  readOnly: boolean;

  /** Tasks in the task set. */
  taskCount = 0;

  constructor(readOnly: boolean) {
    this.readOnly = readOnly;
  }

  /** Goes on as the same nexus in the process before. */
  takeOver({ attentions, preventsRemoval, copies }: NexusHandover): void {
    for (const name of attentions) this.attentions.raise(UnitAttention[name]);
    this.preventsRemoval = preventsRemoval;
    this.copies.takeOver(copies);
  }
}

let unitCount = 0;

/** What the commands of a logical unit share: geometry, mode parameters, locks, per-nexus state. */
export class UnitState {
  readonly backend: LunBackend;
  readonly serial: string;
  readonly naa: Uint8Array;
  readonly designation: string;
  readonly vendor: string;
  readonly product: string;
  readonly revision: string;
  readonly blockSize: number;
  physicalBlockExponent: number;
  /** Logical blocks of the medium. */
  blockCount = 0;
  readonly maxWriteSameBlocks: number;
  /** By the memory for it; `compareAndWriteLimit` is what a nexus may. */
  readonly maxCompareAndWriteBlocks: number;
  /** By the backend; `atomicLimit` is what a nexus may. 0: WRITE ATOMIC is not offered. */
  readonly maxAtomicBlocks: number;
  readonly defaultWriteCache: boolean;
  /** WCE of the caching mode page. */
  writeCache: boolean;
  /** D_SENSE of the control mode page. */
  descriptorSense = false;
  /** SWP of the control mode page. */
  softwareWriteProtect = false;
  removable: boolean;
  /** False after an eject. */
  mediumPresent = true;
  readonly taskSet: TaskSet = new TaskSet();
  /** Null where the backend does not tell what space there is. */
  readonly thresholds: ProvisioningThresholds | null;
  readonly modes: ModeState;
  memory: UnitMemory;
  /** SANITIZE or FORMAT UNIT, until it has ended well. */
  operation: MediumOperation | null = null;
  readonly clock: Clock | null;
  readonly #keep: ((memory: UnitMemory) => Promise<void>) | null;
  readonly statistics: AccessStatistics = { readCommands: 0, writeCommands: 0, readBlocks: 0, writtenBlocks: 0 };
  readonly buffers: UnitBuffers = new UnitBuffers();
  readonly ranges: RangeLock = new RangeLock();
  readonly scratch: ScratchPool;
  /** Where replies are put together; valid only inside one `execute`. */
  readonly reply: Uint8Array = new Uint8Array(REPLY_SIZE);
  readonly nexuses: Map<Nexus, NexusState> = new Map();
  readonly reservations: Reservations;
  /** Nexuses of the process before that have not come yet, by `nexusKey`. */
  readonly expected: Map<string, NexusHandover> = new Map();
  /** Who holds ranges of several units locks them in this order. */
  readonly lockOrder: number = unitCount++;
  readonly tokens: RodTokens;

  constructor(options: LogicalUnitOptions) {
    const { naa, logicalBlockSize } = options;
    assert(options.serial.length >= 1 && options.serial.length <= 64, 'a serial has 1 to 64 characters');
    assert(naa.length === 8 || naa.length === 16, 'a NAA designator has 8 or 16 bytes');
    assert(options.designation.length <= 64, 'a designation has at most 64 characters');
    const exponent = options.logicalBlocksPerPhysicalBlockExponent ?? 0;
    assert(exponent >= 0 && exponent <= 15, 'the physical block exponent is 0 to 15');
    this.backend = options.backend;
    this.serial = options.serial;
    this.naa = naa;
    this.designation = options.designation;
    this.vendor = (options.vendor ?? VENDOR).slice(0, 8);
    this.product = (options.product ?? 'THIN VOLUME').slice(0, 16);
    this.revision = (options.revision ?? '0001').slice(0, 4);
    this.removable = options.removable ?? false;
    this.blockSize = logicalBlockSize;
    this.physicalBlockExponent = exponent;
    this.maxWriteSameBlocks = Math.floor(
      (options.maxWriteSameBytes ?? DEFAULT_MAX_WRITE_SAME_BLOCKS * logicalBlockSize) / logicalBlockSize,
    );
    assert(this.maxWriteSameBlocks >= 1, 'WRITE SAME writes at least a block');
    const atomicBlocks = Math.floor((options.backend.atomicWriteBytes ?? 0) / logicalBlockSize);
    this.maxAtomicBlocks = Math.min(atomicBlocks, 0xffff);
    this.maxCompareAndWriteBlocks = Math.min(255, Math.floor(SCRATCH_SIZE / logicalBlockSize));
    this.defaultWriteCache = options.writeCache;
    this.writeCache = options.writeCache;
    this.scratch = new ScratchPool(SCRATCH_SIZE, SCRATCH_COUNT, alignedMemory);
    const { resources } = options.backend;
    this.thresholds =
      resources === undefined || !this.unmaps ? null : new ProvisioningThresholds(resources, logicalBlockSize);
    this.memory = options.memory ?? EMPTY_MEMORY;
    this.#keep = options.keep ?? null;
    this.clock = options.clock ?? null;
    this.modes = new ModeState(this, this.memory.modePages, this.#keep !== null);
    this.reservations = new Reservations(this.nexuses, options.reservations ?? null);
    this.tokens = new RodTokens(options.clock ?? monotonicClock, options.random);
    this.refreshCapacity();
    assert(this.blockCount >= 1, 'a logical unit has at least one block');
    this.#resume();
  }

  /** Reads the size from the backend; true when the number of blocks changed. */
  refreshCapacity(): boolean {
    const blockCount = Math.floor(this.backend.sizeBytes / this.blockSize);
    const changed = blockCount !== this.blockCount;
    this.blockCount = blockCount;
    return changed;
  }

  /** Goes on with what the last process has left unfinished. */
  #resume(): void {
    const { operation } = this.memory;
    if (operation === null) return;
    this.operation = new MediumOperation(this, operation);
    if (!operation.failed) this.operation.start();
  }

  /** Keeps what the next process has to know; then calls `kept`, or `failed` with all as before. At once where there is nothing to keep it in. */
  keep(memory: UnitMemory, kept: () => void, failed: () => void): void {
    const before = this.memory;
    this.memory = memory;
    if (this.#keep === null) {
      kept();
      return;
    }
    this.#keep(memory).then(kept, () => {
      if (this.memory === memory) this.memory = before;
      failed();
    });
  }

  /** Mode parameters are as they were saved, removal is allowed. */
  reset(): void {
    this.modes.reset();
    this.buffers.clear();
    for (const nexusState of this.nexuses.values()) {
      nexusState.preventsRemoval = false;
      nexusState.copies.clear();
    }
    this.reservations.reset();
  }

  /** The bytes `[offset, offset + length)` of the medium are about to change: ends the tokens that represent them. */
  changing(offset: number, length: number): void {
    if (this.tokens.live === 0) return;
    this.tokens.revoke(Math.floor(offset / this.blockSize), Math.ceil((offset + length) / this.blockSize));
  }

  /** Raises a unit attention for every nexus but `except`. */
  raiseAttention(kind: UnitAttention, except: Nexus | null): void {
    for (const [nexus, state] of this.nexuses) {
      if (nexus !== except) state.attentions.raise(kind);
    }
  }

  get removalPrevented(): boolean {
    for (const state of this.nexuses.values()) if (state.preventsRemoval) return true;
    return false;
  }

  /** Blocks: what WRITE ATOMIC writes begins and ends at a multiple of it. Of a physical block, initiators do not expect to write a part. */
  get atomicGranularity(): number {
    const blocks = 2 ** this.physicalBlockExponent;
    return blocks <= this.maxAtomicBlocks ? blocks : 1;
  }

  /** It is thin provisioned for initiators, too: UNMAP and WRITE SAME with UNMAP are offered. */
  get unmaps(): boolean {
    return this.backend.unmapGranularityBytes > 0;
  }

  get writeProtected(): boolean {
    return this.backend.readOnly || this.softwareWriteProtect;
  }
}
