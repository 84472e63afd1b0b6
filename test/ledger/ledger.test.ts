// Which requests are one job, whichever servers logged them, whatever their results, and whatever
// command asks: with and without a store.
import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { formatLogLine, formatTime, type LogLine } from 'webjob-protocol';
import { configure } from '../../scripts/site.ts';
import { type LockerSite, makeLockerSite, makeRecord, runWebjobctl } from '../support/locker-site.ts';

interface Shown {
  jobId: string;
  client: string;
  command: string;
  state: string;
  exitCode: number | null;
  group: string | null;
  uploads: string[];
  left: string[];
  requests: number;
  get: { fileName: string; status: number } | null;
  put: { status: number; bytesReceived: number } | null;
}

const SECOND_MS = 1000;
const NOW = Math.floor(Date.now() / 1000) * 1000;

/** A log line from this many seconds ago. */
function lineAt(secondsAgo: number, facts: Partial<LogLine>): string {
  return `${formatLogLine({
    time: formatTime(new Date(NOW - secondsAgo * SECOND_MS), true),
    jobId: 'job_1',
    remoteUser: 'client1',
    remoteAddress: '127.0.0.1',
    method: 'GET',
    clientId: 'client1',
    fileName: 'host.sh',
    bytesReceived: 0,
    bytesSent: 19,
    seconds: 0,
    status: 200,
    message: 'Success',
    ...facts,
  })}\n`;
}

function writeUpload(its: LockerSite, name: string, jobId: string, facts: Parameters<typeof makeRecord>[0] = {}): void {
  const base = join(its.site.incoming, name);
  writeFileSync(`${base}.out`, '');
  writeFileSync(`${base}.err`, '');
  writeFileSync(`${base}.env`, makeRecord({ ClientId: 'client1', GetRequest: 'host.sh', ...facts }));
  writeFileSync(`${base}.rdy`, `Jid=${jobId}\n`);
}

let isAskedAgain = false;

/** Asks the files alone, a store that is made then, and at first an existing one. */
async function askEveryWay<Value>(its: LockerSite, ask: () => Promise<Value>): Promise<Value> {
  rmSync(join(its.site.base, 'index'), { recursive: true, force: true });
  const found = await ask();
  assert.equal((await its.webjobctl('index')).exitCode, 0);
  assert.deepEqual(await ask(), found, 'with a store');
  if (!isAskedAgain) assert.deepEqual(await ask(), found, 'with a store that nothing has changed in');
  isAskedAgain = true;
  return found;
}

/** A site for one test. */
function withSite(settings: Record<string, string>, test: (its: LockerSite) => Promise<void>): () => Promise<void> {
  return async () => {
    const its = makeLockerSite({ UseGMT: 'Y', ...settings });
    try {
      writeFileSync(its.site.logFile, '');
      await test(its);
    } finally {
      its.close();
    }
  };
}

describe('a site of two servers', () => {
  const its = makeLockerSite({ PutNameFormat: '%cid_%Y%m%d%H%M%S_%sid_%pid_%cmd', ServerId: 'east', UseGMT: 'Y' });
  after(its.close);
  const folders = ['east', 'west'].map((id) => join(its.site.root, `logs-${id}`));
  const settingsOf = (index: number): Record<string, string> => ({
    PutNameFormat: '%cid_%Y%m%d%H%M%S_%sid_%pid_%cmd',
    UseGMT: 'Y',
    ServerId: index === 0 ? 'east' : 'west',
    LogfilesDirectory: folders[index] ?? '',
  });
  let jobId = '';
  before(async () => {
    for (const folder of folders) {
      mkdirSync(folder, { mode: 0o777 });
      writeFileSync(join(folder, 'nph-webjob.log'), '');
      const { chmodSync } = await import('node:fs');
      chmodSync(folder, 0o777);
      chmodSync(join(folder, 'nph-webjob.log'), 0o666);
    }
    // A GET at one server with its PUT at the other; and an upload at the first, which has a
    // custody record then.
    configure(its.site, settingsOf(0));
    assert.equal(
      (await its.put({ clientId: 'client2', fileName: 'ps.sh', jobId: 'east_1', env: makeRecord({}) })).status,
      200,
    );
    jobId = (await its.get('client1', 'host.sh')).jobId;
    configure(its.site, settingsOf(1));
    const put = { clientId: 'client1', fileName: 'host.sh', jobId, env: makeRecord({ KidStatus: '3' }) };
    assert.equal((await its.put(put)).status, 200);
  });

  for (const [index, name] of ['east', 'west'].entries())
    it(`has one row for a job on either server, asked as ${name}`, async () => {
      const other = 1 - index;
      const otherId = other === 0 ? 'east' : 'west';
      configure(its.site, { ...settingsOf(index), SiteServers: `${otherId}:${folders[other]}` });
      const jobs = await askEveryWay(its, () => its.readJson<Shown>('jobs', '--client', 'client1'));
      assert.deepEqual(
        jobs.map((job) => [job.jobId, job.state, job.exitCode, job.get?.status, job.put?.status]),
        [[jobId, 'failed', 3, 200, 200]],
      );
      const [client] = await its.readJson<Record<string, unknown>>('clients');
      assert.deepEqual([client?.jobs, client?.failed], [1, 1]);
      const { text, exitCode } = await its.webjobctl('verify');
      assert.deepEqual([exitCode, text], [0, ''], 'the custody record of the other server confirms its uploads');
    });

  it('is one site when the files of both are named', async () => {
    const files = [0, 1].map((index) => {
      configure(its.site, settingsOf(index));
      const file = join(its.site.root, `${index}.cfg`);
      writeFileSync(file, readFileSync(its.site.propertiesFile));
      return file;
    });
    rmSync(join(its.site.base, 'index'), { recursive: true, force: true });
    for (const order of [files, files.toReversed()]) {
      const { text, stderr } = await runWebjobctl([
        ...order.flatMap((file) => ['-c', file]),
        '--json',
        'jobs',
        '--client',
        'client1',
      ]);
      const jobs = text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line)]));
      assert.deepEqual(
        jobs.map((job) => [job.jobId, job.state, 'site' in job]),
        [[jobId, 'failed', false]],
        stderr,
      );
    }
  });
});

describe('one job', () => {
  for (const count of [2500, 13_000])
    it(
      `has its GET and its PUT when ${count} other lines are between them`,
      withSite({}, async (its) => {
        const ids = Array.from({ length: count }, (_, at) => `job_${at}`);
        const gets = ids.map((jobId) => lineAt(60, { jobId }));
        const puts = ids.map((jobId) => lineAt(50, { jobId, method: 'PUT', status: 455, message: 'Too large' }));
        appendFileSync(its.site.logFile, [...gets, ...puts].join(''));
        const counted = await askEveryWay(its, async () => {
          const { text } = await its.webjobctl('--json', 'jobs');
          const jobs = text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Shown]));
          return [jobs.length, jobs.filter(({ state, requests }) => state === 'refused' && requests === 2).length];
        });
        assert.deepEqual(counted, [count, count]);
      }),
    );

  it(
    'is found by its id alone, with an upload that its log lines do not lead to',
    withSite({}, async (its) => {
      const epoch = NOW / SECOND_MS - 60;
      const [put, got, early] = ['1', '2', '3'].map((end) => `server_1_${epoch}_0000${end}`);
      appendFileSync(
        its.site.logFile,
        lineAt(61, { jobId: early, method: 'PUT', status: 455, message: 'x' }) +
          lineAt(61, { jobId: `${early}4`, method: 'PUT', status: 455, message: 'x' }) +
          lineAt(60, { jobId: put }) +
          lineAt(59, { jobId: got }) +
          lineAt(50, { jobId: put, method: 'PUT' }),
      );
      // One has the name of another day, and the other that of no upload.
      writeUpload(its, 'client1_20261101000000_00009_host.sh', put ?? '');
      writeUpload(its, `moved-${got}`, got ?? '');
      for (const [jobId, state] of [
        [put, 'done'],
        [got, 'done'],
        [early, 'refused'],
      ])
        for (const part of [jobId, jobId?.slice(3)])
          assert.deepEqual(
            await askEveryWay(its, async () =>
              (await its.readJson<Shown>('show', part ?? '')).map((job) => [job.jobId, job.state]),
            ),
            [[jobId, state]],
            part,
          );
    }),
  );

  it(
    'is a GET with the suffix of a GetHook and its PUT',
    withSite({}, async (its) => {
      appendFileSync(
        its.site.logFile,
        lineAt(60, { jobId: 'one', fileName: 'host.sh.gpg' }) +
          lineAt(50, { jobId: 'one', method: 'PUT', bytesReceived: 602 }) +
          lineAt(40, { jobId: 'two', fileName: 'a.b.sh.tar.gpg' }) +
          lineAt(30, { jobId: 'two', method: 'PUT', fileName: 'a.b.sh' }) +
          lineAt(20, { jobId: 'two', fileName: 'a.b.shx' }),
      );
      writeUpload(its, 'client1_20261101000000_00001_host.sh', 'one');
      const jobs = await askEveryWay(its, () => its.readJson<Shown>('jobs'));
      assert.deepEqual(
        jobs.map(({ command, state, get, put }) => [command, state, get?.fileName, put?.status]),
        [
          ['host.sh', 'done', 'host.sh.gpg', 200],
          ['a.b.sh', 'missing', 'a.b.sh.tar.gpg', 200],
          ['a.b.shx', 'got', 'a.b.shx', undefined],
        ],
      );
    }),
  );

  it(
    'has every attempt, and the remains of those that broke off',
    withSite({}, async (its) => {
      const stamp = formatTime(new Date(NOW - 100 * SECOND_MS), true).replace(/\D/g, '');
      appendFileSync(
        its.site.logFile,
        lineAt(200, {}) +
          lineAt(100, { method: 'PUT', status: 456, message: 'Content-Length Mismatch', bytesReceived: 999 }) +
          lineAt(90, { method: 'PUT', status: 507, message: 'Insufficient Storage' }),
      );
      writeFileSync(join(its.site.incoming, `client1_${stamp}_00001_host.sh.out`), 'half');
      const broken = await askEveryWay(its, () => its.readJson<Shown>('jobs'));
      assert.deepEqual(
        broken.map(({ jobId, left, requests }) => [jobId, left, requests]),
        [['job_1', [`client1_${stamp}_00001_host.sh`], 3]],
      );
      // Two weeks later --flush delivers it.
      const laterLine = lineAt(10, { method: 'PUT', bytesReceived: 602 });
      appendFileSync(its.site.logFile, laterLine);
      writeUpload(its, 'client1_20261101000000_00002_host.sh', 'job_1');
      const [job, ...others] = await askEveryWay(its, () => its.readJson<Shown>('jobs'));
      assert.deepEqual(others, []);
      assert.deepEqual([job?.state, job?.requests, job?.left.length, job?.put?.bytesReceived], ['done', 4, 1, 602]);
      const { text } = await its.webjobctl('show', 'job_1');
      assert.match(text, /^Also PUT: +\S+ \S+ {2}456 Content-Length Mismatch/m);
      assert.match(text, /^Also PUT: +\S+ \S+ {2}507 /m);
      assert.match(text, new RegExp(`^Left behind: +client1_${stamp}_00001_host\\.sh$`, 'm'));
      assert.equal((await its.readJson<{ attempts: unknown[] }>('show', 'job_1'))[0]?.attempts.length, 2);
    }),
  );

  it(
    'has an upload whose name was taken and got a number',
    withSite({}, async (its) => {
      appendFileSync(its.site.logFile, lineAt(60, {}) + lineAt(50, { method: 'PUT' }));
      writeUpload(its, 'client1_20261101000000_00001_host.sh~2', 'job_1');
      const jobs = await askEveryWay(its, () => its.readJson<Shown>('jobs'));
      assert.deepEqual(
        jobs.map(({ state, uploads }) => [state, uploads]),
        [['done', ['client1_20261101000000_00001_host.sh~2']]],
      );
    }),
  );

  it(
    'is one odd row with a length that no number can hold',
    withSite({}, async (its) => {
      const huge = 9_007_199_254_740_992;
      appendFileSync(
        its.site.logFile,
        lineAt(60, { jobId: 'a', method: 'PUT', bytesReceived: huge, status: 455, message: 'x' }).replace(
          String(huge),
          '9007199254740993',
        ) +
          lineAt(50, { jobId: 'b', method: 'PUT', bytesReceived: 1, status: 455 }).replace(
            ' 1 19 ',
            ' 99999999999999999999 19 ',
          ),
      );
      const commands = [['jobs'], ['clients'], ['export', '--csv'], ['metrics', '--textfile', '-']];
      const ask = async (): Promise<string[]> => {
        const all: string[] = [];
        for (const words of commands) {
          const { text, stderr, exitCode } = await its.webjobctl(...words);
          assert.deepEqual([exitCode, stderr], [0, ''], words.join(' '));
          all.push(text.replace(/^.*(?:timestamp|duration|free).*\n/gm, ''));
        }
        return all;
      };
      const [jobs = ''] = await askEveryWay(its, ask);
      assert.equal(jobs.trimEnd().split('\n').length, 3);
      const report = join(its.site.root, 'report');
      assert.equal((await its.webjobctl('report', '--html', report)).exitCode, 0);
      assert.equal((await its.webjobctl('index', '--rebuild')).exitCode, 0);
    }),
  );
});

describe('an upload that is gone', () => {
  it(
    'is missing, unless prune or pack removed it',
    withSite({}, async (its) => {
      const ids: string[] = [];
      for (const [index, name] of ['removed', 'pruned', 'packed', 'there'].entries()) {
        ids.push(name);
        const old = (40 - index) * 86_400;
        appendFileSync(
          its.site.logFile,
          lineAt(old + 1, { jobId: name }) + lineAt(old, { jobId: name, method: 'PUT' }),
        );
        writeUpload(its, `client1_2026110100000${index}_00001_host.sh`, name);
        const at = new Date(NOW - old * SECOND_MS);
        const { utimesSync } = await import('node:fs');
        for (const extension of ['out', 'err', 'env', 'rdy'])
          utimesSync(join(its.site.incoming, `client1_2026110100000${index}_00001_host.sh.${extension}`), at, at);
      }
      const states = async (): Promise<[string, string][]> =>
        (await its.readJson<Shown>('jobs')).map(({ jobId, state }) => [jobId, state]);
      assert.deepEqual(
        await askEveryWay(its, states),
        ids.map((id) => [id, 'done']),
      );
      for (const name of readdirSync(its.site.incoming))
        if (/^client1_20261101000000/.test(name)) rmSync(join(its.site.incoming, name));
      assert.equal((await its.webjobctl('prune', '--older-than', `${38 * 24 + 12}h`, '--yes')).exitCode, 0);
      assert.equal((await its.webjobctl('pack', '--older-than', '37d')).exitCode, 0);
      const expected = [
        ['removed', 'missing'],
        ['pruned', 'done'],
        ['packed', 'done'],
        ['there', 'done'],
      ];
      assert.deepEqual(await states(), expected, 'with the store that was there');
      assert.deepEqual(await askEveryWay(its, states), expected);
      const shown = await its.webjobctl('show', 'removed');
      assert.equal(shown.exitCode, 1);
      assert.match(shown.text, /^State: +missing$/m);
      assert.equal((await its.webjobctl('show', 'pruned')).exitCode, 0);
      const sums = await askEveryWay(its, () => its.readJson<Record<string, unknown>>('clients'));
      assert.deepEqual([sums[0]?.missing, sums[0]?.done], [1, 3]);
    }),
  );

  it(
    'is pruned, however often an upload of that name was',
    withSite({}, async (its) => {
      const name = 'client1_20261101000000_00001_host.sh';
      appendFileSync(its.site.logFile, lineAt(60, {}) + lineAt(50, { method: 'PUT' }));
      for (let count = 0; count < 2; count++) {
        writeUpload(its, name, 'job_1');
        assert.equal((await its.webjobctl('prune', '--older-than', '0s', '--yes')).exitCode, 0);
      }
      const states = async (): Promise<string[]> =>
        (await its.readJson<Shown>('jobs')).map(({ jobId, state }) => `${jobId} ${state}`);
      assert.deepEqual(await askEveryWay(its, states), ['job_1 done']);
    }),
  );

  it(
    'left a stream that came under its name since',
    withSite({}, async (its) => {
      const name = 'client1_20261101000000_00001_host.sh';
      appendFileSync(its.site.logFile, lineAt(60, {}) + lineAt(50, { method: 'PUT' }));
      writeUpload(its, name, 'job_1');
      assert.equal((await its.webjobctl('prune', '--older-than', '0s', '--yes')).exitCode, 0);
      writeFileSync(join(its.site.incoming, `${name}.out`), 'left');
      const states = async (): Promise<string[]> =>
        (await its.readJson<Shown>('jobs')).map(({ state, left }) => `${state} ${left}`).sort();
      assert.deepEqual(await askEveryWay(its, states), ['done ', `incomplete ${name}`]);
    }),
  );

  it(
    'has no line in the log, nor do thousands of others',
    withSite({}, async (its) => {
      for (let count = 0; count < 4100; count++)
        writeFileSync(
          join(its.site.incoming, `client1_20261101000000_${10_000 + count}_host.sh.rdy`),
          `Jid=job_${count}\n`,
        );
      const counts = async (): Promise<unknown[]> => {
        const [client] = await its.readJson<Record<string, unknown>>('clients');
        return [client?.orphan, client?.jobs];
      };
      assert.deepEqual(await askEveryWay(its, counts), [4100, 4100]);
    }),
  );

  it(
    'is noticed by every listing, whatever the store says',
    withSite({}, async (its) => {
      appendFileSync(its.site.logFile, lineAt(60, {}) + lineAt(50, { method: 'PUT' }));
      writeUpload(its, 'client1_20261101000000_00001_host.sh', 'job_1');
      assert.equal((await its.webjobctl('index')).exitCode, 0);
      for (const name of readdirSync(its.site.incoming)) rmSync(join(its.site.incoming, name));
      assert.deepEqual(
        (await its.readJson<Shown>('jobs')).map(({ state }) => state),
        ['missing'],
      );
    }),
  );
});

describe('a request in the name of a client', () => {
  it(
    'is not a failure of the client when another address sent it and was refused',
    withSite({}, async (its) => {
      appendFileSync(its.site.logFile, lineAt(90, { jobId: 'ok' }) + lineAt(80, { jobId: 'ok', method: 'PUT' }));
      writeUpload(its, 'client1_20261101000000_00001_host.sh', 'ok');
      for (const [index, status] of [452, 453, 458, 470, 471, 472].entries())
        appendFileSync(
          its.site.logFile,
          lineAt(60 - index, { jobId: `other_${index}`, status, remoteUser: 'mallory' }),
        );
      appendFileSync(its.site.logFile, lineAt(30, { jobId: 'own', status: 404 }));
      const [client] = await askEveryWay(its, () => its.readJson<Record<string, unknown>>('clients'));
      assert.deepEqual([client?.refused, client?.foreign, client?.failureRate], [7, 6, 0.5]);
    }),
  );
});

describe('the run record', () => {
  for (const [what, env, state, exitCode] of [
    ['an empty one', '', 'failed', null],
    ['one of 100 kB', `${makeRecord({ KidStatus: '0' })}Padding=${'x'.repeat(100_000)}\n`, 'done', 0],
    ['one that tells the end late', `Padding=${'x'.repeat(100_000)}\n${makeRecord({ KidStatus: '5' })}`, 'failed', 5],
    ['one that no run record is as long as', `${makeRecord({})}Padding=${'x'.repeat(1_100_000)}\n`, 'failed', null],
  ] as const)
    it(
      `gets one verdict: ${what}`,
      withSite({}, async (its) => {
        appendFileSync(its.site.logFile, lineAt(60, {}) + lineAt(50, { method: 'PUT' }));
        writeUpload(its, 'client1_20261101000000_00001_host.sh', 'job_1');
        writeFileSync(join(its.site.incoming, 'client1_20261101000000_00001_host.sh.env'), env);
        const jobs = await askEveryWay(its, () => its.readJson<Shown>('jobs'));
        assert.deepEqual(
          jobs.map((job) => [job.state, job.exitCode]),
          [[state, exitCode]],
        );
      }),
    );
});

describe('jobs --outer', () => {
  it(
    'lists a job and all that it started',
    withSite({}, async (its) => {
      const tree: [id: string, outer: string | undefined][] = [
        ['root', undefined],
        ['child', 'root'],
        ['grandchild', 'child'],
        ['other', undefined],
      ];
      for (const [index, [id, outer]] of tree.entries()) {
        appendFileSync(
          its.site.logFile,
          lineAt(90 - index * 10, { jobId: id }) + lineAt(89 - index * 10, { jobId: id, method: 'PUT' }),
        );
        const name = `client1_2026110100000${index}_00001_host.sh`;
        writeUpload(its, name, id);
        if (outer !== undefined) appendFileSync(join(its.site.incoming, `${name}.env`), `OuterJid=${outer}\n`);
      }
      const list = async (id: string): Promise<string[]> =>
        (await its.readJson<Shown>('jobs', '--outer', id)).map(({ jobId }) => jobId);
      assert.deepEqual(await askEveryWay(its, () => list('root')), ['root', 'child', 'grandchild']);
      assert.deepEqual(await list('child'), ['child', 'grandchild']);
      assert.equal((await its.webjobctl('jobs', '--outer', 'none')).exitCode, 1);
    }),
  );
});

describe('report', () => {
  it(
    'covers only the jobs of a client, or one job',
    withSite({}, async (its) => {
      for (const [index, clientId] of ['client1', 'client1', 'client2'].entries())
        appendFileSync(
          its.site.logFile,
          lineAt(90 - index, { jobId: `job_${index}`, clientId }) +
            lineAt(60 - index, { jobId: `job_${index}`, clientId, method: 'PUT' }),
        );
      const make = async (...args: string[]): Promise<number> => {
        const folder = join(its.site.root, 'report');
        const { exitCode, stderr } = await its.webjobctl('report', '--html', folder, ...args);
        assert.equal(exitCode, 0, stderr);
        return readdirSync(join(folder, 'job')).length;
      };
      assert.equal(await make(), 3);
      assert.equal(await make('--client', 'client1'), 2);
      assert.equal(await make('--client', '*2'), 1);
      assert.equal(await make('--job', 'job_1'), 1);
      assert.equal(await make('--since', '1h'), 3);
    }),
  );
});

describe('a log', () => {
  const rows = (its: LockerSite) => async (): Promise<string[]> =>
    (await its.readJson<Shown>('jobs')).map(({ jobId, state }) => `${jobId} ${state}`);

  it(
    'is recognized when it is rotated, compressed, emptied or gone',
    withSite({}, async (its) => {
      const { logFile } = its.site;
      const { renameSync, copyFileSync } = await import('node:fs');
      const { gzipSync } = await import('node:zlib');
      const ask = rows(its);
      appendFileSync(logFile, lineAt(1000, { jobId: 'a' }) + lineAt(990, { jobId: 'b' }));
      assert.deepEqual(await askEveryWay(its, ask), ['a got', 'b got']);
      renameSync(logFile, `${logFile}.1`);
      writeFileSync(logFile, lineAt(980, { jobId: 'c' }));
      assert.deepEqual(await ask(), ['a got', 'b got', 'c got']);
      writeFileSync(`${logFile}.2.gz`, gzipSync(readFileSync(`${logFile}.1`)));
      rmSync(`${logFile}.1`);
      assert.deepEqual(await ask(), ['a got', 'b got', 'c got']);
      // As copytruncate does: for a moment there are two copies.
      copyFileSync(logFile, `${logFile}.1`);
      assert.deepEqual(await ask(), ['a got', 'b got', 'c got']);
      truncateSync(logFile);
      appendFileSync(logFile, lineAt(970, { jobId: 'c', method: 'PUT', status: 404 }));
      assert.deepEqual(await ask(), ['c refused', 'a got', 'b got']);
      assert.deepEqual(await askEveryWay(its, ask), ['c refused', 'a got', 'b got']);
      rmSync(`${logFile}.2.gz`);
      assert.deepEqual(await ask(), ['c refused']);
      assert.deepEqual(await askEveryWay(its, ask), ['c refused']);
    }),
  );

  it(
    'is read on when it ends in the middle of a line and the rest arrives',
    withSite({}, async (its) => {
      const line = lineAt(100, { jobId: 'whole' });
      appendFileSync(its.site.logFile, lineAt(200, { jobId: 'first' }) + line.slice(0, 40));
      assert.equal((await its.webjobctl('index')).exitCode, 0);
      assert.deepEqual(await rows(its)(), ['first got']);
      appendFileSync(its.site.logFile, line.slice(40));
      assert.deepEqual(await rows(its)(), ['first got', 'whole got']);
    }),
  );
});
