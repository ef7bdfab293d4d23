import type { PoolContents } from './thin-xml.ts';

/**
 * Where the kernel would write in place to a data block that another mapping leads to: it goes by times alone. Every mapping of a block
 * that is mapped more than once has to be older than the last snapshot of its device.
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
    for (const [block, { dataBlock, time }] of own) {
      if (mappings.get(dataBlock)! < 2 || time < snapshottedTime) continue;
      wrong.push(
        `device ${id} block ${block}: data block ${dataBlock} is mapped ${mappings.get(dataBlock)} times, time ${time} of ${snapshottedTime}`,
      );
    }
  }
  return wrong;
}
