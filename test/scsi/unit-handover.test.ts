import { describe, expect, it } from 'vitest';
import { CopyRecord } from '../../src/scsi/copy-records.ts';
import { LogicalUnit } from '../../src/scsi/logical-unit.ts';
import { MODE_PAGES } from '../../src/scsi/mode-pages.ts';
import { Nexus } from '../../src/scsi/nexus.ts';
import { ReservationType } from '../../src/scsi/persistent-state.ts';
import { TOKEN_DELETED } from '../../src/scsi/sense.ts';
import { CopyOut, Status } from '../../src/scsi/spec.ts';
import { UnitAttention } from '../../src/scsi/unit-attention.ts';
import { endTakeOver, handOverUnit, takeOverUnit, type UnitHandover } from '../../src/scsi/unit-handover.ts';
import { HandClock } from './support/copy.ts';
import { MIB, unitOptions } from './support/initiator.ts';
import { RamLun } from './support/ram-lun.ts';

const clock = new HandClock();
const nexusOf = (name: string): Nexus => new Nexus(`iqn.2026-11.test:${name},i,0x80`, 'iqn.2026-11.test:t,t,0x0001', 1);

function makeUnit(): LogicalUnit {
  return new LogicalUnit(unitOptions(new RamLun(MIB), { clock, removable: true }));
}

/** Another unit that goes on from `unit`, whose nexuses with these names have come again. */
function next(unit: LogicalUnit, ...names: string[]): LogicalUnit {
  const successor = makeUnit();
  takeOverUnit(successor.state, JSON.parse(JSON.stringify(handOverUnit(unit.state))) as UnitHandover);
  for (const name of names) successor.attach(nexusOf(name));
  endTakeOver(successor.state);
  return successor;
}

describe('a unit that goes on in another process', () => {
  it('has all of it, also once more', () => {
    const unit = makeUnit();
    const { state } = unit;
    const [a, b] = [nexusOf('a'), nexusOf('b')];
    unit.attach(a);
    unit.attach(b);
    unit.raiseAttention(b, UnitAttention.CAPACITY_CHANGED);
    const caching = MODE_PAGES.find(({ code }) => code === 0x08)!;
    state.modes.select(caching, new Uint8Array(caching.length));
    state.nexuses.get(a)!.preventsRemoval = true;
    state.mediumPresent = false;
    state.statistics.readCommands = 7;
    state.reservations.request({
      counts: true,
      decide: () => ({
        kind: 'change',
        state: {
          registrants: [{ initiatorPort: a.initiatorPort, targetPort: 1, key: '000000000000000a' }],
          type: ReservationType.EXCLUSIVE_ACCESS,
          holder: { initiatorPort: a.initiatorPort, targetPort: 1 },
          aptpl: false,
        },
        notices: [{ nexus: { initiatorPort: 'gone', targetPort: 1 }, kind: UnitAttention.RESERVATIONS_PREEMPTED }],
        preempted: [],
      }),
      done: () => {},
    });
    const live = state.tokens.add(new Uint8Array(512).fill(1), [{ begin: 3, end: 9 }], 5000)!;
    state.tokens.delete(state.tokens.add(new Uint8Array(512).fill(2), [{ begin: 1, end: 2 }], 5000)!);
    state.tokens.nextIdentifier();
    const record = new CopyRecord(5, CopyOut.POPULATE_TOKEN);
    Object.assign(record, { isEnded: true, status: Status.GOOD, token: live.bytes, bytes: 3072 });
    state.nexuses.get(a)!.copies.keep(record);

    const second = next(next(unit, 'a', 'b'), 'a', 'b');
    expect(handOverUnit(second.state)).toEqual(handOverUnit(state));
    expect(second.state.writeCache).toBe(false);
    expect(second.state.tokens.find(live.bytes)).toMatchObject({ ranges: [{ begin: 3, end: 9 }] });
    expect(second.state.tokens.find(new Uint8Array(512).fill(2))!.ended).toBe(TOKEN_DELETED);
    const [, its] = [...second.state.nexuses.entries()][1]!;
    expect(its.attentions.names()).toEqual(['POWER_ON', 'CAPACITY_CHANGED']);
    expect(its.refusals).not.toBe(0);
  });

  it('ends a token when its time is over, the time in both processes counted', () => {
    const unit = makeUnit();
    const bytes = new Uint8Array(512).fill(3);
    unit.state.tokens.add(bytes, [{ begin: 0, end: 1 }], 1000);
    clock.ms += 800;
    const successor = next(unit);
    expect(successor.state.tokens.list()).toHaveLength(1);
    clock.ms += 300;
    expect(successor.state.tokens.list()).toHaveLength(0);
  });

  it('keeps what RESERVE began for as long as its nexus is there', () => {
    const unit = makeUnit();
    const [a, b] = [nexusOf('a'), nexusOf('b')];
    unit.attach(a);
    unit.attach(b);
    unit.state.reservations.reserve(a);
    const kept = next(unit, 'b', 'a');
    expect(kept.state.reservations.reserver?.initiatorPort).toBe(a.initiatorPort);
    expect([...kept.state.nexuses.values()].map(({ refusals }) => refusals > 0)).toEqual([true, true]);
    const lost = next(unit, 'b');
    expect(lost.state.reservations.reserver).toBeNull();
    expect([...lost.state.nexuses.values()].map(({ refusals }) => refusals)).toEqual([0]);
  });

  it('keeps for a nexus that does not come again what it was not told of its reservations, and nothing else', () => {
    const unit = makeUnit();
    const a = nexusOf('a');
    unit.attach(a);
    unit.clearAttention(a, UnitAttention.POWER_ON);
    unit.raiseAttention(a, UnitAttention.REGISTRATIONS_PREEMPTED);
    unit.raiseAttention(a, UnitAttention.MODE_PARAMETERS_CHANGED);
    const later = next(unit);
    expect(later.state.expected.size).toBe(0);
    later.attach(nexusOf('a'), false);
    expect([...later.state.nexuses.values()][0]!.attentions.names()).toEqual(['REGISTRATIONS_PREEMPTED']);
  });
});
