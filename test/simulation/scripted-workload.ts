import type { SimulatedPool } from './simulated-pool.ts';

/**
 * A bit of everything, the same each time: first writes, breaking of sharing, discards, copies, snapshots, growth of everything, deletion, rollback, a
 * pool that is full and one that is closed and opened. Every call may fail; what it would have made is not used then.
 */
export async function playScript(simulated: SimulatedPool): Promise<void> {
  const block = simulated.blockSectors;
  const has = (...names: string[]): boolean => names.every((name) => simulated.names.includes(name));
  const step = async (call: () => unknown): Promise<void> => {
    call();
    await simulated.settle();
  };
  await step(() => simulated.createVolume('a', 6 * block));
  await step(() => simulated.createVolume('b', 3 * block + 40));
  if (!has('a', 'b')) return;
  await step(() => {
    simulated.write('a', 10, 3 * block + 20);
    simulated.write('a', 4 * block, 5 * block);
    simulated.write('b', 0, 3 * block + 40);
    simulated.read('a', 0, 6 * block);
  });
  await step(() => simulated.flush('a'));
  await step(() => simulated.createSnapshots([['a', 's']]));
  await step(() => {
    simulated.write('a', 30, 60);
    simulated.write('a', block, 2 * block, true);
    simulated.write('b', 5, 9);
    if (has('s')) simulated.writeZeroes('s', 2 * block, 2 * block + 7);
  });
  await step(() =>
    simulated.createSnapshots([
      ['a', 'a2'],
      ['b', 'b2'],
    ]),
  );
  await step(() => {
    simulated.unmap('a', 20, 4 * block);
    simulated.write('a', 4 * block + 3, 4 * block + 9);
    simulated.flush('b');
  });
  await step(() => simulated.copy('a', 0, 'b', 0, 2 * block + 11));
  await step(() => {
    simulated.copy('b', block, 'a', 2 * block, 4 * block);
    simulated.write('a', block, block + 9);
    simulated.write('b', 2 * block - 5, 2 * block + 5);
  });
  await step(() => simulated.commit());
  await step(() => simulated.copy('a', 0, 'a', 3 * block + 8, 4 * block));
  await step(() => simulated.write('a', 3 * block, 4 * block + 5));
  await step(() => simulated.resizeVolume('b', 2 * block + 10));
  await step(() => simulated.resizeVolume('b', 4 * block));
  await step(() => simulated.growMetadata(20));
  // Growth needs a block where the end is in one that a snapshot shares.
  await step(() => simulated.write('b', 2 * block, simulated.sectorsOf('b')));
  await step(() => simulated.clock.advance(1000));
  if (has('s')) await step(() => simulated.deleteVolume('s'));
  if (has('a2')) await step(() => simulated.rollbackVolume('a', 'a2'));
  await step(() => simulated.renameVolume('b', 'c'));
  await step(() => {
    for (const name of simulated.names) simulated.flush(name);
  });
  await simulated.reopen();
  await step(() => {
    for (const name of simulated.names) simulated.read(name, 0, simulated.sectorsOf(name));
  });
  // More than there is: the last of these wait, and then fail.
  await step(() => {
    for (const name of simulated.names) simulated.write(name, 0, simulated.sectorsOf(name));
  });
  await step(() => simulated.growData(6));
  if (has('a', 'b2')) await step(() => simulated.copy('b2', 0, 'a', 3 * block, 6 * block));
  if (has('a')) await step(() => simulated.unmap('a', 0, 6 * block));
  await step(() => {
    for (const name of simulated.names) {
      simulated.write(name, 7, 2 * block);
      simulated.flush(name);
    }
  });
  await step(() => {
    for (const name of simulated.names) simulated.read(name, 0, simulated.sectorsOf(name));
  });
}

/** Every administrative call, with a little data to lose, until one of them fails. */
export async function playAdministration(simulated: SimulatedPool): Promise<void> {
  const block = simulated.blockSectors;
  const calls = [
    () => simulated.createVolume('a', 2 * block),
    () => simulated.createVolume('b', block + 10),
    () => simulated.write('a', 3, block + 3, true),
    () =>
      simulated.createSnapshots([
        ['a', 's'],
        ['b', 't'],
      ]),
    () => simulated.write('a', 1, 5, true),
    () => simulated.rollbackVolume('a', 's'),
    () => simulated.renameVolume('b', 'c'),
    () => simulated.resizeVolume('a', block / 2),
    () => simulated.resizeVolume('a', 3 * block),
    () => simulated.setOptions({ errorIfNoSpace: true }),
    () => simulated.growData(3),
    () => simulated.growMetadata(10),
    () => simulated.deleteVolume('s'),
  ];
  for (const call of calls) {
    const answer = call();
    await simulated.settle();
    if ((await answer) !== null) return;
  }
}
