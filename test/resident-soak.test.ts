// The small version of bench/soak.ts: a life long enough for a descriptor or a name that comes twice to show.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { it } from 'node:test';

const soak = join(import.meta.dirname, '..', 'bench', 'soak.ts');

it('2000 requests through one process repeat no id and no name, and leave no descriptor open', () => {
  const { stdout, stderr } = spawnSync(process.execPath, [soak, '--requests', '2000', '--puts', '40'], {
    timeout: 240_000,
  });
  const said = `${stdout}${stderr}`;
  assert.match(said, /^ +2000 /m, said);
  assert.match(said, /^growth: .*, descriptors \+?-?[0-8], 0 ids repeated$/m, said);
  assert.match(said, /^50 uploads answered 200, 50 stored under names of their own$/m, said);
});
