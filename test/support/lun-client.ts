import type { Errno } from '../../src/base/errors.ts';
import { type LunBackend, LunOp, LunRequest } from '../../src/block/lun-backend.ts';

/** Talks to a `LunBackend` with promises, for tests. */
export class LunClient {
  readonly backend: LunBackend;

  constructor(backend: LunBackend) {
    this.backend = backend;
  }

  /** Submits at once; resolves with the request, rejects with an `Error` whose message is the errno. */
  submit(fill: (request: LunRequest) => void): Promise<LunRequest> {
    return new Promise((resolve, reject) => {
      const request = new LunRequest({
        requestDone(done: LunRequest, error: Errno | null): void {
          if (error === null) resolve(done);
          else reject(new Error(error));
        },
      });
      fill(request);
      this.backend.submit(request);
    });
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const memory = new Uint8Array(length).fill(0xee);
    await this.submit((request) => {
      request.op = LunOp.READ;
      request.offset = offset;
      request.length = length;
      request.data.set(memory, 0, length);
    });
    return memory;
  }

  async write(offset: number, bytes: Uint8Array, fua = false): Promise<void> {
    await this.submit((request) => {
      request.op = LunOp.WRITE;
      request.offset = offset;
      request.length = bytes.length;
      request.fua = fua;
      request.data.set(bytes, 0, bytes.length);
    });
  }

  /** A write of which all is there or nothing, whatever fails. */
  async writeAtomic(offset: number, bytes: Uint8Array, fua = false): Promise<void> {
    await this.submit((request) => {
      Object.assign(request, { op: LunOp.WRITE, offset, length: bytes.length, fua, atomic: true });
      request.data.set(bytes, 0, bytes.length);
    });
  }

  async flush(): Promise<void> {
    await this.range(LunOp.FLUSH, 0, 0);
  }

  async unmap(offset: number, length: number): Promise<void> {
    await this.range(LunOp.UNMAP, offset, length);
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    await this.range(LunOp.WRITE_ZEROES, offset, length);
  }

  async extent(offset: number, length: number): Promise<{ mapped: boolean; length: number }> {
    const done = await this.range(LunOp.EXTENT, offset, length);
    return { mapped: done.extentMapped, length: done.extentLength };
  }

  /** Resolves with the request, which tells how many bytes were copied. */
  copy(source: LunBackend, sourceOffset: number, offset: number, length: number, fua = false): Promise<LunRequest> {
    return this.submit((request) =>
      Object.assign(request, { op: LunOp.COPY, offset, length, source, sourceOffset, fua }),
    );
  }

  private range(op: LunOp, offset: number, length: number): Promise<LunRequest> {
    return this.submit((request) => {
      request.op = op;
      request.offset = offset;
      request.length = length;
    });
  }
}

/** Bytes that name their seed, so that misplaced data shows. */
export function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = Math.imul(seed + 1, 2654435761) >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

/** Fails with the first position at which the two differ; for what is too large to print. */
export function expectBytes(actual: Uint8Array, expected: Uint8Array): void {
  if (Buffer.compare(actual, expected) === 0) return;
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  throw new Error(
    `${actual.length} bytes, expected ${expected.length}; the first difference is at ${at}: ${actual[at]}, expected ${expected[at]}`,
  );
}
