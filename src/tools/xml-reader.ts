import { SaxesParser, type SaxesTagPlain } from 'saxes';
import { errnoOf, messageOf, StorageError } from '../base/errors.ts';
import type { DeviceRecord, MappingRun, PoolRecord, SharingVisitor } from './ir.ts';

const U32_LIMIT = 2 ** 32;

/** What an element is: the attributes that it must have and may have, and where it stands. */
interface ElementRule {
  parents: readonly string[];
  required: readonly string[];
  optional?: readonly string[];
}

/** Everything that thin_dump has ever written. */
const ELEMENTS: Readonly<Record<string, ElementRule>> = {
  superblock: {
    parents: [''],
    required: ['uuid', 'time', 'transaction', 'data_block_size', 'nr_data_blocks'],
    optional: ['flags', 'version', 'metadata_snap'],
  },
  def: { parents: ['superblock'], required: ['name'] },
  device: {
    parents: ['superblock'],
    required: ['dev_id', 'mapped_blocks', 'transaction', 'creation_time', 'snap_time'],
  },
  single_mapping: { parents: ['def', 'device'], required: ['origin_block', 'data_block', 'time'] },
  range_mapping: { parents: ['def', 'device'], required: ['origin_begin', 'data_begin', 'length', 'time'] },
  ref: { parents: ['device'], required: ['name'] },
};

type Attributes = Readonly<Record<string, string>>;

/**
 * Reads thin_dump's XML, of 0.9.0 and later, piece by piece, and tells `visitor` what is in it. Bounded memory. EINVAL with the line for
 * whatever is not as thin_dump writes it, and for what the visitor refuses with EINVAL.
 */
export class XmlReader {
  readonly #parser: SaxesParser = new SaxesParser({ position: true });
  readonly #visitor: SharingVisitor;
  readonly #open: string[] = [];
  readonly #run: MappingRun = { virtualBegin: 0, dataBegin: 0, length: 0, time: 0 };

  constructor(visitor: SharingVisitor) {
    this.#visitor = visitor;
    this.#parser.on('error', (error) => this.#refuse(error.message.replace(/^\d+:\d+: /, '')));
    this.#parser.on('doctype', () => this.#refuse('a document type is not allowed'));
    this.#parser.on('processinginstruction', () => this.#refuse('a processing instruction is not allowed'));
    this.#parser.on('cdata', () => this.#refuse('text is not allowed'));
    this.#parser.on('text', (text) => {
      if (text.trim() !== '') this.#refuse(`text is not allowed: "${text.trim().slice(0, 20)}"`);
    });
    this.#parser.on('opentag', (tag) => this.#located(() => this.#begin(tag)));
    this.#parser.on('closetag', (tag) => this.#located(() => this.#end(tag)));
  }

  /** The next piece of the document. */
  write(text: string): void {
    this.#parser.write(text);
  }

  /** The document is over. */
  end(): void {
    this.#parser.close();
  }

  #begin({ name, attributes }: SaxesTagPlain): void {
    const rule = ELEMENTS[name];
    const parent = this.#open.at(-1) ?? '';
    if (rule === undefined) this.#refuse(`unknown element <${name}>`);
    if (!rule.parents.includes(parent)) this.#refuse(`<${name}> is not allowed ${parent ? `in <${parent}>` : 'here'}`);
    for (const attribute of rule.required) {
      if (!Object.hasOwn(attributes, attribute)) this.#refuse(`<${name}> has no attribute "${attribute}"`);
    }
    for (const attribute of Object.keys(attributes)) {
      if (!rule.required.includes(attribute) && !rule.optional?.includes(attribute)) {
        this.#refuse(`<${name}> has an unknown attribute "${attribute}"`);
      }
    }
    this.#open.push(name);
    this.#visit(name, attributes);
  }

  #visit(name: string, attributes: Attributes): void {
    const visitor = this.#visitor;
    if (name === 'single_mapping') visitor.run(this.#mapping(attributes, 'origin_block', 'data_block', 1));
    else if (name === 'range_mapping') {
      visitor.run(this.#mapping(attributes, 'origin_begin', 'data_begin', this.#number(attributes, 'length')));
    } else if (name === 'ref') visitor.ref(attributes['name']!);
    else if (name === 'def') visitor.defBegin(attributes['name']!);
    else if (name === 'device') visitor.deviceBegin(this.#device(attributes));
    else visitor.pool(this.#pool(attributes));
  }

  #end({ name }: SaxesTagPlain): void {
    this.#open.pop();
    if (name === 'device') this.#visitor.deviceEnd();
    else if (name === 'def') this.#visitor.defEnd();
    else if (name === 'superblock') this.#visitor.poolEnd();
  }

  #pool(attributes: Attributes): PoolRecord {
    const optional = (name: string, fallback: number): number =>
      Object.hasOwn(attributes, name) ? this.#number(attributes, name) : fallback;
    return {
      time: this.#number(attributes, 'time', U32_LIMIT),
      transactionId: this.#number(attributes, 'transaction'),
      flags: optional('flags', 0),
      version: optional('version', 2),
      dataBlockSize: this.#number(attributes, 'data_block_size', U32_LIMIT),
      dataBlockCount: this.#number(attributes, 'nr_data_blocks'),
      metadataSnapshot: optional('metadata_snap', 0),
    };
  }

  #device(attributes: Attributes): DeviceRecord {
    return {
      id: this.#number(attributes, 'dev_id'),
      mappedBlocks: this.#number(attributes, 'mapped_blocks'),
      transactionId: this.#number(attributes, 'transaction'),
      creationTime: this.#number(attributes, 'creation_time', U32_LIMIT),
      snapshottedTime: this.#number(attributes, 'snap_time', U32_LIMIT),
    };
  }

  #mapping(attributes: Attributes, origin: string, data: string, length: number): MappingRun {
    const run = this.#run;
    run.virtualBegin = this.#number(attributes, origin);
    run.dataBegin = this.#number(attributes, data);
    run.length = length;
    run.time = this.#number(attributes, 'time', U32_LIMIT);
    return run;
  }

  #number(attributes: Attributes, name: string, limit: number = 2 ** 53): number {
    const text = attributes[name]!;
    const value = Number(text);
    if (!/^\d+$/.test(text) || value >= limit) {
      this.#refuse(`${name}="${text.slice(0, 40)}": a whole number below ${limit} is expected`);
    }
    return value;
  }

  /** What the visitor refuses gets the line that it refuses. */
  #located(visit: () => void): void {
    try {
      visit();
    } catch (error) {
      if (errnoOf(error) !== 'EINVAL' || error instanceof LocatedError) throw error;
      this.#refuse(messageOf(error));
    }
  }

  #refuse(reason: string): never {
    throw new LocatedError('EINVAL', `line ${this.#parser.line}: ${reason}`);
  }
}

/** Has a line already. */
class LocatedError extends StorageError {}
