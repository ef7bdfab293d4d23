/** Where and with what something was measured. */
import { availableParallelism, cpus, totalmem } from 'node:os';
import { findTool } from '../../test/support/debian-tools.mjs';
import { run } from '../../test/support/processes.mjs';
import { ROOT } from './bench.mjs';

/** @param {string} program @param {readonly string[]} args @param {string} [cwd] */
async function lineOf(program, args, cwd = ROOT) {
  const { code, stdout } = await run(program, args, { cwd });
  return code === 0 ? (stdout.trim().split('\n')[0] ?? '') : 'unknown';
}

/** @param {string} folder @param {readonly string[]} tools Whose versions count. @returns {Promise<Record<string, string>>} */
export async function describeMachine(folder, tools) {
  /** @type {Record<string, string>} */
  const facts = {
    date: new Date().toISOString(),
    cpu: `${availableParallelism()} x ${cpus()[0]?.model.trim() ?? 'unknown'}`,
    memory: `${(totalmem() / 2 ** 30).toFixed(1)} GiB`,
    kernel: await lineOf('uname', ['-r']),
    'file system': await lineOf('stat', ['-f', '-c', '%T', folder]),
    node: process.version,
    commit: await commit(),
  };
  /** @type {Record<string, readonly string[]>} */
  const versions = {
    tgtd: ['dpkg-query', '-W', '-f', '${Version}', 'tgt'],
    'qemu-storage-daemon': ['qemu-storage-daemon', '--version'],
    gcc: ['gcc', '--version'],
  };
  for (const tool of tools) {
    const [program, ...args] = versions[tool] ?? [];
    if (program !== undefined && findTool(tool) !== null) facts[tool] = await lineOf(program, args);
  }
  return facts;
}

async function commit() {
  const id = await lineOf('git', ['rev-parse', '--short', 'HEAD']);
  const changed = await run('git', ['status', '--porcelain', '--untracked-files=no', 'src', 'native-bindings'], {
    cwd: ROOT,
  });
  return changed.code === 0 && changed.stdout !== '' ? `${id} and changes` : id;
}
