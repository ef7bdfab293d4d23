import type { PoolContents } from './thin-xml.ts';

/**
 * Where the kernel would write to what another mapping leads to. It goes by times alone: every mapping of a block that is mapped more than once has to be
 * older than the last snapshot of its device. And no device may map a block twice: when sharing is broken, all that the device has waiting for the block
 * goes to the new one.
 */
export function unsharedForTheKernel(contents: PoolContents): string[] {
  const mappings = new Map<number, number>();
  for (const device of contents.devices.values()) {
    for (const { dataBlock } of device.mappings.values()) mappings.set(dataBlock, (mappings.get(dataBlock) ?? 0) + 1);
  }
  const wrong: string[] = [];
  for (const [id, { mappings: own, snapshottedTime }] of contents.devices) {
    if (snapshottedTime > contents.time)
      wrong.push(`device ${id} was snapshotted at ${snapshottedTime}, now is ${contents.time}`);
    const seen = new Map<number, number>();
    for (const [block, { dataBlock, time }] of own) {
      const first = seen.get(dataBlock);
      if (first !== undefined)
        wrong.push(`device ${id}: data block ${dataBlock} is mapped at ${first} and at ${block}`);
      seen.set(dataBlock, block);
      if (mappings.get(dataBlock)! < 2 || time < snapshottedTime) continue;
      wrong.push(
        `device ${id} block ${block}: data block ${dataBlock} is mapped ${mappings.get(dataBlock)} times, time ${time} of ${snapshottedTime}`,
      );
    }
  }
  return wrong;
}
