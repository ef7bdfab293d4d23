import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  MAX_CSCD_DESCRIPTORS,
  MAX_DESCRIPTOR_LIST_LENGTH,
  MAX_SEGMENT_DESCRIPTORS,
} from '../../src/scsi/copy-limits.ts';
import { CopyList, LID1, LID4, ListRefusal, maxListLength, parseCopyList } from '../../src/scsi/copy-list.ts';
import { CopyTarget, copyOut, cscd, lid1, lid4, naaOf, offsetSegment, segment } from './support/copy.ts';
import { checkCondition, GOOD, type Result } from './support/initiator.ts';

const BOTH = [cscd(naaOf(0)), cscd(naaOf(1))];
const SEGMENTS = [segment(0, 0, 1, 0, 8), offsetSegment(0, 8, 1, 8, 4096), segment(0xffff, 0, 1, 100, 1)];

const FORMATS = [
  ['LID1', LID1, lid1, 0],
  ['LID4', LID4, lid4, 1],
] as const;

describe.each(FORMATS)('a parameter list of EXTENDED COPY(%s)', (_name, format, make, action) => {
  const { headerLength } = format;
  const send = (target: CopyTarget, list: Uint8Array): Result => target.send(0, copyOut(action, list.length), list);

  it('is refused wherever it is cut off', () => {
    const target = new CopyTarget();
    const whole = make(BOTH, SEGMENTS);
    for (let length = 1; length < whole.length; length++) {
      expect(send(target, whole.slice(0, length)), `${length} bytes`).toMatchObject(checkCondition('5/1a/00'));
    }
    expect(target.media.flatMap(({ log }) => log)).toEqual([]);
    expect(send(target, whole)).toMatchObject(GOOD);
  });

  it('is refused when the initiator sends less than the CDB says', () => {
    const target = new CopyTarget();
    const list = make(BOTH, SEGMENTS);
    const result = target.send(0, copyOut(action, list.length), list.slice(0, -4));
    expect(result).toMatchObject({ ...checkCondition('5/1a/00'), dataOutLength: 0 });
  });

  it('may be followed by something else', () => {
    const target = new CopyTarget();
    const list = make(BOTH, SEGMENTS);
    expect(send(target, Uint8Array.from([...list, 1, 2, 3]))).toMatchObject(GOOD);
  });

  it('has bounds on each of its lists and on both together', () => {
    const one = cscd(naaOf(0));
    const few = segment(0, 0, 0, 8, 1);
    const target = new CopyTarget();
    const cscds = (count: number): number[][] => new Array(count).fill(one);
    const segments = (count: number): number[][] => new Array(count).fill(few);
    expect(send(target, make(cscds(MAX_CSCD_DESCRIPTORS), [few]))).toMatchObject(GOOD);
    expect(send(target, make(cscds(MAX_CSCD_DESCRIPTORS + 1), [few]))).toMatchObject(checkCondition('5/26/06'));
    expect(send(target, make([one], segments(MAX_SEGMENT_DESCRIPTORS)))).toMatchObject(GOOD);
    expect(send(target, make([one], segments(MAX_SEGMENT_DESCRIPTORS + 1)))).toMatchObject(checkCondition('5/26/08'));
    expect(send(target, make(cscds(65), segments(75)))).toMatchObject(checkCondition('5/1a/00'));
    const long = new Uint8Array(maxListLength(format) + 1);
    expect(send(target, long)).toMatchObject({ ...checkCondition('5/1a/00'), dataOutLength: 0 });
  });

  it('is read only as far as there are bytes, whatever its length fields say', () => {
    const whole = make(BOTH, SEGMENTS);
    const fields = headerLength === 16 ? [2, 3, 8, 9, 10, 11, 12, 13, 14, 15] : [2, 3, 42, 43, 44, 45, 46, 47];
    const descriptors = [7, 39, 64 + 2, 64 + 3, 92 + 2, 92 + 3].map((at) => headerLength + at);
    const target = new CopyTarget();
    for (const at of [...fields, ...descriptors]) {
      for (let value = 0; value < 256; value++) {
        if (whole[at] === value) continue;
        const changed = whole.slice();
        changed[at] = value;
        const { status, sense } = send(target, changed);
        // A shorter list may still be one.
        if (status === 0) expect(parseCopyList(changed, format)).toBeInstanceOf(CopyList);
        else expect(['5/1a/00', '5/26/00', '5/26/06', '5/26/08', '5/26/09', '5/26/0b', 'a/08/04']).toContain(sense);
      }
    }
  });

  it('of any bytes is refused or has all of its descriptors inside', () => {
    const known = fc.constantFrom(...BOTH, ...SEGMENTS, cscd(naaOf(9)), [0xe4], [0x02, 0, 0, 0x18], [0x0a]);
    const body = fc.array(fc.oneof(known, fc.array(fc.nat(255), { maxLength: 40 })), { maxLength: 12 });
    fc.assert(
      fc.property(body, fc.nat(300), fc.nat(400), fc.nat(255), (parts, cscds, segments, noise) => {
        const bytes = make([], []);
        const list = Uint8Array.from([...bytes, ...parts.flat()]);
        const at = format === LID1 ? 2 : 42;
        list[at] = cscds >>> 8;
        list[at + 1] = cscds % 3 === 0 ? cscds & 0xe0 : cscds;
        list[format === LID1 ? 10 : 44] = segments >>> 8;
        list[format === LID1 ? 11 : 45] = segments;
        if (noise < headerLength) list[noise] = noise;
        const parsed = parseCopyList(list, format);
        if (parsed instanceof ListRefusal) return;
        expect(parsed.cscdAt + 32 * parsed.cscdCount).toBeLessThanOrEqual(list.length);
        expect(parsed.segments.length).toBeLessThanOrEqual(MAX_SEGMENT_DESCRIPTORS);
        for (const begin of parsed.segments) {
          const end = begin + 4 + list[begin + 2]! * 256 + list[begin + 3]!;
          expect(end).toBeLessThanOrEqual(Math.min(list.length, headerLength + MAX_DESCRIPTOR_LIST_LENGTH));
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe('a parameter list of EXTENDED COPY', () => {
  const refusal = (list: Uint8Array, format = LID1): string => {
    const parsed = parseCopyList(list, format);
    return parsed instanceof ListRefusal
      ? `${parsed.sense.toString(16)} ${parsed.sks < 0 ? '' : parsed.sks.toString(16)}`
      : 'none';
  };

  it('names what of it is not supported', () => {
    expect(refusal(lid1([cscd(naaOf(0)).with(0, 0xe0)], SEGMENTS))).toBe('52607 800010');
    expect(refusal(lid1(BOTH, [SEGMENTS[0]!, segment(0, 0, 1, 0, 1).with(0, 0x03)]))).toBe('52609 80006c');
    expect(refusal(lid1(BOTH, SEGMENTS).with(15, 1))).toBe('5260b ');
    expect(refusal(lid1(BOTH, [segment(0, 0, 1, 0, 1).with(3, 0x17)]))).toBe('52600 800052');
    expect(refusal(lid1([cscd(naaOf(0)).with(7, 21)], []))).toBe('52600 800017');
    expect(refusal(lid4(BOTH, SEGMENTS).with(0, 0), LID4)).toBe('52600 800000');
    expect(refusal(lid4(BOTH, SEGMENTS).with(15, 2), LID4)).toBe('52600 89000f');
    expect(refusal(lid4(BOTH, SEGMENTS).with(15, 1), LID4)).toBe('none');
    expect(refusal(lid4(BOTH, SEGMENTS).with(16, 0xe4), LID4)).toBe('52600 800010');
  });
});
