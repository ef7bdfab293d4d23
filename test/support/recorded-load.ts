import { Command, type FastInitiator } from './fast-initiator.mjs';
import { SectorHistory, type WriteTicket } from './sector-history.ts';
import type { SeededRandom } from './seeded-random.ts';

/** Sectors of one read when everything is read back. */
const VERIFY_SECTORS = 2048;

/**
 * Random writes, unmaps, FUA writes and flushes on the first sectors of a LUN, with a record of what was promised, so that
 * `verify` can tell after a crash whether every promise was kept.
 */
export class RecordedLoad {
  readonly history: SectorHistory;
  /** Commands with status GOOD, by kind. */
  readonly done = { write: 0, fua: 0, unmap: 0, flush: 0 };
  /** Commands that ended with another status than GOOD while the connection stood. */
  readonly refused: string[] = [];
  readonly #random: SeededRandom;
  /** Sectors of writes and unmaps in flight. */
  readonly #busy = new Set<number>();
  #running = 0;
  /** Set by `stop()`. */
  isStopping = false;

  constructor(sectorCount: number, random: SeededRandom) {
    this.history = new SectorHistory(sectorCount);
    this.#random = random;
  }

  /** Keeps `depth` commands in flight until `stop()` or until the connection breaks. Resolves when none is in flight any more. */
  run(initiator: FastInitiator, depth: number): Promise<void> {
    this.isStopping = false;
    return new Promise((resolve) => {
      const ended = (): void => {
        if (--this.#running === 0) resolve();
      };
      this.#running = depth;
      for (let i = 0; i < depth; i++) this.#loop(initiator, ended);
    });
  }

  /** Sends nothing new. */
  stop(): void {
    this.isStopping = true;
  }

  /** Flushes; throws when that is refused. */
  async flush(initiator: FastInitiator): Promise<void> {
    const covered = this.history.beginFlush();
    await initiator.runGood((command) => command.flush());
    this.history.endFlush(covered);
    this.done.flush++;
  }

  /** The server's process has ended, however: whatever it had acknowledged is there, flushed or not. */
  processEnded(): void {
    this.history.endFlush(this.history.beginFlush());
  }

  /** Reads everything back and returns what breaks a promise. The server has been started again; nothing is in flight. */
  async verify(initiator: FastInitiator): Promise<string[]> {
    this.history.forgetFlight();
    this.#busy.clear();
    const wrong: string[] = [];
    const data = Buffer.alloc(VERIFY_SECTORS * 512);
    for (let at = 0; at < this.history.sectorCount && wrong.length < 20; at += VERIFY_SECTORS) {
      const count = Math.min(VERIFY_SECTORS, this.history.sectorCount - at);
      const target = data.subarray(0, count * 512);
      const command = await initiator.runGood((read) => read.read(at, count, 512, target));
      if (command.received !== target.length)
        wrong.push(`sector ${at}: ${command.received} bytes of ${target.length} came`);
      wrong.push(...this.history.verify(at, target));
    }
    return wrong;
  }

  #loop(initiator: FastInitiator, ended: () => void): void {
    let finish: (isGood: boolean) => void = () => {};
    const next = (): void => {
      if (this.isStopping || initiator.failure) {
        ended();
        return;
      }
      finish = this.#prepare(command);
      initiator.submit(command);
    };
    const command = new Command((completed) => {
      const isGood = completed.status === 0;
      if (!isGood && initiator.failure === null) {
        this.refused.push(
          `CDB ${completed.cdb.toString('hex')}: status ${completed.status}, ${completed.sense?.toString('hex')}`,
        );
        this.stop();
      }
      finish(isGood);
      next();
    });
    next();
  }

  /** Makes the next command; returns what is to be done when it has ended. */
  #prepare(command: Command): (isGood: boolean) => void {
    const kind = this.#random.below(100);
    if (kind < 4) {
      const covered = this.history.beginFlush();
      command.flush();
      return (isGood) => {
        if (!isGood) return;
        this.history.endFlush(covered);
        this.done.flush++;
      };
    }
    const [begin, end] = this.#chooseRange(
      kind < 12 ? [8, 128, 130, 256, 1024] : [1, 3, 8, 8, 8, 16, 64, 128, 256, 500],
    );
    const isUnmap = kind < 12;
    const isDurable = kind >= 12 && kind < 20;
    let ticket: WriteTicket;
    if (isUnmap) {
      ticket = this.history.begin(begin, end, null);
      command.unmap(begin, end - begin);
    } else {
      const data = Buffer.alloc((end - begin) * 512);
      ticket = this.history.begin(begin, end, data);
      command.write(begin, end - begin, data, isDurable);
    }
    for (let sector = begin; sector < end; sector++) this.#busy.add(sector);
    return (isGood) => {
      for (let sector = begin; sector < end; sector++) this.#busy.delete(sector);
      if (!isGood) return;
      this.history.acknowledge(ticket, isDurable);
      this.done[isUnmap ? 'unmap' : isDurable ? 'fua' : 'write']++;
    };
  }

  /** A range of one of the lengths in which no sector is busy. */
  #chooseRange(lengths: readonly number[]): [begin: number, end: number] {
    for (let attempt = 0; ; attempt++) {
      // When much is busy, only little fits in between.
      const length = attempt < 50 ? Math.min(this.#random.pick(lengths), this.history.sectorCount) : 1;
      let begin = this.#random.below(this.history.sectorCount - length + 1);
      // Often, but not always, as a file system would place it.
      if (!this.#random.oneIn(4)) begin -= begin % Math.min(length, 8);
      let isFree = true;
      for (let sector = begin; sector < begin + length && isFree; sector++) isFree = !this.#busy.has(sector);
      if (isFree) return [begin, begin + length];
    }
  }
}
