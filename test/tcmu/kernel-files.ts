import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { TcmuPaths } from '../../src/tcmu/configfs.ts';

/** The kernel's files below a folder of ours. */
export class KernelFiles {
  readonly root: string;
  readonly paths: TcmuPaths;

  constructor(root: string) {
    this.root = root;
    const at = (name: string): string => join(root, name);
    this.paths = { dev: at('dev'), uioClass: at('uio'), core: at('core'), module: at('module'), proc: at('proc') };
    mkdirSync(this.paths.uioClass);
  }

  write(path: string, text: string): void {
    mkdirSync(dirname(join(this.root, path)), { recursive: true });
    writeFileSync(join(this.root, path), text);
  }

  addUio(minor: number, name: string): void {
    this.write(`uio/uio${minor}/name`, `${name}\n`);
  }

  removeUio(minor: number): void {
    rmSync(join(this.paths.uioClass, `uio${minor}`), { recursive: true });
  }

  /** A thread: of a process of the same number. */
  addThread(pid: number, comm: string, state: string, where: { wchan?: string; stack?: string } = {}): void {
    this.write(`proc/${pid}/comm`, `${comm}\n`);
    const task = `proc/${pid}/task/${pid}`;
    const rest = Array.from({ length: 18 }, (_, i) => i).join(' ');
    this.write(`${task}/stat`, `${pid} (${comm} )x) ${state} ${rest} ${1000 + pid} 0 0\n`);
    this.write(`${task}/wchan`, where.wchan ?? '0');
    this.write(`${task}/stack`, where.stack ?? '');
  }
}
