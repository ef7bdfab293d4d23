import { StorageError } from '../base/errors.ts';
import type { BlockDevice } from '../block/block-device.ts';
import type { DiffNodes } from '../thin/mapping-diff.ts';
import { type Damage, describeDamage } from './damage.ts';
import { MetadataReader } from './metadata-reader.ts';
import { checkSuperblockFields, magicDamage, readSuperblockFields, type SuperblockFields } from './superblock-check.ts';
import { DetailsVisitor, type Device, DeviceIdVisitor } from './thin-visitors.ts';
import { NodeView, nodeDamage, TreeWalker, unregistered } from './tree-walker.ts';

const MAPPING_SIZE = 8;

/** A device and where its mappings are. */
export interface MappedDevice extends Device {
  id: number;
  /** Block of the root of its mapping tree. */
  root: number;
}

/** A pool's metadata for tools that only ask: the superblock, the devices, nodes. Everything throws EILSEQ at the first damage. */
export class PoolReader implements DiffNodes {
  readonly reader: MetadataReader;
  /** What is read: the live superblock, or the metadata snapshot's. */
  readonly superblock: SuperblockFields;
  /** The live one. */
  readonly live: SuperblockFields;
  /** By ascending id. */
  readonly devices: readonly MappedDevice[];

  /** ENODATA when the metadata snapshot is asked for and there is none. */
  constructor(device: BlockDevice, options: { metadataSnapshot?: boolean | undefined } = {}) {
    this.reader = new MetadataReader(device);
    this.live = this.#superblock(0);
    this.superblock = this.live;
    if (options.metadataSnapshot) {
      if (this.live.heldRoot === 0) {
        throw new StorageError('ENODATA', `Cannot read the metadata snapshot of "${device.path}": there is none`);
      }
      this.superblock = this.#superblock(this.live.heldRoot);
    }
    this.reader.blockCount = this.live.metadataSpaceMap.blockCount;
    this.devices = this.#readDevices();
  }

  /** ENODATA when there is no such device. */
  device(id: number): MappedDevice {
    const device = this.devices.find((known) => known.id === id);
    if (device !== undefined) return device;
    throw new StorageError('ENODATA', `Cannot find device ${id} in "${this.reader.device.path}": there is none`);
  }

  /** A node of a mapping tree; give it back with `release`. */
  node(number: number): NodeView {
    const block = this.reader.acquire();
    const unreadable = this.reader.read(number, 'node', block);
    const node = new NodeView(block);
    node.set();
    const damage = unreadable ?? nodeDamage(node, MAPPING_SIZE);
    if (damage !== null) throw this.damaged(unreadable ?? `block ${number}: ${damage}`);
    return node;
  }

  release(node: NodeView): void {
    this.reader.release(node.block);
  }

  read(number: number, words: Uint32Array): boolean {
    const node = this.node(number);
    const { bytes } = node.block;
    words.set(new Uint32Array(bytes.buffer, bytes.byteOffset, words.length));
    this.release(node);
    return true;
  }

  #superblock(number: number): SuperblockFields {
    const view = this.reader.acquire();
    const unreadable = this.reader.read(number, 'superblock', view) ?? magicDamage(view);
    const fields = readSuperblockFields(view);
    this.reader.release(view);
    if (unreadable !== null) throw this.damaged(unreadable);
    if (number === 0)
      checkSuperblockFields(fields, this.reader.blockCount, 'superblock', (damage) => this.#fail(damage));
    return fields;
  }

  #readDevices(): MappedDevice[] {
    const walker = new TreeWalker(this.reader, unregistered, (damage) => this.#fail(damage));
    const details = new DetailsVisitor();
    walker.walk(this.superblock.detailsRoot, details, 'superblock');
    const devices: MappedDevice[] = [];
    const roots = new DeviceIdVisitor((id, root) => {
      const device = details.devices.get(id);
      if (device === undefined) throw this.damaged(`device ${id} has mappings and no details`);
      devices.push({ id, root, ...device });
    });
    walker.walk(this.superblock.mappingRoot, roots, 'superblock');
    return devices;
  }

  #fail(damage: Damage): void {
    if (damage.severity === 'error') throw this.damaged(describeDamage(damage));
  }

  /** What to throw for damage. */
  damaged(reason: string): StorageError {
    return new StorageError('EILSEQ', `Cannot read the metadata of "${this.reader.device.path}": ${reason}`);
  }
}
