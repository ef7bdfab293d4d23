/** The newest iscsi-test-cu that is here: the kernel lab's, or else the one on PATH. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { run, runOk, TestProcess } from '../support/processes.mjs';
import { judge } from './verdict.mjs';

const TEST_LIMIT_MS = 25_000;
/** Tests that take longer, most of it asleep. @type {Readonly<Record<string, number>>} */
export const SLOW_TESTS = {
  // Sleeps a minute at a time while the medium is being sanitized.
  'ALL.Sanitize.Reset': 150_000,
};

/** The folder that `test/kernel/build-rootfs.sh` makes. */
const LAB = process.env.THINLUN_LAB ?? '/var/tmp/thinlun-lab';

/** How a program is called, and which version it is. */
export class Tool {
  /** @param {readonly string[]} command @param {string} version */
  constructor(command, version) {
    this.command = command;
    this.version = version;
  }

  /** @param {string | undefined} path Of another one than the newest. @param {string | undefined} version Which that is. @returns {Promise<Tool>} */
  static async find(path, version) {
    if (path !== undefined) return new Tool([path], version ?? path);
    const canEnter = process.getuid?.() === 0 && existsSync(join(LAB, 'usr', 'bin', 'iscsi-test-cu'));
    const prefix = canEnter ? ['chroot', LAB] : [];
    const query = [...prefix, 'dpkg-query', '-W', '-f', '${Version}', 'libiscsi-bin'];
    const { code, stdout } = await run(query[0] ?? '', query.slice(1));
    return new Tool([...prefix, 'iscsi-test-cu'], code === 0 ? `libiscsi-bin ${stdout.trim()}` : 'iscsi-test-cu');
  }

  /** All tests that there are, as ALL.Suite.Test. @returns {Promise<string[]>} */
  async list() {
    const [program = '', ...args] = this.command;
    const lines = (await runOk(program, [...args, '--list'])).split('\n').map((line) => line.trim());
    return lines.filter((line) => /^ALL\.[^.]+\.[^.]+$/.test(line));
  }

  /**
   * Runs one test in a process of its own: in one process an early test leaves state that later ones trip over.
   * @param {string} name @param {string} url @param {boolean} verbose
   */
  async run(name, url, verbose) {
    const [program = '', ...args] = this.command;
    // The URL twice: that is how the multipath tests are enabled.
    const child = new TestProcess(program, [...args, '-d', '-S', '-v', '-V', '-t', name, url, url]);
    const limitMs = SLOW_TESTS[name] ?? TEST_LIMIT_MS;
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.signalGroup('SIGKILL');
    }, limitMs);
    const status = await child.exited;
    clearTimeout(timer);
    const text = `${child.stdout}\n${child.stderr}`;
    if (verbose) console.log(text);
    return judge(text, status, timedOut ? limitMs : null);
  }
}
