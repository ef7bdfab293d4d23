import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { type Errno, StorageError } from '../../src/base/errors.ts';
import type { Timeline } from './recording-device.ts';
import type { SeededRandom } from './seeded-random.ts';

/** One change of a file's contents: bytes at an offset, or a new length. */
interface Edit {
  at: number;
  offset: number;
  bytes: Uint8Array | null;
  doneAt: number;
}

interface Sync {
  begunAt: number;
  doneAt: number;
}

/** A file, whatever its name is at the moment. */
interface Inode {
  edits: Edit[];
  syncs: Sync[];
}

/** A change of the folder: `name` is now `inode`, or is gone. */
interface Naming {
  at: number;
  doneAt: number;
  name: string;
  inode: Inode | null;
  gone: string | null;
}

type Call = 'open' | 'write' | 'truncate' | 'fsync' | 'rename' | 'unlink' | 'fsync folder';

const patched = [
  'openSync',
  'closeSync',
  'writeFileSync',
  'writeSync',
  'ftruncateSync',
  'fsyncSync',
  'renameSync',
  'unlinkSync',
] as const;
const real = Object.fromEntries(patched.map((name) => [name, fs[name]])) as Pick<typeof fs, (typeof patched)[number]>;

/**
 * Remembers every change of the small files in a folder and every fsync, so that it can say what the folder may hold after a crash at
 * any moment; and fails the calls that it is told to fail. It stands between this process and `node:fs` until `stop()`.
 *
 * After a power failure, changes of names are there up to one of them, in the order in which they were made; the contents of a file are
 * those of its last fsync with any number of the later changes, in order, the last of them perhaps in part.
 */
export class RecordedFolder {
  readonly dir: string;
  readonly timeline: Timeline;
  readonly #namings: Naming[] = [];
  readonly #folderSyncs: Sync[] = [];
  readonly #names = new Map<string, Inode>();
  /** What a file descriptor is open on; null is the folder. */
  readonly #open = new Map<number, Inode | null>();
  /** Calls so far. */
  readonly counts: Record<Call, number> = {
    open: 0,
    write: 0,
    truncate: 0,
    fsync: 0,
    rename: 0,
    unlink: 0,
    'fsync folder': 0,
  };
  /** Asked before every call; what it returns is the call's error, and nothing happens. */
  fault: ((call: Call, name: string) => Errno | null) | null = null;

  constructor(dir: string, timeline: Timeline) {
    this.dir = dir;
    this.timeline = timeline;
    for (const name of fs.readdirSync(dir)) {
      const bytes = fs.readFileSync(join(dir, name));
      const inode: Inode = { edits: [{ at: -3, offset: 0, bytes, doneAt: -3 }], syncs: [{ begunAt: -2, doneAt: -1 }] };
      this.#names.set(name, inode);
      this.#namings.push({ at: -3, doneAt: -3, name, inode, gone: null });
    }
    this.#folderSyncs.push({ begunAt: -2, doneAt: -1 });
    this.#patch();
  }

  /** When a call begins or has ended: the moments just before and after. Ascending. */
  get moments(): number[] {
    const moments = new Set<number>();
    const add = ({ at, doneAt }: { at: number; doneAt: number }): unknown =>
      moments
        .add(at)
        .add(at + 1)
        .add(doneAt + 1);
    for (const naming of this.#namings) add(naming);
    const named = this.#namings.flatMap(({ inode, name }) => (inode === null || name === 'journal' ? [] : [inode]));
    for (const { edits } of named) edits.forEach(add);
    for (const { syncs } of [{ syncs: this.#folderSyncs }, ...named]) {
      for (const { begunAt, doneAt } of syncs) add({ at: begunAt, doneAt });
    }
    return [...moments].filter((moment) => moment >= 0).sort((a, b) => a - b);
  }

  stop(): void {
    Object.assign(fs, real);
    syncBuiltinESMExports();
  }

  /** The files after the machine has lost power at `position`. */
  afterPowerFailure(position: number, random: SeededRandom): Map<string, Uint8Array> {
    const sync = durableUpTo(this.#folderSyncs, position);
    const namings = this.#namings.filter((naming) => naming.at < position);
    const durable = namings.filter((naming) => naming.doneAt < sync).length;
    return this.#files(namings.slice(0, durable + random.below(namings.length - durable + 1)), (inode) => {
      const edits = inode.edits.filter((edit) => edit.at < position);
      const synced = durableUpTo(inode.syncs, position);
      const certain = edits.filter((edit) => edit.doneAt < synced).length;
      const kept = edits.slice(0, certain + random.below(edits.length - certain + 1));
      const last = kept.at(-1);
      if (kept.length > certain && last?.bytes && random.oneIn(2)) {
        kept[kept.length - 1] = { ...last, bytes: last.bytes.subarray(0, random.below(last.bytes.length + 1)) };
      }
      return kept;
    });
  }

  /** The files after this process was killed at `position`: the page cache has all of it. */
  afterKill(position: number): Map<string, Uint8Array> {
    const namings = this.#namings.filter((naming) => naming.doneAt < position);
    return this.#files(namings, (inode) => inode.edits.filter((edit) => edit.doneAt < position));
  }

  #files(namings: Naming[], editsOf: (inode: Inode) => Edit[]): Map<string, Uint8Array> {
    const names = new Map<string, Inode>();
    for (const { name, inode, gone } of namings) {
      if (gone !== null) names.delete(gone);
      if (inode === null) names.delete(name);
      else names.set(name, inode);
    }
    return new Map([...names].map(([name, inode]) => [name, contentsAfter(editsOf(inode))]));
  }

  #patch(): void {
    const mine = (path: unknown): path is string => typeof path === 'string' && dirname(path) === this.dir;
    const patches = {
      openSync: (path: string, flags: string | number, mode?: number): number => {
        if (path === this.dir) {
          const fd = real.openSync(path, flags, mode);
          this.#open.set(fd, null);
          return fd;
        }
        if (!mine(path)) return real.openSync(path, flags, mode);
        const name = basename(path);
        const writes =
          flags === 'w' || flags === 'wx' || (typeof flags === 'number' && (flags & fs.constants.O_CREAT) !== 0);
        if (!writes) return real.openSync(path, flags, mode);
        return this.#call('open', name, () => {
          const fd = real.openSync(path, flags, mode);
          let inode = this.#names.get(name);
          if (inode === undefined) {
            inode = { edits: [], syncs: [] };
            this.#names.set(name, inode);
            this.#naming(name, inode, null);
          } else if (flags === 'w') {
            this.#edit(inode, 0, null);
          }
          this.#open.set(fd, inode);
          return fd;
        });
      },
      closeSync: (fd: number): void => {
        this.#open.delete(fd);
        real.closeSync(fd);
      },
      writeFileSync: (target: fs.PathOrFileDescriptor, data: string, options?: fs.WriteFileOptions): void => {
        const inode = typeof target === 'number' ? this.#open.get(target) : undefined;
        if (!inode) {
          real.writeFileSync(target, data, options);
          return;
        }
        this.#call('write', this.#nameOf(inode), () => {
          real.writeFileSync(target, data, options);
          this.#edit(inode, lengthAfter(inode.edits), Buffer.from(data));
        });
      },
      writeSync: (fd: number, bytes: Uint8Array, offset: number, length: number, position: number): number => {
        const inode = this.#open.get(fd);
        if (!inode) return real.writeSync(fd, bytes, offset, length, position);
        return this.#call('write', this.#nameOf(inode), () => {
          const written = real.writeSync(fd, bytes, offset, length, position);
          this.#edit(inode, position, bytes.slice(offset, offset + written));
          return written;
        });
      },
      ftruncateSync: (fd: number, length: number): void => {
        const inode = this.#open.get(fd);
        if (!inode) {
          real.ftruncateSync(fd, length);
          return;
        }
        this.#call('truncate', this.#nameOf(inode), () => {
          real.ftruncateSync(fd, length);
          this.#edit(inode, length, null);
        });
      },
      fsyncSync: (fd: number): void => {
        const inode = this.#open.get(fd);
        if (inode === undefined) {
          real.fsyncSync(fd);
          return;
        }
        const begunAt = this.timeline.now++;
        // Durable is what this folder says is durable: the disk need not hear of it.
        this.#call(inode === null ? 'fsync folder' : 'fsync', inode === null ? '.' : this.#nameOf(inode), () => {
          (inode === null ? this.#folderSyncs : inode.syncs).push({ begunAt, doneAt: this.timeline.now++ });
        });
      },
      renameSync: (from: string, to: string): void => {
        if (!mine(to)) {
          real.renameSync(from, to);
          return;
        }
        this.#call('rename', basename(to), () => {
          real.renameSync(from, to);
          const inode = this.#names.get(basename(from))!;
          this.#names.delete(basename(from));
          this.#names.set(basename(to), inode);
          this.#naming(basename(to), inode, basename(from));
        });
      },
      unlinkSync: (path: string): void => {
        if (!mine(path)) {
          real.unlinkSync(path);
          return;
        }
        this.#call('unlink', basename(path), () => {
          real.unlinkSync(path);
          this.#names.delete(basename(path));
          this.#naming(basename(path), null, null);
        });
      },
    };
    Object.assign(fs, patches);
    syncBuiltinESMExports();
  }

  #call<T>(call: Call, name: string, perform: () => T): T {
    this.counts[call]++;
    const errno = this.fault?.(call, name) ?? null;
    if (errno !== null) throw new StorageError(errno, `${call} ${name}: a fault was injected`);
    return perform();
  }

  #naming(name: string, inode: Inode | null, gone: string | null): void {
    const at = this.timeline.now++;
    this.#namings.push({ at, doneAt: this.timeline.now++, name, inode, gone });
  }

  #edit(inode: Inode, offset: number, bytes: Uint8Array | null): void {
    const at = this.timeline.now++;
    inode.edits.push({ at, doneAt: this.timeline.now++, offset, bytes });
  }

  #nameOf(inode: Inode): string {
    for (const [name, candidate] of this.#names) if (candidate === inode) return name;
    return '(unlinked)';
  }
}

/** What was done before this moment is durable at `position`. */
function durableUpTo(syncs: readonly Sync[], position: number): number {
  return Math.max(-2, ...syncs.filter((sync) => sync.doneAt < position).map((sync) => sync.begunAt));
}

function lengthAfter(edits: readonly Edit[]): number {
  let length = 0;
  for (const { offset, bytes } of edits) length = bytes === null ? offset : Math.max(length, offset + bytes.length);
  return length;
}

function contentsAfter(edits: readonly Edit[]): Uint8Array {
  const contents = new Uint8Array(Math.max(0, ...edits.map(({ offset, bytes }) => offset + (bytes?.length ?? 0))));
  let length = 0;
  for (const { offset, bytes } of edits) {
    if (bytes === null) {
      contents.fill(0, offset);
      length = offset;
    } else {
      contents.set(bytes, offset);
      length = Math.max(length, offset + bytes.length);
    }
  }
  return contents.slice(0, length);
}
