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
   * Calls `listen`, which begins to receive events; what is ours is known to be served from then on. Nobody answers in place of others
   * meanwhile. Rejects with what `listen` throws, or a `StorageError`.
   */
  enter(listen: () => void): Promise<void>;
  /** Nothing is served by us any more: others may answer. */
  leave(): void;
  server(cfgstring: string): Server;
  /** How many other processes are known. */
  count(): number;
  /** Whether the event was answered by a process in place of its device's server. */
  wasAnswered(event: TcmuEvent): boolean;
  /**
   * Calls `answer`, while nobody else does so for any event nor begins to serve, unless the event was answered like this before or
   * `needed()` says no when it is our turn. Rejects with a `StorageError`.
   */
  answerInPlace(event: TcmuEvent, needed: () => boolean, answer: () => Promise<void>): Promise<void>;
}

/** For a handler that has every device of its subtype. */
export const NO_NEIGHBOURS: Neighbours = {
  enter: async (listen) => listen(),
  leave: () => {},
  server: () => ({ is: 'ours' }),
  count: () => 0,
  wasAnswered: () => false,
  answerInPlace: () => Promise.resolve(),
};
