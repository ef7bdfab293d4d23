import { MIB } from '../base/units.ts';
import { Waiters } from '../base/waiters.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import { LunOp } from '../block/lun-backend.ts';
import { deviceIo } from './device-io.ts';
import { MAX_DATA_LENGTH } from './stream-format.ts';
import type { StreamReader } from './stream-reader.ts';
import type { ThinDevice } from './thin-device.ts';

/** Writes under way: what receiving takes of memory, `MAX_DATA_LENGTH` each. */
const MAX_WRITES = 8;
/** After so much of the stream what has come is made durable and noted. */
const CHECKPOINT_BYTES: number = 256 * MIB;

/** The memory that records are read into and written from. */
export class ReceiveMemory {
  readonly #spare: Uint8Array[] = [];
  readonly #waiters: Waiters = new Waiters();
  #made = 0;

  /** Waits when all of it is in use. */
  async acquire(): Promise<Uint8Array> {
    for (;;) {
      const memory = this.#spare.pop();
      if (memory !== undefined) return memory;
      if (this.#made < MAX_WRITES) {
        this.#made++;
        return alignedMemory(MAX_DATA_LENGTH);
      }
      await this.#waiters.wait();
    }
  }

  release(memory: Uint8Array): void {
    this.#spare.push(memory);
    this.#waiters.wake();
  }
}

/**
 * Does to the volume what the stream says. `checkpoint` is called now and then and at the end, also when it ends in a failure, with
 * where everything before has been written; it makes that durable. Throws what the stream or a write throws.
 */
export async function receiveRecords(
  reader: StreamReader,
  device: ThinDevice,
  memory: ReceiveMemory,
  beginBytes: number,
  checkpoint: (positionBytes: number) => Promise<void>,
): Promise<void> {
  const writes: Set<Promise<void>> = new Set();
  let failure: unknown = null;
  let position = beginBytes;
  let unnoted = 0;
  const drain = async (): Promise<void> => {
    await Promise.all(writes);
    if (failure !== null) throw failure;
  };
  const start = (offset: number, length: number, data: Uint8Array | null): void => {
    const write = deviceIo(device, data === null ? LunOp.UNMAP : LunOp.WRITE, offset, length, data)
      .catch((error: unknown) => {
        failure ??= error;
      })
      .finally(() => {
        if (data !== null) memory.release(data);
        writes.delete(write);
      });
    writes.add(write);
  };
  try {
    for (let record = await reader.next(); record !== null; record = await reader.next()) {
      if (failure !== null) throw failure;
      const { offset, length } = record;
      while (writes.size >= MAX_WRITES) await Promise.race(writes);
      start(offset, length, record.memory);
      position = offset + length;
      unnoted += record.memory === null ? 0 : length;
      if (unnoted < CHECKPOINT_BYTES) continue;
      await drain();
      await checkpoint(position);
      unnoted = 0;
    }
    await drain();
  } catch (error) {
    // What has come is kept for a stream that goes on with it.
    await Promise.all(writes);
    if (failure === null) await checkpoint(position).catch(() => {});
    throw error;
  }
  await checkpoint(position);
}
