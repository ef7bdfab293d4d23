import { describe, expect, it } from 'vitest';
import { normalizeName } from '../../src/iscsi/names.ts';

describe('an iSCSI name', () => {
  it.each([
    ['iqn.2026-01.org.example:disk-1', 'iqn.2026-01.org.example:disk-1'],
    ['IQN.2026-01.org.Example:Disk_1', 'iqn.2026-01.org.example:disk_1'],
    ['eui.02004567A425678D', 'eui.02004567a425678d'],
    ['naa.52004567BA64678D', 'naa.52004567ba64678d'],
    ['naa.62004567BA64678D0123456789ABCDEF', 'naa.62004567ba64678d0123456789abcdef'],
    ['iqn.2026-01.org.example:größe', 'iqn.2026-01.org.example:größe'],
    // There is no capital of one character, so that what stands for it comes about only in lower case.
    ['iqn.2026-01.org.example:J\u030c', 'iqn.2026-01.org.example:\u01f0'],
    ['iqn.2026-01.org.example:\u01f0', 'iqn.2026-01.org.example:\u01f0'],
    [`iqn.${'x'.repeat(219)}`, `iqn.${'x'.repeat(219)}`],
  ])('%s is compared as %s', (name, normal) => {
    expect(normalizeName(name)).toBe(normal);
  });

  it.each([
    '',
    'disk',
    'iqn.',
    'iqn',
    'eui.123',
    'eui.02004567A425678G',
    'naa.52004567BA64678',
    'iqn.2026-01.org.example:a b',
    'iqn.2026-01.org.example:a,b',
    'iqn.2026-01.org.example:a\nb',
    'iqn.2026-01.org.example:a\u0000b',
    'iqn.2026-01.org.example:a\u0085b',
    `iqn.${'x'.repeat(220)}`,
    `iqn.${'ö'.repeat(110)}`,
    // 223 bytes, which are 880 in the form that is compared.
    `iqn.${'\u3300'.repeat(73)}`,
    'iqn.2026-01.org.example:a\u202eb',
    'iqn.2026-01.org.example:a\u2028b',
    'iqn.2026-01.org.example:a\ufeffb',
    'iqn.2026-01.org.example:a\u3000b',
    'iqn.2026-01.org.example:a\ue000b',
  ])('%j is none (CVE-2026-44943, open-iscsi: names of the other side are not trusted)', (name) => {
    expect(normalizeName(name)).toBeNull();
  });
});
