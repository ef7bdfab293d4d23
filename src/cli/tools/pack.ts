import { closeSync, existsSync, fstatSync, openSync, readSync, rmSync, statSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { StorageError, wrapError } from '../../base/errors.ts';
import type { BlockDevice } from '../../block/block-device.ts';
import { openBlockDevice } from '../../block/file-device.ts';
import { AdvisedError } from '../../daemon/advised-error.ts';
import { holdsMetadata, type PackSource, packedBlockCount, packMetadata, unpackMetadata } from '../../tools/pack.ts';
import { createProgress } from '../progress.ts';
import type { PackFlags } from './pack-command.ts';
import { useMetadata } from './use-metadata.ts';

const BLOCK_SIZE = 4096;

/** `thinlun pack`. */
export async function pack(flags: PackFlags): Promise<void> {
  const { input, output } = flags;
  await useMetadata(input, {}, async ({ device }) => {
    refuseSame(device.path, output);
    const progress = createProgress('Packing', flags);
    const action = `Cannot write "${output}"`;
    const fd = attempt(action, () => openSync(output, 'w'));
    try {
      const write = (bytes: Uint8Array): void => {
        for (let at = 0; at < bytes.length; ) at += attempt(action, () => writeSync(fd, bytes, at));
      };
      await packMetadata(device, write, progress.update);
    } finally {
      progress.end();
      closeSync(fd);
    }
  });
}

/** `thinlun unpack`. */
export async function unpack(flags: PackFlags): Promise<void> {
  const { input, output } = flags;
  const fd = attempt(`Cannot open "${input}"`, () => openSync(input, 'r'));
  const progress = createProgress('Unpacking', flags);
  try {
    refuseSame(input, output);
    const source: PackSource = {
      sizeBytes: fstatSync(fd).size,
      read: (offset, length) => {
        const bytes = new Uint8Array(length);
        const size = attempt(`Cannot read "${input}"`, () => readSync(fd, bytes, 0, length, offset));
        if (size < length) throw new StorageError('EIO', `Cannot read "${input}": it has become shorter`);
        return bytes;
      },
    };
    const sizeBytes = blockCountOf(source, input) * BLOCK_SIZE;
    await withOutput(output, sizeBytes, flags.force === true, async (device) => {
      try {
        await unpackMetadata(source, device, progress.update);
      } catch (error) {
        throw unpackFailure(input, error);
      }
    });
  } finally {
    progress.end();
    closeSync(fd);
  }
}

function blockCountOf(source: PackSource, input: string): number {
  try {
    return packedBlockCount(source);
  } catch (error) {
    throw unpackFailure(input, error);
  }
}

function unpackFailure(input: string, error: unknown): StorageError {
  const failure = wrapError(`Cannot unpack "${input}"`, error);
  if (failure.code !== 'EILSEQ') return failure;
  const advice = 'Pack the metadata again, or get another copy of the file; what was unpacked of it is not to be used.';
  return new AdvisedError(failure.code, failure.message, advice, { cause: error });
}

async function withOutput(
  path: string,
  sizeBytes: number,
  force: boolean,
  work: (device: BlockDevice) => Promise<void>,
): Promise<void> {
  if (existsSync(path)) {
    await useMetadata(path, { write: true }, async ({ device }) => {
      if (!force && holdsMetadata(device)) {
        throw new AdvisedError('EEXIST', `Cannot write "${path}": it holds metadata`, 'Overwrite it with --force.');
      }
      if (statSync(device.path).isFile()) {
        // Nothing of what was there is to be left.
        device.resize(0);
        device.resize(sizeBytes);
      } else if (device.sizeBytes < sizeBytes) {
        throw new StorageError(
          'ENOSPC',
          `Cannot write "${path}": it has ${device.sizeBytes} bytes, needed are ${sizeBytes}`,
        );
      }
      await work(device);
    });
    return;
  }
  const device = openBlockDevice(path, { create: true, sizeBytes });
  try {
    await work(device);
  } catch (error) {
    rmSync(path);
    throw error;
  } finally {
    await device.close();
  }
}

function refuseSame(input: string, output: string): void {
  const same = (a: string, b: string): boolean => {
    if (resolve(a) === resolve(b)) return true;
    if (!existsSync(a) || !existsSync(b)) return false;
    const [one, other] = [statSync(a), statSync(b)];
    return one.dev === other.dev && one.ino === other.ino;
  };
  if (same(input, output)) throw new StorageError('EINVAL', `Cannot write "${output}": it is the input`);
}

function attempt<T>(action: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw wrapError(action, error);
  }
}
