import {
  closeSync,
  constants,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { assert } from '../base/assert.ts';
import type { Clock } from '../base/clock.ts';
import { StorageError, wrapError } from '../base/errors.ts';
import { isValidName } from '../base/names.ts';
import { type NativeBindings, native, nativeError } from '../base/native.ts';
import type { GiveFd, TakeFd } from '../base/shared-handle.ts';
import { type TcmuEvent, TcmuEventKind } from '../tcmu/genl.ts';
import type { Neighbours, Server } from '../tcmu/neighbours.ts';
import { AdvisedError } from './advised-error.ts';

/*
 * How the TCMU servers of a host know of each other. Everything is a lock that the kernel drops when its process ends, however it ends:
 *
 *   /run/thinlun/
 *     turn         held for moments: by who begins to serve, and by who answers in place of another
 *     first        held by one server, any
 *     answered     what was answered in place of others: a line "module kind device" each
 *     pools/NAME   held by the process that has the pool for TCMU; {"pid", "directory", "serving"}
 */

const RUN_DIR = '/run/thinlun';
const MODULE = '/sys/module/target_core_mod';
const RETRY_MS = 10;
const TURN_TIMEOUT_MS = 30_000;
/** Somebody may be looking at the lock of a pool. */
const CLAIM_TRIES = 50;
const CLAIM_RETRY_MS = 20;
const MAX_ENTRY_SIZE = 8192;
const MAX_ANSWERED = 256;

/** The process that has a pool. */
export interface PoolServer {
  readonly pid: number;
  readonly directory: string;
}

interface Entry extends PoolServer {
  readonly serving: boolean;
}

/** What one process tells the next that takes over from it; see `GiveFd`. */
export interface RegistryHandover {
  readonly pools: readonly { readonly name: string; readonly fd: number }[];
  readonly first: number | null;
}

export interface HostRegistryOptions {
  readonly clock: Clock;
  /** Default /run/thinlun. */
  readonly runDir?: string;
}

export class HostRegistry implements Neighbours {
  readonly #dir: string;
  readonly #clock: Clock;
  readonly #native: NativeBindings;
  /** Open `first` file once we are first; else -1. */
  #first = -1;
  #entered = false;
  /** Descriptors of the pools that are ours. */
  readonly #pools: Map<string, { fd: number; directory: string }> = new Map();
  /** The same of the process before, until they are claimed. */
  readonly #inherited: Map<string, number> = new Map();

  /** Throws `StorageError`: without the addon, or when the folder cannot be made. */
  constructor(options: HostRegistryOptions) {
    if (native === null) throw new StorageError('EOPNOTSUPP', `Cannot serve TCMU: no native addon: ${nativeError}`);
    this.#native = native;
    this.#clock = options.clock;
    this.#dir = options.runDir ?? RUN_DIR;
    try {
      mkdirSync(join(this.#dir, 'pools'), { recursive: true, mode: 0o700 });
    } catch (error) {
      throw wrapError(`Cannot use ${this.#dir}`, error);
    }
  }

  /** The locks, for the next process: they stay held when this one closes its own descriptors of them. */
  handOver(give: GiveFd): RegistryHandover {
    const pools = [...this.#pools].map(([name, { fd }]) => ({ name, fd: give(this.#native.duplicateFd(fd)) }));
    return { pools, first: this.#first === -1 ? null : give(this.#native.duplicateFd(this.#first)) };
  }

  /** Before any pool is claimed: the locks of another process, which has given them to us. */
  takeOver({ pools, first }: RegistryHandover, take: TakeFd): void {
    for (const { name, fd } of pools) this.#inherited.set(name, take(fd));
    if (first !== null) this.#first = take(first);
  }

  /** The name of a pool is this process's from now on. Throws EEXIST when another one on this host has a pool of that name for TCMU. */
  async claim(name: string, directory: string): Promise<void> {
    assert(!this.#pools.has(name), 'a pool is claimed once');
    const fd = this.#inherited.get(name) ?? this.#open(join('pools', name));
    this.#inherited.delete(name);
    for (let tries = 1; !this.#lock(fd, 'exclusive'); tries++) {
      if (tries === CLAIM_TRIES) {
        closeSync(fd);
        throw this.#taken(name, directory);
      }
      await sleep(CLAIM_RETRY_MS);
    }
    this.#pools.set(name, { fd, directory: resolve(directory) });
    this.#describe(name, this.#entered);
  }

  async enter(listen: () => void): Promise<void> {
    const turn = await this.#takeTurn();
    try {
      listen();
      this.#entered = true;
      for (const name of this.#pools.keys()) this.#describe(name, true);
    } finally {
      closeSync(turn);
    }
  }

  leave(): void {
    for (const name of this.#pools.keys()) this.#describe(name, false);
    this.#entered = false;
  }

  /** Gives all names back. */
  close(): void {
    for (const { fd } of this.#pools.values()) closeSync(fd);
    this.#pools.clear();
    for (const fd of this.#inherited.values()) closeSync(fd);
    this.#inherited.clear();
    if (this.#first !== -1) closeSync(this.#first);
    this.#first = -1;
  }

  server(cfgstring: string): Server {
    const name = cfgstring.split('/', 1)[0]!;
    if (this.#pools.has(name)) return { is: this.#entered ? 'ours' : 'nobody' };
    const found = this.#read(name);
    return found?.serving ? { is: 'theirs', token: found.token } : { is: 'nobody' };
  }

  /** The other process that serves the pool called `name`; null when none does. */
  find(name: string): PoolServer | null {
    const found = this.#read(name);
    return found?.serving ? found : null;
  }

  /** Whether the process with this id has a pool. */
  isServer(pid: number): boolean {
    return this.#others().has(pid);
  }

  count(): number {
    return this.#others().size;
  }

  /** The processes that have pools. */
  #others(): Set<number> {
    const pids = new Set<number>();
    for (const name of readdirSync(join(this.#dir, 'pools'))) {
      const entry = this.#read(name);
      if (entry !== null) pids.add(entry.pid);
    }
    return pids;
  }

  wasAnswered(event: TcmuEvent): boolean {
    return this.#answered().includes(keyOf(event));
  }

  async answerInPlace(event: TcmuEvent, needed: () => boolean, answer: () => Promise<void>): Promise<void> {
    // Nothing tells one change of a device from the next: so one process answers all of them.
    if (event.kind === TcmuEventKind.RECONFIG && !this.#isFirst()) return;
    const turn = await this.#takeTurn();
    try {
      const answered = this.#answered();
      const key = keyOf(event);
      if (event.kind !== TcmuEventKind.RECONFIG && answered.includes(key)) return;
      if (!needed()) return;
      writeFileSync(join(this.#dir, 'answered'), [...answered.slice(1 - MAX_ANSWERED), key, ''].join('\n'));
      await answer();
    } finally {
      closeSync(turn);
    }
  }

  #isFirst(): boolean {
    if (this.#first !== -1) return true;
    const fd = this.#open('first');
    if (this.#lock(fd, 'exclusive')) this.#first = fd;
    else closeSync(fd);
    return this.#first !== -1;
  }

  #answered(): string[] {
    try {
      return readFileSync(join(this.#dir, 'answered'), 'utf8').split('\n').filter(Boolean);
    } catch {
      return [];
    }
  }

  /** Resolves to the open file; closing it ends the turn. */
  async #takeTurn(): Promise<number> {
    const fd = this.#open('turn');
    const end = this.#clock.nowMs() + TURN_TIMEOUT_MS;
    while (!this.#lock(fd, 'exclusive')) {
      if (this.#clock.nowMs() >= end) {
        closeSync(fd);
        throw new AdvisedError(
          'EBUSY',
          `Cannot lock ${this.#dir}/turn: another process has held it for ${TURN_TIMEOUT_MS / 1000} s`,
          `Find a process that hangs or was stopped with "fuser ${this.#dir}/turn".`,
        );
      }
      await sleep(RETRY_MS);
    }
    return fd;
  }

  #describe(name: string, serving: boolean): void {
    const { fd, directory } = this.#pools.get(name)!;
    const text = JSON.stringify({ pid: process.pid, directory, serving });
    writeSync(fd, text, 0);
    ftruncateSync(fd, Buffer.byteLength(text));
  }

  /** What another process says of the pool that it has; null when none has it. */
  #read(name: string): (Entry & { token: string }) | null {
    if (!isValidName(name) || this.#pools.has(name)) return null;
    let fd: number;
    try {
      fd = openSync(join(this.#dir, 'pools', name), constants.O_RDONLY);
    } catch {
      return null;
    }
    try {
      if (this.#lock(fd, 'shared')) return null;
      const bytes = Buffer.alloc(MAX_ENTRY_SIZE);
      const entry = JSON.parse(bytes.toString('utf8', 0, readSync(fd, bytes, 0, MAX_ENTRY_SIZE, 0))) as Entry;
      return { ...entry, token: `${entry.pid}` };
    } catch {
      return null; // being written
    } finally {
      closeSync(fd);
    }
  }

  #taken(name: string, directory: string): StorageError {
    const other = this.#read(name);
    const who = other === null ? 'another process' : `process ${other.pid}`;
    const where = other === null ? '' : ` from "${other.directory}"`;
    return new AdvisedError(
      'EEXIST',
      `Cannot serve the pool "${directory}" to LIO: ${who} serves a pool of the same name, ${name},${where} already`,
      'LIO finds a volume by the name of its pool: serve one of the two without --tcmu, or on another machine.',
    );
  }

  #open(name: string): number {
    return openSync(join(this.#dir, name), constants.O_RDWR | constants.O_CREAT, 0o600);
  }

  #lock(fd: number, operation: 'exclusive' | 'shared'): boolean {
    try {
      this.#native.flock(fd, operation, true);
      return true;
    } catch (error) {
      if ((error as { code?: string }).code === 'EAGAIN') return false;
      throw wrapError(`Cannot lock a file of ${this.#dir}`, error);
    }
  }
}

/** The ids of devices begin anew when the module is loaded anew. */
function keyOf(event: TcmuEvent): string {
  return `${statSync(MODULE, { throwIfNoEntry: false })?.ino ?? 0} ${event.kind} ${event.deviceId}`;
}
