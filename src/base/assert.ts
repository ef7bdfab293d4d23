/**
 * A broken promise of our own code: never caught to continue, it stops the pool that it happened in.
 * The world's failures are `StorageError`s.
 */
export class AssertionError extends Error {
  override readonly name = 'AssertionError';
}

/** Throws `AssertionError` unless `condition` holds. `message` is constant text, so that a call costs one test. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}
