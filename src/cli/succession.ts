import { type ChildProcess, spawn } from 'node:child_process';
import type { Logger } from '../base/log.ts';
import { AdvisedError } from '../daemon/advised-error.ts';
import type { ServiceManager } from '../daemon/service-manager.ts';

/** Starts the process that takes over from this one: the program as it is installed now, with the arguments of this one. */
export class Succession {
  readonly #logger: Logger;
  readonly #manager: ServiceManager | null;
  #child: ChildProcess | null = null;

  constructor(logger: Logger, manager: ServiceManager | null) {
    this.#logger = logger;
    this.#manager = manager;
  }

  begin(): void {
    if (this.#child !== null) return;
    const [program, ...given] = process.argv.slice(1);
    const args = [...process.execArgv, program!, ...given, ...(given.includes('--takeover') ? [] : ['--takeover'])];
    this.#logger.info({ program }, 'starting a process to take over from this one');
    this.#manager?.reloading();
    const env = { ...process.env, ...this.#manager?.environment };
    const child = spawn(process.execPath, args, { stdio: 'inherit', detached: true, env });
    this.#child = child;
    child.on('error', (error) => this.#failed({ reason: error.message }));
    child.on('exit', (status, signal) => this.#failed({ status, signal }));
    // It outlives this one.
    child.unref();
  }

  /** Throws EPERM for a process that the service manager would take for a stranger: it would start the old one again. */
  check(pid: number): void {
    if (this.#manager === null || pid === this.#child?.pid) return;
    throw new AdvisedError(
      'EPERM',
      `Cannot take over from process ${process.pid}: it is a service of systemd, which would start another one in its place`,
      `Let the service do it, with "systemctl reload" of its unit or "kill -HUP ${process.pid}".`,
    );
  }

  #failed(fields: object): void {
    if (this.#child === null) return;
    this.#child = null;
    this.#logger.error(fields, 'the process that was to take over has ended; this one goes on');
    this.#manager?.reloaded();
  }
}
