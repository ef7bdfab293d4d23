import type { PduParser } from './pdu-parser.ts';
import { serialBefore } from './serial.ts';
import type { HeldCommandHandover } from './session-handover.ts';
import { BHS_SIZE, PAD_SIZE } from './spec.ts';

interface HeldCommand {
  /** The PDU and the Data-Out PDUs behind it, as they came but without digests; empty for a CmdSN that counts as received. */
  readonly pdus: Uint8Array[];
  /** Initiator Task Tag. */
  readonly tag: number;
}

/** What the connections of a session hold together. */
export class HeldBudget {
  maxBytes: number;
  bytes = 0;
  /** Commands. */
  count = 0;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }
}

/**
 * PDUs that came before one with a lower CmdSN: an initiator that leaves a gap (a command whose data digest was wrong and that it will send again) gets
 * everything delivered in order (RFC 7143 4.2.2.1), and so does one that spreads its commands over connections. Each connection holds what came by it.
 */
export class HeldPdus {
  private readonly budget: HeldBudget;
  private readonly held: Map<number, HeldCommand> = new Map();
  private incoming: Uint8Array | null = null;

  constructor(budget: HeldBudget) {
    this.budget = budget;
  }

  /** Takes the PDU at `parser` and sends its data here. False: there is no room. */
  begin(parser: PduParser): boolean {
    const headerLength = BHS_SIZE + parser.ahsLength;
    const size = headerLength + Math.ceil(parser.dataLength / PAD_SIZE) * PAD_SIZE;
    if (this.budget.bytes + size > this.budget.maxBytes) return false;
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
    this.budget.bytes += pdu.length;
    this.add(cmdSn, { pdus: [pdu], tag });
  }

  /** The same for a Data-Out of a task that is held. */
  endDataOut(tag: number): void {
    const pdu = this.takeIncoming();
    if (pdu === null) return;
    for (const command of this.held.values()) {
      if (command.tag !== tag || command.pdus.length === 0) continue;
      this.budget.bytes += pdu.length;
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
      this.release(command);
      command.pdus.length = 0;
      return true;
    }
    return false;
  }

  /** A CmdSN that has not come counts as received (RFC 7143 11.5.5). */
  skip(cmdSn: number): void {
    if (!this.held.has(cmdSn)) this.add(cmdSn, { pdus: [], tag: 0 });
  }

  /** What is held for `cmdSn`, and no longer; null when nothing is. */
  take(cmdSn: number): readonly Uint8Array[] | null {
    const command = this.held.get(cmdSn);
    if (command === undefined) return null;
    this.remove(cmdSn, command);
    return command.pdus;
  }

  /** Drops what another connection has brought meanwhile: everything before `expCmdSn`. */
  dropBefore(expCmdSn: number): void {
    for (const [cmdSn, command] of this.held) if (serialBefore(cmdSn, expCmdSn)) this.remove(cmdSn, command);
  }

  /** Drops everything. */
  clear(): void {
    for (const [cmdSn, command] of this.held) this.remove(cmdSn, command);
    this.incoming = null;
  }

  /** Everything, for the next process. */
  handOver(): HeldCommandHandover[] {
    return [...this.held].map(([cmdSn, { tag, pdus }]) => {
      return { cmdSn, tag, pdus: pdus.map((pdu) => Buffer.from(pdu).toString('base64')) };
    });
  }

  takeOver(commands: readonly HeldCommandHandover[]): void {
    for (const { cmdSn, tag, pdus } of commands) {
      const command = { tag, pdus: pdus.map((pdu) => new Uint8Array(Buffer.from(pdu, 'base64'))) };
      for (const pdu of command.pdus) this.budget.bytes += pdu.length;
      this.add(cmdSn, command);
    }
  }

  private add(cmdSn: number, command: HeldCommand): void {
    this.held.set(cmdSn, command);
    this.budget.count++;
  }

  private remove(cmdSn: number, command: HeldCommand): void {
    this.held.delete(cmdSn);
    this.budget.count--;
    this.release(command);
  }

  private release(command: HeldCommand): void {
    for (const pdu of command.pdus) this.budget.bytes -= pdu.length;
  }

  private takeIncoming(): Uint8Array | null {
    const pdu = this.incoming;
    this.incoming = null;
    return pdu;
  }
}
