import { KIB } from '../base/units.ts';

/** What one read of a socket takes at most: four writes of 64 KiB with their headers are whole in it. */
const CHUNK_SIZE = 320 * KIB;

/** Memory that one connection receives in, and that writes are done from as long as they need it. */
export class InputChunk {
  readonly bytes: Uint8Array = new Uint8Array(CHUNK_SIZE);
  private users = 0;
  private readonly pool: InputChunks;

  constructor(pool: InputChunks) {
    this.pool = pool;
  }

  /** Whoever received in it is the only one who has it. */
  get isUnlent(): boolean {
    return this.users === 1;
  }

  /** One more user; `release` is theirs. */
  use(): this {
    this.users++;
    return this;
  }

  release(): void {
    this.users--;
    if (this.users === 0) this.pool.giveBack(this);
  }
}

/**
 * Where the connections of a portal receive. All share one memory, from which data is copied before the next one reads. A connection that receives much has a chunk of its own
 * as well, as long as there are any, so that the data of writes can stay where it is.
 */
export class InputChunks {
  readonly shared: Uint8Array = new Uint8Array(CHUNK_SIZE);
  private readonly spare: InputChunk[] = [];
  private readonly limit: number;
  private made = 0;

  /** `limit`: chunks that there may be. */
  constructor(limit: number) {
    this.limit = limit;
  }

  /** A chunk with one user; null when all are in use. */
  take(): InputChunk | null {
    const chunk = this.spare.pop();
    if (chunk !== undefined) return chunk.use();
    if (this.made === this.limit) return null;
    this.made++;
    return new InputChunk(this).use();
  }

  /** Called by a chunk that nobody uses any more. */
  giveBack(chunk: InputChunk): void {
    this.spare.push(chunk);
  }

  /** Chunks that somebody uses. */
  get usedCount(): number {
    return this.made - this.spare.length;
  }
}
