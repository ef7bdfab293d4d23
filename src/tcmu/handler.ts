import { execFile } from 'node:child_process';
import { constants as osConstants } from 'node:os';
import type { Clock, Timer } from '../base/clock.ts';
import { errnoOf, messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { type NativeBindings, native, nativeError } from '../base/native.ts';
import { SECTOR_SIZE } from '../base/units.ts';
import type { LogicalUnit } from '../scsi/logical-unit.ts';
import { ConfigfsDevice, ModuleParameters, SYSTEM_PATHS, type TcmuPaths } from './configfs.ts';
import { GenlClient, type TcmuEvent, TcmuEventKind } from './genl.ts';
import { DRAIN_TIMEOUT_MS, TcmuDevice, type TcmuDeviceStatus } from './tcmu-device.ts';
import { listUioEntries, readUioEntry, UioDevice, type UioEntry } from './uio.ts';

/** What LIO knows of a device that is to be served. */
export interface TcmuDeviceInfo {
  /** The backstore's name in LIO. */
  readonly name: string;
  readonly minor: number;
  /** hw_block_size. */
  readonly blockSizeBytes: number;
  /** hw_max_sectors in bytes; LIO reports it nowhere and does not enforce it. */
  readonly maxTransferBytes: number;
  /** LIO's unit serial number, which is often set only later. Not to be called while the device is being removed. */
  readSerial(): Promise<string>;
}

export interface TcmuHandlerOptions {
  /** The first part of dev_config that means us. Devices of other subtypes are never answered for. */
  readonly subtype: string;
  /** The logical unit of `cfgstring` (what follows the subtype), `sizeBytes` long. Rejects with a `StorageError`. */
  resolve(cfgstring: string, sizeBytes: number, device: TcmuDeviceInfo): Promise<LogicalUnit>;
  /** A device does not use the unit any more. */
  release(cfgstring: string, unit: LogicalUnit): Promise<void> | void;
  /** Changes the size on LIO's request; the unit says so to its initiators. Rejects with a `StorageError`. */
  resize(cfgstring: string, sizeBytes: number): Promise<void>;
  readonly logger: Logger;
  readonly clock: Clock;
  /**
   * No other TCMU handler runs (tcmu-runner): threads of the kernel that wait for an answer from a process before us may be released.
   * Default true.
   */
  readonly exclusive?: boolean;
  readonly paths?: TcmuPaths;
}

const RECONCILE_INTERVAL_MS = 5_000;
/** An answer to ADDED keeps a thread of the kernel in D state: after this long it is a no. */
const RESOLVE_TIMEOUT_MS = 20_000;

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
  /** Devices of which it was said that they cannot be served: the same is not said again and again. */
  readonly #complained = new Map<number, string>();
  #netlink: GenlClient | null = null;
  #reconcileTimer: Timer | null = null;
  #stopping = false;

  /** Throws EOPNOTSUPP without the addon. */
  constructor(options: TcmuHandlerOptions) {
    if (native === null) throw new StorageError('EOPNOTSUPP', `Cannot serve TCMU: no native addon: ${nativeError}`);
    this.#native = native;
    this.#options = options;
    this.#paths = options.paths ?? SYSTEM_PATHS;
    this.#logger = options.logger;
  }

  /** Takes over what exists, whatever state the process before left it in, and follows changes. Throws `StorageError`. */
  async start(): Promise<void> {
    const module = new ModuleParameters(this.#paths);
    if (!module.loaded) await loadModule();
    if (!module.loaded) {
      throw new StorageError('ENODEV', 'Cannot serve TCMU: the kernel has no module target_core_user');
    }
    if (!module.configfsMounted) {
      throw new StorageError(
        'ENODEV',
        `Cannot serve TCMU: no ${this.#paths.core}: mount configfs on /sys/kernel/config`,
      );
    }
    // Waits for a dead process never end by themselves. A device whose creation waited fails; its creator is told.
    if (this.#options.exclusive ?? true) await module.releaseWaiters();
    this.#netlink = new GenlClient(this.#native, {
      tcmuEvent: (event) => this.#event(event),
      eventsLost: (reason) => {
        this.#logger.warn({ reason }, 'TCMU events may have been lost, looking at sysfs');
        this.#reconcile();
      },
    });
    this.#netlink.open();
    this.#reconcile();
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
    this.#netlink?.close();
    this.#netlink = null;
  }

  devices(): TcmuDeviceStatus[] {
    return [...this.#devices.values()].map((device) => device.status());
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

  #event(event: TcmuEvent): void {
    const entry = readUioEntry(this.#paths, event.minor);
    const known = this.#devices.get(event.minor);
    const uioName = event.uioName;
    // Not ours: not even a refusal, as the first answer from anybody counts.
    if (!isOurs(uioName, this.#options.subtype)) return;
    this.#logger.debug({ event, known: known !== undefined }, 'TCMU event');
    let answered = false;
    const answer = (status: number): void => {
      if (answered) return;
      answered = true;
      this.#netlink?.answer(event, status);
    };
    // A step before this one may hang on a folder that the kernel has locked until it has our answer.
    let early: Timer | null = null;
    if (event.kind === TcmuEventKind.REMOVED) {
      early = this.#options.clock.setTimer(DRAIN_TIMEOUT_MS, () => answer(0));
    }
    this.#enqueue(event.minor, async () => {
      let status = 0;
      try {
        if (event.kind === TcmuEventKind.REMOVED) await this.#remove(event.minor);
        else if (event.kind === TcmuEventKind.RECONFIG) await this.#reconfigure(event);
        else if (this.#stopping) throw new StorageError('ESHUTDOWN', 'Cannot add a device: shutting down');
        else if (entry === null) throw new StorageError('ENODEV', `Cannot find ${uioName} in ${this.#paths.uioClass}`);
        else await this.#add(entry, true);
      } catch (error) {
        status = -errnoNumber(error);
        this.#logger.warn({ device: uioName, status, reason: messageOf(error) }, 'refused what the kernel asked');
      }
      early?.cancel();
      answer(status);
    });
  }

  /** Serves a device; nothing when it is served already. `fresh`: no command can have come before. */
  async #add(entry: UioEntry, fresh: boolean): Promise<void> {
    const known = this.#devices.get(entry.minor);
    if (known?.entry.uioName === entry.uioName) return;
    if (known !== undefined) await this.#remove(entry.minor);

    const configfs = new ConfigfsDevice(this.#paths, entry.name);
    // First of all: that it opens says that no other process serves it, nor has I/O under way in its data area.
    const uio = new UioDevice(this.#native, this.#paths, entry.minor);
    let unit: LogicalUnit | null = null;
    let sizeBytes: number;
    try {
      if (!fresh) {
        // Entries between tail and head may have been overwritten by responses that came out of order.
        await configfs.setBlocked(true);
        await configfs.resetRing();
      }
      sizeBytes = await configfs.readNumber('dev_size');
      unit = await this.#resolve(entry, sizeBytes, {
        name: entry.name.device,
        minor: entry.minor,
        blockSizeBytes: await configfs.readNumber('hw_block_size'),
        maxTransferBytes: (await configfs.readNumber('hw_max_sectors')) * SECTOR_SIZE,
        readSerial: () => configfs.readSerial(),
      });
      await this.#setAttributes(entry, configfs);
    } catch (error) {
      uio.close();
      if (unit !== null) await this.#options.release(entry.name.cfgstring, unit);
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
        gone: () => {
          this.#enqueue(entry.minor, () => this.#removeIfGone(entry));
        },
      });
    } catch (error) {
      await this.#options.release(entry.name.cfgstring, unit);
      throw error;
    }
    this.#devices.set(entry.minor, device);
    await device.forbidTimeOut();
    this.#complained.delete(entry.minor);
    if (!fresh) await configfs.setBlocked(false);
    this.#logger.info({ device: entry.uioName, minor: entry.minor, adopted: !fresh }, 'serving a TCMU device');
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
      (unit) => late && this.#options.release(cfgstring, unit),
      () => {},
    );
    try {
      return await Promise.race([opening, timeout]);
    } finally {
      (timer as Timer | null)?.cancel();
    }
  }

  /**
   * Aborts are to be told to us, which can be set only while nothing exports the device.
   */
  async #setAttributes(entry: UioEntry, configfs: ConfigfsDevice): Promise<void> {
    await configfs.write('attrib/tmr_notification', '1').catch((error: unknown) => {
      this.#logger.debug({ device: entry.uioName, reason: messageOf(error) }, 'no notice of aborts');
    });
    // Made while nobody listened: from now on the kernel waits for our answers. -1: its owner wants no waiting.
    if ((await configfs.readNumber('nl_reply_supported')) === 0) await configfs.write('attrib/nl_reply_supported', '1');
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
    this.#complained.delete(minor);
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
    this.#reconcile();
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
    await this.#options.release(device.entry.name.cfgstring, device.unit);
  }

  /** Compares with sysfs: what events did not tell. */
  #reconcile(): void {
    if (this.#stopping) return;
    const present = new Set<number>();
    for (const entry of listUioEntries(this.#paths)) {
      present.add(entry.minor);
      if (entry.name.subtype !== this.#options.subtype) continue;
      if (this.#devices.get(entry.minor)?.entry.uioName === entry.uioName || this.#steps.has(entry.minor)) continue;
      this.#enqueue(entry.minor, async () => {
        try {
          if (!this.#stopping) await this.#add(entry, false);
        } catch (error) {
          this.#complain(entry, messageOf(error));
        }
      });
    }
    for (const [minor, device] of this.#devices) {
      if (!present.has(minor)) this.#enqueue(minor, () => this.#removeIfGone(device.entry));
      else if (device.sizeBytes !== device.shownSizeBytes) this.#enqueue(minor, () => this.#showSize(device));
      // Not as a step: while the device is being removed it waits for the answer that another step is to give.
      if (present.has(minor)) device.forbidTimeOut().catch(() => {});
    }
    for (const minor of this.#complained.keys()) if (!present.has(minor)) this.#complained.delete(minor);
  }

  /** The volume was resized by other means than LIO's. */
  async #showSize(device: TcmuDevice): Promise<void> {
    const { sizeBytes } = device;
    if (this.#devices.get(device.entry.minor) !== device) return;
    await device.configfs.announceSize(sizeBytes);
    device.shownSizeBytes = sizeBytes;
  }

  #complain(entry: UioEntry, reason: string): void {
    if (this.#complained.get(entry.minor) === reason) return;
    this.#complained.set(entry.minor, reason);
    this.#logger.error({ device: entry.uioName, reason }, 'cannot serve a TCMU device, trying again from time to time');
  }

  #scheduleReconcile(): void {
    if (this.#stopping) return;
    this.#reconcileTimer = this.#options.clock.setTimer(RECONCILE_INTERVAL_MS, () => {
      this.#reconcile();
      this.#scheduleReconcile();
    });
  }
}

function isOurs(uioName: string, subtype: string): boolean {
  return uioName.split('/', 4)[3] === subtype;
}

/** The number for an answer to the kernel. */
function errnoNumber(error: unknown): number {
  const numbers: Readonly<Record<string, number | undefined>> = osConstants.errno;
  return numbers[errnoOf(error)] ?? osConstants.errno.EIO;
}

async function loadModule(): Promise<void> {
  await new Promise<void>((resolve) => {
    execFile('modprobe', ['target_core_user'], { timeout: 30_000 }, () => resolve()); // whether it worked shows in /sys
  });
}
