import { expect, test } from 'vitest';
import { parse } from '../../src/base/schema.ts';
import { adviceForDevices, describeDevice, describeRefusal, describeTcmu } from '../../src/cli/tcmu-lines.ts';
import type { ServerMessage } from '../../src/daemon/control-messages.ts';
import { poolTcmuMessage, poolTcmuSchema } from '../../src/daemon/tcmu-messages.ts';
import { parseUioName } from '../../src/tcmu/configfs.ts';
import type { TcmuDeviceStatus } from '../../src/tcmu/tcmu-device.ts';
import type { TcmuStatus } from '../../src/tcmu/tcmu-status.ts';

const device: TcmuDeviceStatus = {
  hba: '3',
  device: 'web',
  cfgstring: 'pool/web',
  minor: 7,
  state: 'serving',
  problem: null,
  inFlight: 2,
  commands: 100,
  batches: 50,
  aborts: 0,
  busy: 0,
  refused: 0,
};

function unserved(minor: number, uioName: string, reason: string): TcmuStatus['unserved'][number] {
  return { entry: { minor, uioName, name: parseUioName(uioName)! }, reason };
}

const status: TcmuStatus = {
  answersAwaited: true,
  devices: [
    device,
    {
      ...device,
      device: 'db',
      cfgstring: 'pool/db',
      minor: 1,
      state: 'failed',
      problem: 'it broke',
      aborts: 3,
      refused: 1,
    },
    { ...device, device: 'other', cfgstring: 'pool2/web', minor: 2 },
  ],
  unserved: [
    unserved(4, 'tcm-user/0/gone/thin/pool/gone', 'it is gone'),
    unserved(5, 'tcm-user/0/x/thin/pool2/x', 'not ours'),
  ],
  refusals: [
    { cfgstring: 'pool/no', device: 'no', action: 'add', reason: 'too large', ageMs: 90_400 },
    { cfgstring: 'pool2/no', device: 'no', action: 'add', reason: 'not ours', ageMs: 0 },
  ],
};

test('a pool shows its own devices, served or not, and what was refused', () => {
  const message = poolTcmuMessage(status, 'pool');
  expect(parse(poolTcmuSchema, message)).toEqual(message);
  expect(message.devices.map(describeDevice)).toEqual([
    'db on db (uio1): failed: it broke',
    'gone on gone (uio4): unserved: it is gone',
    'web on web (uio7): serving, 100 commands, 2 in flight',
  ]);
  expect(message.devices.map(({ folder }) => folder)).toEqual(['user_3/db', 'user_0/gone', 'user_3/web']);
  expect(message.refusals.map(describeRefusal)).toEqual(['to add no, 90 s ago: too large']);
});

test('what initiators notice is counted where it has happened', () => {
  const [shown] = poolTcmuMessage(
    { ...status, devices: [{ ...device, aborts: 3, refused: 1 }], unserved: [] },
    'pool',
  ).devices;
  expect(describeDevice(shown!)).toBe('web on web (uio7): serving, 100 commands, 2 in flight, 3 aborted, 1 unreadable');
});

test('who has devices that do not serve is told what to do', () => {
  const server = (part: Partial<TcmuStatus>): ServerMessage =>
    ({ tcmu: true, tcmuDevices: poolTcmuMessage({ ...status, ...part }, 'pool') }) as ServerMessage;
  expect(adviceForDevices(null)).toBeNull();
  expect(adviceForDevices(server({ devices: [device], unserved: [] }))).toBeNull();
  expect(adviceForDevices(server({}))).toContain('start the server again');
  expect(adviceForDevices(server({ devices: [] }))).toContain('delete it with targetcli');
  expect(describeTcmu(server({}))).toBe('yes');
  expect(describeTcmu(server({ answersAwaited: false }))).toContain('beside another handler');
  expect(describeTcmu({ ...server({}), tcmu: false })).toBe('no');
});
