import { StorageError } from '../base/errors.ts';
import { LunOp, LunRequest } from '../block/lun-backend.ts';
import type { ThinDevice } from './thin-device.ts';

const VERBS: Readonly<Record<LunOp, string>> = {
  [LunOp.READ]: 'read',
  [LunOp.WRITE]: 'write',
  [LunOp.FLUSH]: 'flush',
  [LunOp.UNMAP]: 'discard',
  [LunOp.WRITE_ZEROES]: 'zero',
  [LunOp.EXTENT]: 'look up',
  [LunOp.COPY]: 'copy',
};

/** One request as a promise, for what is not done per command. `memory` is for READ and WRITE. Throws what the request is answered. */
export function deviceIo(
  device: ThinDevice,
  op: LunOp,
  offset: number,
  length: number,
  memory: Uint8Array | null = null,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = new LunRequest({
      requestDone: (_, error) => {
        if (error === null) resolve();
        else {
          const what = `${VERBS[op]} bytes ${offset} to ${offset + length} of thin device ${device.thin.id}`;
          reject(new StorageError(error, `Cannot ${what}: ${error}`));
        }
      },
    });
    request.op = op;
    request.offset = offset;
    request.length = length;
    if (memory !== null) request.data.set(memory, 0, length);
    device.submit(request);
  });
}
