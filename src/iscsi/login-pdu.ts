import { readU16BE, readU32BE } from '../base/bytes.ts';
import type { LoginRequest } from './login.ts';
import type { PduParser } from './pdu-parser.ts';
import { CONTINUE, Field, IMMEDIATE, Opcode, TRANSIT } from './spec.ts';

/** Whether the PDU at `parser` is a login request (RFC 7143 11.12). */
export function isLoginRequest(parser: PduParser): boolean {
  const { header, headerAt, opcode, ahsLength } = parser;
  return opcode === Opcode.LOGIN && (header[headerAt]! & IMMEDIATE) !== 0 && ahsLength === 0;
}

/** The fields of the login request at `parser`, whose data segment is `text`. */
export function readLoginRequest(parser: PduParser, text: Uint8Array): LoginRequest {
  const { header, headerAt: at } = parser;
  const flags = header[at + Field.FLAGS]!;
  return {
    transit: (flags & TRANSIT) !== 0,
    continues: (flags & CONTINUE) !== 0,
    currentStage: (flags >>> 2) & 3,
    nextStage: flags & 3,
    versionMin: header[at + 3]!,
    isid: Buffer.from(header.buffer, header.byteOffset + at + Field.ISID, 6).toString('hex'),
    tsih: readU16BE(header, at + Field.TSIH),
    cid: readU16BE(header, at + Field.CID),
    cmdSn: readU32BE(header, at + Field.CMD_SN),
    text,
  };
}
