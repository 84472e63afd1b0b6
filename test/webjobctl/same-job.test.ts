// A client may send any number of uploads under one job id. That must not slow webjobctl down more
// than as many uploads of others.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { makeLockerSite } from '../support/locker-site.ts';
import { plantPast } from '../support/past-site.ts';

const UPLOADS = 6000;
/** Linear work takes a second or two; quadratic work takes minutes. */
const SECONDS = 30;

describe('two uploads without a line in the log', () => {
  const its = makeLockerSite({ UseGMT: 'Y' });
  after(its.close);

  it('are two jobs when they are of two commands, even with one id', async () => {
    const none = { at: new Date('2026-11-01T10:00:00Z'), get: false, put: false, jobId: 'same' } as const;
    plantPast(its.site, 'UTC', [
      { ...none, command: 'a.sh' },
      { ...none, command: 'b.sh' },
      { ...none, command: 'b.sh', name: 'again' },
    ]);
    const jobs = await its.readJson<{ command: string; uploads: string[] }>('jobs');
    assert.deepEqual(jobs.map(({ command, uploads }) => [command, uploads.length]).sort(), [
      ['a.sh', 1],
      ['b.sh', 2],
    ]);
  });

  it('are in a report of what came since the very second of them', async () => {
    for (const [since, count] of [
      ['2026-11-01T10:00:00Z', 2],
      ['2026-11-01T10:00:01Z', 0],
    ] as const) {
      const report = join(its.site.root, `report-${count}`);
      const [made] = await its.readJson<{ jobPages: number }>(
        'report',
        '--html',
        report,
        '--job',
        'same',
        '--since',
        since,
      );
      assert.equal(made?.jobPages, count, since);
    }
  });
});

describe('webjobctl with many uploads under one job id', () => {
  const its = makeLockerSite();
  after(its.close);
  const { incoming, base } = its.site;
  let log = '';
  for (let number = 0; number < UPLOADS; number++) {
    const name = join(incoming, `client1_20261001000000_${String(number).padStart(5, '0')}_host.sh`);
    for (const extension of ['out', 'err', 'env']) writeFileSync(`${name}.${extension}`, '');
    writeFileSync(`${name}.rdy`, 'Jid=same\n');
    log += '2026-10-01 00:00:00 same client1 127.0.0.1 PUT client1 host.sh 0 0 0 200 -- Success\n';
  }
  writeFileSync(join(base, 'logfiles', 'nph-webjob.log'), log);

  for (const [title, ...args] of [
    ['export finds all of them', 'export', '--client', 'client1'],
    ['so does it for an index', 'index'],
    ['prune knows whose they are', 'prune', '--keep', '5', '--dry-run'],
  ]) {
    it(String(title), { timeout: SECONDS * 1000 }, async () => {
      const lines = await its.readJson<{ uploads?: string[]; jobs?: number; client?: string }>(...args);
      if (args[0] === 'export') assert.equal(lines[0]?.uploads?.length, UPLOADS);
      if (args[0] === 'index') assert.equal(lines[0]?.jobs, 1);
      if (args[0] === 'prune') assert.equal(lines.filter(({ client }) => client === 'client1').length, UPLOADS - 5);
    });
  }
});
