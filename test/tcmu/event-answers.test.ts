import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { EventAnswers, type PendingAnswer } from '../../src/tcmu/event-answers.ts';
import { type TcmuEvent, TcmuEventKind } from '../../src/tcmu/genl.ts';

function event(deviceId: number, kind: TcmuEventKind): TcmuEvent {
  const uioName = `tcm-user/0/d${deviceId}/thin/p/v`;
  return { kind, uioName, minor: deviceId, deviceId, devConfig: null, sizeBytes: null, writeCache: null };
}

describe('answers to the kernel', () => {
  test('are given once', () => {
    const sent: unknown[] = [];
    const answers = new EventAnswers(({ deviceId, kind }, status) => sent.push([deviceId, kind, status]));
    const answer = answers.expect(event(7, TcmuEventKind.ADDED));
    answer.give(-2);
    answer.give(0);
    answer.drop();
    expect(sent).toEqual([[7, TcmuEventKind.ADDED, -2]]);
    expect(answers.pendingCount).toBe(0);
  });

  test('that another event of the same device id has overtaken are not given, whoever has the id now', () => {
    const sent: unknown[] = [];
    const answers = new EventAnswers(({ kind }, status) => sent.push([kind, status]));
    const added = answers.expect(event(7, TcmuEventKind.ADDED));
    const removed = answers.expect(event(7, TcmuEventKind.REMOVED));
    added.give(0);
    expect(sent).toEqual([]);
    answers.overtake(event(7, TcmuEventKind.ADDED)); // of a device that is somebody else's
    removed.give(0);
    expect(sent).toEqual([]);
    expect(answers.pendingCount).toBe(0);
  });

  test('always fit what the device waits for', () => {
    // The kernel's side: each device waits for one thing, may be released by others at any time, and hangs for good on a wrong answer.
    const step = fc.record({
      deviceId: fc.integer({ min: 0, max: 3 }),
      what: fc.constantFrom('ask', 'ask', 'release', 'answer', 'foreign'),
      kind: fc.constantFrom<TcmuEventKind>(TcmuEventKind.ADDED, TcmuEventKind.REMOVED, TcmuEventKind.RECONFIG),
      which: fc.nat(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const waiting = new Map<number, TcmuEvent>();
        const answers = new EventAnswers((given) => {
          const asked = waiting.get(given.deviceId);
          if (asked === undefined) return; // "could not find device": a line in the kernel's log
          expect(asked).toBe(given);
          waiting.delete(given.deviceId);
        });
        const open: PendingAnswer[] = [];
        for (const { deviceId, what, kind, which } of steps) {
          if (what === 'release') waiting.delete(deviceId);
          else if (what === 'answer') open.splice(which % Math.max(1, open.length), 1)[0]?.give(0);
          else if (!waiting.has(deviceId)) {
            const asked = event(deviceId, kind);
            waiting.set(deviceId, asked);
            if (what === 'ask') open.push(answers.expect(asked));
            else answers.overtake(asked);
          }
        }
        for (const answer of open) answer.give(0);
        expect(answers.pendingCount).toBe(0);
      }),
    );
  });
});
