import { readU16BE, writeU16BE, writeU32BE, writeU64BE } from '../base/bytes.ts';
import type { Command, CommandHandler } from './command.ts';
import type { UnitState } from './unit-state.ts';

/**
 * LOG SENSE (SPC-4 6.7) and the log pages (SPC-4 7.3, SBC-4 6.4).
 *
 *     page       0 PAGE CODE, SPF 40h   1 SUBPAGE CODE   2 PAGE LENGTH(2)   4 parameters, or of the lists of pages: codes, with subpages pairs of them
 *     parameter  0 CODE(2)  2 DU,TSD,ETC,TMC,FORMAT AND LINKING  3 LENGTH
 */
const SUPPORTED_PAGES = 0x00;
const ALL_SUBPAGES = 0xff;
const SPF = 0x40;
const PARAMETER_HEADER = 4;
/** FORMAT AND LINKING 11b: a list in binary. Such parameters are the same whatever PC asks for. */
const BINARY_LIST = 0x03;

interface LogPage {
  readonly code: number;
  readonly largestParameter: number;
  isOffered(unit: UnitState): boolean;
  /** Writes the parameters with codes from `first` on at `at`; returns the end. */
  write(unit: UnitState, first: number, out: Uint8Array, at: number): number;
}

/** The header of a parameter and zeroes behind it; returns where these begin. */
function beginParameter(code: number, length: number, out: Uint8Array, at: number): number {
  writeU16BE(out, at, code);
  out[at + 2] = BINARY_LIST;
  out[at + 3] = length;
  out.fill(0, at + PARAMETER_HEADER, at + PARAMETER_HEADER + length);
  return at + PARAMETER_HEADER;
}

const DEDICATED = 0x01;
const NOT_DEDICATED = 0x02;

/** Logical block provisioning (SBC-4 6.4.5): resources in threshold sets; what is available is there for all volumes. */
const provisioningPage: LogPage = {
  code: 0x0c,
  largestParameter: 2,
  isOffered: (unit) => unit.thresholds !== null,
  write(unit, first, out, at) {
    const { availableSets, usedSets } = unit.thresholds!;
    let end = at;
    for (let code = Math.max(first, 1); code <= 2; code++) {
      const value = beginParameter(code, 8, out, end);
      writeU32BE(out, value, code === 1 ? availableSets : usedSets);
      out[value + 4] = code === 1 ? NOT_DEDICATED : DEDICATED;
      end = value + 8;
    }
    return end;
  },
};

const SELF_TESTS = 20;

/** Self-test results (SPC-4 7.3.20): none has been made that would be noted here. */
const selfTestPage: LogPage = {
  code: 0x10,
  largestParameter: SELF_TESTS,
  isOffered: () => true,
  write(_unit, first, out, at) {
    let end = at;
    for (let code = Math.max(first, 1); code <= SELF_TESTS; code++) end = beginParameter(code, 16, out, end) + 16;
    return end;
  },
};

/** General statistics and performance (SPC-4 7.3.9): how often and how much READ and WRITE have done. */
const statisticsPage: LogPage = {
  code: 0x19,
  largestParameter: 1,
  isOffered: () => true,
  write(unit, _first, out, at) {
    const { readCommands, writeCommands, readBlocks, writtenBlocks } = unit.statistics;
    const value = beginParameter(1, 64, out, at);
    writeU64BE(out, value, readCommands);
    writeU64BE(out, value + 8, writeCommands);
    writeU64BE(out, value + 16, writtenBlocks);
    writeU64BE(out, value + 24, readBlocks);
    return value + 64;
  },
};

const NO_TEMPERATURE = 0xff;

/** Informational exceptions (SPC-4 7.3.11): there are none. */
const informationalExceptionsPage: LogPage = {
  code: 0x2f,
  largestParameter: 0,
  isOffered: () => true,
  write(_unit, _first, out, at) {
    const value = beginParameter(0, 4, out, at);
    out[value + 2] = NO_TEMPERATURE;
    return value + 4;
  },
};

/** Ascending. */
const PAGES: readonly LogPage[] = [provisioningPage, selfTestPage, statisticsPage, informationalExceptionsPage];

function pageOf(unit: UnitState, code: number): LogPage | null {
  for (const page of PAGES) if (page.code === code && page.isOffered(unit)) return page;
  return null;
}

const codeOf = (cdb: Uint8Array): number => cdb[2]! & 0x3f;
const pointerOf = (cdb: Uint8Array): number => readU16BE(cdb, 5);

export const logSense: CommandHandler = {
  prepare(command: Command): boolean {
    const { cdb } = command.task;
    const code = codeOf(cdb);
    const page = pageOf(command.unit, code);
    if (page === null && code !== SUPPORTED_PAGES) return command.checkCdb(2, 5);
    const subpage = cdb[3]!;
    if (subpage !== 0 && subpage !== ALL_SUBPAGES) return command.checkCdb(3);
    const largest = subpage === 0 ? (page?.largestParameter ?? 0) : 0;
    if (pointerOf(cdb) > largest) return command.checkCdb(5);
    return command.transferIn(readU16BE(cdb, 7));
  },

  execute(command: Command): void {
    const { unit, task } = command;
    const { cdb } = task;
    const out = unit.reply;
    const code = codeOf(cdb);
    const page = pageOf(unit, code);
    const withSubpages = cdb[3] === ALL_SUBPAGES;
    out[0] = code | (withSubpages ? SPF : 0);
    out[1] = cdb[3]!;
    let end: number;
    if (withSubpages) end = writeCodes(unit, code === SUPPORTED_PAGES ? null : code, true, out);
    else if (page === null) end = writeCodes(unit, null, false, out);
    else end = page.write(unit, pointerOf(cdb), out, 4);
    writeU16BE(out, 2, end - 4);
    command.finishReply(end, readU16BE(cdb, 7));
  },

  step(): void {},
};

/** Lists the pages, or `only` one of them; every page has the subpage that lists its subpages. */
function writeCodes(unit: UnitState, only: number | null, withSubpages: boolean, out: Uint8Array): number {
  let at = 4;
  const put = (code: number): void => {
    if (only !== null && only !== code) return;
    out[at++] = code;
    if (!withSubpages) return;
    out[at++] = 0;
    out[at++] = code;
    out[at++] = ALL_SUBPAGES;
  };
  put(SUPPORTED_PAGES);
  for (const page of PAGES) if (page.isOffered(unit)) put(page.code);
  return at;
}
