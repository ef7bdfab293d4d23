import type { CommandWindow } from './command-window.ts';
import type { HeldPdus } from './held-pdus.ts';
import { type PduHandler, PduParser } from './pdu-parser.ts';

/** Delivers PDUs that were held, once the ones before them have come, through a parser of their own. */
export class Replay {
  private readonly held: HeldPdus;
  private readonly window: CommandWindow;
  private readonly parser: PduParser;
  private readonly queue: Uint8Array[] = [];
  private at = 0;
  private running = false;

  constructor(held: HeldPdus, window: CommandWindow, handler: PduHandler) {
    this.held = held;
    this.window = window;
    // Lengths and digests were checked when they came.
    this.parser = new PduParser(handler, 0xffffff);
  }

  /** A PDU stands still in the middle: nothing that came later may overtake it. */
  get isHalted(): boolean {
    return this.queue.length > 0 && !this.running;
  }

  /** Delivers what can be delivered. */
  run(): void {
    if (this.running) return;
    this.running = true;
    while (this.next()) {
      const pdu = this.queue[0]!;
      this.at = this.parser.feed(pdu, this.at, pdu.length);
      if (this.parser.isHalted) break;
      this.queue.shift();
      this.at = 0;
    }
    this.running = false;
  }

  stop(): void {
    this.parser.stop();
    this.queue.length = 0;
  }

  discard(): void {
    this.parser.discard();
  }

  /** Whether there is a PDU to go on with. */
  private next(): boolean {
    while (this.queue.length === 0) {
      if (this.window.isFrozen) return false;
      const pdus = this.held.take(this.window.expCmdSn);
      if (pdus === null) return false;
      if (pdus.length === 0) this.window.advance();
      else this.queue.push(...pdus);
    }
    return true;
  }
}
