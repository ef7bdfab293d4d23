import type { Errno } from '../../../src/base/errors.ts';

/** How an operation ended: null is success. */
export type Outcome = Errno | null;

/** What both sides of a run begin with. */
export interface PoolSettings {
  blockSizeBytes: number;
  dataBlocks: number;
  metadataBlocks: number;
  volumeBlocks: number;
  /** The pool's features, in the kernel's words. */
  features: readonly string[];
  /** We write in place what only time says is shared; the kernel copies it, so that its mappings become younger. */
  exactSharing: boolean;
  /** An external origin of every device; null: none. */
  originPath: string | null;
}

/** A pool to which operations are done: the kernel's or ours. Devices are named by their dm-thin ids. */
export interface PoolSide {
  readonly name: string;
  metadataPath: string;
  dataPath: string;
  open(): Promise<void>;
  close(): Promise<void>;
  /** One of dm-thin's messages. */
  message(text: string): Promise<Outcome>;
  activate(id: number): Promise<Outcome>;
  deactivate(id: number): Promise<void>;
  read(id: number, offset: number, length: number): Promise<Uint8Array>;
  write(id: number, offset: number, bytes: Uint8Array): Promise<Outcome>;
  discard(id: number, offset: number, length: number): Promise<Outcome>;
  flush(id: number): Promise<Outcome>;
  /** Commits what has changed. */
  commit(): Promise<void>;
  growData(blocks: number): Promise<void>;
  growMetadata(blocks: number): Promise<void>;
  /** The target's status line; commits first unless told not to. */
  status(option?: 'noflush'): Promise<string>;
  deviceStatus(id: number): Promise<string>;
}
