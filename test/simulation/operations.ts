import fc from 'fast-check';
import type { SimulatedPool } from './simulated-pool.ts';

/** What may be asked of a pool; numbers stand for whatever there is at that moment. */
export interface Operation {
  readonly kind: Kind;
  readonly volume: number;
  readonly other: number;
  readonly at: number;
  readonly length: number;
}

const REQUESTS = {
  write: 10,
  overwrite: 6,
  fua: 3,
  zeroes: 3,
  unmap: 5,
  unmapAll: 1,
  copy: 6,
  read: 5,
  extent: 2,
  flush: 3,
  time: 2,
} as const;

const ADMINISTRATION = {
  create: 2,
  snapshot: 5,
  snapshotGroup: 2,
  delete: 3,
  rename: 1,
  rollback: 2,
  set: 1,
  hold: 1,
  release: 1,
  grow: 2,
  shrink: 2,
  growData: 1,
  growMetadata: 1,
  commit: 2,
  reopen: 1,
  createThin: 1,
  createSnap: 2,
  deleteThin: 1,
  transactionId: 1,
  trim: 1,
} as const;

type Request = keyof typeof REQUESTS;
type Administration = keyof typeof ADMINISTRATION;
type Kind = Request | Administration;

const MAX_VOLUMES = 8;
const MAX_VOLUME_BLOCKS = 12;
const MAX_DATA_BLOCKS = 160;
const MAX_METADATA_BLOCKS = 800;

function operation(kinds: Readonly<Record<string, number>>): fc.Arbitrary<Operation> {
  const kind = fc.oneof(...Object.entries(kinds).map(([name, weight]) => ({ weight, arbitrary: fc.constant(name) })));
  return fc.record({
    kind: kind as fc.Arbitrary<Kind>,
    volume: fc.nat(MAX_VOLUMES - 1),
    other: fc.nat(99),
    at: fc.nat(99_999),
    length: fc.oneof(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 1, max: 500 })),
  });
}

/** What is asked at the same moment: requests of any volume, and at most one administrative call, anywhere between them. */
export type Round = readonly Operation[];

export const round: fc.Arbitrary<Round> = fc
  .tuple(
    fc.array(operation(REQUESTS), { minLength: 1, maxLength: 7 }),
    fc.option(operation(ADMINISTRATION), { freq: 2 }),
    fc.nat(7),
  )
  .map(([requests, call, at]) => (call === null ? requests : requests.toSpliced(at, 0, call)));

/** Plays a round and waits until everything is answered. Returns how many operations were played. */
export async function play(simulated: SimulatedPool, operations: Round): Promise<number> {
  let count = 0;
  const later: (() => Promise<unknown>)[] = [];
  // Volumes that an administrative call has taken for itself.
  const taken = new Set<string>();
  for (const operation of operations) {
    const isCall = operation.kind in ADMINISTRATION;
    if (isCall ? administer(simulated, operation, taken, later) : request(simulated, operation, taken)) count++;
  }
  await simulated.settle();
  for (const call of later) await call();
  return count;
}

function nameOf(simulated: SimulatedPool, index: number): string | undefined {
  const { names } = simulated;
  return names[index % Math.max(1, names.length)];
}

function request(simulated: SimulatedPool, { kind, volume, other, at, length }: Operation, busy: Set<string>): boolean {
  if (kind === 'time') {
    simulated.clock.advance(1000);
    return true;
  }
  const name = nameOf(simulated, volume);
  if (name === undefined || busy.has(name)) return false;
  const sectors = simulated.sectorsOf(name);
  // Overwrites cover whole blocks, and others often end where a block does.
  const step = kind === 'overwrite' || at % 3 === 0 ? simulated.blockSectors : 1;
  const begin = Math.min(at % sectors, sectors - 1);
  const from = begin - (begin % step);
  const to = Math.min(sectors, kind === 'overwrite' ? from + step * (1 + (length % 3)) : from + length);
  if (kind === 'write' || kind === 'overwrite') simulated.write(name, from, to);
  else if (kind === 'fua') simulated.write(name, from, to, true);
  else if (kind === 'zeroes') simulated.writeZeroes(name, from, to);
  else if (kind === 'unmap') simulated.unmap(name, from, to);
  else if (kind === 'unmapAll') simulated.unmap(name, 0, sectors);
  else if (kind === 'copy') return copy(simulated, nameOf(simulated, other)!, other, name, from, length, busy);
  else if (kind === 'read') simulated.read(name, from, to);
  else if (kind === 'extent') simulated.extent(name, from, to);
  else simulated.flush(name);
  return true;
}

/** From the same place, from one in another block, or from anywhere; often whole blocks. One at a time, for the model's sake. */
function copy(
  simulated: SimulatedPool,
  source: string,
  salt: number,
  target: string,
  begin: number,
  length: number,
  busy: Set<string>,
): boolean {
  if (busy.has(source) || simulated.copying.length > 0) return false;
  const block = simulated.blockSectors;
  const sourceSectors = simulated.sectorsOf(source);
  const blocks = Math.max(1, Math.floor(sourceSectors / block));
  const isSame = salt % 3 === 0;
  const isAnother = salt % 3 === 1;
  const sourceBegin = isSame
    ? begin
    : isAnother
      ? ((salt * 7) % blocks) * block + (begin % block)
      : (begin * 13) % sourceSectors;
  const wanted = salt % 4 < 3 ? block * (1 + (length % 5)) : length;
  const end = Math.min(begin + wanted, simulated.sectorsOf(target), begin + sourceSectors - sourceBegin);
  if (end <= begin || (source === target && Math.abs(begin - sourceBegin) < end - begin)) return false;
  simulated.copy(source, sourceBegin, target, begin, end, salt % 10 === 9);
  return true;
}

function administer(
  simulated: SimulatedPool,
  { kind, volume, other, at, length }: Operation,
  taken: Set<string>,
  later: (() => Promise<unknown>)[],
): boolean {
  const { blockSectors, blockSizeBytes, names } = simulated;
  const maxSectors = MAX_VOLUME_BLOCKS * blockSectors;
  // Whole blocks, more often than not.
  const sizeOf = (number: number): number => {
    const sectors = 1 + (number % maxSectors);
    return at % 3 === 0 ? sectors : roundUp(sectors, blockSectors);
  };
  const name = nameOf(simulated, volume);
  const another = nameOf(simulated, other);
  switch (kind) {
    case 'create':
      if (names.length >= MAX_VOLUMES) return false;
      simulated.createVolume(freshName(simulated, other), sizeOf(at * 7 + length));
      return true;
    case 'growData':
      if (simulated.dataDevice.sizeBytes / simulated.blockSizeBytes > MAX_DATA_BLOCKS) return false;
      simulated.growData(1 + (length % 20));
      return true;
    case 'growMetadata':
      if (simulated.metadataDevice.sizeBytes / 4096 > MAX_METADATA_BLOCKS) return false;
      simulated.growMetadata(1 + (length % 60));
      return true;
    case 'commit':
      simulated.commit();
      return true;
    case 'set':
      simulated.setOptions({
        errorIfNoSpace: at % 2 === 0,
        noDiscardPassdown: other % 3 === 0,
        noSpaceTimeoutMs: length % 2 === 0 ? 5000 : 60_000,
        autoExtend:
          other % 4 > 0 ? null : { limitBytes: (MAX_DATA_BLOCKS + 30) * blockSizeBytes, stepBytes: 5 * blockSizeBytes },
      });
      return true;
    case 'hold':
      if (simulated.isHeld) return false;
      simulated.reserveMetadataSnapshot();
      return true;
    case 'release':
      if (!simulated.isHeld) return false;
      simulated.releaseMetadataSnapshot();
      return true;
    case 'createThin':
      if (names.length >= MAX_VOLUMES) return false;
      simulated.createThin(simulated.freeDeviceId((at * 977) % 2 ** 24), sizeOf(at * 7 + length));
      return true;
    case 'transactionId':
      simulated.setTransactionId(at * 1000 + length);
      return true;
    case 'trim':
      simulated.trimFree();
      return true;
    case 'reopen':
      later.push(() => simulated.reopen());
      return true;
  }
  if (name === undefined || another === undefined) return false;
  // A copy under way goes on between calls: only snapshots are for the model to tell.
  if (!kind.startsWith('snapshot') && kind !== 'createSnap' && simulated.copying.includes(name)) return false;
  const sectors = simulated.sectorsOf(name);
  const wanted = kind === 'grow' ? sectors + sizeOf(length) : Math.max(1, sectors - sizeOf(at));
  switch (kind) {
    case 'snapshot':
      if (names.length >= MAX_VOLUMES) return false;
      simulated.createSnapshots([[name, freshName(simulated, other)]]);
      return true;
    case 'createSnap':
      if (names.length >= MAX_VOLUMES) return false;
      simulated.createSnap(simulated.freeDeviceId(900 + other), name);
      return true;
    case 'snapshotGroup':
      if (names.length + 2 > MAX_VOLUMES || name === another) return false;
      simulated.createSnapshots([
        [name, freshName(simulated, other)],
        [another, `${freshName(simulated, other)}b`],
      ]);
      return true;
    case 'rename':
      taken.add(name);
      simulated.renameVolume(name, freshName(simulated, other));
      return true;
    case 'rollback':
      if (name === another) return false;
      taken.add(name);
      simulated.rollbackVolume(name, another);
      return true;
    case 'delete':
    case 'deleteThin':
      taken.add(name);
      simulated.deleteVolume(name, kind === 'deleteThin');
      return true;
    default:
      if (wanted > maxSectors || wanted === sectors) return false;
      taken.add(name);
      simulated.resizeVolume(name, wanted);
      return true;
  }
}

function freshName(simulated: SimulatedPool, wanted: number): string {
  const { volumes } = simulated.expectation;
  let number = wanted;
  while (volumes.has(`v${number}`) || volumes.has(`v${number}b`)) number++;
  return `v${number}`;
}

function roundUp(number: number, step: number): number {
  return Math.ceil(number / step) * step;
}
