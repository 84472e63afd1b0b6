// The small version of bench/soak.ts: a life long enough for an id or a name that comes twice to show, and for memory or descriptors that grow
// with every GET and PUT. What leaks on rarer paths shows sooner under a descriptor limit than in a longer life of these two.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { it } from 'node:test';

const soak = join(import.meta.dirname, '..', 'bench', 'soak.ts');

it('600 requests through one process repeat no id and no name, and leave no descriptor open', () => {
  const { stdout, stderr } = spawnSync(process.execPath, [soak, '--requests', '600', '--puts', '6'], {
    timeout: 240_000,
  });
  const said = `${stdout}${stderr}`;
  assert.match(said, /^ +600 /m, said);
  assert.match(said, /^growth: .*, descriptors \+?-?[0-8], 0 ids repeated$/m, said);
  assert.match(said, /^100 uploads answered 200, 100 stored under names of their own$/m, said);
});
