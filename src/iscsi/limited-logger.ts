import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';

/** Messages of one kind in one period: enough to see what goes on. */
const MAX_MESSAGES = 20;
const PERIOD_MS = 1000;

type Level = 'debug' | 'info' | 'warn' | 'error';

interface Count {
  begunMs: number;
  messages: number;
  suppressed: number;
}

/**
 * A logger that a peer cannot fill disks with: of each text at most 20 a second get through, and the next one that does says how many did not.
 * The texts are constants, so the number of counts is bounded.
 */
export class LimitedLogger implements Logger {
  private readonly logger: Logger;
  private readonly clock: Clock;
  private readonly counts: Map<string, Count> = new Map();

  constructor(logger: Logger, clock: Clock) {
    this.logger = logger;
    this.clock = clock;
  }

  debug(fields: object, text: string): void {
    this.log('debug', fields, text);
  }

  info(fields: object, text: string): void {
    this.log('info', fields, text);
  }

  warn(fields: object, text: string): void {
    this.log('warn', fields, text);
  }

  error(fields: object, text: string): void {
    this.log('error', fields, text);
  }

  private log(level: Level, fields: object, text: string): void {
    const now = this.clock.nowMs();
    let count = this.counts.get(text);
    if (count === undefined) {
      count = { begunMs: now, messages: 0, suppressed: 0 };
      this.counts.set(text, count);
    }
    if (now - count.begunMs >= PERIOD_MS) {
      count.begunMs = now;
      count.messages = 0;
    }
    if (++count.messages > MAX_MESSAGES) {
      count.suppressed++;
      return;
    }
    const { suppressed } = count;
    count.suppressed = 0;
    this.logger[level](suppressed === 0 ? fields : { ...fields, suppressed }, text);
  }
}
