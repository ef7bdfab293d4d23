import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { receiveInto } from '../../src/iscsi/socket-input.ts';
import { until } from '../support/iscsi-portal.ts';

const servers: Server[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

interface Pair {
  accepted: Socket;
  used: Socket;
  peer: Socket;
  seen: Buffer[];
}

/** An accepted connection with the socket that takes its place. */
async function makePair(buffer: Uint8Array, prepare: (accepted: Socket) => void = () => {}): Promise<Pair> {
  const server = createServer({ pauseOnConnect: true });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const seen: Buffer[] = [];
  const accepting = new Promise<[Socket, Socket]>((resolve) => {
    server.on('connection', (accepted) => {
      prepare(accepted);
      const receiver = {
        nextBuffer: () => buffer,
        received: (bytes: Uint8Array, length: number) => seen.push(Buffer.from(bytes.slice(0, length))),
      };
      resolve([accepted, receiveInto(accepted, receiver)]);
    });
  });
  const peer = connect(port, '127.0.0.1');
  const [accepted, used] = await accepting;
  return { accepted, used, peer, seen };
}

/** As a Node would be that keeps its handles to itself. */
function hideBuffer(accepted: Socket): void {
  (accepted as unknown as { _handle: { useUserBuffer: unknown } })._handle.useUserBuffer = undefined;
}

describe('receiving', () => {
  it('uses one buffer for all connections on this version of Node', async () => {
    const buffer = new Uint8Array(16);
    const one = await makePair(buffer);
    const two = await makePair(buffer);
    expect(one.used).not.toBe(one.accepted);
    one.peer.write('from the first, more than a buffer');
    two.peer.write('from the second');
    await until(() => Buffer.concat(one.seen).length === 34 && Buffer.concat(two.seen).length === 15, 'all has come');
    expect(Buffer.concat(one.seen).toString()).toBe('from the first, more than a buffer');
    expect(Buffer.concat(two.seen).toString()).toBe('from the second');
    expect(one.seen.every((chunk) => chunk.length <= 16)).toBe(true);
    one.peer.destroy();
    two.peer.destroy();
  });

  it.each([
    ['with a buffer of its own', () => {}],
    ['with data events where Node does not let us', hideBuffer],
  ])('%s stops, goes on, answers and ends', async (name, prepare) => {
    const pair = await makePair(new Uint8Array(65536), prepare);
    expect(pair.used === pair.accepted).toBe(name.includes('events'));
    const { used, peer, seen } = pair;
    let ended = false;
    used.on('end', () => {
      ended = true;
    });
    peer.write('one');
    await until(() => seen.length === 1, 'the first has come');
    used.pause();
    peer.write('two');
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(Buffer.concat(seen).toString()).toBe('one');
    used.resume();
    await until(() => Buffer.concat(seen).toString() === 'onetwo', 'the second has come');
    const answers: Buffer[] = [];
    peer.on('data', (chunk) => answers.push(chunk));
    used.write('answer');
    await until(() => Buffer.concat(answers).toString() === 'answer', 'the answer has come');
    expect(used.remotePort).toBe(peer.localPort);
    peer.end();
    await until(() => ended && used.destroyed, 'the end is seen');
  });
});
