/**
 * What `input` gives, until `stopped` is rejected: then that is thrown, however long the next piece takes. `input` is ended then, and not
 * waited for. `stopped` may live long and have many who wait for it: nothing of a piece stays with it (as it would with `Promise.race`).
 */
export async function* until<T>(input: AsyncIterable<T>, stopped: Promise<never>): AsyncGenerator<T, void> {
  const iterator = input[Symbol.asyncIterator]();
  let stop: (reason: unknown) => void = () => {};
  let reason: { error: unknown } | null = null;
  stopped.catch((error: unknown) => {
    reason = { error };
    stop(error);
  });
  try {
    for (;;) {
      const { value, done } = await new Promise<IteratorResult<T>>((resolve, reject) => {
        stop = reject;
        if (reason !== null) reject(reason.error);
        iterator.next().then(resolve, reject);
      });
      stop = () => {};
      if (done) return;
      yield value;
    }
  } finally {
    void iterator.return?.().then(
      () => {},
      () => {},
    );
  }
}
