import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import { Pool } from '../../src/thin/pool.ts';
import { expectBytes, LunClient, pattern } from '../support/lun-client.ts';
import { run } from '../support/processes.mjs';
import { requireTool } from '../support/tools.ts';
import { COMMAND, createPool, createVolume, serve, temporaryFolder, thinlun, volumesOf } from './command.ts';

/** Writes into a volume of a pool that no server has. */
async function write(dir: string, name: string, offset: number, bytes: Uint8Array): Promise<void> {
  const pool = await Pool.open(dir);
  await new LunClient(pool.openVolume(name)).write(offset, bytes);
  await pool.close();
}

async function contentOf(dir: string, name: string): Promise<Uint8Array> {
  const pool = await Pool.open(dir);
  const bytes = await new LunClient(pool.openVolume(name)).read(0, 64 * MIB);
  await pool.close();
  return bytes;
}

/** A command line with pipes, as in a shell. */
async function shell(line: string): Promise<void> {
  const result = await run('bash', [
    '-o',
    'pipefail',
    '-c',
    line.replace(/\bthinlun (?=send|receive)/g, `${COMMAND} `),
  ]);
  expect(result.stderr.toString()).toBe('');
  expect(result.code).toBe(0);
}

async function names(dir: string): Promise<string[]> {
  return (await volumesOf(dir)).map(
    ({ name, receivedBytes }) => `${name}${receivedBytes === null ? '' : ` (${receivedBytes})`}`,
  );
}

async function filledPool(megabytes: number): Promise<string> {
  const dir = await createPool('source');
  await createVolume(dir, 'web');
  await write(dir, 'web', 0, pattern(megabytes * MIB, 1));
  return dir;
}

/** Starts the command with a standard input that stays open and a standard output that nobody reads. */
function startOpen(args: readonly string[]): {
  child: ReturnType<typeof spawn>;
  ended: Promise<number>;
  stderr: () => string;
} {
  const child = spawn(COMMAND, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  let text = '';
  child.stderr!.on('data', (chunk) => {
    text += chunk;
  });
  child.stdin!.on('error', () => {});
  const ended = once(child, 'close').then(([code]) => code as number);
  return { child, ended, stderr: () => text };
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}

describe('send and receive', () => {
  it.each([
    ['without a server', false],
    ['at servers', true],
  ])('bring a volume and what changes of it to another pool, through a pipe, %s', async (_, served) => {
    const source = await filledPool(5);
    const target = await createPool('target');
    const both = async (line: string): Promise<void> => {
      const servers = served ? [await serve([source]), await serve([target])] : [];
      await shell(line);
      for (const server of servers) expect(await server.stop()).toEqual({ code: 0, signal: null });
    };
    await both(`thinlun send ${source} web --keep a | thinlun receive ${target} copy --quiet`);
    await write(source, 'web', 3 * MIB + 512, pattern(MIB, 2));
    await both(`thinlun send ${source} web --from a --keep b | thinlun receive ${target} copy --quiet`);
    expectBytes(await contentOf(target, 'copy'), await contentOf(source, 'b'));
    expectBytes(await contentOf(target, 'copy'), await contentOf(source, 'web'));
    expect(await names(source)).toEqual(['web', 'a', 'b']);
    expect(await names(target)).toEqual(['copy']);
    expect((await thinlun(['volume', 'list', target])).stdout.toString()).toMatch(/copy +0 +1 GiB +5 MiB +512 +ro/);
  });

  it('serve what was received read-only, as soon as it is whole, and nothing before', async () => {
    const source = await filledPool(3);
    const target = await createPool('target');
    const file = join(temporaryFolder(), 'stream');
    expect((await thinlun(['send', source, 'web', '-o', file])).stdout.toString()).toBe(
      `Wrote 3 MiB to ${file}.\n`.replace('3 MiB', formatOf(file)),
    );
    await serve([target, '--json']);
    const cut = join(temporaryFolder(), 'cut');
    writeFileSync(cut, readFileSync(file).subarray(0, 2 * MIB));
    const failed = await thinlun(['receive', target, 'copy', '-i', cut]);
    expect(failed.code).toBe(1);
    expect(failed.stderr.toString()).toBe(
      `thinlun: The stream was cut off after ${2 * MIB} bytes\n` +
        `  What has come is kept as "copy", which nobody can use. Go on with "thinlun send ... --resume TOKEN", with the token that ` +
        `"thinlun receive ${target} copy --resume-token" prints, or give it up with "thinlun volume delete ${target} copy".\n`,
    );
    expect(await names(target)).toEqual([`copy (${MIB})`]);
    const taken = await thinlun(['volume', 'snapshot', target, 'copy', 'x']);
    expect(taken.stderr.toString()).toContain('it has not been received whole');
    expect((await thinlun(['receive', target, 'copy', '-i', file])).stdout.toString()).toBe(
      'Received the volume "copy": 1 GiB, read-only.\n',
    );
    expect(await names(target)).toEqual(['copy']);
  });

  it('go on where a stream was cut off', async () => {
    const source = await filledPool(6);
    const target = await createPool('target');
    const file = join(temporaryFolder(), 'stream');
    await shell(`thinlun send ${source} web --keep a > ${file}`);
    writeFileSync(file, readFileSync(file).subarray(0, 4_000_000));
    expect((await thinlun(['receive', target, 'copy', '-i', file])).code).toBe(1);
    const token = (await thinlun(['receive', target, 'copy', '--resume-token'])).stdout.toString().trim();
    await shell(`thinlun send ${source} a --resume ${token} | thinlun receive ${target} copy --quiet`);
    expectBytes(await contentOf(target, 'copy'), await contentOf(source, 'a'));
  });

  it('refuse a stream in which one bit is wrong', async () => {
    const source = await filledPool(2);
    const target = await createPool('target');
    const file = join(temporaryFolder(), 'stream');
    await shell(`thinlun send ${source} web > ${file}`);
    const bytes = readFileSync(file);
    bytes[MIB + 300_000]! ^= 16;
    writeFileSync(file, bytes);
    for (const served of [false, true]) {
      const server = served ? await serve([target]) : null;
      const { code, stderr } = await thinlun(['receive', target, 'copy', '-i', file]);
      expect(code).toBe(1);
      expect(stderr.toString()).toMatch(
        /^thinlun: Cannot read the stream: a record has checksum \d+, expected \d+ \(at byte \d+\)\n {2}What has come is kept as "copy"/,
      );
      await server?.stop();
    }
    expect(await names(target)).toEqual([`copy (${MIB})`]);
  });

  it.each([
    ['without a server', false],
    ['at a server', true],
  ])('end on Ctrl-C with nothing left behind that is not told, %s', async (_, served) => {
    const source = await filledPool(40);
    const target = await createPool('target');
    if (served) {
      await serve([source]);
      await serve([target]);
    }
    const sender = startOpen(['send', source, 'web']);
    const stream: Buffer[] = [];
    sender.child.stdout!.on('data', (chunk: Buffer) => {
      stream.push(chunk);
      if (Buffer.concat(stream).length > 3 * MIB) sender.child.stdout!.pause();
    });
    await until(() => sender.child.stdout!.isPaused());
    sender.child.kill('SIGINT');
    expect(await once(sender.child, 'exit')).toEqual([130, null]);
    expect(sender.stderr()).toBe('thinlun: Stopped by SIGINT\n');
    await until(async () => (await names(source)).length === 1);

    const receiver = startOpen(['receive', target, 'copy']);
    receiver.child.stdin!.write(Buffer.concat(stream).subarray(0, 3 * MIB));
    if (served) await until(async () => (await names(target)).length === 1);
    else await new Promise((resolve) => setTimeout(resolve, 1500));
    receiver.child.kill('SIGINT');
    expect(await receiver.ended).toBe(130);
    expect(receiver.stderr()).toContain('thinlun: Stopped by SIGINT\n');
    expect(receiver.stderr()).toContain('receive');
    await until(async () => (await names(target))[0]?.startsWith('copy (') ?? false);
  });

  it('go on after the receiver was killed', async () => {
    const source = await filledPool(6);
    const target = await createPool('target');
    const file = join(temporaryFolder(), 'stream');
    await shell(`thinlun send ${source} web --keep a > ${file}`);
    const receiver = startOpen(['receive', target, 'copy']);
    receiver.child.stdin!.write(readFileSync(file).subarray(0, 5 * MIB));
    await until(() => {
      const { pending, volumes } = JSON.parse(readFileSync(join(target, 'pool.json'), 'utf8'));
      return pending === undefined && volumes.length === 1;
    });
    receiver.child.kill('SIGKILL');
    await receiver.ended;
    expect(await names(target)).toEqual(['copy (0)']);
    await shell(
      `thinlun send ${source} a --resume $(thinlun receive ${target} copy --resume-token) | thinlun receive ${target} copy --quiet`,
    );
    expectBytes(await contentOf(target, 'copy'), await contentOf(source, 'a'));
  });

  it('leave no temporary snapshot behind when they are killed', async () => {
    const source = await filledPool(40);
    const sender = startOpen(['send', source, 'web']);
    await once(sender.child.stdout!, 'readable');
    sender.child.kill('SIGKILL');
    await sender.ended;
    expect(await names(source)).toEqual(['web']);
  });

  it('tell when the reader has gone away', async () => {
    const source = await filledPool(40);
    const result = await run('bash', [
      '-c',
      `${COMMAND} send ${source} web | head -c 100 > /dev/null; exit \${PIPESTATUS[0]}`,
    ]);
    expect(result.stderr.toString()).toBe('thinlun: Cannot write the output: its reader has gone away\n');
    expect(result.code).toBe(1);
  });

  it('write no stream to a terminal, and read none from it', async () => {
    const source = await createPool('source');
    await createVolume(source, 'web');
    const script = requireTool('script');
    for (const [args, message] of [
      [`send ${source} web`, 'A stream is nothing for a terminal: write it to a file with -o, or to another program'],
      [`receive ${source} copy`, 'A stream is expected on standard input or in a file (-i), and not from a terminal'],
    ]) {
      const result = await run(script, ['-qec', `${COMMAND} ${args}`, '/dev/null']);
      expect(result.stdout.toString()).toContain(message);
      expect(result.code).toBe(2);
    }
    expect(await names(source)).toEqual(['web']);
  });

  it('say what cannot be', async () => {
    const source = await createPool('source');
    await createVolume(source, 'web');
    const cases: [string[], number, string][] = [
      [['send', source, 'nothing'], 1, 'There is no volume "nothing" in the pool "source"'],
      [
        ['send', source, 'web', '--resume', 'x'],
        1,
        'Cannot read the token: it is not one that "thinlun receive --resume-token" printed',
      ],
      [['send', source, 'web', '--resume', 'x', '--keep', 'y'], 2, '--keep cannot be used with --resume'],
      [['receive', source, 'x', '--resume-token'], 1, 'There is no volume "x"'],
      [['receive', source, 'web', '--resume-token'], 1, 'it has been received whole, or was never received'],
      [['receive', source, 'x', '-i', '/nowhere'], 1, 'Cannot read "/nowhere": there is no such file'],
    ];
    for (const [args, code, message] of cases) {
      const result = await thinlun(args);
      expect(result.stderr.toString()).toContain(message);
      expect(result.code).toBe(code);
    }
  });
});

function formatOf(file: string): string {
  return `${(readFileSync(file).length / MIB).toFixed(2)} MiB`;
}
