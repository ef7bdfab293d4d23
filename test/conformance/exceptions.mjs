/**
 * Tests that no correct target can pass, because of the tool itself. Nothing else excuses a test.
 * An exception that passes is reported, so that none stays longer than the error that it is for.
 */
import { rank } from './verdict.mjs';

/**
 * @typedef {object} Exception
 * @property {string} test ALL.Suite.Test
 * @property {readonly string[]} [profiles] Only in these.
 * @property {string} reason
 * @property {boolean} [assertsOnlyFailures] It has no assertion that can hold; that it said `[SUCCESS]`, and not `[WARNING]`, is wanted instead.
 * @property {boolean} [assertsNothing] It is over when its login has succeeded; that it came so far, and was not skipped, is wanted.
 * @property {boolean} [unreleased] Only in the development version.
 */

/** @type {readonly Exception[]} */
export const EXCEPTIONS = [
  {
    test: 'ALL.GetLBAStatus.UnmapSingle',
    profiles: ['B', 'lio'],
    reason:
      'asks for the status from one block after a physical block begins and expects the answer to begin one physical block later',
  },
  {
    test: 'ALL.CompareAndWrite.InvalidDataOutSize',
    profiles: ['B', 'lio'],
    reason:
      'means to falsify the number of blocks in the CDB, but its condition for SCSI commands is inverted: what it sends is a good command over two blocks, which do not compare',
  },
  {
    test: 'ALL.WriteSame10.UnmapUntilEnd',
    reason:
      'sends a block of FFh with UNMAP set and expects zeroes back; SBC has the block written where unmapping would not read back as it',
  },
  {
    test: 'ALL.ReportSupportedOpcodes.OneCommand',
    reason:
      'keeps 16 bytes of CDB usage data, and compares the opcode of a CDB of 32 bytes with a zero that it has in their place',
  },
  {
    test: 'ALL.Sanitize.Reset',
    profiles: ['D'],
    reason: 'does not look at the answer to its SANITIZE, which is that the medium is write-protected',
  },
  ...['Unmap.VPD', 'WriteSame10.UnmapVPD', 'WriteSame16.UnmapVPD', 'Inquiry.VersionDescriptors'].map((name) => ({
    test: `ALL.${name}`,
    assertsOnlyFailures: true,
    reason: 'asserts only when something is wrong; all that it looked at it calls a success',
  })),
  ...['AbortTaskSimpleAsync', 'LUNResetSimpleAsync'].map((name) => ({
    test: `ALL.iSCSITMF.${name}`,
    unreleased: true,
    reason: 'asserts that a PDU is still queued which its library now sends at once; passes in 1.20.0',
  })),
  ...['HexName', 'Base64Name'].map((name) => ({
    test: `ALL.iSCSICHAP.${name}`,
    unreleased: true,
    assertsNothing: true,
    reason: 'is over when the login with such a name has succeeded, as it has, and asserts nothing',
  })),
];

/**
 * Tests whose result depends on who is faster: LIO with the initiator, whatever handler or file is below it. Such a failure is tried again; one
 * that comes back each time is a failure.
 * @type {readonly { test: string, profile: string, complaint: RegExp, reason: string }[]}
 */
export const RACES = [
  {
    test: 'ALL.Reserve6.Logout',
    profile: 'lio',
    complaint: /test_reserve6_logout\.c:64 .*RESERVATION CONFLICT/,
    reason:
      'LIO answers a logout before it lets go of what the session had reserved; who is quick meets the old reservation (5 times of 150 with a plain file as backstore)',
  },
];

/** Whether this failure may only be a race that LIO has lost. @param {string} test @param {string} profile @param {{ verdict: string, reason: string }} told */
export function isLostRace(test, profile, { verdict, reason }) {
  const race = RACES.find((one) => one.test === test && one.profile === profile);
  return verdict === 'fail' && race !== undefined && race.complaint.test(reason);
}

/** Those of one version of the tool. @param {boolean} unreleased */
export function exceptionsOf(unreleased) {
  return EXCEPTIONS.filter((one) => unreleased || one.unreleased !== true);
}

/** @param {string} test @param {string} profile @param {boolean} unreleased @returns {Exception | undefined} */
export function exceptionFor(test, profile, unreleased) {
  return exceptionsOf(unreleased).find((one) => one.test === test && (one.profiles?.includes(profile) ?? true));
}

/** The first complaint counts: what comes after it may follow from it. @param {import('./verdict.mjs').Judgement} judged */
function complainsOfRefusal({ body, reason }) {
  const complaint = /\[FAILED\].*/.exec(body)?.[0];
  if (complaint === undefined) return /SCSI_STATUS_CHECK_CONDITION\)/.test(reason);
  return /DATA PROTECTION|\(0x07\)\/\(0x2700\)|COPY ABORTED/.test(complaint);
}

/**
 * The judgement with what is excused taken into account.
 * @param {string} test @param {import('./profiles.mjs').Profile} profile @param {import('./verdict.mjs').Judgement} judged
 * @param {boolean} [unreleased] It is the development version of the tool.
 * @returns {import('./verdict.mjs').Judgement}
 */
export function excuse(test, profile, judged, unreleased = false) {
  if (judged.verdict === 'pass') return judged;
  if (profile.refusesWrites && rank(judged.verdict) >= rank('fail') && complainsOfRefusal(judged)) {
    return { ...judged, verdict: 'refused' };
  }
  const exception = exceptionFor(test, profile.id, unreleased);
  if (exception === undefined) return judged;
  if (judged.verdict === 'skip') return judged;
  if (exception.assertsOnlyFailures) {
    const content = judged.verdict === 'empty' && /\[SUCCESS\]/.test(judged.body) && !/\[WARNING\]/.test(judged.body);
    if (!content) return judged;
  }
  if (exception.assertsNothing && judged.verdict !== 'empty') return judged;
  return { ...judged, verdict: 'tool', reason: exception.reason };
}
