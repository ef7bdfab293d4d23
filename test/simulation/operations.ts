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
  read: 5,
  extent: 2,
  flush: 3,
  time: 2,
} as const;

const ADMINISTRATION = {
  create: 3,
  delete: 3,
  grow: 2,
  shrink: 2,
  growData: 1,
  growMetadata: 1,
  commit: 2,
  reopen: 1,
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
  const played = { count: 0, later: null as (() => Promise<unknown>) | null };
  // Volumes that an administrative call will have gone from under a request.
  const busy = { names: new Set<string>() };
  const call = operations.find(({ kind }) => kind in ADMINISTRATION);
  if (call !== undefined) reserve(simulated, call, busy.names);
  for (const operation of operations) {
    if (operation === call) played.count += administer(simulated, operation, played) ? 1 : 0;
    else played.count += request(simulated, operation, busy.names) ? 1 : 0;
  }
  await simulated.settle();
  await played.later?.();
  return played.count;
}

function nameOf(simulated: SimulatedPool, index: number): string | undefined {
  const { names } = simulated;
  return names[index % Math.max(1, names.length)];
}

/** Volumes that `call` takes for itself. */
function reserve(simulated: SimulatedPool, call: Operation, names: Set<string>): void {
  if (call.kind !== 'delete' && call.kind !== 'shrink') return;
  const name = nameOf(simulated, call.volume);
  if (name !== undefined) names.add(name);
}

function request(simulated: SimulatedPool, { kind, volume, at, length }: Operation, busy: Set<string>): boolean {
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
  else if (kind === 'read') simulated.read(name, from, to);
  else if (kind === 'extent') simulated.extent(name, from, to);
  else simulated.flush(name);
  return true;
}

function administer(
  simulated: SimulatedPool,
  { kind, volume, other, at, length }: Operation,
  played: { later: (() => Promise<unknown>) | null },
): boolean {
  const { blockSectors } = simulated;
  const maxSectors = MAX_VOLUME_BLOCKS * blockSectors;
  // Whole blocks, more often than not.
  const sizeOf = (number: number): number =>
    1 + (at % 2 === 0 ? number % maxSectors : roundDown(number % maxSectors, blockSectors) + blockSectors - 1);
  const name = nameOf(simulated, volume);
  if (kind === 'create') {
    if (simulated.names.length >= MAX_VOLUMES) return false;
    simulated.createVolume(freshName(simulated, other), sizeOf(at * 7 + length));
  } else if (kind === 'growData') {
    if (simulated.dataDevice.sizeBytes / simulated.blockSizeBytes > MAX_DATA_BLOCKS) return false;
    simulated.growData(1 + (length % 20));
  } else if (kind === 'growMetadata') {
    if (simulated.metadataDevice.sizeBytes / 4096 > MAX_METADATA_BLOCKS) return false;
    simulated.growMetadata(1 + (length % 60));
  } else if (kind === 'commit') {
    simulated.commit();
  } else if (kind === 'reopen') {
    played.later = () => simulated.reopen();
  } else if (name === undefined) {
    return false;
  } else if (kind === 'delete') {
    simulated.deleteVolume(name);
  } else {
    const sectors = simulated.sectorsOf(name);
    const wanted = kind === 'grow' ? sectors + sizeOf(length) : Math.max(1, sectors - sizeOf(at));
    if (wanted > maxSectors || wanted === sectors) return false;
    simulated.resizeVolume(name, wanted);
  }
  return true;
}

function freshName(simulated: SimulatedPool, wanted: number): string {
  let number = wanted;
  while (simulated.expectation.volumes.has(`v${number}`)) number++;
  return `v${number}`;
}

function roundDown(number: number, step: number): number {
  return number - (number % step);
}
