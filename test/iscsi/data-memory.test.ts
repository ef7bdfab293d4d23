import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KIB } from '../../src/base/units.ts';
import { DataMemory, MemoryAccount, type MemoryUser } from '../../src/iscsi/data-memory.ts';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Wants ranges one after the other and waits when it is refused. */
class Waiter implements MemoryUser {
  readonly account: MemoryAccount;
  readonly wanted: number[];
  readonly held: [number, number][] = [];
  private readonly log: Waiter[];

  constructor(shared: DataMemory, limit: number, wanted: number[], log: Waiter[] = []) {
    this.account = new MemoryAccount(shared, limit);
    this.wanted = wanted;
    this.log = log;
  }

  memoryFreed(): boolean {
    while (this.wanted.length > 0) {
      const length = this.wanted[0]!;
      const offset = this.account.allocate(length);
      if (offset < 0) {
        this.account.shared.wait(this);
        return this.account.isOverdrawnBy(length);
      }
      this.wanted.shift();
      this.held.push([offset, length]);
      this.log.push(this);
    }
    return true;
  }

  giveBack(): void {
    const range = this.held.shift();
    if (range === undefined) return;
    this.account.free(...range);
    // Refused for what it held itself: nobody else knows.
    if (this.wanted.length > 0) {
      this.account.shared.wait(this);
      this.account.shared.serveSoon();
    }
  }
}

describe('the data memory', () => {
  it('serves who waits in the order in which they came, and nobody past them', async () => {
    const memory = new DataMemory(64 * KIB);
    const log: Waiter[] = [];
    const first = new Waiter(memory, 64 * KIB, [48 * KIB], log);
    const second = new Waiter(memory, 64 * KIB, [32 * KIB], log);
    const third = new Waiter(memory, 64 * KIB, [4 * KIB], log);
    for (const each of [first, second, third]) each.memoryFreed();
    expect(log).toEqual([first]);
    // There would be room for it, but it is not its turn.
    expect(memory.waitingCount).toBe(2);
    expect(third.account.allocate(4 * KIB)).toBe(-1);
    first.giveBack();
    await turn();
    expect(log).toEqual([first, second, third]);
    expect(memory.waitingCount).toBe(0);
    second.giveBack();
    third.giveBack();
    expect(memory.usedBytes).toBe(0);
  });

  it('keeps a part for data that comes unasked', () => {
    const memory = new DataMemory(64 * KIB);
    const account = new MemoryAccount(memory, 64 * KIB);
    expect(account.allocate(48 * KIB)).toBeGreaterThanOrEqual(0);
    expect(account.allocate(4 * KIB)).toBe(-1);
    const urgent = account.allocateUrgent(16 * KIB);
    expect(urgent).toBeGreaterThanOrEqual(0);
    expect(account.allocateUrgent(1)).toBe(-1);
    account.freeUrgent(urgent, 16 * KIB);
    expect(memory.usedBytes).toBe(48 * KIB);
    expect(account.usedBytes).toBe(48 * KIB);
  });

  it('holds an account to its bound', () => {
    const account = new MemoryAccount(new DataMemory(64 * KIB), 16 * KIB);
    const offset = account.allocate(12 * KIB);
    expect(account.isOverdrawnBy(8 * KIB)).toBe(true);
    expect(account.allocate(8 * KIB)).toBe(-1);
    account.free(offset, 12 * KIB);
    expect(account.allocate(16 * KIB)).toBeGreaterThanOrEqual(0);
    expect(() => account.free(0, 32 * KIB)).toThrow('gives back what it took');
  });

  it('gives everybody what they want in the end, whatever they want', async () => {
    const length = fc.integer({ min: 1, max: 24 * KIB });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(length, { maxLength: 8 }), { minLength: 1, maxLength: 5 }), async (wishes) => {
        const memory = new DataMemory(64 * KIB);
        const all = wishes.map((wanted) => new Waiter(memory, 32 * KIB, [...wanted]));
        for (const each of all) each.memoryFreed();
        for (let rounds = 0; all.some((each) => each.wanted.length > 0); rounds++) {
          expect(rounds).toBeLessThan(200);
          for (const each of all) each.giveBack();
          await turn();
        }
        for (const each of all) while (each.held.length > 0) each.giveBack();
        expect(memory.usedBytes).toBe(0);
      }),
      { numRuns: 50 },
    );
  });
});
