import { equalBytes } from '../base/bytes.ts';
import { StorageError } from '../base/errors.ts';
import { foldName } from '../base/names.ts';
import { type Credential, type Identity, sameCredential } from '../iscsi/access.ts';
import { normalizeName } from '../iscsi/names.ts';
import { MAX_NAME_SIZE } from '../iscsi/spec.ts';
import { Access } from '../scsi/command.ts';
import { checkSecret } from './secret.ts';

/** Who may log in to a pool's target, and what for: one initiator or several, and where a user is given, whoever knows that user's secret. */
export interface AccessEntry {
  /** An iSCSI name; or the beginning of names, with `*` behind it. */
  initiator: string;
  /** They may not, whatever a shorter pattern says. Nothing else is given then. */
  denied?: true | undefined;
  /** Names of volumes, or the beginnings of names with `*` behind them; left out: all. */
  volumes?: string[] | undefined;
  readOnly?: true | undefined;
  /** Left out: nobody is asked who they are. */
  chap?: ChapEntry | undefined;
}

export interface ChapEntry {
  user: string;
  secret: string;
  /** What the target proves to know. */
  mutual?: { user: string; secret: string } | undefined;
}

export const MAX_USER_SIZE = 255;
/** Entries of one pool. */
export const MAX_ENTRIES = 1024;

const VOLUME_PATTERN = /^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,127})?\*?$(?<!^)/;

/** Compiled: secrets as bytes. */
interface Rule {
  readonly entry: AccessEntry;
  readonly credential: Credential | null;
}

/** The access list of one pool, and what follows from it. The entries with the longest pattern that fits an initiator's name count, no others. */
export class AccessList {
  readonly entries: readonly AccessEntry[];
  private readonly rules: ReadonlyMap<string, readonly Rule[]>;

  /** Throws EINVAL for entries that contradict each other, or that cannot be. */
  constructor(entries: readonly AccessEntry[]) {
    if (entries.length > MAX_ENTRIES) throw invalid(`more than ${MAX_ENTRIES} entries`);
    const rules = new Map<string, Rule[]>();
    for (const entry of entries) {
      checkEntry(entry);
      const rule: Rule = { entry, credential: credentialOf(entry) };
      const others = rules.get(entry.initiator);
      if (others === undefined) rules.set(entry.initiator, [rule]);
      else others.push(rule);
    }
    for (const [initiator, group] of rules) checkGroup(initiator, group);
    this.entries = entries;
    this.rules = rules;
  }

  /** Whether anybody is asked for CHAP. */
  get usesChap(): boolean {
    return this.entries.some(({ chap }) => chap !== undefined);
  }

  /** Whether the initiator is let in without being asked who it is. */
  isOpenTo(initiatorName: string): boolean {
    return this.rulesFor(initiatorName).some(({ entry, credential }) => credential === null && !entry.denied);
  }

  /** What lets the initiator in. */
  credentials(initiatorName: string): Credential[] {
    return this.rulesFor(initiatorName).flatMap(({ credential }) => credential ?? []);
  }

  /** What counts for somebody; null for who is not let in. */
  entryFor({ initiatorName, credential }: Identity): AccessEntry | null {
    for (const rule of this.rulesFor(initiatorName)) {
      if (rule.entry.denied) return null;
      if (rule.credential === null) return rule.entry;
      if (credential !== null && sameCredential(rule.credential, credential)) return rule.entry;
    }
    return null;
  }

  /** Patterns that differ from `pattern` and fit it. */
  coversElsewhere(pattern: string): boolean {
    const name = pattern.endsWith('*') ? pattern.slice(0, -1) : pattern;
    return this.entries.some(({ initiator, denied }) => !denied && initiator !== pattern && matches(initiator, name));
  }

  private rulesFor(initiatorName: string): readonly Rule[] {
    const exact = this.rules.get(initiatorName);
    if (exact !== undefined) return exact;
    let longest = '';
    for (const pattern of this.rules.keys()) {
      if (pattern.length > longest.length && pattern.endsWith('*') && matches(pattern, initiatorName))
        longest = pattern;
    }
    return this.rules.get(longest) ?? [];
  }
}

/** What an entry lets do to a volume. */
export function accessTo({ volumes, readOnly }: AccessEntry, volumeName: string): Access {
  if (volumes !== undefined && !volumes.some((pattern) => matches(pattern, volumeName))) return Access.NONE;
  return readOnly ? Access.READ : Access.WRITE;
}

/** The pattern of initiator names as it is compared; null when it is none. */
export function normalizePattern(pattern: string): string | null {
  if (!pattern.includes('*')) return normalizeName(pattern);
  if (!pattern.endsWith('*')) return null;
  const beginning = pattern.slice(0, -1);
  if (beginning === '') return pattern;
  if (beginning.includes('*') || Buffer.byteLength(beginning) > MAX_NAME_SIZE) return null;
  // The beginning of a name may end anywhere; what it can have, a whole name tells.
  const lower = foldName(beginning);
  return normalizeName(`iqn.${lower.slice(0, MAX_NAME_SIZE - 'iqn.'.length)}`) !== null ? `${lower}*` : null;
}

export function matches(pattern: string, name: string): boolean {
  return pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}

function credentialOf({ chap }: AccessEntry): Credential | null {
  if (chap === undefined) return null;
  const { user, secret, mutual } = chap;
  return {
    user,
    secret: Buffer.from(secret),
    mutual: mutual === undefined ? null : { user: mutual.user, secret: Buffer.from(mutual.secret) },
  };
}

/** Throws EINVAL; the message holds no secret. */
function checkEntry({ initiator, denied, volumes, readOnly, chap }: AccessEntry): void {
  if (normalizePattern(initiator) !== initiator) {
    throw invalid(
      `"${initiator}" is neither an iSCSI name (in lower case) nor the beginning of one with "*" behind it`,
    );
  }
  if (denied && (volumes !== undefined || readOnly || chap !== undefined)) {
    throw invalid(`"${initiator}" is denied and given something`);
  }
  for (const pattern of volumes ?? []) {
    if (!VOLUME_PATTERN.test(pattern)) {
      throw invalid(`"${pattern}" is neither a volume's name nor the beginning of names with "*" behind it`);
    }
  }
  if (chap === undefined) return;
  checkSecret(chap.secret, `the secret of the user "${chap.user}"`);
  checkUser(chap.user);
  if (chap.mutual === undefined) return;
  checkUser(chap.mutual.user);
  checkSecret(chap.mutual.secret, `the target's secret for the user "${chap.user}"`);
  if (equalBytes(Buffer.from(chap.secret), Buffer.from(chap.mutual.secret))) {
    throw invalid(`the user "${chap.user}" and the target have the same secret, which would prove nothing`);
  }
}

function checkGroup(initiator: string, group: readonly Rule[]): void {
  if (group.length === 1) return;
  if (group.some(({ credential }) => credential === null)) {
    throw invalid(`"${initiator}" is there with and without authentication, or more than once`);
  }
  const users = new Set(group.map(({ credential }) => credential!.user));
  if (users.size < group.length) throw invalid(`"${initiator}" is there twice with the same user`);
}

function checkUser(user: string): void {
  const size = Buffer.byteLength(user);
  if (size === 0 || size > MAX_USER_SIZE || /[\p{C}\p{Zl}\p{Zp}]/u.test(user)) {
    throw invalid(`a user's name has 1 to ${MAX_USER_SIZE} bytes, and no control or format characters`);
  }
}

function invalid(reason: string): StorageError {
  return new StorageError('EINVAL', `Cannot use the access list: ${reason}`);
}
