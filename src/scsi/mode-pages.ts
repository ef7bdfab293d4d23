import { readU32BE, writeU16BE, writeU32BE } from '../base/bytes.ts';
import type { ProvisioningThresholds } from './thresholds.ts';

/**
 * The mode pages (SPC-4 7.5, SBC-4 6.5).
 *
 *     page     0 PS,SPF,PAGE CODE  1 LENGTH | 1 SUBPAGE CODE  2 LENGTH(2)
 */

/** What mode parameters act on: the unit. */
export interface ModeSubject {
  readonly blockCount: number;
  readonly blockSize: number;
  readonly removable: boolean;
  writeCache: boolean;
  readonly defaultWriteCache: boolean;
  descriptorSense: boolean;
  softwareWriteProtect: boolean;
  readonly taskSet: { reportsAborted: boolean };
  readonly thresholds: ProvisioningThresholds | null;
}

export interface ModePage {
  readonly code: number;
  /** 0: page_0 format. */
  readonly subpage: number;
  /** With its header. */
  readonly length: number;
  /** Bits that an initiator may change: the bytes that have any, by their place in the page. */
  readonly changeable: ReadonlyMap<number, number>;
  isOffered(unit: ModeSubject): boolean;
  /** Fills `out`, a page of zeroes behind its header. */
  writeDefaults(unit: ModeSubject, out: Uint8Array): void;
  /** The unit works by the page `bytes` from now on. */
  apply(unit: ModeSubject, bytes: Uint8Array): void;
}

const always = (): boolean => true;
const provisioned = (unit: ModeSubject): boolean => unit.thresholds !== null;

/** A page that every unit has and nobody can change. */
function fixedPage(page: Pick<ModePage, 'code' | 'subpage' | 'length' | 'writeDefaults'>): ModePage {
  return { ...page, changeable: new Map(), isOffered: always, apply() {} };
}

const LBPERE = 0x80;
/** Read-write error recovery (SBC-4 6.5.10). */
const errorRecoveryPage: ModePage = {
  code: 0x01,
  subpage: 0,
  length: 12,
  changeable: new Map([[7, LBPERE]]),
  isOffered: provisioned,
  writeDefaults(_unit, out) {
    // AWRE, ARRE
    out[2] = 0xc0;
    out[7] = LBPERE;
  },
  apply(unit, bytes) {
    unit.thresholds!.reporting = (bytes[7]! & LBPERE) !== 0;
  },
};

/** Disconnect-reconnect (SPC-4 7.5.10): nothing is limited here; what iSCSI limits it negotiates. */
const disconnectReconnectPage: ModePage = fixedPage({
  code: 0x02,
  subpage: 0,
  length: 16,
  writeDefaults() {},
});

/** A geometry for initiators that still want one; cylinders of 32768 blocks let their 24 bits go as far as 2^39. */
const HEADS = 128;
const SECTORS_PER_TRACK = 256;
const MAX_CYLINDERS = 0xffffff;
const HSEC = 0x40;
const RMB = 0x20;

/**
 * Format device (SBC-2 6.3.3; later standards have it obsolete).
 *
 *     10 SECTORS PER TRACK(2)  12 DATA BYTES PER PHYSICAL SECTOR(2)  14 INTERLEAVE(2)  20 SSEC,HSEC,RMB,SURF
 */
const formatDevicePage: ModePage = fixedPage({
  code: 0x03,
  subpage: 0,
  length: 24,
  writeDefaults(unit, out) {
    writeU16BE(out, 10, SECTORS_PER_TRACK);
    writeU16BE(out, 12, unit.blockSize);
    writeU16BE(out, 14, 1);
    out[20] = HSEC | (unit.removable ? RMB : 0);
  },
});

/**
 * Rigid disk geometry (SBC-2 6.3.6; later standards have it obsolete).
 *
 *     2 CYLINDERS(3)  5 HEADS  20 MEDIUM ROTATION RATE(2)
 */
const rigidDiskGeometryPage: ModePage = fixedPage({
  code: 0x04,
  subpage: 0,
  length: 24,
  writeDefaults(unit, out) {
    const cylinders = Math.floor(unit.blockCount / (HEADS * SECTORS_PER_TRACK));
    // The byte behind is HEADS.
    writeU32BE(out, 2, Math.min(Math.max(cylinders, 1), MAX_CYLINDERS) * 0x100 + HEADS);
    // As in VPD page B1h: nothing rotates.
    writeU16BE(out, 20, 1);
  },
});

const WCE = 0x04;
/** Caching (SBC-4 6.5.6). */
const cachingPage: ModePage = {
  code: 0x08,
  subpage: 0,
  length: 20,
  changeable: new Map([[2, WCE]]),
  isOffered: always,
  writeDefaults(unit, out) {
    out[2] = unit.defaultWriteCache ? WCE : 0;
  },
  apply(unit, bytes) {
    unit.writeCache = (bytes[2]! & WCE) !== 0;
  },
};

const D_SENSE = 0x04;
const SWP = 0x08;
const TAS = 0x40;
/** Control (SPC-4 7.5.8). */
const controlPage: ModePage = {
  code: 0x0a,
  subpage: 0,
  length: 12,
  changeable: new Map([
    [2, D_SENSE],
    [4, SWP],
    [5, TAS],
  ]),
  isOffered: always,
  writeDefaults(_unit, out) {
    // QUEUE ALGORITHM MODIFIER 1: unrestricted reordering.
    out[3] = 0x10;
    // Without TAS who was aborted waits for an answer until it gives up, 30 s for Linux; LIO has it set, too.
    out[5] = TAS;
    // BUSY TIMEOUT PERIOD: unlimited
    writeU16BE(out, 8, 0xffff);
  },
  apply(unit, bytes) {
    unit.descriptorSense = (bytes[2]! & D_SENSE) !== 0;
    unit.softwareWriteProtect = (bytes[4]! & SWP) !== 0;
    unit.taskSet.reportsAborted = (bytes[5]! & TAS) !== 0;
  },
};

/** Control extension (SPC-4 7.5.9). */
const controlExtensionPage: ModePage = fixedPage({
  code: 0x0a,
  subpage: 0x01,
  length: 32,
  writeDefaults() {},
});

const DEXCPT = 0x08;
/** Informational exceptions control (SBC-4 6.5.8): nothing here fails before it fails. */
const informationalExceptionsPage: ModePage = fixedPage({
  code: 0x1c,
  subpage: 0,
  length: 12,
  writeDefaults(_unit, out) {
    out[2] = DEXCPT;
  },
});

/** Where the threshold descriptors of the page below begin, and their length. */
export const THRESHOLD_DESCRIPTORS = 16;
export const THRESHOLD_DESCRIPTOR_LENGTH = 8;
const AVAILABLE = THRESHOLD_DESCRIPTORS;
const USED: number = THRESHOLD_DESCRIPTORS + THRESHOLD_DESCRIPTOR_LENGTH;
const ENABLED = 0x80;
const ARMED_INCREASING = 0x01;
const ARMED_DECREASING = 0x02;

/**
 * Logical block provisioning (SBC-4 6.5.9): two thresholds.
 *
 *     4 SITUA   16 ENABLED,TYPE,ARMING 01h(available) 0(2) COUNT(4)   24 ENABLED,TYPE,ARMING 02h(used) 0(2) COUNT(4)
 */
const provisioningPage: ModePage = {
  code: 0x1c,
  subpage: 0x02,
  length: USED + THRESHOLD_DESCRIPTOR_LENGTH,
  changeable: new Map([AVAILABLE, USED].flatMap((at) => [[at, ENABLED] as const, ...count(at)])),
  isOffered: provisioned,
  writeDefaults(unit, out) {
    const { lowWaterSets } = unit.thresholds!;
    out[AVAILABLE] = (lowWaterSets > 0 ? ENABLED : 0) | ARMED_DECREASING;
    out[AVAILABLE + 1] = 0x01;
    writeU32BE(out, AVAILABLE + 4, lowWaterSets);
    out[USED] = ARMED_INCREASING;
    out[USED + 1] = 0x02;
  },
  apply(unit, bytes) {
    const limit = (at: number): number => ((bytes[at]! & ENABLED) !== 0 ? readU32BE(bytes, at + 4) : -1);
    unit.thresholds!.configure(limit(AVAILABLE), limit(USED));
  },
};

/** THRESHOLD COUNT of the descriptor at `at`. */
function count(at: number): (readonly [number, number])[] {
  return [4, 5, 6, 7].map((byte) => [at + byte, 0xff] as const);
}

/** Ascending by page and subpage code, as MODE SENSE returns them. */
export const MODE_PAGES: readonly ModePage[] = [
  errorRecoveryPage,
  disconnectReconnectPage,
  formatDevicePage,
  rigidDiskGeometryPage,
  cachingPage,
  controlPage,
  controlExtensionPage,
  informationalExceptionsPage,
  provisioningPage,
];
export const MAX_MODE_PAGE_LENGTH = 32;

/** Zeroes behind the header of a page. */
export function writePageHeader(page: ModePage, savable: boolean, out: Uint8Array, at: number): void {
  out.fill(0, at, at + page.length);
  const ps = savable ? 0x80 : 0;
  if (page.subpage === 0) {
    out[at] = ps | page.code;
    out[at + 1] = page.length - 2;
  } else {
    out[at] = ps | 0x40 | page.code;
    out[at + 1] = page.subpage;
    writeU16BE(out, at + 2, page.length - 4);
  }
}
