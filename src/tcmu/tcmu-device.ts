import type { Clock } from '../base/clock.ts';
import { messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { NativeBindings } from '../base/native.ts';
import type { GiveFd } from '../base/shared-handle.ts';
import { DEFAULT_MAX_TRANSFER } from '../scsi/front-end.ts';
import type { LogicalUnit } from '../scsi/logical-unit.ts';
import { Nexus } from '../scsi/nexus.ts';
import { CommandRing } from './command-ring.ts';
import type { ConfigfsDevice, TcmuPaths } from './configfs.ts';
import type { TcmuEvent } from './genl.ts';
import { LioFrontEnd } from './lio-front-end.ts';
import { type MailboxLayout, readMailbox } from './mailbox.ts';
import { RingPoll } from './ring-poll.ts';
import { RingWatch } from './ring-watch.ts';
import type { DeviceHandover } from './tcmu-handover.ts';
import type { UioDevice, UioEntry, UioListener } from './uio.ts';

/** Commands of one device that the logical unit has at once; what is more waits on the ring. */
const MAX_IN_FLIGHT = 1024;
/** A ring that breaks is made anew this often, then the device stays blocked. */
const MAX_RING_RESETS = 3;
/** What is in flight gets this long to end before a device is given up with it. */
export const DRAIN_TIMEOUT_MS = 10_000;

export interface TcmuDeviceOptions {
  readonly native: NativeBindings;
  readonly paths: TcmuPaths;
  readonly entry: UioEntry;
  readonly configfs: ConfigfsDevice;
  readonly unit: LogicalUnit;
  readonly logger: Logger;
  readonly clock: Clock;
  /** An open of the device that the caller has made; owned from here on. */
  readonly uio: UioDevice;
  /** dev_size. */
  readonly shownSizeBytes: number;
  /** Nothing is taken from the ring before `thaw`; what is there may have waited for as many milliseconds. Left out: it is new to us. */
  readonly frozenMs?: number;
  /** hw_max_sectors in bytes. */
  readonly maxTransferBytes: number;
  /** The kernel has removed the device. */
  gone(): void;
}

/** What is different for each of a handler's devices. */
export type OwnDeviceOptions = Pick<
  TcmuDeviceOptions,
  'entry' | 'configfs' | 'unit' | 'uio' | 'shownSizeBytes' | 'maxTransferBytes' | 'frozenMs'
>;

export interface TcmuDeviceStatus {
  /** LIO's folder of it is core/user_<hba>/<device>. */
  readonly hba: string;
  readonly device: string;
  readonly cfgstring: string;
  readonly minor: number;
  readonly state: 'serving' | 'failed' | 'closed';
  /** Why it has failed; null while it serves. */
  readonly problem: string | null;
  readonly inFlight: number;
  readonly commands: number;
  readonly batches: number;
  readonly aborts: number;
  readonly refused: number;
  /** Commands that waited for too long and were answered BUSY. */
  readonly busy: number;
}

/**
 * One device being served: the wake-ups of its uio file run its command ring against its logical unit. Whatever goes wrong in here
 * ends this device and nothing else.
 */
export class TcmuDevice implements UioListener {
  readonly entry: UioEntry;
  readonly unit: LogicalUnit;
  readonly configfs: ConfigfsDevice;
  /** The size that LIO shows. */
  shownSizeBytes: number;
  readonly #options: TcmuDeviceOptions;
  readonly #uio: UioDevice;
  readonly #memory: Uint8Array;
  /** TCMU does not say who asks: all initiators are one nexus. */
  readonly #nexus: Nexus;
  readonly #frontEnd: LioFrontEnd;
  readonly #serviceBound = (): void => this.#service();
  readonly #settleBound = (): void => this.#service(true);
  readonly #poll: RingPoll = new RingPoll();
  #ring: CommandRing;
  #watch: RingWatch;
  /** cmd_time_out, in seconds, as last seen. */
  #timeOutS = 0;
  #readingTimeOut = false;
  #state: TcmuDeviceStatus['state'] = 'serving';
  #problem = '';
  #resets = 0;
  #onDrained: (() => void) | null = null;

  /** Maps the device and serves what is on the ring. On failure nothing stays open. Throws `StorageError`. */
  constructor(options: TcmuDeviceOptions) {
    this.shownSizeBytes = options.shownSizeBytes;
    this.#options = options;
    this.entry = options.entry;
    this.unit = options.unit;
    this.configfs = options.configfs;
    this.#uio = options.uio;
    const { configfs, unit, logger, clock } = options;
    try {
      this.#memory = this.#uio.map();
      const maxTransferBytes = transferLimit(options, readMailbox(this.#memory));
      this.#frontEnd = new LioFrontEnd({ configfs, maxTransferBytes, serial: unit.state.serial, logger, clock });
    } catch (error) {
      this.#uio.close();
      throw error;
    }
    this.#nexus = new Nexus(`tcmu,i,${this.entry.name.device}`, '', 0, this.#frontEnd);
    try {
      this.#ring = this.#makeRing();
      this.#ring.paused = options.frozenMs !== undefined;
      this.#watch = this.#makeWatch(options.frozenMs);
      this.unit.attach(this.#nexus, false); // LIO reports unit attentions of its own
      this.#uio.listen(this);
    } catch (error) {
      this.unit.detach(this.#nexus);
      this.#uio.close();
      throw error;
    }
    this.#watch.start();
    this.#service(); // what came before the first event made none
  }

  /** The size of what stands behind the unit. */
  get sizeBytes(): number {
    return this.unit.state.backend.sizeBytes;
  }

  status(): TcmuDeviceStatus {
    const { stats } = this.#ring;
    return {
      hba: this.entry.name.hba,
      device: this.entry.name.device,
      cfgstring: this.entry.name.cfgstring,
      minor: this.entry.minor,
      state: this.#state,
      problem: this.#state === 'failed' ? this.#problem : null,
      inFlight: this.#ring.inFlight,
      commands: stats.commands,
      batches: stats.batches,
      aborts: stats.aborts,
      refused: stats.refused,
      busy: stats.busy,
    };
  }

  /**
   * A command that has timed out in the kernel was reported as failed, and yet would be executed when its turn comes: so there are to be
   * no time-outs. They can be turned off only while nothing exports the device, and on again by anybody: to be repeated from time to time.
   */
  async forbidTimeOut(): Promise<void> {
    if (this.#readingTimeOut) return;
    this.#readingTimeOut = true;
    try {
      let seconds = await this.configfs.readNumber('cmd_time_out');
      // Refused once is refused: each attempt is a line in the kernel's log.
      if (seconds !== 0 && seconds !== this.#timeOutS) {
        await this.configfs.write('attrib/cmd_time_out', '0').then(
          () => {
            seconds = 0;
          },
          () => this.#sayTimeOut(seconds),
        );
      }
      this.#timeOutS = seconds;
      this.#watch.timeOutMs = seconds * 1000;
    } finally {
      this.#readingTimeOut = false;
    }
  }

  /** From time to time, for a device that is not being removed: looks at what others have set in configfs. Waits for nothing. */
  lookAround(): void {
    // Reservations of LIO bind nobody else who uses the volume.
    if (this.unit.state.nexuses.size > 1) void this.#frontEnd.lookForReservation();
    this.forbidTimeOut().catch(() => {});
  }

  /** Whether the kernel still has the device. */
  isAlive(): boolean {
    if (!this.#uio.takeEvents()) return false;
    this.#service(); // an event may have been taken
    return true;
  }

  uioEvent(): void {
    this.#poll.begin();
    this.#service();
  }

  uioGone(): void {
    this.#options.gone();
  }

  /** Ends when nothing is in flight and nothing is on the ring, or after `timeoutMs`; says which. The kernel sends no more by then. */
  async drain(timeoutMs: number): Promise<boolean> {
    this.#service();
    if (this.#drained()) return true;
    const ended = await new Promise<boolean>((resolve) => {
      const timer = this.#options.clock.setTimer(timeoutMs, () => resolve(false));
      this.#onDrained = () => {
        timer.cancel();
        resolve(true);
      };
    });
    this.#onDrained = null;
    return ended;
  }

  /** Takes nothing more from the ring, and waits until nothing is in flight: then another process may go on with it. False when that takes longer than `timeoutMs`. */
  async freeze(timeoutMs: number): Promise<boolean> {
    this.#ring.paused = true;
    this.#service();
    if (this.#ring.inFlight === 0) return this.#state === 'serving';
    const quiet = await this.drain(timeoutMs);
    return quiet && this.#state === 'serving';
  }

  thaw(): void {
    this.#ring.paused = false;
    this.#service();
  }

  /** For the next process, once it is frozen. `close` follows. */
  handOver(give: GiveFd): DeviceHandover {
    const { minor, uioName } = this.entry;
    const { shownSizeBytes } = this;
    return { minor, uioName, shownSizeBytes, waitedMs: this.#watch.waitedMs, fd: give(this.#uio.share()) };
  }

  /** Asks for what is in flight to stop early: the device is going away. */
  abortAll(): void {
    this.#frontEnd.close();
    this.#ring.abortTakenBefore(Number.POSITIVE_INFINITY);
  }

  /**
   * Stops listening and, when nothing is in flight, unmaps and closes. Else the map stays, as the backend may still read or
   * write it; returns false then.
   */
  close(): boolean {
    this.#state = 'closed';
    this.#watch.stop();
    this.#uio.stopListening();
    this.#ring.detach();
    this.#frontEnd.close();
    this.unit.detach(this.#nexus);
    if (this.#ring.inFlight > 0) return false;
    this.#uio.close();
    return true;
  }

  /**
   * The clean end of our service of a device that stays: new commands are answered BUSY until `close` has been called, then they wait on the
   * ring; unless it does not work any more, and they would wait in vain.
   */
  async leave(close: () => Promise<void>, works: boolean): Promise<void> {
    const { configfs } = this;
    await configfs.setBlocked(true);
    const drained = await this.drain(DRAIN_TIMEOUT_MS);
    await close();
    if (!drained) {
      // Blocked, so that the next process resets the ring before anybody uses it.
      this.#options.logger.error({ device: this.entry.uioName }, 'left blocked: commands are still in flight');
      return;
    }
    if (works) await configfs.setBlocked(false);
    else this.#options.logger.warn({ device: this.entry.uioName }, 'left blocked: its pool has failed');
    // Nobody answers for it now: its removal must not wait. Those that opted out stay so.
    if ((await configfs.readNumber('nl_reply_supported')) > 0) await configfs.write('attrib/nl_reply_supported', '0');
  }

  /** The kernel asks whether the device may change. Rejects with a `StorageError`. */
  async reconfigure(event: TcmuEvent, resize: (sizeBytes: number) => Promise<void>): Promise<void> {
    const { name } = this.entry;
    // As it was written, with the newline of an echo.
    const config = event.devConfig?.trimEnd();
    if (config !== undefined && config !== `${name.subtype}/${name.cfgstring}`) {
      throw new StorageError('EOPNOTSUPP', `Cannot turn ${name.cfgstring} into ${config}: make a new device`);
    }
    // The kernel shows the new size once we have agreed. emulate_write_cache is only stored: the unit's mode page decides.
    if (event.sizeBytes === null) return;
    if (event.sizeBytes !== this.sizeBytes) await resize(event.sizeBytes);
    this.shownSizeBytes = event.sizeBytes;
  }

  #makeRing(): CommandRing {
    const { native, logger } = this.#options;
    return new CommandRing({
      memory: this.#memory,
      layout: readMailbox(this.#memory),
      atomics: native,
      unit: this.unit,
      nexus: this.#nexus,
      host: {
        doorbell: () => {
          this.#uio.ringDoorbell();
        },
        serviceSoon: () => {
          // After the rest of this callback's completions: they share one doorbell. A turn of the event loop more would cost
          // a system call for each command at depth 1.
          process.nextTick(this.#settleBound);
        },
        entryRefused: (reason) => logger.error({ device: this.entry.uioName, reason }, 'refused an entry of the ring'),
      },
      maxInFlight: MAX_IN_FLIGHT,
    });
  }

  #makeWatch(waitedMs: number = 0): RingWatch {
    const { logger, clock } = this.#options;
    const late = (commands: number, ms: number): void => {
      const waitedS = Math.round(ms / 1000);
      logger.warn(
        { device: this.entry.uioName, commands, waitedS },
        'commands that may have waited for that long were answered BUSY, not executed: their initiators may have given them up',
      );
    };
    const watch = new RingWatch(this.#ring, clock, this.#serviceBound, late, waitedMs);
    watch.timeOutMs = this.#timeOutS * 1000;
    return watch;
  }

  #sayTimeOut(seconds: number): void {
    this.#options.logger.warn(
      { device: this.entry.uioName, path: this.configfs.path, seconds },
      'cmd_time_out is not 0: commands that take longer are aborted; remove the LUNs, then set it to 0',
    );
  }

  #service(settles: boolean = false): void {
    if (this.#state === 'serving') {
      try {
        if (settles) this.#watch.settle();
        if (!settles || this.#poll.wait(this.#ring)) this.#watch.service();
      } catch (error) {
        this.#fail(error);
      }
    }
    if (this.#onDrained !== null && this.#drained()) this.#onDrained();
  }

  #drained(): boolean {
    return this.#state === 'serving' && !this.#ring.paused ? this.#ring.idle : this.#ring.inFlight === 0;
  }

  /** Initiators get BUSY from a blocked device and try again; meanwhile the ring is made anew, where that helps. */
  #fail(error: unknown): void {
    const { logger } = this.#options;
    const device = this.entry.uioName;
    logger.error({ device, reason: messageOf(error) }, 'device failed');
    this.#state = 'failed';
    this.#problem = messageOf(error);
    const broken = (error as { code?: unknown }).code === 'EILSEQ';
    this.#recover(broken && this.#resets++ < MAX_RING_RESETS).catch((reason: unknown) => {
      logger.error({ device, reason: messageOf(reason) }, 'device stays blocked');
    });
  }

  async #recover(resetRing: boolean): Promise<void> {
    await this.configfs.setBlocked(true);
    if (!resetRing) {
      this.#options.logger.error({ device: this.entry.uioName }, 'device stays blocked: initiators get BUSY');
      return;
    }
    // The reset frees the data pages of what is outstanding: nobody may be using them any more.
    await this.drain(DRAIN_TIMEOUT_MS * 6);
    if (this.#ring.inFlight > 0 || this.#state !== 'failed') return;
    await this.configfs.resetRing();
    this.#watch.stop();
    this.#ring = this.#makeRing();
    this.#watch = this.#makeWatch();
    this.#watch.start();
    this.#state = 'serving';
    this.#service();
    await this.configfs.setBlocked(false);
    this.#options.logger.warn({ device: this.entry.uioName }, 'ring was reset, device serves again');
  }
}

/** LIO shows hw_max_sectors and does not enforce it; a command larger than the data area it refuses. */
function transferLimit({ maxTransferBytes, unit }: TcmuDeviceOptions, layout: MailboxLayout): number {
  const room = Math.min(maxTransferBytes, layout.mapSize - layout.dataOffset, DEFAULT_MAX_TRANSFER);
  return Math.max(room, unit.state.blockSize);
}
