import { describe, expect, it } from 'vitest';
import { DEFAULT_LIMITS } from '../../src/iscsi/limits.ts';
import { type NegotiationContext, negotiate } from '../../src/iscsi/negotiation.ts';
import { Parameters } from '../../src/iscsi/parameters.ts';

function context(change: Partial<NegotiationContext> = {}): NegotiationContext {
  return {
    limits: DEFAULT_LIMITS,
    parameters: new Parameters(),
    discovery: false,
    fullFeature: false,
    leading: true,
    ...change,
  };
}

/** The answer to one offered key, undefined when there is none. */
function answer(key: string, value: string, where: NegotiationContext = context()): string | undefined {
  return negotiate([{ key, value }], where).find((pair) => pair.key === key)?.value;
}

describe('the negotiation of', () => {
  it.each([
    // Lists: the first of theirs that we have.
    ['HeaderDigest', 'None', 'None'],
    ['HeaderDigest', 'CRC32C', 'CRC32C'],
    ['HeaderDigest', 'CRC32C,None', 'CRC32C'],
    ['HeaderDigest', 'None,CRC32C', 'None'],
    ['HeaderDigest', 'X-md5,CRC32C', 'CRC32C'],
    ['HeaderDigest', 'X-md5', 'Reject'],
    ['HeaderDigest', 'crc32c', 'Reject'],
    ['HeaderDigest', '', 'Reject'],
    ['DataDigest', 'CRC32C,None', 'CRC32C'],
    ['DataDigest', 'SHA', 'Reject'],
    ['TaskReporting', 'FastAbort,RFC3720', 'RFC3720'],
    ['TaskReporting', 'FastAbort', 'Reject'],
    // The smaller number.
    ['MaxConnections', '8', '4'],
    ['MaxConnections', '2', '2'],
    ['MaxConnections', '1', '1'],
    ['MaxConnections', '0', 'Reject'],
    ['MaxConnections', '65536', 'Reject'],
    ['MaxBurstLength', '512', '512'],
    ['MaxBurstLength', '262144', '262144'],
    ['MaxBurstLength', '16777215', '1048576'],
    ['MaxBurstLength', '0x10000', '65536'],
    ['MaxBurstLength', '511', 'Reject'],
    ['MaxBurstLength', '16777216', 'Reject'],
    ['MaxBurstLength', 'much', 'Reject'],
    ['FirstBurstLength', '4096', '4096'],
    ['FirstBurstLength', '262144', '65536'],
    ['FirstBurstLength', '511', 'Reject'],
    ['MaxOutstandingR2T', '1', '1'],
    ['MaxOutstandingR2T', '65535', '4'],
    ['MaxOutstandingR2T', '0', 'Reject'],
    ['ErrorRecoveryLevel', '0', '0'],
    ['ErrorRecoveryLevel', '2', '0'],
    ['ErrorRecoveryLevel', '3', 'Reject'],
    ['DefaultTime2Retain', '3600', '0'],
    ['DefaultTime2Retain', '3601', 'Reject'],
    ['iSCSIProtocolLevel', '1', '1'],
    ['iSCSIProtocolLevel', '3', '2'],
    ['iSCSIProtocolLevel', '0', '0'],
    ['iSCSIProtocolLevel', '32', 'Reject'],
    // The larger number.
    ['DefaultTime2Wait', '2', '2'],
    ['DefaultTime2Wait', '0', '0'],
    ['DefaultTime2Wait', '3601', 'Reject'],
    // OR and AND.
    ['InitialR2T', 'Yes', 'Yes'],
    ['InitialR2T', 'No', 'No'],
    ['InitialR2T', 'maybe', 'Reject'],
    ['ImmediateData', 'Yes', 'Yes'],
    ['ImmediateData', 'No', 'No'],
    ['ImmediateData', 'yes', 'Reject'],
    ['DataPDUInOrder', 'No', 'Yes'],
    ['DataPDUInOrder', 'Yes', 'Yes'],
    ['DataSequenceInOrder', 'No', 'Yes'],
    // Declarations have no answer unless they are wrong.
    ['MaxRecvDataSegmentLength', '512', undefined],
    ['MaxRecvDataSegmentLength', '16777215', undefined],
    ['MaxRecvDataSegmentLength', '511', 'Reject'],
    ['MaxRecvDataSegmentLength', '16777216', 'Reject'],
    ['InitiatorAlias', 'host', undefined],
    // Obsolete.
    ['IFMarker', 'No', 'No'],
    ['OFMarker', 'Yes', 'No'],
    ['IFMarkInt', '2048~8192', 'Reject'],
    ['OFMarkInt', '1', 'Reject'],
    // Ours to say, or not for a negotiation.
    ['TargetAlias', 'x', 'Reject'],
    ['TargetAddress', '1.2.3.4', 'Reject'],
    ['TargetPortalGroupTag', '1', 'Reject'],
    ['SendTargets', 'All', 'Reject'],
    ['AuthMethod', 'None', 'Reject'],
    // Nobody's.
    ['X-com.example.Thing', '1', 'NotUnderstood'],
    ['headerdigest', 'None', 'NotUnderstood'],
    ['Fnord', 'NotUnderstood', 'NotUnderstood'],
  ])('%s=%s is answered %s in a login', (key, value, expected) => {
    expect(answer(key, value)).toBe(expected);
  });

  it('leaves its results in the parameters', () => {
    const { parameters } = context();
    negotiate(
      [
        { key: 'HeaderDigest', value: 'CRC32C' },
        { key: 'DataDigest', value: 'None' },
        { key: 'InitialR2T', value: 'No' },
        { key: 'ImmediateData', value: 'No' },
        { key: 'MaxRecvDataSegmentLength', value: '4096' },
        { key: 'FirstBurstLength', value: '8192' },
        { key: 'MaxBurstLength', value: '16384' },
        { key: 'MaxOutstandingR2T', value: '3' },
        { key: 'DefaultTime2Wait', value: '5' },
      ],
      context({ parameters }),
    );
    expect(parameters).toMatchObject({
      headerDigest: true,
      dataDigest: false,
      initialR2T: false,
      immediateData: false,
      initiatorSegmentLength: 4096,
      firstBurstLength: 8192,
      maxBurstLength: 16384,
      maxOutstandingR2T: 3,
      defaultTime2Wait: 5,
    });
  });

  it('leaves the parameters as they were when it rejects', () => {
    const { parameters } = context();
    const before = { ...parameters };
    for (const key of [
      'HeaderDigest',
      'InitialR2T',
      'MaxBurstLength',
      'MaxRecvDataSegmentLength',
      'MaxOutstandingR2T',
    ]) {
      expect(answer(key, 'nonsense', context({ parameters }))).toBe('Reject');
    }
    expect({ ...parameters }).toEqual(before);
  });

  it('FirstBurstLength never exceeds MaxBurstLength, in whatever order they come', () => {
    for (const pairs of [
      [
        { key: 'FirstBurstLength', value: '65536' },
        { key: 'MaxBurstLength', value: '1024' },
      ],
      [
        { key: 'MaxBurstLength', value: '1024' },
        { key: 'FirstBurstLength', value: '65536' },
      ],
    ]) {
      const where = context();
      expect(negotiate(pairs, where)).toContainEqual({ key: 'FirstBurstLength', value: '1024' });
      expect(where.parameters.firstBurstLength).toBe(1024);
    }
    const later = context();
    negotiate([{ key: 'MaxBurstLength', value: '1024' }], later);
    expect(later.parameters.unsolicitedLength).toBe(1024);
  });

  it('FirstBurstLength is irrelevant when nothing may come unasked', () => {
    const answers = negotiate(
      [
        { key: 'FirstBurstLength', value: '65536' },
        { key: 'InitialR2T', value: 'Yes' },
        { key: 'ImmediateData', value: 'No' },
      ],
      context(),
    );
    expect(answers).toContainEqual({ key: 'FirstBurstLength', value: 'Irrelevant' });
  });

  it.each([
    'MaxConnections',
    'InitialR2T',
    'ImmediateData',
    'MaxBurstLength',
    'FirstBurstLength',
    'MaxOutstandingR2T',
    'DataPDUInOrder',
    'DataSequenceInOrder',
    'TaskReporting',
  ])('%s is irrelevant in a discovery session', (key) => {
    expect(answer(key, '1024', context({ discovery: true }))).toBe('Irrelevant');
  });

  it.each(['HeaderDigest', 'MaxBurstLength', 'InitialR2T', 'ErrorRecoveryLevel', 'MaxConnections', 'IFMarker'])(
    '%s is rejected in full feature phase',
    (key) => {
      const where = context({ fullFeature: true, leading: false });
      const before = { ...where.parameters };
      expect(answer(key, '1024', where)).toBe('Reject');
      expect({ ...where.parameters }).toEqual(before);
    },
  );

  it('MaxRecvDataSegmentLength may change in full feature phase', () => {
    const where = context({ fullFeature: true, leading: false });
    expect(answer('MaxRecvDataSegmentLength', '1024', where)).toBeUndefined();
    expect(where.parameters.initiatorSegmentLength).toBe(1024);
  });

  it('keys of the session are rejected in a login that is not its first', () => {
    const where = context({ leading: false });
    expect(answer('MaxBurstLength', '1024', where)).toBe('Reject');
    expect(answer('HeaderDigest', 'CRC32C', where)).toBe('CRC32C');
  });
});
