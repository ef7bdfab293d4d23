import { execFileSync } from 'node:child_process';
import { truncateSync } from 'node:fs';
import type { Errno } from '../../../src/base/errors.ts';
import { errnoOf } from '../../../src/base/errors.ts';
import { SECTOR_SIZE } from '../../../src/base/units.ts';
import { alignedMemory } from '../../../src/block/aligned-memory.ts';
import type { BlockDevice } from '../../../src/block/block-device.ts';
import { openBlockDevice } from '../../../src/block/file-device.ts';
import { BLOCK_SIZE } from '../../../src/persistent-data/block.ts';
import { outcome, readBytes } from '../../support/device-io.ts';
import type { Outcome, PoolSettings, PoolSide } from './pool-side.ts';

/** strerror(3), as dmsetup prints it. */
const ERRORS: Readonly<Record<string, Errno>> = {
  'Device or resource busy': 'EBUSY',
  'File exists': 'EEXIST',
  'Input/output error': 'EIO',
  'Invalid argument': 'EINVAL',
  'No data available': 'ENODATA',
  'No space left on device': 'ENOSPC',
  'Operation not permitted': 'EPERM',
  'Operation not supported': 'EOPNOTSUPP',
};

/** Without the newline. */
function lineOf(text: string): string {
  return text.slice(0, text.indexOf('\n'));
}

function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: 'pipe' });
}

/** The kernel's thin-pool and thin targets on loop devices. */
export class KernelSide implements PoolSide {
  readonly name = 'kernel';
  metadataPath: string;
  dataPath: string;
  readonly #settings: PoolSettings;
  readonly #thins: Map<number, BlockDevice> = new Map();
  #dataBlocks: number;
  #metadataLoop = '';
  #dataLoop = '';
  #originLoop = '';

  constructor(settings: PoolSettings, metadataPath: string, dataPath: string) {
    this.#settings = settings;
    this.metadataPath = metadataPath;
    this.dataPath = dataPath;
    this.#dataBlocks = settings.dataBlocks;
  }

  async open(): Promise<void> {
    this.#metadataLoop = run('losetup', '--find', '--show', this.metadataPath).trim();
    this.#dataLoop = run('losetup', '--find', '--show', this.dataPath).trim();
    const { originPath } = this.#settings;
    if (originPath !== null) {
      this.#originLoop = run('losetup', '--find', '--show', '--read-only', originPath).trim();
    }
    run('dmsetup', 'create', 'pool', '--table', this.#table());
    run('dmsetup', 'mknodes', 'pool');
  }

  async close(): Promise<void> {
    for (const id of [...this.#thins.keys()]) await this.deactivate(id);
    run('dmsetup', 'remove', 'pool');
    const loops = [this.#metadataLoop, this.#dataLoop, this.#originLoop].filter((loop) => loop !== '');
    run('losetup', '-d', ...loops);
  }

  async message(text: string): Promise<Outcome> {
    const origin = /^create_snap \d+ (\d+)$/.exec(text)?.[1];
    const active = origin !== undefined && this.#thins.has(Number(origin));
    if (active) run('dmsetup', 'suspend', `thin${origin}`);
    try {
      return this.#try('message', 'pool', '0', text);
    } finally {
      if (active) run('dmsetup', 'resume', `thin${origin}`);
    }
  }

  async activate(id: number): Promise<Outcome> {
    const { volumeBlocks, blockSizeBytes } = this.#settings;
    const sectors = (volumeBlocks * blockSizeBytes) / SECTOR_SIZE;
    const table = `0 ${sectors} thin /dev/mapper/pool ${id} ${this.#originLoop}`;
    const error = this.#try('create', `thin${id}`, '--table', table.trimEnd());
    if (error !== null) return error;
    run('dmsetup', 'mknodes', `thin${id}`);
    this.#thins.set(id, openBlockDevice(`/dev/mapper/thin${id}`, { direct: true, engine: 'fs' }));
    return null;
  }

  async deactivate(id: number): Promise<void> {
    await this.#thins.get(id)!.close();
    this.#thins.delete(id);
    run('dmsetup', 'remove', `thin${id}`);
  }

  read(id: number, offset: number, length: number): Promise<Uint8Array> {
    return readBytes(this.#thins.get(id)!, offset, length);
  }

  write(id: number, offset: number, bytes: Uint8Array): Promise<Outcome> {
    const device = this.#thins.get(id)!;
    const memory = alignedMemory(bytes.length);
    memory.set(bytes);
    return outcome(device, (completion) => device.write(offset, memory, 0, memory.length, completion));
  }

  discard(id: number, offset: number, length: number): Promise<Outcome> {
    const device = this.#thins.get(id)!;
    return outcome(device, (completion) => device.discard(offset, length, completion));
  }

  flush(id: number): Promise<Outcome> {
    const device = this.#thins.get(id)!;
    return outcome(device, (completion) => device.flush(completion));
  }

  async commit(): Promise<void> {
    run('dmsetup', 'status', 'pool');
  }

  async growData(blocks: number): Promise<void> {
    truncateSync(this.dataPath, blocks * this.#settings.blockSizeBytes);
    this.#dataBlocks = blocks;
    run('losetup', '-c', this.#dataLoop);
    this.#reload();
  }

  async growMetadata(blocks: number): Promise<void> {
    truncateSync(this.metadataPath, blocks * BLOCK_SIZE);
    run('losetup', '-c', this.#metadataLoop);
    this.#reload();
  }

  async status(option?: 'noflush'): Promise<string> {
    return lineOf(run('dmsetup', 'status', ...(option === 'noflush' ? ['--noflush'] : []), 'pool'));
  }

  async deviceStatus(id: number): Promise<string> {
    return lineOf(run('dmsetup', 'status', `thin${id}`));
  }

  #table(): string {
    const { blockSizeBytes, features } = this.#settings;
    const sectors = blockSizeBytes / SECTOR_SIZE;
    const devices = `${this.#metadataLoop} ${this.#dataLoop}`;
    return `0 ${this.#dataBlocks * sectors} thin-pool ${devices} ${sectors} 0 ${[features.length, ...features].join(' ')}`;
  }

  #reload(): void {
    run('dmsetup', 'suspend', 'pool');
    run('dmsetup', 'load', 'pool', '--table', this.#table());
    run('dmsetup', 'resume', 'pool');
  }

  #try(...args: string[]): Outcome {
    try {
      run('dmsetup', ...args);
      return null;
    } catch (error) {
      const said = String((error as { stderr?: unknown }).stderr ?? error);
      for (const [text, errno] of Object.entries(ERRORS)) if (said.includes(text)) return errno;
      throw new Error(`dmsetup ${args.join(' ')}: ${said} (${errnoOf(error)})`);
    }
  }
}
