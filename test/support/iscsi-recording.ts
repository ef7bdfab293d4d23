import { connect, createServer, type Server, type Socket } from 'node:net';
import { writeU16BE, writeU32BE } from '../../src/base/bytes.ts';

interface Segment {
  connection: number;
  toServer: boolean;
  bytes: Buffer;
}

/** Longest payload of one made-up packet. */
const MAX_PAYLOAD = 60_000;

/** Passes connections on to a server and writes down what is said, for programs that read captures. Needs no rights to capture. */
export class RecordingProxy {
  readonly port: number;
  private readonly server: Server;
  private readonly segments: Segment[];
  private readonly open: Set<Socket>;

  private constructor(server: Server, port: number, segments: Segment[], open: Set<Socket>) {
    this.server = server;
    this.port = port;
    this.segments = segments;
    this.open = open;
  }

  static async start(serverPort: number): Promise<RecordingProxy> {
    const segments: Segment[] = [];
    const open = new Set<Socket>();
    let connections = 0;
    const server = createServer({ noDelay: true }, (client) => {
      const connection = connections++;
      const target = connect({ port: serverPort, host: '127.0.0.1', noDelay: true });
      const pass = (from: Socket, to: Socket, toServer: boolean): void => {
        open.add(from);
        from.on('data', (bytes) => {
          segments.push({ connection, toServer, bytes });
          to.write(bytes);
        });
        from.on('error', () => to.destroy());
        from.on('end', () => to.end());
        from.on('close', () => open.delete(from));
      };
      pass(client, target, true);
      pass(target, client, false);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new RecordingProxy(server, (server.address() as { port: number }).port, segments, open);
  }

  async close(): Promise<void> {
    for (const socket of this.open) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** What was said as a capture of IP packets, the server at port 3260. */
  pcap(): Buffer {
    const head = Buffer.alloc(24);
    head.writeUInt32LE(0xa1b2c3d4, 0);
    head.writeUInt16LE(2, 4);
    head.writeUInt16LE(4, 6);
    head.writeUInt32LE(262144, 16);
    // LINKTYPE_RAW: packets begin with their IP header.
    head.writeUInt32LE(101, 20);
    const packets: Buffer[] = [head];
    const sequences = new Map<string, number>();
    let time = 0;
    for (const { connection, toServer, bytes } of this.segments) {
      for (let at = 0; at < bytes.length; at += MAX_PAYLOAD) {
        const payload = bytes.subarray(at, at + MAX_PAYLOAD);
        const here = `${connection}${toServer}`;
        const there = `${connection}${!toServer}`;
        const sequence = sequences.get(here) ?? 1;
        const packet = tcpPacket(40_000 + connection, toServer, sequence, sequences.get(there) ?? 1, payload);
        sequences.set(here, sequence + payload.length);
        const record = Buffer.alloc(16);
        record.writeUInt32LE(Math.floor(time / 1e6), 0);
        record.writeUInt32LE(time % 1e6, 4);
        record.writeUInt32LE(packet.length, 8);
        record.writeUInt32LE(packet.length, 12);
        packets.push(record, packet);
        time += 10;
      }
    }
    return Buffer.concat(packets);
  }
}

function tcpPacket(
  clientPort: number,
  toServer: boolean,
  sequence: number,
  acknowledged: number,
  payload: Buffer,
): Buffer {
  const header = Buffer.alloc(40);
  header[0] = 0x45;
  writeU16BE(header, 2, 40 + payload.length);
  header[8] = 64;
  header[9] = 6;
  header.set([10, 0, 0, toServer ? 1 : 2, 10, 0, 0, toServer ? 2 : 1], 12);
  writeU16BE(header, 20, toServer ? clientPort : 3260);
  writeU16BE(header, 22, toServer ? 3260 : clientPort);
  writeU32BE(header, 24, sequence);
  writeU32BE(header, 28, acknowledged);
  header[32] = 0x50;
  header[33] = 0x18;
  writeU16BE(header, 34, 0xffff);
  return Buffer.concat([header, payload]);
}
