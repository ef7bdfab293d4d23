/** QEMU's storage daemon with a qcow2 image behind NBD: thin provisioning and snapshots in C, in user space. */
import { runOk, TestProcess } from '../../test/support/processes.mjs';
import { freePort } from './free-port.mjs';

const EXPORT = 'bench';

/** A new image; with `base` an overlay of it. @param {string} file @param {number} bytes @param {string} [base] */
export async function makeQcow2(file, bytes, base) {
  const backing = base === undefined ? [] : ['-b', base, '-F', 'qcow2'];
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=64k', ...backing, file, String(bytes)]);
}

/**
 * Serves the image through the page cache, with the write cache on (QEMU's default, cache.direct=off, flushes obeyed), io_uring where
 * QEMU has it, and a cache that holds all of its tables.
 * @param {string} file
 */
export async function startQemuStorageDaemon(file) {
  const port = await freePort();
  const node = (/** @type {string} */ aio) =>
    [
      'driver=qcow2,node-name=disk,discard=unmap,l2-cache-size=67108864,file.driver=file,file.discard=unmap',
      `file.filename=${file},file.aio=${aio}`,
    ].join(',');
  const start = (/** @type {string} */ aio) =>
    new TestProcess(
      'qemu-storage-daemon',
      [
        '--blockdev',
        node(aio),
        '--nbd-server',
        `addr.type=inet,addr.host=127.0.0.1,addr.port=${port}`,
        '--export',
        `type=nbd,id=bench,node-name=disk,name=${EXPORT},writable=on`,
        '--chardev',
        'stdio,id=qmp',
        '--monitor',
        'chardev=qmp',
      ],
      { input: '' },
    );
  let aio = 'io_uring';
  let server = start(aio);
  try {
    await server.waitForLine(/"QMP"/, 10_000);
  } catch {
    await server.kill();
    aio = 'threads';
    server = start(aio);
    await server.waitForLine(/"QMP"/, 10_000);
  }
  return {
    aio,
    /** @returns {import('../load/load.mjs').Server} */
    at: () => ({
      name: 'qemu',
      protocol: 'nbd',
      host: '127.0.0.1',
      port,
      target: EXPORT,
      luns: [],
      pid: server.pid,
    }),
    stop: () => server.stop(10_000),
  };
}
