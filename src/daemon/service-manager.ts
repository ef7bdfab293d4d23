import { execFile } from 'node:child_process';
import type { Clock, Timer } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { native } from '../base/native.ts';

/*
 * What systemd wants to hear of a Type=notify service (sd_notify(3)): datagrams of NAME=VALUE lines to the socket that NOTIFY_SOCKET
 * names, an abstract one when it begins with "@". With WATCHDOG_USEC it restarts who has said nothing for that long.
 */

/** The watchdog hears from us this many times in its interval: one long step of the event loop is no reason to be ended. */
const PINGS_PER_INTERVAL = 4;
const SEND_RETRY_MS = 200;
/** How often the status line is looked at where there is no watchdog. */
const STATUS_INTERVAL_MS = 10_000;

export interface ServiceManagerOptions {
  /** As in NOTIFY_SOCKET. */
  readonly address: string;
  /** WATCHDOG_USEC; 0: no watchdog. */
  readonly watchdogUs: number;
  readonly logger: Logger;
  readonly clock: Clock;
}

/** Tells the service manager how the server is. Nothing that goes wrong here disturbs the server. */
export class ServiceManager {
  readonly #address: string;
  readonly #watchdogMs: number;
  readonly #logger: Logger;
  readonly #clock: Clock;
  #timer: Timer | null = null;
  #status = '';
  #complained = false;

  constructor(options: ServiceManagerOptions) {
    this.#address = options.address;
    this.#watchdogMs = options.watchdogUs / 1000;
    this.#logger = options.logger;
    this.#clock = options.clock;
    const { address, watchdogUs } = options;
    this.environment = { NOTIFY_SOCKET: address, ...(watchdogUs > 0 ? { WATCHDOG_USEC: String(watchdogUs) } : {}) };
  }

  /** The manager that started this process, or null. Takes its variables out of `environment`: they are not for our children. */
  static fromEnvironment(environment: NodeJS.ProcessEnv, logger: Logger, clock: Clock): ServiceManager | null {
    const { NOTIFY_SOCKET: address, WATCHDOG_USEC: interval, WATCHDOG_PID: pid } = environment;
    for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) delete environment[name];
    if (address === undefined || !/^[/@]./.test(address)) return null;
    const ours = pid === undefined || pid === String(process.pid);
    const watchdogUs = ours && /^\d{1,15}$/.test(interval ?? '') ? Number(interval) : 0;
    return new ServiceManager({ address, watchdogUs, logger, clock });
  }

  /** Variables for a process that is to be the service after this one. */
  readonly environment: Readonly<Record<string, string>>;

  /** Another process is about to take over. */
  reloading(): void {
    const [seconds, nanoseconds] = process.hrtime();
    this.#send(`RELOADING=1\nMONOTONIC_USEC=${seconds * 1_000_000 + Math.floor(nanoseconds / 1000)}`);
  }

  /** It could not: this one is still the service. */
  reloaded(): void {
    this.#send(`READY=1\nMAINPID=${process.pid}`);
  }

  /** Another process has taken over: it speaks from now on. */
  left(): void {
    this.#timer?.cancel();
  }

  /** Initiators can be served. From now on the watchdog hears from us, and the manager the line that `status` makes when it changes. */
  ready(status: () => string): void {
    this.#status = status();
    // Where it has taken over from another process, this one is the service now.
    this.#send(`MAINPID=${process.pid}\nREADY=1\nSTATUS=${this.#status}`);
    const intervalMs = this.#watchdogMs > 0 ? this.#watchdogMs / PINGS_PER_INTERVAL : STATUS_INTERVAL_MS;
    const tick = (): void => {
      if (this.#watchdogMs > 0) this.#send('WATCHDOG=1');
      const line = status();
      if (line !== this.#status) this.#send(`STATUS=${line}`);
      this.#status = line;
      this.#timer = this.#clock.setTimer(intervalMs, tick);
    };
    tick();
  }

  /** The end has begun. */
  stopping(): void {
    this.#timer?.cancel();
    this.#send('STOPPING=1\nSTATUS=Finishing what is in flight');
  }

  #send(message: string): void {
    if (native === null) {
      const lines = [`--pid=${process.pid}`, ...message.split('\n')];
      const environment = { ...process.env, NOTIFY_SOCKET: this.#address };
      execFile('systemd-notify', lines, { env: environment, timeout: 10_000 }, (error) => {
        if (error !== null) this.#complain(messageOf(error));
      });
      return;
    }
    const name = this.#address.startsWith('@') ? `\0${this.#address.slice(1)}` : this.#address;
    try {
      native.sendDatagram(Buffer.from(name), Buffer.from(message));
    } catch (error) {
      // The manager does not read fast enough. What it needs to know is said again; a ping is not missed.
      if ((error as { code?: string }).code === 'EAGAIN') {
        if (message !== 'WATCHDOG=1') this.#clock.setTimer(SEND_RETRY_MS, () => this.#send(message));
      } else this.#complain(messageOf(error));
    }
  }

  #complain(reason: string): void {
    if (this.#complained) return;
    this.#complained = true;
    this.#logger.warn({ socket: this.#address, reason }, 'the service manager cannot be told how the server is');
  }
}
