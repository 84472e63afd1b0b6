// The jobs of sites in PostgreSQL: after every push the database agrees with the files, however the
// previous push ended, and each role has the rights it needs.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync, rmSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { formatLogLine, type LogLine } from 'webjob-protocol';
import { siteElsewhere } from '../../admin/site/ledger.ts';
import { FIELDS, jobJson } from '../../ledger/fields.ts';
import { readJobs, readMeasures } from '../../ledger/jobs.ts';
import { openLedger } from '../../ledger/postgres/ask.ts';
import { completeUrl } from '../../ledger/postgres/connect.ts';
import { MIGRATIONS } from '../../ledger/postgres/schema.ts';
import type { Site } from '../../ledger/site.ts';
import { storeFile } from '../../ledger/store.ts';
import { collect } from '../support/bare.ts';
import { type LockerSite, makeLockerSite, runWebjobctl, WEBJOBCTL } from '../support/locker-site.ts';
import { NO_POSTGRES, type PostgresServer, startPostgres } from '../support/postgres.ts';
import { RandomSite, tell } from '../support/random-site.ts';

const SITES = Number(process.env.WEBJOB_TEST_SITES ?? 2);
const KILLS = Number(process.env.WEBJOB_TEST_KILLS ?? 6);
const SEED = Number(process.env.WEBJOB_TEST_SEED ?? Date.now() % 1_000_000);

let server: PostgresServer;
before(async () => {
  if (!NO_POSTGRES) server = await startPostgres();
});
after(async () => await server?.stop());

const PUSH = ['ledger', 'push', '--as'];

/** The only site of this name, as the database knows it. */
async function remote(name: string): Promise<Site> {
  const sites = await openLedger(server.url('reading'), siteElsewhere);
  return sites.find(({ label }) => label === name) ?? assert.fail(`no site ${name}`);
}

/** What the ledger says of a site, without its name. */
const tellRemote = async (name: string): Promise<unknown> => await tell({ ...(await remote(name)), label: undefined });

async function push(its: LockerSite, name: string): Promise<Record<string, unknown>> {
  const { exitCode, stderr, text } = await its.webjobctl('--json', ...PUSH, name, '--to', server.url('writing'));
  assert.equal(exitCode, 0, stderr);
  return JSON.parse(text);
}

/** The repeated rows of a site, and the total number of rows. */
async function countRows(name: string): Promise<Record<string, unknown> | undefined> {
  const [found] = await server.query(
    `SELECT count(*)::int AS jobs, (count(*) - count(DISTINCT jobs.id))::int AS twice FROM webjob.jobs
     JOIN webjob.sites ON sites.id = jobs.site_id WHERE name = '${name}'`,
  );
  return found;
}

describe('a PostgreSQL of many sites', { skip: NO_POSTGRES }, () => {
  const made: LockerSite[] = [];
  const random = new RandomSite(SEED);
  const { its } = random;
  const local = (): Site => random.site();
  before(() => {
    for (let step = 0; step < 8; step++) random.step();
  });
  after(() => {
    for (const one of [its, ...made]) one.close();
  });

  it('is refused without its tables, with a hint that fixes it', async () => {
    const first = await its.webjobctl(...PUSH, 'one', '--to', server.url());
    assert.equal(first.exitCode, 4);
    assert.match(
      first.stderr,
      /error: the database has no tables of webjobctl\n.*hint: .*webjobctl ledger setup --to URL/,
    );
    const setup = ['ledger', 'setup', '--to', server.url(), '--writer', 'writing', '--reader', 'reading'];
    const { exitCode, text } = await its.webjobctl('--json', ...setup);
    assert.deepEqual(
      [exitCode, JSON.parse(text)],
      [0, { from: 0, to: MIGRATIONS.length, made: ['writing', 'reading'] }],
    );
    const again = await its.webjobctl('--json', ...setup);
    assert.deepEqual(JSON.parse(again.text), { from: MIGRATIONS.length, to: MIGRATIONS.length, made: [] });
    await server.query('ALTER ROLE writing LOGIN; ALTER ROLE reading LOGIN');
  });

  it('has a column for every field of a job, in their order, and describes its tables', async () => {
    const columns = await server.query(
      "SELECT column_name AS name FROM information_schema.columns WHERE table_schema = 'webjob' AND table_name = 'jobs' ORDER BY ordinal_position",
    );
    assert.deepEqual(
      columns.slice(0, FIELDS.length).map(({ name }) => name),
      FIELDS.map(({ column }) => column),
    );
    const silent = await server.query(
      "SELECT relname FROM pg_class WHERE relnamespace = 'webjob'::regnamespace AND relkind IN ('r', 'p', 'v') AND relname !~ '^jobs_' AND obj_description(oid) IS NULL",
    );
    assert.deepEqual(silent, []);
  });

  it('gets everything once, and then what is new', async () => {
    const first = await push(its, 'one');
    assert.deepEqual([first.isAll, Number(first.jobs) > 0], [true, true]);
    assert.deepEqual(await tellRemote('one'), await tell(local()));
    const second = await push(its, 'one');
    assert.deepEqual([second.jobs, second.clients, second.isAll], [0, 0, false]);
    assert.deepEqual(await countRows('one'), { jobs: first.jobs, twice: 0 });
  });

  for (let number = 0; number < SITES; number++)
    it(`shows what a random site shows, after every push, seed ${SEED + number + 1}`, async () => {
      const random = new RandomSite(SEED + number + 1);
      made.push(random.its);
      for (let step = 0; step < 12; step++) {
        random.step();
        if (step === 6) assert.equal((await random.its.webjobctl('pack', '--older-than', '20d')).exitCode, 0);
        if (step === 8) await random.its.webjobctl('prune', '--older-than', '15d', '--yes');
        await push(random.its, `random ${number}`);
        assert.deepEqual(await tellRemote(`random ${number}`), await tell(random.site()), `step ${step}`);
      }
    });

  it('answers each filter as the files do', async () => {
    const there = await remote('one');
    const list = async (site: Site, filter: object): Promise<unknown[]> => {
      const found: unknown[] = [];
      for await (const job of readJobs(site, filter)) found.push(jobJson({ ...site, label: undefined }, job));
      return found;
    };
    const all = (await list(local(), {})) as { at: string; outerId: string | null }[];
    const middle = new Date(all[Math.floor(all.length / 2)]?.at ?? 0);
    for (const filter of [
      { client: 'client1' },
      { client: 'c*' },
      { client: 'client_?' },
      { client: '?lient1' },
      { client: '-' },
      { client: 'client1,client2' },
      { client: 'c*2,client1' },
      { client: 'client1,-' },
      { command: 'host.sh' },
      { command: '*.sh' },
      { command: 'h%' },
      { states: ['refused', 'got'] },
      { since: middle },
      { until: middle, client: 'client1' },
      { until: middle },
      { outer: 'nothing' },
    ])
      assert.deepEqual(await list(there, filter), await list(local(), filter), JSON.stringify(filter));
  });

  it('answers for one client what the files answer of the newest', async () => {
    const [there, here] = await Promise.all([await remote('one'), local()].map((site) => readMeasures(site, 1)));
    assert.equal(there?.lastSeen.length, 1);
    assert.deepEqual(
      [there?.clients, there?.lastSeen[0]?.[1], there?.all, there?.locker],
      [here?.clients, here?.lastSeen[0]?.[1], here?.all, here?.locker],
    );
  });

  it('is asked by jobs, show and clients, and by no command that reads files', async () => {
    const ask = (...args: string[]) => runWebjobctl(['--ledger', server.url('reading'), ...args]);
    const jobs = await ask('jobs', '--limit', '3');
    assert.equal(jobs.exitCode, 0, jobs.stderr);
    assert.match(jobs.text, /^TIME /);
    const listed = await its.readJson<{ jobId: string | null }>('jobs');
    // The server issues no id to some refused requests.
    const job = listed.findLast(({ jobId }) => jobId !== null);
    const shown = await ask('show', job?.jobId ?? '');
    assert.match(shown.text, /^Site: +(?:one|random 0)\n/);
    const stream = await ask('show', job?.jobId ?? '', '--out');
    assert.equal(stream.exitCode, 2);
    assert.match(stream.stderr, /the streams of .* are in .*\n.*hint: run webjobctl show there/);
    for (const command of ['verify', 'report', 'latest', 'search'])
      assert.match(
        (await ask(command, ...(command === 'latest' || command === 'search' ? ['x'] : []))).stderr,
        /reads the files of a site|required option/,
      );
  });

  it('takes what the URL leaves out from where psql takes it', async () => {
    const folder = new URLSearchParams(server.url().split('?')[1]).get('host') ?? '';
    const environment = { ...process.env, PGHOST: folder, PGUSER: 'reading' };
    const { exitCode, stderr } = await runWebjobctl(['ledger', 'list', '--to', 'postgresql:///webjob'], environment);
    assert.equal(exitCode, 0, stderr);
    const own = { PGHOST: folder };
    assert.equal(completeUrl('postgresql:///webjob', own), `postgresql:///webjob?user=${userInfo().username}`);
    for (const whole of ['postgresql://me@db/webjob', 'postgresql:///webjob?host=/run&user=me'])
      assert.equal(completeUrl(whole, {}), whole);
  });

  it('is pushed to by one process at a time, and no push is lost', async () => {
    const client = new Client({ connectionString: server.url() });
    await client.connect();
    try {
      await client.query('BEGIN; LOCK TABLE webjob.sites IN ACCESS EXCLUSIVE MODE');
      const ended = collect(startPush(its, 'one'), 60);
      const waits = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'webjob.sites'::regclass";
      while ((await server.query(waits)).length === 0) await sleep(20);
      const second = await its.webjobctl(...PUSH, 'two', '--to', server.url('writing'));
      assert.equal(second.exitCode, 4);
      assert.match(second.stderr, /another webjobctl is running on this site/);
      const forgotten = await runWebjobctl(['ledger', 'forget', 'one', '--to', server.url('writing')]);
      assert.equal(forgotten.exitCode, 4);
      assert.match(forgotten.stderr, /another webjobctl is pushing the site one/);
      await client.query('COMMIT');
      assert.equal((await ended).exitCode, 0);
    } finally {
      await client.end();
    }
    assert.deepEqual(await tellRemote('one'), await tell(local()));
  });

  it('reports denied access, a taken name and a missing database, never a password', async () => {
    const other = new RandomSite(SEED + 99);
    made.push(other.its);
    for (let step = 0; step < 3; step++) other.step();
    const wrong: [args: string[], code: number, said: RegExp][] = [
      [[...PUSH, 'one', '--to', server.url('writing')], 4, /the site one there is \S+ on .*\n.*hint: .*--as/],
      [[...PUSH, 'other', '--to', server.url('reading')], 4, /permission denied for table sites\n.*hint: /],
      [[...PUSH, 'other', '--to', server.url('nobody')], 4, /role "nobody" does not exist/],
      [
        [...PUSH, 'other', '--to', 'postgresql://me:hunter2@127.0.0.1/x'],
        2,
        /the URL contains a password.*\n.*hint: write it into ~\/\.pgpass/,
      ],
      [[...PUSH, 'other', '--to', 'postgresql:///x?password=hunter2'], 2, /the URL contains a password/],
      [[...PUSH, 'other', '--to', 'mysql://me:hunter2@h/x'], 2, /not a PostgreSQL URL\n.*hint: as in/],
      [[...PUSH, 'other', '--to', 'postgresql://me@127.0.0.1:1/x'], 4, /127\.0\.0\.1:1\/x: .*ECONNREFUSED/],
      [[...PUSH, '', '--to', server.url('writing')], 2, /a name is/],
    ];
    for (const [args, code, said] of wrong) {
      const { exitCode, stderr } = await other.its.webjobctl(...args);
      assert.equal(exitCode, code, `${args.join(' ')}: ${stderr}`);
      assert.match(stderr, said);
      assert.doesNotMatch(stderr, /hunter2/);
    }
    for (const sql of [
      "INSERT INTO webjob.facts VALUES ('x', 'y')",
      'DELETE FROM webjob.jobs',
      "SELECT webjob.make_partition('2026-01-01')",
    ])
      await assert.rejects(runAs('reading', sql), /permission denied/, sql);
    for (const sql of [
      'DROP TABLE webjob.jobs',
      "UPDATE webjob.facts SET value = 'x'",
      'CREATE TABLE webjob.mine (x int)',
    ])
      await assert.rejects(runAs('writing', sql), /permission denied|must be owner/, sql);
  });

  it('has several sites as one, lists them, and removes one', async () => {
    const other = made.at(-1) ?? assert.fail();
    await push(other, 'other');
    const lines = async (...args: string[]): Promise<string[]> =>
      (await runWebjobctl(['--json', '--ledger', server.url('reading'), ...args])).text.split('\n').filter(Boolean);
    const jobs = (await lines('jobs')).map((line) => JSON.parse(line) as { site: string });
    assert.ok(['one', 'other'].every((name) => jobs.some(({ site }) => site === name)));
    const listed = await runWebjobctl(['--json', 'ledger', 'list', '--to', server.url('reading')]);
    const names = listed.text
      .split('\n')
      .filter(Boolean)
      .map((line) => (JSON.parse(line) as { site: string }).site);
    assert.ok(
      ['one', 'other'].every((name) => names.includes(name)),
      names.join(),
    );
    const forget = ['ledger', 'forget', 'other', '--to', server.url('writing')];
    assert.equal((await runWebjobctl(forget)).exitCode, 0);
    assert.equal((await runWebjobctl(forget)).exitCode, 1);
    assert.deepEqual(await tellRemote('one'), await tell(local()));
    // It begins again.
    assert.equal((await push(other, 'other')).isAll, true);
  });

  it('gets everything again from another index, and after it was restored', async () => {
    assert.equal((await its.webjobctl('index', '--rebuild')).exitCode, 0);
    random.step();
    assert.equal((await push(its, 'one')).isAll, true);
    assert.deepEqual(await tellRemote('one'), await tell(local()));
    // A backup has less than was pushed to it.
    const [before] = await server.query("SELECT number FROM webjob.sites WHERE name = 'one'");
    random.step();
    await push(its, 'one');
    await server.query(`UPDATE webjob.sites SET number = ${before?.number} WHERE name = 'one';
      DELETE FROM webjob.jobs WHERE id IN (SELECT max(id) FROM webjob.jobs)`);
    assert.equal((await push(its, 'one')).isAll, true);
    assert.deepEqual(await tellRemote('one'), await tell(local()));
    assert.equal((await countRows('one'))?.twice, 0);
  });

  it(`loses and doubles nothing, killed ${KILLS} times at either end`, async (t) => {
    const counts = { pushed: 0, killed: 0 };
    for (let kill = 0; kill < KILLS; kill++) {
      random.step();
      if (kill % 3 === 0) rmSync(storeFile(random.site()), { force: true });
      const child = startPush(its, 'one');
      const ended = collect(child, 60);
      await sleep(250 + Math.random() * 500);
      if (kill % 3 === 0) child.kill('SIGKILL');
      else if (kill % 3 === 1) await server.crash();
      else
        await server.query(
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'webjobctl'",
        );
      const { exitCode, stderr } = await ended;
      counts[exitCode === 0 ? 'pushed' : 'killed']++;
      if (exitCode !== 0 && exitCode !== null) assert.match(stderr, /^webjobctl: error: /m, stderr);
      await push(its, 'one');
      assert.deepEqual(await tellRemote('one'), await tell(local()), `kill ${kill}`);
      assert.equal((await countRows('one'))?.twice, 0);
    }
    t.diagnostic(JSON.stringify(counts));
  });

  it('accepts text that PostgreSQL cannot hold, and shows it unchanged', async () => {
    await push(its, 'one');
    const before = await countRows('one');
    const texts = ['\t\\N tab', 'back\\slash\\n', 'nul\0', 'caf\u00e9 \u{1f600}', 'half \ud83d', '\\.'];
    for (const [index, text] of texts.entries())
      random.log(0, {
        jobId: `hostile_${index}`,
        clientId: text,
        fileName: text,
        method: 'GET',
        status: 404,
        message: text,
      });
    appendFileSync(
      join(random.logs[0] ?? '', 'nph-webjob.log'),
      Buffer.from(
        `${formatLogLine(anyLine({ jobId: 'hostile_bytes', message: 'X' }))}\n`.replace('X', '\xff\xfe'),
        'latin1',
      ),
    );
    await push(its, 'one');
    assert.deepEqual(await tellRemote('one'), await tell(local()));
    assert.equal((await countRows('one'))?.jobs, Number(before?.jobs) + texts.length + 1);
  });

  it('shows times in UTC, whatever the time zones of the site and its users', async () => {
    const zoned = makeLockerSite({ UseGMT: 'N', PutNameFormat: '%cid_%Y%m%d%H%M%S_%pid_%cmd' });
    made.push(zoned);
    for (const [index, time] of ['2026-03-29 03:00:00', '2026-10-25 02:30:00', '2026-10-25 03:30:00'].entries())
      appendFileSync(
        zoned.site.logFile,
        `${formatLogLine(anyLine({ time, jobId: `server_1_17612${index}0000_0000${index}` }))}\n`,
      );
    const at = (TZ: string, ...args: string[]) => runWebjobctl(args, { ...process.env, TZ });
    const pushed = await at(
      'Europe/Berlin',
      '-c',
      zoned.site.propertiesFile,
      ...PUSH,
      'berlin',
      '--to',
      server.url('writing'),
    );
    assert.equal(pushed.exitCode, 0, pushed.stderr);
    const here = await at('Europe/Berlin', '--json', '-c', zoned.site.propertiesFile, 'jobs', '--client', 'client1');
    const there = await at(
      'America/New_York',
      '--json',
      '--ledger',
      server.url('reading'),
      'jobs',
      '--client',
      'client1',
    );
    const berlin = there.text.split('\n').filter((text) => text.includes('"site":"berlin",'));
    assert.ok(berlin.length === 3);
    assert.deepEqual(
      berlin.map((text) => text.replace('"site":"berlin",', '')),
      here.text.split('\n').filter(Boolean),
    );
  });
});

/** A log line with these facts. */
function anyLine(facts: Partial<LogLine>): LogLine {
  return {
    time: '2026-01-01 00:00:00',
    remoteAddress: '127.0.0.1',
    remoteUser: 'client1',
    method: 'GET',
    clientId: 'client1',
    fileName: 'host.sh',
    bytesReceived: 0,
    bytesSent: 19,
    seconds: 0,
    status: 200,
    message: 'Success',
    jobId: undefined,
    ...facts,
  };
}

function startPush(its: LockerSite, name: string): ChildProcess {
  const args = [WEBJOBCTL, '--config', its.site.propertiesFile, ...PUSH, name, '--to', server.url('writing')];
  return spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
}

async function runAs(role: string, sql: string): Promise<void> {
  const client = new Client({ connectionString: server.url(role) });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}
