import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';

// A RAM disk as a LunBackend: what the scenarios put behind a front end when the pool is not what they are about.
const READ = 0;
const WRITE = 1;
const UNMAP = 3;
const WRITE_ZEROES = 4;
const EXTENT = 5;
const ZEROES = new Uint8Array(1 << 20);

export class RamLun {
  readOnly = false;
  unmapGranularityBytes = 65536;
  unmappedReadsZeroes = true;
  #fd;
  #queue = [];
  /** Holds every request back while true. */
  frozen = false;
  #scheduled = false;

  /** The bytes live in a file on a tmpfs, so that they outlive this process. */
  constructor(sizeBytes, path) {
    this.sizeBytes = sizeBytes;
    this.#fd = openSync(path, 'a+');
    closeSync(this.#fd);
    this.#fd = openSync(path, 'r+');
    ftruncateSync(this.#fd, sizeBytes);
  }

  grow(sizeBytes) {
    ftruncateSync(this.#fd, sizeBytes);
    this.sizeBytes = sizeBytes;
  }

  thaw() {
    this.frozen = false;
    this.#run();
  }

  submit(request) {
    this.#queue.push(request);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#run());
  }

  #run() {
    this.#scheduled = false;
    if (this.frozen) return;
    const batch = this.#queue;
    this.#queue = [];
    for (const request of batch) {
      const { op, offset, length } = request;
      let error = null;
      if (offset + length > this.sizeBytes) error = 'ENXIO';
      else if (op === READ) this.#transfer(readSync, request.data, offset);
      else if (op === WRITE) this.#transfer(writeSync, request.data, offset);
      else if (op === UNMAP || op === WRITE_ZEROES) this.#zero(offset, length);
      else if (op === EXTENT) {
        request.extentLength = length;
        request.extentMapped = true;
      }
      request.owner.requestDone(request, error);
    }
  }

  #transfer(call, data, offset) {
    let at = offset;
    for (let i = 0; i < data.count; i++) {
      call(this.#fd, data.memory, data.offsets[i], data.lengths[i], at);
      at += data.lengths[i];
    }
  }

  #zero(offset, length) {
    for (let at = offset; at < offset + length; at += ZEROES.length) {
      writeSync(this.#fd, ZEROES, 0, Math.min(ZEROES.length, offset + length - at), at);
    }
  }
}
