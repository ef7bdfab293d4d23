/** Names of pools and volumes: letters, digits, `.`, `_`, `-`, a letter or digit first, at most 128. */
export const NAME_PATTERN: RegExp = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** Whether `name` can name a pool or a volume. */
export function isValidName(name: string): boolean {
  return NAME_PATTERN.test(name);
}
