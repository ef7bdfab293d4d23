import { assert } from '../../../src/base/assert.ts';
import type { Clock } from '../../../src/base/clock.ts';
import { LogicalUnit } from '../../../src/scsi/logical-unit.ts';
import type { LunAccess } from '../../../src/scsi/lun-access.ts';
import { Nexus } from '../../../src/scsi/nexus.ts';
import { Target } from '../../../src/scsi/target.ts';
import type { ScsiTask } from '../../../src/scsi/task.ts';
import type { LogicalUnitOptions } from '../../../src/scsi/unit-state.ts';
import { MIB, NO_DATA, Pending, type Result, type Server, unitOptions } from './initiator.ts';
import { RamLun } from './ram-lun.ts';

/** Parameter lists of the third-party copy commands, and a target to try them on. */

export function naaOf(lun: number): Uint8Array {
  const naa = new Uint8Array(16).fill(0x11);
  naa[0] = 0x60;
  naa[15] = lun;
  return naa;
}

export const be = (value: number, size: number): number[] => {
  const bytes: number[] = [];
  let rest = value;
  for (let i = 0; i < size; i++) {
    bytes.unshift(rest % 256);
    rest = Math.floor(rest / 256);
  }
  return bytes;
};

/** An identification descriptor CSCD descriptor (E4h). */
export function cscd(designator: Uint8Array, blockLength = 512, type = 3, codeSet = 1): number[] {
  const bytes = [0xe4, 0, 0, 0, codeSet, type, 0, designator.length, ...designator];
  return [...bytes, ...new Array(28 - bytes.length).fill(0), ...be(blockLength, 4)];
}

/** A block to block segment descriptor (02h). */
export const segment = (from: number, lba: number, to: number, toLba: number, blocks: number, flags = 0): number[] => [
  ...[0x02, flags, 0, 0x18],
  ...be(from, 2),
  ...be(to, 2),
  ...[0, 0],
  ...be(blocks, 2),
  ...be(lba, 8),
  ...be(toLba, 8),
];

/** A block to block segment descriptor with offsets (0Ah). */
export const offsetSegment = (from: number, lba: number, to: number, toLba: number, bytes: number): number[] => [
  ...[0x0a, 0, 0, 0x1c],
  ...be(from, 2),
  ...be(to, 2),
  ...be(bytes, 4),
  ...be(lba, 8),
  ...be(toLba, 8),
  ...[0, 0, 0, 0],
];

export interface ListOptions {
  listId?: number;
  usage?: number;
}

export function lid1(cscds: number[][], segments: number[][], { listId = 1, usage = 0 }: ListOptions = {}): Uint8Array {
  const [targets, rest] = [cscds.flat(), segments.flat()];
  const header = [listId, usage << 3, ...be(targets.length, 2), 0, 0, 0, 0, ...be(rest.length, 4), 0, 0, 0, 0];
  return Uint8Array.from([...header, ...targets, ...rest]);
}

export function lid4(cscds: number[][], segments: number[][], { listId = 1, usage = 0 }: ListOptions = {}): Uint8Array {
  const [targets, rest] = [cscds.flat(), segments.flat()];
  const header = new Array<number>(48).fill(0);
  header[0] = 1;
  header[1] = usage << 3;
  header[3] = 0x20;
  header[16] = 0xff;
  header.splice(20, 4, ...be(listId, 4));
  header.splice(42, 4, ...be(targets.length, 2), ...be(rest.length, 2));
  return Uint8Array.from([...header, ...targets, ...rest]);
}

export const copyOut = (action: number, length: number, listId = 0): number[] => [
  ...[0x83, action, 0, 0, 0, 0],
  ...be(listId, 4),
  ...be(length, 4),
  ...[0, 0],
];
export const receive = (action: number, listId: number, length = 4096): number[] => [
  ...[0x84, action],
  ...(action === 0 || action === 4 ? [listId, 0, 0, 0] : be(listId, 4)),
  ...[0, 0, 0, 0],
  ...be(length, 4),
  ...[0, 0],
];
export const copyAbort = (listId: number): number[] => [0x83, 0x1c, ...be(listId, 4), ...new Array(10).fill(0)];

type Range = readonly [lba: number, blocks: number];
const rangeList = (ranges: readonly Range[]): number[] =>
  ranges.flatMap(([lba, blocks]) => [...be(lba, 8), ...be(blocks, 4), 0, 0, 0, 0]);

export function populateList(ranges: readonly Range[], { timeout = 0, type = 0 } = {}): Uint8Array {
  const list = rangeList(ranges);
  const header = [
    ...be(14 + list.length, 2),
    type === 0 ? 0 : 2,
    0,
    ...be(timeout, 4),
    ...be(type, 4),
    ...[0, 0],
    ...be(list.length, 2),
  ];
  return Uint8Array.from([...header, ...list]);
}

export function writeList(
  token: Uint8Array,
  ranges: readonly Range[],
  { offset = 0, deletes = false } = {},
): Uint8Array {
  const list = rangeList(ranges);
  const header = [...be(534 + list.length, 2), deletes ? 2 : 0, 0, 0, 0, 0, 0, ...be(offset, 8)];
  return Uint8Array.from([...header, ...token, ...new Array(6).fill(0), ...be(list.length, 2), ...list]);
}

/** The well-known token of zeroes. */
export function zeroToken(): Uint8Array {
  const token = new Uint8Array(512);
  token.set([0xff, 0xff, 0, 1, 0, 0, 0x01, 0xf8]);
  return token;
}

/** A clock that stands until it is told to go on. */
export class HandClock implements Clock {
  ms = 1000;

  nowMs(): number {
    return this.ms;
  }

  setTimer(): { cancel(): void } {
    assert(false, 'tokens need no timer');
  }
}

/** RAM disks as LUNs of one target, and nexuses at it. */
export class CopyTarget {
  readonly target: Target = new Target('iqn.2026-01.test:target');
  readonly media: RamLun[] = [];
  readonly units: LogicalUnit[] = [];
  readonly clock: HandClock = new HandClock();
  readonly host: Nexus;
  #names = 0;

  constructor(options: readonly Partial<LogicalUnitOptions>[] = [{}, {}], sizeBytes = 4 * MIB) {
    for (const [lun, each] of options.entries()) {
      const medium = new RamLun(sizeBytes);
      const unit = new LogicalUnit({ ...unitOptions(medium, each), naa: naaOf(lun), clock: this.clock });
      this.media.push(medium);
      this.units.push(unit);
      this.target.setLun(lun, unit);
    }
    this.host = this.login();
  }

  /** Another nexus that has seen all unit attentions. */
  login(access?: LunAccess): Nexus {
    const name = `iqn.2026-01.test:initiator-${this.#names++}`;
    const nexus = new Nexus(`${name},i,0x1`, 'iqn.2026-01.test:target,t,0x0001', 1);
    this.target.attach(nexus, access);
    for (const lun of this.target.luns(nexus)) {
      while (this.send(lun, [0, 0, 0, 0, 0, 0], NO_DATA, 0, nexus).status !== 0);
    }
    return nexus;
  }

  at(lun: number): Server {
    return {
      prepare: (task: ScsiTask) => this.target.prepare(task, lun),
      execute: (task: ScsiTask) => this.target.execute(task),
    };
  }

  /** A command under way. */
  start(lun: number, cdb: readonly number[], data: Uint8Array = NO_DATA, expectedIn = 0, nexus = this.host): Pending {
    const pending = new Pending(nexus);
    pending.start(this.at(lun), cdb, data, expectedIn);
    return pending;
  }

  send(lun: number, cdb: readonly number[], data: Uint8Array = NO_DATA, expectedIn = 0, nexus = this.host): Result {
    const pending = this.start(lun, cdb, data, expectedIn, nexus);
    this.drain();
    return pending.result();
  }

  /** Until nothing is queued anywhere. */
  drain(): void {
    while (this.media.some(({ queue }) => queue.length > 0)) for (const medium of this.media) medium.drain();
  }

  copy(lun: number, list: Uint8Array, nexus = this.host): Result {
    return this.send(lun, copyOut(0, list.length), list, 0, nexus);
  }

  in(lun: number, cdb: readonly number[], expected = 4096, nexus = this.host): Result {
    return this.send(lun, cdb, NO_DATA, expected, nexus);
  }

  populate(lun: number, list: Uint8Array, listId = 7, nexus = this.host): Result {
    return this.send(lun, copyOut(0x10, list.length, listId), list, 0, nexus);
  }

  writeUsing(lun: number, list: Uint8Array, listId = 8, nexus = this.host): Result {
    return this.send(lun, copyOut(0x11, list.length, listId), list, 0, nexus);
  }

  /** Makes a token and fetches it. */
  token(lun: number, ranges: readonly Range[], options: { timeout?: number; type?: number } = {}): Uint8Array {
    const made = this.populate(lun, populateList(ranges, options));
    assert(made.status === 0, `no token: ${made.sense}`);
    const { data } = this.in(lun, receive(0x07, 7));
    assert(data.length === 32 + 4 + 2 + 512, 'one token');
    return data.slice(38);
  }
}
