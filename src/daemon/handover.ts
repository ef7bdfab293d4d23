import { errnoOf, messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { describeIssues, type Schema, safeParse } from '../base/schema.ts';
import { AdvisedError, hintOf } from './advised-error.ts';
import type { HandoverChannel, HandoverMessage } from './handover-channel.ts';
import {
  beginSchema,
  endingSchema,
  HANDOVER_FORMAT,
  type HelloMessage,
  helloSchema,
  type RefusedMessage,
  type WelcomeMessage,
} from './handover-messages.ts';
import type { Inheritance } from './inheritance.ts';
import { VERSION } from './version.ts';

/** What another process can take over from. */
export interface Giver {
  /** Real paths of the folders of the pools that are served, and how. */
  describe(): Pick<WelcomeMessage, 'directories' | 'portals' | 'tcmu'>;
  /** Throws why the process with that id may not take over. */
  check(pid: number): void;
  /** Stops serving and returns everything. When it throws, the server goes on as if nothing had been. */
  giveAway(): Promise<Inheritance>;
}

/** The other side: what served before. */
export interface Predecessor {
  /** Lets it give everything away; null when it has ended. Rejects when it refuses, and goes on. */
  begin(): Promise<Inheritance | null>;
  /** It goes on when this process cannot. */
  readonly canGoOn: boolean;
  /** Everything is ready to go on with it: the point of no return. */
  taken(): Promise<void>;
}

/** What was given away, and to whom. */
export interface GivenAway {
  readonly inheritance: Inheritance;
  readonly channel: HandoverChannel;
  /** Of the process that asked for it. */
  readonly pid: number;
}

/** The old server's side up to the moment in which it has given everything away; null when it came to nothing, and the server goes on. */
export async function giveTo(channel: HandoverChannel, giver: Giver, logger: Logger): Promise<GivenAway | null> {
  try {
    const hello = read(await channel.receive(), helloSchema);
    if (hello === null) throw new StorageError('ESHUTDOWN', 'it has ended');
    giver.check(hello.pid);
    const about = giver.describe();
    checkHello(hello, about.directories);
    await channel.send({ event: 'welcome', format: HANDOVER_FORMAT, version: VERSION, pid: process.pid, ...about });
    if (read(await channel.receive(), beginSchema) === null) {
      logger.info({ by: hello.pid }, 'a takeover was prepared and not begun');
      channel.close();
      return null;
    }
    logger.info({ by: hello.pid, version: hello.version }, 'handing over to another process');
    const inheritance = await giver.giveAway();
    // A failure shows in `hasTaken`.
    await channel.send(inheritance.state, inheritance.fds).catch(() => {});
    return { inheritance, channel, pid: hello.pid };
  } catch (error) {
    logger.warn({ reason: messageOf(error) }, 'a takeover was refused, serving goes on');
    await channel.send(refusalOf(error)).catch(() => {});
    channel.close();
    return null;
  }
}

/** Between two words about a successor that does not say anything. */
const REMINDER_MS = 5_000;

/** Whether the other process serves now. It can only end, or say so: as long as it lives it may be about to write. */
export async function hasTaken({ channel, inheritance, pid }: GivenAway, logger: Logger): Promise<boolean> {
  const reminder = setInterval(() => {
    logger.warn({ pid }, 'the process that takes over is not ready yet; if it hangs, end it, and this one goes on');
  }, REMINDER_MS);
  let reason = 'it has ended';
  try {
    const ending = read(await channel.receive(), endingSchema);
    if (ending?.event === 'taken') {
      inheritance.close();
      return true;
    }
    if (ending !== null) reason = ending.message;
  } catch (error) {
    reason = messageOf(error);
  } finally {
    clearInterval(reminder);
  }
  channel.close();
  logger.error({ pid, reason }, 'the process that was to take over could not, serving goes on here');
  return false;
}

/** How long the next process may take to tell the service manager that it is the one now. */
const ANNOUNCE_MS = 10_000;

/** Waits until the next process needs this one for nothing any more. */
export async function untilDismissed({ channel }: GivenAway): Promise<void> {
  const timer = setTimeout(() => channel.close(), ANNOUNCE_MS);
  await channel.receive().catch(() => null);
  clearTimeout(timer);
  channel.close();
}

function checkHello({ format, version, directories }: HelloMessage, served: readonly string[]): void {
  if (format !== HANDOVER_FORMAT) {
    throw new AdvisedError(
      'EOPNOTSUPP',
      `Cannot take over from version ${VERSION}: version ${version} does not speak its language`,
      'Stop the old server and start the new one.',
    );
  }
  const missing = served.filter((dir) => !directories.includes(dir));
  if (missing.length > 0) {
    throw new AdvisedError(
      'EINVAL',
      `Cannot take over from process ${process.pid}: it serves ${missing.map((dir) => `"${dir}"`).join(', ')}, too`,
      `A server is taken over whole: give it ${served.length === 1 ? 'its pool' : 'all of its pools'}: ${served.join(' ')}`,
    );
  }
}

function refusalOf(error: unknown): RefusedMessage {
  return { event: 'refused', code: errnoOf(error), message: messageOf(error), hint: hintOf(error) };
}

/** A message of the other side; null when it has ended. Throws EINVAL. */
export function read<T>(message: HandoverMessage | null, schema: Schema<T>): T | null {
  if (message === null) return null;
  const parsed = safeParse(schema, message.content);
  if (parsed.success) return parsed.output;
  throw new StorageError('EINVAL', `Cannot understand the other server: ${describeIssues(parsed.issues, 'message')}`);
}
