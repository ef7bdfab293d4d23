import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import { searchPath } from './debian-tools.mjs';

process.env['PATH'] = searchPath();

/**
 * Says in a file of this process's own which test runs here, and until when at the latest, so that `test/run.mjs` can end a
 * test that never gives control back (vitest's own limits need the event loop) and name it.
 */
const folder = process.env['THINLUN_TEST_STATE'];
if (folder) {
  const file = join(folder, String(process.pid));
  beforeEach((context) => {
    const { task } = context;
    const titles = [task.name];
    for (let suite = task.suite; suite; suite = suite.suite) titles.unshift(suite.name);
    const state = { file: task.file.name, title: titles.join(' > '), begunMs: Date.now(), timeoutMs: task.timeout };
    writeFileSync(file, JSON.stringify(state));
  });
  afterEach(() => rmSync(file, { force: true }));
}
