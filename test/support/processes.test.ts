import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BoundedText, endRecordedGroups, run, runOk, TestProcess } from './processes.mjs';

/** An orphan that nobody has waited for yet is a zombie, and ended. */
function isAlive(pid: string): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

describe('a test process', () => {
  it('is waited for by a line of its output, whether that came before or comes later', async () => {
    const child = new TestProcess('sh', ['-c', 'echo one; sleep 0.1; echo "two 22"; exec sleep 30']);
    expect((await child.waitForLine(/two (\d+)/))[1]).toBe('22');
    expect((await child.waitForLine(/^one$/))[0]).toBe('one');
    expect((await child.stop()).signal).toBe('SIGTERM');
  });

  it('fails a wait with its output when it ends without the line', async () => {
    const child = new TestProcess('sh', ['-c', 'echo oops >&2; exit 3']);
    await expect(child.waitForLine(/ready/)).rejects.toThrow(/it ended before[\s\S]*oops/);
  });

  it('takes its whole group with it', async () => {
    const child = new TestProcess('sh', ['-c', 'sleep 600 & echo "child $!"; wait']);
    const pid = (await child.waitForLine(/child (\d+)/))[1]!;
    await child.kill();
    await expect.poll(() => isAlive(pid)).toBe(false);
  });

  it('that left a child behind does not keep its reader waiting', async () => {
    const result = await run('sh', ['-c', 'sleep 600 & echo done'], { timeoutMs: 5000 });
    expect(result.stdout).toBe('done\n');
  });

  it('that cannot be started has status 127 and the reason', async () => {
    const result = await run('no-such-program-here', []);
    expect(result.code).toBe(127);
    expect(result.stderr).toMatch(/ENOENT/);
  });

  it('is killed when it takes too long', async () => {
    await expect(run('sleep', ['600'], { timeoutMs: 50 })).rejects.toThrow(/still running after 50 ms/);
  });

  it('reads what it is given, and runOk throws its output on a bad exit status', async () => {
    expect(await runOk('cat', [], { input: 'hello' })).toBe('hello');
    await expect(runOk('sh', ['-c', 'echo broken; exit 2'])).rejects.toThrow(/exit status 2[\s\S]*broken/);
  });

  it('is ended through its record when the process that started it was killed', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'thinlun-groups-'));
    const script = `import { TestProcess } from ${JSON.stringify(join(import.meta.dirname, 'processes.mjs'))};
      const child = new TestProcess('sleep', ['600']); console.log('pid', child.pid);`;
    const owner = new TestProcess(process.execPath, ['--input-type=module', '-e', script], {
      env: { THINLUN_TEST_GROUPS: folder },
    });
    const pid = (await owner.waitForLine(/pid (\d+)/))[1]!;
    await owner.kill();
    expect(isAlive(pid)).toBe(true);
    expect(readdirSync(folder)).toEqual([pid]);
    expect(endRecordedGroups(folder)).toBe(1);
    await expect.poll(() => isAlive(pid)).toBe(false);
    rmSync(folder, { recursive: true });
  });
});

describe('bounded text', () => {
  it('keeps the beginning and the end of what is too much', () => {
    const text = new BoundedText();
    text.add('first ');
    for (let i = 0; i < 1000; i++) text.add('x'.repeat(1000));
    text.add(' last');
    expect(text.toString().length).toBeLessThan(500_000);
    expect(text.toString()).toMatch(/^first x+\n\[\.\.\. \d+ characters left out \.\.\.\]\nx+ last$/);
  });
});
