/** What `input` gives, until `stopped` is rejected: then that is thrown, however long the next piece takes. `input` is ended then, and not waited for. */
export async function* until<T>(input: AsyncIterable<T>, stopped: Promise<never>): AsyncGenerator<T, void> {
  const iterator = input[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = iterator.next();
      next.catch(() => {});
      const { value, done } = await Promise.race([next, stopped]);
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
