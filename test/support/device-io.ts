import type { Errno } from '../../src/base/errors.ts';
import { StorageError } from '../../src/base/errors.ts';
import { alignedMemory } from '../../src/block/aligned-memory.ts';
import type { BlockDevice, IoCompletion } from '../../src/block/block-device.ts';

/** Starts one operation with `start`, and waits. Gives the error of the completion. */
export function completed(start: (completion: IoCompletion) => void): Promise<Errno | null> {
  return new Promise((resolve) => start({ ioDone: resolve }));
}

/** Queues one operation with `queue`, submits, and waits. Gives the error of the completion. */
export function outcome(device: BlockDevice, queue: (completion: IoCompletion) => void): Promise<Errno | null> {
  return completed((completion) => {
    queue(completion);
    device.submit();
  });
}

async function succeed(device: BlockDevice, queue: (completion: IoCompletion) => void): Promise<void> {
  const error = await outcome(device, queue);
  if (error !== null) throw new StorageError(error, `I/O failed on ${device.path}`);
}

/** The bytes of a range, in memory that suits direct I/O. */
export async function readBytes(device: BlockDevice, offset: number, length: number): Promise<Uint8Array> {
  const bytes = alignedMemory(length).fill(0xee);
  await succeed(device, (completion) => device.read(offset, bytes, 0, length, completion));
  return bytes;
}

/** Writes a copy of `bytes`. */
export function writeBytes(device: BlockDevice, offset: number, bytes: Uint8Array): Promise<void> {
  const memory = alignedMemory(bytes.length);
  memory.set(bytes);
  return succeed(device, (completion) => device.write(offset, memory, 0, memory.length, completion));
}

export function flushDevice(device: BlockDevice): Promise<void> {
  return succeed(device, (completion) => device.flush(completion));
}

export function discardRange(device: BlockDevice, offset: number, length: number): Promise<void> {
  return succeed(device, (completion) => device.discard(offset, length, completion));
}

export function zeroRange(device: BlockDevice, offset: number, length: number): Promise<void> {
  return succeed(device, (completion) => device.writeZeroes(offset, length, completion));
}

/** Bytes that differ from place to place and from `seed` to `seed`. */
export function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = (seed * 2654435761 + 1) >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}
