import { type Errno, StorageError } from '../base/errors.ts';

/** A failure that also knows what its reader can do about it. `hint` is one sentence, without a newline. */
export class AdvisedError extends StorageError {
  readonly hint: string;

  constructor(code: Errno, message: string, hint: string, options?: ErrorOptions) {
    super(code, message, options);
    this.hint = hint;
  }
}

/** Advice that holds for a code wherever it comes from. */
const GENERAL_HINTS: Partial<Record<Errno, string>> = {
  EACCES: "Run it as the owner of the pool's files, or as root.",
  EPERM: "Run it as the owner of the pool's files, or as root.",
  EILSEQ: 'The metadata is damaged: look at it with "thinlun check", and repair it before anything writes to it.',
};

/** What can be done about anything thrown, or null when nobody knows. */
export function hintOf(error: unknown): string | null {
  if (error instanceof AdvisedError) return error.hint;
  if (error instanceof StorageError) return GENERAL_HINTS[error.code] ?? null;
  return null;
}

/** `error` with advice, unless it brings its own. What is not a `StorageError` is our own mistake and stays what it is. */
export function advise(error: unknown, hint: string): unknown {
  if (!(error instanceof StorageError) || error instanceof AdvisedError) return error;
  return new AdvisedError(error.code, error.message, hint, { cause: error });
}
