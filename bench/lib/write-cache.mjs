import { FastInitiator } from '../../test/support/fast-initiator.mjs';

const CACHING_PAGE = 0x08;
const WCE = 0x04;

/** What a server says of its write cache: like has to be compared with like. @param {import('../load/load.mjs').Server} server */
export async function describeWriteCache({ host, port, target, luns }) {
  const initiator = await FastInitiator.connect({ host, port, target, lun: luns[0] ?? 0 });
  const answer = Buffer.alloc(64);
  try {
    const { status } = await initiator.run((command) => {
      command.cdb.fill(0);
      command.cdb.set([0x1a, 0x08, CACHING_PAGE, 0, answer.length]);
      command.dataIn = answer;
      command.dataInLength = answer.length;
    });
    if (status !== 0) return 'does not say whether its write cache is on';
  } finally {
    await initiator.close();
  }
  const page = 4 + answer.readUInt8(3);
  const isOn = (answer.readUInt8(page) & 0x3f) === CACHING_PAGE && (answer.readUInt8(page + 2) & WCE) !== 0;
  return `write cache ${isOn ? 'on' : 'off'} (MODE SENSE); writes are answered when they are in the page cache`;
}
