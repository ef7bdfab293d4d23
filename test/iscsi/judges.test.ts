import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/units.ts';
import { MemoryLun } from '../../src/block/memory-lun.ts';
import { Target } from '../../src/scsi/target.ts';
import { Initiator, TARGET_NAME, textData, USUAL_KEYS } from '../support/iscsi-initiator.ts';
import { makeUnit, startPortal, type TestPortal, until } from '../support/iscsi-portal.ts';
import { RecordingProxy } from '../support/iscsi-recording.ts';
import { requireTool } from '../support/tools.ts';

/** Other people's initiators against the portal of this process. */

const execute = promisify(execFile);

let world: TestPortal;
let folder: string;

beforeAll(async () => {
  world = await startPortal({ sizeBytes: 64 * MIB });
  world.target.setLun(1, makeUnit(new MemoryLun(16 * MIB), 2, 4096));
  folder = mkdtempSync(join(tmpdir(), 'thinlun-judges-'));
});

afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await until(() => world.portal.connectionCount === 0, 'everybody logs out');
  expect(world.portal.memoryUsedBytes).toBe(0);
  await world.close();
});

async function run(tool: string, ...args: string[]): Promise<string> {
  const { stdout, stderr } = await execute(requireTool(tool), args, { timeout: 50_000, maxBuffer: 64 * MIB });
  return stdout + stderr;
}

describe('libiscsi', () => {
  it('finds the target and its units', async () => {
    const output = await run('iscsi-ls', '-s', world.portalUrl);
    expect(output).toContain(`Target:${TARGET_NAME} Portal:127.0.0.1:${world.port},1`);
    expect(output).toMatch(/Lun:0 +Type:DIRECT_ACCESS/);
    expect(output).toMatch(/Lun:1 +Type:DIRECT_ACCESS/);
  });

  it('inquires and reads the capacity', async () => {
    expect(await run('iscsi-inq', world.url)).toContain('Vendor:THINLUN');
    const capacity = await run('iscsi-readcapacity16', world.url);
    expect(capacity).toContain('RETURNED LOGICAL BLOCK ADDRESS:131071');
    expect(capacity).toContain(`Total size:${64 * MIB}`);
    const other = await run('iscsi-readcapacity16', world.url.replace(/0$/, '1'));
    expect(other).toContain('LOGICAL BLOCK LENGTH IN BYTES:4096');
  });

  it('reads at depth without an error', async () => {
    const output = await run('iscsi-perf', '-t', '2', '-m', '64', '-r', world.url);
    expect(output).toMatch(/iops average \d+/);
    expect(output).not.toMatch(/fail|error/i);
  });

  it('is told no when there is no such target', async () => {
    await expect(run('iscsi-inq', world.url.replace(':test', ':none'))).rejects.toThrow(/Target not found/i);
  });
});

describe('Wireshark', () => {
  it('decodes everything that is said without finding fault', async () => {
    const proxy = await RecordingProxy.start(world.port);
    const portal = `driver=iscsi,transport=tcp,portal=127.0.0.1:${proxy.port},target=${TARGET_NAME},lun=0`;
    const work = ['write -P 1 0 3M', 'write -P 2 3M 512', 'read -P 1 0 3M', 'discard 0 1M', 'read 0 1M', 'flush'];
    await run('qemu-io', '--image-opts', portal, ...work.flatMap((command) => ['-c', command]));
    await run('iscsi-ls', '-s', `iscsi://127.0.0.1:${proxy.port}`);
    const initiator = await Initiator.login(proxy.port, {
      keys: { ...USUAL_KEYS, HeaderDigest: 'CRC32C', DataDigest: 'CRC32C', MaxRecvDataSegmentLength: '4096' },
    });
    await initiator.settle();
    await initiator.writeBlocks(0, new Uint8Array(131072).fill(7));
    await initiator.readBlocks(0, 256);
    await initiator.command([0xff]);
    await initiator.ping();
    await initiator.text({ SendTargets: '' });
    initiator.sendText(textData({ Fnord: '1' }));
    initiator.sendTaskManagement(5);
    initiator.sendTaskManagement(1, { refTag: 77 });
    for (let i = 0; i < 3; i++) await initiator.receive();
    await initiator.logOut();
    await initiator.close();
    await proxy.close();
    const capture = join(folder, 'capture.pcap');
    writeFileSync(capture, proxy.pcap());
    const decode = (...args: string[]): Promise<string> =>
      run('tshark', '-r', capture, '-d', 'tcp.port==3260,iscsi', '-o', 'tcp.check_checksum:FALSE', ...args);
    const opcodes = new Set((await decode('-T', 'fields', '-e', 'iscsi.opcode')).match(/0x[0-9a-f]{2}/g));
    // Everything that the portal sends but the asynchronous message, and what it answers.
    for (const opcode of [
      '20',
      '21',
      '22',
      '23',
      '24',
      '25',
      '26',
      '31',
      '3f',
      '00',
      '01',
      '02',
      '03',
      '04',
      '05',
      '06',
    ]) {
      expect(opcodes, `opcode ${opcode}`).toContain(`0x${opcode}`);
    }
    const found = await decode('-Y', 'iscsi && (_ws.malformed || _ws.expert.severity >= "Warning")');
    // QEMU asks for 64 bytes of a longer page; the dissector calls what is cut off malformed.
    const faults = found.split('\n').filter((line) => /SCSI/.test(line) && !line.includes('Inquiry Response Data'));
    expect(faults).toEqual([]);
    const text = await decode('-V');
    expect(text.match(/Header ?Digest: 0x\w+ \(Good CRC32\)/g)?.length).toBeGreaterThan(50);
    expect(text.match(/Data ?Digest: 0x\w+ \(Good CRC32\)/g)?.length).toBeGreaterThan(30);
    expect(text).not.toMatch(/Malformed Packet: iSCSI|Bad CRC32|\(incorrect/i);
  });
});

describe('QEMU', () => {
  /** Addresses of one unit with what else the driver can do. */
  const options = (more: string, lun = 0): string =>
    `driver=iscsi,transport=tcp,portal=127.0.0.1:${world.port},target=${TARGET_NAME},lun=${lun},${more}`;

  it('sees the size', async () => {
    const info = JSON.parse(await run('qemu-img', 'info', '--output=json', world.url)) as Record<string, unknown>;
    expect(info['virtual-size']).toBe(64 * MIB);
  });

  it.each(['none', 'crc32c', 'crc32c-none', 'none-crc32c'])(
    'writes and reads patterns with header digest %s',
    async (digest) => {
      const commands = [
        'write -P 0x11 0 512',
        'write -P 0x22 512 3584',
        'write -P 0x33 4k 124k',
        'write -P 0x44 1M 8M',
        'writev -P 0x55 10M 512 4096 65536',
        'flush',
        'read -P 0x11 0 512',
        'read -P 0x22 512 3584',
        'read -P 0x33 4k 124k',
        'read -P 0x44 1M 8M',
        'read -P 0x55 10M 70144',
        'read -P 0x00 63M 1M',
        'aio_write -P 0x66 20M 1M',
        'aio_write -P 0x77 21M 1M',
        'aio_write -P 0x88 22M 1M',
        'aio_flush',
        'read -P 0x66 20M 1M',
        'read -P 0x77 21M 1M',
        'read -P 0x88 22M 1M',
        'discard 1M 8M',
        'read -P 0x00 1M 8M',
        'write -z 20M 1M',
        'read -P 0x00 20M 1M',
      ];
      const args = [
        '--image-opts',
        options(`header-digest=${digest}`),
        ...commands.flatMap((command) => ['-c', command]),
      ];
      const output = await run('qemu-io', ...args);
      expect(output).not.toMatch(/fail|error/i);
      expect(output.match(/^(?:read|wrote|discard) /gm)?.length).toBeGreaterThanOrEqual(19);
    },
  );

  it('notices what is not as it says: the judge can fail', async () => {
    const reading = run('qemu-io', '-f', 'raw', '-c', 'read -P 0x99 63M 512', world.url);
    await expect(reading).rejects.toMatchObject({ stdout: expect.stringContaining('Pattern verification failed') });
  });

  it('converts an image to a unit and back and finds them equal', async () => {
    const source = join(folder, 'source.raw');
    const bytes = Buffer.alloc(16 * MIB);
    for (let at = 0; at < bytes.length; at += 512 * 7) bytes.writeUInt32LE(at, at);
    bytes.fill(0, 4 * MIB, 9 * MIB);
    writeFileSync(source, bytes);
    const unit = world.url.replace(/0$/, '1');
    await run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', '-W', '-m', '8', source, unit);
    expect(await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', source, unit)).toContain('Images are identical');
    const back = join(folder, 'back.qcow2');
    await run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', unit, back);
    expect(await run('qemu-img', 'compare', '-F', 'qcow2', '-f', 'raw', source, back)).toContain(
      'Images are identical',
    );
  });

  it('benches reads and writes at depth', async () => {
    for (const args of [[], ['-w']]) {
      const output = await run(
        'qemu-img',
        'bench',
        '-f',
        'raw',
        ...args,
        '-c',
        '8000',
        '-d',
        '64',
        '-s',
        '4096',
        world.url,
      );
      expect(output).toContain('Run completed');
    }
  });

  it('works on two targets at once', async () => {
    const name = 'iqn.2026-01.org.thinlun:second';
    const target = new Target(name);
    target.setLun(0, makeUnit(new MemoryLun(8 * MIB), 3));
    world.targets.set(name, target);
    const second = world.url.replace(TARGET_NAME, name);
    const load = (url: string, byte: number): Promise<string> =>
      run('qemu-io', '-f', 'raw', '-c', `write -P ${byte} 0 8M`, '-c', `read -P ${byte} 0 8M`, url);
    for (const output of await Promise.all([load(world.url, 1), load(second, 2)])) expect(output).not.toMatch(/fail/i);
  });
});
