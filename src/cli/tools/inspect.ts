import { hexLines, type InspectLine, inspectBlock } from '../../tools/inspect.ts';
import type { RunContext } from '../run-context.ts';
import type { InspectFlags } from './inspect-command.ts';
import { useMetadata } from './use-metadata.ts';

/** `thinlun inspect`. */
export function inspect({ output }: RunContext, path: string, block: number, flags: InspectFlags): Promise<void> {
  return useMetadata(path, { metadataSnapshot: flags.live ?? false }, ({ device }) => {
    const lines = inspectBlock(device, block);
    const hex = flags.hex ? hexLines(device, block) : [];
    for (const line of alignNames(lines)) output.line(line);
    if (flags.hex) output.line();
    for (const line of hex) output.line(line);
  });
}

/** Names of one width in each part; parts end where a line goes over the whole width. */
function* alignNames(lines: readonly InspectLine[]): Iterable<string> {
  let width = 0;
  for (const [i, line] of lines.entries()) {
    if (typeof line === 'string') {
      width = 0;
      yield line;
      continue;
    }
    if (width === 0) {
      for (let j = i; j < lines.length && typeof lines[j] !== 'string'; j++)
        width = Math.max(width, lines[j]![0].length);
    }
    yield `${line[0].padEnd(width)}  ${line[1]}`;
  }
}
