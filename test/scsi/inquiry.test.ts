import { describe, expect, it } from 'vitest';
import { readU16BE, readU32BE, readU64BE } from '../../src/base/bytes.ts';
import { checkCondition, GOOD, Initiator, MIB } from './support/initiator.ts';

const inquiry = (evpd: number, page: number, length: number): number[] => [
  0x12,
  evpd,
  page,
  length >> 8,
  length & 255,
  0,
];
const ascii = (data: Uint8Array): string => Buffer.from(data).toString('latin1');

describe('INQUIRY', () => {
  it('returns standard data that name a disk of SPC-4 and SBC-3', () => {
    const { data, ...result } = new Initiator().in(inquiry(0, 0, 255), 255);
    expect(result).toMatchObject({ ...GOOD, residual: 255 - 96 });
    expect([...data.slice(0, 8)]).toEqual([0, 0, 6, 0x12, 91, 0x08, 0, 2]);
    expect(ascii(data.slice(8, 36))).toBe('THINLUN THIN VOLUME     0001');
    expect([58, 60, 62, 64].map((at) => readU16BE(data, at))).toEqual([0xa0, 0x460, 0x4c0, 0x960]);
  });

  it('cuts names to their fields and makes them printable', () => {
    const initiator = new Initiator({ vendor: 'VENDOR-LONG', product: 'a\tb\u00e9', revision: '12345' });
    expect(ascii(initiator.in(inquiry(0, 0, 96), 96).data.slice(8, 36))).toBe('VENDOR-La b             1234');
  });

  it('says removable only for a removable unit', () => {
    expect(new Initiator({ removable: true }).in(inquiry(0, 0, 36), 36).data[1]).toBe(0x80);
  });

  it.each([0, 1, 5, 35, 36, 95, 96, 97, 511])('cuts its data to an allocation length of %i', (length) => {
    const initiator = new Initiator();
    const full = initiator.in(inquiry(0, 0, 255), 255).data;
    expect(initiator.in(inquiry(0, 0, length), 512)).toMatchObject({
      ...GOOD,
      data: full.slice(0, length),
      residual: 512 - Math.min(96, length),
    });
  });

  it('overflows when the initiator has less room than the allocation length', () => {
    expect(new Initiator().in(inquiry(0, 0, 96), 36)).toMatchObject({ ...GOOD, residual: -60 });
  });

  it('refuses a page code without EVPD and a page that does not exist', () => {
    const initiator = new Initiator();
    for (const cdb of [inquiry(0, 1, 255), inquiry(1, 0x84, 255), inquiry(1, 0xff, 255)]) {
      const result = initiator.in(cdb, 255);
      expect(result).toMatchObject({ ...checkCondition('5/24/00'), residual: 255 });
      expect([...result.senseBytes.slice(15, 18)]).toEqual([0xc0, 0, 2]);
    }
  });

  it('ignores the LUN of SCSI-2 in byte 1 and nothing else there', () => {
    const initiator = new Initiator();
    expect(initiator.in([0x12, 0xe0, 0, 0, 36, 0], 36)).toMatchObject(GOOD);
    expect(initiator.in([0x12, 0x02, 0, 0, 36, 0], 36)).toMatchObject(checkCondition('5/24/00'));
  });
});

describe('vital product data', () => {
  const page = (code: number, options = {}): Uint8Array => {
    const { data, ...result } = new Initiator(options).in(inquiry(1, code, 1024), 1024);
    expect(result).toMatchObject(GOOD);
    expect([data[0], data[1], readU16BE(data, 2)]).toEqual([0, code, data.length - 4]);
    return data;
  };

  it('00h lists all pages, ascending, and each of them can be read', () => {
    const pages = [...page(0x00).slice(4)];
    expect(pages).toEqual([0x00, 0x80, 0x83, 0x85, 0x86, 0x87, 0x8f, 0xb0, 0xb1, 0xb2]);
    for (const code of pages) page(code);
  });

  it('80h is the serial number', () => {
    expect(ascii(page(0x80).slice(4))).toBe('c0ffee00-0001');
  });

  it('83h names the unit by NAA and T10 vendor, the port and the target', () => {
    const data = page(0x83);
    const designators: string[] = [];
    for (let at = 4; at < data.length; at += 4 + data[at + 3]!) {
      const bytes = data.slice(at + 4, at + 4 + data[at + 3]!);
      const head = [data[at]!, data[at + 1]!].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
      designators.push(`${head} ${(data[at]! & 15) === 1 ? Buffer.from(bytes).toString('hex') : ascii(bytes)}`);
    }
    expect(designators).toEqual([
      '01 03 600102030405060708090a0b0c0d0e0f',
      '02 01 THINLUN pool/volume',
      '51 94 00000001',
      '53 98 iqn.2026-01.test:target,t,0x0001\0\0\0\0',
      '53 a8 iqn.2026-01.test:target\0',
    ]);
  });

  it('85h has no management network addresses', () => {
    expect([...page(0x85)]).toEqual([0, 0x85, 0, 0]);
  });

  it('86h claims simple tasks, a volatile cache and LUICLR', () => {
    const data = page(0x86);
    expect(data.length).toBe(64);
    expect([...data.slice(4, 8)]).toEqual([0, 1, 1, 1]);
  });

  it('B0h has the limits that the commands enforce', () => {
    const data = page(0xb0, { maxTransferBytes: 4 * MIB, maxWriteSameBytes: 64 * MIB });
    expect(data.length).toBe(0x40);
    expect(data[4]).toBe(0);
    expect(data[5]).toBe(255);
    expect(readU16BE(data, 6)).toBe(16);
    expect(readU32BE(data, 8)).toBe(8192);
    expect(readU32BE(data, 12)).toBe(2048);
    expect(readU32BE(data, 20)).toBe(0xffffffff);
    expect(readU32BE(data, 24)).toBe(256);
    expect(readU32BE(data, 28)).toBe(16);
    expect(readU32BE(data, 32)).toBe(0x80000000);
    expect(readU64BE(data, 36)).toBe(131072);
  });

  it('B0h counts in logical blocks of 4096 bytes too', () => {
    const data = page(0xb0, { logicalBlockSize: 4096 });
    expect(data[5]).toBe(32);
    expect(readU32BE(data, 8)).toBe(2048);
    expect(readU32BE(data, 28)).toBe(2);
  });

  it('B1h says that nothing rotates', () => {
    const data = page(0xb1);
    expect([data.length, readU16BE(data, 4)]).toEqual([64, 1]);
  });

  it('B2h says thin, with UNMAP and WRITE SAME, reading as zeroes', () => {
    expect([...page(0xb2).slice(4)]).toEqual([0, 0xe6, 2, 0]);
  });
});
