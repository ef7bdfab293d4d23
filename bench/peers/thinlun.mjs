/** The built program as a peer of itself. */
import { ThinlunServer, thinlun } from '../../test/support/thinlun-server.mjs';

/**
 * A new pool with one volume.
 * @param {string} pool @param {string} dataSize @param {string} volumeSize
 */
export async function makePool(pool, dataSize, volumeSize) {
  await thinlun('pool', 'create', pool, '--data-size', dataSize);
  await thinlun('volume', 'create', pool, 'bench', '--size', volumeSize);
}

/** A server of one pool, and what a load has to know of it. */
export class ThinlunPeer {
  server;
  /** @param {ThinlunServer} server */
  constructor(server) {
    this.server = server;
  }

  /** @param {string} pool @param {readonly string[]} [nodeArgs] */
  static async start(pool, nodeArgs = []) {
    return new ThinlunPeer(await ThinlunServer.start([pool], { nodeArgs, args: ['--log-level', 'error'] }));
  }

  get pid() {
    return this.server.pid;
  }

  /** The LUNs of the whole pool, or those given, as one target of a load. @param {string} [name] @param {readonly number[]} [luns] */
  at(name = 'thinlun', luns = this.server.luns.map(({ lun }) => lun)) {
    const { host, port, pid } = this.server;
    const { target } = this.server.luns[0] ?? { target: '' };
    return { name, protocol: /** @type {const} */ ('iscsi'), host, port, pid, target, luns };
  }

  stop() {
    return this.server.stop();
  }
}
