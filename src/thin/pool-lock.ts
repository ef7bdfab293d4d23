import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
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

  /**
   * Goes on with the lock that another process has taken and given us as `fd`: there is no moment in which a third could take it. `fd` is ours from here on,
   * whatever happens. Throws EINVAL when it is not of the pool's folder, EBUSY when it does not hold the lock and somebody else does.
   */
  static inherit(dir: string, fd: number): PoolLock {
    try {
      const [given, wanted] = [fstatSync(fd), statSync(dir)];
      if (given.dev !== wanted.dev || given.ino !== wanted.ino) {
        throw new StorageError('EINVAL', `Cannot open the pool "${dir}": the lock that was handed over is another's`);
      }
      native?.flock(fd, 'exclusive', true);
      return new PoolLock(fd, null);
    } catch (error) {
      closeSync(fd);
      throw error instanceof StorageError ? error : wrapError(`Cannot lock the pool "${dir}"`, error);
    }
  }

  /** A descriptor that holds the same lock, for another process; the lock is free when all of them are closed. Throws EOPNOTSUPP without the addon. */
  share(): number {
    if (native === null) throw new StorageError('EOPNOTSUPP', 'Cannot share the lock of a pool: no native addon');
    return native.duplicateFd(this.fd);
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
