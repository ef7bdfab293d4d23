import { type Command, InvalidArgumentError } from 'commander';
import type { AccessEntryMessage, AccessMessage, AllowMessage } from '../daemon/access-messages.ts';
import type { PoolControl } from '../daemon/pool-control.ts';
import type { Output } from './output.ts';
import { type RunContext, UsageError } from './run-context.ts';
import { readSecret } from './secret-source.ts';
import { withPool } from './with-pool.ts';

interface AllowFlags {
  volumes?: string[];
  readOnly?: boolean;
  readWrite?: boolean;
  user?: string;
  secretFile?: string;
  mutualUser?: string;
  mutualSecretFile?: string;
  /** false with --no-mutual. */
  mutual: boolean;
  json?: boolean;
}

export function addAccessCommands(program: Command, context: RunContext): void {
  const { output } = context;
  const access = program
    .command('access')
    .description('say which initiators may log in to a pool, for which volumes, and how they prove who they are')
    .addHelpText(
      'after',
      `
A pool is open to all until somebody is allowed: from then on only those who are allowed see it at all. What is changed counts at
once, with a server and without; sessions that are not let in any more are dropped.`,
    );

  access
    .command('allow')
    .description('let an initiator log in, or change what it may do')
    .argument('<dir>', "the pool's folder")
    .argument('<initiator>', "its iSCSI name, or the beginning of names with '*' behind it; '*' is everybody")
    .option('--volumes <names>', "the volumes that it sees, as in web,db or 'web-*'; '*': all", volumesArgument)
    .option('--read-only', 'it may not write')
    .option('--read-write', 'it may write, again')
    .option('--user <name>', 'it has to prove that it is this user, with CHAP')
    .option('--secret-file <file>', "the user's secret, of 12 to 255 bytes; - reads it from standard input")
    .option('--mutual-user <name>', 'the target proves that it is this user, to initiators that ask for it')
    .option('--mutual-secret-file <file>', "the target's secret, which must be another one")
    .option('--no-mutual', 'the target proves nothing, any more')
    .option('--json', 'print the access list as JSON')
    .addHelpText(
      'after',
      `
Of a new initiator, what is not given is: all volumes, to read and to write, nothing to prove. Of one that is allowed already, what is not
given stays as it is. When several patterns fit an initiator, only the longest one counts. Several users may be allowed for one pattern.

An initiator's name is not proof: everybody can use any name. On a network that others reach, too, give users and secrets.

Examples:
  thinlun access allow /srv/pool iqn.2026-01.org.example:web --volumes web
  thinlun access allow /srv/pool iqn.2026-01.org.example:db --user db --secret-file /root/db.secret
  openssl rand -base64 24 | tee db.secret | thinlun access allow /srv/pool 'iqn.2026-01.org.example:*' --user db --secret-file -
  thinlun access allow /srv/pool iqn.2026-01.org.example:backup --volumes 'snap-*' --read-only`,
    )
    .action(async (dir: string, initiator: string, flags: AllowFlags) => {
      const request = requestOf(initiator, flags);
      const { wasOpen, result, missing } = await withPool(dir, (pool) => allow(pool, request));
      if (flags.json) {
        output.json(result);
        return;
      }
      printList(output, result);
      if (wasOpen)
        output.line('\nThe pool was open to all until now; whoever is not in this list is not let in any more.');
      for (const name of missing) output.line(`\nThere is no volume "${name}" yet.`);
    });

  access
    .command('deny')
    .description('take what an initiator was allowed back; its sessions are dropped')
    .argument('<dir>', "the pool's folder")
    .argument('<initiator>', 'the name or pattern')
    .option('--user <name>', 'only this user of it')
    .option('--json', 'print the access list as JSON')
    .addHelpText(
      'after',
      `
If a shorter pattern would let the initiator in all the same, the list says from now on that it is denied. Of a pool that is open to all
everybody else still may log in.

Examples:
  thinlun access deny /srv/pool iqn.2026-01.org.example:web
  thinlun access deny /srv/pool 'iqn.2026-01.org.example:*' --user db`,
    )
    .action(async (dir: string, initiator: string, flags: { user?: string; json?: boolean }) => {
      const result = await withPool(dir, (pool) => pool.access.deny({ initiator, user: flags.user }));
      if (flags.json) output.json(result);
      else printList(output, result);
    });

  access
    .command('list')
    .description('show who may log in; secrets are not shown')
    .argument('<dir>', "the pool's folder")
    .option('--json', 'print as JSON')
    .addHelpText(
      'after',
      `
Examples:
  thinlun access list /srv/pool
  thinlun access list /srv/pool --json | jq -r '.entries[].initiator'

Who is logged in: thinlun pool status /srv/pool.`,
    )
    .action(async (dir: string, flags: { json?: boolean }) => {
      const result = await withPool(dir, (pool) => pool.access.list());
      if (flags.json) output.json(result);
      else printList(output, result);
    });

  addOpenCommand(access, output, 'open', true, 'let everybody in; the list is kept and does not count');
  addOpenCommand(access, output, 'close', false, 'let only those in who are in the list, or nobody');
}

function addOpenCommand(access: Command, output: Output, name: string, open: boolean, description: string): void {
  access
    .command(name)
    .description(description)
    .argument('<dir>', "the pool's folder")
    .option('--json', 'print the access list as JSON')
    .addHelpText(
      'after',
      `
Examples:
  thinlun access ${name} /srv/pool`,
    )
    .action(async (dir: string, flags: { json?: boolean }) => {
      const result = await withPool(dir, (pool) => pool.access.setOpen({ open }));
      if (flags.json) output.json(result);
      else printList(output, result);
    });
}

function volumesArgument(text: string): string[] {
  const names = text.split(',').map((name) => name.trim());
  if (names.some((name) => name === '')) throw new InvalidArgumentError('Give names with commas between them');
  return names;
}

/** Checks what belongs together, and reads the secrets. */
function requestOf(initiator: string, flags: AllowFlags): AllowMessage {
  const { volumes, user, secretFile, mutualUser, mutualSecretFile } = flags;
  if (flags.readOnly && flags.readWrite) throw new UsageError('access allow: --read-only or --read-write, not both');
  if (user === undefined && (secretFile ?? mutualUser ?? mutualSecretFile) !== undefined) {
    throw new UsageError('access allow: a secret belongs to a user; add --user NAME');
  }
  if ((mutualUser === undefined) !== (mutualSecretFile === undefined)) {
    throw new UsageError('access allow: --mutual-user and --mutual-secret-file belong together');
  }
  if (mutualUser !== undefined && !flags.mutual) {
    throw new UsageError('access allow: --mutual-user or --no-mutual, not both');
  }
  if (secretFile === '-' && mutualSecretFile === '-') {
    throw new UsageError('access allow: only one secret can come from standard input');
  }
  const secret = secretFile === undefined ? undefined : readSecret(secretFile, `the secret of the user "${user}"`);
  const readOnly = flags.readOnly ? true : flags.readWrite ? false : undefined;
  let mutual: AllowMessage['mutual'] = flags.mutual ? undefined : null;
  if (mutualUser !== undefined && mutualSecretFile !== undefined) {
    mutual = { user: mutualUser, secret: readSecret(mutualSecretFile, "the target's secret") };
  }
  return { initiator, volumes, readOnly, user, secret, mutual };
}

/** `missing`: volumes that the list names and the pool does not have. */
async function allow(
  pool: PoolControl,
  request: AllowMessage,
): Promise<{ wasOpen: boolean; result: AccessMessage; missing: string[] }> {
  const { open: wasOpen } = await pool.access.list();
  const result = await pool.access.allow(request);
  const names = new Set((await pool.listVolumes()).map(({ name }) => name));
  const missing = (request.volumes ?? []).filter((name) => !name.endsWith('*') && !names.has(name));
  return { wasOpen, result, missing };
}

function printList(output: Output, { open, entries }: AccessMessage): void {
  if (open) {
    output.line('The pool is open to all: whoever reaches a portal may have every volume.');
    if (entries.length === 0) return;
    output.line('This list does not count until "thinlun access close":');
  } else if (entries.length === 0) {
    output.line('Nobody may log in.');
    return;
  }
  output.table(
    [{ title: 'INITIATOR' }, { title: 'VOLUMES' }, { title: 'ACCESS' }, { title: 'AUTHENTICATION' }],
    entries.map((entry) => [
      entry.initiator,
      entry.denied ? '-' : (entry.volumes?.join(',') ?? 'all'),
      entry.denied ? 'denied' : entry.readOnly ? 'read-only' : 'read-write',
      authenticationOf(entry),
    ]),
  );
}

function authenticationOf({ denied, user, mutualUser }: AccessEntryMessage): string {
  if (user === null) return denied ? '-' : 'none';
  return mutualUser === null ? `CHAP as ${user}` : `CHAP as ${user}, target as ${mutualUser}`;
}
