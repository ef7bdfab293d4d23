import { Access, Attention, type CommandRow } from '../../../src/scsi/command.ts';
import { FIXED_COMMANDS, REMOVABLE_COMMANDS } from '../../../src/scsi/commands.ts';
import { Conflict } from '../../../src/scsi/conflict.ts';
import { MAX_TASKS, MAX_TASKS_PER_NEXUS } from '../../../src/scsi/task-set.ts';

const hex = (value: number, digits = 2): string => value.toString(16).toUpperCase().padStart(digits, '0');

/** Commands that SPC-4 and SBC-4 have for disks and that are not in the table, so that the document names what is missing. */
const NOT_SUPPORTED: readonly (readonly [number, string])[] = [
  [0x07, 'REASSIGN BLOCKS'],
  [0x1c, 'RECEIVE DIAGNOSTIC RESULTS'],
  [0x3e, 'READ LONG(10)'],
  [0x3f, 'WRITE LONG(10)'],
  [0x4c, 'LOG SELECT'],
  [0x85, 'ATA PASS-THROUGH(16)'],
  [0x9f, 'SERVICE ACTION OUT(16)'],
  [0xa1, 'ATA PASS-THROUGH(12)'],
  [0xa2, 'SECURITY PROTOCOL IN'],
  [0xb5, 'SECURITY PROTOCOL OUT'],
];

const ACCESS: Readonly<Record<Access, string>> = {
  [Access.NONE]: '',
  [Access.READ]: 'reads',
  [Access.WRITE]: 'writes',
};

const CONFLICT: Readonly<Record<Conflict, string>> = {
  [Conflict.NEVER]: 'never',
  [Conflict.RESERVED]: 'RESERVE',
  [Conflict.READ]: 'exclusive access',
  [Conflict.WRITE]: 'any',
  [Conflict.PERSISTENT]: 'RESERVE, also its own',
  [Conflict.START]: 'any, without START',
  [Conflict.PREVENT]: 'any, with PREVENT',
};

function rowText(row: CommandRow): string {
  const action = row.serviceAction < 0 ? '' : `/${hex(row.serviceAction)}`;
  const usage = [...row.usage].map((byte) => hex(byte)).join(' ');
  const attention = row.attention === Attention.IGNORE ? 'no' : 'yes';
  return `| ${hex(row.opcode)}${action} | ${row.name} | \`${usage}\` | ${ACCESS[row.access]} | ${attention} | ${CONFLICT[row.conflict]} | ${row.recommendedTimeoutSeconds} |`;
}

/** docs/scsi-support.md: the command table for people. */
export function supportDocument(): string {
  const { rows } = FIXED_COMMANDS.inTarget;
  const removable = REMOVABLE_COMMANDS.inTarget.rows.filter((row) => !rows.includes(row));
  const missing = NOT_SUPPORTED.filter(([opcode]) => rows.every((row) => row.opcode !== opcode)).map(
    ([opcode, name]) => `| ${hex(opcode)} | ${name} |`,
  );
  return `# SCSI commands

Generated from the command table in \`src/scsi/commands.ts\`; a test compares the two. To write it again:
\`UPDATE_DOCS=1 npx vitest run test/scsi/commands.test.ts\`.

Names and fields are those of SPC-4 and SBC-4. The third column is the CDB usage data that REPORT SUPPORTED OPERATION CODES returns: a bit
that is zero there must be zero in a CDB, otherwise the answer is ILLEGAL REQUEST, INVALID FIELD IN CDB with a pointer to the bit.
*Medium* says which commands need a medium and which are refused on a write-protected unit. *UA* says whether a pending
unit attention ends the command. *Conflict* says which reservations of another nexus answer it RESERVATION CONFLICT. The timeout is the recommended one, in seconds.

| opcode | command | CDB usage data | medium | UA | conflict | timeout |
|---|---|---|---|---|---|--:|
${rows.map(rowText).join('\n')}

Only on a removable unit:

| opcode | command | CDB usage data | medium | UA | conflict | timeout |
|---|---|---|---|---|---|--:|
${removable.map(rowText).join('\n')}

The commands of reservations are there only behind the portal: under LIO the kernel has them. REPORT and SET TARGET PORT GROUPS tell under LIO of the groups that LIO has for the backstore, unless its \`alua_support\` is 0.

All other operation codes are answered ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE. Those that other disks may have:

| opcode | command |
|---|---|
${missing.join('\n')}

## Vital product data

| page | content |
|---|---|
| 00 | supported pages |
| 80 | unit serial number |
| 83 | NAA and T10 vendor designators of the unit, by whatever front end; relative port, port group, port name and device name of the target. Under LIO the relative port and the port group, where all commands come through the same |
| 85 | management network addresses: none |
| 86 | extended INQUIRY: HEADSUP and ORDSUP (not under LIO), SIMPSUP, V_SUP, LUICLR |
| 87 | mode page policy: all shared |
| 88 | SCSI ports, with their names; only behind the portal |
| 8F | third-party copy: block device ROD token limits, supported commands, descriptors, CSCD IDs and ROD types, ROD token features, general copy operations |
| B0 | block limits; 3Ch bytes; WSNZ 0; transfers of up to 8 MiB, under LIO of what \`hw_max_sectors\` says; atomic writes of up to 1 MiB, of whole physical blocks |
| B1 | block device characteristics: not rotating; WABEREQ, WACEREQ 01b: what was erased reads without errors |
| B2 | logical block provisioning: thin, LBPU, LBPWS, LBPWS10, LBPRZ (see below), ANC_SUP; threshold sets of 1 MiB |

## Log pages

| page | content |
|---|---|
| 00, 00/FF, each page with FF | what is supported |
| 0C | logical block provisioning: available (of the pool, for all volumes) and used (of the volume) LBA mapping resources |
| 10 | self-test results: none |
| 19 | general statistics: numbers and blocks of READ and WRITE commands; no times |
| 2F | informational exceptions: none, no temperature |

## Mode pages

| page | content | changeable |
|---|---|---|
| 01 | read-write error recovery; on thin units | LBPERE |
| 02 | disconnect-reconnect: no limits | |
| 03, 04 | format device, rigid disk geometry, for old initiators: 128 heads, 256 sectors a track | |
| 08 | caching | WCE |
| 0A | control: TST 0, QERR 0, QUEUE ALGORITHM MODIFIER 1 | D_SENSE, SWP, TAS |
| 0A/01 | control extension | |
| 1C | informational exceptions control: DEXCPT | |
| 1C/02 | logical block provisioning: a soft threshold of what is available, one of what is used; on thin units | ENABLED, THRESHOLD COUNT |
| 3F, 3F/FF | all pages, with subpages | |

All pages are saved with SP, by volume, in \`pool.json\`, before the command is answered. A reset and a restart bring the saved values back, or the defaults. Snapshots begin with
the defaults. The threshold of what is available is the pool's low-water mark, enabled, until an initiator sets another.

## Tasks

One task set for all nexuses of a logical unit, the portal's and TCMU's. SIMPLE tasks begin in any order; an ORDERED task waits for all that came before and holds up all
that comes later; a HEAD OF QUEUE task begins at once and holds up what has not begun. ACA tasks are refused. A nexus has at most ${MAX_TASKS_PER_NEXUS} tasks in a set, all together
${MAX_TASKS}: then TASK SET FULL, or BUSY to a nexus that has none there.

| function | effect |
|---|---|
| ABORT TASK, ABORT TASK SET | the tasks get no status; the response comes when they have ended |
| CLEAR TASK SET | the same for all nexuses; the others get COMMANDS CLEARED BY ANOTHER INITIATOR, or with TAS the status TASK ABORTED |
| LOGICAL UNIT RESET | all tasks of all nexuses end, mode parameters go back, every nexus gets BUS DEVICE RESET FUNCTION OCCURRED |
| TARGET WARM RESET | the same for every logical unit that the nexus may see, with SCSI BUS RESET OCCURRED |
| TARGET COLD RESET | the same, then all sessions end that see a logical unit which the nexus may see, too |
| I_T NEXUS RESET | the tasks of the nexus end everywhere, it gets I_T NEXUS LOSS OCCURRED |
| QUERY TASK, QUERY TASK SET, QUERY ASYNCHRONOUS EVENT | FUNCTION SUCCEEDED where there is a task, or a unit attention |
| CLEAR ACA, TASK REASSIGN | not supported |

Under LIO these functions are LIO's; what it aborts ends early, and what the portal aborts ends with TASK ABORTED there.

## Reservations

* Persistent reservations of all six types with every service action, SPEC_I_PT, ALL_TG_PT and APTPL; RESERVE and RELEASE as in SPC-2, with the exceptions of
  SPC-4 (CRH). Up to 256 registrations a unit.
* RESERVE, RELEASE and PERSISTENT RESERVE OUT do not go by the conflict column alone: keys and holders decide, as their standards say.
* Registrations belong to initiator port (iSCSI name and ISID) and target port, and outlive sessions. With APTPL they outlive the server: they are
  in \`reservations.json\` before the command is answered. Without, a restart forgets them. PRGENERATION begins at 0 with every start.
* ALL_TG_PT registers at each port that the target has at that moment, each of which then is a registration of its own.
* A TransportID without an ISID (TPID FORMAT 00b) in SPEC_I_PT stands for the ports of that initiator that are logged in or registered; where there are none
  the command is refused. REGISTER AND MOVE wants the whole port.
* A reservation is looked at when a command comes, and again when it begins: a write whose data comes after its initiator was preempted does not happen.
* A unit attention for a registrant that is not logged in waits for it, behind POWER ON OCCURRED.
* A persistent reservation that was made through the portal holds for LIO's initiators of the same volume, too: they get RESERVATION CONFLICT.

## Choices

* SYNCHRONIZE CACHE and START STOP UNIT with IMMED return their status when the flush is done, not before.
* READ with FUA and VERIFY flush before they read; WRITE AND VERIFY writes with FUA.
* START STOP UNIT does not stop anything: power conditions are accepted and all of them are ready. Without START it flushes.
* WRITE SAME of zeroes with UNMAP unmaps; of other data with UNMAP it writes.
* LBPRZ is 0 where unmapped blocks may read as something else: over an external origin, and in a pool that skips zeroing. WRITE SAME of zeroes with UNMAP
  writes zeroes there. GET LBA STATUS calls mapped what an external origin shows.
* In a pool with ignore-discard, LBPME, LBPU, LBPWS and LBPWS10 are 0, and UNMAP and the UNMAP bit of WRITE SAME are refused.
* UNMAP is a wish: a pool whose map cannot change at the moment (read-only) answers GOOD and leaves the blocks as they are. WRITE SAME of zeroes with UNMAP
  writes zeroes then.
* What is to be anchored (UNMAP with ANCHOR, WRITE SAME with UNMAP and ANCHOR) is mapped, and zeroed: GET LBA STATUS knows mapped and deallocated blocks.
* SANITIZE and FORMAT UNIT go over the medium in steps, in the background. Their begin is in \`pool.json\` before anything is lost: they go on after an abort, a reset or a
  restart. Meanwhile, and when they have failed, other commands are NOT READY or MEDIUM ERROR, with a progress indication.
* BLOCK ERASE, CRYPTOGRAPHIC ERASE and FORMAT UNIT unmap everything, and discard it where the pool passes discards down; what snapshots share stays theirs. OVERWRITE writes every block,
  which is mapped then, at no more than 192 MiB/s, and as often as it is told. FORMAT UNIT takes no protection information, defect list or initialization pattern.
* WRITE ATOMIC writes to new blocks of the pool, which take the place of the old ones in one transaction: whatever fails, all of it is there or nothing, and nobody reads a
  part. It costs a copy of what it does not cover of them. Pools of blocks above 1 MiB do not offer it.
* The 32-byte commands take no protection information either: their tags mean nothing.
* THIN PROVISIONING SOFT THRESHOLD REACHED comes once to each nexus, with the place of the threshold in the mode page in INFORMATION; again when the threshold was left by a
  threshold set and is reached again.
* WRITE BUFFER and READ BUFFER have a data buffer of 16 KiB, zeroes at first, and an echo buffer of 4 KiB that shows a nexus only what it wrote itself. A reset clears both.
* REPORT TIMESTAMP tells milliseconds since the server began; it cannot be set. REZERO UNIT and SEEK, of old guests, do nothing.
* GROUP NUMBER is accepted and means nothing.
* EXTENDED COPY takes segments 02h (block to block), 0Ah (block to block with offset) and 07h (verify), between LUNs of the target that the initiator may
  use itself, named by NAA or T10 vendor designator or FFFFh. STR, CAT and PRIORITY mean nothing; G_SENSE and inline data are refused; with IMMED the status waits for the
  copy. What overlaps itself or is no whole number of blocks is refused. What is wrong with a segment is COPY ABORTED with its number in COMMAND-SPECIFIC INFORMATION.
* A copy within a pool shares whole blocks where both ranges begin at the same place in a block of the pool, and moves the rest.
* A ROD token represents the data as it was when POPULATE TOKEN made it. It ends (TOKEN REVOKED) as soon as one of its blocks is written, 60 s after its last use, or as
  asked up to 600 s, and with the server. It can be used at any LUN of the target by initiators that may read the LUN it is of. The zero token unmaps where that reads as zeroes.
* What is known of a copy is kept until its list identifier is used again, or an I_T nexus loss or reset; 64 for a nexus, the oldest goes first. The status for LID1, failure details and
  tokens are told once.
* COMPARE AND WRITE, ORWRITE, WRITE AND VERIFY, and WRITE SAME of anything but zeroes have their blocks to themselves from the first to the last step.
* A transfer that the initiator announced shorter than its CDB moves what was announced (WRITE: its whole blocks) and ends GOOD with an overflow.
  COMPARE AND WRITE and WRITE SAME, where half of the data means nothing, are refused.
`;
}
