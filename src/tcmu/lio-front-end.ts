import type { Clock, Timer } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { AccessStateChange, FrontEnd, FrontEndWaiter } from '../scsi/front-end.ts';
import { type LioAlua, type LioGroup, NO_ALUA, readAlua } from './alua.ts';
import type { ConfigfsDevice } from './configfs.ts';

/** A command that asks about ports waits this long for configfs; then it is told what was known before. */
export const READ_TIMEOUT_MS = 2_000;
/** LIO waits for trans_delay_msecs of the group. */
export const SET_TIMEOUT_MS = 5_000;

/** STATUS CODE of a state that SET TARGET PORT GROUPS has set. */
const BY_SET_TARGET_PORT_GROUPS = '1';

export interface LioFrontEndOptions {
  readonly configfs: ConfigfsDevice;
  readonly maxTransferBytes: number;
  /** What initiators are told, whatever LIO has. */
  readonly serial: string;
  readonly logger: Logger;
  readonly clock: Clock;
}

/**
 * LIO as the front end of one TCMU device. configfs says nothing of what changes in there, so it is read when an initiator asks: for standard INQUIRY data, VPD page 83h
 * and the target port groups. Initiators are told by LIO that there is something to ask for. At most one read is under way, however many ask, and each of them
 * gets what a read found that began after it had asked. Where that takes too long it is told what was known before, at the least what there was at the beginning.
 */
export class LioFrontEnd implements FrontEnd {
  readonly maxTransferBytes: number;
  readonly managesTasks = false;
  readonly ports: readonly number[] = [];
  readonly #options: LioFrontEndOptions;
  #alua: LioAlua = NO_ALUA;
  /** Of the read under way, and of the one after it. */
  #waiting: FrontEndWaiter[] = [];
  #arrived: FrontEndWaiter[] = [];
  #reading = false;
  /** The read under way has taken too long: nobody waits for it any more. */
  #late = false;
  #timer: Timer | null = null;
  #closed = false;
  readonly #isClosed = (): boolean => this.#closed;
  /** Of which the log has been told. */
  #serialSaid = '';
  #failureSaid = '';
  #holderSaid = '';
  #lookingForHolder = false;

  constructor(options: LioFrontEndOptions) {
    this.#options = options;
    this.maxTransferBytes = options.maxTransferBytes;
    this.#read();
  }

  get groups(): readonly LioGroup[] {
    return this.#alua.groups;
  }

  get ownGroup(): number {
    return this.#alua.ownGroup;
  }

  get onlyPort(): number {
    return this.#alua.onlyPort;
  }

  /** From here on configfs is not touched: its folders are locked until the kernel has our answer to the removal. Who waits goes on. */
  close(): void {
    this.#closed = true;
    this.#giveUp();
  }

  refresh(waiter: FrontEndWaiter): boolean {
    if (this.#closed || this.#late) return true;
    this.#arrived.push(waiter);
    if (!this.#reading) this.#read();
    return false;
  }

  #read(): void {
    this.#reading = true;
    this.#waiting = this.#arrived;
    this.#arrived = [];
    this.#timer = this.#options.clock.setTimer(READ_TIMEOUT_MS, () => {
      this.#options.logger.warn(
        { path: this.#options.configfs.path },
        'configfs does not answer: initiators are told what was known of the ports',
      );
      this.#late = true;
      this.#giveUp();
    });
    this.#load().then(() => this.#ended());
  }

  async #load(): Promise<void> {
    const { configfs, logger } = this.#options;
    try {
      this.#alua = await readAlua(configfs, this.#isClosed);
      this.#failureSaid = '';
      if (!this.#closed) await this.#compareSerial();
    } catch (error) {
      const reason = messageOf(error);
      if (!this.#closed && reason !== this.#failureSaid) {
        logger.warn({ path: configfs.path, reason }, 'cannot read the target port groups');
      }
      this.#failureSaid = reason;
    }
  }

  #ended(): void {
    this.#reading = false;
    this.#late = false;
    this.#timer?.cancel();
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const waiter of waiting) waiter.resume();
    if (this.#arrived.length > 0 && !this.#closed && !this.#reading) this.#read();
  }

  #giveUp(): void {
    this.#timer?.cancel();
    const all = [...this.#waiting, ...this.#arrived];
    this.#waiting = [];
    this.#arrived = [];
    for (const waiter of all) waiter.resume();
  }

  /** LIO's serial number, which nobody sees but in targetcli and in the names of its APTPL files; rtslib makes one up where it is given none. */
  async #compareSerial(): Promise<void> {
    const { configfs, serial, logger } = this.#options;
    const lio = await configfs.readSerial();
    if (lio === '' || lio === serial || lio === this.#serialSaid) return;
    this.#serialSaid = lio;
    logger.warn(
      { path: configfs.path, lio, serial },
      "LIO has another serial number for this backstore than initiators see: theirs is the volume's; to have one, create the backstore with wwn=<serial>",
    );
  }

  setStates(changes: readonly AccessStateChange[], done: (made: boolean) => void): void {
    const { clock, logger, configfs } = this.#options;
    let over = false;
    const end = (made: boolean): void => {
      if (over) return;
      over = true;
      timer.cancel();
      done(made);
    };
    const timer = clock.setTimer(SET_TIMEOUT_MS, () => {
      logger.warn({ path: configfs.path }, 'SET TARGET PORT GROUPS: LIO does not answer');
      end(false);
    });
    this.#setStates(changes, () => over || this.#closed).then(end, (error: unknown) => {
      logger.warn({ path: configfs.path, reason: messageOf(error) }, 'SET TARGET PORT GROUPS failed');
      end(false);
    });
  }

  async #setStates(changes: readonly AccessStateChange[], isOver: () => boolean): Promise<boolean> {
    const { configfs, logger } = this.#options;
    for (const { group: id, state } of changes) {
      const group = this.#alua.groups.find((one) => one.id === id);
      if (group === undefined || isOver()) return false;
      if (group.state === state) continue;
      await configfs.write(`alua/${group.name}/alua_access_state`, `${state}`);
      if (isOver()) return false;
      await configfs.write(`alua/${group.name}/alua_access_status`, BY_SET_TARGET_PORT_GROUPS);
      logger.info(
        { path: configfs.path, group: group.name, state },
        'an initiator has set the state of a target port group',
      );
    }
    return true;
  }

  /** Says in the log that an initiator of LIO holds a persistent reservation, which binds nobody who does not come through this device. */
  async lookForReservation(): Promise<void> {
    if (this.#closed || this.#lookingForHolder) return;
    this.#lookingForHolder = true;
    try {
      this.#tellOfHolder(await this.#options.configfs.read('pr/res_holder'));
    } catch {
      // The device is going away, or has no reservations.
    } finally {
      this.#lookingForHolder = false;
    }
  }

  #tellOfHolder(text: string): void {
    const { configfs, logger } = this.#options;
    const holder = /Initiator: *(.*)$/m.exec(text)?.[1] ?? '';
    if (holder === this.#holderSaid) return;
    this.#holderSaid = holder;
    if (holder === '') return;
    logger.warn(
      { path: configfs.path, holder },
      'an initiator of LIO has reserved the volume, which others use by the portal or another backstore at the same time: LIO keeps its reservation to itself, they can write',
    );
  }
}
