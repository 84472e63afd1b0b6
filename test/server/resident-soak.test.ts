// A small version of bench/soak.ts: long enough to notice an id or a name that repeats, and memory
// or descriptors that grow with every GET and PUT. Leaks on rarer paths are found faster under a
// descriptor limit.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { it } from 'node:test';

const soak = join(import.meta.dirname, '..', '..', 'bench', 'soak.ts');

it('600 requests through one process repeat no id and no name, and leave no descriptor open', () => {
  const { stdout, stderr } = spawnSync(process.execPath, [soak, '--requests', '600', '--puts', '6'], {
    timeout: 240_000,
  });
  const said = `${stdout}${stderr}`;
  assert.match(said, /^ +600 /m, said);
  assert.match(said, /^growth: .*, descriptors \+?-?[0-8], 0 ids repeated$/m, said);
  assert.match(said, /^100 uploads answered 200, 100 stored under names of their own$/m, said);
});
