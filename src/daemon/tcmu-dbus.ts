import type { Clock, Timer } from '../base/clock.ts';
import { messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { hintOf } from './advised-error.ts';
import { DbusConnection, DbusError, type DbusMessage, type DbusReply } from './dbus-connection.ts';

/*
 * What targetcli looks for on the system bus, under the name org.kernel.TCMUService1 (tcmu-handler.xml of tcmu-runner):
 *
 *   /org/kernel/TCMUService1              org.freedesktop.DBus.ObjectManager  GetManagedObjects; each path's last part is a subtype
 *   /org/kernel/TCMUService1/<subtype>    org.kernel.TCMUService1             ConfigDesc (s), CheckConfig(s) -> (b, s)
 *
 * Where tcmu-runner owns that name, a handler in another process owns org.kernel.TCMUService1.HandlerManager1.<subtype>, exports
 * its object under .../HandlerManager1/<subtype> and calls RegisterHandler of .../HandlerManager1: tcmu-runner then passes CheckConfig on.
 *
 * Several servers of ours queue for the names: one answers for all, and when it ends the bus gives its name to the next.
 */

const SERVICE = 'org.kernel.TCMUService1';
const ROOT = '/org/kernel/TCMUService1';
const MANAGER = `${SERVICE}.HandlerManager1`;
const MANAGER_PATH = `${ROOT}/HandlerManager1`;
const PROPERTIES = 'org.freedesktop.DBus.Properties';
const OBJECT_MANAGER = 'org.freedesktop.DBus.ObjectManager';
const BUS = 'org.freedesktop.DBus';
const DBUS_ERROR = 'org.freedesktop.DBus.Error';
const NAME_IS_OURS = new Set<unknown>([1, 4]);
/** The kernel keeps 255 bytes of dev_config. */
const MAX_CONFIG_LENGTH = 255;
const CHECK_TIMEOUT_MS = 5_000;
const RETRY_MIN_MS = 1_000;
const RETRY_MAX_MS = 30_000;

/**
 * `owner`: targetcli asks us. `queued`: it asks another server of ours, and us after that one's end. `guest`: tcmu-runner owns the name and
 * passes on what concerns us, or another server of ours. `none`: there is no bus to be on.
 */
export type TcmuDbusMode = 'owner' | 'queued' | 'guest' | 'none';

export interface TcmuDbusOptions {
  readonly subtype: string;
  /** What `targetcli /backstores/user:thin help create` shows. */
  readonly description: string;
  /**
   * Whether a backstore can be made of `cfgstring` (without the subtype): throws or rejects with an error whose message tells a person
   * why not. Without side effects.
   */
  check(cfgstring: string): void | Promise<void>;
  /** Whether this process is another server of ours. Default: there are no others. */
  isServer?(pid: number): boolean;
  readonly logger: Logger;
  readonly clock: Clock;
  /** Default: DBUS_SYSTEM_BUS_ADDRESS, or the system bus. */
  readonly busAddress?: string;
}

/** Makes `/backstores/user:thin` appear in targetcli. Comes back by itself when the bus is restarted, or tcmu-runner comes or goes. */
export class TcmuDbus {
  readonly #options: TcmuDbusOptions;
  readonly #logger: Logger;
  #connection: DbusConnection | null = null;
  #uniqueName = '';
  #mode: TcmuDbusMode = 'none';
  #retryMs = RETRY_MIN_MS;
  #retry: Timer | null = null;
  #stopped = false;

  constructor(options: TcmuDbusOptions) {
    this.#options = options;
    this.#logger = options.logger;
  }

  get mode(): TcmuDbusMode {
    return this.#mode;
  }

  /** Takes the name, or registers with its owner. Without a bus it resolves to `none` and tries again later. */
  async start(): Promise<TcmuDbusMode> {
    await this.#connect();
    return this.#mode;
  }

  stop(): void {
    this.#stopped = true;
    this.#retry?.cancel();
    this.#connection?.close();
    this.#connection = null;
    this.#mode = 'none';
  }

  async #connect(): Promise<void> {
    const address =
      this.#options.busAddress ?? process.env['DBUS_SYSTEM_BUS_ADDRESS'] ?? 'unix:path=/run/dbus/system_bus_socket';
    const connection = new DbusConnection(address, {
      call: (message) => this.#call(message),
      signal: (message) => this.#signal(message),
      closed: (reason) => this.#lost(reason),
    });
    this.#connection = connection;
    try {
      this.#uniqueName = await connection.ready();
      await connection.callBus('AddMatch', 's', [
        `type='signal',sender='${BUS}',member='NameOwnerChanged',arg0='${SERVICE}'`,
      ]);
      await this.#takeName(connection);
      this.#retryMs = RETRY_MIN_MS;
    } catch (error) {
      if (this.#connection !== connection) return; // `closed` has dealt with it
      connection.close();
      this.#lost(messageOf(error));
    }
  }

  /** Asks for the names that are to be had, and waits in their queues otherwise. */
  async #takeName(connection: DbusConnection): Promise<void> {
    if (await requestName(connection, SERVICE)) {
      this.#become('owner');
      return;
    }
    const [owner] = await connection.callBus('GetNameOwner', 's', [SERVICE]);
    if (owner === this.#uniqueName) {
      this.#become('owner');
      return;
    }
    const [pid] = await connection.callBus('GetConnectionUnixProcessID', 's', [owner]);
    if (this.#options.isServer?.(Number(pid)) ?? false) {
      this.#become('queued');
      return;
    }
    const { subtype, description } = this.#options;
    if (await requestName(connection, `${MANAGER}.${subtype}`)) {
      const [accepted, reason] = await connection.call({
        path: MANAGER_PATH,
        destination: SERVICE,
        interface: MANAGER,
        member: 'RegisterHandler',
        signature: 'ss',
        body: [subtype, description],
      });
      if (accepted !== true) throw new StorageError('EBUSY', `Cannot register with ${SERVICE}: ${String(reason)}`);
    }
    this.#become('guest');
  }

  #become(mode: TcmuDbusMode): void {
    if (this.#mode === mode) return;
    this.#mode = mode;
    const fields = { name: SERVICE };
    if (mode === 'owner') this.#logger.info(fields, 'targetcli finds us by our own name');
    else if (mode === 'queued') this.#logger.info(fields, 'another server here answers targetcli, for our pools, too');
    else {
      this.#logger.warn(
        fields,
        'tcmu-runner runs here: it refuses devices of handlers that it does not know, so create them with control="nl_reply_supported=-1"',
      );
    }
  }

  #lost(reason: string): void {
    this.#connection = null;
    this.#mode = 'none';
    if (this.#stopped) return;
    this.#logger.warn({ reason, retryMs: this.#retryMs }, 'not on the system bus: targetcli does not show user:thin');
    this.#retry = this.#options.clock.setTimer(this.#retryMs, () => {
      void this.#connect();
    });
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MAX_MS);
  }

  /** A name changed hands: its owner before has ended. */
  #signal(message: DbusMessage): void {
    const connection = this.#connection;
    const [name] = message.body ?? [];
    const concerns =
      (message.member === 'NameOwnerChanged' && name === SERVICE && message.body?.[2] !== '') ||
      (message.member === 'NameAcquired' && name === `${MANAGER}.${this.#options.subtype}`);
    if (connection === null || !concerns || message.sender !== BUS || this.#mode === 'none') return;
    this.#takeName(connection).catch((error: unknown) => {
      // Where names change hands quickly, the next signal is on its way; else a new connection begins anew.
      if (this.#connection !== connection) return;
      connection.close();
      this.#lost(messageOf(error));
    });
  }

  async #call(message: DbusMessage): Promise<DbusReply> {
    const { path = '', member = '' } = message;
    const wanted = message.interface;
    const is = (name: string): boolean => wanted === undefined || wanted === name;
    const isHandler = this.#handlerPaths().includes(path);
    if (member === 'Ping' && is('org.freedesktop.DBus.Peer')) return { signature: '', body: [] };
    if (member === 'Introspect' && is('org.freedesktop.DBus.Introspectable')) {
      return { signature: 's', body: [this.#introspect(path)] };
    }
    await this.#requireRoot(message.sender);
    if (path === ROOT && member === 'GetManagedObjects' && is(OBJECT_MANAGER)) {
      const objects = [[`${ROOT}/${this.#options.subtype}`, [[SERVICE, this.#properties()]]]];
      return { signature: 'a{oa{sa{sv}}}', body: [objects] };
    }
    if (isHandler && member === 'GetAll' && is(PROPERTIES)) {
      return { signature: 'a{sv}', body: [message.body?.[0] === SERVICE ? this.#properties() : []] };
    }
    if (isHandler && member === 'Get' && is(PROPERTIES)) {
      if (message.body?.[0] === SERVICE && message.body[1] === 'ConfigDesc') {
        return { signature: 'v', body: [['s', this.#options.description]] };
      }
      throw new DbusError(`${DBUS_ERROR}.UnknownProperty`, `There is no property ${String(message.body?.[1])}`);
    }
    if (isHandler && member === 'Set' && is(PROPERTIES)) {
      throw new DbusError(`${DBUS_ERROR}.PropertyReadOnly`, 'The properties of a handler cannot be changed');
    }
    if (isHandler && member === 'CheckConfig' && is(SERVICE)) return this.#checkConfig(message.body?.[0]);
    throw new DbusError(`${DBUS_ERROR}.UnknownMethod`, `${path} has no method ${wanted ?? ''}.${member}`);
  }

  #handlerPaths(): string[] {
    const { subtype } = this.#options;
    return [`${ROOT}/${subtype}`, `${MANAGER_PATH}/${subtype}`];
  }

  #properties(): unknown[] {
    return [['ConfigDesc', ['s', this.#options.description]]];
  }

  /** The policy on the bus may be another's: who may ask is decided here. */
  async #requireRoot(sender: string | undefined): Promise<void> {
    const [uid] = (await this.#connection?.callBus('GetConnectionUnixUser', 's', [sender ?? ''])) ?? [];
    if (uid !== 0 && uid !== process.getuid?.()) throw new DbusError(`${DBUS_ERROR}.AccessDenied`, 'Only root may ask');
  }

  async #checkConfig(argument: unknown): Promise<DbusReply> {
    const answer = (good: boolean, text: string): DbusReply => ({ signature: 'bs', body: [good, text] });
    if (typeof argument !== 'string') throw new DbusError(`${DBUS_ERROR}.InvalidArgs`, 'CheckConfig takes a string');
    const reason = refuseConfig(argument);
    if (reason !== null) return answer(false, reason);
    const prefix = `${this.#options.subtype}/`;
    const cfgstring = argument.startsWith(prefix) ? argument.slice(prefix.length) : argument;
    let timer: Timer | null = null;
    const late = new Promise<never>((_resolve, reject) => {
      timer = this.#options.clock.setTimer(CHECK_TIMEOUT_MS, () => reject(new Error('the pool does not answer')));
    });
    try {
      await Promise.race([this.#options.check(cfgstring), late]);
      return answer(true, '');
    } catch (error) {
      const hint = hintOf(error);
      return answer(false, hint === null ? messageOf(error) : `${messageOf(error)}. ${hint}`);
    } finally {
      (timer as Timer | null)?.cancel();
    }
  }

  #introspect(path: string): string {
    if (this.#handlerPaths().includes(path)) {
      return `<node><interface name="${SERVICE}"><method name="CheckConfig"><arg name="configstr" type="s" direction="in"/><arg name="ok" type="b" direction="out"/><arg name="message" type="s" direction="out"/></method><property name="ConfigDesc" type="s" access="read"/></interface></node>`;
    }
    if (path === ROOT) {
      return `<node><interface name="${OBJECT_MANAGER}"><method name="GetManagedObjects"><arg name="objects" type="a{oa{sa{sv}}}" direction="out"/></method></interface><node name="${this.#options.subtype}"/></node>`;
    }
    const inside = ROOT.startsWith(path === '/' ? '/' : `${path}/`);
    const next = inside ? ROOT.slice(path === '/' ? 1 : path.length + 1).split('/')[0] : undefined;
    return next === undefined ? '<node/>' : `<node><node name="${next}"/></node>`;
  }
}

/** What the kernel and rtslib cannot carry; null when the text is fine. `argument` has the subtype in front. */
function refuseConfig(argument: string): string | null {
  if (Buffer.byteLength(argument) > MAX_CONFIG_LENGTH) {
    return `the configuration has more than ${MAX_CONFIG_LENGTH} bytes, which is all that the kernel keeps`;
  }
  const bad = /[^A-Za-z0-9._/;=@-]/.exec(argument);
  if (bad !== null) {
    return `the configuration has the character "${bad[0]}"; the kernel and targetcli carry A-Z a-z 0-9 . _ - / ; = @ only`;
  }
  return null;
}

/** True when the name is ours from now on; else we wait for it. */
async function requestName(connection: DbusConnection, name: string): Promise<boolean> {
  const [result] = await connection.callBus('RequestName', 'su', [name, 0]);
  return NAME_IS_OURS.has(result);
}
