import { errnoOf, StorageError } from '../base/errors.ts';
import { until } from '../base/until.ts';
import type { Pool } from '../thin/pool.ts';
import type { VolumeInfo } from '../thin/pool-volumes.ts';
import { parseToken } from '../thin/stream-format.ts';
import { AdvisedError, advise } from './advised-error.ts';
import type { SendVolumeMessage } from './control-messages.ts';
import type { VolumeChunks } from './pool-control.ts';

/** The streams of one pool that are on their way, so that closing the pool ends them. */
export class VolumeTransfers {
  readonly #pool: Pool;
  readonly #sending: Set<() => Promise<void>> = new Set();
  readonly #receiving: Set<Promise<unknown>> = new Set();
  readonly #stopped: Promise<never>;
  #stop: (error: Error) => void = () => {};

  constructor(pool: Pool) {
    this.#pool = pool;
    this.#stopped = new Promise((_, reject) => {
      this.#stop = reject;
    });
    // Told to those who wait for a stream; nobody may be.
    this.#stopped.catch(() => {});
  }

  async send(name: string, { from, resume, keep }: SendVolumeMessage): Promise<VolumeChunks> {
    const point = resume === undefined ? undefined : parseToken(resume);
    const {
      header,
      chunks,
      close: end,
    } = await this.#pool.sendVolume(name, { from, keep, resume: point }).catch(rethrow(from));
    const close = (): Promise<void> => {
      this.#sending.delete(close);
      return end();
    };
    this.#sending.add(close);
    return { expectedBytes: header.expectedBytes, chunks, close };
  }

  /** Throws with advice how to go on, where something has been received. */
  async receive(name: string, input: AsyncIterable<Uint8Array>): Promise<VolumeInfo> {
    const work = this.#pool.receiveVolume(name, until(input, this.#stopped));
    this.#receiving.add(work);
    try {
      return await work;
    } catch (error) {
      throw this.#withPart(name, error);
    } finally {
      this.#receiving.delete(work);
    }
  }

  /** Ends everything. What was received is kept. */
  async close(): Promise<void> {
    this.#stop(new StorageError('ESHUTDOWN', 'The pool is being closed'));
    await Promise.allSettled([...this.#receiving, ...[...this.#sending].map((close) => close())]);
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
