import { randomFillSync } from 'node:crypto';
import { assert } from '../../../src/base/assert.ts';
import type { ProvisioningResources } from '../../../src/block/lun-backend.ts';
import { FixedFrontEnd } from '../../../src/scsi/front-end.ts';
import { LogicalUnit } from '../../../src/scsi/logical-unit.ts';
import { Nexus } from '../../../src/scsi/nexus.ts';
import { Status } from '../../../src/scsi/spec.ts';
import { ScsiTask } from '../../../src/scsi/task.ts';
import type { LogicalUnitOptions } from '../../../src/scsi/unit-state.ts';
import { RamLun } from './ram-lun.ts';

/** Byte that fills memory around and in data buffers before a command: what the engine did not write shows. */
export const POISON = 0xa5;
const GUARD = 64;

export interface Result {
  status: number;
  /** `key/asc/ascq` in hex, empty without sense. */
  sense: string;
  senseBytes: Uint8Array;
  /** Data-In returned. */
  data: Uint8Array;
  residual: number;
  /** What `prepare` asked for. */
  dataOutLength: number;
}

/** Who can prepare and execute a task: a logical unit, or a target at one LUN. */
export interface Server {
  prepare(task: ScsiTask): boolean;
  execute(task: ScsiTask): void;
}

/** A command under way. */
export class Pending {
  readonly task: ScsiTask;
  doneCount = 0;
  onDone: (() => void) | null = null;
  #arena: Uint8Array = new Uint8Array(0);
  #inBegin = 0;
  #inLength = 0;
  #prepared = false;
  #dataOutLength = 0;

  constructor(nexus: Nexus) {
    this.task = new ScsiTask(
      {
        taskDone: () => {
          this.doneCount++;
          this.onDone?.();
        },
        taskAborted: () => {
          throw new Error('a command that is executed at once was aborted before');
        },
      },
      nexus,
    );
  }

  /** Prepares and executes. Data-In goes to an arena in `pieces` pieces with poison between them. */
  start(
    server: Server,
    cdb: readonly number[] | Uint8Array,
    dataOut: Uint8Array,
    expectedIn: number,
    pieces = 1,
    expectedOut = dataOut.length,
  ): void {
    const { task } = this;
    task.cdb.fill(POISON);
    task.cdb.set(cdb);
    task.cdbLength = cdb.length;
    task.expectedDataOut = expectedOut;
    task.expectedDataIn = expectedIn;
    task.aborted = false;
    this.doneCount = 0;
    this.#prepared = server.prepare(task);
    this.#dataOutLength = task.dataOutLength;
    assert(task.dataOutLength <= expectedOut && task.dataInLength <= expectedIn, 'no more than was announced');
    if (!this.#prepared) return;
    this.#inLength = task.dataInLength;
    const room = task.dataOutLength + task.dataInLength + GUARD * (2 * pieces + 2);
    this.#arena = new Uint8Array(room).fill(POISON);
    let at = place(task.dataOut, this.#arena, GUARD, task.dataOutLength, pieces);
    task.dataOut.copyFrom(dataOut, 0, 0, task.dataOutLength);
    at += GUARD;
    this.#inBegin = at;
    place(task.dataIn, this.#arena, at, task.dataInLength, pieces);
    server.execute(task);
  }

  get isDone(): boolean {
    return !this.#prepared || this.doneCount > 0;
  }

  result(): Result {
    const { task } = this;
    assert(this.doneCount === (this.#prepared ? 1 : 0), 'taskDone is called once for an executed task');
    assert(task.dataInLength <= this.#inLength || !this.#prepared, 'no more data than was prepared for');
    const data = new Uint8Array(task.dataInLength);
    task.dataIn.copyTo(data, 0, 0, task.dataInLength);
    if (this.#prepared) this.#checkGuards();
    const sense = task.sense.slice(0, task.senseLength);
    return {
      status: task.status,
      sense: task.status === Status.CHECK_CONDITION ? senseText(sense) : '',
      senseBytes: sense,
      data,
      residual: task.residual,
      dataOutLength: this.#dataOutLength,
    };
  }

  /** Everything in the arena that is not data is still poison, also Data-In behind what was returned. */
  #checkGuards(): void {
    const { task } = this;
    const clean = this.#arena.slice();
    for (const vector of [task.dataOut, task.dataIn]) {
      for (let i = 0; i < vector.count; i++) {
        clean.fill(POISON, vector.offsets[i]!, vector.offsets[i]! + vector.lengths[i]!);
      }
    }
    assert(
      clean.every((byte) => byte === POISON),
      'memory around the data is untouched',
    );
    assert(this.#inBegin >= 0, 'placed');
  }
}

function place(vector: ScsiTask['dataIn'], arena: Uint8Array, begin: number, length: number, pieces: number): number {
  vector.clear();
  vector.memory = arena;
  let at = begin;
  let left = length;
  for (let i = 0; i < pieces; i++) {
    const size = i === pieces - 1 ? left : Math.min(left, Math.ceil(length / pieces / 512) * 512);
    vector.push(at, size);
    left -= size;
    at += size + GUARD;
  }
  return at;
}

/** `5/24/00` of fixed or descriptor sense data. */
export function senseText(sense: Uint8Array): string {
  const descriptor = (sense[0]! & 0x7f) >= 0x72;
  const key = (descriptor ? sense[1]! : sense[2]!) & 0x0f;
  const asc = descriptor ? sense[2]! : sense[12]!;
  const ascq = descriptor ? sense[3]! : sense[13]!;
  const hex = (byte: number): string => byte.toString(16).padStart(2, '0');
  return `${key.toString(16)}/${hex(asc)}/${hex(ascq)}`;
}

export const MIB = 1024 * 1024;

export function unitOptions(lun: RamLun, options: Partial<LogicalUnitOptions> = {}): LogicalUnitOptions {
  return {
    backend: lun,
    serial: 'c0ffee00-0001',
    naa: Uint8Array.from([0x60, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
    designation: 'pool/volume',
    logicalBlockSize: 512,
    writeCache: true,
    random: (bytes) => randomFillSync(bytes),
    ...options,
  };
}

export const NO_DATA: Uint8Array = new Uint8Array(0);

/** A logical unit on a RAM disk, and an initiator that sends it one command after the other. */
export class Initiator {
  readonly lun: RamLun;
  readonly unit: LogicalUnit;
  readonly nexus: Nexus;
  readonly pending: Pending;
  pieces = 1;

  constructor(
    options: Partial<LogicalUnitOptions> & {
      sizeBytes?: number;
      unmapGranularityBytes?: number;
      resources?: ProvisioningResources;
      maxTransferBytes?: number;
    } = {},
  ) {
    const { sizeBytes = MIB, unmapGranularityBytes, resources, maxTransferBytes, ...rest } = options;
    this.lun = new RamLun(sizeBytes, unmapGranularityBytes);
    if (resources !== undefined) this.lun.resources = resources;
    this.unit = new LogicalUnit(unitOptions(this.lun, rest));
    this.nexus = new Nexus(
      'iqn.2026-01.test:initiator,i,0x1',
      'iqn.2026-01.test:target,t,0x0001',
      1,
      new FixedFrontEnd([], maxTransferBytes),
    );
    this.unit.attach(this.nexus, false);
    this.pending = new Pending(this.nexus);
  }

  /** Sends a command that returns up to `expected` bytes. */
  in(cdb: readonly number[] | Uint8Array, expected: number): Result {
    return this.send(cdb, NO_DATA, expected);
  }

  /** Sends a command with Data-Out. */
  out(cdb: readonly number[] | Uint8Array, data: Uint8Array = NO_DATA, expected: number = data.length): Result {
    return this.send(cdb, data, 0, expected);
  }

  send(cdb: readonly number[] | Uint8Array, data: Uint8Array, expectedIn: number, expectedOut = data.length): Result {
    this.pending.start(this.unit, cdb, data, expectedIn, this.pieces, expectedOut);
    this.lun.drain();
    return this.pending.result();
  }
}

export const GOOD: Partial<Result> = { status: Status.GOOD, sense: '' };

/** What a CHECK CONDITION looks like to `toMatchObject`. */
export function checkCondition(sense: string): Partial<Result> {
  return { status: Status.CHECK_CONDITION, sense };
}

/** `length` bytes that differ with position and `seed`. */
export function pattern(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  let x = (seed * 2654435761 + 1) >>> 0;
  for (let i = 0; i < length; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    bytes[i] = x >>> 24;
  }
  return bytes;
}

const be = (value: number, size: number): number[] => {
  const bytes: number[] = [];
  let rest = value;
  for (let i = 0; i < size; i++) {
    bytes.unshift(rest % 256);
    rest = Math.floor(rest / 256);
  }
  return bytes;
};

/** CDBs of block commands. `flags` is byte 1. */
export const cdb6 = (opcode: number, lba: number, count: number): number[] => [opcode, ...be(lba, 3), count, 0];
export const cdb10 = (opcode: number, lba: number, count: number, flags = 0): number[] => [
  opcode,
  flags,
  ...be(lba, 4),
  0,
  ...be(count, 2),
  0,
];
export const cdb12 = (opcode: number, lba: number, count: number, flags = 0): number[] => [
  opcode,
  flags,
  ...be(lba, 4),
  ...be(count, 4),
  0,
  0,
];
export const cdb16 = (opcode: number, lba: number, count: number, flags = 0): number[] => [
  opcode,
  flags,
  ...be(lba, 8),
  ...be(count, 4),
  0,
  0,
];
