/** Debian's tgt, run in the foreground: no service, no fixed port, no shared control socket. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { run, runOk, TestProcess } from '../../test/support/processes.mjs';
import { freePort } from './free-port.mjs';

const TARGET = 'iqn.2026-11.test:tgt';
export const FILE_LUN = 1;
export const NULL_LUN = 2;

/**
 * Serves the file as LUN 1 with its write cache on (tgt's default), nothing as LUN 2, and limits at login that do not hold it back.
 * @param {string} folder Of its own. @param {string} file
 */
export async function startTgt(folder, file) {
  mkdirSync(folder, { recursive: true });
  const env = { TGT_IPC_SOCKET: join(folder, 'control') };
  const port = await freePort();
  const server = new TestProcess('tgtd', ['-f', '--iscsi', `portal=127.0.0.1:${port}`], { env });
  const stop = async () => {
    await run('tgtadm', ['--op', 'delete', '--mode', 'system'], { env });
    await server.stop(500);
  };
  /** @param {string[]} args */
  const admin = (args) => runOk('tgtadm', ['--lld', 'iscsi', ...args], { env });
  const unit = ['--op', 'new', '--mode', 'logicalunit', '--tid', '1'];
  try {
    await waitForControl(server, () => run('tgtadm', ['--op', 'show', '--mode', 'system'], { env }));
    await admin(['--op', 'new', '--mode', 'target', '--tid', '1', '-T', TARGET]);
    await admin([...unit, '--lun', String(FILE_LUN), '-b', file, '-E', 'rdwr']);
    await admin([...unit, '--lun', String(NULL_LUN), '-b', '/dev/null', '-E', 'null']);
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
  return {
    stop,
    /** @param {string} name @param {number} lun @returns {import('../load/load.mjs').Server} */
    at: (name, lun) => ({
      name,
      protocol: 'iscsi',
      host: '127.0.0.1',
      port,
      target: TARGET,
      luns: [lun],
      pid: server.pid,
    }),
  };
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
