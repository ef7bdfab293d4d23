const PREFIX = 'iqn.2026-11.io.thinlun:';
/** RFC 7143 4.2.7.1 */
const MAX_ISCSI_NAME_SIZE = 223;

/**
 * The iSCSI name of a pool's target. iSCSI names are lower case and know letters, digits, `.`, `-` and `:` only (RFC 3722), so
 * two pools whose names differ in nothing else have the same.
 */
export function targetNameOf(poolName: string): string {
  return `${PREFIX}${poolName.toLowerCase().replaceAll('_', '-')}`.slice(0, MAX_ISCSI_NAME_SIZE);
}
