import { lstatSync, readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';

/** A SCSI disk that something lies on. */
export interface DiskBelow {
  /** From what was asked about down to the disk, each as people know it: `/srv/pool`, `/dev/dm-3`, `/dev/sdb1`, `/dev/sdb`. */
  readonly chain: readonly string[];
  readonly vendor: string;
  /** NAA designators of the logical unit (VPD 83h), hexadecimal. */
  readonly naas: readonly string[];
  /** Unit serial number (VPD 80h); empty where there is none. */
  readonly serial: string;
}

/** Where the kernel's files are; other folders in tests. */
export interface StoragePaths {
  readonly sys: string;
  readonly mountinfo: string;
  readonly swaps: string;
}

export const SYSTEM_STORAGE: StoragePaths = { sys: '/sys', mountinfo: '/proc/self/mountinfo', swaps: '/proc/swaps' };

const MAX_SYMLINKS = 40;

interface Mount {
  readonly point: string;
  /** `major:minor`; major 0 where the file system has no block device of its own. */
  readonly device: string;
  readonly type: string;
  readonly source: string;
  readonly options: string;
}

/**
 * The SCSI disks below files and block devices: through file systems, partitions, device-mapper, md, bcache and loop devices. Asks
 * the kernel alone (mount table and sysfs), and looks a path up only as far as none of the disks that are looked for is below: one that
 * nobody serves at the moment would make a lookup on it hang.
 */
export class StorageBelow {
  readonly #paths: StoragePaths;
  readonly #wanted: (disk: DiskBelow) => boolean;
  readonly #mounts: readonly Mount[];

  /** Looks for the disks that `wanted` says yes to; takes the mount table as it is now. */
  constructor(wanted: (disk: DiskBelow) => boolean, paths: StoragePaths = SYSTEM_STORAGE) {
    this.#paths = paths;
    this.#wanted = wanted;
    this.#mounts = readMounts(paths.mountinfo);
  }

  /** Below `path`, whether the path exists or not. */
  disksBelow(path: string): DiskBelow[] {
    const search = new Search();
    this.#ofPath(resolve(path), [path], search);
    return search.disks;
  }

  /** Below what memory is swapped out to. */
  disksBelowSwap(): DiskBelow[] {
    const search = new Search();
    for (const line of (textOf(this.#paths.swaps) ?? '').split('\n').slice(1)) {
      const [file] = line.split(/\s/);
      if (file?.startsWith('/')) this.#ofPath(unescapeOctal(file), [`swap ${file}`], search);
    }
    return search.disks;
  }

  // Each of these says whether a wanted disk is below.

  /** Goes through `path` part by part, as a part may be a symbolic link or a mount point. */
  #ofPath(path: string, chain: readonly string[], search: Search): boolean {
    const todo = path.split('/').filter((part) => part !== '');
    let at = '/';
    let symlinks = 0;
    for (let part = todo.shift(); part !== undefined; part = todo.shift()) {
      const next = join(at, part);
      if (this.#ofMount(this.#mountOf(next), chain, search)) return true; // not a step further: it might hang
      let target: string;
      try {
        const stat = lstatSync(next);
        if (stat.isBlockDevice()) return this.#ofDevice(deviceText(stat.rdev), chain, search);
        if (!stat.isSymbolicLink()) {
          at = next;
          continue;
        }
        target = readlinkSync(next);
      } catch {
        return false; // what is not there lies where its folder lies
      }
      if (++symlinks > MAX_SYMLINKS) return false;
      todo.unshift(...target.split('/').filter((name) => name !== ''));
      if (target.startsWith('/')) at = '/';
    }
    return false;
  }

  /** The mount that shows at `path`: of those with the longest matching point the last, which covers the others. */
  #mountOf(path: string): Mount | null {
    let best: Mount | null = null;
    for (const mount of this.#mounts) {
      const { point } = mount;
      const inside = point === '/' || path === point || path.startsWith(`${point}/`);
      if (inside && point.length >= (best?.point.length ?? 0)) best = mount;
    }
    return best;
  }

  #ofMount(mount: Mount | null, chain: readonly string[], search: Search): boolean {
    if (mount === null) return false;
    const { device, type, source, options } = mount;
    return search.once(`mount ${mount.point}`, () => {
      let below = !device.startsWith('0:') && this.#ofDevice(device, chain, search);
      // Names of more devices (a journal, a log, a real-time section, members), or of folders below.
      const named = source.split(':');
      for (const option of options.split(',')) {
        const [key, value] = option.split('=', 2) as [string, string | undefined];
        if (value === undefined) continue;
        if (['logdev', 'rtdev', 'journal_path', 'device'].includes(key)) named.push(value);
        if (type === 'overlay' && ['lowerdir', 'upperdir', 'workdir'].includes(key)) named.push(...value.split(':'));
      }
      for (const name of named) {
        if (name.startsWith('/')) below = this.#ofPath(name, [...chain, `${type} on ${name}`], search) || below;
      }
      return (type === 'btrfs' && this.#ofBtrfs(source, chain, search)) || below;
    });
  }

  /** The members of a btrfs of several devices; the mount names one of them. */
  #ofBtrfs(source: string, chain: readonly string[], search: Search): boolean {
    const fsFolder = join(this.#paths.sys, 'fs/btrfs');
    let below = false;
    for (const uuid of namesIn(fsFolder)) {
      const members = namesIn(join(fsFolder, uuid, 'devices'));
      if (!members.includes(basename(source))) continue;
      for (const member of members) {
        const device = textOf(join(fsFolder, uuid, 'devices', member, 'dev'));
        if (device !== null) below = this.#ofDevice(device, chain, search) || below;
      }
    }
    return below;
  }

  #ofDevice(device: string, chain: readonly string[], search: Search): boolean {
    let folder: string;
    try {
      folder = realpathSync(join(this.#paths.sys, 'dev/block', device));
    } catch {
      return false; // no block device
    }
    return this.#ofFolder(folder, chain, search);
  }

  /** A block device by its folder in sysfs. */
  #ofFolder(folder: string, above: readonly string[], search: Search): boolean {
    const mapped = textOf(join(folder, 'dm/name'));
    const chain = [...above, `/dev/${mapped === null ? basename(folder) : `mapper/${mapped}`}`];
    return search.once(folder, () => {
      if (textOf(join(folder, 'partition')) !== null) return this.#ofFolder(dirname(folder), chain, search);
      let below = false;
      for (const slave of namesIn(join(folder, 'slaves'))) {
        below = this.#ofFolder(realpathSync(join(folder, 'slaves', slave)), chain, search) || below;
      }
      const backing = textOf(join(folder, 'loop/backing_file'))?.replace(/ \(deleted\)$/, '');
      if (backing !== undefined) below = this.#ofPath(backing, [...chain, backing], search) || below;
      const disk = readDisk(folder, chain);
      if (disk === null || !this.#wanted(disk)) return below;
      search.disks.push(disk);
      return true;
    });
  }
}

/** One look down: what was found, and what has been looked at, as things may lead to themselves. */
class Search {
  readonly disks: DiskBelow[] = [];
  readonly #seen: Map<string, boolean> = new Map();

  once(what: string, look: () => boolean): boolean {
    const known = this.#seen.get(what);
    if (known !== undefined) return known;
    this.#seen.set(what, false);
    const below = look();
    this.#seen.set(what, below);
    return below;
  }
}

function readDisk(folder: string, chain: readonly string[]): DiskBelow | null {
  const vendor = textOf(join(folder, 'device/vendor'));
  if (vendor === null) return null;
  const page83 = bytesOf(join(folder, 'device/vpd_pg83'));
  const naas = page83 === null ? [] : naasOf(page83);
  return { chain, vendor, naas, serial: serialOf(bytesOf(join(folder, 'device/vpd_pg80'))) };
}

/** `major:minor`; in Linux's number 12 bits of major lie between 8 low and 12 high bits of minor. */
function deviceText(rdev: number): string {
  return `${Math.floor(rdev / 256) % 4096}:${(rdev % 256) + Math.floor(rdev / 0x100000) * 256}`;
}

function readMounts(file: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of (textOf(file) ?? '').split('\n')) {
    const match = /^\d+ \d+ (\d+:\d+) \S+ (\S+) .*? - (\S+) (\S*) ?(\S*)$/.exec(line);
    if (match === null) continue;
    const [, device, point, type, source, options] = match as unknown as string[];
    mounts.push({
      device: device!,
      point: unescapeOctal(point!),
      type: type!,
      source: unescapeOctal(source!),
      options: unescapeOctal(options!),
    });
  }
  return mounts;
}

/** Blanks and backslashes are written as octal numbers. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** The logical unit's NAA designators in a page 83h (SPC-4 7.8.6). */
function naasOf(page: Buffer): string[] {
  const naas: string[] = [];
  const end = page.length < 4 ? 0 : Math.min(page.length, 4 + page.readUInt16BE(2));
  for (let at = 4; at + 4 <= end; ) {
    const length = page[at + 3]!;
    const type = page[at + 1]! % 16;
    const association = Math.floor(page[at + 1]! / 16) % 4;
    if (type === 3 && association === 0 && at + 4 + length <= end) {
      naas.push(page.toString('hex', at + 4, at + 4 + length));
    }
    at += 4 + length;
  }
  return naas;
}

function serialOf(page: Buffer | null): string {
  return page === null ? '' : page.toString('latin1', 4).replaceAll('\0', '').trim();
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

function bytesOf(file: string): Buffer | null {
  try {
    return readFileSync(file);
  } catch {
    return null;
  }
}

function textOf(file: string): string | null {
  return bytesOf(file)?.toString('utf8').trim() ?? null;
}
