import { describe, expect, it } from 'vitest';
import { connectLines } from '../../src/daemon/connect-lines.ts';
import { targetNameOf } from '../../src/daemon/iscsi-name.ts';
import {
  formatPortal,
  isLoopback,
  parsePortal,
  parseServedPortal,
  reachableFrom,
} from '../../src/daemon/portal-address.ts';

describe('a portal address', () => {
  it.each([
    ['127.0.0.1:3260', '127.0.0.1', 3260],
    ['127.0.0.1', '127.0.0.1', 3260],
    ['localhost:0', 'localhost', 0],
    ['storage.example.com:13260', 'storage.example.com', 13260],
    ['[::1]:65535', '::1', 65535],
    ['[fe80::1%eth0]', 'fe80::1%eth0', 3260],
  ])('%s is read, and written the same way', (text, host, port) => {
    expect(parsePortal(text)).toEqual({ host, port });
    expect(parsePortal(formatPortal({ host, port }))).toEqual({ host, port });
  });

  it.each([
    '',
    ':3260',
    '127.0.0.1:',
    '127.0.0.1:65536',
    '::1',
    '[::1',
    '[zz]:1',
    'a b:1',
    'host:-1',
    'host:1:2',
    '[1.2.3.4]:5',
  ])('"%s" is refused', (text) => {
    expect(() => parsePortal(text)).toThrow(/^Cannot read portal /);
  });

  it('may say its portal group', () => {
    expect(parseServedPortal('10.0.0.1:3261,2')).toEqual({ host: '10.0.0.1', port: 3261, tag: 2 });
    expect(parseServedPortal('[fe80::1%eth0],65535')).toEqual({ host: 'fe80::1%eth0', port: 3260, tag: 65535 });
    expect(parseServedPortal('[::]')).toEqual({ host: '::', port: 3260, tag: 1 });
    for (const text of [
      '10.0.0.1,',
      '10.0.0.1,0',
      '10.0.0.1,65536',
      '10.0.0.1,x',
      '10.0.0.1,-1',
      ',1',
      '10.0.0.1,1,2',
    ]) {
      expect(() => parseServedPortal(text), text).toThrow(/^Cannot read portal /);
    }
  });

  it('that means all addresses is reached from here through the loopback', () => {
    expect(reachableFrom({ host: '0.0.0.0', port: 1 })).toEqual({ host: '127.0.0.1', port: 1 });
    expect(reachableFrom({ host: '::', port: 1 })).toEqual({ host: '::1', port: 1 });
    expect(reachableFrom({ host: '10.0.0.1', port: 1 })).toEqual({ host: '10.0.0.1', port: 1 });
  });

  it('is known to be private or not', () => {
    for (const host of ['127.0.0.1', '127.8.9.1', '::1', 'localhost']) expect(isLoopback(host)).toBe(true);
    for (const host of ['0.0.0.0', '::', '10.0.0.1', '127.example.com']) expect(isLoopback(host)).toBe(false);
  });
});

describe('what initiators are told to type', () => {
  it('has brackets around IPv6 and no address that means "all"', () => {
    const text = JSON.stringify(connectLines({ host: '::', port: 3260 }, 'iqn.x:p', 2));
    expect(text).toContain('iscsi://[::1]:3260/iqn.x:p/2');
    expect(text).toContain('-p [::1]:3260 --login');
  });

  it('names no LUN where there is none', () => {
    expect(JSON.stringify(connectLines({ host: '127.0.0.1', port: 1 }, 'iqn.x:p', null))).not.toContain('qemu');
  });
});

describe('the target name of a pool', () => {
  it('is what iSCSI allows', () => {
    expect(targetNameOf('demo')).toBe('iqn.2026-11.io.thinlun:demo');
    expect(targetNameOf('My_Pool.1')).toBe('iqn.2026-11.io.thinlun:my-pool.1');
    expect(targetNameOf('p'.repeat(128)).length).toBeLessThanOrEqual(223);
  });
});
