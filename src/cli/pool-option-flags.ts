import { type Command, InvalidArgumentError } from 'commander';
import { formatSize, MIB } from '../base/units.ts';
import type { PoolMessage, SetOptionsMessage } from '../daemon/control-messages.ts';
import { onOffArgument, sizeArgument } from './arguments.ts';
import { UsageError } from './run-context.ts';

/** The features of a pool as flags of `pool create` and `pool set`, and as lines of `pool status`. */

export interface OptionFlags {
  skipBlockZeroing?: boolean;
  ignoreDiscard?: boolean;
  discardPassdown?: boolean;
  errorIfNoSpace?: boolean;
  readOnly?: boolean;
  lowWater?: number | 'default';
  /** `--no-space-timeout`; true when it is not given, as the parser takes it for a negation. */
  spaceTimeout?: number | true;
  autoExtendLimit?: number | 'off';
  autoExtendStep?: number;
  metadataCache?: number;
}

export function addOptionFlags(command: Command): Command {
  return command
    .option('--skip-block-zeroing <on|off>', 'new blocks keep what was on the data device (off)', onOffArgument)
    .option('--ignore-discard <on|off>', 'volumes do not offer UNMAP; not while they are served (off)', onOffArgument)
    .option('--discard-passdown <on|off>', 'discards reach the data device (on)', onOffArgument)
    .option('--error-if-no-space <on|off>', 'writes that find no space fail at once (off)', onOffArgument)
    .option('--read-only <on|off>', 'the metadata does not change: only mapped blocks are written (off)', onOffArgument)
    .option('--low-water <size>', 'warn when no more than this is free, or "default": 1/16 of the pool', lowWater)
    .option('--no-space-timeout <seconds>', 'how long writes wait for space; 0 is for ever (60)', seconds)
    .option('--auto-extend-limit <size>', 'let the files grow by themselves up to this, or "off" (off)', limit)
    .option('--auto-extend-step <size>', 'by how much at a time (a tenth of the limit)', sizeArgument)
    .option(
      '--metadata-cache <size>',
      'memory for metadata, from the next start of its server on (192M)',
      sizeArgument,
    );
}

function lowWater(text: string): number | 'default' {
  if (text === 'default') return text;
  return text === '0' ? 0 : sizeArgument(text);
}

function limit(text: string): number | 'off' {
  return text === 'off' ? text : sizeArgument(text);
}

function seconds(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value < 0) {
    throw new InvalidArgumentError('It is a number of seconds');
  }
  return value;
}

/** What was asked for; empty when nothing was. */
export function optionsOf(flags: OptionFlags): SetOptionsMessage {
  const { discardPassdown, lowWater, spaceTimeout, autoExtendLimit, autoExtendStep, metadataCache } = flags;
  if (autoExtendStep !== undefined && typeof autoExtendLimit !== 'number') {
    throw new UsageError('--auto-extend-step says nothing without --auto-extend-limit SIZE');
  }
  const message: SetOptionsMessage = {};
  for (const name of ['skipBlockZeroing', 'ignoreDiscard', 'errorIfNoSpace', 'readOnly'] as const) {
    if (flags[name] !== undefined) message[name] = flags[name];
  }
  if (discardPassdown !== undefined) message.noDiscardPassdown = !discardPassdown;
  if (lowWater !== undefined) message.lowWaterBytes = lowWater === 'default' ? null : lowWater;
  if (typeof spaceTimeout === 'number') message.noSpaceTimeoutMs = Math.round(spaceTimeout * 1000);
  if (autoExtendLimit === 'off') message.autoExtend = null;
  else if (autoExtendLimit !== undefined) {
    message.autoExtend = { limitBytes: autoExtendLimit, ...(autoExtendStep && { stepBytes: autoExtendStep }) };
  }
  if (metadataCache !== undefined) message.metadataCacheBytes = metadataCache;
  return message;
}

/** What differs from the defaults, in words; empty when nothing does. */
export function describeOptions({ options, failsWhenFull, discardPassdown }: PoolMessage): string {
  const words: string[] = [];
  if (options.skipBlockZeroing) words.push('skip-block-zeroing');
  if (options.ignoreDiscard) words.push('ignore-discard');
  if (options.noDiscardPassdown) words.push('no discard-passdown');
  else if (!discardPassdown) words.push('no discard-passdown (the data device cannot discard)');
  if (options.errorIfNoSpace) words.push('error-if-no-space');
  else if (failsWhenFull) words.push('error-if-no-space (no space came in time)');
  else if (options.noSpaceTimeoutMs !== 60_000) {
    words.push(
      options.noSpaceTimeoutMs === 0 ? 'waits for space for ever' : `waits ${options.noSpaceTimeoutMs / 1000} s`,
    );
  }
  if (options.readOnly) words.push('read-only');
  if (options.lowWaterBytes !== null) words.push(`low water at ${formatSize(options.lowWaterBytes)}`);
  if (options.autoExtend !== null) {
    const { limitBytes, stepBytes } = options.autoExtend;
    words.push(`grows by itself to ${formatSize(limitBytes)} in steps of ${formatSize(stepBytes)}`);
  }
  if (options.metadataCacheBytes !== 192 * MIB)
    words.push(`metadata cache of ${formatSize(options.metadataCacheBytes)}`);
  return words.join(', ');
}
