import { StorageError, wrapError } from '../base/errors.ts';
import type { BlockDevice } from '../block/block-device.ts';
import { Restorer, type RestorerOptions } from './restorer.ts';
import { XmlReader } from './xml-reader.ts';

export interface RestoreOptions extends RestorerOptions {
  /** For messages. */
  inputName: string;
  /** Told how much of the input was read. */
  onRead?: (characters: number) => void;
}

/**
 * Makes new metadata on `device` from thin_dump's XML, whatever the device held. The input is read once and written in order, the superblock
 * last: when this fails or is interrupted there is no pool, or, if little had been read, still the old one, untouched. Throws EINVAL with the line,
 * ENOSPC, and what input and device throw.
 */
export async function restoreMetadata(
  device: BlockDevice,
  input: AsyncIterable<string>,
  options: RestoreOptions,
): Promise<void> {
  const restorer = new Restorer(device, options);
  const reader = new XmlReader(restorer);
  let characters = 0;
  try {
    for await (const text of input) {
      reader.write(text);
      characters += text.length;
      options.onRead?.(characters);
    }
    reader.end();
    restorer.finish();
  } catch (error) {
    const fromWorld = error instanceof StorageError || typeof (error as NodeJS.ErrnoException).syscall === 'string';
    throw fromWorld ? wrapError(`Cannot restore "${options.inputName}" to "${device.path}"`, error) : error;
  }
}
