import type { TcmuEvent } from './genl.ts';

/** Who serves a device. */
export type Server =
  | { readonly is: 'ours' }
  | { readonly is: 'nobody' }
  /** `token` is another one after that server was started again. */
  | { readonly is: 'theirs'; readonly token: string };

/**
 * Handlers of the same subtype in other processes of this host. The kernel tells all of them of every device and takes the first
 * answer, so each event is answered by one: by the process that serves the device, else by whoever comes first, once.
 */
export interface Neighbours {
  /**
   * Runs `listen`, which begins to receive events, and from then on others know what is ours; neither they nor we answer for
   * anybody meanwhile. `alone`: no other handler lives. Rejects with a `StorageError`.
   */
  enter(listen: (alone: boolean) => Promise<void>): Promise<void>;
  /** Others may answer for what was ours. True when no other handler is left. */
  leave(): boolean;
  server(cfgstring: string): Server;
  /** Whether this device's event was answered by somebody who did so for a server that is not there. */
  wasAnswered(event: TcmuEvent): boolean;
  /**
   * Calls `answer` unless somebody has answered in place of the device's server, or `unless()` holds when it is our turn. Resolves to
   * whether it was called.
   */
  answerInPlace(event: TcmuEvent, unless: () => Promise<boolean>, answer: () => void): Promise<boolean>;
}

/** For a handler that has the host for itself and every device of its subtype. */
export const NO_NEIGHBOURS: Neighbours = {
  enter: (listen) => listen(true),
  leave: () => true,
  server: () => ({ is: 'ours' }),
  wasAnswered: () => false,
  answerInPlace: () => Promise.resolve(false),
};
