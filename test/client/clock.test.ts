// The times in a run record when the clock is set while a program runs, and the clock skew that
// webjobctl shows.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { formatEpoch, parseEpoch, parseRecord } from 'webjob-protocol';
import { describeClockSkew, findClockSkew } from '../../ledger/clock.ts';
import { makeClient } from '../support/client-job.ts';
import { type FakeServer, serve, splitRequest, startFake } from '../support/client-server.ts';
import { type ClientSite, startClientSite } from '../support/client-site.ts';
import { makeFakeClock, needsFakeClock } from '../support/clock-fake.ts';
import { makeLockerSite, makeRecord } from '../support/locker-site.ts';
import { parseLines, runWebjobctl } from '../support/operator.ts';

const seconds = (epoch: string): number => parseEpoch(epoch) / 1_000_000;

describe('the times of a run record', needsFakeClock, () => {
  const client = makeClient();
  const clock = makeFakeClock(join(client.root, 'clock'));
  let fake: FakeServer;
  before(async () => {
    fake = await startFake();
    client.configure({ URLGetURL: fake.url, URLPutURL: fake.url });
  });
  after(async () => {
    await fake.close();
    client.remove();
  });

  /** The four epochs of a job whose program sets the clock. */
  async function runWhile(start: string, step: string): Promise<Record<'Job' | 'Get' | 'Run' | 'Put', string>> {
    clock.set(start);
    fake.get = serve(`#!/bin/sh\necho '${step}' > '${clock.file}'\n`);
    const earlier = fake.requests().length;
    const ended = await client.execute(['set.sh'], { environment: clock.environment });
    assert.deepEqual(ended, { code: 0, signal: null, stdout: '', stderr: '' });
    const { fields } = parseRecord(splitRequest(fake.requests()[earlier + 1] ?? Buffer.of()).body.toString());
    return { Job: fields.JobEpoch, Get: fields.GetEpoch, Run: fields.RunEpoch, Put: fields.PutEpoch };
  }

  const steps: [what: string, start: string, step: string, putAfterRun: number][] = [
    ['forwards, as a machine that slept', '@2026-11-29 10:00:00', '@2026-11-29 18:00:00', 8 * 3600],
    ['backwards', '@2026-11-29 10:00:00', '@2026-11-29 09:00:00', -3600],
    ['from 1970 to now', '@1970-01-01 00:00:05', '@2026-11-29 10:00:00', 1_795_946_400 - 5],
    ['to a time before 1970', '@2026-11-29 10:00:00', '@1969-12-30 20:13:27', -99_993 - 1_795_946_400],
  ];
  for (const [what, start, step, putAfterRun] of steps)
    it(`follow the clock, which is set ${what}`, async () => {
      const { Job, Get, Run, Put } = await runWhile(start, step);
      const begun = Date.parse(`${start.slice(1).replace(' ', 'T')}Z`) / 1000;
      for (const epoch of [Job, Get, Run]) {
        const late = seconds(epoch) - begun;
        assert.ok(late > -1 && late < 20, `${epoch} after ${start}`);
        assert.equal(epoch.slice(0, 10), start.slice(1, 11));
      }
      assert.equal(Put.slice(0, 10), step.slice(1, 11));
      const passed = seconds(Put) - seconds(Run) - putAfterRun;
      assert.ok(Math.abs(passed) < 20, `${Run} to ${Put}`);
    });

  it('are written as C prints them before 1970, and read back', async () => {
    const { Job, Put } = await runWhile('@1969-12-30 20:13:27', '@1969-12-31 23:59:58');
    for (const epoch of [Job, Put]) assert.match(epoch, /^1969-12-3[01] \d\d:\d\d:\d\d UTC \(-\d+\.\d{6}\)$/);
    assert.equal(Put, formatEpoch(parseEpoch(Put), 'UTC').replace(/^\S+ \S+/, Put.slice(0, 19)));
    assert.ok(seconds(Job) >= -99_993 && seconds(Job) < -99_900, Job);
  });
});

describe('the clock skew of a job', () => {
  const issued = 1_795_503_148;
  const fieldsOf = (facts: Record<string, number | string>): Map<string, string> =>
    new Map(
      Object.entries({ Jid: `server_1_${issued}_00723`, ...facts }).map(([name, value]) => [
        name,
        typeof value === 'string' ? value : formatEpoch(Math.round((issued + value) * 1_000_000), 'UTC'),
      ]),
    );

  const cases: [what: string, facts: Record<string, number | string>, skew: number | undefined][] = [
    ['that is right', { GetEpoch: -0.2, RunEpoch: 0.3 }, undefined],
    ['60 seconds ahead', { GetEpoch: 60, RunEpoch: 60.5 }, undefined],
    ['61 seconds ahead', { GetEpoch: 61, RunEpoch: 62 }, 61],
    ['61 seconds behind', { GetEpoch: -61.5, RunEpoch: -61 }, -61],
    ['2 hours behind', { GetEpoch: -7200.3, RunEpoch: -7199.9, PutEpoch: -7100 }, -7200],
    ['2 hours behind of which the server had an hour of retries', { GetEpoch: -10_800, RunEpoch: -7200 }, -7200],
    ['that is right when the GET was tried for an hour', { GetEpoch: -3600, RunEpoch: 1 }, undefined],
    ['that is right when the program took an hour to come', { GetEpoch: -1, RunEpoch: 3600 }, undefined],
    ['of a job without RUN', { GetEpoch: -7200, RunEpoch: 'NA', PutEpoch: -7199 }, -7199],
    ['of a record without GetEpoch', { JobEpoch: 7200, GetEpoch: 'NA', RunEpoch: 7201 }, 7200],
    ['of which only GetEpoch is known', { GetEpoch: -7200 }, -7200],
    ['before 1970', { GetEpoch: -issued - 99_993, RunEpoch: -issued - 99_992 }, -issued - 99_992],
    ['of a record without times', { GetEpoch: 'NA', RunEpoch: 'yesterday' }, undefined],
    ['of a job id of another form', { Jid: 'a-1795503148', GetEpoch: 7200 }, undefined],
    ['of a job without an id', { Jid: 'NA', GetEpoch: 7200 }, undefined],
    ['that was set back while the program ran', { GetEpoch: -0.5, RunEpoch: -7200 }, undefined],
  ];
  for (const [what, facts, skew] of cases)
    it(`is computed for a clock ${what}`, () => assert.equal(findClockSkew(fieldsOf(facts)), skew));

  it('is described in its two largest units', () => {
    const texts: [skew: number, text: string][] = [
      [-7199.9, 'client 2 h 0 min behind the server'],
      [61, 'client 1 min ahead of the server'],
      [-5400, 'client 1 h 30 min behind the server'],
      [86_400 + 7200 + 60, 'client 1 day 2 h ahead of the server'],
      [-1_795_503_148, 'client 56 years 341 days behind the server'],
    ];
    for (const [skew, text] of texts) assert.equal(describeClockSkew(skew), text);
  });
});

describe('webjobctl with a client whose clock is off', needsFakeClock, () => {
  let its: ClientSite;
  before(async () => {
    its = await startClientSite();
    its.configure();
    its.add('host.sh', '#!/bin/sh\n');
  });
  after(() => its.close());

  const offsets = [
    ['-2h', /^client 2 h 0 min behind the server$/, -7200],
    ['+3m', /^client 3 min ahead of the server$/, 180],
    ['@1969-12-31 12:00:00', /^client 5\d years \d+ days behind the server$/, undefined],
  ] as const;

  it('shows the difference in jobs, show, JSON, export and report, with and without an index', async () => {
    const environment = makeFakeClock(join(its.client.root, 'clock'));
    for (const [offset] of [['+0'], ...offsets] as const) {
      environment.set(offset);
      const ended = await its.client.execute(['host.sh'], { environment: environment.environment });
      assert.deepEqual([ended.code, ended.stderr], [0, '']);
    }
    const ask = async (...args: string[]): Promise<string> => {
      const { code, stdout, stderr } = await runWebjobctl(['--config', its.site.propertiesFile, ...args]);
      assert.deepEqual([code, stderr.replace(/^.*(?:report|index).*\n/gm, '')], [0, ''], args.join(' '));
      return stdout;
    };
    for (const isIndexed of [false, true]) {
      if (isIndexed) await ask('index');
      const rows = (await ask('jobs')).trimEnd().split('\n').slice(1);
      const jobs = parseLines<{ jobId: string; clockSkew?: number }>(await ask('--json', 'jobs'));
      assert.deepEqual([rows.length, jobs.length], [4, 4]);
      assert.match(rows[0] ?? '', / 200$/);
      assert.equal(jobs[0]?.clockSkew, null);
      const folder = join(its.client.root, `report-${isIndexed}`);
      await ask('report', '--html', folder);
      for (const [index, [offset, text, skew]] of offsets.entries()) {
        const job = jobs[index + 1];
        const shown = rows[index + 1]?.replace(/^.* 200 +/, '') ?? '';
        assert.match(shown, text, offset);
        if (skew !== undefined) assert.ok(Math.abs((job?.clockSkew ?? 0) - skew) <= 5, `${job?.clockSkew}`);
        assert.match(await ask('show', job?.jobId ?? ''), new RegExp(`^Clock: +${shown}$`, 'm'));
        assert.ok((await ask('--json', 'show', job?.jobId ?? '')).includes(`"clockSkew":${job?.clockSkew}`));
        const page = readdirSync(join(folder, 'job')).find((name) => name.startsWith(job?.jobId ?? 'none')) ?? '';
        assert.ok(readFileSync(join(folder, 'job', page), 'utf8').includes(`<td>${shown}</td>`), offset);
      }
      const [titles = '', ...exported] = (await ask('export', '--csv')).trimEnd().split('\n');
      const column = titles.split(',').indexOf('clock_skew');
      assert.deepEqual(
        exported.map((line) => line.split(',')[column]),
        jobs.map(({ clockSkew }) => String(clockSkew ?? '')),
      );
    }
  });
});

describe('webjobctl with a job in an archive', () => {
  it("shows the client's clock, too", async () => {
    const its = makeLockerSite();
    try {
      const { jobId } = await its.get('client1', 'host.sh');
      const epoch = formatEpoch((Number(jobId.split('_')[2]) + 7200) * 1_000_000, 'UTC');
      const env = makeRecord({ Jid: jobId, GetEpoch: epoch, RunEpoch: epoch });
      assert.equal((await its.put({ clientId: 'client1', fileName: 'host.sh', jobId, env })).status, 200);
      const longAgo = new Date(Date.now() - 5 * 86_400_000);
      for (const name of readdirSync(its.site.incoming)) utimesSync(join(its.site.incoming, name), longAgo, longAgo);
      assert.equal((await its.webjobctl('pack', '--older-than', '2d')).exitCode, 0);
      assert.deepEqual(readdirSync(its.site.incoming), []);
      const { text } = await its.webjobctl('jobs');
      assert.match(text, / client 2 h 0 min ahead of the server\n$/);
    } finally {
      its.close();
    }
  });
});
