import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';

const MAX_TEXT_SIZE = 1024 * 1024;

export interface TextAnswer {
  status: number;
  body: string;
}

/** Sends a small message; resolves with the answer's head, its body still to be read. Destroying the answer ends the exchange. */
export function askForStream(socketPath: string, path: string, message: unknown): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json' };
    const request = httpRequest({ socketPath, method: 'POST', path, agent: false, headers }, resolve);
    request.on('error', reject);
    request.end(JSON.stringify(message));
  });
}

/** Sends a stream, as fast as the other side takes it, and no further once that has answered. Throws what `input` throws. */
export function sendStreamTo(socketPath: string, path: string, input: AsyncIterable<Uint8Array>): Promise<TextAnswer> {
  const headers = { 'content-type': 'application/octet-stream' };
  const request = httpRequest({ socketPath, method: 'POST', path, agent: false, headers });
  return new Promise((resolve, reject) => {
    let answered = false;
    request.on('response', (response) => {
      answered = true;
      textOf(response).then((body) => {
        resolve({ status: response.statusCode ?? 0, body });
        request.destroy();
      }, reject);
    });
    request.on('error', (error) => {
      // That the rest is not wanted any more is told by the answer.
      if (!answered) reject(error);
    });
    pump(request, input, () => answered).catch((error: unknown) => {
      if (answered) return;
      reject(error);
      request.destroy();
    });
  });
}

async function pump(request: ClientRequest, input: AsyncIterable<Uint8Array>, answered: () => boolean): Promise<void> {
  for await (const chunk of input) {
    if (answered() || request.destroyed) return;
    if (!request.write(chunk)) await drained(request);
  }
  request.end();
}

function drained(request: ClientRequest): Promise<void> {
  return new Promise((resolve) => {
    const events = ['drain', 'close', 'response'];
    const done = (): void => {
      for (const event of events) request.off(event, done);
      resolve();
    };
    for (const event of events) request.on(event, done);
  });
}

/** The whole body of an answer that is known to be short. */
export async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_TEXT_SIZE) throw new Error('the answer is too long');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}
