import { describe, expect, it } from 'vitest';
import { until } from '../../src/base/until.ts';

async function* numbers(count: number, onEnd: () => void = () => {}): AsyncIterable<number> {
  try {
    for (let i = 0; i < count; i++) yield i;
  } finally {
    onEnd();
  }
}

async function all(input: AsyncIterable<number>): Promise<number[]> {
  const found: number[] = [];
  for await (const number of input) found.push(number);
  return found;
}

const never = new Promise<never>(() => {});

describe('until', () => {
  it('gives everything when nothing stops it', async () => {
    expect(await all(until(numbers(5), never))).toEqual([0, 1, 2, 3, 4]);
  });

  it('throws what stops it, also while the next piece does not come, and ends the input', async () => {
    let stop: (error: Error) => void = () => {};
    const stopped = new Promise<never>((_, reject) => {
      stop = reject;
    });
    const stuck: AsyncIterable<number> = { [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }) };
    const waiting = all(until(stuck, stopped));
    stop(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
    await expect(all(until(numbers(3), stopped))).rejects.toThrow('enough');
    let ended = false;
    const input = until(
      numbers(3, () => {
        ended = true;
      }),
      never,
    );
    await input.next();
    await input.return();
    expect(ended).toBe(true);
  });

  it('throws what the input throws', async () => {
    const bad = (async function* () {
      yield 1;
      throw new Error('no more');
    })();
    await expect(all(until(bad, never))).rejects.toThrow('no more');
  });
});
