import { errnoOf, StorageError } from '../base/errors.ts';
import type { Pool } from '../thin/pool.ts';
import type { VolumeInfo } from '../thin/pool-volumes.ts';
import { parseToken } from '../thin/stream-format.ts';
import { AdvisedError, advise } from './advised-error.ts';
import type { VolumeChunks } from './pool-control.ts';
import type { SendVolumeMessage } from './stream-messages.ts';

/** The streams of one pool, with advice for what may go wrong with them. */
export class VolumeTransfers {
  readonly #pool: Pool;

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  async send(name: string, { from, resume, keep }: SendVolumeMessage): Promise<VolumeChunks> {
    const point = resume === undefined ? undefined : parseToken(resume);
    const stream = await this.#pool.sendVolume(name, { from, keep, resume: point }).catch(rethrow(from));
    const { header, chunks, close } = stream;
    return { expectedBytes: header.expectedBytes, chunks, close };
  }

  /** Throws with advice how to go on, where something has been received. */
  async receive(name: string, input: AsyncIterable<Uint8Array>): Promise<VolumeInfo> {
    try {
      return await this.#pool.receiveVolume(name, input);
    } catch (error) {
      throw this.#withPart(name, error);
    }
  }

  #withPart(name: string, error: unknown): unknown {
    const part = this.#pool.receivedPart(name);
    const { dir } = this.#pool;
    if (part === null) {
      const isBase = error instanceof StorageError && error.code === 'EINVAL';
      return isBase ? error : advise(error, `See what is there with "thinlun volume list ${dir}".`);
    }
    const hint =
      `What has come is kept as "${part.name}", which nobody can use. Go on with "thinlun send ... --resume TOKEN", with the token that ` +
      `"thinlun receive ${dir} ${name} --resume-token" prints, or give it up with "thinlun volume delete ${dir} ${part.name}".`;
    if (error instanceof StorageError) return advise(error, hint);
    return new AdvisedError(errnoOf(error), error instanceof Error ? error.message : String(error), hint, {
      cause: error,
    });
  }
}

function rethrow(from: string | undefined): (error: unknown) => never {
  return (error) => {
    if (from === undefined || !(error instanceof StorageError) || !error.message.includes('can be written'))
      throw error;
    throw advise(
      error,
      'Take the snapshots that are sent with "thinlun volume snapshot --read-only", or with "thinlun send --keep".',
    );
  };
}
