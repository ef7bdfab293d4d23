import { rmSync } from 'node:fs';
import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { createAdaptorServer, type HttpBindings } from '@hono/node-server';
import { type Context, Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { type Errno, messageOf, StorageError, wrapError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { native } from '../base/native.ts';
import { describeIssues, parse, type Schema, safeParse } from '../base/schema.ts';
import { accessSchema, allowSchema, denySchema, openSchema } from './access-messages.ts';
import { hintOf } from './advised-error.ts';
import {
  CONTROL_VERSION,
  commitSchema,
  createSnapshotsSchema,
  createVolumeSchema,
  deletedSchema,
  dmMessageSchema,
  type ErrorMessage,
  growPoolSchema,
  poolSchema,
  renameVolumeSchema,
  resizeVolumeSchema,
  rollbackVolumeSchema,
  setOptionsSchema,
  setVolumeSchema,
  statusLinesSchema,
  TAKEOVER_PATH,
  TAKEOVER_PROTOCOL,
  volumeListSchema,
  volumeSchema,
} from './control-messages.ts';
import { ControlSocketName } from './control-socket.ts';
import { HandoverChannel } from './handover-channel.ts';
import type { PoolControl, VolumeChunks } from './pool-control.ts';
import { clearReservationsSchema, reservationListSchema, volumeReservationsSchema } from './reservation-messages.ts';
import {
  resumeTokenSchema,
  STREAM_HEADER_NAME,
  sendVolumeSchema,
  streamSchema,
  trimmedSchema,
  trimSchema,
} from './stream-messages.ts';

const MAX_REQUEST_SIZE = 64 * 1024;

const HTTP_STATUS: Partial<Record<Errno, ContentfulStatusCode>> = {
  EACCES: 403,
  EBUSY: 409,
  EEXIST: 409,
  EINVAL: 400,
  ENODATA: 404,
  ENOENT: 404,
  ENOSPC: 507,
  EOPNOTSUPP: 501,
  EPERM: 403,
  ERANGE: 400,
  EROFS: 403,
  ESHUTDOWN: 503,
};

function errorMessage(code: string, message: string, hint: string | null): ErrorMessage {
  return { error: { code, message, hint } };
}

/** The request's body as a checked message. Throws EINVAL. */
async function readMessage<T>(context: Context, schema: Schema<T>): Promise<T> {
  let body: unknown;
  try {
    body = await context.req.json();
  } catch (error) {
    throw new StorageError('EINVAL', `Cannot read control message: ${messageOf(error)}`);
  }
  const parsed = safeParse(schema, body);
  if (!parsed.success)
    throw new StorageError('EINVAL', `Cannot read control message: ${describeIssues(parsed.issues, 'message')}`);
  return parsed.output;
}

/** What the socket answers: one pool's `PoolControl` as paths below `/v1`. `work` runs every call that a whole request asks for. */
function controlRoutes(control: PoolControl, logger: Logger, work: <T>(call: Promise<T>) => Promise<T>): Hono {
  const app = new Hono().basePath(`/${CONTROL_VERSION}`);
  // Before the limit: a stream has none.
  app.post('/volumes/:name/receive', async (c) => {
    const { incoming } = c.env as HttpBindings;
    const input = incoming.iterator({ destroyOnReturn: false });
    return c.json(parse(volumeSchema, await control.receive(c.req.param('name'), input)));
  });
  app.use(
    bodyLimit({
      maxSize: MAX_REQUEST_SIZE,
      onError: (c) => c.json(errorMessage('EINVAL', 'Cannot read control message: it is too long', null), 413),
    }),
  );

  app.get('/pool', async (c) => c.json(parse(poolSchema, await work(control.status()))));
  app.patch('/pool', async (c) => {
    const request = await readMessage(c, growPoolSchema);
    return c.json(parse(poolSchema, await work(control.grow(request))));
  });
  app.patch('/pool/options', async (c) => {
    const request = await readMessage(c, setOptionsSchema);
    return c.json(parse(poolSchema, await work(control.setOptions(request))));
  });
  app.post('/pool/commit', async (c) => c.json(parse(commitSchema, { transactionId: await work(control.commit()) })));
  app.get('/volumes', async (c) => c.json(parse(volumeListSchema, { volumes: await work(control.listVolumes()) })));
  app.post('/volumes', async (c) => {
    const request = await readMessage(c, createVolumeSchema);
    return c.json(parse(volumeSchema, await work(control.createVolume(request))), 201);
  });
  app.patch('/volumes/:name', async (c) => {
    const request = await readMessage(c, resizeVolumeSchema);
    return c.json(parse(volumeSchema, await work(control.resizeVolume(c.req.param('name'), request))));
  });
  app.patch('/volumes/:name/options', async (c) => {
    const request = await readMessage(c, setVolumeSchema);
    return c.json(parse(volumeSchema, await work(control.setVolume(c.req.param('name'), request))));
  });
  app.post('/snapshots', async (c) => {
    const request = await readMessage(c, createSnapshotsSchema);
    return c.json(parse(volumeListSchema, { volumes: await work(control.createSnapshots(request)) }), 201);
  });
  app.post('/volumes/:name/rename', async (c) => {
    const request = await readMessage(c, renameVolumeSchema);
    return c.json(parse(volumeSchema, await work(control.renameVolume(c.req.param('name'), request))));
  });
  app.post('/volumes/:name/rollback', async (c) => {
    const request = await readMessage(c, rollbackVolumeSchema);
    return c.json(parse(volumeSchema, await work(control.rollbackVolume(c.req.param('name'), request))));
  });
  app.post('/pool/trim', async (c) => {
    const request = await readMessage(c, trimSchema);
    return c.json(parse(trimmedSchema, await work(control.trim(request))));
  });
  app.post('/pool/message', async (c) => {
    const request = await readMessage(c, dmMessageSchema);
    return c.json(parse(commitSchema, { transactionId: await work(control.message(request)) }));
  });
  app.get('/pool/status-lines', async (c) => c.json(parse(statusLinesSchema, await work(control.statusLines()))));
  app.post('/volumes/:name/send', async (c) => {
    const request = await readMessage(c, sendVolumeSchema);
    const stream = await work(control.send(c.req.param('name'), request));
    const header = parse(streamSchema, { expectedBytes: stream.expectedBytes });
    return c.body(bodyOf(stream, logger), 200, { [STREAM_HEADER_NAME]: JSON.stringify(header) });
  });
  app.get('/volumes/:name/resume-token', async (c) =>
    c.json(parse(resumeTokenSchema, await work(control.resumeToken(c.req.param('name'))))),
  );
  const { access } = control;
  app.get('/access', async (c) => c.json(parse(accessSchema, await work(access.list()))));
  app.post('/access/allow', async (c) => {
    const request = await readMessage(c, allowSchema);
    return c.json(parse(accessSchema, await work(access.allow(request))));
  });
  app.post('/access/deny', async (c) => {
    const request = await readMessage(c, denySchema);
    return c.json(parse(accessSchema, await work(access.deny(request))));
  });
  app.post('/access/open', async (c) => {
    const request = await readMessage(c, openSchema);
    return c.json(parse(accessSchema, await work(access.setOpen(request))));
  });
  app.get('/reservations', async (c) =>
    c.json(parse(reservationListSchema, { volumes: await work(control.listReservations()) })),
  );
  app.post('/volumes/:name/clear-reservations', async (c) => {
    const request = await readMessage(c, clearReservationsSchema);
    return c.json(parse(volumeReservationsSchema, await work(control.clearReservations(c.req.param('name'), request))));
  });
  app.delete('/volumes/:name', async (c) => {
    const name = c.req.param('name');
    await work(control.deleteVolume(name));
    return c.json(parse(deletedSchema, { deleted: name }));
  });

  app.notFound((c) =>
    c.json(
      errorMessage(
        'EOPNOTSUPP',
        `Cannot answer ${c.req.method} ${c.req.path}: this server does not know it`,
        'The server is of another version than this command: restart it with "thinlun serve".',
      ),
      404,
    ),
  );
  app.onError((error, c) => {
    if (error instanceof StorageError) {
      return c.json(errorMessage(error.code, error.message, hintOf(error)), HTTP_STATUS[error.code] ?? 500);
    }
    logger.error({ err: error, path: c.req.path }, 'control request failed');
    return c.json(
      errorMessage('EIO', messageOf(error), 'This is a mistake in thinlun: see the log of the server.'),
      500,
    );
  });
  return app;
}

/** A stream as an answer, made as fast as it is read; it ends when nobody reads it any more. */
function bodyOf({ chunks, close }: VolumeChunks, logger: Logger): ReadableStream<Uint8Array> {
  const iterator = chunks[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>({
    pull: async (controller) => {
      try {
        const { value, done } = await iterator.next();
        if (!done) {
          controller.enqueue(value);
          return;
        }
        await close();
        controller.close();
      } catch (error) {
        // The stream itself has told why. An error here would cut off what is still on its way.
        logger.error({ error: messageOf(error) }, 'a stream could not be sent to its end');
        await close();
        controller.close();
      }
    },
    cancel: close,
  });
}

/** Between the last connection that can be made and the end of listening. */
const ACCEPT_MS = 20;
/** How long a connection without a whole request may hold up `close`. */
const LINGER_MS = 1_000;

/** The socket of one served pool. The caller holds the pool's lock: whatever socket lies there is a dead one's. */
export class ControlServer {
  readonly #server: Server;
  readonly #name: ControlSocketName;
  /** Calls under way that a request asked for. */
  #working = 0;

  private constructor(control: PoolControl, name: ControlSocketName, logger: Logger) {
    const work = async <T>(call: Promise<T>): Promise<T> => {
      this.#working++;
      try {
        return await call;
      } finally {
        this.#working--;
      }
    };
    this.#server = createAdaptorServer({ fetch: controlRoutes(control, logger, work).fetch }) as Server;
    // A volume that is received takes as long as it takes.
    this.#server.requestTimeout = 0;
    this.#name = name;
  }

  /** `onTakeover` gets the connections of processes that want to take over. Throws `StorageError` when the socket cannot be made. */
  static async listen(
    dir: string,
    control: PoolControl,
    logger: Logger,
    onTakeover: ((channel: HandoverChannel) => void) | null = null,
  ): Promise<ControlServer> {
    const name = new ControlSocketName(dir);
    const made = new ControlServer(control, name, logger);
    made.#server.on('upgrade', (request, socket) => {
      const known = request.url === TAKEOVER_PATH && request.headers.upgrade === TAKEOVER_PROTOCOL;
      if (!known || onTakeover === null || native === null) {
        socket.end('HTTP/1.1 501 Not Implemented\r\nconnection: close\r\n\r\n');
        return;
      }
      const channel = HandoverChannel.of(socket as Socket);
      channel.greet(`HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ${TAKEOVER_PROTOCOL}\r\n\r\n`);
      onTakeover(channel);
    });
    try {
      rmSync(name.path, { force: true });
      await made.#bind();
    } catch (error) {
      name.close();
      throw wrapError(`Cannot make the control socket in "${dir}"`, error);
    }
    made.#server.on('error', (error) => logger.error({ err: error }, 'control socket failed'));
    return made;
  }

  /** Takes no more requests, answers those in flight, removes the socket. */
  async close(): Promise<void> {
    // Who has connected already is heard before the listening socket, and what waits in it, is dropped.
    rmSync(this.#name.path, { force: true });
    await sleep(ACCEPT_MS);
    const ended = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    const cut = setInterval(() => {
      if (this.#working === 0) this.#server.closeAllConnections();
    }, LINGER_MS);
    await ended;
    clearInterval(cut);
    this.#name.close();
  }

  #bind(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      // bind() happens inside listen(): the socket is never there with wider rights, not even for a moment.
      const umask = process.umask(0o177);
      try {
        this.#server.listen({ path: this.#name.path }, () => {
          this.#server.off('error', reject);
          resolve();
        });
      } finally {
        process.umask(umask);
      }
    });
  }
}
