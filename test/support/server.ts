import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runOk } from './processes.mjs';
import { ThinlunServer, thinlun } from './thinlun-server.mjs';
import { optionalTool } from './tools.ts';

/**
 * A pool in a temporary folder, served by the built program. `close()` stops the server and has the pool checked by
 * `thinlun check` and by `thin_check`; it must be called by every test that made one.
 */
export class ServedPool {
  readonly folder: string;
  #parent: string;
  #server: ThinlunServer | null = null;

  private constructor(parent: string) {
    this.#parent = parent;
    this.folder = join(parent, 'pool');
  }

  /** `volumes` maps names to sizes; sizes as people write them. */
  static async create(dataSize: string, volumes: Readonly<Record<string, string>>): Promise<ServedPool> {
    const pool = new ServedPool(mkdtempSync(join(tmpdir(), 'thinlun-e2e-')));
    await thinlun('pool', 'create', pool.folder, '--data-size', dataSize);
    for (const [name, size] of Object.entries(volumes)) {
      await thinlun('volume', 'create', pool.folder, name, '--size', size);
    }
    return pool;
  }

  /** A file beside the pool that goes when the pool goes. */
  path(name: string): string {
    return join(this.#parent, name);
  }

  get server(): ThinlunServer {
    if (this.#server === null) throw new Error('the pool is not served at the moment');
    return this.#server;
  }

  async serve(options: Parameters<typeof ThinlunServer.start>[1] = {}): Promise<ThinlunServer> {
    this.#server = await ThinlunServer.start([this.folder], options);
    return this.#server;
  }

  /** Stops the server well and serves again. */
  async restart(): Promise<ThinlunServer> {
    await this.stop();
    return this.serve();
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    await server?.stop();
  }

  /** A new process takes over from the one that serves; returns what it says of it. */
  async takeOver(): Promise<TakenOver> {
    const old = this.server;
    this.#server = await ThinlunServer.start([this.folder], { takeover: true });
    await old.ended();
    return this.#server.ready.takeover as TakenOver;
  }

  /** SIGKILL. */
  async crash(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    await server?.kill();
  }

  /** What both judges say of the metadata; rejects with their words. Nobody has the pool open. */
  async check(): Promise<void> {
    await thinlun('check', this.folder);
    const judge = optionalTool('thin_check');
    if (judge !== null) await runOk(judge, [join(this.folder, 'metadata')]);
  }

  /** What `pool status --json` says. */
  async status(): Promise<PoolStatus> {
    return JSON.parse(await thinlun('pool', 'status', this.folder, '--json')) as PoolStatus;
  }

  /** Stops, checks and removes everything. */
  async close(): Promise<void> {
    try {
      await this.stop();
      await this.check();
    } finally {
      rmSync(this.#parent, { recursive: true, force: true });
    }
  }
}

/** The part of `takeover` in the ready message that tests read. */
export interface TakenOver {
  pid: number;
  pauseMs: number;
  sessions: number;
}

/** The part of `pool status --json` that tests read. */
export interface PoolStatus {
  blockSizeBytes: number;
  dataSizeBytes: number;
  dataUsedBytes: number;
  transactionId: number;
  needsCheck: boolean;
}

/** A number that `/proc/PID/status` has, in bytes: `VmRSS`, `VmHWM` (the highest so far). */
export async function memoryOf(pid: number, field: 'VmRSS' | 'VmHWM'): Promise<number> {
  const text = await runOk('cat', [`/proc/${pid}/status`]);
  const match = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(text);
  if (!match) throw new Error(`/proc/${pid}/status has no ${field}`);
  return Number(match[1]) * 1024;
}
