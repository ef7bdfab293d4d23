import { DiffStep, MappingDiff } from '../thin/mapping-diff.ts';
import { highestBlock } from './ls.ts';
import type { PoolReader } from './pool-reader.ts';

/** One of the two that are compared. */
export interface DeltaSide {
  /** The device's id; null when only the root was given. */
  device: number | null;
  root: number;
}

export interface DeltaOptions {
  /** Data blocks, too. */
  verbose?: boolean;
  /** What is the same, too: as thin_delta does, and then all of both has to be read. */
  same?: boolean;
  /** `done` of `total` virtual blocks. */
  progress?: (done: number, total: number) => void;
}

/** Mappings between two calls of `progress`. */
const PROGRESS_STEPS = 4096;

type DeltaKind = 'same' | 'different' | 'left_only' | 'right_only';

/** Virtual blocks `[begin, begin + length)`; with `verbose` on consecutive data blocks on each side that has them. */
interface DeltaRun {
  kind: DeltaKind;
  begin: number;
  length: number;
  left: number;
  right: number;
}

const KINDS: Readonly<Record<number, DeltaKind>> = {
  [DiffStep.leftOnly]: 'left_only',
  [DiffStep.rightOnly]: 'right_only',
  [DiffStep.different]: 'different',
  [DiffStep.same]: 'same',
};

/** The difference of two mapping trees as thin_delta's XML, a line at a time; the last one without a newline. */
export function* deltaXml(
  pool: PoolReader,
  left: DeltaSide,
  right: DeltaSide,
  options: DeltaOptions,
): Iterable<string> {
  const { superblock } = pool;
  const { time, transactionId, dataBlockSize, dataSpaceMap } = superblock;
  yield `<superblock uuid="" time="${time}" transaction="${transactionId}" data_block_size="${dataBlockSize}" nr_data_blocks="${dataSpaceMap.blockCount}">\n`;
  yield `  <diff ${sideAttribute('left', left)} ${sideAttribute('right', right)}>\n`;
  const { verbose = false, progress } = options;
  const steps = new MappingDiff(pool, left.root, right.root, { same: options.same ?? true });
  const total = progress === undefined ? 0 : 1 + Math.max(highestBlock(pool, left), highestBlock(pool, right));
  const all = runs(steps, verbose, (done) => progress?.(done, total));
  yield* verbose ? verboseLines(all) : plainLines(all);
  yield '  </diff>\n';
  yield '</superblock>';
}

function sideAttribute(name: string, { device, root }: DeltaSide): string {
  return device === null ? `${name}_root="${root}"` : `${name}="${device}"`;
}

function* plainLines(all: Iterable<DeltaRun>): Iterable<string> {
  for (const { kind, begin, length } of all) yield `    <${kind} begin="${begin}" length="${length}"/>\n`;
}

function* verboseLines(all: Iterable<DeltaRun>): Iterable<string> {
  let open: DeltaKind | null = null;
  for (const { kind, begin, length, left, right } of all) {
    if (kind !== open) {
      if (open !== null) yield `    </${open}>\n`;
      yield `    <${kind}>\n`;
      open = kind;
    }
    const data =
      kind === 'different'
        ? `left_data_begin="${left}" right_data_begin="${right}"`
        : `data_begin="${kind === 'right_only' ? right : left}"`;
    yield `      <range begin="${begin}" ${data} length="${length}"/>\n`;
  }
  if (open !== null) yield `    </${open}>\n`;
}

/** Joined as far as they go on; with `byData` only while the data blocks do, too. The object is used again for the next. */
function* runs(diff: MappingDiff, byData: boolean, progress: (done: number) => void): Iterable<DeltaRun> {
  let steps = 0;
  const run: DeltaRun = { kind: 'same', begin: 0, length: 0, left: 0, right: 0 };
  for (let step = diff.next(); step !== DiffStep.end; step = diff.next()) {
    if (++steps % PROGRESS_STEPS === 0) progress(diff.key);
    const kind = KINDS[step]!;
    const { length } = run;
    const goesOn =
      kind === run.kind &&
      diff.key === run.begin + length &&
      (!byData || kind === 'right_only' || diff.leftBlock === run.left + length) &&
      (!byData || kind === 'left_only' || kind === 'same' || diff.rightBlock === run.right + length);
    if (length > 0 && goesOn) {
      run.length++;
      continue;
    }
    if (length > 0) yield run;
    run.kind = kind;
    run.begin = diff.key;
    run.length = 1;
    run.left = diff.leftBlock;
    run.right = diff.rightBlock;
  }
  if (run.length > 0) yield run;
}
