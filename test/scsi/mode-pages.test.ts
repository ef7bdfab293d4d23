import { describe, expect, it } from 'vitest';
import { EMPTY_MEMORY, type UnitMemory } from '../../src/scsi/unit-memory.ts';
import { cdb10, checkCondition, GOOD, Initiator, type Result } from './support/initiator.ts';

const DISCONNECT = [0x02, 14, ...new Array(14).fill(0)];
/** Of a fixed disk with blocks of 512 bytes. */
const FORMAT = [0x03, 22, ...new Array(8).fill(0), 1, 0, 2, 0, 0, 1, 0, 0, 0, 0, 0x40, 0, 0, 0];
const geometry = (cylinders: number): number[] => [
  ...[0x04, 22, (cylinders >> 16) & 255, (cylinders >> 8) & 255, cylinders & 255, 128],
  ...[...new Array(14).fill(0), 0, 1, 0, 0],
];
const CACHING = [0x08, 18, 4, ...new Array(17).fill(0)];
const CONTROL = [0x0a, 10, 0, 0x10, 0, 0x40, 0, 0, 0xff, 0xff, 0, 0];
const EXTENSION = [0x4a, 1, 0, 28, ...new Array(28).fill(0)];
const EXCEPTIONS = [0x1c, 10, 8, ...new Array(9).fill(0)];
const DESCRIPTOR = [0, 0, 8, 0, 0, 0, 2, 0];

const sense6 = (page: number, options: { dbd?: boolean; subpage?: number; length?: number } = {}): number[] => [
  0x1a,
  options.dbd === false ? 0 : 8,
  page,
  options.subpage ?? 0,
  options.length ?? 255,
  0,
];
const sense10 = (page: number, flags: number, subpage = 0): number[] => [0x5a, flags, page, subpage, 0, 0, 0, 1, 0, 0];
const select6 = (length: number, flags = 0x10): number[] => [0x15, flags, 0, 0, length, 0];
const select10 = (length: number, flags = 0x10): number[] => [0x55, flags, 0, 0, 0, 0, 0, 0, length, 0];

const control = (dSense: number, swp: number): number[] => [0x0a, 10, dSense, 0x10, swp, 0x40, 0, 0, 0xff, 0xff, 0, 0];
const list6 = (...pages: number[][]): Uint8Array => Uint8Array.from([0, 0, 0, 0, ...pages.flat()]);

describe('MODE SENSE', () => {
  it('(6) returns header, block descriptor and page', () => {
    const initiator = new Initiator();
    expect([...initiator.in(sense6(0x08, { dbd: false }), 255).data]).toEqual([
      31,
      0,
      0x10,
      8,
      ...DESCRIPTOR,
      ...CACHING,
    ]);
    expect([...initiator.in(sense6(0x0a), 255).data]).toEqual([15, 0, 0x10, 0, ...CONTROL]);
  });

  it('(10) returns a long block descriptor with LLBAA', () => {
    const initiator = new Initiator({ logicalBlockSize: 4096 });
    const data = [...initiator.in(sense10(0x0a, 0x10), 256).data];
    expect(data).toEqual([0, 34, 0, 0x10, 1, 0, 0, 16, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, ...CONTROL]);
    expect([...initiator.in(sense10(0x0a, 0x18), 256).data.slice(0, 8)]).toEqual([0, 18, 0, 0x10, 0, 0, 0, 0]);
    expect([...initiator.in(sense10(0x0a, 0x00), 256).data.slice(8, 16)]).toEqual([0, 0, 1, 0, 0, 0, 0x10, 0]);
  });

  it('says FFFFFFFFh blocks in a short descriptor that the number does not fit', () => {
    const initiator = new Initiator();
    initiator.unit.state.blockCount = 2 ** 33;
    expect([...initiator.in(sense10(0x0a, 0), 256).data.slice(8, 12)]).toEqual([255, 255, 255, 255]);
    expect([...initiator.in(sense10(0x0a, 0x10), 256).data.slice(8, 16)]).toEqual([0, 0, 0, 2, 0, 0, 0, 0]);
  });

  it('returns all pages, with their subpages only when asked', () => {
    const initiator = new Initiator();
    const old = [...DISCONNECT, ...FORMAT, ...geometry(1)];
    expect([...initiator.in(sense6(0x3f), 255).data.slice(4)]).toEqual([...old, ...CACHING, ...CONTROL, ...EXCEPTIONS]);
    expect([...initiator.in(sense6(0x3f, { subpage: 0xff }), 255).data.slice(4)]).toEqual([
      ...old,
      ...CACHING,
      ...CONTROL,
      ...EXTENSION,
      ...EXCEPTIONS,
    ]);
    expect([...initiator.in(sense6(0x0a, { subpage: 0xff }), 255).data.slice(4)]).toEqual([...CONTROL, ...EXTENSION]);
    expect([...initiator.in(sense6(0x0a, { subpage: 1 }), 255).data.slice(4)]).toEqual(EXTENSION);
  });

  it('has a geometry for initiators that want one, which follows the size and cannot be set', () => {
    const initiator = new Initiator();
    const page = (code: number): number[] => [...initiator.in(sense6(code), 255).data.slice(4)];
    for (const [blocks, cylinders] of [
      [1, 1],
      [32768 * 512, 512],
      [32768 * 513 - 1, 512],
      [2 ** 39, 0xffffff],
      [2 ** 44, 0xffffff],
    ] as const) {
      initiator.unit.state.blockCount = blocks;
      expect(page(0x04)).toEqual(geometry(cylinders));
      expect(page(0x84)).toEqual(geometry(cylinders));
      expect(page(0x44)).toEqual([0x04, 22, ...new Array(22).fill(0)]);
      expect(initiator.out(select6(28), list6(geometry(cylinders)))).toMatchObject(GOOD);
    }
    expect(initiator.out(select6(28), list6(geometry(7)))).toMatchObject(checkCondition('5/26/00'));
    expect(page(0x03)).toEqual(FORMAT);
    const other = new Initiator({ logicalBlockSize: 4096, removable: true }).in(sense6(0x03), 255).data;
    expect([other[16], other[17], other[24]]).toEqual([0x10, 0, 0x60]);
  });

  it('tells current from changeable and default values', () => {
    const initiator = new Initiator();
    const changeable = [...initiator.in(sense6(0x40 | 0x0a), 255).data.slice(4)];
    expect(changeable).toEqual([0x0a, 10, 4, 0, 8, 0x40, 0, 0, 0, 0, 0, 0]);
    expect(initiator.in(sense6(0x40 | 0x08), 255).data[6]).toBe(4);
    initiator.out(select6(16), list6(control(4, 0)));
    expect(initiator.in(sense6(0x0a), 255).data[6]).toBe(4);
    expect(initiator.in(sense6(0x80 | 0x0a), 255).data[6]).toBe(0);
  });

  it('has no saved values', () => {
    expect(new Initiator().in(sense6(0xc0 | 0x0a), 255)).toMatchObject(checkCondition('5/39/00'));
  });

  it('refuses pages and subpages that do not exist', () => {
    const initiator = new Initiator();
    for (const [page, subpage] of [
      [0x01, 0],
      [0x01, 0xff],
      [0x08, 1],
      [0x0a, 2],
      [0x3f, 1],
    ] as const) {
      expect(initiator.in(sense6(page, { subpage }), 255)).toMatchObject({
        ...checkCondition('5/24/00'),
        residual: 255,
      });
    }
  });

  it.each([0, 3, 4, 12, 36, 255])('cuts its data to %i bytes and leaves MODE DATA LENGTH as it is', (length) => {
    const initiator = new Initiator();
    const full = initiator.in(sense6(0x3f), 255).data;
    const { data, residual } = initiator.in(sense6(0x3f, { length }), length);
    expect(data).toEqual(full.slice(0, length));
    expect(residual).toBe(length - Math.min(length, full.length));
  });

  it('shows write protection by backend and by SWP', () => {
    const initiator = new Initiator();
    initiator.lun.readOnly = true;
    expect(initiator.in(sense6(0x3f), 255).data[2]).toBe(0x90);
    initiator.lun.readOnly = false;
    initiator.out(select6(16), list6(control(0, 8)));
    expect(initiator.in(sense6(0x3f), 255).data[2]).toBe(0x90);
  });
});

describe('saved mode parameters', () => {
  const SAVE = 0x11;
  const keeping = (memory: UnitMemory = EMPTY_MEMORY): { initiator: Initiator; memories: UnitMemory[] } => {
    const memories: UnitMemory[] = [];
    const keep = async (next: UnitMemory): Promise<void> => void memories.push(next);
    return { initiator: new Initiator({ keep, memory }), memories };
  };
  const page = (initiator: Initiator, control: number, code: number): number[] => [
    ...initiator.in(sense6((control << 6) | code), 255).data.slice(4),
  ];
  const select = async (initiator: Initiator, flags: number, ...pages: number[][]): Promise<Result> => {
    const list = list6(...pages);
    initiator.pending.start(initiator.unit, select6(list.length, flags), list, 0);
    await new Promise((resolve) => setImmediate(resolve));
    return initiator.pending.result();
  };
  const NO_CACHE = [0x88, 18, ...new Array(18).fill(0)];

  it('are the current ones of the next process, and after a reset', async () => {
    const { initiator, memories } = keeping();
    expect(page(initiator, 0, 0x08)[0]).toBe(0x88);
    expect(await select(initiator, SAVE, NO_CACHE, control(4, 0))).toMatchObject(GOOD);
    expect(await select(initiator, 0x10, control(4, 8))).toMatchObject(GOOD);
    expect([page(initiator, 0, 0x08)[2], page(initiator, 2, 0x08)[2], page(initiator, 3, 0x08)[2]]).toEqual([0, 4, 0]);
    expect([page(initiator, 0, 0x0a)[4], page(initiator, 3, 0x0a)[4], page(initiator, 3, 0x0a)[2]]).toEqual([8, 0, 4]);
    expect(memories.length).toBe(1);
    initiator.unit.reset(null, () => {});
    initiator.out([0, 0, 0, 0, 0, 0]);
    const { state } = initiator.unit;
    expect([state.writeCache, state.descriptorSense, state.softwareWriteProtect]).toEqual([false, true, false]);

    const next = keeping(memories[0]!).initiator.unit.state;
    expect([next.writeCache, next.descriptorSense, next.softwareWriteProtect]).toEqual([false, true, false]);
  });

  it('that nobody can change stay those of the unit as it is, whenever they were saved', async () => {
    const { initiator, memories } = keeping();
    expect(await select(initiator, SAVE, geometry(1), NO_CACHE)).toMatchObject(GOOD);
    initiator.unit.state.blockCount = 32768 * 5;
    const grown = [0x84, ...geometry(5).slice(1)];
    expect([page(initiator, 0, 0x04), page(initiator, 3, 0x04)]).toEqual([grown, grown]);

    const next = keeping(memories[0]!).initiator;
    next.unit.state.blockCount = 32768 * 6;
    expect(page(next, 0, 0x04)).toEqual([0x84, ...geometry(6).slice(1)]);
    expect(page(next, 0, 0x08)[2]).toBe(0);
  });

  it('that cannot be kept are not set either', async () => {
    const initiator = new Initiator({ keep: () => Promise.reject(new Error('no')) });
    expect(await select(initiator, SAVE, NO_CACHE)).toMatchObject(checkCondition('4/44/00'));
    expect([page(initiator, 0, 0x08)[2], page(initiator, 3, 0x08)[2]]).toEqual([4, 4]);
    expect(initiator.unit.state.memory).toEqual(EMPTY_MEMORY);
  });

  it('that were kept for other pages, or are no pages, are left out', () => {
    const modePages = { '08': 'ff', '0a': `0a0a04${'ff'.repeat(9)}`, '3e': '00', '0a.01': 'xx' };
    const { initiator } = keeping({ ...EMPTY_MEMORY, modePages });
    expect(page(initiator, 0, 0x08)).toEqual([0x88, 18, 4, ...new Array(17).fill(0)]);
    // Only what can be changed is taken.
    expect(page(initiator, 0, 0x0a)).toEqual([0x8a, 10, 4, 0x10, 8, 0x40, 0, 0, 0xff, 0xff, 0, 0]);
  });

  it('are not there where nothing can be kept', () => {
    const initiator = new Initiator();
    expect(initiator.in(sense6(0xc8), 255)).toMatchObject(checkCondition('5/39/00'));
    expect(initiator.out(select6(24, SAVE), list6(CACHING))).toMatchObject(checkCondition('5/24/00'));
  });
});

describe('MODE SELECT', () => {
  it('takes back what MODE SENSE gave', () => {
    const initiator = new Initiator();
    for (const [sense, select] of [
      [sense6(0x3f, { dbd: false, subpage: 0xff }), select6],
      [sense10(0x3f, 0x10, 0xff), select10],
      [sense10(0x3f, 0x00, 0xff), select10],
      [sense10(0x3f, 0x08, 0xff), select10],
    ] as const) {
      const { data } = initiator.in(sense, 256);
      data[0] = 0;
      if (select === select10) data[1] = 0;
      expect(initiator.out(select(data.length), data)).toMatchObject(GOOD);
    }
  });

  it('ignores PS, which initiators send back as they read it elsewhere', () => {
    const page = control(4, 0);
    page[0] = 0x8a;
    const initiator = new Initiator();
    expect(initiator.out(select6(16), list6(page))).toMatchObject(GOOD);
    expect(initiator.unit.state.descriptorSense).toBe(true);
  });

  it('turns descriptor sense on and off', () => {
    const initiator = new Initiator();
    expect(initiator.out(select6(16), list6(control(4, 0)))).toMatchObject(GOOD);
    expect(initiator.in(cdb10(0x28, 0xffffffff, 1), 512).senseBytes[0]).toBe(0x72);
    expect(initiator.out(select6(16), list6(control(0, 0)))).toMatchObject(GOOD);
    expect(initiator.in(cdb10(0x28, 0xffffffff, 1), 512).senseBytes[0]).toBe(0x70);
  });

  it('turns software write protection on and off', () => {
    const initiator = new Initiator();
    initiator.out(select10(20), Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, ...control(0, 8)]));
    expect(initiator.out(cdb10(0x2a, 0, 1), new Uint8Array(512))).toMatchObject(checkCondition('7/27/02'));
    expect(initiator.in(cdb10(0x28, 0, 1), 512)).toMatchObject(GOOD);
    initiator.out(select6(16), list6(control(0, 0)));
    expect(initiator.out(cdb10(0x2a, 0, 1), new Uint8Array(512))).toMatchObject(GOOD);
  });

  it('turns the write cache off: writes are durable before their status', () => {
    const initiator = new Initiator();
    const page = [...CACHING];
    page[2] = 0;
    expect(initiator.out(select6(24), list6(page))).toMatchObject(GOOD);
    initiator.out(cdb10(0x2a, 0, 1), new Uint8Array(512));
    expect(initiator.lun.log.at(-1)!.fua).toBe(true);
  });

  it('tells the other nexuses only when something changed', () => {
    const initiator = new Initiator();
    const other = new Initiator();
    initiator.unit.attach(other.nexus, false);
    const otherState = initiator.unit.state.nexuses.get(other.nexus)!;
    initiator.out(select6(16), list6(control(0, 0)));
    expect(otherState.attentions.isEmpty).toBe(true);
    initiator.out(select6(16), list6(control(4, 0)));
    expect(otherState.attentions.take()).toBe(0x062a01);
    expect(initiator.in([0, 0, 0, 0, 0, 0], 0)).toMatchObject(GOOD);
  });

  it('changes nothing when any page is wrong, and points at the field', () => {
    const initiator = new Initiator();
    const bad = control(0, 0);
    bad[3] = 0x11;
    const result = initiator.out(select6(28), list6(control(4, 8), bad));
    expect(result).toMatchObject(checkCondition('5/26/00'));
    expect([...result.senseBytes.slice(15, 18)]).toEqual([0x88, 0, 4 + 12 + 3]);
    expect(initiator.unit.state.descriptorSense).toBe(false);
    expect(initiator.unit.state.softwareWriteProtect).toBe(false);
  });

  it.each([
    ['an unknown page', [0x01, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], '5/26/00', 4],
    ['a wrong page length', [0x0a, 9, 0, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0], '5/26/00', 5],
    ['a wrong subpage', [0x4a, 2, 0, 28, ...new Array(28).fill(0)], '5/26/00', 4],
    ['a wrong subpage length', [0x4a, 1, 0, 27, ...new Array(28).fill(0)], '5/26/00', 6],
    ['half a page', [0x0a, 10, 0, 0x10], '5/1a/00', -1],
    ['half a page header', [0x0a], '5/1a/00', -1],
    ['half a subpage header', [0x4a, 1, 0], '5/1a/00', -1],
  ])('refuses %s', (_name, page, sense, field) => {
    const list = list6(page);
    const initiator = new Initiator();
    const result = initiator.out(select6(list.length), list);
    expect(result).toMatchObject(checkCondition(sense));
    if (field >= 0) expect(result.senseBytes[17]).toBe(field);
  });

  it('refuses a block descriptor that would change the format', () => {
    const initiator = new Initiator();
    const withDescriptor = (descriptor: number[]): Uint8Array =>
      Uint8Array.from([0, 0, 0, descriptor.length, ...descriptor]);
    for (const good of [DESCRIPTOR, [0, 0, 0, 0, 0, 0, 2, 0], [255, 255, 255, 255, 0, 0, 2, 0]]) {
      expect(initiator.out(select6(12), withDescriptor(good))).toMatchObject(GOOD);
    }
    expect(initiator.out(select6(12), withDescriptor([0, 0, 4, 0, 0, 0, 2, 0]))).toMatchObject(
      checkCondition('5/26/00'),
    );
    expect(initiator.out(select6(12), withDescriptor([0, 0, 8, 0, 0, 0, 16, 0]))).toMatchObject(
      checkCondition('5/26/00'),
    );
    expect(initiator.out(select6(8), withDescriptor([0, 0, 8, 0]))).toMatchObject(checkCondition('5/26/00'));
    expect(initiator.out(select6(8), Uint8Array.from([0, 0, 0, 8, 0, 0, 8, 0]))).toMatchObject(
      checkCondition('5/1a/00'),
    );
  });

  it('refuses short lists, vendor formats and saving', () => {
    const initiator = new Initiator();
    expect(initiator.out(select6(0))).toMatchObject(GOOD);
    expect(initiator.out(select6(3), new Uint8Array(3))).toMatchObject(checkCondition('5/1a/00'));
    expect(initiator.out(select10(7), new Uint8Array(7))).toMatchObject(checkCondition('5/1a/00'));
    expect(initiator.out(select6(16), new Uint8Array(12))).toMatchObject(checkCondition('5/1a/00'));
    expect(initiator.out(select6(4, 0x00), new Uint8Array(4))).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.out(select6(4, 0x11), new Uint8Array(4))).toMatchObject(checkCondition('5/24/00'));
    expect(initiator.out(select6(4), Uint8Array.from([0, 1, 0, 0]))).toMatchObject(checkCondition('5/26/00'));
    const long = [0x55, 0x10, 0, 0, 0, 0, 0, 0xff, 0xff, 0];
    expect(initiator.out(long, new Uint8Array(65535))).toMatchObject(checkCondition('5/24/00'));
  });
});
