import { execFileSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { KIB, MIB } from '../../src/base/units.ts';
import { alignedMemory } from '../../src/block/aligned-memory.ts';
import type { BlockDevice } from '../../src/block/block-device.ts';
import { openDeviceFile } from '../../src/block/device-file.ts';
import { openBlockDevice } from '../../src/block/file-device.ts';
import { type FileRequest, Step } from '../../src/block/file-request.ts';
import { FsDevice } from '../../src/block/fs-device.ts';
import { UringDevice } from '../../src/block/uring-device.ts';
import { completed, outcome, pattern, readBytes, writeBytes, zeroRange } from '../support/device-io.ts';
import { requireAddon } from '../support/native-addon.ts';
import { requireMachine } from '../support/tools.ts';

let home: string;
let path: string;
let device: BlockDevice | null = null;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'thinlun-file-'));
  path = join(home, 'file');
});
afterEach(async () => {
  await device?.close();
  device = null;
  rmSync(home, { recursive: true });
});

const withCode = (code: string, message: string): unknown =>
  expect.objectContaining({ name: 'StorageError', code, message: expect.stringContaining(message) });

describe('opening', () => {
  test('a new file is sparse and has its size', async () => {
    device = openBlockDevice(path, { create: true, sizeBytes: 1024 * MIB });
    expect(device.sizeBytes).toBe(1024 * MIB);
    expect(statSync(path).blocks).toBe(0);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test('a file that exists is not created again, and is not changed', () => {
    writeFileSync(path, 'precious');
    expect(() => openBlockDevice(path, { create: true, sizeBytes: 512 })).toThrow(
      withCode('EEXIST', `Cannot create "${path}"`),
    );
    expect(statSync(path).size).toBe(8);
  });

  test('a size that the file system cannot have leaves no file behind', async () => {
    try {
      device = openBlockDevice(path, { create: true, sizeBytes: 2 ** 53 - 1 });
      // There are file systems that can, such as tmpfs.
      expect(device.sizeBytes).toBe(2 ** 53 - 1);
    } catch (error) {
      expect(error).toEqual(withCode('EFBIG', path));
      expect(() => statSync(path)).toThrow();
    }
  });

  test('what is missing, a folder, a pipe and a character device are refused by name', () => {
    expect(() => openBlockDevice(path)).toThrow(withCode('ENOENT', `Cannot open "${path}"`));
    expect(() => openBlockDevice(home)).toThrow(withCode('ENOTBLK', 'neither a file nor a block device'));
    expect(() => openBlockDevice('/dev/zero')).toThrow(withCode('ENOTBLK', '/dev/zero'));
    execFileSync('mkfifo', [path]);
    expect(() => openBlockDevice(path)).toThrow(withCode('ENOTBLK', path));
  });

  test('io_uring is chosen where it can be had', () => {
    requireAddon();
    device = openBlockDevice(path, { create: true, sizeBytes: MIB });
    expect(device).toBeInstanceOf(UringDevice);
  });

  test('without the addon it is node:fs, which zeroes by writing and cannot discard', async () => {
    vi.stubEnv('THINLUN_NATIVE', 'off');
    vi.resetModules();
    const without = await import('../../src/block/file-device.ts');
    const { native, nativeError } = await import('../../src/base/native.ts');
    vi.unstubAllEnvs();
    vi.resetModules();
    expect({ native, nativeError }).toEqual({ native: null, nativeError: 'turned off by THINLUN_NATIVE=off' });
    const opened = without.openBlockDevice(path, { create: true, sizeBytes: MIB, direct: true });
    device = opened;
    expect(opened.constructor.name).toBe('FsDevice');
    expect(opened.alignmentBytes).toBe(1);
    expect(opened.discardGranularityBytes).toBe(0);
    await writeBytes(opened, 0, pattern(MIB, 1));
    await zeroRange(opened, 100, 700_000);
    const expected = pattern(MIB, 1).fill(0, 100, 700_100);
    expect(Buffer.compare(await readBytes(opened, 0, MIB), expected)).toBe(0);
    expect(await outcome(opened, (completion) => opened.discard(0, 4096, completion))).toBe('EOPNOTSUPP');
  });

  test('direct I/O on a file too short to try it is buffered I/O', async () => {
    writeFileSync(path, Buffer.alloc(100, 1));
    device = openBlockDevice(path, { direct: true });
    expect(device.alignmentBytes).toBe(1);
    expect(await readBytes(device, 10, 90)).toEqual(new Uint8Array(90).fill(1));
  });

  test('a file that was cut by somebody else reads as EIO where it ended, and says its size when asked', async () => {
    device = openBlockDevice(path, { create: true, sizeBytes: 64 * KIB });
    truncateSync(path, 32 * KIB);
    const memory = new Uint8Array(64 * KIB);
    expect(await outcome(device, (completion) => device!.read(0, memory, 0, 64 * KIB, completion))).toBe('EIO');
    expect(() => device!.readSync(32 * KIB, memory, 0, 512)).toThrow(withCode('EIO', 'the file ended early'));
    expect(device.refreshSize()).toBe(32 * KIB);
  });
});

describe('a device whose calls go wrong', () => {
  /** node:fs, of which each call may be given another outcome. */
  class TrickyDevice extends FsDevice {
    trick: (request: FileRequest) => number | null = () => null;
    readonly steps: Step[] = [];

    protected override startStep(request: FileRequest): void {
      this.steps.push(request.step);
      const result = this.trick(request);
      if (result === null) super.startStep(request);
      else setImmediate(request.onResult, result);
    }
  }

  function tricky(sizeBytes: number = MIB): TrickyDevice {
    writeFileSync(path, pattern(sizeBytes, 9));
    const opened = new TrickyDevice(openDeviceFile(path, {}));
    device = opened;
    return opened;
  }

  test('goes on after short reads and writes until everything has moved', async () => {
    const opened = tricky();
    let cuts = 0;
    const shorten = (request: FileRequest): null => {
      // Pretends that the request ends early by making the piece itself smaller.
      const rest = request.length - request.done;
      if (rest > 1000 && cuts < 50) {
        cuts++;
        Object.defineProperty(request, 'pieceLength', { value: 1000, configurable: true });
      } else {
        Reflect.deleteProperty(request, 'pieceLength');
      }
      return null;
    };
    opened.trick = shorten;
    await writeBytes(opened, 77, pattern(30_000, 1));
    cuts = 0;
    expect(Buffer.compare(await readBytes(opened, 77, 30_000), pattern(30_000, 1))).toBe(0);
    expect(cuts).toBeGreaterThan(20);
    expect(Buffer.compare(await readBytes(opened, 0, 77), pattern(MIB, 9).subarray(0, 77))).toBe(0);
  });

  test('tries again when interrupted, but not for ever', async () => {
    const opened = tricky();
    let interruptions = 3;
    opened.trick = () => (interruptions-- > 0 ? -4 : null);
    expect(await readBytes(opened, 0, 4096)).toEqual(pattern(MIB, 9).slice(0, 4096));
    opened.trick = () => -11;
    const memory = new Uint8Array(4096);
    expect(await outcome(opened, (completion) => opened.read(0, memory, 0, 4096, completion))).toBe('EAGAIN');
  });

  test('a write of which nothing arrives is EIO, an unknown errno too, a known one keeps its name', async () => {
    const opened = tricky();
    const memory = new Uint8Array(4096);
    for (const [result, expected] of [
      [0, 'EIO'],
      [-28, 'ENOSPC'],
      [-9999, 'EIO'],
      [-95, 'EOPNOTSUPP'],
    ] as const) {
      opened.trick = () => result;
      expect(await outcome(opened, (completion) => opened.write(0, memory, 0, 4096, completion))).toBe(expected);
    }
    opened.trick = () => -5;
    expect(await outcome(opened, (completion) => opened.flush(completion))).toBe('EIO');
  });

  test.each([
    ['ranges cannot be zeroed', [Step.ZERO_RANGE], [Step.ZERO_RANGE, Step.PUNCH_HOLE], [Step.PUNCH_HOLE]],
    [
      'holes cannot be punched either',
      [Step.ZERO_RANGE, Step.PUNCH_HOLE],
      [Step.ZERO_RANGE, Step.PUNCH_HOLE, Step.WRITE, Step.WRITE, Step.WRITE],
      [Step.WRITE, Step.WRITE, Step.WRITE],
    ],
  ])('zeroes all the same where %s, and remembers it', async (_what, refused, first, second) => {
    requireAddon();
    const opened = tricky();
    const expected = pattern(MIB, 9);
    opened.trick = (request) => ((refused as Step[]).includes(request.step) ? -95 : null);
    await zeroRange(opened, 1000, 600 * KIB);
    expect(opened.steps).toEqual(first);
    opened.steps.length = 0;
    await zeroRange(opened, 300 * KIB, 600 * KIB);
    expect(opened.steps).toEqual(second);
    expected.fill(0, 1000, 900 * KIB);
    expect(Buffer.compare(await readBytes(opened, 0, MIB), expected)).toBe(0);
  });

  test('a failure to zero that is no lack of support is reported', async () => {
    requireAddon();
    const opened = tricky();
    opened.trick = () => -28;
    expect(await outcome(opened, (completion) => opened.writeZeroes(0, 4096, completion))).toBe('ENOSPC');
    expect(opened.steps).toEqual([Step.ZERO_RANGE]);
  });
});

/** What was thrown past everybody: out of the event loop's callbacks, `start` being one of them. */
async function uncaughtDuring(start: () => void, ended: Promise<void>): Promise<unknown[]> {
  const thrown: unknown[] = [];
  const listeners = process.rawListeners('uncaughtException') as NodeJS.UncaughtExceptionListener[];
  process.removeAllListeners('uncaughtException');
  process.on('uncaughtException', (error) => thrown.push(error));
  try {
    // From a callback of the event loop, so that what `start` throws arrives in the same place.
    setImmediate(start);
    await ended;
  } finally {
    process.removeAllListeners('uncaughtException');
    for (const listener of listeners) process.on('uncaughtException', listener);
  }
  return thrown;
}

describe('io_uring', () => {
  requireAddon();

  test('a completion that throws takes nothing from the others of its batch', async () => {
    const opened = openBlockDevice(path, { create: true, sizeBytes: MIB });
    device = opened;
    const memory = new Uint8Array(20 * 4096);
    let done = 0;
    const ended = new Promise<void>((resolve) => {
      for (let i = 0; i < 20; i++) {
        opened.read(i * 4096, memory, i * 4096, 4096, {
          ioDone: () => {
            done++;
            if (done === 20) setImmediate(resolve);
            if (done === 3) throw new Error('on purpose');
          },
        });
      }
    });
    const thrown = await uncaughtDuring(() => opened.submit(), ended);
    expect(thrown).toEqual([expect.objectContaining({ message: 'on purpose' })]);
    expect(await readBytes(opened, 0, 4096)).toEqual(new Uint8Array(4096));
  });

  test('long reads that threads of the kernel do aside are the same bytes', async () => {
    const count = 16;
    const length = 64 * KIB;
    const file = openBlockDevice(path, { create: true, sizeBytes: count * length });
    device = file;
    const bytes = pattern(count * length, 3);
    await writeBytes(file, 0, bytes);
    const helpers = (): number => {
      const names = readdirSync('/proc/self/task').map((id) => readFileSync(`/proc/self/task/${id}/comm`, 'utf8'));
      return names.filter((name) => name.startsWith('iou-wrk')).length;
    };
    for (let round = 0; round < 4; round++) {
      const memory = new Uint8Array(count * length);
      const reads = Array.from({ length: count }, (_, i) =>
        completed((completion) => file.read(i * length, memory, i * length, length, completion)),
      );
      file.submit();
      expect(await Promise.all(reads)).toEqual(new Array(count).fill(null));
      expect(Buffer.compare(memory, bytes)).toBe(0);
    }
    if (availableParallelism() > 1) expect(helpers()).toBeGreaterThan(0);
  });

  test('devices share a ring and may be closed while others are busy', async () => {
    const devices = Array.from({ length: 5 }, (_, i) =>
      openBlockDevice(join(home, `file-${i}`), { create: true, sizeBytes: MIB }),
    );
    const memory = new Uint8Array(MIB);
    let errors = 0;
    let done = 0;
    for (let round = 0; round < 60; round++) {
      for (const each of devices) {
        each.write(round * 4096, memory, 0, 4096, {
          ioDone: (error) => {
            done++;
            if (error !== null) errors++;
          },
        });
      }
    }
    for (const each of devices) await each.close();
    expect({ done, errors }).toEqual({ done: 300, errors: 0 });
  });

  test('memory may be many different arrays in one batch', async () => {
    const opened = openBlockDevice(path, { create: true, sizeBytes: 4 * MIB });
    device = opened;
    let left = 1500;
    await new Promise<void>((resolve) => {
      for (let i = 0; i < 1500; i++) {
        const memory = new Uint8Array(64).fill(i);
        opened.write(i * 64, memory, 0, 64, { ioDone: () => --left === 0 && resolve() });
      }
      opened.submit();
    });
    const expected = new Uint8Array(1500 * 64).map((_, at) => Math.floor(at / 64));
    expect(Buffer.compare(await readBytes(opened, 0, 1500 * 64), expected)).toBe(0);
  });
});

test('a block device in use is refused when it is to be exclusive', async () => {
  requireMachine(process.getuid?.() === 0 ? null : 'only root can make loop devices');
  requireAddon();
  closeSync(openSync(path, 'w'));
  truncateSync(path, 4 * MIB);
  const loop = execFileSync('losetup', ['--find', '--show', path], { encoding: 'utf8' }).trim();
  try {
    const first = openBlockDevice(loop, { exclusive: true });
    expect(first.sizeBytes).toBe(4 * MIB);
    expect(first.alignmentBytes).toBe(512);
    expect(() => openBlockDevice(loop, { exclusive: true })).toThrow(withCode('EBUSY', loop));
    const shared = openBlockDevice(loop);
    truncateSync(path, 8 * MIB);
    execFileSync('losetup', ['--set-capacity', loop]);
    expect(shared.sizeBytes).toBe(4 * MIB);
    expect(shared.refreshSize()).toBe(8 * MIB);
    const memory = alignedMemory(512).fill(7);
    await outcome(shared, (completion) => shared.write(8 * MIB - 512, memory, 0, 512, completion));
    await shared.close();
    await first.close();
    openBlockDevice(loop, { exclusive: true, readOnly: true }).close();
  } finally {
    execFileSync('losetup', ['--detach', loop]);
  }
});
