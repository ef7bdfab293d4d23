import { closeSync, constants, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { StorageError, wrapError } from '../base/errors.ts';
import { type NativeBindings, POLL_DISCONNECT, POLL_ERROR, type PollHandle } from '../base/native.ts';
import { parseUioName, type TcmuName, type TcmuPaths } from './configfs.ts';

/** A TCMU device as sysfs shows it. */
export interface UioEntry {
  readonly minor: number;
  /** The whole name; equal names and minors mean the same device. */
  readonly uioName: string;
  readonly name: TcmuName;
}

/** The device with this minor; null when it is gone or is not a TCMU device. */
export function readUioEntry(paths: TcmuPaths, minor: number): UioEntry | null {
  let uioName: string;
  try {
    uioName = readFileSync(join(paths.uioClass, `uio${minor}`, 'name'), 'utf8').trimEnd();
  } catch {
    return null;
  }
  const name = parseUioName(uioName);
  return name === null ? null : { minor, uioName, name };
}

export interface UioListener {
  /** The kernel has put something on the ring. */
  uioEvent(): void;
  /** The device was removed, or fails: no event comes any more. */
  uioGone(): void;
}

/**
 * One open /dev/uioN. The kernel allows one opener, and lets go of it only when the process before has ended with all of its I/O: an
 * open that succeeds means that nobody else touches the data area.
 */
export class UioDevice {
  readonly path: string;
  readonly #native: NativeBindings;
  readonly #fd: number;
  readonly #mapSize: number;
  readonly #word: Uint8Array = new Uint8Array(4);
  #map: ArrayBuffer | null = null;
  #poll: PollHandle | null = null;
  #open = true;

  /** `inherited` is an open of it by another process, which is ours from here on. Throws `StorageError`: EBUSY when another process has it. */
  constructor(native: NativeBindings, paths: TcmuPaths, minor: number, inherited: number | null = null) {
    this.#native = native;
    this.path = join(paths.dev, `uio${minor}`);
    const sizePath = join(paths.uioClass, `uio${minor}`, 'maps', 'map0', 'size');
    try {
      this.#mapSize = Number(readFileSync(sizePath, 'utf8').trim());
    } catch (error) {
      throw wrapError(`Cannot read ${sizePath}`, error);
    }
    if (!Number.isSafeInteger(this.#mapSize) || this.#mapSize <= 0) {
      throw new StorageError('EINVAL', `Cannot map ${this.path}: ${sizePath} is not a size`);
    }
    try {
      // Node sets O_CLOEXEC by itself.
      this.#fd = inherited ?? openSync(this.path, constants.O_RDWR | constants.O_NONBLOCK);
    } catch (error) {
      throw wrapError(`Cannot open ${this.path}`, error);
    }
  }

  /** A descriptor of it for the next process. */
  share(): number {
    return this.#native.duplicateFd(this.#fd);
  }

  /** Maps the mailbox, the ring and the data area: exactly the size that the kernel names, as it refuses any other. */
  map(): Uint8Array {
    try {
      this.#map = this.#native.mapShared(this.#fd, this.#mapSize);
    } catch (error) {
      throw wrapError(`Cannot map ${this.path}`, error);
    }
    return new Uint8Array(this.#map);
  }

  /** Events from here on; what is on the ring already makes none. */
  listen(listener: UioListener): void {
    this.#poll = this.#native.pollStart(this.#fd, (events) => {
      if ((events & (POLL_ERROR | POLL_DISCONNECT)) !== 0 || !this.takeEvents()) {
        this.stopListening();
        listener.uioGone();
        return;
      }
      listener.uioEvent();
    });
  }

  stopListening(): void {
    if (this.#poll === null) return;
    this.#native.pollStop(this.#poll);
    this.#poll = null;
  }

  /** Makes the kernel look at cmd_tail. False when the device is gone. */
  ringDoorbell(): boolean {
    if (!this.#open) return false;
    try {
      this.#native.writeFd(this.#fd, this.#word, 0, 4);
      return true;
    } catch {
      return false;
    }
  }

  /** Unmaps and closes, in this order: older kernels touch the map when the device is freed. Nothing may use the memory any more. */
  close(): void {
    if (!this.#open) return;
    this.stopListening();
    if (this.#map !== null) this.#native.unmap(this.#map);
    this.#map = null;
    this.#open = false;
    closeSync(this.#fd);
  }

  /** One read clears any number of events; false when the device is gone. */
  takeEvents(): boolean {
    try {
      this.#native.readFd(this.#fd, this.#word, 0, 4);
      return true;
    } catch {
      return false;
    }
  }
}
