import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { DEFAULT_LIMITS, type PortalLimits } from '../../src/iscsi/limits.ts';
import { Login, type LoginReply, type LoginRequest } from '../../src/iscsi/login.ts';
import { LoginStatus } from '../../src/iscsi/spec.ts';
import { INITIATOR_NAME, TARGET_NAME, textData, textPairs } from '../support/iscsi-initiator.ts';

function login(limits: Partial<PortalLimits> = {}, admitted: LoginStatus = LoginStatus.SUCCESS): Login {
  return new Login({
    limits: { ...DEFAULT_LIMITS, ...limits },
    portalGroupTag: 1,
    randomBytes,
    gate: (_initiator, name) => ({ open: name === null || name === TARGET_NAME, chap: false, credentials: [] }),
    admit: () => admitted,
  });
}

const NAMES = { InitiatorName: INITIATOR_NAME, TargetName: TARGET_NAME };

function request(pairs: Record<string, string> | Uint8Array, change: Partial<LoginRequest> = {}): LoginRequest {
  return {
    transit: false,
    continues: false,
    currentStage: 1,
    nextStage: 0,
    versionMin: 0,
    isid: '800000000001',
    tsih: 0,
    cid: 1,
    cmdSn: 5,
    text: pairs instanceof Uint8Array ? pairs : textData(pairs),
    ...change,
  };
}

const toOperational = { transit: true, currentStage: 0, nextStage: 1 } as const;
const toFullFeature = { transit: true, currentStage: 1, nextStage: 3 } as const;

function expectFailure(reply: LoginReply, status: LoginStatus): void {
  expect(reply).toMatchObject({ status, transit: false, complete: false });
  expect(reply.text).toHaveLength(0);
  expect(reply.reason).not.toBe('');
}

describe('a login', () => {
  it('in one request goes from the operational stage to full feature phase', () => {
    const state = login();
    const reply = state.next(request({ ...NAMES, HeaderDigest: 'CRC32C,None' }, toFullFeature));
    expect(reply).toMatchObject({ status: 0, transit: true, complete: true, currentStage: 1, nextStage: 3 });
    expect(textPairs(reply.text)).toEqual({
      TargetPortalGroupTag: '1',
      HeaderDigest: 'CRC32C',
      MaxRecvDataSegmentLength: '262144',
    });
    expect(state).toMatchObject({ initiatorName: INITIATOR_NAME, targetName: TARGET_NAME, discovery: false, cid: 1 });
    expect(state.parameters.targetSegmentLength).toBe(262144);
  });

  it('may go through the security stage with no authentication', () => {
    const state = login();
    const first = state.next(request({ ...NAMES, AuthMethod: 'CHAP,None' }, toOperational));
    expect(first).toMatchObject({ status: 0, transit: true, complete: false, nextStage: 1 });
    expect(textPairs(first.text)).toEqual({ TargetPortalGroupTag: '1', AuthMethod: 'None' });
    const second = state.next(request({ InitialR2T: 'No' }, toFullFeature));
    expect(second.complete).toBe(true);
    expect(textPairs(second.text)).toEqual({ InitialR2T: 'No', MaxRecvDataSegmentLength: '262144' });
  });

  it('may go from the security stage to full feature phase, with the default lengths', () => {
    const state = login();
    const reply = state.next(request(NAMES, { transit: true, currentStage: 0, nextStage: 3 }));
    expect(reply.complete).toBe(true);
    expect(textPairs(reply.text)).toEqual({ TargetPortalGroupTag: '1' });
    expect(state.parameters.targetSegmentLength).toBe(8192);
  });

  it('may take several requests for one stage', () => {
    const state = login();
    expect(state.next(request(NAMES))).toMatchObject({ status: 0, transit: false, currentStage: 1 });
    expect(state.next(request({ MaxBurstLength: '4096' }))).toMatchObject({ status: 0, transit: false });
    expect(state.next(request({}, toFullFeature)).complete).toBe(true);
    expect(state.parameters.maxBurstLength).toBe(4096);
  });

  it('of a discovery session needs no target', () => {
    const state = login();
    const pairs = { InitiatorName: INITIATOR_NAME, SessionType: 'Discovery', MaxBurstLength: '1024' };
    const reply = state.next(request(pairs, toFullFeature));
    expect(textPairs(reply.text)).toEqual({ MaxBurstLength: 'Irrelevant', MaxRecvDataSegmentLength: '262144' });
    expect(state).toMatchObject({ discovery: true, targetName: null });
  });

  it('takes names as they are compared: in lower case', () => {
    const state = login();
    state.next(request({ InitiatorName: INITIATOR_NAME.toUpperCase(), TargetName: TARGET_NAME.toUpperCase() }));
    expect(state).toMatchObject({ initiatorName: INITIATOR_NAME, targetName: TARGET_NAME });
  });

  it('may continue a text over several requests, even in the middle of a key', () => {
    const state = login();
    const text = Buffer.from(textData({ ...NAMES, MaxBurstLength: '4096' }));
    for (let at = 0; at < text.length - 10; at += 10) {
      const reply = state.next(request(text.subarray(at, at + 10), { continues: true }));
      expect(reply).toMatchObject({ status: 0, transit: false, continues: false });
      expect(reply.text).toHaveLength(0);
    }
    const rest = text.subarray(Math.floor((text.length - 1) / 10) * 10);
    expect(state.next(request(rest, toFullFeature)).complete).toBe(true);
    expect(state.parameters.maxBurstLength).toBe(4096);
  });

  it('gives an answer that is too long for one response in parts', () => {
    const state = login();
    // 100 keys of 60 characters, each answered "NotUnderstood": more than 8192 bytes come out of less than 8192.
    const pairs: Record<string, string> = { ...NAMES };
    for (let i = 0; i < 120; i++) pairs[`X-${String(i).padStart(58, 'k')}`] = '';
    const first = state.next(request(pairs, toFullFeature));
    expect(first).toMatchObject({ status: 0, continues: true, transit: false, complete: false });
    expect(first.text).toHaveLength(8192);
    const second = state.next(request({}, toFullFeature));
    expect(second).toMatchObject({ continues: false, transit: true, complete: true });
    const answers = textPairs(Buffer.concat([first.text, second.text]));
    expect(Object.values(answers).filter((value) => value === 'NotUnderstood')).toHaveLength(120);
  });

  it.each<[string, LoginStatus, LoginRequest]>([
    ['without InitiatorName', LoginStatus.MISSING_PARAMETER, request({ TargetName: TARGET_NAME })],
    ['without TargetName', LoginStatus.MISSING_PARAMETER, request({ InitiatorName: INITIATOR_NAME })],
    ['with an empty text', LoginStatus.MISSING_PARAMETER, request({})],
    [
      'to a target that is not there',
      LoginStatus.NOT_FOUND,
      request({ ...NAMES, TargetName: 'iqn.2026-01.org.other:x' }),
    ],
    ['with a TargetName that is no name', LoginStatus.INITIATOR_ERROR, request({ ...NAMES, TargetName: 'disk' })],
    [
      'with an InitiatorName that is no name',
      LoginStatus.INITIATOR_ERROR,
      request({ ...NAMES, InitiatorName: 'iqn.' }),
    ],
    [
      'with a name of 224 bytes',
      LoginStatus.INITIATOR_ERROR,
      request({ ...NAMES, InitiatorName: `iqn.${'x'.repeat(220)}` }),
    ],
    [
      'with a control character in a name',
      LoginStatus.INITIATOR_ERROR,
      request({ ...NAMES, InitiatorName: 'iqn.x\ny' }),
    ],
    [
      'with an unknown SessionType',
      LoginStatus.SESSION_TYPE_NOT_SUPPORTED,
      request({ ...NAMES, SessionType: 'Gossip' }),
    ],
    ['of version 1 and up', LoginStatus.UNSUPPORTED_VERSION, request(NAMES, { versionMin: 1 })],
    ['that begins in full feature phase', LoginStatus.INITIATOR_ERROR, request(NAMES, { currentStage: 3 })],
    ['that begins in the reserved stage', LoginStatus.INITIATOR_ERROR, request(NAMES, { currentStage: 2 })],
    ['that goes back', LoginStatus.INITIATOR_ERROR, request(NAMES, { transit: true, currentStage: 1, nextStage: 0 })],
    [
      'that stays with T',
      LoginStatus.INITIATOR_ERROR,
      request(NAMES, { transit: true, currentStage: 1, nextStage: 1 }),
    ],
    ['that goes to the reserved stage', LoginStatus.INITIATOR_ERROR, request(NAMES, { transit: true, nextStage: 2 })],
    ['with T and C', LoginStatus.INITIATOR_ERROR, request(NAMES, { ...toFullFeature, continues: true })],
    ['with damaged text', LoginStatus.INITIATOR_ERROR, request(Buffer.from('InitiatorName'))],
    [
      'that can only do CHAP',
      LoginStatus.AUTHENTICATION_FAILURE,
      request({ ...NAMES, AuthMethod: 'CHAP' }, { currentStage: 0 }),
    ],
    [
      'with an operational key in the security stage',
      LoginStatus.INITIATOR_ERROR,
      request({ ...NAMES, HeaderDigest: 'None' }, { currentStage: 0 }),
    ],
  ])('%s fails', (_what, status, first) => {
    expectFailure(login().next(first), status);
  });

  it('fails with a key given twice, in one request or in two', () => {
    const text = Buffer.concat([
      textData(NAMES),
      textData({ MaxBurstLength: '1024' }),
      textData({ MaxBurstLength: '1024' }),
    ]);
    expectFailure(login().next(request(text)), LoginStatus.INITIATOR_ERROR);
    const state = login();
    state.next(request({ ...NAMES, MaxBurstLength: '1024' }));
    expectFailure(state.next(request({ MaxBurstLength: '1024' })), LoginStatus.INITIATOR_ERROR);
  });

  it.each<[string, Partial<LoginRequest>]>([
    ['ISID', { isid: '800000000002' }],
    ['TSIH', { tsih: 9 }],
    ['CID', { cid: 2 }],
    ['stage', { currentStage: 0 }],
  ])('fails when its %s changes on the way', (_what, change) => {
    const state = login();
    state.next(request(NAMES));
    expectFailure(state.next(request({}, change)), LoginStatus.INITIATOR_ERROR);
  });

  it('fails when names come later', () => {
    const state = login();
    state.next(request({ ...NAMES }));
    expectFailure(state.next(request({ SessionType: 'Normal' })), LoginStatus.INITIATOR_ERROR);
  });

  it('fails when it is not admitted, with the status that says why', () => {
    expectFailure(login({}, LoginStatus.OUT_OF_RESOURCES).next(request(NAMES)), LoginStatus.OUT_OF_RESOURCES);
    const late = login({}, LoginStatus.SESSION_DOES_NOT_EXIST);
    expectFailure(late.next(request(NAMES, { tsih: 3 })), LoginStatus.SESSION_DOES_NOT_EXIST);
  });

  it('fails when it has no end, or too much text', () => {
    const state = login({ loginRequests: 4 });
    for (let i = 0; i < 4; i++) expect(state.next(request(i === 0 ? NAMES : {})).status).toBe(0);
    expectFailure(state.next(request({})), LoginStatus.INITIATOR_ERROR);
    const long = login({ textBytes: 10_000 });
    expect(long.next(request(new Uint8Array(8192), { continues: true })).status).toBe(0);
    expectFailure(long.next(request(new Uint8Array(8192), { continues: true })), LoginStatus.INITIATOR_ERROR);
  });
});
