import { readU16BE, writeU16BE, writeU32BE } from '../base/bytes.ts';
import type { Command, CommandHandler } from './command.ts';
import { isHolder, ZERO_KEY } from './persistent-state.ts';
import { MAX_TRANSPORT_ID, writeTransportId } from './transport-id.ts';

/** PERSISTENT RESERVE IN (SPC-4 6.15). */

const HEADER = 8;
const KEY = 8;

/** `write` returns all of the parameter data, whatever the allocation length. */
function handler(write: (command: Command) => Uint8Array): CommandHandler {
  return {
    prepare: (command: Command): boolean => command.transferIn(readU16BE(command.task.cdb, 7)),

    execute(command: Command): void {
      const { task } = command;
      const data = write(command);
      command.transferIn(Math.min(data.length, readU16BE(task.cdb, 7)));
      task.dataIn.copyFrom(data, 0, 0, task.dataInLength);
      command.finish();
    },

    step(): void {},
  };
}

/** PRGENERATION and ADDITIONAL LENGTH. */
function writeHeader(out: Uint8Array, generation: number, end: number): void {
  writeU32BE(out, 0, generation);
  writeU32BE(out, 4, end - HEADER);
}

function writeKey(out: Uint8Array, at: number, key: string): void {
  out.set(Buffer.from(key, 'hex'), at);
}

export const readKeys: CommandHandler = handler(({ unit: { reservations } }) => {
  const { registrants } = reservations.state;
  const out = new Uint8Array(HEADER + KEY * registrants.length);
  writeHeader(out, reservations.generation, out.length);
  for (let i = 0; i < registrants.length; i++) writeKey(out, HEADER + KEY * i, registrants[i]!.key);
  return out;
});

export const readReservation: CommandHandler = handler(({ unit: { reservations } }) => {
  const { state, generation } = reservations;
  const out = new Uint8Array(state.type === null ? HEADER : HEADER + 16);
  writeHeader(out, generation, out.length);
  if (state.type !== null) {
    // That of all registrants has no key.
    const holder = state.registrants.find((registrant) => state.holder !== null && isHolder(state, registrant));
    writeKey(out, HEADER, holder?.key ?? ZERO_KEY);
    out[21] = state.type;
  }
  return out;
});

export const reportCapabilities: CommandHandler = handler(({ unit: { reservations } }) => {
  const out = new Uint8Array(8);
  writeU16BE(out, 0, out.length);
  // CRH, SIP_C, ATP_C, PTPL_C
  out[2] = 0x1c | (reservations.canPersist ? 1 : 0);
  // TMV, ALLOW COMMANDS 001b, PTPL_A
  out[3] = 0x90 | (reservations.state.aptpl ? 1 : 0);
  // All six types.
  writeU16BE(out, 4, 0xea01);
  return out;
});

const DESCRIPTOR = 24;

export const readFullStatus: CommandHandler = handler(({ unit: { reservations } }) => {
  const { state, generation } = reservations;
  const out = new Uint8Array(HEADER + state.registrants.length * (DESCRIPTOR + MAX_TRANSPORT_ID));
  let at = HEADER;
  for (const registrant of state.registrants) {
    writeKey(out, at, registrant.key);
    if (isHolder(state, registrant)) {
      // R_HOLDER
      out[at + 12] = 1;
      out[at + 13] = state.type!;
    }
    writeU16BE(out, at + 18, registrant.targetPort);
    const end = writeTransportId(registrant.initiatorPort, out, at + DESCRIPTOR);
    writeU32BE(out, at + 20, end - at - DESCRIPTOR);
    at = end;
  }
  writeHeader(out, generation, at);
  return out.subarray(0, at);
});
