import type { LoginStatus } from './spec.ts';

/** A login that fails; thrown below `Login.next` only. */
export class LoginFailure extends Error {
  readonly status: LoginStatus;

  constructor(status: LoginStatus, reason: string) {
    super(reason);
    this.status = status;
  }
}

/** `reason` is for the log: the initiator sees the status alone. */
export function fail(status: LoginStatus, reason: string): never {
  throw new LoginFailure(status, reason);
}
