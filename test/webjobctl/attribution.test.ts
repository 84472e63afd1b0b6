// Which upload belongs to which job, how the run of a job ended, and what diff compares it with, in
// the cases where a second criterion decides.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { RecordField } from 'webjob-protocol';
import { makeLockerSite } from '../support/locker-site.ts';
import { formatIn, type Planted, plantPast } from '../support/past-site.ts';

interface Job {
  jobId: string;
  client: string;
  state: string;
  exitCode: number | null;
  signal: number | null;
  group: string | null;
  uploads: string[];
}

const MINUTE_MS = 60_000;
const DAY_MS = 1440 * MINUTE_MS;
/** Whole seconds, as in the log. */
const START = Math.floor(Date.now() / 1000) * 1000 - 100 * DAY_MS;

const its = makeLockerSite({ UseGMT: 'Y' });
const { site, readJson, webjobctl } = its;
after(its.close);

const at = (minutes: number): Date => new Date(START + minutes * MINUTE_MS);
const jobsOf = (...args: string[]): Promise<Job[]> => readJson<Job>('jobs', ...args);

/** Run records, and the expected ending of each. */
const ENDINGS: [fields: Partial<Record<RecordField, string>>, state: string, exitCode: number | null][] = [
  [{}, 'done', 0],
  [{ KidStatus: '3' }, 'failed', 3],
  [{ KidSignal: '9' }, 'failed', 0],
  [{ GetError: 'it could not be fetched' }, 'failed', 0],
  [{ RunError: 'it could not be started' }, 'failed', 0],
  [{ KidStatus: 'NA', KidSignal: 'NA' }, 'failed', null],
  [{ KidStatus: '-1' }, 'failed', null],
];

describe('the state of a job', () => {
  let planted: Planted[];
  before(() => {
    planted = plantPast(
      site,
      'UTC',
      ENDINGS.map(([fields], index) => ({ at: at(index), clientId: 'ending', fields })),
    );
  });

  it('is done only if nothing in its record indicates a failure', async () => {
    const jobs = new Map((await jobsOf('--client', 'ending')).map((job) => [job.jobId, job]));
    for (const [index, [fields, state, exitCode]] of ENDINGS.entries()) {
      const job = jobs.get(planted[index]?.jobId ?? '');
      assert.deepEqual([job?.state, job?.exitCode], [state, exitCode], JSON.stringify(fields));
    }
  });
});

describe('an upload', () => {
  it('is found by its name a second before and after the time of the log', async () => {
    // The log rounds down both the end and the duration of a request.
    const shifts = [-1, 0, 1];
    const planted = plantPast(
      site,
      'UTC',
      shifts.map((shift, index) => {
        const end = at(20 + index);
        const begin = new Date(end.getTime() + (shift - 5) * 1000);
        const name = `second_${formatIn('UTC', begin).replace(/\D/g, '')}_4711_host.sh`;
        return { at: end, clientId: 'second', put: { seconds: 5 }, name };
      }),
    );
    const found = await jobsOf('--client', 'second');
    assert.deepEqual(
      found.map(({ jobId, group, state }) => [jobId, group, state]),
      planted.map(({ jobId, name }) => [jobId, name, 'done']),
    );
  });

  it('is a repeat under the same job id within a day, and later a job of its own', async () => {
    const jobId = 'server_1_1085355126_00077';
    const plant = (clientId: string, ...days: number[]) =>
      plantPast(
        site,
        'UTC',
        days.map((day) => ({ at: at(30 + day * 1440), clientId, jobId, get: day === 0 ? {} : false })),
      );
    plant('repeats', 0, 0.9);
    assert.deepEqual(
      (await jobsOf('--client', 'repeats')).map(({ uploads }) => uploads.length),
      [2],
    );
    plant('months', 0, 2, 60);
    assert.equal((await jobsOf('--client', 'months')).length, 3);
  });

  it('belongs to its client by its name when two clients use one job id', async () => {
    const jobId = 'server_1_1085355126_00088';
    const planted = plantPast(site, 'UTC', [
      { at: at(90 * 1440), clientId: 'twin-a', jobId },
      { at: at(90 * 1440), clientId: 'twin-b', jobId },
    ]);
    const jobs = await jobsOf('--client', 'twin-?');
    assert.deepEqual(
      jobs.map(({ client, group }) => [client, group]).sort(),
      planted.map(({ name }) => [name.slice(0, 6), name]),
    );
    const { stderr, exitCode } = await webjobctl('show', jobId);
    assert.equal(exitCode, 2);
    assert.match(stderr, /--client/);
    assert.match((await webjobctl('show', jobId, '--client', 'twin-b')).text, /^Client: +twin-b$/m);
  });
});

describe('a hold on a client', () => {
  it('keeps an upload that only the log attributes, by a job id in another form', async () => {
    const common = { clientId: 'held', fields: { ClientId: 'NA' }, custody: false } as const;
    const names = ['alone', 'alone_2', 'alone_3'];
    plantPast(
      site,
      'UTC',
      ['50%', '-', 'plain'].map((jobId, index) => ({ ...common, at: at(50 + index), jobId, name: names[index] ?? '' })),
    );
    const list = async (): Promise<string[]> => {
      const lines = await readJson<{ name?: string }>('prune', '--older-than', '30d', '--dry-run');
      return lines.flatMap(({ name }) => (name?.startsWith('alone') ? [name] : [])).sort();
    };
    assert.deepEqual(await list(), names);
    assert.equal((await webjobctl('hold', 'add', '--client', 'held', '--reason', 'a test')).exitCode, 0);
    assert.deepEqual(await list(), []);
  });
});

describe('webjobctl diff of one job', () => {
  it('compares with the latest earlier upload that is complete', async () => {
    const common = { clientId: 'differs' };
    const start = 95 * 1440;
    const [older, , , newer] = plantPast(site, 'UTC', [
      { ...common, at: at(start), out: 'older\n' },
      // Answered with success, but its files are gone.
      { ...common, at: at(start + 1), out: false },
      { ...common, at: at(start + 2), out: false, put: { status: 456, message: 'Content Length Mismatch' } },
      { ...common, at: at(start + 3), out: 'newer\n' },
      { ...common, at: at(start + 4), out: 'later\n' },
    ]);
    const { text, stderr, exitCode } = await webjobctl('diff', newer?.jobId ?? '');
    assert.equal(exitCode, 1, stderr);
    assert.match(text, /^-older$/m);
    assert.match(text, /^\+newer$/m);
    assert.ok(text.includes(older?.jobId ?? '-'), text);
  });

  it('reports that there is no earlier complete one', async () => {
    const [, only] = plantPast(site, 'UTC', [
      { clientId: 'alone', at: at(96 * 1440), out: false },
      { clientId: 'alone', at: at(96 * 1440 + 1) },
    ]);
    const { stderr, exitCode } = await webjobctl('diff', only?.jobId ?? '');
    // This does not count as a difference.
    assert.equal(exitCode, 5);
    assert.match(stderr, /^webjobctl: error: .*alone.*host\.sh/);
  });
});
