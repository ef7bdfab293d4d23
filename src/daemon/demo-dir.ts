import { homedir } from 'node:os';
import { join } from 'node:path';

/** `$XDG_DATA_HOME/thinlun/demo`, by default `~/.local/share/thinlun/demo`. */
export function defaultDemoDir(): string {
  const data = process.env['XDG_DATA_HOME'];
  // The specification: a relative path is to be ignored.
  return join(data?.startsWith('/') ? data : join(homedir(), '.local', 'share'), 'thinlun', 'demo');
}
