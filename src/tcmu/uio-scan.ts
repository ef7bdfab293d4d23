import { readdirSync } from 'node:fs';
import type { TcmuPaths } from './configfs.ts';
import { readUioEntry, type UioEntry } from './uio.ts';

/** Names read in one look, of devices that were there before: one a system call. */
const REREAD_LIMIT = 64;

export interface UioView {
  readonly present: ReadonlySet<number>;
  /** TCMU devices that are not served here, whoever they belong to. */
  readonly unserved: readonly UioEntry[];
}

/**
 * Looks for devices in sysfs, again and again, on the thread that serves I/O: so the cost of a look is one directory listing and a bounded
 * number of names, however many devices there are. Names of served devices are not read: their own files tell when they are gone.
 */
export class UioScan {
  readonly #paths: TcmuPaths;
  /** What is present and not served; null for what is no TCMU device. */
  readonly #unserved = new Map<number, UioEntry | null>();
  #next = 0;

  constructor(paths: TcmuPaths) {
    this.#paths = paths;
  }

  /** `thorough`: believes no name that was read before. */
  look(isServed: (minor: number) => boolean, thorough: boolean): UioView {
    const present = presentMinors(this.#paths);
    for (const minor of this.#unserved.keys()) if (!present.has(minor) || isServed(minor)) this.#unserved.delete(minor);
    if (thorough) this.#unserved.clear();
    this.#reread();
    for (const minor of present) {
      if (!isServed(minor) && !this.#unserved.has(minor)) this.#unserved.set(minor, readUioEntry(this.#paths, minor));
    }
    const unserved: UioEntry[] = [];
    for (const entry of this.#unserved.values()) if (entry !== null) unserved.push(entry);
    return { present, unserved };
  }

  /** A minor may have another name by now: some of them are read anew each time, in turns. */
  #reread(): void {
    const minors = [...this.#unserved.keys()];
    const count = Math.min(REREAD_LIMIT, minors.length);
    for (let i = 0; i < count; i++) {
      const minor = minors[(this.#next + i) % minors.length]!;
      this.#unserved.set(minor, readUioEntry(this.#paths, minor));
    }
    this.#next = minors.length === 0 ? 0 : (this.#next + count) % minors.length;
  }
}

function presentMinors(paths: TcmuPaths): Set<number> {
  const present = new Set<number>();
  let folders: string[];
  try {
    folders = readdirSync(paths.uioClass);
  } catch {
    return present; // no uio device was ever made
  }
  for (const folder of folders) {
    const match = /^uio(\d+)$/.exec(folder);
    if (match !== null) present.add(Number(match[1]));
  }
  return present;
}
