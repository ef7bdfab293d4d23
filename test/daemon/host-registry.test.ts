import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { monotonicClock } from '../../src/base/clock.ts';
import { HostRegistry } from '../../src/daemon/host-registry.ts';
import { type TcmuEvent, TcmuEventKind } from '../../src/tcmu/genl.ts';
import { ADDON_PATH, requireAddon } from '../support/native-addon.ts';

describe('the servers of a host', () => {
  requireAddon();
  let runDir: string;
  const open: HostRegistry[] = [];
  beforeEach(() => {
    runDir = mkdtempSync(join(tmpdir(), 'thinlun-run-'));
  });
  afterEach(() => {
    for (const registry of open.splice(0)) registry.close();
    rmSync(runDir, { recursive: true });
  });

  function registry(): HostRegistry {
    const made = new HostRegistry({ runDir, clock: monotonicClock });
    open.push(made);
    return made;
  }

  async function serving(...names: string[]): Promise<HostRegistry> {
    const made = registry();
    for (const name of names) await made.claim(name, `/srv/${name}`);
    await made.enter(() => {});
    return made;
  }

  function event(kind: TcmuEvent['kind'], deviceId: number): TcmuEvent {
    const uioName = `tcm-user/0/dev${deviceId}/thin/a/vol`;
    return { kind, uioName, minor: deviceId, deviceId, devConfig: null, sizeBytes: null, writeCache: null };
  }

  it('know whose a device is', async () => {
    const one = await serving('a', 'b');
    const two = await serving('c');
    expect(one.server('a/vol')).toEqual({ is: 'ours' });
    expect(two.server('b/vol')).toEqual({ is: 'theirs', token: `${process.pid}` });
    expect(one.find('c')).toMatchObject({ pid: process.pid, directory: '/srv/c' });
    for (const strange of ['none/vol', '', '/', '../turn/x', 'a'.repeat(300)]) {
      expect(one.server(strange)).toEqual({ is: 'nobody' });
    }
    one.leave();
    expect(one.server('a/vol')).toEqual({ is: 'nobody' });
    expect(two.server('a/vol')).toEqual({ is: 'nobody' });
    expect(two.find('a')).toBeNull();
  });

  it('do not count one that has a pool and does not listen yet', async () => {
    const one = await serving('a');
    const two = registry();
    await two.claim('b', '/srv/b');
    expect([one.server('b/x').is, two.server('b/x').is]).toEqual(['nobody', 'nobody']);
    await two.enter(() => expect(one.server('b/x').is).toBe('nobody'));
    expect([one.server('b/x').is, two.server('b/x').is]).toEqual(['theirs', 'ours']);
  });

  it('have each name of a pool once, and say who has it', async () => {
    await serving('a');
    const failure = await registry()
      .claim('a', '/other/a')
      .catch((error: unknown) => error);
    expect(failure).toMatchObject({
      code: 'EEXIST',
      message: `Cannot serve the pool "/other/a" to LIO: process ${process.pid} serves a pool of the same name, a, from "/srv/a" already`,
    });
    open[0]!.close();
    await registry().claim('a', '/other/a');
  });

  it('forget one that was killed', async () => {
    const file = join(runDir, 'pools', 'a');
    const one = await serving('z');
    writeFileSync(file, JSON.stringify({ pid: 1, directory: '/srv/a', serving: true }));
    expect(one.server('a/vol')).toEqual({ is: 'nobody' }); // it has no lock
    const script = `const fs = require('fs'); require(${JSON.stringify(ADDON_PATH)}).flock(fs.openSync(${JSON.stringify(file)}), 'exclusive', true);
      console.log('locked'); setInterval(() => {}, 1000)`;
    const holder = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(holder.stdout, 'data');
    expect(one.server('a/vol')).toEqual({ is: 'theirs', token: '1' });
    expect([one.isServer(1), one.isServer(2), one.count()]).toEqual([true, false, 1]);
    holder.kill('SIGKILL');
    await once(holder, 'exit');
    expect(one.count()).toBe(0);
    expect(one.server('a/vol')).toEqual({ is: 'nobody' });
  });

  it('answer in place of others once, whoever comes first', async () => {
    const [one, two] = [await serving('b'), await serving('c')];
    const answers: string[] = [];
    const answer = async (who: HostRegistry, what: TcmuEvent, needed = true): Promise<boolean> => {
      const before = answers.length;
      await who.answerInPlace(
        what,
        () => needed,
        async () => void answers.push(`${what.kind} ${what.deviceId}`),
      );
      return answers.length > before;
    };
    const added = event(TcmuEventKind.ADDED, 1);
    expect(one.wasAnswered(added)).toBe(false);
    await Promise.all([answer(one, added), answer(two, added)]);
    expect(answers).toHaveLength(1);
    expect(await answer(two, event(TcmuEventKind.REMOVED, 2))).toBe(true);
    expect(await answer(one, event(TcmuEventKind.REMOVED, 2))).toBe(false);
    expect(await answer(one, event(TcmuEventKind.ADDED, 3), false)).toBe(false);
    expect(answers).toEqual(['1 1', '2 2']);
    expect([one.wasAnswered(added), two.wasAnswered(event(TcmuEventKind.ADDED, 3))]).toEqual([true, false]);
    // Changes of a device look all the same: one process answers all of them.
    const change = event(TcmuEventKind.RECONFIG, 1);
    expect([await answer(two, change), await answer(one, change), await answer(two, change)]).toEqual([
      true,
      false,
      true,
    ]);
    two.close();
    open.splice(open.indexOf(two), 1);
    expect(await answer(one, change)).toBe(true);
  });

  it('do not answer in place of others while one begins to serve', async () => {
    const one = await serving('b');
    const order: string[] = [];
    const two = registry();
    await two.claim('a', '/srv/a');
    let answered: Promise<void> | null = null;
    await two.enter(() => {
      answered = one.answerInPlace(
        event(TcmuEventKind.ADDED, 9),
        () => one.server('a/vol').is === 'nobody',
        async () => void order.push('answered'),
      );
      order.push('listening');
    });
    await answered;
    expect(order).toEqual(['listening']);
  });

  it('keep a bounded memory of what was answered', async () => {
    const one = await serving('b');
    for (let id = 0; id < 300; id++) {
      await one.answerInPlace(
        event(TcmuEventKind.ADDED, id),
        () => true,
        async () => {},
      );
    }
    expect([one.wasAnswered(event(1, 10)), one.wasAnswered(event(1, 44)), one.wasAnswered(event(1, 299))]).toEqual([
      false,
      true,
      true,
    ]);
    expect(readdirSync(runDir).sort()).toEqual(['answered', 'pools', 'turn']);
  });
});
