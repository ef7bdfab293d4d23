import { constants as osConstants } from 'node:os';
import type { Timer } from '../base/clock.ts';
import { messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { type NativeBindings, native, nativeError } from '../base/native.ts';
import type { GiveFd, TakeFd } from '../base/shared-handle.ts';
import { SECTOR_SIZE } from '../base/units.ts';
import type { LogicalUnit } from '../scsi/logical-unit.ts';
import { ConfigfsDevice, ModuleParameters, SYSTEM_PATHS, type TcmuPaths } from './configfs.ts';
import { setAttributes, setWaiting, untilEnabled } from './device-attributes.ts';
import type { PendingAnswer } from './event-answers.ts';
import { type TcmuEvent, TcmuEventKind } from './genl.ts';
import type { TcmuHandlerOptions } from './handler-options.ts';
import { KernelEvents } from './kernel-events.ts';
import { type Neighbours, NO_NEIGHBOURS } from './neighbours.ts';
import { DRAIN_TIMEOUT_MS, type OwnDeviceOptions, TcmuDevice } from './tcmu-device.ts';
import { type DeviceHandover, freezeDevices, handOverDevices, type TcmuHandover } from './tcmu-handover.ts';
import { errnoNumber, failure, RefusalLog, type TcmuStatus, type UnservedDevice } from './tcmu-status.ts';
import { readUioEntry, UioDevice, type UioEntry } from './uio.ts';
import { UioScan } from './uio-scan.ts';
import { openUnit, RESOLVE_TIMEOUT_MS } from './unit-opening.ts';

const RECONCILE_INTERVAL_MS = 5_000;
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
    const events = await this.#makeEvents();
    for (const minor of this.#scan.look(() => false, true).present) this.#older.add(minor);
    this.#events = events;
    await events.open();
    this.#begin();
    await Promise.all(this.#steps.values());
  }

  async #makeEvents(): Promise<KernelEvents> {
    const module = new ModuleParameters(this.#paths);
    await module.require();
    const { clock, eventBufferSize } = this.#options;
    return new KernelEvents({
      native: this.#native,
      paths: this.#paths,
      module,
      clock,
      logger: this.#logger,
      eventBufferSize,
      isOurs: (uioName) => uioName.split('/', 4)[3] === this.#options.subtype,
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
  }

  #begin(): void {
    this.#stopping = false;
    this.#reconcile(false);
    this.#scheduleReconcile();
  }

  // --- from one process to another ---

  /**
   * Takes no commands and no events, which wait in the kernel, until `thaw` or `handOver`; resolves when nothing is in flight. Rejects with EBUSY when
   * something does not end within `limitMs`.
   */
  async freeze(limitMs: number): Promise<void> {
    this.#stopping = true;
    this.#reconcileTimer?.cancel();
    this.#events?.suspend();
    await Promise.all(this.#steps.values());
    await freezeDevices(this.#devices.values(), limitMs);
  }

  /** Goes on after `freeze`, or begins after `takeOver`. */
  thaw(): void {
    if (!this.#stopping) return;
    for (const device of this.#devices.values()) device.thaw();
    this.#events?.resume();
    this.#begin();
  }

  /** After `freeze`: everything for the next process. A device that has failed is left to it as it is. */
  async handOver(give: GiveFd): Promise<TcmuHandover> {
    const devices = handOverDevices(this.#devices.values(), give);
    const events = this.#events!.handOver(give);
    this.#events = null;
    await this.abandon();
    return { events, devices };
  }

  /** Instead of `start`: goes on from another process, which handed over `elapsedMs` ago, once `thaw` is called. Throws `StorageError`. */
  async takeOver({ events, devices }: TcmuHandover, take: TakeFd, elapsedMs: number): Promise<void> {
    this.#stopping = true;
    this.#events = await this.#makeEvents();
    await this.#events.takeOver(events, take(events.fd));
    for (const minor of this.#scan.look(() => false, true).present) this.#older.add(minor);
    for (const each of devices) await this.#adopt(each, take(each.fd), each.waitedMs + elapsedMs);
  }

  /** Leaves everything to another process that has it, too. */
  async abandon(): Promise<void> {
    this.#events?.abandon();
    this.#events = null;
    const devices = [...this.#devices.values()];
    this.#devices.clear();
    for (const device of devices) await this.#close(device);
  }

  async #adopt({ minor, uioName, shownSizeBytes }: DeviceHandover, fd: number, frozenMs: number): Promise<void> {
    const uio = new UioDevice(this.#native, this.#paths, minor, fd);
    const entry = readUioEntry(this.#paths, minor);
    // Its removal waits for our answer to the event, or nobody knows of it any more.
    if (entry?.uioName !== uioName) {
      uio.close();
      return;
    }
    const configfs = new ConfigfsDevice(this.#paths, entry.name);
    const maxTransferBytes = (await configfs.readNumber('hw_max_sectors')) * SECTOR_SIZE;
    const unit = await openUnit(this.#options, entry, shownSizeBytes, configfs, false);
    await this.#serve({ entry, configfs, unit, uio, shownSizeBytes, maxTransferBytes, frozenMs });
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
        this.#logger.warn({ device: event.uioName, status, ...failure(error) }, 'refused what the kernel asked');
        this.#refusals.add(event, error);
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
        if (!(await configfs.isEnabled())) {
          throw new StorageError('EAGAIN', `Cannot serve ${entry.uioName}: its creation has not ended`);
        }
        // Entries between tail and head may have been overwritten by responses that came out of order.
        await configfs.setBlocked(true);
        await configfs.resetRing();
      }
      sizeBytes = await configfs.readNumber('dev_size');
      maxTransferBytes = (await configfs.readNumber('hw_max_sectors')) * SECTOR_SIZE;
      unit = await openUnit(this.#options, entry, sizeBytes, configfs, !this.#older.has(entry.minor));
      await setAttributes(configfs, this.#events?.waits ?? false, this.#logger);
      if (answer !== null) {
        // Once it is exported it is too late; see forbidTimeOut.
        await configfs.write('attrib/cmd_time_out', '0');
        await this.#events?.settle(answer, 0);
        await untilEnabled(configfs, entry, this.#paths, this.#options.clock);
      }
    } catch (error) {
      uio.close();
      if (unit !== null) await this.#options.release(entry.name.cfgstring, unit, entry.name.device);
      throw error;
    }
    const device = await this.#serve({ entry, configfs, unit, uio, shownSizeBytes: sizeBytes, maxTransferBytes });
    await device.forbidTimeOut();
    this.#unserved.delete(entry.minor);
    if (answer === null) await configfs.setBlocked(false);
    if (device.sizeBytes !== sizeBytes) await this.#showSize(entry.minor);
    this.#logger.info({ device: entry.uioName, minor: entry.minor, adopted: answer === null }, 'serving a TCMU device');
  }

  async #serve(own: OwnDeviceOptions): Promise<TcmuDevice> {
    const { entry, unit } = own;
    const { clock } = this.#options;
    try {
      const gone = (): void => void this.#enqueue(entry.minor, () => this.#removeIfGone(entry));
      const common = { native: this.#native, paths: this.#paths, logger: this.#logger, clock, gone };
      const device = new TcmuDevice({ ...common, ...own });
      this.#devices.set(entry.minor, device);
      return device;
    } catch (error) {
      await this.#options.release(entry.name.cfgstring, unit, entry.name.device);
      throw error;
    }
  }

  async #reconfigure(event: TcmuEvent): Promise<void> {
    const device = this.#devices.get(event.minor);
    if (device === undefined) throw new StorageError('ENODEV', `Cannot change ${event.uioName}: it is not served`);
    await device.reconfigure(event, (sizeBytes) => this.#options.resize(device.entry.name.cfgstring, sizeBytes));
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
    await device.leave(() => this.#close(device), this.#options.works?.(device.entry.name.cfgstring) ?? true);
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
        continue;
      }
      if (device.sizeBytes !== device.shownSizeBytes) this.#enqueue(minor, () => this.#showSize(minor));
      // Not as a step: while the device is being removed it waits for the answer that another step is to give.
      device.lookAround();
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
      const fields = { device: entry.uioName, ...failure(error) };
      this.#logger.error(fields, 'cannot serve a TCMU device, trying again from time to time');
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
