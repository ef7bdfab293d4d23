import { foldName } from '../base/names.ts';
import { MAX_NAME_SIZE } from './spec.ts';

/** What may follow `iqn.`, `eui.` or `naa.`: printable, and nothing that separates names elsewhere (`,` in port names). */
const ALLOWED = /^[\x21-\x2b\x2d-\x7e\u00a1-\u{10ffff}]+$/u;
/** Controls, formats, spaces, unassigned: what changes how the text around it looks has no place in a name that logs and terminals show. */
const INVISIBLE = /[\p{C}\p{Z}]/u;

/**
 * An iSCSI name as it is compared (RFC 7143 4.2.7.2, RFC 3722: lower case), or null when it is not one. More characters are let through than the
 * RFC has: initiators build names from host and machine names, with underscores and the like.
 */
export function normalizeName(name: string): string | null {
  if (Buffer.byteLength(name) > MAX_NAME_SIZE) return null;
  const lower = foldName(name);
  // One character may become several: both forms have to fit.
  if (Buffer.byteLength(lower) > MAX_NAME_SIZE) return null;
  if (!/^(?:iqn|eui|naa)\../.test(lower) || !ALLOWED.test(lower) || INVISIBLE.test(lower)) return null;
  if (lower.startsWith('eui.') && !/^eui\.[0-9a-f]{16}$/.test(lower)) return null;
  if (lower.startsWith('naa.') && !/^naa\.(?:[0-9a-f]{16}|[0-9a-f]{32})$/.test(lower)) return null;
  return lower;
}
