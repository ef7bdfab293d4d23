// A volume of a pool in a folder, by its own code and without a server: thin-origin.mjs DIR VOLUME sum | write SEED
// `sum` prints the SHA-256 of the whole volume; `write` writes, zeroes and discards at places that the seed chooses.
import { createHash } from 'node:crypto';
import { LunOp, LunRequest, Pool } from '/project/dist/index.js';

const [dir, volume, command, seed] = process.argv.slice(2);
const pool = await Pool.open(dir);
const device = pool.openVolume(volume);

function request(op, offset, length, memory) {
  return new Promise((resolve, reject) => {
    const made = new LunRequest({ requestDone: (_, error) => (error === null ? resolve() : reject(new Error(error))) });
    made.op = op;
    made.offset = offset;
    made.length = length;
    if (memory) made.data.set(memory, 0, length);
    device.submit(made);
  });
}

if (command === 'sum') {
  const hash = createHash('sha256');
  const memory = new Uint8Array(2 ** 20);
  for (let at = 0; at < device.sizeBytes; at += memory.length) {
    const length = Math.min(memory.length, device.sizeBytes - at);
    await request(LunOp.READ, at, length, memory);
    hash.update(memory.subarray(0, length));
  }
  console.log(hash.digest('hex'));
} else {
  let state = Number(seed) * 2654435761 + 1;
  const random = (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  for (let i = 0; i < 60; i++) {
    const sectors = 1 + random(i % 3 === 0 ? 400 : 20);
    const offset = 512 * random(device.sizeBytes / 512 - sectors);
    const op = [LunOp.WRITE, LunOp.WRITE, LunOp.WRITE_ZEROES, LunOp.UNMAP][random(4)];
    await request(op, offset, 512 * sectors, op === LunOp.WRITE ? new Uint8Array(512 * sectors).fill(i + 1) : null);
  }
}
await pool.closeVolume(device);
await pool.close();
