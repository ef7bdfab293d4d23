import { fileURLToPath } from 'node:url';
import { type NativeBindings, native, nativeError } from '../../src/base/native.ts';
import { requireMachine } from './tools.ts';

/** For `require` in worker threads and child processes. */
export const ADDON_PATH: string = fileURLToPath(
  new URL('../../native-bindings/build/Release/thinlun_native.node', import.meta.url),
);

/** The addon; where it is missing the tests of the calling file or `describe` are skipped, loudly. */
export function requireAddon(): NativeBindings {
  requireMachine(native === null ? `the native addon (${nativeError}): node native-bindings/build.mjs` : null);
  return native as NativeBindings;
}
