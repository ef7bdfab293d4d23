import type { SeededRandom } from './seeded-random.ts';

const SECTOR = 512;
/** Every slot is written as a whole: from one sector to more than one block of 64 KiB, mostly across such a block's end. */
const SLOT_SECTORS = [1, 8, 24, 100, 150, 200];
const SLOTS = 48;

interface Write {
  readonly number: number;
  submitted: number;
  /** Infinity until it is answered. */
  answered: number;
}

interface Slot {
  readonly lba: number;
  readonly sectors: number;
  readonly writes: Write[];
  busy: boolean;
}

/** Numbers what happens, on however many volumes: what has a lower number was earlier. */
export class Moments {
  private last = 0;

  next(): number {
    return ++this.last;
  }
}

/** False: it was not done, and is to be sent again. */
export type WriteSlot = (lba: number, data: Buffer, fua: boolean) => Promise<boolean>;

/** Numbered writes to slots of one volume, several at once but never two to one slot, so that any content can be told apart. */
export class NumberedLoad {
  readonly slots: Slot[] = [];
  private readonly writeSlot: WriteSlot;
  private readonly random: SeededRandom;
  private readonly moments: Moments;
  private running: Promise<void>[] = [];
  private stopping = false;

  constructor(writeSlot: WriteSlot, random: SeededRandom, moments: Moments) {
    this.writeSlot = writeSlot;
    this.random = random;
    this.moments = moments;
    for (let i = 0, lba = 0; i < SLOTS; i++) {
      const sectors = SLOT_SECTORS[i % SLOT_SECTORS.length]!;
      this.slots.push({ lba, sectors, writes: [{ number: 0, submitted: 0, answered: 0 }], busy: false });
      lba += sectors;
    }
  }

  /** Of all slots together. */
  get sectors(): number {
    return this.slots.reduce((sum, slot) => sum + slot.sectors, 0);
  }

  get writes(): number {
    return this.slots.reduce((sum, { writes }) => sum + writes.length - 1, 0);
  }

  start(depth: number): void {
    this.running = Array.from({ length: depth }, () => this.loop());
  }

  /** Resolves when everything is answered; rejects with the first failure of a write. */
  async stop(): Promise<void> {
    this.stopping = true;
    await Promise.all(this.running);
  }

  private async loop(): Promise<void> {
    while (!this.stopping) {
      const slot = this.random.pick(this.slots.filter(({ busy }) => !busy));
      const write: Write = { number: slot.writes.length, submitted: this.moments.next(), answered: Infinity };
      const data = Buffer.alloc(slot.sectors * SECTOR);
      for (let at = 0; at < data.length; at += 8) data.writeUInt32LE(write.number, at);
      slot.busy = true;
      slot.writes.push(write);
      const fua = this.random.oneIn(20);
      while (!(await this.writeSlot(slot.lba, data, fua))) write.submitted = this.moments.next();
      write.answered = this.moments.next();
      slot.busy = false;
    }
  }
}

/**
 * What is wrong with the contents of snapshots, one for each load, that were taken together between the moments `before` and `after`: torn
 * writes, writes submitted after the end, and missing ones that had been answered before the beginning, or before another write that is in was
 * submitted.
 */
export function wrongWithSnapshots(
  loads: readonly NumberedLoad[],
  contents: readonly Uint8Array[],
  before: number,
  after: number,
): string[] {
  const wrong: string[] = [];
  const held: { load: number; slot: Slot; write: Write }[] = [];
  for (const [load, { slots }] of loads.entries()) {
    for (const slot of slots) {
      const numbers = numbersIn(slot, contents[load]!);
      const where = `volume ${load}, slot at ${slot.lba}`;
      if (numbers.length > 1) wrong.push(`${where}: parts of writes ${numbers.join(', ')}`);
      const write = slot.writes[numbers[0]!];
      if (write === undefined) wrong.push(`${where}: write ${numbers[0]} was never sent`);
      else held.push({ load, slot, write });
    }
  }
  const newest = Math.max(...held.map(({ write }) => write.submitted));
  if (newest > after) wrong.push('a write is in that was submitted after the end');
  for (const { load, slot, write } of held) {
    const due = slot.writes.filter(({ answered }) => answered < Math.max(before, newest)).at(-1)!;
    if (write.number < due.number)
      wrong.push(`volume ${load}, slot at ${slot.lba}: ${write.number}, not ${due.number}`);
  }
  return wrong;
}

function numbersIn({ lba, sectors }: Slot, content: Uint8Array): number[] {
  const bytes = Buffer.from(content.buffer, content.byteOffset, content.byteLength);
  const numbers = new Set<number>();
  for (let at = lba * SECTOR; at < (lba + sectors) * SECTOR; at += 8) numbers.add(bytes.readUInt32LE(at));
  return [...numbers];
}
