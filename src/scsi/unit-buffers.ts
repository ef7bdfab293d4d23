import type { Nexus } from './nexus.ts';

/** Bytes of the data buffer and of the echo buffer. */
export const DATA_BUFFER_SIZE = 16384;
export const ECHO_BUFFER_SIZE = 4096;

/** What WRITE BUFFER writes and READ BUFFER reads; zeroes before. Made when something is written. */
export class UnitBuffers {
  #data: Uint8Array | null = null;
  #echo: Uint8Array | null = null;
  #echoLength = 0;
  #echoOwner: Nexus | null = null;

  /** The data buffer, to be read. */
  get data(): Uint8Array {
    return this.#data ?? ZEROES;
  }

  /** The data buffer, to be written. */
  writableData(): Uint8Array {
    this.#data ??= new Uint8Array(DATA_BUFFER_SIZE);
    return this.#data;
  }

  /** The echo buffer for `length` bytes of `nexus`. */
  writableEcho(nexus: Nexus, length: number): Uint8Array {
    this.#echo ??= new Uint8Array(ECHO_BUFFER_SIZE);
    this.#echoOwner = nexus;
    this.#echoLength = length;
    return this.#echo;
  }

  /** What `nexus` wrote last to the echo buffer; null if it was somebody else. */
  echoOf(nexus: Nexus): Uint8Array | null {
    return this.#echoOwner === nexus ? this.#echo!.subarray(0, this.#echoLength) : null;
  }

  clear(): void {
    this.#data = null;
    this.#echo = null;
    this.#echoOwner = null;
  }
}

const ZEROES = new Uint8Array(DATA_BUFFER_SIZE);
