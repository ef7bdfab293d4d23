import { once } from 'node:events';
import type { Writable } from 'node:stream';

const CHUNK_LENGTH = 64 * 1024;

/** Writes texts without more of them in memory than the reader is behind. Nothing more is made when the reader has gone away. */
export async function writeChunks(output: Writable, texts: Iterable<string>): Promise<void> {
  let chunk = '';
  for (const text of texts) {
    chunk += text;
    if (chunk.length < CHUNK_LENGTH) continue;
    if (output.destroyed || !output.writable) return;
    if (!output.write(chunk)) await Promise.race([once(output, 'drain'), once(output, 'close')]).catch(() => {});
    chunk = '';
  }
  output.write(chunk);
}
