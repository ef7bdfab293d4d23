import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readSync } from 'node:fs';
import { type PoolContents, parseThinXml } from '../../support/thin-xml.ts';
import type { PoolSide } from './pool-side.ts';

/** Throws when the two are not the same. */
export function same(what: string, kernel: unknown, ours: unknown): void {
  const [left, right] = [JSON.stringify(kernel), JSON.stringify(ours)];
  if (left !== right) throw new Error(`${what}: the kernel has ${left}, we have ${right}`);
}

function sameLists(what: string, kernel: readonly string[], ours: readonly string[]): void {
  const without = (list: readonly string[], other: readonly string[]): string[] => {
    const others = new Set(other);
    return list.filter((item) => !others.has(item));
  };
  same(`${what} that the other side has not`, without(kernel, ours), without(ours, kernel));
}

/** What thin_dump says about the last commit. */
export function dump(side: PoolSide, ...options: string[]): PoolContents {
  return parseThinXml(
    execFileSync('thin_dump', [...options, side.metadataPath], { encoding: 'utf8', maxBuffer: 1 << 28 }),
  );
}

/**
 * The same devices, times, counts and mapped blocks; and the same sharing: data blocks may lie elsewhere, but what is one block on one
 * side is one block on the other. Not the times of mappings without `times`.
 */
export function compareMappings(kernel: PoolContents, ours: PoolContents, times: boolean): void {
  for (const field of ['time', 'transactionId', 'dataBlockSize', 'dataBlockCount'] as const) {
    same(field, kernel[field], ours[field]);
  }
  same('devices', [...kernel.devices.keys()], [...ours.devices.keys()]);
  const ourBlock = new Map<number, number>();
  const kernelBlock = new Map<number, number>();
  for (const [id, device] of kernel.devices) {
    const other = ours.devices.get(id)!;
    const blocks = (mappings: typeof device.mappings): string[] =>
      [...mappings].map(([block, { time }]) => `${block}${times ? ` at ${time}` : ''}`);
    sameLists(`mappings of device ${id}`, blocks(device.mappings), blocks(other.mappings));
    for (const field of ['mappedBlocks', 'transactionId', 'creationTime', 'snapshottedTime'] as const) {
      same(`${field} of device ${id}`, device[field], other[field]);
    }
    for (const [block, { dataBlock }] of device.mappings) {
      const theirs = other.mappings.get(block)!.dataBlock;
      const known = ourBlock.get(dataBlock) ?? theirs;
      if (known !== theirs || (kernelBlock.get(theirs) ?? dataBlock) !== dataBlock) {
        throw new Error(`device ${id}, block ${block}: shared with others by one side and not by the other`);
      }
      ourBlock.set(dataBlock, theirs);
      kernelBlock.set(theirs, dataBlock);
    }
  }
}

/** Every mapped block of every device holds the same bytes, as the data devices have them. */
export function compareContents(
  kernel: PoolSide,
  ours: PoolSide,
  kernelContents: PoolContents,
  ourContents: PoolContents,
): number {
  const size = kernelContents.dataBlockSize * 512;
  const [left, right] = [Buffer.alloc(size), Buffer.alloc(size)];
  const [kernelFd, ourFd] = [openSync(kernel.dataPath, 'r'), openSync(ours.dataPath, 'r')];
  const compared = new Set<string>();
  for (const [id, { mappings }] of kernelContents.devices) {
    for (const [block, { dataBlock }] of mappings) {
      const other = ourContents.devices.get(id)!.mappings.get(block)!.dataBlock;
      if (compared.has(`${dataBlock} ${other}`)) continue;
      compared.add(`${dataBlock} ${other}`);
      readSync(kernelFd, left, 0, size, dataBlock * size);
      readSync(ourFd, right, 0, size, other * size);
      if (!left.equals(right)) throw new Error(`device ${id}, block ${block}: different bytes`);
    }
  }
  closeSync(kernelFd);
  closeSync(ourFd);
  return compared.size;
}

/**
 * The status lines, field for field. Which block the metadata snapshot has is not determined; nor, unless every tree is one leaf
 * (`shapeDetermined`), how many metadata blocks are used: nodes of the same entries may have been split in other places.
 */
export function compareStatus(kernel: string, ours: string, shapeDetermined: boolean): void {
  const determined = (line: string): string => {
    const fields = line.split(' ');
    if (!shapeDetermined) fields[4] = fields[4]!.replace(/^\d+/, 'n');
    if (/^\d+$/.test(fields[6] ?? '')) fields[6] = 'held';
    return fields.join(' ');
  };
  same('status', determined(kernel), determined(ours));
}
