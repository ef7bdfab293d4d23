/** Where the tests go: a server of our own for each profile, started again when it dies, or a URL that the user gave. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findTool } from '../support/debian-tools.mjs';
import { runOk } from '../support/processes.mjs';
import { ThinlunServer, thinlun } from '../support/thinlun-server.mjs';

const GIB = 2 ** 30;

/**
 * @typedef {object} Subject
 * @property {() => Promise<void>} start
 * @property {(test: string) => Promise<string>} prepare A LUN for the test; its URL, without a user.
 * @property {() => Promise<string | null>} afterTest What the server said when it died in the test, or null.
 * @property {() => Promise<string[]>} finish What is wrong after all tests.
 */

/** A LUN that runs already. @implements {Subject} */
export class GivenSubject {
  /** @param {string} url */
  constructor(url) {
    this.url = url;
  }

  async start() {}

  async prepare() {
    return this.url;
  }

  async afterTest() {
    return null;
  }

  async finish() {
    return [];
  }
}

/** A pool that is served for one profile. Each test has a volume of its own, so that none depends on those before it. @implements {Subject} */
export class PoolSubject {
  #folder = mkdtempSync(join(tmpdir(), 'thinlun-conformance-'));
  /** @type {ThinlunServer | null} */
  #server = null;
  /** @type {import('../../src/daemon/control-client.ts').ControlClient | null} */
  #control = null;
  #volume = '';

  /** @param {import('./profiles.mjs').Profile} profile */
  constructor(profile) {
    this.profile = profile;
  }

  get #pool() {
    return join(this.#folder, 'pool');
  }

  async start() {
    await thinlun('pool', 'create', this.#pool, '--data-size', '4G');
    const secretFile = join(this.#folder, 'secret');
    for (const { name, secret } of this.profile.users) {
      writeFileSync(secretFile, secret, { mode: 0o600 });
      await thinlun('access', 'allow', this.#pool, '*', '--user', name, '--secret-file', secretFile);
    }
    // One LUN that no test is run on: tests that are run on another one must leave it alone.
    await thinlun('volume', 'create', this.#pool, 'bystander', '--size', '64M');
    await this.#serve();
  }

  async #serve() {
    this.#server = await ThinlunServer.start([this.#pool]);
    // @ts-expect-error: the built program, which is not there when types are checked.
    const { ControlClient } = await import('../../dist/daemon/control-client.js');
    this.#control = await ControlClient.connect(this.#pool);
  }

  /** @param {string} test */
  async prepare(test) {
    if (!this.#server || !this.#control) throw new Error('the server does not run');
    if (this.#volume !== '') await this.#control.deleteVolume(this.#volume);
    this.#volume = test.replace(/^ALL\./, '');
    const settings = { logicalBlockSize: 512, ...this.profile.volume };
    const { lun } = await this.#control.createVolume({ name: this.#volume, sizeBytes: GIB, ...settings });
    const { target } = this.#server.luns[0] ?? { target: '' };
    return `iscsi://${this.#server.host}:${this.#server.port}/${target}/${lun}`;
  }

  async afterTest() {
    if (!this.#server || this.#server.isRunning) return null;
    const said = this.#server.process.describeOutput().slice(-2000);
    await this.#control?.close();
    await this.#serve();
    return said;
  }

  async finish() {
    /** @type {string[]} */
    const problems = [];
    try {
      await this.#control?.close();
      await this.#server?.stop();
      await thinlun('check', this.#pool);
      if (findTool('thin_check')) await runOk('thin_check', [join(this.#pool, 'metadata')]);
    } catch (error) {
      problems.push(`profile ${this.profile.id}: ${error instanceof Error ? error.message : String(error)}`);
    }
    rmSync(this.#folder, { recursive: true, force: true });
    return problems;
  }
}
