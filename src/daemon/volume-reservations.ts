import type { Logger } from '../base/log.ts';
import { foldName } from '../base/names.ts';
import {
  isHolder,
  type NexusName,
  NO_REGISTRATIONS,
  type PersistentState,
  ReservationType,
  takeAway,
} from '../scsi/persistent-state.ts';
import { nameOf, type Reservations } from '../scsi/reservations.ts';
import { isPortOf } from '../scsi/transport-id.ts';
import type { Pool } from '../thin/pool.ts';
import type { VolumeInfo } from '../thin/pool-volumes.ts';
import { AdvisedError } from './advised-error.ts';
import { ReservationFile } from './reservation-file.ts';
import type {
  ClearReservationsMessage,
  NexusMessage,
  ReservationTypeName,
  VolumeReservationsMessage,
} from './reservation-messages.ts';

const TYPE_NAMES: Readonly<Record<ReservationType, ReservationTypeName>> = {
  [ReservationType.WRITE_EXCLUSIVE]: 'write-exclusive',
  [ReservationType.EXCLUSIVE_ACCESS]: 'exclusive-access',
  [ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY]: 'write-exclusive-registrants-only',
  [ReservationType.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY]: 'exclusive-access-registrants-only',
  [ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS]: 'write-exclusive-all-registrants',
  [ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS]: 'exclusive-access-all-registrants',
};

/** The reservations of a pool's volumes, for its administrator: in the logical units while they are served, else in the file. */
export class VolumeReservations {
  readonly #pool: Pool;
  readonly #logger: Logger;
  #file: ReservationFile | null = null;

  constructor(pool: Pool, logger: Logger) {
    this.#pool = pool;
    this.#logger = logger;
  }

  /** What is kept across restarts. Throws EINVAL when it cannot be read. */
  get file(): ReservationFile {
    if (this.#file === null) {
      const known = new Set(this.#pool.volumes().map(({ naa }) => naa));
      this.#file = ReservationFile.load(this.#pool.dir, this.#logger, (naa) => known.has(naa));
    }
    return this.#file;
  }

  /** `unit`: the reservations of the volume's logical unit; null where it has none. */
  describe(volume: VolumeInfo, unit: Reservations | null): VolumeReservationsMessage {
    const state = unit?.state ?? this.file.get(volume.naa) ?? NO_REGISTRATIONS;
    const { type } = state;
    const reserver = unit?.reserver ?? null;
    return {
      volume: volume.name,
      type: type === null ? null : TYPE_NAMES[type],
      survivesRestart: state.aptpl,
      generation: unit?.generation ?? null,
      registrants: state.registrants.map((registrant) => ({
        ...nexusMessage(registrant, unit),
        key: `0x${registrant.key}`,
        holdsReservation: isHolder(state, registrant),
      })),
      reservedBy: reserver === null ? null : nexusMessage(nameOf(reserver), unit),
    };
  }

  /** Takes registrations away, with them the reservations that are theirs, and tells the initiators. EBUSY while one that loses something is logged in. */
  async clear(
    volume: VolumeInfo,
    unit: Reservations | null,
    { initiator, force }: ClearReservationsMessage,
  ): Promise<VolumeReservationsMessage> {
    const chosen = initiator === undefined ? undefined : foldName(initiator);
    const isChosen = ({ initiatorPort }: NexusName): boolean => chosen === undefined || isPortOf(initiatorPort, chosen);
    const before = this.describe(volume, unit);
    const losers = [...before.registrants, ...(before.reservedBy === null ? [] : [before.reservedBy])].filter(
      ({ initiator: name }) => chosen === undefined || name === chosen,
    );
    if (initiator !== undefined && losers.length === 0) {
      throw new AdvisedError(
        'ENOENT',
        `Cannot clear the reservations of the volume "${volume.name}": "${initiator}" has none`,
        `See who has with "thinlun volume reservations ${this.#pool.dir} ${volume.name}".`,
      );
    }
    const present = losers.find(({ loggedIn }) => loggedIn === true);
    if (present !== undefined && !force) {
      throw new AdvisedError(
        'EBUSY',
        `Cannot clear the reservations of the volume "${volume.name}": ${present.initiator} is logged in and relies on them`,
        'They may be all that keeps two nodes of a cluster from writing at once. Log it out, or add --force if you know that only one writes.',
      );
    }
    if (unit === null) await this.#clearStored(volume.naa, isChosen);
    else await clearUnit(unit, isChosen);
    this.#logger.info(
      { volume: volume.name, initiators: losers.map(({ initiator: name }) => name) },
      'cleared reservations',
    );
    return this.describe(volume, unit);
  }

  /** The volume is gone. */
  async forget({ naa }: VolumeInfo): Promise<void> {
    try {
      await this.file.forget(naa);
    } catch (error) {
      this.#logger.warn({ error }, 'what the reservations file has of a deleted volume stays there');
    }
  }

  /** Waits until everything is kept that has to be. */
  async close(): Promise<void> {
    await this.#file?.close();
  }

  async #clearStored(naa: string, isChosen: (nexus: NexusName) => boolean): Promise<void> {
    const state = this.file.get(naa);
    if (state !== null) await this.file.set(naa, takeAway(state, isChosen).state);
  }
}

function clearUnit(unit: Reservations, isChosen: (nexus: NexusName) => boolean): Promise<void> {
  unit.breakReserve(isChosen);
  return new Promise((resolve, reject) => {
    unit.request({
      counts: true,
      decide: (state: PersistentState) => takeAway(state, isChosen),
      done: (outcome) => (outcome instanceof Error ? reject(outcome) : resolve()),
    });
  });
}

function nexusMessage(nexus: NexusName, unit: Reservations | null): NexusMessage {
  const { initiatorPort, targetPort } = nexus;
  const [initiator, isid = ''] = initiatorPort.split(',i,0x');
  return { initiator: initiator!, isid, targetPort, loggedIn: unit?.isPresent(nexus) ?? null };
}
