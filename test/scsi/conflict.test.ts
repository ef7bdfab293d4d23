import { beforeEach, describe, expect, it } from 'vitest';
import type { CommandRow } from '../../src/scsi/command.ts';
import { REMOVABLE_COMMANDS } from '../../src/scsi/commands.ts';
import type { Nexus } from '../../src/scsi/nexus.ts';
import { Status } from '../../src/scsi/spec.ts';
import { Cluster, PR_OUT } from './support/cluster.ts';

/**
 * The tables of the standards, written out: SPC-4 "SPC commands that are allowed in the presence of various reservations", SBC-4 "SBC-4 commands that
 * are allowed ...", and for the first column SPC-2 table 10 with SBC. A for allowed, C for conflict: with RESERVE of another nexus, Write Exclusive,
 * Exclusive Access, of a registrant with Registrants Only or All Registrants, Write Exclusive Registrants Only or All Registrants of an unregistered nexus,
 * Exclusive Access likewise. `opcode/action`, and behind a colon what byte 4 has.
 */
const TABLE = `
  00       C AAAAA  TEST UNIT READY
  01       C ACAAC  REZERO UNIT
  03       A AAAAA  REQUEST SENSE
  04       C CCACC  FORMAT UNIT
  08       C ACAAC  READ(6)
  0a       C CCACC  WRITE(6)
  0b       C ACAAC  SEEK(6)
  12       A AAAAA  INQUIRY
  15       C CCACC  MODE SELECT(6)
  1a       C ACAAC  MODE SENSE(6)
  1b:01    C AAAAA  START STOP UNIT with START
  1b:00    C CCACC  START STOP UNIT without
  1b:11    C CCACC  START STOP UNIT with a power condition
  1d       C CCACC  SEND DIAGNOSTIC
  1e:00    A AAAAA  PREVENT ALLOW MEDIUM REMOVAL that allows
  1e:01    C CCACC  PREVENT ALLOW MEDIUM REMOVAL that prevents
  25       C AAAAA  READ CAPACITY(10)
  28       C ACAAC  READ(10)
  2a       C CCACC  WRITE(10)
  2b       C ACAAC  SEEK(10)
  2e       C CCACC  WRITE AND VERIFY(10)
  2f       C ACAAC  VERIFY(10)
  34       C ACAAC  PRE-FETCH(10)
  35       C CCACC  SYNCHRONIZE CACHE(10)
  37       C ACAAC  READ DEFECT DATA(10)
  3b       C CCACC  WRITE BUFFER
  3c       C ACAAC  READ BUFFER(10)
  41       C CCACC  WRITE SAME(10)
  42       C CCACC  UNMAP
  48/01    C CCACC  SANITIZE, OVERWRITE
  48/02    C CCACC  SANITIZE, BLOCK ERASE
  48/03    C CCACC  SANITIZE, CRYPTOGRAPHIC ERASE
  48/1f    C CCACC  SANITIZE, EXIT FAILURE MODE
  4c       C CCACC  LOG SELECT
  4d       C AAAAA  LOG SENSE
  55       C CCACC  MODE SELECT(10)
  5a       C ACAAC  MODE SENSE(10)
  5e/00    C AAAAA  PERSISTENT RESERVE IN
  5e/01    C AAAAA  PERSISTENT RESERVE IN
  5e/02    C AAAAA  PERSISTENT RESERVE IN
  5e/03    C AAAAA  PERSISTENT RESERVE IN
  5f/00    C AAAAA  PERSISTENT RESERVE OUT, REGISTER
  5f/06    C AAAAA  PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY
  7f/09    C ACAAC  READ(32)
  7f/0a    C ACAAC  VERIFY(32)
  7f/0b    C CCACC  WRITE(32)
  7f/0c    C CCACC  WRITE AND VERIFY(32)
  7f/0d    C CCACC  WRITE SAME(32)
  7f/0e    C CCACC  ORWRITE(32)
  7f/0f    C CCACC  WRITE ATOMIC(32)
  83/00    C CCACC  EXTENDED COPY(LID1)
  83/01    C CCACC  EXTENDED COPY(LID4)
  83/10    C ACAAC  POPULATE TOKEN
  83/11    C CCACC  WRITE USING TOKEN
  83/1c    C AAAAA  COPY OPERATION ABORT
  84/00    C AAAAA  RECEIVE COPY STATUS(LID1)
  84/03    C AAAAA  RECEIVE COPY OPERATING PARAMETERS
  84/04    C AAAAA  RECEIVE COPY FAILURE DETAILS(LID1)
  84/05    C AAAAA  RECEIVE COPY STATUS(LID4)
  84/07    C AAAAA  RECEIVE ROD TOKEN INFORMATION
  84/08    C AAAAA  REPORT ALL ROD TOKENS
  88       C ACAAC  READ(16)
  89       C CCACC  COMPARE AND WRITE
  8a       C CCACC  WRITE(16)
  8b       C CCACC  ORWRITE(16)
  8e       C CCACC  WRITE AND VERIFY(16)
  8f       C ACAAC  VERIFY(16)
  90       C ACAAC  PRE-FETCH(16)
  91       C CCACC  SYNCHRONIZE CACHE(16)
  93       C CCACC  WRITE SAME(16)
  9b       C ACAAC  READ BUFFER(16)
  9c       C CCACC  WRITE ATOMIC(16)
  9e/10    C AAAAA  READ CAPACITY(16)
  9e/12    C ACAAC  GET LBA STATUS(16)
  a0       A AAAAA  REPORT LUNS
  a3/0a    C AAAAA  REPORT TARGET PORT GROUPS
  a3/0c    C ACAAC  REPORT SUPPORTED OPERATION CODES
  a3/0d    C ACAAC  REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
  a3/0f    C AAAAA  REPORT TIMESTAMP
  a4/0a    C CCACC  SET TARGET PORT GROUPS
  a8       C ACAAC  READ(12)
  aa       C CCACC  WRITE(12)
  ae       C CCACC  WRITE AND VERIFY(12)
  af       C ACAAC  VERIFY(12)
  b7       C ACAAC  READ DEFECT DATA(12)
`;

/** They conflict by keys and holders, not by this table: see the tests of the commands. */
const BY_THEMSELVES = ['16', '17', '56', '57', '5f/01', '5f/02', '5f/03', '5f/04', '5f/05', '5f/07'];

interface Line {
  row: CommandRow;
  byte4: number;
  byReserve: string;
  persistent: string;
  text: string;
}

const { rows } = REMOVABLE_COMMANDS.inTarget;
const hex = (value: number): string => value.toString(16).padStart(2, '0');
const idOf = ({ opcode, serviceAction }: CommandRow): string =>
  serviceAction < 0 ? hex(opcode) : `${hex(opcode)}/${hex(serviceAction)}`;

const LINES: Line[] = TABLE.trim()
  .split('\n')
  .flatMap((line) => {
    const [id = '', byReserve = '', persistent = '', ...text] = line.trim().split(/ +/);
    const [name, byte4 = '00'] = id.split(':');
    const row = rows.find((one) => idOf(one) === name);
    return row === undefined
      ? []
      : [{ row, byte4: Number.parseInt(byte4, 16), byReserve, persistent, text: text.join(' ') }];
  });

const HOLDER = 'iqn.x:holder,i,0x000000000001';
const REGISTRANT = 'iqn.x:registrant,i,0x000000000001';
const STRANGER = 'iqn.x:stranger,i,0x000000000001';

describe('what reservations refuse', () => {
  let cluster: Cluster;
  let holder: Nexus;
  let registrant: Nexus;
  let stranger: Nexus;

  beforeEach(() => {
    cluster = new Cluster({ removable: true });
    holder = cluster.login(HOLDER);
    registrant = cluster.login(REGISTRANT);
    stranger = cluster.login(STRANGER);
  });

  /** Whether that nexus may have the command: anything but RESERVATION CONFLICT, which is all that a check before the data tells. */
  function isAllowed(nexus: Nexus, { row, byte4 }: Line): boolean {
    const cdb = new Uint8Array(row.cdbLength);
    cdb[0] = row.opcode;
    if (row.opcode === 0x7f) cdb.set([0x18, 0, row.serviceAction], 7);
    else if (row.serviceAction >= 0) cdb[1] = row.serviceAction;
    cdb[4] = byte4;
    return cluster.send(nexus, cdb, new Uint8Array(0), 256).status !== Status.RESERVATION_CONFLICT;
  }

  it('is written down for every row of the command table', () => {
    const told = new Set([...LINES.map(({ row }) => idOf(row)), ...BY_THEMSELVES]);
    expect(rows.map(idOf).filter((id) => !told.has(id))).toEqual([]);
  });

  it('is what the standards say when another nexus has the unit with RESERVE', () => {
    expect(cluster.send(holder, [0x16, 0, 0, 0, 0, 0]).status).toBe(Status.GOOD);
    for (const line of LINES) expect(isAllowed(stranger, line), line.text).toBe(line.byReserve === 'A');
    for (const line of LINES) {
      expect(isAllowed(holder, line), line.text).toBe(!line.text.startsWith('PERSISTENT'));
    }
  });

  it.each([1, 3, 5, 6, 7, 8])('is what the standards say with a persistent reservation of type %i', (type) => {
    for (const [nexus, newKey] of [
      [holder, 1],
      [registrant, 2],
    ] as const) {
      cluster.out(nexus, PR_OUT.REGISTER, { newKey });
    }
    expect(cluster.out(holder, PR_OUT.RESERVE, { key: 1, type }).status).toBe(Status.GOOD);
    const writeExclusive = [1, 5, 7].includes(type);
    const forRegistrants = type >= 5;
    for (const line of LINES) {
      const [anyWrite, anyAccess, ofRegistrant, unregisteredWrite, unregisteredAccess] = line.persistent;
      const of = (letter: string | undefined): boolean => letter === 'A';
      const ofAny = of(writeExclusive ? anyWrite : anyAccess);
      const ofStranger = of(writeExclusive ? unregisteredWrite : unregisteredAccess);
      expect(isAllowed(holder, line), `${line.text} of the holder`).toBe(true);
      expect(isAllowed(registrant, line), `${line.text} of a registrant`).toBe(
        forRegistrants ? of(ofRegistrant) : ofAny,
      );
      expect(isAllowed(stranger, line), `${line.text} of a stranger`).toBe(forRegistrants ? ofStranger : ofAny);
    }
  });

  it('comes before unit attentions but those of resets', () => {
    cluster.out(holder, PR_OUT.REGISTER, { newKey: 1 });
    cluster.out(holder, PR_OUT.RESERVE, { key: 1, type: 3 });
    cluster.unit.inquiryChanged();
    const read = LINES.find(({ text }) => text === 'READ(10)')!;
    expect(isAllowed(stranger, read)).toBe(false);
    expect(cluster.attentions(stranger)).toEqual(['3f/03']);
    cluster.unit.reset(null, () => {});
    expect(isAllowed(stranger, read)).toBe(true);
    expect(isAllowed(stranger, read)).toBe(false);
  });
});
