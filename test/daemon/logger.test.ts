import { describe, expect, it } from 'vitest';
import { formatLogLine } from '../../src/daemon/logger.ts';

const line = (fields: object): string =>
  JSON.stringify({ level: 40, time: '2026-11-20T12:30:05.123Z', ...fields, msg: 'pool mode' });

describe('a log line for a terminal', () => {
  it('is short: time of day, level, text, fields', () => {
    expect(formatLogLine(line({ pool: '/srv/p', free: 12, list: [1] }), false)).toBe(
      '12:30:05.123 warn  pool mode  pool=/srv/p free=12 list=[1]\n',
    );
    expect(formatLogLine(line({}), false)).toBe('12:30:05.123 warn  pool mode\n');
  });

  it('has the stack of an error below, in either form', () => {
    const stack = 'Error: x\n    at y';
    expect(formatLogLine(line({ err: { message: 'x', stack } }), false)).toBe(
      `12:30:05.123 warn  pool mode  error=x\n${stack}\n`,
    );
    expect(formatLogLine(line({ error: 'x', stack }), false)).toBe(`12:30:05.123 warn  pool mode  error=x\n${stack}\n`);
  });

  it('has colours only where they were asked for', () => {
    expect(formatLogLine(line({}), true)).toContain('\u001b[33mwarn');
    expect(formatLogLine(line({}), false)).not.toContain('\u001b');
  });
});
