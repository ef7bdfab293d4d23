import { copyFileSync, cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run, runOk } from '../support/processes.mjs';
import { COMMAND, ROOT, temporaryFolder, thinlun } from './command.ts';

const COMMANDS = [
  'pool create',
  'pool grow',
  'pool status',
  'check',
  'pack',
  'unpack',
  'metadata-size',
  'dump',
  'restore',
  'repair',
  'volume create',
  'volume list',
  'volume snapshot',
  'volume rename',
  'volume rollback',
  'volume resize',
  'volume delete',
  'volume reservations',
  'volume reservations clear',
  'message',
  'serve',
  'demo',
];

/** Of thin-provisioning-tools, as their help has them; each also has `-h, --help` and `-V, --version`. */
const OPTIONS_OF_1_1_0: Readonly<Record<string, string>> = {
  thin_check:
    '--auto-repair --clear-needs-check-flag --ignore-non-fatal-errors --metadata-snap --override-details-root --override-mapping-root --quiet --skip-mappings --super-block-only -m -q',
  thin_dump:
    '--data-block-size --dev-id --format --metadata-snap --nr-data-blocks --output --quiet --repair --skip-mappings --transaction-id -f -m -o -q -r',
  thin_restore: '--data-block-size --input --nr-data-blocks --output --quiet --transaction-id -i -o -q',
  thin_repair: '--data-block-size --input --nr-data-blocks --output --quiet --transaction-id -i -o -q',
  thin_ls: '--format --metadata-snap --no-headers -m -o',
  thin_rmap: '--region',
  thin_delta: '--metadata-snap --root1 --root2 --snap1 --snap2 --thin1 --thin2 --verbose -m',
  thin_trim: '--data-dev --metadata-dev --quiet -q',
  thin_metadata_size: '--block-size --max-thins --numeric-only --pool-size --unit -b -m -n -s -u',
  thin_metadata_pack: '--force --input --output -f -i -o',
  thin_metadata_unpack: '--force --input --output -f -i -o',
};

describe('the command', () => {
  it('prints its version', async () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
    for (const args of [['--version'], ['-V'], ['check', '-V'], ['metadata-size', '--version']]) {
      expect(await thinlun(args)).toMatchObject({ code: 0, stdout: `${version}\n`, stderr: '' });
    }
  });

  it.each([
    ['check', 'thin_check'],
    ['dump', 'thin_dump'],
    ['restore', 'thin_restore'],
    ['repair', 'thin_repair'],
    ['ls', 'thin_ls'],
    ['rmap', 'thin_rmap'],
    ['delta', 'thin_delta'],
    ['trim', 'thin_trim'],
    ['metadata-size', 'thin_metadata_size'],
    ['pack', 'thin_metadata_pack'],
    ['unpack', 'thin_metadata_unpack'],
  ])('%s knows every option of %s 1.1.0', async (name, tool) => {
    const { stdout } = await thinlun([name, '-h']);
    for (const option of `${OPTIONS_OF_1_1_0[tool]} -h --help -V --version`.split(' ')) {
      expect(stdout, option).toMatch(new RegExp(`(?:^|[ ,])${option}(?=[ ,=[]|$)`, 'm'));
    }
  });

  it.each(['', ...COMMANDS])('helps with "%s", by example', async (name) => {
    const result = await thinlun([...name.split(' ').filter(Boolean), '--help']);
    expect(result).toMatchObject({ code: 0, stderr: '' });
    expect(result.stdout).toMatch(/^Usage: thinlun/);
    expect(result.stdout).toContain(`Examples:\n  thinlun ${name}`);
  });

  it.each([[], ['pool'], ['volume']])('without a subcommand shows what there is: %s', async (...name) => {
    const result = await thinlun(name);
    expect(result).toMatchObject({ code: 2, stdout: '' });
    expect(result.stderr).toMatch(/^Usage: thinlun/);
  });

  it('runs from any folder and through a symbolic link', async () => {
    const link = join(temporaryFolder(), 'thinlun');
    symlinkSync(COMMAND, link);
    expect(await run(link, ['--version'], { cwd: '/' })).toMatchObject({ code: 0, stderr: '' });
  });

  it('runs where npm has installed it', async () => {
    const prefix = temporaryFolder();
    const packed = await runOk('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', prefix], {
      cwd: ROOT,
    });
    const { filename } = JSON.parse(packed)[0];
    const home = join(prefix, 'node_modules', 'thinlun');
    mkdirSync(home, { recursive: true });
    await runOk('tar', ['-xf', join(prefix, filename), '-C', home, '--strip-components=1']);
    symlinkSync(join(ROOT, 'node_modules'), join(home, 'node_modules'));
    mkdirSync(join(prefix, 'node_modules', '.bin'));
    const link = join(prefix, 'node_modules', '.bin', 'thinlun');
    symlinkSync('../thinlun/bin/thinlun', link);
    // The one from the bundle, the other from the ES modules; what a command may load later is packed as well.
    for (const args of [
      ['--version'],
      ['serve', '--help'],
      ['metadata-size', '--help'],
      ['pool', 'create', 'p', '--data-size', '1M'],
    ]) {
      expect(await run(link, args, { cwd: prefix })).toMatchObject({ code: 0, stderr: '' });
    }
    expect(readdirSync(home)).toEqual(
      expect.arrayContaining(['LICENSE', 'README.md', 'dist', 'native-bindings', 'docs']),
    );
  });

  it('says how to build it when it is not built', async () => {
    const home = temporaryFolder();
    cpSync(dirname(COMMAND), join(home, 'bin'), { recursive: true });
    copyFileSync(join(ROOT, 'package.json'), join(home, 'package.json'));
    const result = await run(join(home, 'bin', 'thinlun'), ['--version']);
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toMatch(
      /^thinlun: Cannot start: the program is not built yet\n {2}Run "npm ci && npm run build" in /,
    );
  });
});

describe('a wrong command line is refused with one line that says what is wrong:', () => {
  const dir = '/nonexistent/pool';
  it.each([
    ['an unknown command', ['frobnicate'], /unknown command 'frobnicate'/],
    ['an unknown subcommand', ['pool', 'drop'], /unknown command 'drop'/],
    ['an unknown option', ['pool', 'status', dir, '--sise'], /unknown option '--sise'/],
    ['an option with a letter off', ['volume', 'create', dir, 'a', '--size', '1G', '--jsn'], /Did you mean --json\?/],
    ['a missing folder', ['pool', 'status'], /missing required argument 'dir'/],
    ['a missing size', ['volume', 'create', dir, 'a'], /say how large it is, with --size 1G/],
    ['a size without a value', ['volume', 'create', dir, 'a', '--size'], /'--size <size>' argument missing/],
    ['too many arguments', ['volume', 'list', dir, 'more'], /too many arguments/],
    ['a size that is none', ['volume', 'create', dir, 'a', '--size', '1x'], /Cannot read size "1x"/],
    ['a negative size', ['volume', 'create', dir, 'a', '--size', '-1G'], /Cannot read size "-1G"/],
    ['a size of a fraction of a byte', ['volume', 'create', dir, 'a', '--size', '0.3'], /not a whole number of bytes/],
    ['a size of nothing', ['volume', 'resize', dir, 'a', '--size', '0'], /more than nothing/],
    ['a size beyond every number', ['volume', 'create', dir, 'a', '--size', '9000P'], /not a whole number of bytes/],
    ['a name with a slash', ['volume', 'create', dir, 'a/b', '--size', '1G'], /A name has letters/],
    ['a name that begins with a dash', ['volume', 'create', '--size', '1G', dir, '--', '-a'], /A name has letters/],
    ['no name at all', ['volume', 'create', dir, '', '--size', '1G'], /A name has letters/],
    [
      'a block size that does not exist',
      ['volume', 'create', dir, 'a', '--size', '1G', '--logical-block-size', '520'],
      /512 or 4096/,
    ],
    ['no size and no device for a pool', ['pool', 'create', dir], /--data-size 10G/],
    ['a portal that is none', ['serve', dir, '--portal', '::1'], /Cannot read portal "::1"/],
    ['a portal twice', ['serve', dir, '--portal', '[::1]', '--portal', '[::1]:3260,2'], /\[::1\]:3260 is given twice/],
    ['a port that is none', ['serve', dir, '--portal', '127.0.0.1:65536'], /a port is at most 65535/],
    ['a log level that is none', ['serve', dir, '--log-level', 'loud'], /Choose from debug, info/],
    ['nothing to serve on', ['serve', dir, '--no-portal'], /needs --tcmu/],
    ['no pool to serve', ['serve'], /missing required argument 'dir'/],
    ['an argument of demo', ['demo', dir], /too many arguments/],
  ] as const)('%s', async (_what, args, reason) => {
    const result = await thinlun(args);
    expect(result).toMatchObject({ code: 2, stdout: '' });
    expect(result.stderr).toMatch(/^thinlun: [^\n]+\n$/);
    expect(result.stderr).toMatch(reason);
  });
});

describe('a failure', () => {
  it('is a line with action and reason, and one with what to do', async () => {
    const result = await thinlun(['pool', 'status', '/nonexistent/pool']);
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toBe(
      'thinlun: Cannot open the pool "/nonexistent/pool": there is no such folder\n' +
        '  Make a pool with "thinlun pool create /nonexistent/pool --data-size 10G".\n',
    );
  });

  it.each([['pool', 'status'], ['serve']])(
    'of "%s" shows where in the sources it happened only on demand',
    async (...words) => {
      const args = [...words, '/nonexistent/pool'];
      const result = await thinlun(args, { env: { THINLUN_DEBUG: '1' } });
      expect(result.stderr).toMatch(/^\s+at requirePool \(.*src\/daemon\/pool-access\.ts:\d+:\d+\)$/m);
      expect((await thinlun(args)).stderr).not.toMatch(/^\s+at /m);
    },
  );

  it('to write the output, as on a full disk, is one', async () => {
    const result = await run('sh', ['-c', `exec "$0" --help >/dev/full`, COMMAND]);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/^thinlun: Cannot write the output: .*ENOSPC/);
  });

  it('is not that the reader of the output went away', async () => {
    const script = `set -o pipefail; "$0" --help | true; echo "$?"`;
    const result = await run('bash', ['-c', script, COMMAND]);
    expect(result).toMatchObject({ stdout: '0\n', stderr: '' });
  });

  it('is told by its exit status also when nobody reads why', async () => {
    for (const reader of ['>(true)', '/dev/full']) {
      const script = `exec 2> ${reader}; sleep 0.3; "$0" pool status /nonexistent/pool; echo "$?"`;
      expect(await run('bash', ['-c', script, COMMAND])).toMatchObject({ stdout: '1\n' });
    }
  });
});
