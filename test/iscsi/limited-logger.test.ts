import { describe, expect, it } from 'vitest';
import { LimitedLogger } from '../../src/iscsi/limited-logger.ts';

describe('the logger of the portal', () => {
  it('lets a bounded number of each message through and says how many it did not', () => {
    const lines: string[] = [];
    let now = 0;
    const write = (fields: object, text: string): number => lines.push(`${text} ${JSON.stringify(fields)}`);
    const clock = { nowMs: () => now, setTimer: () => ({ cancel: () => {} }) };
    const logger = new LimitedLogger({ debug: write, info: write, warn: write, error: write }, clock);
    for (let i = 0; i < 1000; i++) logger.info({ i }, 'connection dropped');
    logger.error({}, 'the portal cannot accept');
    expect(lines).toHaveLength(21);
    expect(lines[20]).toBe('the portal cannot accept {}');
    now = 1000;
    logger.info({ i: 1 }, 'connection dropped');
    logger.info({ i: 2 }, 'connection dropped');
    expect(lines.slice(21)).toEqual(['connection dropped {"i":1,"suppressed":980}', 'connection dropped {"i":2}']);
  });
});
