import { StorageError } from '../base/errors.ts';
import { alignedMemory } from '../block/aligned-memory.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { BLOCK_SIZE, checkBlock } from '../persistent-data/block.ts';
import { nodeValidator } from '../persistent-data/btree-node.ts';
import type { DiffNodes } from './mapping-diff.ts';

/**
 * Nodes of trees that are committed and do not change, as those of read-only snapshots: read from the device past the cache, which keeps what
 * the pool's work needs, and without stopping that work.
 */
export class CommittedNodes implements DiffNodes {
  readonly #device: BlockDevice;
  readonly #bytes: Uint8Array = alignedMemory(BLOCK_SIZE);
  readonly #words: Uint32Array = new Uint32Array(this.#bytes.buffer, this.#bytes.byteOffset, BLOCK_SIZE / 4);
  #number = -1;
  #wanted = -1;

  constructor(device: BlockDevice) {
    this.#device = device;
  }

  read(number: number, words: Uint32Array): boolean {
    if (number !== this.#number) {
      this.#wanted = number;
      return false;
    }
    words.set(this.#words);
    return true;
  }

  /** Reads what `read` did not have. Throws EILSEQ, ENOTBLK for damage, or the device's error. */
  async fetch(): Promise<void> {
    const number = this.#wanted;
    this.#number = -1;
    const { path, sizeBytes } = this.#device;
    if ((number + 1) * BLOCK_SIZE > sizeBytes) {
      throw new StorageError('EILSEQ', `Cannot read block ${number} of "${path}": it lies past the end`);
    }
    await new Promise<void>((resolve, reject) => {
      const completion = {
        ioDone: (error: StorageError['code'] | null) => {
          if (error === null) resolve();
          else reject(new StorageError(error, `Cannot read block ${number} of "${path}": ${error}`));
        },
      };
      this.#device.read(number * BLOCK_SIZE, this.#bytes, 0, BLOCK_SIZE, completion);
      this.#device.submit();
    });
    checkBlock(this.#words, this.#bytes, number, nodeValidator, path);
    this.#number = number;
  }
}
