import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IoVector } from '../../src/block/io-vector.ts';
import { InputChunks } from '../../src/iscsi/input-chunks.ts';
import { MAX_AHS_SIZE, type ParserFailure, PduParser, Verdict } from '../../src/iscsi/pdu-parser.ts';
import { buildPdu, type PduParts } from '../support/iscsi-initiator.ts';

interface Seen {
  header: number[];
  ahs: number[];
  data: number[];
  intact: boolean;
}

/** Records what a parser finds; keeps the data of every second PDU in a vector of small pieces. */
class Recorder {
  readonly seen: Seen[] = [];
  readonly failures: ParserFailure[] = [];
  readonly parser: PduParser;
  private current: Seen | null = null;
  private bytes = new Uint8Array(0);
  private vector: IoVector | null = null;
  /** Blocks this many times before each PDU is accepted. */
  blocks = 0;
  private blocked = 0;

  constructor(maxDataLength = 0xffffff) {
    this.parser = new PduParser(this, maxDataLength);
  }

  pduHeader(parser: PduParser): Verdict {
    if (this.blocked < this.blocks) {
      this.blocked++;
      return Verdict.BLOCK;
    }
    this.blocked = 0;
    const { headerAt: at } = parser;
    this.current = {
      header: [...parser.header.subarray(at, at + 48)],
      ahs: [...parser.header.subarray(at + 48, at + 48 + parser.ahsLength)],
      data: [],
      intact: true,
    };
    this.bytes = new Uint8Array(parser.dataLength);
    this.vector = null;
    if (this.seen.length % 2 === 0) parser.intoBytes(this.bytes, 0, parser.dataLength);
    else {
      this.vector = new IoVector();
      this.vector.memory = new Uint8Array(parser.dataLength * 2 + 64);
      for (let left = parser.dataLength, at = 3; left > 0; at += 12, left -= 7) this.vector.push(at, Math.min(7, left));
      parser.intoVector(this.vector, 0, parser.dataLength);
    }
    return Verdict.ACCEPT;
  }

  pduEnd(parser: PduParser, intact: boolean): void {
    this.vector?.copyTo(this.bytes, 0, 0, this.bytes.length);
    expect([...parser.header.subarray(parser.headerAt, parser.headerAt + 48)]).toEqual(this.current!.header);
    this.seen.push({ ...this.current!, data: [...this.bytes], intact });
  }

  pduFailure(_parser: PduParser, failure: ParserFailure): void {
    this.failures.push(failure);
  }

  /** Feeds `stream` in pieces that end at `cuts`, each from a buffer that is overwritten afterwards. */
  feed(stream: Uint8Array, cuts: readonly number[]): void {
    let from = 0;
    for (const cut of [...cuts, stream.length]) {
      const chunk = new Uint8Array(stream.subarray(from, cut));
      let at = this.parser.feed(chunk, 0, chunk.length);
      for (let turns = 0; (at < chunk.length || this.parser.isHalted) && this.failures.length === 0; turns++) {
        expect(turns).toBeLessThan(10_000);
        at = this.parser.feed(chunk, at, chunk.length);
      }
      chunk.fill(0xee);
      from = cut;
    }
  }
}

const bytes = (maxLength: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ maxLength });

const partsArbitrary: fc.Arbitrary<PduParts> = fc.record({
  opcode: fc.integer({ min: 0, max: 0x3f }),
  flags: fc.integer({ min: 0, max: 255 }),
  tag: fc.nat(0xffffffff),
  cdb: fc.array(fc.nat(255), { maxLength: 16 }),
  ahs: fc.nat(MAX_AHS_SIZE / 4).map((words) => new Uint8Array(words * 4).fill(words)),
  data: fc.oneof(bytes(9), bytes(300)),
});

describe('the PDU parser', () => {
  it('finds the same PDUs however the stream is cut', () => {
    fc.assert(
      fc.property(
        fc.array(partsArbitrary, { minLength: 1, maxLength: 6 }),
        fc.boolean(),
        fc.boolean(),
        fc.array(fc.nat(), { maxLength: 12 }),
        fc.nat(2),
        (pdus, headerDigest, dataDigest, cutSeeds, blocks) => {
          const stream = Buffer.concat(pdus.map((parts) => buildPdu(parts, { headerDigest, dataDigest })));
          const cuts = cutSeeds.map((seed) => seed % (stream.length + 1)).sort((a, b) => a - b);
          const recorder = new Recorder();
          recorder.blocks = blocks;
          recorder.parser.headerDigest = headerDigest;
          recorder.parser.dataDigest = dataDigest;
          recorder.feed(stream, cuts);
          expect(recorder.failures).toEqual([]);
          expect(recorder.parser.isBetweenPdus).toBe(true);
          expect(recorder.seen).toEqual(
            pdus.map((parts) => ({
              header: [...buildPdu(parts).subarray(0, 48)],
              ahs: [...parts.ahs!],
              data: [...parts.data!],
              intact: true,
            })),
          );
        },
      ),
      { numRuns: 400 },
    );
  });

  it('finds the same PDUs at every single split point and byte by byte', () => {
    const pdus: PduParts[] = [
      { opcode: 1, data: Buffer.from('immediate'), cdb: [0x2a] },
      { opcode: 0, ahs: new Uint8Array(8).fill(1), data: Buffer.from('four') },
      { opcode: 5, flags: 0 },
      { opcode: 5, data: Buffer.from('x') },
    ];
    const digests = { headerDigest: true, dataDigest: true };
    const stream = Buffer.concat(pdus.map((parts) => buildPdu(parts, digests)));
    const read = (cuts: number[]): Seen[] => {
      const recorder = new Recorder();
      recorder.parser.headerDigest = true;
      recorder.parser.dataDigest = true;
      recorder.feed(stream, cuts);
      return recorder.seen;
    };
    const whole = read([]);
    expect(whole).toHaveLength(pdus.length);
    for (let cut = 0; cut <= stream.length; cut++) expect(read([cut]), `cut at ${cut}`).toEqual(whole);
    expect(read(Array.from({ length: stream.length }, (_, i) => i))).toEqual(whole);
  });

  it('says of every damaged bit of a data segment that it is not intact, and goes on', () => {
    const damaged = { opcode: 5, data: Buffer.from('some data') };
    const next = { opcode: 0, tag: 7 };
    const good = Buffer.concat([buildPdu(damaged, { dataDigest: true }), buildPdu(next, { dataDigest: true })]);
    // Data, padding and digest.
    for (let bit = 48 * 8; bit < (48 + 12 + 4) * 8; bit++) {
      const stream = Buffer.from(good);
      stream[bit >> 3]! ^= 1 << (bit & 7);
      const recorder = new Recorder();
      recorder.parser.dataDigest = true;
      recorder.feed(stream, [bit >> 3]);
      expect(recorder.seen.map((pdu) => pdu.intact)).toEqual([false, true]);
    }
  });

  it('stops at every damaged bit of a header', () => {
    const good = buildPdu(
      { opcode: 0, tag: 7, ahs: new Uint8Array(4), data: Buffer.from('x') },
      { headerDigest: true },
    );
    for (let bit = 0; bit < 56 * 8; bit++) {
      // A damaged AHS length moves the digest; it may also ask for more than came.
      if (bit >> 3 === 4) continue;
      const stream = Buffer.from(good);
      stream[bit >> 3]! ^= 1 << (bit & 7);
      const recorder = new Recorder();
      recorder.parser.headerDigest = true;
      recorder.feed(stream, []);
      expect(recorder.seen).toEqual([]);
      expect(recorder.failures).toEqual(['header digest is wrong']);
    }
  });

  it('refuses a data segment above the limit before any of it is read', () => {
    const recorder = new Recorder(8192);
    recorder.feed(buildPdu({ opcode: 3, dataLength: 8193 }), []);
    expect(recorder.failures).toEqual(['data segment is longer than MaxRecvDataSegmentLength']);
    const atLimit = new Recorder(8192);
    atLimit.feed(buildPdu({ opcode: 3, data: new Uint8Array(8192) }), [100]);
    expect(atLimit.failures).toEqual([]);
    expect(atLimit.seen).toHaveLength(1);
  });

  it('refuses more additional header segments than a command can have, whole or split', () => {
    for (const cuts of [[], [10], [48], [60]]) {
      const recorder = new Recorder();
      recorder.feed(buildPdu({ opcode: 1, ahs: new Uint8Array(MAX_AHS_SIZE + 4) }), cuts);
      expect(recorder.failures).toEqual(['additional header segments are too long']);
      expect(recorder.seen).toEqual([]);
    }
  });

  it('reads nothing more after a failure or a stop', () => {
    const recorder = new Recorder(100);
    const bad = buildPdu({ opcode: 3, dataLength: 101 });
    recorder.feed(Buffer.concat([bad, buildPdu({ opcode: 0 })]), []);
    recorder.parser.feed(buildPdu({ opcode: 0 }), 0, 48);
    expect(recorder.failures).toHaveLength(1);
    expect(recorder.seen).toEqual([]);
  });

  it('drops what is beyond the room that the handler has', () => {
    const kept = new Uint8Array(4);
    const parser: PduParser = new PduParser(
      {
        pduHeader(p) {
          p.intoBytes(kept, 0, 4);
          return Verdict.ACCEPT;
        },
        pduEnd: () => {},
        pduFailure: () => {},
      },
      1000,
    );
    const stream = buildPdu({ opcode: 5, data: Buffer.from('abcdefgh') });
    for (let i = 0; i < stream.length; i++) parser.feed(stream, i, i + 1);
    expect(Buffer.from(kept).toString()).toBe('abcd');
    expect(parser.isBetweenPdus).toBe(true);
  });

  it('leaves data where it came in, if the chunk has room for all of it and nothing was copied before', () => {
    const chunk = new InputChunks(1).take()!;
    const size = chunk.bytes.length;
    const places: (number | null)[] = [];
    let intactCount = 0;
    const parser: PduParser = new PduParser(
      {
        pduHeader(p) {
          places.push(p.place === null ? null : p.dataAt);
          if (p.place !== null) p.leaveInPlace();
          return Verdict.ACCEPT;
        },
        pduEnd: (_, intact) => {
          if (intact) intactCount++;
        },
        pduFailure: () => {},
      },
      0xffffff,
    );
    parser.dataDigest = true;
    const pdu = (length: number): Uint8Array =>
      buildPdu({ opcode: 5, data: new Uint8Array(length).fill(length) }, { dataDigest: true });
    // What fits to the byte, without its padding and digest; what does not; what is not fed from a chunk.
    const fits = pdu(size - 48 - 1);
    chunk.bytes.set(fits.subarray(0, size - 1), 1);
    parser.lender = chunk;
    for (const [from, end] of [
      [1, 30],
      [30, 50],
      [50, size - 2],
      [size - 2, size],
    ] as const) {
      parser.feed(chunk.bytes, from, end);
      expect(parser.isInPlace).toBe(end > 49 && end < size);
    }
    parser.feed(fits, size - 1, fits.length);
    const long = pdu(size - 48 + 1);
    parser.feed(long, 0, long.length);
    parser.lender = null;
    parser.feed(fits, 0, fits.length);
    expect([places, intactCount]).toEqual([[49, null, null], 3]);
  });

  it('waits between PDUs while it is paused', () => {
    const recorder = new Recorder();
    const stream = Buffer.concat([buildPdu({ opcode: 0, tag: 1 }), buildPdu({ opcode: 0, tag: 2 })]);
    recorder.parser.paused = true;
    expect(recorder.parser.feed(stream, 0, stream.length)).toBe(0);
    expect(recorder.parser.isHalted).toBe(true);
    recorder.parser.paused = false;
    expect(recorder.parser.feed(stream, 0, stream.length)).toBe(stream.length);
    expect(recorder.seen).toHaveLength(2);
  });
});
