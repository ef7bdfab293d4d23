import { readU16BE, writeU16BE, writeU32BE, writeU64BE } from '../../../src/base/bytes.ts';
import { readBlockCount } from '../../../src/scsi/cdb.ts';
import { Access, type CommandRow } from '../../../src/scsi/command.ts';
import type { SeededRandom } from '../../support/seeded-random.ts';
import { setServiceAction } from './plain-cdb.ts';

/** Fields get values at which arithmetic goes wrong. */
const INTERESTING = [0, 1, 2, 7, 15, 16, 17, 31, 63, 64, 127, 128, 129, 254, 255, 256, 0x7fff, 0x8000, 0xffff];
const PAGES = [0x08, 0x0a, 0x1c, 0x3f, 0x4a, 0x8a, 0xca, 0x00, 0x80, 0x83, 0x86, 0x8f, 0xb0, 0xb1, 0xb2];

/** A CDB made from the usage data of a row, or noise; returns its length. `cdb` has 32 bytes. */
export function randomCdb(random: SeededRandom, rows: readonly CommandRow[], cdb: Uint8Array): number {
  if (random.oneIn(8)) {
    for (let i = 0; i < 32; i++) cdb[i] = random.below(256);
    return random.below(33);
  }
  const row = random.pick(rows);
  cdb.fill(0, 0, 32);
  for (let i = 1; i < row.cdbLength; i++) {
    if (random.oneIn(6)) cdb[i] = random.oneIn(4) ? random.below(256) & row.usage[i]! : random.below(4);
  }
  fillFields(random, row, cdb);
  cdb[0] = row.opcode;
  // Mostly what the usage data allows, so that the handlers see it.
  if (!random.oneIn(10)) for (let i = 1; i < row.cdbLength; i++) cdb[i]! &= row.usage[i]!;
  setServiceAction(row, cdb);
  if (random.oneIn(30)) cdb[random.below(row.cdbLength)] = random.below(256);
  return random.oneIn(40) ? random.below(row.cdbLength + 1) : row.cdbLength;
}

/** Lengths, addresses and allocation lengths end at the same bytes in most commands. */
function fillFields(random: SeededRandom, row: CommandRow, cdb: Uint8Array): void {
  const value = random.oneIn(8)
    ? random.below(2 ** 32)
    : random.oneIn(3)
      ? random.pick(INTERESTING)
      : random.below(row.access === Access.NONE ? 300 : 20);
  const lba = random.oneIn(8) ? random.pick([127, 128, 129, 140, 0x80000000, 0xffffffff]) : random.below(16);
  switch (row.cdbLength) {
    case 6:
      cdb[4] = value;
      if (row.access === Access.NONE) cdb[2] = random.pick(PAGES);
      else cdb.set([0, 0, lba & 0xff], 1);
      break;
    case 10:
      writeU16BE(cdb, 7, value);
      writeU32BE(cdb, 2, row.access === Access.NONE ? random.pick([0x08, 0x0a, 0x3f]) * 2 ** 24 : lba);
      if (row.opcode === 0x5f) {
        writeU32BE(cdb, 5, random.oneIn(8) ? value : random.pick([24, 24, 24, 52, 72]));
        cdb[2] = random.below(10);
      }
      break;
    case 12:
      writeU32BE(cdb, 6, value);
      if (row.serviceAction < 0) writeU32BE(cdb, 2, row.access === Access.NONE ? 0 : lba);
      break;
    case 32:
      writeU32BE(cdb, 28, value);
      writeU64BE(cdb, 12, random.oneIn(20) ? random.below(2 ** 31) * 2 ** 22 : lba);
      break;
    default:
      writeU32BE(cdb, 10, value);
      if (row.opcode === 0x89) cdb.set([0, 0, 0, random.below(5)], 10);
      if (row.opcode === 0x83 || row.opcode === 0x84) {
        writeU32BE(cdb, 6, random.below(4));
        cdb[2] = random.below(4);
        writeU32BE(cdb, 10, random.oneIn(6) ? value : random.pick([16, 48, 64, 108, 140, 256, 552, 568, 1024]));
      } else if (random.oneIn(20)) cdb.fill(0xff, 2, 10);
      else writeU64BE(cdb, 2, random.oneIn(20) ? random.below(2 ** 31) * 2 ** 22 : lba);
  }
}

/** What an initiator would announce for `cdb`, where that is easily said. */
export function likelyLength(cdb: Uint8Array, blockSize: number): number {
  switch (cdb[0]) {
    case 0x15:
      return cdb[4]!;
    case 0x41:
    case 0x93:
      return blockSize;
    case 0x42:
    case 0x48:
    case 0x55:
    case 0x5f:
      return readU16BE(cdb, 7);
    case 0x83:
    case 0x84:
      return readU16BE(cdb, 12);
    case 0x89:
      return 2 * blockSize * cdb[13]!;
    default:
      return Math.min(readBlockCount(cdb), 64) * blockSize;
  }
}

export function randomLength(random: SeededRandom): number {
  switch (random.below(5)) {
    case 0:
      return 0;
    case 1:
      return random.below(300);
    case 2:
      return random.pick([512, 4096]) * random.below(17);
    case 3:
      return random.pick(INTERESTING);
    default:
      return random.pick([8, 16, 24, 36, 96, 252, 255, 1024, 65536, 65535]);
  }
}

/** What parameter lists can name. */
export interface FuzzNames {
  readonly naas: readonly Uint8Array[];
  /** The last tokens that the copy manager has given out. */
  readonly tokens: readonly Uint8Array[];
}

/** A parameter list for `cdb` that is right or nearly so, or else zeroes or noise. */
export function fillParameterList(random: SeededRandom, cdb: Uint8Array, bytes: Uint8Array, names: FuzzNames): void {
  bytes.fill(0);
  if (random.oneIn(12)) {
    for (let i = 0; i < Math.min(bytes.length, 600); i++) bytes[i] = random.below(256);
    return;
  }
  switch (cdb[0]) {
    case 0x15:
    case 0x55:
      modeList(random, bytes, cdb[0] === 0x55);
      break;
    case 0x5f:
      reservationList(random, bytes);
      break;
    case 0x83:
      if ((cdb[1]! & 0x1f) >= 0x10) tokenList(random, bytes, cdb[1]! & 0x1f, names);
      else copyList(random, bytes, (cdb[1]! & 0x1f) === 1, names);
      break;
    case 0x42:
      unmapList(random, bytes);
      break;
    case 0x48:
      if (bytes.length > 4) put(bytes, [random.pick([1, 0x21, 0x41]), 0, 0, Math.min(255, bytes.length - 4)]);
      break;
    default:
      return;
  }
  if (random.oneIn(6) && bytes.length > 0) bytes[random.below(Math.min(bytes.length, 64))] = random.below(256);
}

function put(bytes: Uint8Array, list: readonly number[]): void {
  bytes.set(list.slice(0, bytes.length));
}

function modeList(random: SeededRandom, bytes: Uint8Array, ten: boolean): void {
  const header = new Array<number>(ten ? 8 : 4).fill(0);
  const control = [0x0a, 10, random.pick([0, 4]), 0x10, random.oneIn(12) ? 8 : 0, random.pick([0, 0x40]), 0, 0, 0xff];
  const caching = [0x08, 18, random.pick([0, 4]), ...new Array<number>(17).fill(0)];
  put(bytes, [...header, ...(random.oneIn(2) ? [...control, 0xff, 0, 0] : caching)]);
}

function reservationList(random: SeededRandom, bytes: Uint8Array): void {
  if (bytes.length < 24) return;
  bytes[7] = random.below(3);
  bytes[15] = random.below(3);
  bytes[20] = random.pick([0, 0, 0, 1, 4, 5, 8]);
  if (bytes.length < 52 || random.oneIn(2)) return;
  bytes[20]! |= 8;
  writeU32BE(bytes, 24, bytes.length - 28);
  bytes[28] = random.pick([0x05, 0x45]);
  writeU16BE(bytes, 30, bytes.length - 32);
  const name = random.pick(['iqn.test:0', 'iqn.test:1,i,0x000000000001', 'x'.repeat(40), '']);
  for (let i = 0; i < name.length && 32 + i < bytes.length; i++) bytes[32 + i] = name.charCodeAt(i);
}

function unmapList(random: SeededRandom, bytes: Uint8Array): void {
  if (bytes.length < 8) return;
  writeU16BE(bytes, 0, random.oneIn(10) ? random.below(65536) : Math.min(bytes.length - 2, 0xffff));
  writeU16BE(bytes, 2, random.oneIn(10) ? random.below(65536) : Math.min(bytes.length - 8, 0xffff));
  for (let at = 8; at + 16 <= Math.min(bytes.length, 2048); at += 16) {
    writeU64BE(bytes, at, random.oneIn(30) ? 2 ** 52 : random.below(140));
    writeU32BE(bytes, at + 8, random.oneIn(30) ? 0xffffffff : random.below(20));
  }
}

function copyList(random: SeededRandom, bytes: Uint8Array, lid4: boolean, names: FuzzNames): void {
  const header = lid4 ? 48 : 16;
  const targets = 1 + random.below(2);
  const segments = 1 + random.below(2);
  const length = header + 32 * targets + 28 * segments;
  if (bytes.length < length) return;
  if (lid4) {
    bytes[0] = 1;
    bytes[1] = random.below(4) << 3;
    writeU16BE(bytes, 2, 0x20);
    bytes[16] = 0xff;
    writeU32BE(bytes, 20, random.below(4));
    writeU16BE(bytes, 42, 32 * targets);
    writeU16BE(bytes, 44, 28 * segments);
  } else {
    bytes[0] = random.below(4);
    bytes[1] = random.below(4) << 3;
    writeU16BE(bytes, 2, 32 * targets);
    writeU32BE(bytes, 8, 28 * segments);
  }
  let at = header;
  for (let i = 0; i < targets; i++, at += 32) {
    const naa = random.pick(names.naas);
    bytes.set([0xe4, 0, 0, 0, 1, 3, 0, naa.length], at);
    bytes.set(naa, at + 8);
    writeU16BE(bytes, at + 30, random.oneIn(8) ? 4096 : 512);
  }
  for (let i = 0; i < segments; i++, at += 28) {
    bytes.set([0x02, random.pick([0, 2]), 0, 0x18], at);
    writeU16BE(bytes, at + 4, random.below(targets));
    writeU16BE(bytes, at + 6, random.oneIn(6) ? 0xffff : random.below(targets));
    writeU16BE(bytes, at + 10, random.below(20));
    writeU64BE(bytes, at + 12, random.below(130));
    writeU64BE(bytes, at + 20, random.below(130));
  }
}

function tokenList(random: SeededRandom, bytes: Uint8Array, action: number, names: FuzzNames): void {
  const header = action === 0x11 ? 536 : 16;
  const ranges = Math.min(3, Math.floor((bytes.length - header) / 16));
  if (ranges < 1) return;
  writeU16BE(bytes, 0, header + 16 * ranges - 2);
  writeU16BE(bytes, header - 2, 16 * ranges);
  if (action === 0x11) {
    if (names.tokens.length > 0) bytes.set(random.pick(names.tokens), 16);
    if (random.oneIn(4)) bytes[2] = 2;
    // The block device zero token.
    if (random.oneIn(4)) bytes.set([0xff, 0xff, 0, 1, 0, 0, 0x01, 0xf8], 16);
    writeU64BE(bytes, 8, random.oneIn(6) ? random.below(200) : 0);
  }
  for (let i = 0; i < ranges; i++) {
    writeU64BE(bytes, header + 16 * i, i * 40 + random.below(20));
    writeU32BE(bytes, header + 16 * i + 8, random.below(20));
  }
}
