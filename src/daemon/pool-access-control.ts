import { messageOf, StorageError } from '../base/errors.ts';
import type { Credential, Identity } from '../iscsi/access.ts';
import { Access } from '../scsi/command.ts';
import { type AccessSettings, readAccessFile, writeAccessFile } from './access-file.ts';
import { type AccessEntry, AccessList, accessTo, type ChapEntry, normalizePattern } from './access-list.ts';
import type {
  AccessControl,
  AccessMessage,
  AllowMessage,
  DenyMessage,
  OpenMessage,
  PoolAccessMessage,
} from './access-messages.ts';
import { AdvisedError } from './advised-error.ts';

/** Runs a call when those before it have ended. */
type Exclusive = <T>(call: () => Promise<T>) => Promise<T>;

/** What is let do to the volumes; as for `Access`, by name. */
export type VolumeRights = (volumeName: string) => Access;

const EVERYTHING: VolumeRights = () => Access.WRITE;
const ANYBODY = '*';

/** The access list of one open pool: read from its folder, changed, and asked at every login. */
export class PoolAccessControl implements AccessControl {
  /** Called after each change. */
  onChange: () => void = () => {};
  readonly #dir: string;
  readonly #exclusive: Exclusive;
  #settings: AccessSettings | null = null;

  constructor(dir: string, exclusive: Exclusive) {
    this.#dir = dir;
    this.#exclusive = exclusive;
  }

  /** Reads the file. Throws what `readAccessFile` throws: then the pool must not be served. */
  load(): AccessSettings {
    this.#settings = readAccessFile(this.#dir);
    return this.#settings;
  }

  /** What counts; null before `load`: nobody is let in. Another object after each change. */
  get settings(): AccessSettings | null {
    return this.#settings;
  }

  // --- for logins ---

  get usesChap(): boolean {
    const { open, list } = this.#settings ?? SHUT;
    return !open && list.usesChap;
  }

  isOpenTo(initiatorName: string): boolean {
    const { open, list } = this.#settings ?? SHUT;
    return open || list.isOpenTo(initiatorName);
  }

  credentials(initiatorName: string): readonly Credential[] {
    const { open, list } = this.#settings ?? SHUT;
    return open ? [] : list.credentials(initiatorName);
  }

  /** Null for who is not let in. */
  rightsOf(identity: Identity): VolumeRights | null {
    const { open, list } = this.#settings ?? SHUT;
    if (open) return EVERYTHING;
    const entry = list.entryFor(identity);
    return entry === null ? null : (name) => accessTo(entry, name);
  }

  // --- for people ---

  /** Never throws: a list that cannot be used is told of. */
  summary(): PoolAccessMessage {
    try {
      const { open, list } = this.#settings ?? readAccessFile(this.#dir);
      return { open, entryCount: list.entries.length, problem: null };
    } catch (error) {
      return { open: false, entryCount: 0, problem: messageOf(error) };
    }
  }

  list(): Promise<AccessMessage> {
    return this.#exclusive(async () => {
      this.load();
      this.onChange();
      return this.#message();
    });
  }

  allow(request: AllowMessage): Promise<AccessMessage> {
    return this.#change(({ list }) => {
      const initiator = patternOf(request.initiator);
      const group = list.entries.filter((entry) => entry.initiator === initiator && !entry.denied);
      const existing = group.find(({ chap }) => chap?.user === request.user);
      const strangers = group.filter(({ chap }) => chap === undefined || request.user === undefined);
      if (request.user === undefined) this.#requireNoUsers(initiator, group);
      const made = entryOf(initiator, request, existing);
      const kept = list.entries.filter(
        (entry) => entry !== existing && !strangers.includes(entry) && !(entry.denied && entry.initiator === initiator),
      );
      return { open: false, entries: [...kept, made] };
    });
  }

  deny({ initiator: pattern, user }: DenyMessage): Promise<AccessMessage> {
    return this.#change(({ open, list }) => {
      const initiator = patternOf(pattern);
      const entries = list.entries.filter(
        (entry) => entry.initiator !== initiator || (user !== undefined && entry.chap?.user !== user),
      );
      if (user !== undefined && entries.length === list.entries.length) {
        throw new AdvisedError(
          'ENOENT',
          `Cannot deny the user "${user}" access: there is no such user for "${initiator}"`,
          `See who is there with "thinlun access list ${this.#dir}".`,
        );
      }
      // Everybody else was let in, and still is.
      if (open && !entries.some((entry) => entry.initiator === ANYBODY)) entries.push({ initiator: ANYBODY });
      const others = entries.some((entry) => entry.initiator === initiator);
      if (!others && new AccessList(entries).coversElsewhere(initiator)) entries.push({ initiator, denied: true });
      return { open: false, entries };
    });
  }

  setOpen({ open }: OpenMessage): Promise<AccessMessage> {
    return this.#change(({ list }) => ({ open, entries: list.entries }));
  }

  /** Does `rename`, through which entries that name the volume follow it. At no moment are they without it. */
  async renamed<T>(name: string, newName: string, rename: () => Promise<T>): Promise<T> {
    const { open, list } = this.load();
    if (!list.entries.some(({ volumes }) => volumes?.includes(name))) return rename();
    const each = (change: (volumes: string[]) => string[]): AccessEntry[] =>
      list.entries.map((entry) =>
        entry.volumes?.includes(name) ? { ...entry, volumes: change(entry.volumes) } : entry,
      );
    this.#apply({ open, list: new AccessList(each((volumes) => [...new Set([...volumes, newName])])) });
    let result: T;
    try {
      result = await rename();
    } catch (error) {
      this.#apply({ open, list });
      throw error;
    }
    const after = (volumes: string[]): string[] => [...new Set(volumes.map((one) => (one === name ? newName : one)))];
    this.#apply({ open, list: new AccessList(each(after)) });
    return result;
  }

  #change(next: (now: AccessSettings) => { open: boolean; entries: readonly AccessEntry[] }): Promise<AccessMessage> {
    return this.#exclusive(async () => {
      const { open, entries } = next(this.load());
      this.#apply({ open, list: new AccessList(entries) });
      return this.#message();
    });
  }

  #apply(settings: AccessSettings): void {
    writeAccessFile(this.#dir, settings);
    this.#settings = settings;
    this.onChange();
  }

  /** Throws EEXIST: what asks for a secret now must not be let in without one by the way. */
  #requireNoUsers(initiator: string, group: readonly AccessEntry[]): void {
    const users = group.flatMap(({ chap }) => (chap === undefined ? [] : `"${chap.user}"`));
    if (users.length === 0) return;
    throw new AdvisedError(
      'EEXIST',
      `Cannot allow "${initiator}": it has to authenticate itself, as ${users.join(' or ')}`,
      `Add --user to change that, or take it back first with "thinlun access deny ${this.#dir} '${initiator}'".`,
    );
  }

  #message(): AccessMessage {
    const { open, list } = this.#settings ?? SHUT;
    return {
      open,
      entries: list.entries.map(({ initiator, denied, volumes, readOnly, chap }) => ({
        initiator,
        denied: denied ?? false,
        volumes: volumes ?? null,
        readOnly: readOnly ?? false,
        user: chap?.user ?? null,
        mutualUser: chap?.mutual?.user ?? null,
      })),
    };
  }
}

const SHUT: AccessSettings = { open: false, list: new AccessList([]) };

/** Throws EINVAL. */
function patternOf(text: string): string {
  const pattern = normalizePattern(text);
  if (pattern !== null) return pattern;
  throw new AdvisedError(
    'EINVAL',
    `Cannot use "${text}" as an initiator: it is neither an iSCSI name nor the beginning of one with "*" behind it`,
    "Names look like iqn.2026-01.org.example:host; an initiator's own is in /etc/iscsi/initiatorname.iscsi.",
  );
}

/** The entry that `request` asks for; what it leaves out is as in `existing`. */
function entryOf(initiator: string, request: AllowMessage, existing: AccessEntry | undefined): AccessEntry {
  const volumes = request.volumes ?? existing?.volumes;
  const readOnly = request.readOnly ?? existing?.readOnly ?? false;
  const chap = chapOf(initiator, request, existing?.chap);
  return {
    initiator,
    ...(volumes === undefined || volumes.includes(ANYBODY) ? {} : { volumes: [...new Set(volumes)] }),
    ...(readOnly ? { readOnly } : {}),
    ...(chap === undefined ? {} : { chap }),
  };
}

function chapOf(
  initiator: string,
  { user, secret, mutual }: AllowMessage,
  existing: ChapEntry | undefined,
): ChapEntry | undefined {
  if (user === undefined) {
    if (secret === undefined && !mutual) return undefined;
    throw new StorageError('EINVAL', `Cannot allow "${initiator}": a secret belongs to a user, and none is given`);
  }
  const theirs = secret ?? existing?.secret;
  if (theirs === undefined) {
    throw new AdvisedError(
      'ENOENT',
      `Cannot allow "${initiator}" as user "${user}": the user is new and has no secret`,
      'Give one with --secret-file FILE; "-" reads it from standard input.',
    );
  }
  const ours = mutual === undefined ? existing?.mutual : (mutual ?? undefined);
  return { user, secret: theirs, ...(ours === undefined ? {} : { mutual: ours }) };
}
