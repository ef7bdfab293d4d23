// Serves TCMU devices of subtype `thin` from RAM disks: the handler without a pool. The cfgstring says what the disk is like:
// `ram/NAME`; `absent/NAME` cannot be opened; `slow/NAME` takes 2 s to open. SIGUSR1 freezes the disks, SIGUSR2 thaws them.
import { createHash, randomFillSync } from 'node:crypto';
import { monotonicClock } from '/project/dist/base/clock.js';
import { StorageError } from '/project/dist/base/errors.js';
import { MemoryLun } from '/project/dist/block/memory-lun.js';
import { TcmuDbus } from '/project/dist/daemon/tcmu-dbus.js';
import { LogicalUnit } from '/project/dist/scsi/logical-unit.js';
import { TcmuHandler } from '/project/dist/tcmu/handler.js';
import { RamLun } from './ram-lun.mjs';

const say = (level) => (fields, text) => console.log(level, text, JSON.stringify(fields));
const logger = {
  debug: process.env.DEBUG ? say('debug') : () => {},
  info: say('info'),
  warn: say('warn'),
  error: say('error'),
};
const disks = new Map();

function open(cfgstring, sizeBytes, device) {
  const known = disks.get(cfgstring);
  if (known !== undefined) return known.unit;
  const backend = cfgstring.startsWith('memory/')
    ? new MemoryLun(sizeBytes)
    : new RamLun(sizeBytes, `/tmp/ram-${cfgstring.replaceAll('/', '-')}`);
  const hash = createHash('sha256').update(cfgstring).digest();
  hash[0] = 0x60 | (hash[0] & 0xf);
  const unit = new LogicalUnit({
    backend,
    serial: hash.toString('hex').slice(0, 16),
    naa: new Uint8Array(hash.subarray(0, 16)),
    designation: cfgstring.replaceAll('/', '-'),
    logicalBlockSize: device.blockSizeBytes,
    writeCache: true,
    random: (bytes) => randomFillSync(bytes),
  });
  disks.set(cfgstring, { backend, unit });
  return unit;
}

function check(cfgstring) {
  if (cfgstring.startsWith('absent/')) {
    throw new StorageError('ENOENT', `Cannot open ${cfgstring}: there is no such volume`);
  }
}

const subtype = process.env.SUBTYPE ?? 'thin';
const dbus = new TcmuDbus({ subtype, description: 'POOL/VOLUME', check, logger, clock: monotonicClock });
const mode = await dbus.start();
console.log('dbus', mode);
const handler = new TcmuHandler({
  subtype,
  async resolve(cfgstring, sizeBytes, device) {
    check(cfgstring);
    if (cfgstring.startsWith('slow/')) await new Promise((resolve) => setTimeout(resolve, 2000));
    return open(cfgstring, sizeBytes, device);
  },
  release(cfgstring) {
    console.log('released', cfgstring);
  },
  async resize(cfgstring, sizeBytes) {
    const { backend, unit } = disks.get(cfgstring);
    if (sizeBytes < backend.sizeBytes) throw new StorageError('EINVAL', `Cannot make ${cfgstring} smaller`);
    backend.grow(sizeBytes);
    unit.capacityChanged();
  },
  logger,
  clock: monotonicClock,
  ...(process.env.EVENT_BUFFER && { eventBufferSize: Number(process.env.EVENT_BUFFER) }),
});
await handler.start();
const alive = setInterval(() => {}, 1000); // timers and descriptors of the handler alone do not keep a process alive
console.log('ready');
process.on('SIGUSR1', () => {
  for (const { backend } of disks.values()) backend.frozen = true;
  console.log('frozen');
});
process.on('SIGUSR2', () => {
  for (const { backend } of disks.values()) backend.thaw();
  console.log('thawed');
});
process.on('SIGHUP', () => console.log('status', JSON.stringify(handler.status()), 'rss', process.memoryUsage().rss));
process.on('SIGTERM', async () => {
  await handler.stop();
  dbus.stop();
  clearInterval(alive);
  console.log('stopped');
  process.exit(0);
});
