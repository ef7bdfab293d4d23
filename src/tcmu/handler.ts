import { constants as osConstants } from 'node:os';
import type { Timer } from '../base/clock.ts';
import { errnoOf, messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { type NativeBindings, native, nativeError } from '../base/native.ts';
import { SECTOR_SIZE } from '../base/units.ts';
import type { LogicalUnit } from '../scsi/logical-unit.ts';
import { ConfigfsDevice, ModuleParameters, SYSTEM_PATHS, type TcmuPaths } from './configfs.ts';
import { isEnabled, setAttributes, setWaiting, untilEnabled } from './device-attributes.ts';
import type { PendingAnswer } from './event-answers.ts';
import { type TcmuEvent, TcmuEventKind } from './genl.ts';
import type { TcmuDeviceInfo, TcmuHandlerOptions } from './handler-options.ts';
import { KernelEvents } from './kernel-events.ts';

import { type Neighbours, NO_NEIGHBOURS } from './neighbours.ts';
import { DRAIN_TIMEOUT_MS, TcmuDevice } from './tcmu-device.ts';
import { RefusalLog, type TcmuStatus, type UnservedDevice } from './tcmu-status.ts';
import { readUioEntry, UioDevice, type UioEntry } from './uio.ts';
import { UioScan } from './uio-scan.ts';

const RECONCILE_INTERVAL_MS = 5_000;
/** An answer to ADDED keeps a thread of the kernel in D state: after this long it is a no. */
const RESOLVE_TIMEOUT_MS = 20_000;
/** However a step hangs, the kernel has an answer by then. */
const ANSWER_TIMEOUT_MS = RESOLVE_TIMEOUT_MS + 5_000;
/** Devices that could not be served are tried again, so many at a time. */
const RETRY_LIMIT = 32;

/**
 * Serves every TCMU device of one subtype: those that are there, and those of which the kernel tells while it runs. Devices are independent
 * of each other; what is done about one device is done in order.
 */
export class TcmuHandler {
  readonly #options: TcmuHandlerOptions;
  readonly #paths: TcmuPaths;
  readonly #native: NativeBindings;
  readonly #logger: Logger;
  readonly #devices = new Map<number, TcmuDevice>();
  /** The last step under way for a minor. */
  readonly #steps = new Map<number, Promise<void>>();
  /** Devices that cannot be served, oldest failure first: the same is not said again and again. */
  readonly #unserved = new Map<number, UnservedDevice>();
  readonly #refusals: RefusalLog;
  readonly #scan: UioScan;
  readonly #neighbours: Neighbours;
  /** Minors of devices that are older than we are. */
  readonly #older = new Set<number>();
  #events: KernelEvents | null = null;
  #reconcileTimer: Timer | null = null;
  #stopping = false;

  /** Throws EOPNOTSUPP without the addon. */
  constructor(options: TcmuHandlerOptions) {
    if (native === null) throw new StorageError('EOPNOTSUPP', `Cannot serve TCMU: no native addon: ${nativeError}`);
    this.#native = native;
    this.#options = options;
    this.#paths = options.paths ?? SYSTEM_PATHS;
    this.#logger = options.logger;
    this.#scan = new UioScan(this.#paths);
    this.#neighbours = options.neighbours ?? NO_NEIGHBOURS;
    this.#refusals = new RefusalLog(options.clock);
  }

  /** Takes over what exists, whatever state the process before left it in, and follows changes. Throws `StorageError`. */
  async start(): Promise<void> {
    const module = new ModuleParameters(this.#paths);
    await module.require();
    const { clock, eventBufferSize } = this.#options;
    const events = new KernelEvents({
      native: this.#native,
      paths: this.#paths,
      module,
      clock,
      logger: this.#logger,
      eventBufferSize,
      isOurs: (uioName) => this.#isOurs(uioName),
      isServed: ({ minor, uioName }) => this.#devices.get(minor)?.entry.uioName === uioName.trimEnd(),
      neighbours: this.#neighbours,
      event: (event, answer) => this.#event(event, answer),
      eventsLost: async () => {
        this.#reconcile(true);
        await Promise.all(this.#steps.values());
      },
      waitingChanged: (waits) => {
        for (const [minor, device] of this.#devices) this.#enqueue(minor, () => setWaiting(device.configfs, waits));
      },
    });
    for (const minor of this.#scan.look(() => false, true).present) this.#older.add(minor);
    this.#events = events;
    await events.open();
    this.#reconcile(false);
    await Promise.all(this.#steps.values());
    this.#scheduleReconcile();
  }

  /**
   * Leaves every device so that initiators see no error: new commands are answered BUSY, what is in flight ends, then the device is
   * unblocked and commands wait on the ring for the next process.
   */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#reconcileTimer?.cancel();
    const closing: Promise<void>[] = [];
    for (const [minor, device] of this.#devices) closing.push(this.#enqueue(minor, () => this.#leave(device)));
    await Promise.all([...closing, ...this.#steps.values()]);
    this.#events?.close();
    this.#events = null;
  }

  status(): TcmuStatus {
    return {
      answersAwaited: this.#events?.waits ?? false,
      devices: [...this.#devices.values()].map((device) => device.status()),
      unserved: [...this.#unserved.values()],
      refusals: this.#refusals.list(),
    };
  }

  #isOurs(uioName: string): boolean {
    return uioName.split('/', 4)[3] === this.#options.subtype;
  }

  /** Runs `step` after the steps under way for the same minor. Its failure is logged, not thrown. */
  #enqueue(minor: number, step: () => Promise<void>): Promise<void> {
    const before = this.#steps.get(minor) ?? Promise.resolve();
    const after = before.then(step).catch((error: unknown) => {
      this.#logger.error({ minor, reason: messageOf(error) }, 'TCMU device');
    });
    this.#steps.set(minor, after);
    after.then(() => {
      if (this.#steps.get(minor) === after) this.#steps.delete(minor);
    });
    return after;
  }

  #event(event: TcmuEvent, answer: PendingAnswer): void {
    this.#logger.debug({ event }, 'TCMU event');
    const removed = event.kind === TcmuEventKind.REMOVED;
    // A step may hang on a folder that the kernel has locked until it has our answer.
    const early = this.#options.clock.setTimer(removed ? DRAIN_TIMEOUT_MS : ANSWER_TIMEOUT_MS, () =>
      answer.give(removed ? 0 : -osConstants.errno.EAGAIN),
    );
    if (removed) this.#older.delete(event.minor);
    this.#enqueue(event.minor, async () => {
      let status = 0;
      try {
        await this.#obey(event, answer);
      } catch (error) {
        status = -errnoNumber(error);
        const reason = messageOf(error);
        const hint = hintOf(error);
        this.#logger.warn({ device: event.uioName, status, reason, hint }, 'refused what the kernel asked');
        this.#refusals.add(event, hint === undefined ? reason : `${reason}. ${hint}`);
      }
      await this.#events?.settle(answer, status);
      early.cancel();
      // A device that waits for nobody has the new size all the same.
      if (status !== 0 && event.sizeBytes !== null) this.#enqueue(event.minor, () => this.#showSize(event.minor));
    });
  }

  async #obey(event: TcmuEvent, answer: PendingAnswer): Promise<void> {
    if (event.kind === TcmuEventKind.REMOVED) return this.#remove(event.minor);
    if (event.kind === TcmuEventKind.RECONFIG) return this.#reconfigure(event);
    if (this.#stopping) throw new StorageError('ESHUTDOWN', 'Cannot add a device: shutting down');
    const entry = readUioEntry(this.#paths, event.minor);
    if (entry?.uioName !== event.uioName.trimEnd()) {
      throw new StorageError('ENODEV', `Cannot add ${event.uioName}: it is gone again from ${this.#paths.uioClass}`);
    }
    await this.#add(entry, answer);
  }

  /** Serves a device; nothing when it is served already. A new one, of which no command can have come, has an answer that is due. */
  async #add(entry: UioEntry, answer: PendingAnswer | null): Promise<void> {
    const known = this.#devices.get(entry.minor);
    if (known?.entry.uioName === entry.uioName && known.isAlive()) return;
    if (known !== undefined) await this.#remove(entry.minor);

    const configfs = new ConfigfsDevice(this.#paths, entry.name);
    // First of all: that it opens says that no other process serves it, nor has I/O under way in its data area.
    const uio = new UioDevice(this.#native, this.#paths, entry.minor);
    let unit: LogicalUnit | null = null;
    let sizeBytes: number;
    let maxTransferBytes: number;
    try {
      if (answer === null) {
        if (!(await isEnabled(configfs))) {
          throw new StorageError('EAGAIN', `Cannot serve ${entry.uioName}: its creation has not ended`);
        }
        // Entries between tail and head may have been overwritten by responses that came out of order.
        await configfs.setBlocked(true);
        await configfs.resetRing();
      }
      sizeBytes = await configfs.readNumber('dev_size');
      maxTransferBytes = (await configfs.readNumber('hw_max_sectors')) * SECTOR_SIZE;
      unit = await this.#resolve(entry, sizeBytes, {
        name: entry.name.device,
        minor: entry.minor,
        blockSizeBytes: await configfs.readNumber('hw_block_size'),
        isNew: !this.#older.has(entry.minor),
      });
      await setAttributes(configfs, this.#events?.waits ?? false, this.#logger);
      if (answer !== null) {
        await this.#events?.settle(answer, 0);
        await untilEnabled(configfs, entry, this.#paths, this.#options.clock);
      }
    } catch (error) {
      uio.close();
      if (unit !== null) await this.#options.release(entry.name.cfgstring, unit, entry.name.device);
      throw error;
    }
    let device: TcmuDevice;
    try {
      device = new TcmuDevice({
        native: this.#native,
        paths: this.#paths,
        entry,
        configfs,
        unit,
        logger: this.#logger,
        clock: this.#options.clock,
        uio,
        shownSizeBytes: sizeBytes,
        maxTransferBytes,
        gone: () => {
          this.#enqueue(entry.minor, () => this.#removeIfGone(entry));
        },
      });
    } catch (error) {
      await this.#options.release(entry.name.cfgstring, unit, entry.name.device);
      throw error;
    }
    this.#devices.set(entry.minor, device);
    this.#unserved.delete(entry.minor);
    if (answer === null) await configfs.setBlocked(false);
    if (device.sizeBytes !== sizeBytes) await this.#showSize(entry.minor);
    this.#logger.info({ device: entry.uioName, minor: entry.minor, adopted: answer === null }, 'serving a TCMU device');
  }

  async #resolve(entry: UioEntry, sizeBytes: number, info: TcmuDeviceInfo): Promise<LogicalUnit> {
    const { cfgstring } = entry.name;
    let late = false;
    let timer: Timer | null = null;
    const timeout = new Promise<never>((_resolve, reject) => {
      timer = this.#options.clock.setTimer(RESOLVE_TIMEOUT_MS, () => {
        late = true;
        reject(new StorageError('EAGAIN', `Cannot open ${cfgstring}: not ready after ${RESOLVE_TIMEOUT_MS / 1000} s`));
      });
    });
    const opening = this.#options.resolve(cfgstring, sizeBytes, info);
    opening.then(
      (unit) => late && this.#options.release(cfgstring, unit, entry.name.device),
      () => {},
    );
    try {
      return await Promise.race([opening, timeout]);
    } finally {
      (timer as Timer | null)?.cancel();
    }
  }

  async #reconfigure(event: TcmuEvent): Promise<void> {
    const device = this.#devices.get(event.minor);
    if (device === undefined) throw new StorageError('ENODEV', `Cannot change ${event.uioName}: it is not served`);
    const { name } = device.entry;
    // As it was written, with the newline of an echo.
    const config = event.devConfig?.trimEnd();
    if (config !== undefined && config !== `${name.subtype}/${name.cfgstring}`) {
      throw new StorageError('EOPNOTSUPP', `Cannot turn ${name.cfgstring} into ${config}: make a new device`);
    }
    // The kernel shows the new size once we have agreed. emulate_write_cache is only stored: the unit's mode page decides.
    if (event.sizeBytes === null) return;
    if (event.sizeBytes !== device.sizeBytes) await this.#options.resize(name.cfgstring, event.sizeBytes);
    device.shownSizeBytes = event.sizeBytes;
  }

  /** Ends the service of a device that is going away. Touches no configfs: its folders are locked until the kernel has our answer. */
  async #remove(minor: number): Promise<void> {
    const device = this.#devices.get(minor);
    this.#unserved.delete(minor);
    if (device === undefined) return;
    this.#devices.delete(minor);
    device.abortAll();
    await device.drain(DRAIN_TIMEOUT_MS);
    await this.#close(device);
  }

  async #removeIfGone(entry: UioEntry): Promise<void> {
    if (readUioEntry(this.#paths, entry.minor)?.uioName === entry.uioName) {
      this.#logger.warn({ device: entry.uioName }, 'its uio file reports an error, opening it again');
    }
    await this.#remove(entry.minor);
    this.#reconcile(false);
  }

  /** The clean end of our service of a device that stays. */
  async #leave(device: TcmuDevice): Promise<void> {
    if (this.#devices.get(device.entry.minor) !== device) return;
    this.#devices.delete(device.entry.minor);
    await device.configfs.setBlocked(true);
    const drained = await device.drain(DRAIN_TIMEOUT_MS);
    if (!drained) {
      // Blocked, so that the next process resets the ring before anybody uses it.
      this.#logger.error({ device: device.entry.uioName }, 'left blocked: commands are still in flight');
      await this.#close(device);
      return;
    }
    await this.#close(device);
    await device.configfs.setBlocked(false);
    // Nobody answers for it now: its removal must not wait. Those that opted out stay so.
    if ((await device.configfs.readNumber('nl_reply_supported')) > 0) {
      await device.configfs.write('attrib/nl_reply_supported', '0');
    }
  }

  async #close(device: TcmuDevice): Promise<void> {
    if (!device.close()) this.#logger.error({ device: device.entry.uioName }, 'closed with commands in flight');
    const { name } = device.entry;
    await this.#options.release(name.cfgstring, device.unit, name.device);
  }

  /** Compares with sysfs: what events did not tell. `thorough`: events were lost. */
  #reconcile(thorough: boolean): void {
    if (this.#stopping) return;
    const { present, unserved } = this.#scan.look((minor) => this.#devices.has(minor), thorough);
    for (const minor of this.#older) if (!present.has(minor)) this.#older.delete(minor);
    for (const minor of this.#unserved.keys()) if (!present.has(minor)) this.#unserved.delete(minor);
    let retries = 0;
    for (const entry of unserved) {
      if (entry.name.subtype !== this.#options.subtype || this.#steps.has(entry.minor)) continue;
      if (this.#neighbours.server(entry.name.cfgstring).is !== 'ours') continue;
      if (this.#unserved.has(entry.minor)) continue;
      this.#enqueue(entry.minor, () => this.#tryToAdd(entry));
    }
    for (const [minor, { entry }] of this.#unserved) {
      if (retries++ >= RETRY_LIMIT) break;
      if (!this.#steps.has(minor)) this.#enqueue(minor, () => this.#tryToAdd(entry));
    }
    for (const [minor, device] of this.#devices) {
      if (this.#steps.has(minor)) continue;
      if (!present.has(minor) || (thorough && !device.isAlive())) {
        this.#enqueue(minor, () => this.#removeIfGone(device.entry));
      } else if (device.sizeBytes !== device.shownSizeBytes) this.#enqueue(minor, () => this.#showSize(minor));
      device.lookForReservation();
    }
  }

  /** What nobody has asked for. The same failure is not said again. */
  async #tryToAdd(entry: UioEntry): Promise<void> {
    const known = this.#unserved.get(entry.minor)?.reason;
    this.#unserved.delete(entry.minor); // to the end of the queue, if it fails again
    if (this.#stopping || readUioEntry(this.#paths, entry.minor)?.uioName !== entry.uioName) return;
    try {
      // While it is being made, its event is what counts: what is refused then must not be mapped, or the kernel goes down.
      if (!(await new ConfigfsDevice(this.#paths, entry.name).isEnabled())) return;
      await this.#add(entry, null);
    } catch (error) {
      const reason = messageOf(error);
      this.#unserved.set(entry.minor, { entry, reason });
      if (reason === known) return;
      this.#logger.error(
        { device: entry.uioName, reason, hint: hintOf(error) },
        'cannot serve a TCMU device, trying again from time to time',
      );
    }
  }

  /** LIO shows the size of what stands behind the device, whoever changed it. */
  async #showSize(minor: number): Promise<void> {
    const device = this.#devices.get(minor);
    if (device === undefined) return;
    const { sizeBytes } = device;
    await device.configfs.announceSize(sizeBytes);
    device.shownSizeBytes = sizeBytes;
  }

  #scheduleReconcile(): void {
    if (this.#stopping) return;
    this.#reconcileTimer = this.#options.clock.setTimer(RECONCILE_INTERVAL_MS, () => {
      this.#events?.lookAround();
      this.#reconcile(false);
      this.#scheduleReconcile();
    });
  }
}

/** What its reader can do about a failure, where that is known. */
function hintOf(error: unknown): unknown {
  return (error as { hint?: unknown }).hint;
}

/** The number for an answer to the kernel. */
function errnoNumber(error: unknown): number {
  const numbers: Readonly<Record<string, number | undefined>> = osConstants.errno;
  return numbers[errnoOf(error)] ?? osConstants.errno.EIO;
}
