import { checkMetadata } from '../../src/tools/check.ts';
import { describeDamage } from '../../src/tools/damage.ts';
import { unsharedForTheKernel } from '../support/kernel-sharing.ts';
import { contentsOf } from '../support/metadata-judges.ts';
import { readMovedSector, SECTOR_WORDS } from '../support/sector-stamp.ts';
import type { PoolContents } from '../support/thin-xml.ts';
import type { SimulatedPool } from './simulated-pool.ts';
import { UNKNOWN, UNMAPPED } from './volume-model.ts';

/** Where `bytes`, read from sector `begin` on, hold what they may not; at most a few lines. */
export function findWrongSectors(
  bytes: Uint8Array,
  begin: number,
  allowed: (sector: number) => readonly number[],
  seen: (sector: number, value: number) => void = () => {},
): string[] {
  const wrong: string[] = [];
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  for (let i = 0; i < words.length / SECTOR_WORDS && wrong.length < 5; i++) {
    const sector = begin + i;
    const found = readMovedSector(words, i * SECTOR_WORDS, sector);
    const values = allowed(sector);
    if (found !== null && values.includes(found)) {
      seen(sector, found);
    } else {
      const what = found === null ? `garbage (${words[i * SECTOR_WORDS]} ${words[i * SECTOR_WORDS + 1]})` : found;
      wrong.push(`sector ${sector} holds ${what}, may hold ${values.join(' or ')}`);
    }
  }
  return wrong;
}

/** Compares a pool that was just committed, and on which nothing is in flight, with its model. Returns what is wrong. */
export async function verifyPool(simulated: SimulatedPool): Promise<string[]> {
  const wrong: string[] = [];
  const { pool, expectation, metadataMemory } = simulated;
  checkMetadata(metadataMemory, (damage) => wrong.push(`check: ${describeDamage(damage)}`));
  const contents = contentsOf(metadataMemory);
  wrong.push(...unsharedForTheKernel(contents));
  const infos = pool.volumes();
  const found = infos.map(({ name, sizeBytes }) => `${name} ${sizeBytes / 512}`).sort();
  const expected = [...expectation.volumes].map(([name, { sectorCount }]) => `${name} ${sectorCount}`).sort();
  if (found.join() !== expected.join()) return [...wrong, `volumes are ${found}, expected ${expected}`];
  for (const { name } of infos) {
    const volume = expectation.volume(name);
    const allowed = (sector: number): number[] => volume.present(sector);
    const seen = (sector: number, value: number): void => volume.observed(sector, value);
    wrong.push(...findWrongSectors(await simulated.contents(name), 0, allowed, seen).map((line) => `${name}: ${line}`));
  }
  wrong.push(...wrongMappings(simulated, contents));
  return wrong;
}

/** Blocks are mapped where the model says so, and shared where it says so and nowhere else. */
function wrongMappings(simulated: SimulatedPool, contents: PoolContents): string[] {
  const wrong: string[] = [];
  const { pool, expectation } = simulated;
  const blockOf = new Map<number, number>();
  const tokenOf = new Map<number, number>();
  const unknown: { tokens: Int32Array; block: number; dataBlock: number }[] = [];
  for (const info of pool.volumes()) {
    const { tokens } = expectation.volume(info.name);
    const { mappings, mappedBlocks } = contents.devices.get(info.id)!;
    const where = (block: number): string => `${info.name} (device ${info.id}) block ${block}`;
    if (mappedBlocks * simulated.blockSizeBytes !== info.mappedBytes) {
      wrong.push(`${info.name} has ${info.mappedBytes} bytes mapped in memory, ${mappedBlocks} blocks on the device`);
    }
    for (const block of mappings.keys()) if (block >= tokens.length) wrong.push(`${where(block)} is beyond the end`);
    for (let block = 0; block < tokens.length; block++) {
      const token = tokens[block]!;
      const dataBlock = mappings.get(block)?.dataBlock ?? -1;
      if (token === UNKNOWN) {
        if (dataBlock < 0) tokens[block] = UNMAPPED;
        else unknown.push({ tokens, block, dataBlock });
      } else if (token > 0 !== dataBlock >= 0) {
        wrong.push(`${where(block)} is ${dataBlock < 0 ? 'not ' : ''}mapped`);
      } else if (token > 0) {
        if ((blockOf.get(token) ?? dataBlock) !== dataBlock) wrong.push(`${where(block)} is not shared any more`);
        if ((tokenOf.get(dataBlock) ?? token) !== token) wrong.push(`${where(block)} has a data block of another`);
        blockOf.set(token, dataBlock);
        tokenOf.set(dataBlock, token);
      }
    }
  }
  // What was in doubt is what it is.
  for (const { tokens, block, dataBlock } of unknown) {
    const token = tokenOf.get(dataBlock) ?? expectation.newToken();
    tokenOf.set(dataBlock, token);
    tokens[block] = token;
  }
  const { usedDataBlocks } = pool.status();
  if (simulated.isHeld ? usedDataBlocks < tokenOf.size : usedDataBlocks !== tokenOf.size)
    wrong.push(`${usedDataBlocks} data blocks are used, ${tokenOf.size} mapped`);
  return wrong;
}
