// Random sites of several servers, with refused, broken and repeated PUTs, holds, removals and
// archives, rotated logs and clocks that were set: after every step the live store, a new one, a
// copy, and the files alone give the same answers.
import assert from 'node:assert/strict';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { jobJson } from '../../ledger/fields.ts';
import { readJobs } from '../../ledger/jobs.ts';
import type { Site } from '../../ledger/site.ts';
import { fillStore, storeFile } from '../../ledger/store.ts';
import { RandomSite, tell } from '../support/random-site.ts';

const SITES = Number(process.env.WEBJOB_TEST_SITES ?? 2);
const STEPS = 12;
const SEED = Number(process.env.WEBJOB_TEST_SEED ?? Date.now() % 1_000_000);

describe('a random site', () => {
  const made: RandomSite[] = [];
  after(() => {
    for (const { its } of made) its.close();
  });

  for (let number = 0; number < SITES; number++)
    it(`shows the same with a store and without, seed ${SEED + number}`, async () => {
      const random = new RandomSite(SEED + number);
      made.push(random);
      const { its } = random;
      const withoutStore = (): Site => {
        const site = random.site();
        const base = join(site.settings.baseDirectory, 'no-store');
        mkdirSync(base, { recursive: true });
        const { symlinkSync } = process.getBuiltinModule('node:fs');
        rmSync(join(base, 'packed'), { force: true });
        symlinkSync(join(site.settings.baseDirectory, 'packed'), join(base, 'packed'));
        return { ...site, settings: { ...site.settings, baseDirectory: base } };
      };
      for (let step = 0; step < STEPS; step++) {
        random.step();
        if (step === 1) (await fillStore(storeFile(random.site()), random.site(), {})).close();
        if (step === 6) assert.equal((await its.webjobctl('pack', '--older-than', '20d')).exitCode, 0);
        if (step === 8) await its.webjobctl('prune', '--older-than', '15d', '--yes');
        const files = await tell(withoutStore());
        const live = await tell(random.site());
        assert.deepEqual(live, files, `step ${step}, ${random.format}`);
        if (random.wentBack) continue;
        for (const since of [random.now - 3 * 86_400_000, random.now - 3600_000]) {
          const ask = async (site: Site): Promise<unknown[]> => {
            const found: unknown[] = [];
            for await (const job of readJobs(site, { since: new Date(since) })) found.push(jobJson(site, job));
            return found;
          };
          assert.deepEqual(await ask(withoutStore()), await ask(random.site()), `step ${step}, since`);
        }
      }
      (await fillStore(storeFile(random.site()), random.site(), { rebuild: true })).close();
      assert.deepEqual(await tell(random.site()), await tell(withoutStore()), 'made again');
    });
});
