import { MIB } from '../base/units.ts';
import type { ProvisioningResources } from '../block/lun-backend.ts';

/**
 * Thresholds of logical block provisioning (SBC-4 4.7.3.7): initiators are told once when what is available has sunk to a number, or what the unit
 * uses has risen to one. Counts are in threshold sets of 2^`exponent` logical blocks, a mebibyte. Unless an initiator sets it, the number for what is
 * available is the administrator's low-water mark.
 */
export class ProvisioningThresholds {
  /** THRESHOLD EXPONENT of VPD page B2h. */
  readonly exponent: number;
  readonly setBytes: number;
  /** LBPERE of the read-write error recovery mode page. */
  reporting = true;
  readonly #resources: ProvisioningResources;
  #followsLowWater = true;
  #availableLimit = Number.NEGATIVE_INFINITY;
  #usedLimit = Number.POSITIVE_INFINITY;
  #availableReached = false;
  #usedReached = false;

  constructor(resources: ProvisioningResources, blockSize: number) {
    this.#resources = resources;
    this.exponent = Math.log2(MIB / blockSize);
    this.setBytes = MIB;
  }

  get availableSets(): number {
    return Math.min(0xffffffff, Math.floor(this.#resources.availableBytes / this.setBytes));
  }

  get usedSets(): number {
    return Math.min(0xffffffff, Math.ceil(this.#resources.usedBytes / this.setBytes));
  }

  /** The low-water mark, 0 when there is none. */
  get lowWaterSets(): number {
    return Math.min(0xffffffff, Math.ceil(this.#resources.lowWaterBytes / this.setBytes));
  }

  /** Sets limits in sets; -1: none. What is reached already is told again. */
  configure(availableSets: number, usedSets: number): void {
    this.#followsLowWater = availableSets > 0 && availableSets === this.lowWaterSets;
    this.#availableLimit = availableSets < 0 ? Number.NEGATIVE_INFINITY : availableSets * this.setBytes;
    this.#usedLimit = usedSets < 0 ? Number.POSITIVE_INFINITY : usedSets * this.setBytes;
    this.#availableReached = false;
    this.#usedReached = false;
  }

  /** True once when a threshold has been reached; again when it was not any more, by a set, and is. */
  passed(): boolean {
    if (!this.reporting) return false;
    const { availableBytes } = this.#resources;
    const availableLimit = this.#followsLowWater ? this.#resources.lowWaterBytes : this.#availableLimit;
    let passed = false;
    if (availableBytes <= availableLimit) {
      passed = !this.#availableReached;
      this.#availableReached = true;
    } else if (this.#availableReached && availableBytes >= availableLimit + this.setBytes) {
      this.#availableReached = false;
    }
    const usedMatters = this.#usedReached || this.#usedLimit !== Number.POSITIVE_INFINITY;
    return (usedMatters && this.#usedPassed()) || passed;
  }

  #usedPassed(): boolean {
    const { usedBytes } = this.#resources;
    const before = this.#usedReached;
    if (usedBytes >= this.#usedLimit) this.#usedReached = true;
    else if (usedBytes <= this.#usedLimit - this.setBytes) this.#usedReached = false;
    return this.#usedReached && !before;
  }

  /** What initiators have been told. */
  handOver(): { availableReached: boolean; usedReached: boolean } {
    return { availableReached: this.#availableReached, usedReached: this.#usedReached };
  }

  takeOver({ availableReached, usedReached }: { availableReached: boolean; usedReached: boolean }): void {
    this.#availableReached = availableReached;
    this.#usedReached = usedReached;
  }

  /** Which is reached now: its place among the descriptors of the mode page; -1: none. */
  get reached(): number {
    if (!this.reporting) return -1;
    if (this.#availableReached) return 0;
    return this.#usedReached ? 1 : -1;
  }
}
