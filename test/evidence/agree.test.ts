// verify and report agree on every upload, at random sites. WEBJOB_TEST_SITES sets the number of
// sites.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { it } from 'node:test';
import { parseLines } from '../support/operator.ts';

const SITES = process.env.WEBJOB_TEST_SITES ?? '30';
const SEED = process.env.WEBJOB_TEST_SEED ?? '20040523';

interface Compared {
  disagreements: string[];
  uploads: number;
  bad: number;
  packed: number;
}

it(`verify and report agree at ${SITES} random sites (seed ${SEED})`, (t) => {
  const script = join(import.meta.dirname, '..', 'support', 'evidence-agree.ts');
  const { stdout, stderr, status } = spawnSync(process.execPath, [script, SEED, SITES], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  const all = parseLines<{ seed: number; before: Compared; after: Compared }>(stdout);
  assert.equal(all.length, Number(SITES));
  for (const { seed, before, after } of all)
    assert.deepEqual([...before.disagreements, ...after.disagreements], [], `seed ${seed}`);
  const sum = (count: (one: Compared) => number): number =>
    all.reduce((total, { before, after }) => total + count(before) + count(after), 0);
  const [uploads, bad, packed] = [sum((one) => one.uploads), sum((one) => one.bad), sum((one) => one.packed)];
  t.diagnostic(`${uploads} uploads, ${packed} in packs, ${bad} do not verify`);
  assert.ok(bad > all.length && uploads > 2 * bad && packed > all.length / 4, 'the sites are too much alike');
});
