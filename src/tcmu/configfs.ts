import { execFile } from 'node:child_process';
import { constants, existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { StorageError, wrapError } from '../base/errors.ts';

/*
 * LIO's folders of a user backstore, as far as a handler uses them:
 *
 *   /sys/kernel/config/target/core/user_<hba>/<device>/
 *     control                 key=value; `dev_size=N` changes the size without an event
 *     attrib/                 dev_size, hw_block_size, hw_max_sectors, cmd_time_out, tmr_notification, nl_reply_supported, ...
 *     action/block_dev        1: new commands are answered BUSY
 *     action/reset_ring       1: what is on the ring is answered BUSY, the ring is empty and no longer broken
 *     wwn/vpd_unit_serial     "T10 VPD Unit Serial Number: ..."; rtslib writes it only after `enable`
 *
 * A rmdir of the device holds the folders' locks while the kernel waits for the handler's answer to REMOVED: nothing here may be called
 * between that event and its answer. All access is asynchronous, as some of these writes wait in the kernel.
 */

/** Some of these files can only be written; none is to be created. */
const WRITE_ONLY = { flag: constants.O_WRONLY };

/** Where the kernel's files are; another root in tests. */
export interface TcmuPaths {
  readonly dev: string;
  readonly uioClass: string;
  readonly core: string;
  readonly module: string;
  readonly proc: string;
}

export const SYSTEM_PATHS: TcmuPaths = {
  dev: '/dev',
  uioClass: '/sys/class/uio',
  core: '/sys/kernel/config/target/core',
  module: '/sys/module/target_core_user',
  proc: '/proc',
};

/** The parts of a uio device's name, `tcm-user/<hba>/<device>/<subtype>/<cfgstring>`. */
export interface TcmuName {
  readonly hba: string;
  readonly device: string;
  readonly subtype: string;
  /** What follows the subtype; may hold slashes. */
  readonly cfgstring: string;
}

/** Null for what is not a TCMU device, or one without a subtype. */
export function parseUioName(text: string): TcmuName | null {
  const match = /^tcm-user\/(\d{1,10})\/([^/]+)\/([^/]+)\/(.*)$/s.exec(text);
  if (match === null || match[2] === '.' || match[2] === '..') return null;
  return { hba: match[1]!, device: match[2]!, subtype: match[3]!, cfgstring: match[4]! };
}

/** One device's folder. */
export class ConfigfsDevice {
  readonly path: string;

  constructor(paths: TcmuPaths, name: TcmuName) {
    this.path = join(paths.core, `user_${name.hba}`, name.device);
  }

  /** Throws `StorageError`. */
  async read(file: string): Promise<string> {
    const path = join(this.path, file);
    try {
      return (await readFile(path, 'utf8')).trim();
    } catch (error) {
      throw wrapError(`Cannot read ${path}`, error);
    }
  }

  /** Throws `StorageError`. */
  async write(file: string, text: string): Promise<void> {
    const path = join(this.path, file);
    try {
      await writeFile(path, text, WRITE_ONLY);
    } catch (error) {
      throw wrapError(`Cannot write "${text}" to ${path}`, error);
    }
  }

  /** A whole number from `attrib/`. Throws `StorageError`. */
  async readNumber(attribute: string): Promise<number> {
    const text = await this.read(`attrib/${attribute}`);
    const value = Number(text);
    if (text === '' || !Number.isSafeInteger(value)) {
      throw new StorageError('EINVAL', `Cannot use ${this.path}/attrib/${attribute}: "${text}" is not a number`);
    }
    return value;
  }

  /** Whether its creation is over; not before a handler has agreed. Throws `StorageError`. */
  async isEnabled(): Promise<boolean> {
    return (await this.read('enable')) === '1';
  }

  /** The kernel answers new commands with BUSY (true), or queues them on the ring (false). */
  setBlocked(blocked: boolean): Promise<void> {
    return this.write('action/block_dev', blocked ? '1' : '0');
  }

  /** Ends what is outstanding with BUSY, so that initiators send it again, and empties the ring. Only while blocked. */
  resetRing(): Promise<void> {
    return this.write('action/reset_ring', '1');
  }

  /** Changes the size that LIO shows, without a RECONFIG event: for changes that come from our side. */
  announceSize(sizeBytes: number): Promise<void> {
    return this.write('control', `dev_size=${sizeBytes}`);
  }

  /** LIO's unit serial number; empty until someone has set it, which rtslib does only after the device was enabled. */
  async readSerial(): Promise<string> {
    const text = await this.read('wwn/vpd_unit_serial');
    return text.replace(/^[^:]*: */, '').trim();
  }
}

/** The switches of the module, for when threads of the kernel wait for a handler that is gone. */
export class ModuleParameters {
  readonly #paths: TcmuPaths;

  constructor(paths: TcmuPaths) {
    this.#paths = paths;
  }

  /** Loads the module if it is not there. Throws ENODEV. */
  async require(): Promise<void> {
    const { module, core } = this.#paths;
    if (!existsSync(module)) {
      await new Promise<void>((resolve) => {
        execFile('modprobe', ['target_core_user'], { timeout: 30_000 }, () => resolve()); // whether it worked shows in /sys
      });
    }
    if (!existsSync(module)) {
      throw new StorageError('ENODEV', 'Cannot serve TCMU: the kernel has no module target_core_user');
    }
    if (!existsSync(core)) {
      throw new StorageError('ENODEV', `Cannot serve TCMU: no ${core}: mount configfs on /sys/kernel/config`);
    }
  }

  async #set(parameter: string, value: string): Promise<void> {
    const path = join(this.#paths.module, 'parameters', parameter);
    try {
      await writeFile(path, value, WRITE_ONLY);
    } catch (error) {
      throw wrapError(`Cannot write "${value}" to ${path}`, error);
    }
  }

  /** Ends every wait for an answer to an event with EINTR. New events fail with EAGAIN meanwhile. */
  async releaseWaiters(): Promise<void> {
    await this.#set('block_netlink', '1');
    try {
      await this.#set('reset_netlink', '1');
    } finally {
      await this.#set('block_netlink', '0');
    }
  }
}
