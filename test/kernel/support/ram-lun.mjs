// A RAM disk as a LunBackend: what the scenarios put behind a front end when the pool is not what they are about.
const READ = 0;
const WRITE = 1;
const UNMAP = 3;
const WRITE_ZEROES = 4;
const EXTENT = 5;

export class RamLun {
  readOnly = false;
  unmapGranularityBytes = 65536;
  #memory;
  #queue = [];
  /** Holds every request back while true. */
  frozen = false;
  #scheduled = false;

  constructor(sizeBytes) {
    this.#memory = new Uint8Array(sizeBytes);
  }

  get sizeBytes() {
    return this.#memory.length;
  }

  grow(sizeBytes) {
    const larger = new Uint8Array(sizeBytes);
    larger.set(this.#memory);
    this.#memory = larger;
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
      if (offset + length > this.#memory.length) error = 'ENXIO';
      else if (op === READ) request.data.copyFrom(this.#memory, offset, 0, length);
      else if (op === WRITE) request.data.copyTo(this.#memory, offset, 0, length);
      else if (op === UNMAP || op === WRITE_ZEROES) this.#memory.fill(0, offset, offset + length);
      else if (op === EXTENT) {
        request.extentLength = length;
        request.extentMapped = true;
      }
      request.owner.requestDone(request, error);
    }
  }
}
