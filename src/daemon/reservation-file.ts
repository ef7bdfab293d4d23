import { readFileSync } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { errnoOf, messageOf, StorageError, wrapError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { describeIssues, integer, safeParse, strictObject } from '../base/schema.ts';
import {
  isAllRegistrants,
  isReservationType,
  MAX_REGISTRANTS,
  type PersistentState,
  sameNexus,
  ZERO_KEY,
} from '../scsi/persistent-state.ts';
import type { ReservationStore } from '../scsi/reservations.ts';
import { AdvisedError } from './advised-error.ts';

/**
 * `reservations.json`: registrations and persistent reservations of volumes whose initiators want them kept (APTPL). By NAA designator, which stays when a
 * volume is renamed or rolled back, and which no other volume ever gets. Every write is a temporary file, fsync, rename, fsync of the folder; changes
 * that come meanwhile share the next one. There is no file when there is nothing to keep.
 */

const FILE = 'reservations.json';
const FORMAT = 1;

const NEXUS = { initiatorPort: v.pipe(v.string(), v.minLength(1), v.maxLength(512)), targetPort: integer(1, 0xffff) };

const VOLUME = v.pipe(
  strictObject({
    naa: v.pipe(v.string(), v.regex(/^[0-9a-f]{16}$/)),
    /** As in SPC-4 table 62; null without a reservation. */
    type: v.nullable(v.pipe(integer(), v.guard(isReservationType, 'there is no such type'))),
    /** Null also where all registrants hold it. */
    holder: v.nullable(strictObject(NEXUS)),
    registrants: v.pipe(
      v.array(strictObject({ ...NEXUS, key: v.pipe(v.string(), v.regex(/^[0-9a-f]{16}$/)) })),
      v.minLength(1),
      v.maxLength(MAX_REGISTRANTS),
    ),
  }),
  v.check(({ type, holder, registrants }) => {
    const held = type !== null && !isAllRegistrants(type);
    if (!held) return holder === null;
    return holder !== null && registrants.some((registrant) => sameNexus(registrant, holder));
  }, 'the holder is not what the type says'),
  v.check(({ registrants }) => registrants.every(({ key }) => key !== ZERO_KEY), 'a key is zero'),
  v.check(
    ({ registrants }) =>
      new Set(registrants.map(({ initiatorPort, targetPort }) => `${targetPort} ${initiatorPort}`)).size ===
      registrants.length,
    'a nexus is there twice',
  ),
);

const CONTENT = v.pipe(
  strictObject({ format: v.literal(FORMAT), volumes: v.array(VOLUME) }),
  v.check(({ volumes }) => new Set(volumes.map(({ naa }) => naa)).size === volumes.length, 'a volume is there twice'),
);

interface Waiting {
  readonly changes: Map<string, PersistentState | null>;
  readonly done: ((error: Error | null) => void)[];
}

/** What a pool's `reservations.json` has, and the only one to write it. */
export class ReservationFile {
  readonly #dir: string;
  readonly #logger: Logger;
  #saved: ReadonlyMap<string, PersistentState>;
  #waiting: Waiting | null = null;
  #writing: Promise<void> | null = null;

  private constructor(dir: string, logger: Logger, saved: ReadonlyMap<string, PersistentState>) {
    this.#dir = dir;
    this.#logger = logger;
    this.#saved = saved;
  }

  /**
   * What it has of volumes that `isKnown` does not know is forgotten. Throws EINVAL, with advice, when the file cannot be understood: to go on without it would
   * let in nodes that were fenced.
   */
  static load(dir: string, logger: Logger, isKnown: (naa: string) => boolean): ReservationFile {
    const path = join(dir, FILE);
    const saved = new Map<string, PersistentState>();
    try {
      const parsed = safeParse(CONTENT, JSON.parse(readFileSync(path, 'utf8')));
      if (!parsed.success) throw new StorageError('EINVAL', describeIssues(parsed.issues.slice(0, 1), 'the document'));
      for (const { naa, type, holder, registrants } of parsed.output.volumes) {
        if (isKnown(naa)) saved.set(naa, { registrants, type, holder, aptpl: true });
      }
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw unreadable(path, error);
    }
    return new ReservationFile(dir, logger, saved);
  }

  /** What is kept for the volume with that NAA designator. */
  get(naa: string): PersistentState | null {
    return this.#saved.get(naa) ?? null;
  }

  /** The volume's part of the file. */
  storeOf(naa: string): ReservationStore {
    return {
      load: () => this.get(naa),
      save: (state, done) => this.#set(naa, state, done),
    };
  }

  /** Replaces what is kept for a volume; null: nothing. Throws what writing fails with. */
  set(naa: string, state: PersistentState | null): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#set(naa, state, (error) => (error === null ? resolve() : reject(error)));
    });
  }

  /** The volume is gone. A failure is only logged: nobody else gets its designator. */
  async forget(naa: string): Promise<void> {
    if (!this.#saved.has(naa) && this.#waiting === null && this.#writing === null) return;
    await this.set(naa, null).catch(() => {});
  }

  /** Waits until everything is written that was asked for. */
  async close(): Promise<void> {
    while (this.#writing !== null) await this.#writing;
  }

  #set(naa: string, state: PersistentState | null, done: (error: Error | null) => void): void {
    this.#waiting ??= { changes: new Map(), done: [] };
    this.#waiting.changes.set(naa, state);
    this.#waiting.done.push(done);
    this.#writing ??= this.#writeAll();
  }

  async #writeAll(): Promise<void> {
    for (let waiting = this.#waiting; waiting !== null; waiting = this.#waiting) {
      this.#waiting = null;
      let failure: Error | null = null;
      try {
        const next = new Map(this.#saved);
        for (const [naa, state] of waiting.changes) {
          if (state === null || state.registrants.length === 0) next.delete(naa);
          else next.set(naa, state);
        }
        await this.#write(next);
        this.#saved = next;
      } catch (error) {
        failure = wrapError(`Cannot write the reservations "${join(this.#dir, FILE)}"`, error);
        this.#logger.error(
          { error: messageOf(error) },
          'reservations could not be kept; the command that made them fails',
        );
      }
      for (const done of waiting.done) done(failure);
    }
    this.#writing = null;
  }

  async #write(content: ReadonlyMap<string, PersistentState>): Promise<void> {
    const path = join(this.#dir, FILE);
    if (content.size === 0) await rm(path, { force: true });
    else {
      const volumes = [...content].map(([naa, { type, holder, registrants }]) => ({ naa, type, holder, registrants }));
      const temporary = `${path}.new`;
      const file = await open(temporary, 'w', 0o600);
      try {
        await file.writeFile(`${JSON.stringify({ format: FORMAT, volumes }, null, 2)}\n`);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(temporary, path);
    }
    const folder = await open(this.#dir, 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }
}

function unreadable(path: string, error: unknown): AdvisedError {
  return new AdvisedError(
    error instanceof SyntaxError ? 'EINVAL' : errnoOf(error),
    `Cannot read the reservations "${path}": ${messageOf(error)}`,
    'Put the right one back. Without it every node of a cluster may write, also one that was fenced: remove it only when none is running.',
    { cause: error },
  );
}
