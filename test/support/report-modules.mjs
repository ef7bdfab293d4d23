/**
 * For `node --import`: writes the URL of everything that the process has loaded to the file that `THINLUN_MODULES` names, one a line, when it ends.
 * V8 itself tells, so nothing is missed, however it was loaded.
 */
import { writeFileSync } from 'node:fs';
import { Session } from 'node:inspector';

const file = process.env['THINLUN_MODULES'];
if (file !== undefined) {
  const urls = new Set();
  const session = new Session();
  session.connect();
  session.on('Debugger.scriptParsed', ({ params }) => urls.add(params.url));
  session.post('Debugger.enable');
  process.on('exit', () => writeFileSync(file, [...urls].join('\n')));
}
