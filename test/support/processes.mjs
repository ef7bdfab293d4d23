/**
 * Programs that a test starts. Each gets a process group of its own, which is ended by its id, whatever happens: by `stop`, when
 * this process exits, or (where `THINLUN_TEST_GROUPS` names a folder) by `test/run.mjs` if this process was killed.
 * Plain JavaScript, because benchmarks and conformance runs use it without a build step.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { searchPath } from './debian-tools.mjs';

/** Characters of output kept from the beginning, and as many from the end. */
const OUTPUT_KEEP = 128 * 1024;

/** Output that cannot grow without bound: its beginning and its end. */
export class BoundedText {
  #head = '';
  #tail = '';
  #dropped = 0;

  /** @param {string} text */
  add(text) {
    const room = OUTPUT_KEEP - this.#head.length;
    this.#head += text.slice(0, room);
    if (text.length <= room) return;
    this.#tail += text.slice(room);
    if (this.#tail.length > 2 * OUTPUT_KEEP) {
      this.#dropped += this.#tail.length - OUTPUT_KEEP;
      this.#tail = this.#tail.slice(-OUTPUT_KEEP);
    }
  }

  /** @returns {string} */
  toString() {
    return this.#dropped === 0
      ? this.#head + this.#tail
      : `${this.#head}\n[... ${this.#dropped} characters left out ...]\n${this.#tail}`;
  }
}

/**
 * @typedef {object} StartOptions
 * @property {string} [cwd]
 * @property {Record<string, string>} [env] Added to this process's environment.
 * @property {string} [input] Written to standard input, which is then closed. Without it there is no standard input.
 */

/**
 * @typedef {object} ExitStatus
 * @property {number | null} code
 * @property {NodeJS.Signals | null} signal
 */

/** @type {Set<TestProcess>} */
const running = new Set();
let exitHookSet = false;

/** A running program with its output so far. */
export class TestProcess {
  /** @type {string} */
  commandLine;
  stdout = new BoundedText();
  stderr = new BoundedText();
  /** @type {ExitStatus | null} */
  exitStatus = null;
  /** @type {number} */
  pid;
  /** Resolves when the process has ended and its output is complete. Never rejects. @type {Promise<ExitStatus>} */
  exited;
  /** Output since the last line break, of standard output and standard error. */
  #partial = ['', ''];
  /** @type {Set<(line: string) => void>} */
  #lineWatchers = new Set();

  /**
   * Starts `program`. One that cannot be started ends at once with status 127 and the reason on standard error, as in a shell.
   * @param {string} program
   * @param {readonly string[]} args
   * @param {StartOptions} [options]
   */
  constructor(program, args, options = {}) {
    this.commandLine = [program, ...args].join(' ');
    const child = spawn(program, [...args], {
      cwd: options.cwd,
      env: { ...process.env, PATH: searchPath(), ...options.env },
      detached: true,
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    });
    this.pid = child.pid ?? -1;
    this.exited = new Promise((resolve) => {
      child.once('error', (error) => {
        this.stderr.add(`${error.message}\n`);
        if (this.pid === -1) resolve(this.#ended(127, null));
      });
      // What it left behind in its group would keep the pipes open, and `close` would never come.
      child.once('exit', () => this.#endGroup());
      child.once('close', (code, signal) => resolve(this.#ended(code, signal)));
    });
    child.stdout?.setEncoding('utf8').on('data', (text) => this.#output(0, text));
    child.stderr?.setEncoding('utf8').on('data', (text) => this.#output(1, text));
    if (options.input !== undefined) {
      child.stdin?.on('error', () => {}); // It may end without having read everything.
      child.stdin?.end(options.input);
    }
    if (this.pid !== -1) {
      running.add(this);
      recordGroup(this.pid);
      hookExit();
    }
  }

  /**
   * Resolves with the match of the first output line, of those already written or still to come, that `pattern` matches.
   * @param {RegExp} pattern
   * @param {number} [timeoutMs]
   * @returns {Promise<RegExpExecArray>}
   */
  waitForLine(pattern, timeoutMs = 20_000) {
    for (const line of `${this.stdout}\n${this.stderr}`.split('\n')) {
      const match = pattern.exec(line);
      if (match) return Promise.resolve(match);
    }
    return new Promise((resolve, reject) => {
      /** @param {string} line */
      const watcher = (line) => {
        const match = pattern.exec(line);
        if (!match) return;
        done();
        resolve(match);
      };
      /** @param {string} what */
      const fail = (what) => {
        done();
        reject(new Error(`${this.commandLine}: ${what} before a line matched ${pattern}\n${this.describeOutput()}`));
      };
      const timer = setTimeout(() => fail(`${timeoutMs} ms went by`), timeoutMs);
      const done = () => {
        clearTimeout(timer);
        this.#lineWatchers.delete(watcher);
      };
      this.#lineWatchers.add(watcher);
      this.exited.then(() => {
        if (this.#lineWatchers.has(watcher)) fail('it ended');
      });
    });
  }

  /**
   * Calls `watcher` with every line of output that comes from now on, until what is returned is called.
   * @param {(line: string) => void} watcher
   * @returns {() => void}
   */
  watchLines(watcher) {
    this.#lineWatchers.add(watcher);
    return () => this.#lineWatchers.delete(watcher);
  }

  /**
   * Resolves when it has ended; rejects (and kills it) when that takes longer.
   * @param {number} timeoutMs
   * @returns {Promise<ExitStatus>}
   */
  async waitForExit(timeoutMs) {
    /** @type {NodeJS.Timeout | undefined} */
    let timer;
    const timeout = new Promise((resolve) => {
      timer = setTimeout(resolve, timeoutMs, null);
    });
    const status = await Promise.race([this.exited, timeout]);
    clearTimeout(timer);
    if (status !== null) return /** @type {ExitStatus} */ (status);
    this.signalGroup('SIGKILL');
    throw new Error(`${this.commandLine}: still running after ${timeoutMs} ms\n${this.describeOutput()}`);
  }

  /**
   * Sends a signal to the program and everything it started in its group. Does nothing when it has ended.
   * @param {NodeJS.Signals} signal
   */
  signalGroup(signal) {
    if (this.exitStatus !== null || this.pid === -1) return;
    try {
      process.kill(-this.pid, signal);
    } catch {
      // Ended in between.
    }
  }

  /**
   * SIGTERM, and SIGKILL when it has not ended within `graceMs`. Resolves when it has ended.
   * @param {number} [graceMs]
   * @returns {Promise<ExitStatus>}
   */
  async stop(graceMs = 10_000) {
    this.signalGroup('SIGTERM');
    const timer = setTimeout(() => this.signalGroup('SIGKILL'), graceMs);
    const status = await this.exited;
    clearTimeout(timer);
    return status;
  }

  /** SIGKILL at once: what a crash is. Resolves when it has ended. @returns {Promise<ExitStatus>} */
  kill() {
    this.signalGroup('SIGKILL');
    return this.exited;
  }

  /** What it printed, for messages. @returns {string} */
  describeOutput() {
    return `--- stdout\n${this.stdout}\n--- stderr\n${this.stderr}`;
  }

  /** @param {0 | 1} stream @param {string} text */
  #output(stream, text) {
    (stream === 0 ? this.stdout : this.stderr).add(text);
    const lines = (this.#partial[stream] + text).split('\n');
    this.#partial[stream] = (lines.pop() ?? '').slice(-OUTPUT_KEEP);
    for (const line of lines) for (const watcher of [...this.#lineWatchers]) watcher(line);
  }

  /** @param {number | null} code @param {NodeJS.Signals | null} signal */
  #ended(code, signal) {
    for (const rest of this.#partial) for (const watcher of [...this.#lineWatchers]) watcher(rest);
    running.delete(this);
    if (this.pid !== -1) forgetGroup(this.pid);
    this.exitStatus = { code, signal };
    return this.exitStatus;
  }

  #endGroup() {
    try {
      process.kill(-this.pid, 'SIGKILL');
    } catch {
      // Nobody left.
    }
  }
}

/**
 * @typedef {object} RunResult
 * @property {number | null} code
 * @property {NodeJS.Signals | null} signal
 * @property {string} stdout
 * @property {string} stderr
 */

/**
 * Runs a program to its end. Rejects when it takes longer than `timeoutMs`; any exit status is a result.
 * @param {string} program
 * @param {readonly string[]} args
 * @param {StartOptions & { timeoutMs?: number }} [options]
 * @returns {Promise<RunResult>}
 */
export async function run(program, args, options = {}) {
  const child = new TestProcess(program, args, options);
  const status = await child.waitForExit(options.timeoutMs ?? 30_000);
  return { ...status, stdout: child.stdout.toString(), stderr: child.stderr.toString() };
}

/**
 * As `run`, but anything else than exit status 0 rejects with the output. Resolves with standard output.
 * @param {string} program
 * @param {readonly string[]} args
 * @param {StartOptions & { timeoutMs?: number }} [options]
 * @returns {Promise<string>}
 */
export async function runOk(program, args, options = {}) {
  const result = await run(program, args, options);
  if (result.code === 0) return result.stdout;
  const how = result.signal ?? `exit status ${result.code}`;
  throw new Error(
    `${[program, ...args].join(' ')}: ${how}\n--- stdout\n${result.stdout}\n--- stderr\n${result.stderr}`,
  );
}

/**
 * Ends the process groups that a killed test process left behind, as recorded in `folder`. For `test/run.mjs`.
 * @param {string} folder
 * @returns {number} how many there were
 */
export function endRecordedGroups(folder) {
  let count = 0;
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const pid = Number(name);
    try {
      // The id may have been given to somebody else since: the start time tells.
      if (readFileSync(join(folder, name), 'utf8') === startTimeOf(pid)) {
        process.kill(-pid, 'SIGKILL');
        count++;
      }
    } catch {
      // Gone by itself.
    }
    rmSync(join(folder, name), { force: true });
  }
  return count;
}

/** Clock ticks since boot at which `pid` started; throws when there is no such process. @param {number} pid */
function startTimeOf(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // Field 2 is the name in brackets and may hold anything; field 22 is the start time.
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

/** @param {number} pid */
function recordGroup(pid) {
  const folder = process.env.THINLUN_TEST_GROUPS;
  if (!folder) return;
  try {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, String(pid)), startTimeOf(pid));
  } catch {
    // It has ended already.
  }
}

/** @param {number} pid */
function forgetGroup(pid) {
  const folder = process.env.THINLUN_TEST_GROUPS;
  if (folder) rmSync(join(folder, String(pid)), { force: true });
}

function hookExit() {
  if (exitHookSet) return;
  exitHookSet = true;
  process.once('exit', () => {
    for (const child of running) child.signalGroup('SIGKILL');
  });
}
