import { describe, expect, it } from 'vitest';
import { UnitAttention, UnitAttentionQueue } from '../../src/scsi/unit-attention.ts';

function takeAll(queue: UnitAttentionQueue): string[] {
  const taken: string[] = [];
  while (!queue.isEmpty) taken.push(queue.take().toString(16).padStart(6, '0'));
  return taken;
}

describe('a queue of unit attentions', () => {
  it('gives each kind once, the most important first', () => {
    const queue = new UnitAttentionQueue();
    for (const kind of [
      UnitAttention.COMMANDS_CLEARED,
      UnitAttention.MODE_PARAMETERS_CHANGED,
      UnitAttention.CAPACITY_CHANGED,
      UnitAttention.LUNS_CHANGED,
      UnitAttention.CAPACITY_CHANGED,
      UnitAttention.I_T_NEXUS_LOSS,
      UnitAttention.INQUIRY_CHANGED,
      UnitAttention.MEDIUM_CHANGED,
    ]) {
      queue.raise(kind);
    }
    expect(takeAll(queue)).toEqual(['062907', '063f0e', '063f03', '062800', '062a09', '062a01', '062f00']);
    expect(queue.take()).toBe(0);
  });

  it('forgets what waits when there is a reset', () => {
    const queue = new UnitAttentionQueue();
    queue.raise(UnitAttention.CAPACITY_CHANGED);
    queue.raise(UnitAttention.POWER_ON);
    queue.raise(UnitAttention.LOGICAL_UNIT_RESET);
    queue.raise(UnitAttention.MODE_PARAMETERS_CHANGED);
    expect(takeAll(queue)).toEqual(['062900', '062903', '062a01']);
  });

  it('clears a kind without reporting it', () => {
    const queue = new UnitAttentionQueue();
    queue.raise(UnitAttention.LUNS_CHANGED);
    queue.raise(UnitAttention.CAPACITY_CHANGED);
    queue.clear(UnitAttention.LUNS_CHANGED);
    expect(takeAll(queue)).toEqual(['062a09']);
  });
});
