import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe } from 'vitest';
import { native, nativeError } from '../../src/base/native.ts';
import { type FileDeviceOptions, openBlockDevice } from '../../src/block/file-device.ts';
import { FsDevice } from '../../src/block/fs-device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { UringDevice } from '../../src/block/uring-device.ts';
import { blockDeviceContract, type OpenedDevice } from '../contracts/block-device.ts';
import { FaultyDevice } from '../support/faulty-device.ts';
import { RecordingDevice } from '../support/recording-device.ts';
import { requireMachine } from '../support/tools.ts';

type Kind = typeof FsDevice | typeof UringDevice;

/** Opens and insists that it is what the suite is about. */
function openAs(kind: Kind, path: string, options: FileDeviceOptions): FsDevice | UringDevice {
  const device = openBlockDevice(path, { ...options, engine: kind === FsDevice ? 'fs' : 'best' });
  if (!(device instanceof kind)) throw new Error(`not a ${kind.name}: ${nativeError ?? 'the kernel refused'}`);
  if (options.direct && device.alignmentBytes === 1) throw new Error('the file system has no direct I/O');
  return device;
}

function fileIn(folder: string, kind: Kind, options: FileDeviceOptions): (sizeBytes: number) => OpenedDevice {
  return (sizeBytes) => {
    const home = mkdtempSync(join(folder, 'thinlun-device-'));
    const path = join(home, 'file');
    return {
      device: openAs(kind, path, { ...options, create: true, sizeBytes }),
      reopen: (readOnly) => openAs(kind, path, { ...options, readOnly }),
      remove: () => rmSync(home, { recursive: true }),
    };
  };
}

/** A loop device on a fresh file. */
function loop(kind: Kind, options: FileDeviceOptions): (sizeBytes: number) => OpenedDevice {
  return (sizeBytes) => {
    const home = mkdtempSync(join(tmpdir(), 'thinlun-device-'));
    const file = join(home, 'file');
    execFileSync('truncate', ['-s', String(sizeBytes), file]);
    const path = execFileSync('losetup', ['--find', '--show', file], { encoding: 'utf8' }).trim();
    return {
      device: openAs(kind, path, { ...options, exclusive: true }),
      reopen: (readOnly) => openAs(kind, path, { ...options, readOnly }),
      remove: () => {
        execFileSync('losetup', ['--detach', path]);
        rmSync(home, { recursive: true });
      },
    };
  };
}

function whyNoLoopDevices(): string | null {
  if (process.getuid?.() !== 0) return 'block devices: only root can make loop devices';
  try {
    execFileSync('losetup', ['--find'], { stdio: 'ignore' });
    return null;
  } catch {
    return 'block devices: this machine has no loop devices';
  }
}

const everything = { discards: true, resizes: true };

blockDeviceContract(
  'MemoryDevice',
  (sizeBytes) => ({ device: new MemoryDevice(sizeBytes), reopen: null, remove: () => {} }),
  everything,
);
blockDeviceContract(
  'MemoryDevice that completes in submit()',
  (sizeBytes) => ({ device: new MemoryDevice(sizeBytes, { inline: true }), reopen: null, remove: () => {} }),
  everything,
);

blockDeviceContract(
  'FaultyDevice without faults, around a RecordingDevice',
  (sizeBytes) => {
    const device = new FaultyDevice(new RecordingDevice(new MemoryDevice(sizeBytes)));
    return { device, reopen: null, remove: () => {} };
  },
  { discards: true, resizes: null },
);

const onFiles = { discards: native !== null, resizes: true };
blockDeviceContract('FsDevice on a file', fileIn(tmpdir(), FsDevice, {}), onFiles);
blockDeviceContract('FsDevice on a file in /dev/shm', fileIn('/dev/shm', FsDevice, {}), onFiles);

describe('with the addon', () => {
  requireMachine(
    native === null ? `the native addon is missing (${nativeError}): node native-bindings/build.mjs` : null,
  );

  blockDeviceContract('FsDevice with direct I/O', fileIn(tmpdir(), FsDevice, { direct: true }), onFiles);
  blockDeviceContract('UringDevice on a file', fileIn(tmpdir(), UringDevice, {}), everything);
  blockDeviceContract('UringDevice with direct I/O', fileIn(tmpdir(), UringDevice, { direct: true }), everything);
  // No FALLOC_FL_ZERO_RANGE there.
  blockDeviceContract('UringDevice on a file in /dev/shm', fileIn('/dev/shm', UringDevice, {}), everything);

  describe('on loop devices', () => {
    requireMachine(whyNoLoopDevices());

    const onDevices = { discards: true, resizes: false };
    blockDeviceContract('FsDevice on a block device', loop(FsDevice, {}), onDevices);
    blockDeviceContract('UringDevice on a block device', loop(UringDevice, {}), onDevices);
    blockDeviceContract(
      'UringDevice with direct I/O on a block device',
      loop(UringDevice, { direct: true }),
      onDevices,
    );
  });
});
