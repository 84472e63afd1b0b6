// How webjobctl joins jobs from the log and the locker, with both made by real CGI processes, and
// after rotation.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { appendFileSync, readFileSync, renameSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { readSettings } from '../../cgi/settings.ts';
import type { Job } from '../../ledger/job.ts';
import { type JobFilter, readJobs } from '../../ledger/jobs.ts';
import { readLogLines } from '../../ledger/log.ts';
import { type Site as AdminSite, serverOf } from '../../ledger/site.ts';
import { configure } from '../../scripts/site.ts';
import { type FilledLocker, fillLocker, type LockerSite, makeLockerSite, makeRecord } from '../support/locker-site.ts';

function openSite({ site: { propertiesFile } }: LockerSite): AdminSite {
  const { settings } = readSettings(propertiesFile);
  return { propertiesFile, settings, servers: [serverOf(settings)], label: undefined };
}

async function collect<Value>(values: AsyncIterable<Value>): Promise<Value[]> {
  const all: Value[] = [];
  for await (const value of values) all.push(value);
  return all;
}

const collectJobs = (its: LockerSite, filter: JobFilter = {}): Promise<Job[]> =>
  collect(readJobs(openSite(its), filter));

describe('the jobs of a locker', () => {
  const its = makeLockerSite();
  let ids: FilledLocker;
  before(async () => {
    ids = await fillLocker(its);
  });
  after(its.close);

  it('have the state that log and files show', async () => {
    const jobs = await collectJobs(its);
    const summary = jobs.map(({ jobId, state, exitCode, signal, group }) => [jobId, state, exitCode, signal, !!group]);
    assert.deepEqual(summary, [
      [ids.first, 'done', 0, undefined, true],
      [ids.failed, 'failed', 3, undefined, true],
      [ids.second, 'done', 0, undefined, true],
      [ids.killed, 'failed', 0, 9, true],
      [ids.refusedGet, 'refused', undefined, undefined, false],
      [ids.refusedPut, 'refused', undefined, undefined, false],
      [ids.incomplete, 'incomplete', undefined, undefined, true],
      [ids.orphan, 'orphan', 0, undefined, true],
      [ids.got, 'got', undefined, undefined, false],
    ]);
    assert.deepEqual(
      jobs.map(({ clientId, command }) => `${clientId} ${command}`),
      [
        ...Array(3).fill('client1 host.sh'),
        ...['client2 ps.sh', 'client1 nothing.sh', 'client2 ps.sh', 'client1 host.sh'],
        ...['client2 ps.sh', 'client2 ps.sh'],
      ],
    );
    assert.deepEqual(
      jobs.map(({ get, put }) => [get?.status, put?.status]),
      [
        ...Array(4).fill([200, 200]),
        ...[
          [404, undefined],
          [200, 453],
          [200, 456],
          [undefined, undefined],
          [200, undefined],
        ],
      ],
    );
  });

  it('are found by client, command, state and time', async () => {
    const count = async (filter: JobFilter): Promise<number> => (await collectJobs(its, filter)).length;
    assert.equal(await count({ client: 'client?' }), 9);
    assert.equal(await count({ client: '*2' }), 4);
    assert.equal(await count({ client: 'client' }), 0);
    assert.equal(await count({ command: 'ps.*' }), 4);
    assert.equal(await count({ states: ['done', 'orphan'] }), 3);
    assert.equal(await count({ since: new Date(Date.now() - 600_000) }), 9);
    assert.equal(await count({ since: new Date(Date.now() + 600_000) }), 0);
    assert.equal(await count({ until: new Date(Date.now() - 600_000) }), 0);
  });

  it('know an upload by its job id whatever PutNameFormat was, and one of a repeated PUT', async () => {
    configure(its.site, { PutNameFormat: '%cid/%pid/%jid' });
    const jobId = await its.run({ clientId: 'client1', fileName: 'host.sh', out: 'elsewhere\n' });
    configure(its.site, {});
    const repeat = { clientId: 'client1', fileName: 'host.sh', jobId, out: 'again\n', env: makeRecord({}) };
    assert.equal((await its.put({ ...repeat, user: 'client2' })).status, 453);
    const [refusedLater] = (await collectJobs(its)).filter((job) => job.jobId === jobId);
    assert.equal(refusedLater?.state, 'done');
    assert.match(refusedLater?.group?.name ?? '', new RegExp(`^client1/[0-9]+/${jobId}$`));
    assert.equal((await its.put(repeat)).status, 200);
    const found = (await collectJobs(its)).filter((job) => job.jobId === jobId);
    assert.equal(found.length, 1);
    assert.equal(found[0]?.uploads.length, 2);
    assert.match(found[0]?.group?.name ?? '', /^client1_[0-9]{14}_[0-9]+_host\.sh$/);
  });
});

describe('the log and its rotated files', () => {
  const its = makeLockerSite({ UseGMT: 'Y' });
  after(its.close);
  const { site } = its;
  const folder = join(site.base, 'logfiles');
  const startedAt = Date.parse('2026-01-01T00:00:00Z');
  const lineAt = (minute: number): string => {
    const time = new Date(startedAt + minute * 60_000).toISOString().slice(0, 19).replace('T', ' ');
    return `${time} job_${minute} client1 127.0.0.1 GET client1 host.sh 0 19 0 200 -- Success\n`;
  };
  const lines = (from: number, to: number): string =>
    Array.from({ length: to - from }, (_, index) => lineAt(from + index)).join('');
  const readIds = async (range = {}): Promise<(string | undefined)[]> =>
    (await collect(readLogLines(openSite(its), range))).map(({ jobId }) => jobId);
  const idsOf = (from: number, to: number): string[] =>
    Array.from({ length: to - from }, (_, index) => `job_${from + index}`);

  before(() => {
    writeFileSync(join(folder, 'nph-webjob.log-20260101'), lines(0, 3000));
    const packed = spawnSync('gzip', ['-c'], { input: lines(3000, 6000) });
    writeFileSync(join(folder, 'nph-webjob.log.2.gz'), packed.stdout);
    writeFileSync(join(folder, 'nph-webjob.log.1'), lines(6000, 9000));
    writeFileSync(site.logFile, lines(9000, 12_000));
    writeFileSync(join(folder, 'nph-webjob.log.save'), lines(0, 10));
  });

  it('are read as one, the oldest first', async () => {
    assert.deepEqual(await readIds(), idsOf(0, 12_000));
  });

  it('are searched for a time completely, and little else is read', async () => {
    for (const minute of [0, 1, 2999, 3000, 4321, 6000, 8999, 9000, 9001, 11_999]) {
      const ids = await readIds({ since: new Date(startedAt + minute * 60_000) });
      assert.deepEqual(ids.slice(-(12_000 - minute)), idsOf(minute, 12_000), `from ${minute}`);
      assert.ok(ids.length - (12_000 - minute) <= 10, `${ids.length} lines from ${minute}`);
    }
    const ids = await readIds({ since: new Date(startedAt + 9_000_000), until: new Date(startedAt + 12_000_000) });
    assert.deepEqual(ids, idsOf(140, 211));
  });

  it('are skipped when they are older', async () => {
    const path = join(folder, 'nph-webjob.log.2.gz');
    const whole = readFileSync(path);
    writeFileSync(path, 'no gzip at all');
    utimesSync(path, startedAt / 1000, startedAt / 1000 + 6000 * 60);
    const since = new Date(startedAt + 9000 * 60_000);
    assert.deepEqual((await readIds({ since })).slice(-3000), idsOf(9000, 12_000));
    writeFileSync(path, whole);
  });

  it('are read past malformed lines, and to the damage in a compressed one', async () => {
    appendFileSync(site.logFile, `\x1b[2J no line\n${'x'.repeat(200_000)}\n${lineAt(12_000)}2026-01-0`);
    const path = join(folder, 'nph-webjob.log.2.gz');
    const whole = readFileSync(path);
    writeFileSync(path, whole.subarray(0, whole.length / 2));
    const ids = await readIds();
    assert.deepEqual(ids.slice(-3001), idsOf(9000, 12_001));
    assert.ok(ids.length > 9001 && ids.length < 12_001, `${ids.length} lines`);
  });

  it('stay the same files when they are rotated meanwhile', async () => {
    const reading = readLogLines(openSite(its), { since: new Date(startedAt + 9000 * 60_000) });
    const first = await reading.next();
    renameSync(site.logFile, join(folder, 'nph-webjob.log.0'));
    writeFileSync(site.logFile, lineAt(13_000));
    const rest = await collect(reading);
    assert.equal(rest.at(-1)?.jobId, 'job_12000');
    assert.equal(first.done, false);
    assert.equal((await readIds()).at(-1), 'job_13000');
  });
});
