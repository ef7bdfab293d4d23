/** Debian's tgt, run in the foreground by whoever needs a second opinion: no service, no fixed port, no shared control socket. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run, runOk, TestProcess } from '../support/processes.mjs';

const TARGET = 'iqn.2026-11.test:tgt';

/**
 * Serves the file as LUN 1 with its write cache on (tgt's default) and limits at login that do not hold it back.
 * @param {string} file
 */
export async function startTgt(file) {
  const folder = mkdtempSync(join(tmpdir(), 'thinlun-tgt-'));
  const env = { TGT_IPC_SOCKET: join(folder, 'control') };
  const port = await freePort();
  const server = new TestProcess('tgtd', ['-f', '--iscsi', `portal=127.0.0.1:${port}`], { env });
  const stop = async () => {
    await run('tgtadm', ['--op', 'delete', '--mode', 'system'], { env });
    await server.stop(500);
    rmSync(folder, { recursive: true, force: true });
  };
  /** @param {string[]} args */
  const admin = (args) => runOk('tgtadm', ['--lld', 'iscsi', ...args], { env });
  try {
    await waitForControl(server, () => run('tgtadm', ['--op', 'show', '--mode', 'system'], { env }));
    await admin(['--op', 'new', '--mode', 'target', '--tid', '1', '-T', TARGET]);
    await admin(['--op', 'new', '--mode', 'logicalunit', '--tid', '1', '--lun', '1', '-b', file, '-E', 'rdwr']);
    await admin(['--op', 'bind', '--mode', 'target', '--tid', '1', '-I', 'ALL']);
    for (const [name, value] of [
      ['MaxRecvDataSegmentLength', '262144'],
      ['FirstBurstLength', '262144'],
      ['MaxBurstLength', '1048576'],
      ['InitialR2T', 'No'],
    ]) {
      await admin(['--op', 'update', '--mode', 'target', '--tid', '1', '-n', name ?? '', '-v', value ?? '']);
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return { name: 'tgt', host: '127.0.0.1', port, target: TARGET, lun: 1, pid: server.pid, stop };
}

/** @returns {Promise<number>} A port that nobody listens on at the moment. */
function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      const port = typeof address === 'object' && address !== null ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}

/** @param {TestProcess} server @param {() => Promise<{ code: number | null }>} ask */
async function waitForControl(server, ask) {
  for (let attempt = 0; attempt < 50; attempt++) {
    if (server.exitStatus !== null) break;
    if ((await ask()).code === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`tgtd does not answer\n${server.describeOutput()}`);
}
