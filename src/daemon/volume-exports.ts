import { randomFillSync } from 'node:crypto';
import { assert } from '../base/assert.ts';
import { monotonicClock } from '../base/clock.ts';
import { messageOf, StorageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { LogicalUnit } from '../scsi/logical-unit.ts';
import { MAX_REPORTED_LUNS } from '../scsi/report.ts';
import type { Reservations } from '../scsi/reservations.ts';
import { Target } from '../scsi/target.ts';
import { endTakeOver, handOverUnit, takeOverUnit, type UnitHandover } from '../scsi/unit-handover.ts';
import { EMPTY_MEMORY } from '../scsi/unit-memory.ts';
import type { Pool } from '../thin/pool.ts';
import type { VolumeInfo } from '../thin/pool-volumes.ts';
import type { ThinDevice } from '../thin/thin-device.ts';
import { physicalBlockSizeOf } from '../thin/volume-settings.ts';
import { AdvisedError } from './advised-error.ts';
import type { ReservationFile } from './reservation-file.ts';

interface Export {
  readonly device: ThinDevice;
  readonly unit: LogicalUnit;
  readonly lun: number;
  /** LIO's names of the TCMU devices that stand on it. */
  readonly backstores: string[];
}

function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** 2^n logical blocks make a physical one: initiators align to them. */
function physicalExponentOf(volume: VolumeInfo): number {
  return Math.log2(physicalBlockSizeOf(volume) / volume.logicalBlockSize);
}

/**
 * The volumes of one pool as logical units: one each, which both front ends share, and a target that holds them under the
 * LUNs of the catalogue. Follows what is done to the volumes; initiators are told by unit attentions.
 */
export class VolumeExports {
  readonly target: Target;
  readonly #pool: Pool;
  readonly #logger: Logger;
  readonly #reservations: ReservationFile;
  readonly #exports: Map<string, Export> = new Map();
  /** By LUN. */
  readonly #names: Map<number, string> = new Map();

  /** Exports every volume that the pool has, by target ports with these identifiers. */
  constructor(
    pool: Pool,
    targetName: string,
    targetPorts: readonly number[],
    logger: Logger,
    reservations: ReservationFile,
  ) {
    this.target = new Target(targetName, targetPorts);
    this.#pool = pool;
    this.#logger = logger;
    this.#reservations = reservations;
    for (const volume of pool.volumes()) this.add(volume);
  }

  /** Puts a volume at its LUN. */
  add(volume: VolumeInfo): void {
    const { name, lun, logicalBlockSize } = volume;
    // Nobody may see it before it is whole.
    if (volume.receiving !== undefined || volume.temporary) return;
    if (this.target.allLuns.length >= MAX_REPORTED_LUNS) {
      this.#logger.error(
        { volume: name, lun },
        'the volume is not served: the target has all the LUNs that it can report',
      );
      return;
    }
    let device: ThinDevice;
    try {
      device = this.#pool.openVolume(name);
    } catch (error) {
      this.#logger.error(
        { volume: name, lun, error: messageOf(error) },
        'the volume cannot be opened and is not served',
      );
      return;
    }
    const unit = new LogicalUnit({
      backend: device,
      serial: volume.serial,
      naa: Buffer.from(volume.naa, 'hex'),
      designation: volume.serial,
      logicalBlockSize,
      logicalBlocksPerPhysicalBlockExponent: physicalExponentOf(volume),
      removable: volume.removable ?? false,
      reservations: this.#reservations.storeOf(volume.naa),
      writeCache: true,
      memory: volume.unit ?? EMPTY_MEMORY,
      keep: (memory) => this.#pool.keepUnit(volume.serial, memory),
      clock: monotonicClock,
      random: (bytes) => randomFillSync(bytes),
    });
    this.#exports.set(name, { device, unit, lun, backstores: [] });
    this.#names.set(lun, name);
    this.target.setLun(lun, unit);
  }

  /** Name of the volume at a LUN. */
  volumeAt(lun: number): string | undefined {
    return this.#names.get(lun);
  }

  /** Initiators that are logged in, and TCMU devices: who may have something of the volume in a cache. */
  usersOf(name: string): number {
    const entry = this.#exports.get(name);
    return entry === undefined ? 0 : Math.max(entry.unit.state.nexuses.size, entry.backstores.length);
  }

  /** LIO's names of the TCMU devices that stand on a volume. */
  backstoresOf(name: string): readonly string[] {
    return this.#exports.get(name)?.backstores ?? [];
  }

  /** Null for a volume that is not served. */
  reservationsOf(name: string): Reservations | null {
    return this.#exports.get(name)?.unit.state.reservations ?? null;
  }

  /** Goes on under another name. No TCMU device stands on the volume: its configuration would have the old one. */
  rename(name: string, newName: string): void {
    const entry = this.#exports.get(name);
    if (entry === undefined) return;
    this.#exports.delete(name);
    this.#exports.set(newName, entry);
    this.#names.set(entry.lun, newName);
  }

  /** Throws EBUSY while a TCMU device stands on the volume. */
  requireNoTcmu(name: string, action: string): void {
    const [backstore] = this.backstoresOf(name);
    if (backstore === undefined) return;
    throw new AdvisedError(
      'EBUSY',
      `Cannot ${action} the volume "${name}": the backstore "${backstore}" of LIO stands on it`,
      `Delete that first, with "targetcli /backstores/user:thin delete ${backstore}".`,
    );
  }

  /** Withdraws a volume: new commands find no unit, those in flight are answered first. EBUSY while a TCMU device stands on it. */
  async remove(name: string): Promise<void> {
    const entry = this.#exports.get(name);
    if (entry === undefined) return;
    this.requireNoTcmu(name, 'withdraw');
    this.#exports.delete(name);
    this.target.removeLun(entry.lun);
    this.#names.delete(entry.lun);
    await this.#pool.closeVolume(entry.device);
  }

  /** Tells the initiators that a volume has another size. */
  resized(name: string): void {
    this.#exports.get(name)?.unit.capacityChanged();
  }

  /** Tells the initiators which properties of a volume have been set. */
  settingsChanged(before: VolumeInfo, volume: VolumeInfo): void {
    const unit = this.#exports.get(volume.name)?.unit;
    if (unit === undefined) return;
    unit.configure(volume.removable ?? false, physicalExponentOf(volume));
    if ((before.readOnly ?? false) !== (volume.readOnly ?? false)) unit.writeProtectionChanged();
  }

  /** Tells the initiators that the pool's features have changed what the volumes promise. */
  featuresChanged(): void {
    for (const { unit } of this.#exports.values()) unit.inquiryChanged();
  }

  /** Lets `work` put something else into a volume, and tells the initiators. */
  async changeContent<T>(name: string, work: () => Promise<T>): Promise<T> {
    const unit = this.#exports.get(name)?.unit;
    if (unit === undefined) return work();
    unit.contentChanging();
    try {
      const result = await work();
      unit.contentChanged();
      return result;
    } finally {
      unit.contentSettled();
    }
  }

  /** The logical unit of a volume for the TCMU device with this name in LIO, until `release`. Throws ENOENT; ENODEV when it cannot be served. */
  acquire(name: string, backstore: string): LogicalUnit {
    const entry = this.#exports.get(name);
    if (entry === undefined) {
      if (this.#pool.volumes().some((volume) => volume.name === name)) {
        throw new StorageError('ENODEV', `Cannot use the volume "${name}": it is not served, see the log`);
      }
      throw new StorageError('ENOENT', `There is no volume "${name}" in the pool "${this.#pool.name}"`);
    }
    if (entry.backstores.length > 0) {
      this.#logger.warn(
        { volume: name, backstores: [...entry.backstores, backstore] },
        'several backstores stand on a volume: LIO keeps reservations of each by itself, so they protect from no initiator of another',
      );
    }
    entry.backstores.push(backstore);
    return entry.unit;
  }

  /** Gives back what `acquire` returned for this name. */
  release(unit: LogicalUnit, backstore: string): void {
    for (const entry of this.#exports.values()) {
      if (entry.unit !== unit) continue;
      const at = entry.backstores.indexOf(backstore);
      assert(at !== -1, 'a released unit was acquired');
      entry.backstores.splice(at, 1);
    }
  }

  /** What the next process has to know of the units, which have no task; by NAA designator. */
  handOver(): Record<string, UnitHandover> {
    const all = [...this.#exports.values()];
    return Object.fromEntries(all.map(({ unit }) => [toHex(unit.state.naa), handOverUnit(unit.state)]));
  }

  /** Before anybody sees them: makes the units go on as those of another process. `endTakeOver` follows when their nexuses have come. */
  takeOver(units: Readonly<Record<string, UnitHandover>>): void {
    for (const { unit } of this.#exports.values()) {
      const handover = units[toHex(unit.state.naa)];
      if (handover !== undefined) takeOverUnit(unit.state, handover);
    }
  }

  endTakeOver(): void {
    for (const { unit } of this.#exports.values()) endTakeOver(unit.state);
  }

  /** Withdraws everything, whoever uses it. */
  async close(): Promise<void> {
    const all = [...this.#exports.values()];
    this.#exports.clear();
    for (const { lun } of all) this.target.removeLun(lun);
    await Promise.all(all.map(({ device }) => this.#pool.closeVolume(device)));
  }
}
