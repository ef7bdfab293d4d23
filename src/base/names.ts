/** Names of pools and volumes: letters, digits, `.`, `_`, `-`, a letter or digit first, at most 128. */
export const NAME_PATTERN: RegExp = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** Whether `name` can name a pool or a volume. */
export function isValidName(name: string): boolean {
  return NAME_PATTERN.test(name);
}

/**
 * The form in which iSCSI names are compared (RFC 7143 4.2.7.2, RFC 3722): compatibility characters as what they stand for, in lower case. It stays as it is
 * when it is folded again, which is why it is composed twice: J with a caron has no capital of its own. It may be longer than the name.
 */
export function foldName(name: string): string {
  return name.normalize('NFKC').toLowerCase().normalize('NFKC');
}
