import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { errnoOf, StorageError, wrapError } from '../base/errors.ts';
import { native } from '../base/native.ts';

/**
 * One process has a pool: an exclusive flock on the pool's folder. The folder and not `pool.json`, because that file is replaced by
 * rename, which would leave the lock on a file that nobody can find any more. The kernel drops it when the process ends, however it ends.
 */
export class PoolLock {
  private readonly fd: number;
  private readonly holder: ChildProcess | null;

  private constructor(fd: number, holder: ChildProcess | null) {
    this.fd = fd;
    this.holder = holder;
  }

  /** Throws EBUSY when another process has the pool, ENOENT when there is no such folder. */
  static async take(dir: string): Promise<PoolLock> {
    let fd: number;
    try {
      fd = openSync(dir, 'r');
    } catch (error) {
      throw wrapError(`Cannot open the pool "${dir}"`, error);
    }
    try {
      if (native === null) return new PoolLock(fd, await lockByProgram(dir));
      native.flock(fd, 'exclusive', true);
      return new PoolLock(fd, null);
    } catch (error) {
      closeSync(fd);
      if (errnoOf(error) === 'EAGAIN' || errnoOf(error) === 'EBUSY') {
        throw new StorageError('EBUSY', `Cannot open the pool "${dir}": another process has it open`);
      }
      throw wrapError(`Cannot lock the pool "${dir}"`, error);
    }
  }

  release(): void {
    this.holder?.stdin?.end();
    closeSync(this.fd);
  }
}

const LOCKED = 'locked';
const CONFLICT_STATUS = 75;

/** Without the addon flock(1) holds the same lock, for as long as its input stays open. */
async function lockByProgram(dir: string): Promise<ChildProcess> {
  const shell = `echo ${LOCKED}; exec cat >/dev/null`;
  const holder = spawn('flock', ['--nonblock', '--conflict-exit-code', `${CONFLICT_STATUS}`, dir, 'sh', '-c', shell], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  await new Promise<void>((resolve, reject) => {
    holder.once('error', reject);
    holder.once('exit', (status) => {
      reject(new StorageError(status === CONFLICT_STATUS ? 'EBUSY' : 'EIO', `flock(1) ended with ${status}`));
    });
    holder.stdout.once('data', () => resolve());
  });
  holder.removeAllListeners('exit');
  holder.unref();
  (holder.stdin as unknown as { unref?: () => void }).unref?.();
  (holder.stdout as unknown as { unref?: () => void }).unref?.();
  return holder;
}
