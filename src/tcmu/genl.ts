import { readU16LE, readU32LE, readU64LE, writeU16LE, writeU32LE } from '../base/bytes.ts';
import { StorageError } from '../base/errors.ts';

/*
 * The generic netlink family TCM-USER, through which the kernel tells of devices and waits for answers. In the host's byte order,
 * everything at multiples of 4:
 *
 *   nlmsghdr     0 u32 length   4 u16 type (family id)   6 u16 flags   8 u32 sequence   12 u32 port
 *   genlmsghdr  16 u8 command  17 u8 version  18 u16 0
 *   attribute    0 u16 length (with this header)  2 u16 type  4 payload
 */

const MESSAGE_HEADER_SIZE = 16;
const GENL_HEADER_SIZE = 4;
const ATTRIBUTE_HEADER_SIZE = 4;
const ATTRIBUTE_TYPE_MASK = 0x3fff;
const NLM_F_REQUEST = 1;
const NLMSG_ERROR = 2;

const CONTROL_FAMILY_ID = 16;
const CONTROL_NEW_FAMILY = 1;
const CONTROL_GET_FAMILY = 3;
const ControlAttribute = { FAMILY_ID: 1, FAMILY_NAME: 2, MULTICAST_GROUPS: 7 } as const;
const GroupAttribute = { NAME: 1, ID: 2 } as const;

export const FAMILY_NAME = 'TCM-USER';
const FAMILY_VERSION = 2;
export const GROUP_NAME = 'config';
const SET_FEATURES = 7;
/** A *_DONE command is its event's number and this. */
const DONE_OFFSET = 3;

const Attribute = {
  DEVICE: 1,
  MINOR: 2,
  DEV_CFG: 4,
  DEV_SIZE: 5,
  WRITECACHE: 6,
  CMD_STATUS: 7,
  DEVICE_ID: 8,
  SUPP_KERN_CMD_REPLY: 9,
} as const;

/** Which event. */
export const TcmuEventKind = { ADDED: 1, REMOVED: 2, RECONFIG: 3 } as const;
export type TcmuEventKind = (typeof TcmuEventKind)[keyof typeof TcmuEventKind];

/** What the kernel tells; it waits for an answer with this device id unless the device opted out. */
export interface TcmuEvent {
  readonly kind: TcmuEventKind;
  readonly uioName: string;
  readonly minor: number;
  readonly deviceId: number;
  /** RECONFIG carries one of these, with the value that is to be; the others are null. */
  readonly devConfig: string | null;
  readonly sizeBytes: number | null;
  readonly writeCache: boolean | null;
}

export type NetlinkMessage =
  | { readonly is: 'event'; readonly event: TcmuEvent }
  | { readonly is: 'family'; readonly id: number; readonly groupId: number | null }
  | { readonly is: 'error'; readonly errno: number }
  | { readonly is: 'other' };

function malformed(why: string): StorageError {
  return new StorageError('EILSEQ', `Cannot read the netlink message: ${why}`);
}

/** Calls `visit(type, payloadBegin, payloadEnd)` for each attribute of `[begin, end)`. Throws EILSEQ where one does not fit. */
function eachAttribute(
  bytes: Uint8Array,
  begin: number,
  end: number,
  visit: (type: number, begin: number, end: number) => void,
): void {
  let at = begin;
  while (at < end) {
    if (end - at < ATTRIBUTE_HEADER_SIZE) throw malformed(`${end - at} bytes are left for an attribute`);
    const length = readU16LE(bytes, at);
    if (length < ATTRIBUTE_HEADER_SIZE || length > end - at) {
      throw malformed(`an attribute of ${length} bytes where ${end - at} are left`);
    }
    visit(readU16LE(bytes, at + 2) & ATTRIBUTE_TYPE_MASK, at + ATTRIBUTE_HEADER_SIZE, at + length);
    at += Math.ceil(length / 4) * 4;
  }
}

/** The number in a payload of exactly `size` bytes. */
function numberOf(bytes: Uint8Array, begin: number, end: number, size: 1 | 2 | 4 | 8): number {
  if (end - begin !== size) throw malformed(`an attribute has ${end - begin} bytes, expected ${size}`);
  if (size === 1) return bytes[begin]!;
  if (size === 2) return readU16LE(bytes, begin);
  return size === 4 ? readU32LE(bytes, begin) : readU64LE(bytes, begin);
}

function stringOf(bytes: Uint8Array, begin: number, end: number): string {
  const last = end > begin && bytes[end - 1] === 0 ? end - 1 : end;
  return Buffer.from(bytes.buffer, bytes.byteOffset + begin, last - begin).toString('utf8');
}

function decodeEvent(bytes: Uint8Array, begin: number, end: number, kind: TcmuEventKind): TcmuEvent {
  let uioName: string | null = null;
  let minor: number | null = null;
  let deviceId: number | null = null;
  let devConfig: string | null = null;
  let sizeBytes: number | null = null;
  let writeCache: boolean | null = null;
  eachAttribute(bytes, begin, end, (type, from, to) => {
    if (type === Attribute.DEVICE) uioName = stringOf(bytes, from, to);
    else if (type === Attribute.MINOR) minor = numberOf(bytes, from, to, 4);
    else if (type === Attribute.DEVICE_ID) deviceId = numberOf(bytes, from, to, 4);
    else if (type === Attribute.DEV_CFG) devConfig = stringOf(bytes, from, to);
    else if (type === Attribute.DEV_SIZE) sizeBytes = numberOf(bytes, from, to, 8);
    else if (type === Attribute.WRITECACHE) writeCache = numberOf(bytes, from, to, 1) !== 0;
  });
  if (uioName === null || minor === null || deviceId === null) throw malformed('an event without name, minor or id');
  return { kind, uioName, minor, deviceId, devConfig, sizeBytes, writeCache };
}

function decodeFamily(bytes: Uint8Array, begin: number, end: number): NetlinkMessage {
  let id: number | null = null;
  let groupId: number | null = null;
  eachAttribute(bytes, begin, end, (type, from, to) => {
    if (type === ControlAttribute.FAMILY_ID) id = numberOf(bytes, from, to, 2);
    if (type !== ControlAttribute.MULTICAST_GROUPS) return;
    eachAttribute(bytes, from, to, (_index, groupFrom, groupTo) => {
      let name = '';
      let candidate = 0;
      eachAttribute(bytes, groupFrom, groupTo, (groupType, a, b) => {
        if (groupType === GroupAttribute.NAME) name = stringOf(bytes, a, b);
        else if (groupType === GroupAttribute.ID) candidate = numberOf(bytes, a, b, 4);
      });
      if (name === GROUP_NAME) groupId = candidate;
    });
  });
  if (id === null) throw malformed('a family without an id');
  return { is: 'family', id, groupId };
}

/** The messages of one datagram. `familyId` is that of TCM-USER, or 0 while it is not known. Throws EILSEQ on what is malformed. */
export function decodeDatagram(bytes: Uint8Array, familyId: number): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  let at = 0;
  while (at < bytes.length) {
    const left = bytes.length - at;
    if (left < MESSAGE_HEADER_SIZE) throw malformed(`${left} bytes are left for a header`);
    const length = readU32LE(bytes, at);
    if (length < MESSAGE_HEADER_SIZE || length > left) throw malformed(`it has ${length} bytes, ${left} arrived`);
    const type = readU16LE(bytes, at + 4);
    const body = at + MESSAGE_HEADER_SIZE;
    const end = at + length;
    if (type === NLMSG_ERROR) {
      if (end - body < 4) throw malformed('an error without its number');
      messages.push({ is: 'error', errno: -(readU32LE(bytes, body) | 0) });
    } else if ((type === CONTROL_FAMILY_ID || type === familyId) && type !== 0) {
      if (end - body < GENL_HEADER_SIZE) throw malformed('no room for a command');
      const command = bytes[body]!;
      const attributes = body + GENL_HEADER_SIZE;
      if (type === CONTROL_FAMILY_ID) {
        messages.push(command === CONTROL_NEW_FAMILY ? decodeFamily(bytes, attributes, end) : { is: 'other' });
      } else if (command >= TcmuEventKind.ADDED && command <= TcmuEventKind.RECONFIG) {
        messages.push({ is: 'event', event: decodeEvent(bytes, attributes, end, command as TcmuEventKind) });
      } else messages.push({ is: 'other' });
    } else messages.push({ is: 'other' });
    at += Math.ceil(length / 4) * 4;
  }
  return messages;
}

/** A message of one genl command; each attribute is its type and payload. */
export function encodeMessage(
  family: number,
  command: number,
  version: number,
  attributes: readonly (readonly [type: number, payload: Uint8Array])[],
): Uint8Array {
  let length = MESSAGE_HEADER_SIZE + GENL_HEADER_SIZE;
  for (const [, payload] of attributes) length += Math.ceil((ATTRIBUTE_HEADER_SIZE + payload.length) / 4) * 4;
  const bytes = new Uint8Array(length);
  writeU32LE(bytes, 0, length);
  writeU16LE(bytes, 4, family);
  writeU16LE(bytes, 6, NLM_F_REQUEST);
  bytes[MESSAGE_HEADER_SIZE] = command;
  bytes[MESSAGE_HEADER_SIZE + 1] = version;
  let at = MESSAGE_HEADER_SIZE + GENL_HEADER_SIZE;
  for (const [type, payload] of attributes) {
    writeU16LE(bytes, at, ATTRIBUTE_HEADER_SIZE + payload.length);
    writeU16LE(bytes, at + 2, type);
    bytes.set(payload, at + ATTRIBUTE_HEADER_SIZE);
    at += Math.ceil((ATTRIBUTE_HEADER_SIZE + payload.length) / 4) * 4;
  }
  return bytes;
}

/** A signed or unsigned 32-bit payload. */
function word(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  writeU32LE(bytes, 0, value >>> 0);
  return bytes;
}

/** The answer to an event: 0, or a negative errno number. */
export function encodeDone(familyId: number, kind: TcmuEventKind, deviceId: number, status: number): Uint8Array {
  return encodeMessage(familyId, kind + DONE_OFFSET, FAMILY_VERSION, [
    [Attribute.CMD_STATUS, word(status)],
    [Attribute.DEVICE_ID, word(deviceId)],
  ]);
}

/** Tells the kernel whether somebody answers its events. The switch is the module's and outlives the process that set it. */
export function encodeSetFeatures(familyId: number, answersEvents: boolean): Uint8Array {
  return encodeMessage(familyId, SET_FEATURES, FAMILY_VERSION, [
    [Attribute.SUPP_KERN_CMD_REPLY, Uint8Array.of(answersEvents ? 1 : 0)],
  ]);
}

export function encodeGetFamily(): Uint8Array {
  return encodeMessage(CONTROL_FAMILY_ID, CONTROL_GET_FAMILY, 1, [
    [ControlAttribute.FAMILY_NAME, Buffer.from(`${FAMILY_NAME}\0`)],
  ]);
}
