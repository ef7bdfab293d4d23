import { decodeLun } from '../scsi/lun.ts';
import type { PduParser } from './pdu-parser.ts';
import { serialBefore } from './serial.ts';
import { BHS_SIZE, Field, OPCODE_MASK, Opcode, PAD_SIZE } from './spec.ts';

interface HeldCommand {
  /** The PDU and the Data-Out PDUs behind it, as they came but without digests; empty for a CmdSN that counts as received. */
  readonly pdus: Uint8Array[];
  /** Initiator Task Tag. */
  readonly tag: number;
}

/**
 * PDUs that came before one with a lower CmdSN: an initiator that leaves a gap (a command whose data digest was wrong and that it will send again) gets
 * everything delivered in order (RFC 7143 4.2.2.1). Bounded in bytes.
 */
export class HeldPdus {
  private readonly maxBytes: number;
  private readonly held: Map<number, HeldCommand> = new Map();
  private bytes = 0;
  private incoming: Uint8Array | null = null;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  get count(): number {
    return this.held.size;
  }

  /** Takes the PDU at `parser` and sends its data here. False: there is no room. */
  begin(parser: PduParser): boolean {
    const headerLength = BHS_SIZE + parser.ahsLength;
    const size = headerLength + Math.ceil(parser.dataLength / PAD_SIZE) * PAD_SIZE;
    if (this.bytes + size > this.maxBytes) return false;
    const pdu = new Uint8Array(size);
    pdu.set(parser.copyHeader());
    parser.intoBytes(pdu, headerLength, parser.dataLength);
    this.incoming = pdu;
    return true;
  }

  /** The data of what `begin` took is in. A second PDU with the same CmdSN is dropped. */
  end(cmdSn: number, tag: number): void {
    const pdu = this.takeIncoming();
    if (pdu === null || this.held.has(cmdSn)) return;
    this.bytes += pdu.length;
    this.held.set(cmdSn, { pdus: [pdu], tag });
  }

  /** The same for a Data-Out of a task that is held. */
  endDataOut(tag: number): void {
    const pdu = this.takeIncoming();
    if (pdu === null) return;
    for (const command of this.held.values()) {
      if (command.tag !== tag || command.pdus.length === 0) continue;
      this.bytes += pdu.length;
      command.pdus.push(pdu);
      return;
    }
  }

  /** The data of what `begin` took was damaged. */
  forget(): void {
    this.incoming = null;
  }

  hasTask(tag: number): boolean {
    for (const command of this.held.values()) if (command.tag === tag && command.pdus.length > 0) return true;
    return false;
  }

  /** The command with `tag` counts as received and is not delivered. False: it is not here. */
  cancelTask(tag: number): boolean {
    for (const command of this.held.values()) {
      if (command.tag !== tag || command.pdus.length === 0) continue;
      for (const pdu of command.pdus) this.bytes -= pdu.length;
      command.pdus.length = 0;
      return true;
    }
    return false;
  }

  /** The commands for `lun` (all LUNs when it is null) that come before `endCmdSn` count as received and are not delivered. */
  cancelTasks(lun: number | null, endCmdSn: number): void {
    for (const [cmdSn, { pdus }] of this.held) {
      const pdu = pdus[0];
      if (pdu === undefined || (pdu[0]! & OPCODE_MASK) !== Opcode.SCSI_COMMAND) continue;
      if (!serialBefore(cmdSn, endCmdSn) || (lun !== null && decodeLun(pdu, Field.LUN) !== lun)) continue;
      for (const each of pdus) this.bytes -= each.length;
      pdus.length = 0;
    }
  }

  /** A CmdSN that has not come counts as received (RFC 7143 11.5.5). */
  skip(cmdSn: number): void {
    if (!this.held.has(cmdSn)) this.held.set(cmdSn, { pdus: [], tag: 0 });
  }

  /** What is held for `cmdSn`, and no longer; null when nothing is. */
  take(cmdSn: number): readonly Uint8Array[] | null {
    const command = this.held.get(cmdSn);
    if (command === undefined) return null;
    this.held.delete(cmdSn);
    for (const pdu of command.pdus) this.bytes -= pdu.length;
    return command.pdus;
  }

  private takeIncoming(): Uint8Array | null {
    const pdu = this.incoming;
    this.incoming = null;
    return pdu;
  }
}
