import { describe, expect, it } from 'vitest';
import { excuse, isLostRace } from './exceptions.mjs';
import { PROFILES } from './profiles.mjs';
import { judge, type Verdict } from './verdict.mjs';

/** What the tool prints about one test. */
const said = (body: string, end = 'passed', asserts = 3): string => `[SKIPPED] of its own setting up
Suite: Read10
  Test: Simple ...
${body}${end}
Run Summary:    Type  Total    Ran Passed Failed Inactive
              suites      1      1    n/a      0        0
               tests      1      1      1      0        0
             asserts  ${asserts}  ${asserts}  ${asserts}      0      n/a
`;
const EXITED = { code: 0, signal: null };
const verdictOf = (text: string, limit: number | null = null): Verdict => judge(text, EXITED, limit).verdict;

describe('what the tool says of a test', () => {
  it('is a pass only when it has asserted something and has left nothing out', () => {
    expect(verdictOf(said('    [OK] READ10\n'))).toBe('pass');
    expect(verdictOf(said('    [SKIPPED] READ10 is not implemented.\n'))).toBe('skip');
    expect(verdictOf(said('    [OK] READ10\n', 'passed', 0))).toBe('empty');
  });

  it('is a failure, with its first complaint, when it says so', () => {
    const text = `${said('    [FAILED] READ10 failed\n', 'FAILED')}\n    1. test_read10.c:42  - CU_ASSERT_EQUAL(ret,0)\n`;
    expect(judge(text, EXITED, null)).toMatchObject({ verdict: 'fail', reason: 'test_read10.c:42 READ10 failed' });
  });

  it('is no pass when the tool died, said nothing or did not end', () => {
    expect(verdictOf('')).toBe('crash');
    expect(verdictOf('Suite: Read10\n  Test: Simple ...\n    [OK] READ10\n')).toBe('crash');
    expect(verdictOf(said('    [OK] READ10\n'), 25_000)).toBe('timeout');
  });
});

describe('an exception', () => {
  const [fine] = PROFILES;
  const of = (test: string, text: string, unreleased = false): Verdict =>
    excuse(`ALL.${test}`, fine!, judge(text, EXITED, null), unreleased).verdict;
  const FAILED = said('    [FAILED] it\n', 'FAILED');

  it('excuses its test, and no other', () => {
    expect(of('WriteSame10.UnmapUntilEnd', FAILED)).toBe('tool');
    expect(of('WriteSame16.UnmapUntilEnd', FAILED)).toBe('fail');
    expect(of('GetLBAStatus.UnmapSingle', FAILED)).toBe('fail');
  });

  it('of the development version does not excuse the release', () => {
    expect(of('iSCSITMF.AbortTaskSimpleAsync', FAILED)).toBe('fail');
    expect(of('iSCSITMF.AbortTaskSimpleAsync', FAILED, true)).toBe('tool');
  });

  it('excuses neither what was skipped nor, where asserting nothing is the error, what fails', () => {
    expect(of('iSCSICHAP.HexName', said('    [SKIPPED] requires CHAP\n'), true)).toBe('skip');
    expect(of('iSCSICHAP.HexName', FAILED, true)).toBe('fail');
    expect(of('iSCSICHAP.HexName', said('', 'passed', 0), true)).toBe('tool');
    expect(of('Unmap.VPD', said('    [WARNING] odd\n', 'passed', 0))).toBe('empty');
    expect(of('Unmap.VPD', said('    [SUCCESS] fine\n', 'passed', 0))).toBe('tool');
  });

  it('is no excuse of a read-only LUN for anything but a refused write', () => {
    const readOnly = PROFILES.find(({ refusesWrites }) => refusesWrites)!;
    const on = (body: string): Verdict =>
      excuse('ALL.Write10.Simple', readOnly, judge(said(body, 'FAILED'), EXITED, null)).verdict;
    expect(on('    [FAILED] WRITE10 failed with status 0x2 / sense key DATA PROTECTION(0x07)\n')).toBe('refused');
    expect(on('    [FAILED] WRITE10 failed with status 0x2 / sense key MEDIUM ERROR(0x03)\n')).toBe('fail');
  });
});

describe('a race that LIO loses', () => {
  const LATE = 'test_reserve6_logout.c:64 RESERVE6 command: failed with sense. RESERVATION CONFLICT';
  const lost = (test: string, profile: string, reason: string, verdict: Verdict = 'fail'): boolean =>
    isLostRace(`ALL.${test}`, profile, { verdict, reason });

  it('is one complaint of one test over LIO, and nothing else', () => {
    expect(lost('Reserve6.Logout', 'lio', LATE)).toBe(true);
    expect(lost('Reserve6.Logout', 'A', LATE)).toBe(false);
    expect(lost('Reserve6.ITNexusLoss', 'lio', LATE)).toBe(false);
    expect(lost('Reserve6.Logout', 'lio', LATE.replace(':64', ':45'))).toBe(false);
    expect(lost('Reserve6.Logout', 'lio', LATE, 'timeout')).toBe(false);
  });
});
