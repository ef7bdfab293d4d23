import { describe, expect, test } from 'vitest';
import { TmrType } from '../../src/tcmu/mailbox.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { Kind } from './fake-unit.ts';
import { RingHistory } from './ring-history.ts';

const ENTRIES = Number(process.env['THINLUN_RING_ENTRIES'] ?? 1_000_000);
const ENTRIES_OF_ONE = 10_000;

describe('any history of a ring', () => {
  test('answers every command once, with its own bytes and nobody else’s, and touches no memory that is not its own', () => {
    const random = new SeededRandom();
    const seen: Record<string, number> = {};
    let entries = 0;
    let laps = 0;
    try {
      while (entries < ENTRIES) {
        const history = new RingHistory(random);
        history.play(ENTRIES_OF_ONE);
        const { stats, area } = history.kernel;
        entries += stats.commands + stats.notices + stats.pads;
        laps += stats.laps;
        for (const [what, count] of Object.entries(history.seen)) seen[what] = (seen[what] ?? 0) + count;
        seen['blocks taken away'] = (seen['blocks taken away'] ?? 0) + area.stats.shrunk;
        seen['blocks renewed'] = (seen['blocks renewed'] ?? 0) + area.stats.renewed;
        seen['waited for room'] = (seen['waited for room'] ?? 0) + stats.waited;
        seen['padded'] = (seen['padded'] ?? 0) + stats.pads;
      }
    } catch (error) {
      throw new Error(`THINLUN_SEED=${random.seed}`, { cause: error });
    }
    expect(laps).toBeGreaterThan(entries / 1000);
    if (entries < 50_000) return;
    const wanted = [
      ...Object.values(Kind).map((kind) => `kind ${kind}`),
      ...Object.values(TmrType).map((type) => `notice ${type}`),
      ...[2, 8, 0x28, 0x40].map((status) => `ended by the kernel ${status}`),
      ...['kind 0 the wrong way', 'expired', 'unknown', 'left', 'killed', 'reset'],
      ...['blocks taken away', 'blocks renewed', 'waited for room', 'padded'],
    ];
    expect(wanted.filter((what) => !(seen[what]! > 0))).toEqual([]);
  }, 600_000);
});
