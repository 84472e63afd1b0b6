// The READMEs of packages and directories: each example runs and prints what is shown, and their
// tables name files that exist.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { makeOldLocker, type OldLocker } from '../support/keep-site.ts';

const project = join(import.meta.dirname, '..', '..');
const FOLDERS = ['conf', 'cgi/protocol', 'cgi/locker', 'ledger', 'evidence'];

let site: OldLocker;
before(async () => {
  site = await makeOldLocker([{ days: 0 }]);
});
after(() => site.site.remove());

for (const folder of FOLDERS)
  describe(`${folder}/README.md`, () => {
    const text = readFileSync(join(project, folder, 'README.md'), 'utf8');

    it('prints what it shows', () => {
      const [, code = ''] = /^```ts\n(.*?)^```$/ms.exec(text) ?? [];
      const [, output] = /^```text\n(.*?)^```$/ms.exec(text) ?? [];
      const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module-typescript'], {
        cwd: join(project, folder),
        input: code,
        encoding: 'utf8',
        env: { ...process.env, WEBJOB_PROPERTIES_FILE: site.site.propertiesFile, NODE_NO_WARNINGS: '1' },
      });
      assert.deepEqual([stdout, stderr], [output, '']);
    });

    it('names only files that exist', () => {
      const named = [...text.matchAll(/^\| (`.*?) \|/gm)].flatMap(([, cell = '']) => cell.match(/[\w./-]+/g) ?? []);
      for (const name of named) assert.ok(existsSync(join(project, folder, name)), name);
      assert.ok(named.length === 0 || named.length > readdirSync(join(project, folder)).length / 3, named.join(' '));
    });
  });
