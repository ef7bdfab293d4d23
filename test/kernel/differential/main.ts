// Plays random operations on the kernel's thin-pool and on ours. Runs in the guest.
//   main.ts SEED OPERATIONS
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { openBlockDevice } from '../../../src/block/file-device.ts';
import { BLOCK_SIZE } from '../../../src/persistent-data/block.ts';
import { PoolMetadata } from '../../../src/thin/pool-metadata.ts';
import { pattern } from '../../support/lun-client.ts';
import { SeededRandom } from '../../support/seeded-random.ts';
import { KernelSide } from './kernel-side.ts';
import { OurSide } from './our-side.ts';
import { Player } from './player.ts';
import type { PoolSettings } from './pool-side.ts';

const KIB = 1024;
/** Of the external origin, where there is one: it ends inside a block, and before the devices do. */
const ORIGIN_BYTES = 20 * 64 * KIB + 12 * KIB;

const SHAPES = [
  { blockSizeBytes: 64 * KIB, dataBlocks: 70, metadataBlocks: 300, volumeBlocks: 60, features: ['error_if_no_space'] },
  // A block size that is no power of two.
  { blockSizeBytes: 192 * KIB, dataBlocks: 30, metadataBlocks: 256, volumeBlocks: 25, features: ['error_if_no_space'] },
  // Trees of several levels.
  {
    blockSizeBytes: 64 * KIB,
    dataBlocks: 1500,
    metadataBlocks: 2048,
    volumeBlocks: 900,
    features: ['error_if_no_space', 'no_discard_passdown'],
  },
  { blockSizeBytes: 64 * KIB, dataBlocks: 900, metadataBlocks: 300, volumeBlocks: 32, features: [], origin: true },
  {
    blockSizeBytes: 64 * KIB,
    dataBlocks: 900,
    metadataBlocks: 300,
    volumeBlocks: 60,
    features: [],
    exactSharing: true,
  },
] as const;
const CROSS_EVERY = 80;

function sparseFile(path: string, sizeBytes: number): string {
  writeFileSync(path, '');
  truncateSync(path, sizeBytes);
  return path;
}

const [seed, operations] = process.argv.slice(2).map(Number) as [number, number];
const random = new SeededRandom(seed);
const shape = SHAPES[seed % SHAPES.length]!;
const folder = `/tmp/differential-${seed}`;
mkdirSync(folder);
const originPath = 'origin' in shape ? `${folder}/origin` : null;
if (originPath !== null) writeFileSync(originPath, pattern(ORIGIN_BYTES, seed));
const settings: PoolSettings = { exactSharing: false, ...shape, originPath };
const files = (name: string): [string, string] => [
  sparseFile(`${folder}/${name}.metadata`, settings.metadataBlocks * BLOCK_SIZE),
  sparseFile(`${folder}/${name}.data`, settings.dataBlocks * settings.blockSizeBytes),
];
const kernel = new KernelSide(settings, ...files('a'));
const ours = new OurSide(settings, ...files('b'));
const device = openBlockDevice(ours.metadataPath);
PoolMetadata.format(device, {
  dataBlockSizeBytes: settings.blockSizeBytes,
  dataBlockCount: settings.dataBlocks,
}).close();
await device.close();

const player = new Player(kernel, ours, settings, random);
try {
  await player.open();
  for (let done = 0; done < operations; done += CROSS_EVERY) {
    await player.play(Math.min(CROSS_EVERY, operations - done));
    await player.cross();
    if (done === 0) {
      await player.needCheck();
      await player.crossShared();
    }
  }
  await player.close();
} catch (error) {
  console.log(player.log.slice(-60).join('\n'));
  console.log(`FAILED: seed ${seed}, operation ${player.counts.operations}: ${(error as Error).stack}`);
  process.exit(1);
}
console.log(`seed ${seed}: ${JSON.stringify({ ...player.counts, ...player.refusals })}`);
