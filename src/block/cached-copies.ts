import { native } from '../base/native.ts';
import type { FileRequest } from './file-request.ts';
import { IoQueue } from './io-request.ts';

/** Copies in one piece of work for a thread. There is one at a time: writes to one file take turns, and others need the threads of the pool, too. */
const BATCH_SIZE = 16;
const ROW_SIZE = 6;

/**
 * Copies from one place of a file to another through memory, on the thread pool: what is in the page cache is copied by the processor alone, and that takes several times
 * as long as everything else that is done for a command. A thread that reads and writes block by block also has its bytes in the processor's cache; a ring would
 * read a whole batch before it writes any of it.
 */
export class CachedCopies {
  readonly #fd: number;
  readonly #waiting: IoQueue<FileRequest> = new IoQueue();
  readonly #running: (FileRequest | null)[] = new Array<FileRequest | null>(BATCH_SIZE).fill(null);
  #count = 0;
  #left = 0;
  readonly #rows: Float64Array = new Float64Array(BATCH_SIZE * ROW_SIZE);
  readonly #rowBytes: Uint8Array = new Uint8Array(this.#rows.buffer);
  readonly #rowDoneBound = (row: number, result: number): void => this.#rowDone(row, result);

  constructor(fd: number) {
    this.#fd = fd;
  }

  queue(request: FileRequest): void {
    this.#waiting.push(request);
  }

  /** Starts what is queued, unless a piece of work is under way: then it follows. */
  submit(): void {
    if (this.#left > 0 || this.#waiting.count === 0) return;
    const { memory } = this.#waiting.first!;
    this.#count = 0;
    while (this.#count < BATCH_SIZE && this.#waiting.first?.memory === memory) this.#add(this.#waiting.shift()!);
    this.#left = this.#count;
    native!.copyAsync(this.#fd, this.#rowBytes, this.#count, memory, this.#rowDoneBound);
  }

  #add(request: FileRequest): void {
    const rows = this.#rows;
    const at = this.#count * ROW_SIZE;
    rows[at] = request.source;
    rows[at + 1] = request.offset;
    rows[at + 2] = request.length;
    rows[at + 3] = request.memoryOffset;
    rows[at + 4] = request.keepAt;
    rows[at + 5] = request.keepLength;
    this.#running[this.#count] = request;
    this.#count++;
  }

  #rowDone(row: number, result: number): void {
    const request = this.#running[row]!;
    this.#running[row] = null;
    this.#left--;
    if (this.#left === 0) this.submit();
    request.owner.stepDone(request, result);
  }
}
