import { describe, expect, it } from 'vitest';
import { SectorHistory, type WriteTicket } from './sector-history.ts';

const SECTOR = 512;

/** A model and a disk that is right unless the test spoils it. */
class Bench {
  readonly history: SectorHistory = new SectorHistory(16);
  readonly disk: Buffer = Buffer.alloc(16 * SECTOR);

  /** Sends a write without its reaching the disk; returns its data. */
  send(begin: number, end: number): { ticket: WriteTicket; data: Buffer } {
    const data = Buffer.alloc((end - begin) * SECTOR);
    return { ticket: this.history.begin(begin, end, data), data };
  }

  write(begin: number, end: number): WriteTicket {
    const { ticket, data } = this.send(begin, end);
    data.copy(this.disk, begin * SECTOR);
    return ticket;
  }

  flush(): void {
    this.history.endFlush(this.history.beginFlush());
  }

  verify(): string[] {
    return this.history.verify(0, this.disk);
  }
}

describe('a sector history', () => {
  it('accepts a write that was not flushed whether it is there or not', () => {
    const there = new Bench();
    there.history.acknowledge(there.write(2, 4), false);
    expect(there.verify()).toEqual([]);
    const lost = new Bench();
    lost.history.acknowledge(lost.send(2, 4).ticket, false);
    expect(lost.verify()).toEqual([]);
  });

  it('does not accept the loss of an acknowledged and flushed write', () => {
    const bench = new Bench();
    bench.history.acknowledge(bench.send(2, 4).ticket, false);
    bench.flush();
    expect(bench.verify()).toEqual([
      'sector 2: holds write 0, may hold 1 (durable first, 0 is zeroes)',
      'sector 3: holds write 0, may hold 1 (durable first, 0 is zeroes)',
    ]);
  });

  it('does not accept the loss of an acknowledged write with FUA', () => {
    const bench = new Bench();
    bench.history.acknowledge(bench.send(5, 6).ticket, true);
    expect(bench.verify()).toHaveLength(1);
  });

  it('does not count a write as flushed that was acknowledged after the flush was sent', () => {
    const bench = new Bench();
    const { ticket } = bench.send(2, 3);
    const covered = bench.history.beginFlush();
    bench.history.acknowledge(ticket, false);
    bench.history.endFlush(covered);
    expect(bench.verify()).toEqual([]);
  });

  it('accepts every state between the durable one and the last, and nothing older', () => {
    const bench = new Bench();
    const first = bench.send(1, 2);
    bench.history.acknowledge(first.ticket, false);
    const second = bench.send(1, 2);
    bench.history.acknowledge(second.ticket, true);
    const third = bench.send(1, 2);
    first.data.copy(bench.disk, SECTOR);
    expect(bench.verify()).toEqual(['sector 1: holds write 1, may hold 2 or 3 (durable first, 0 is zeroes)']);
    third.data.copy(bench.disk, SECTOR);
    expect(bench.verify()).toEqual([]);
    second.data.copy(bench.disk, SECTOR);
    expect(bench.verify(), 'what was read back once cannot go back').toHaveLength(1);
  });

  it('knows torn, misplaced and foreign sectors as garbage', () => {
    const bench = new Bench();
    bench.history.acknowledge(bench.write(2, 5), true);
    bench.disk[2 * SECTOR + 511]! ^= 1;
    bench.disk.copy(bench.disk, 4 * SECTOR, 3 * SECTOR, 4 * SECTOR);
    bench.disk[9 * SECTOR + 100] = 7;
    expect(bench.verify().map((line) => line.slice(0, 24))).toEqual([
      'sector 2: holds garbage ',
      'sector 4: holds garbage ',
      'sector 9: holds garbage ',
    ]);
  });

  it('expects zeroes where a range was given back, once that is durable', () => {
    const bench = new Bench();
    bench.history.acknowledge(bench.write(2, 4), true);
    const ticket = bench.history.begin(2, 3, null);
    expect(bench.history.verify(3, bench.disk.subarray(3 * SECTOR, 4 * SECTOR))).toEqual([]);
    bench.history.acknowledge(ticket, false);
    bench.flush();
    expect(bench.verify()).toEqual(['sector 2: holds write 1, may hold 0 (durable first, 0 is zeroes)']);
    bench.disk.fill(0, 2 * SECTOR, 3 * SECTOR);
    expect(bench.verify()).toEqual([]);
  });
});
