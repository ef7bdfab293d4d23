import { describe, expect, it } from 'vitest';
import { ScratchPool, type ScratchUser } from '../../src/scsi/scratch-pool.ts';

class User implements ScratchUser {
  scratch: Uint8Array | null = null;
  scratchNext: ScratchUser | null = null;
  grants = 0;
  scratchGranted(): void {
    this.grants++;
  }
}

describe('a scratch pool', () => {
  it('makes no more buffers than its bound and gives them on in order', () => {
    let made = 0;
    const pool = new ScratchPool(64, 2, (size) => {
      made++;
      return new Uint8Array(size);
    });
    const users = Array.from({ length: 5 }, () => new User());
    expect(users.map((user) => pool.acquire(user))).toEqual([true, true, false, false, false]);
    pool.release(users[1]!);
    expect(users.map((user) => user.grants)).toEqual([0, 0, 1, 0, 0]);
    expect(users[1]!.scratch).toBeNull();
    pool.release(users[0]!);
    pool.release(users[2]!);
    pool.release(users[3]!);
    pool.release(users[4]!);
    expect(users.map((user) => user.grants)).toEqual([0, 0, 1, 1, 1]);
    expect(pool.acquire(users[0]!)).toBe(true);
    expect(made).toBe(2);
  });

  it('ignores the release of a user without a buffer', () => {
    const pool = new ScratchPool(64, 1, (size) => new Uint8Array(size));
    pool.release(new User());
    const [a, b] = [new User(), new User()];
    expect([pool.acquire(a), pool.acquire(b)]).toEqual([true, false]);
  });
});
