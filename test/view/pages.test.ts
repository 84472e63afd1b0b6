// What the pages of the view and their JSON say, cell by cell, about a small site with jobs in
// every state; without a server and a browser.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { readSite } from '../../admin/site/site.ts';
import { formatBytes } from '../../cli/output.ts';
import { makeScanIndexes } from '../../ledger/scan.ts';
import { fillStore, type Store } from '../../ledger/store.ts';
import { configure, makeSite } from '../../scripts/site.ts';
import type { Page } from '../../view/answer.ts';
import { formatAssignmentState } from '../../view/assignments.ts';
import { noteChanges } from '../../view/changes.ts';
import { clientJson, clientPage } from '../../view/client.ts';
import { commandJson, commandPage } from '../../view/command.ts';
import { type Context, makeContext, NotShown } from '../../view/context.ts';
import { diffJson, diffPage } from '../../view/diff.ts';
import { failuresFeed } from '../../view/feed.ts';
import { findStream, jobPage } from '../../view/job.ts';
import { jobsJson, jobsPage } from '../../view/jobs.ts';
import { clientsJson, clientsPage, commandsJson, commandsPage } from '../../view/lists.ts';
import { missedPage } from '../../view/missed.ts';
import { overviewJson, overviewPage } from '../../view/overview.ts';
import { findJobAddress, searchJson, searchPage } from '../../view/search.ts';
import { formatIn, type PastJob, type Planted, plantPast } from '../support/past-site.ts';

const own = makeSite();
configure(own, { UseGMT: 'Y' });
const site = readSite(own.propertiesFile);
const HOUR = 3_600_000;
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
const now = Date.now();
let store: Pick<Store, 'database' | 'close'>;
const planted = new Map<string, Planted>();

before(async () => {
  const plant = (id: string, hours: number, job: Omit<PastJob, 'at'>): void => {
    const at = new Date(now - hours * HOUR);
    for (const one of plantPast(own, 'UTC', [{ at, ...job }])) planted.set(id, one);
  };
  plant('silent', 24 * 10, { clientId: 'c3', command: 'a.sh', out: 'old\n' });
  for (const [id, hours, out] of [
    ['oldest', 50, 'one\n'],
    ['older', 26, 'one\n'],
    ['old', 6, 'one\n'],
    ['new', 2, 'two needle\n'],
  ] as const)
    plant(id, hours, { clientId: 'c1', command: 'a.sh', out });
  plant('failed', 3, {
    clientId: 'c1',
    command: 'b.sh',
    out: 'bad\n',
    fields: { KidStatus: '7', KidReason: 'x'.repeat(3000) },
  });
  plant('first', 4, { clientId: 'c2', command: 'a.sh', out: 'two needle\n' });
  plant('refused', 5, { clientId: 'c2', command: 'none.sh', get: { status: 404 }, put: false, out: false });
  plant('missing', 5.5, { clientId: 'c2', command: 'b.sh', out: false });
  plant('broken', 7, { clientId: 'c2', command: 'c.sh', put: { status: 500, message: 'Broke' } });
  for (const name of readdirSync(own.incoming).filter((file) => /_c\.sh\.rdy$/.test(file)))
    rmSync(join(own.incoming, name));
  const filled = await fillStore(join(own.root, 'webjob.sqlite'), site, { maxText: 1000 });
  store = filled;
  makeScanIndexes(filled.database);
  // One call compares for a few milliseconds, at least one job.
  for (let round = 0; round < planted.size; round++) await noteChanges(filled.database, site);
});
after(() => {
  store?.close();
  own.remove();
});

const contextOf = (query = ''): Context =>
  makeContext({ site, acts: undefined }, store.database, '/v', new URLSearchParams(query));

/** The times and job ids of a text by the names they have here. */
function named(text: string): string {
  let result = text;
  for (const [name, { jobId, at }] of planted) {
    result = result.replaceAll(jobId, `:${name}`);
    for (const [before, time] of [
      ['', at],
      ['GET ', new Date(at.getTime() - 2000)],
    ] as const) {
      result = result.replaceAll(formatIn('UTC', time), `at ${before}${name}`);
      result = result.replaceAll(
        new Date(Math.floor(time.getTime() / 1000) * 1000).toISOString(),
        `at ${before}${name}`,
      );
    }
  }
  return result;
}

/** A page as a reader sees it, a row a line, with the targets of its links in parentheses. */
function show({ content }: Page): string[] {
  const text = content.text
    .replaceAll(/<(svg|form|details)\b.*?<\/\1>/gs, '')
    .replaceAll(/<time[^>]*>(.*?)<\/time>/g, '$1')
    .replaceAll(/<a [^>]*?href="([^"]*)"[^>]*>(.*?)<\/a>/g, (_, href: string, words: string) => `${words} (${href})`)
    .replaceAll('&amp;', '&')
    .replaceAll(/<\/(?:td|th|dt|span)>/g, ' ')
    .replaceAll(/\n/g, ' ')
    .replaceAll(/<\/(?:tr|p|li|h1|h2|h3|div|figcaption|thead|caption)>/g, '\n')
    .replaceAll(/<[^>]*>/g, '');
  return named(text)
    .split('\n')
    .map((line) => line.replaceAll(/\s+/g, ' ').trim())
    .filter(Boolean);
}

/** The JSON of a page, each job by its name. */
const tell = (value: unknown): unknown =>
  JSON.parse(named(JSON.stringify(value)), (_, part) => (part?.jobId && part.requests ? part.jobId : part));

describe('the pages of a small site', () => {
  const JOBS = 'Time Client Command State End Bytes Job';
  const job = (name: string, client: string, command: string, end: string, at = name): string =>
    `at ${at} ${client} (/v/client/${client}) ${command} (/v/command/${command}) ${end} :${name} (/v/job/:${name})`;
  const NEW = job('new', 'c1', 'a.sh', 'done exit 0 10 B');
  const FAILED = job('failed', 'c1', 'b.sh', 'failed exit 7 10 B');
  const FIRST = job('first', 'c2', 'a.sh', 'done exit 0 10 B');
  const REFUSED = job('refused', 'c2', 'none.sh', 'refused status 404 0 B', 'GET refused');
  const MISSING = job('missing', 'c2', 'b.sh', 'upload missing 10 B');
  const BROKEN = job('broken', 'c2', 'c.sh', 'incomplete 0 B');
  const [OLD, OLDER, OLDEST] = ['old', 'older', 'oldest'].map((name) => job(name, 'c1', 'a.sh', 'done exit 0 10 B'));
  const SILENT = job('silent', 'c3', 'a.sh', 'done exit 0 10 B');
  /** The highest bar and the days of the axis depend on the time of day. */
  const withoutCharts = (lines: string[]): string[] =>
    lines
      .map((line) => line.replace(/, at most .*/, ''))
      .filter((line) => !/^\d+(?: B|-\d\d-\d\d.*)?$|^(?:little space|few inodes)/.test(line));

  it('show on the overview what needs attention, the last days, and the newest results', () => {
    // The record of the failed job is longer than what an index holds of a stream.
    const bytes = readdirSync(own.incoming).reduce((sum, name) => sum + statSync(join(own.incoming, name)).size, 0);
    assert.deepEqual(withoutCharts(show(overviewPage(contextOf()))), [
      'Overview',
      'Needs attention',
      '1 upload missing (/v/jobs?state=missing) acknowledged, and neither removed nor archived',
      '1 failed (/v/jobs?state=failed&since=24h) in the last 24 hours',
      '1 incomplete (/v/jobs?state=incomplete&since=24h) in the last 24 hours',
      '1 refused (/v/jobs?state=refused&since=24h) in the last 24 hours',
      '1 client silent c3 (/v/client/c3) for 10 days',
      '1 result changed in the last 24 hours: a.sh on c1 (/v/diff?from=:old&to=:new)',
      'Certificates, expectations and assignments are shown where webjobctl acts runs: see docs/guide/view.md.',
      'jobs in 24 hours 7 (/v/jobs?since=24h)',
      'done in 24 hours 3 (/v/jobs?since=24h&state=done)',
      'uploads in the locker 7',
      `bytes in the locker ${formatBytes(bytes)}`,
      'The last 30 days',
      'Jobs a day',
      '10 in all',
      'Failures a day',
      '3 in all',
      'Bytes a day',
      '80 B in all',
      'Newest failures',
      'The newest jobs that failed or broke off',
      ...[JOBS, FAILED, BROKEN],
      'All failures (/v/jobs?state=failed%2Cincomplete%2Crefused) · Atom feed (/v/failures.atom)',
      'Newest jobs',
      'The newest jobs',
      ...[JOBS, NEW, FAILED, FIRST, REFUSED, MISSING, OLD, BROKEN, OLDER, OLDEST, SILENT],
      'All jobs (/v/jobs) · Live (/v/jobs?live=1) · JSON (/v/index.json)',
    ]);
    const { days, ...rest } = tell(overviewJson(contextOf())) as { days: { day: string; states: object }[] };
    assert.deepEqual(rest, {
      states: { done: 6, failed: 1, refused: 1, missing: 1, incomplete: 1 },
      lastDay: { done: 3, failed: 1, incomplete: 1, missing: 1, refused: 1 },
      locker: { complete: 7, incomplete: 1, bytes },
      needs: [
        ...['1 upload missing', '1 failed', '1 incomplete', '1 refused'].map((words) => ({
          kind: words.split(' ').at(-1),
          words,
        })),
        { kind: 'silent', words: '1 client silent' },
        { kind: 'changed', words: '1 result changed' },
      ],
      changed: [{ job: ':new', at: 'at new', client: 'c1', command: 'a.sh', earlier: ':old' }],
      status: null,
      failures: [':failed', ':broken'],
      newest: ['new', 'failed', 'first', 'refused', 'missing', 'old', 'broken', 'older', 'oldest', 'silent'].map(
        (name) => `:${name}`,
      ),
    });
    assert.equal(days.length, 30);
    const counted = days.map(({ day, states }) => [day, Object.values(states).reduce((sum, count) => sum + count, 0)]);
    const expected = new Map(counted.map(([day]) => [day, 0]));
    for (const [name, { at }] of planted) {
      const day = formatIn('UTC', new Date(at.getTime() - (name === 'refused' ? 2000 : 0))).slice(0, 10);
      expected.set(day, (expected.get(day) ?? 0) + 1);
    }
    assert.deepEqual(counted, [...expected]);
  });

  it('show for a client its numbers, its newest results and its jobs', async () => {
    const ways = (client: string): string =>
      `All jobs of this client (/v/jobs?client=${client}) · JSON (/v/client/${client}.json)`;
    const RESULTS = [
      'Newest results',
      'The newest result of each command, by name',
      'Command State Time End Output Job',
    ] as const;
    const result = (command: string, end: string, name: string): string =>
      `${command} (/v/command/${command}) ${end} :${name} (/v/job/:${name})`;
    assert.deepEqual(withoutCharts(show(await clientPage(contextOf(), 'c1'))), [
      'c1',
      'Client, last seen at new. It usually runs every 20 hours.',
      'jobs 5 (/v/jobs?client=c1)',
      'failed 1 (/v/jobs?client=c1&state=failed%2Cincomplete%2Cmissing)',
      'changed since the previous run 1 (#commands)',
      'bytes received 50 B',
      ...['The last 14 days', 'Runs', '5 jobs, 1 failure', ...RESULTS],
      result('a.sh', 'done at new exit 0 changed (/v/diff?from=:old&to=:new)', 'new'),
      result('b.sh', 'failed at failed exit 7 the first', 'failed'),
      ...['Newest jobs', 'Jobs of c1, the newest first', JOBS, NEW, FAILED, OLD, OLDER, OLDEST, ways('c1')],
    ]);
    assert.deepEqual(withoutCharts(show(await clientPage(contextOf(), 'c2'))), [
      'c2',
      'Client, last seen at first.',
      'jobs 4 (/v/jobs?client=c2)',
      'failed 2 (/v/jobs?client=c2&state=failed%2Cincomplete%2Cmissing)',
      'changed since the previous run 0 (#commands)',
      'bytes received 20 B',
      ...['The last 14 days', 'Runs', '4 jobs, 2 failures', ...RESULTS],
      result('a.sh', 'done at first exit 0 the first', 'first'),
      ...['Newest jobs', 'Jobs of c2, the newest first', JOBS, FIRST, REFUSED, MISSING, BROKEN, ways('c2')],
    ]);
    const { newest, ...rest } = (await clientJson(contextOf(), 'c2')) as { newest: Record<string, unknown>[] };
    assert.deepEqual(tell(rest), {
      client: 'c2',
      seenAt: 'at first',
      states: { done: 1, refused: 1, missing: 1, incomplete: 1 },
      missed: [],
      failures: 2,
      jobs: [':first', ':refused', ':missing', ':broken'],
    });
    assert.deepEqual(
      newest.map(({ jobId, outputSha256, changed }) => [named(String(jobId)), outputSha256, changed]),
      [[':first', sha256('two needle\n'), null]],
    );
    await assert.rejects(clientPage(contextOf(), 'nobody'), /No client nobody is known/);
  });

  it('show for a command the clients with the same output together', async () => {
    const digest = sha256('two needle\n');
    assert.deepEqual(show(await commandPage(contextOf(), 'a.sh')), [
      'a.sh',
      'Command: 2 alike, 1 differ.',
      'All jobs of this command (/v/jobs?command=a.sh) · JSON (/v/command/a.sh.json)',
      'Newest output of each client',
      'alike 2 clients, 11 B',
      'The output (/v/job/:new#output)',
      `The newest of them, SHA-256 ${digest.slice(0, 16)}`,
      'Client State Time End Job',
      'c1 (/v/client/c1) done at new exit 0 :new (/v/job/:new)',
      'c2 (/v/client/c2) done at first exit 0 :first (/v/job/:first)',
      'differ 1 client, each different',
      'Clients with unique output',
      'Client State Time End Differs Job',
      'c3 (/v/client/c3) done at silent exit 0 how (/v/diff?from=:new&to=:silent) :silent (/v/job/:silent)',
    ]);
    assert.deepEqual(tell(await commandJson(contextOf(), 'a.sh')), {
      command: 'a.sh',
      groups: [
        { outputSha256: digest, bytes: 11, why: null, newest: [':new', ':first'] },
        { outputSha256: sha256('old\n'), bytes: 4, why: null, newest: [':silent'] },
      ],
      next: null,
    });
    assert.deepEqual(show(await commandPage(contextOf(), 'none.sh')).slice(1, 2), ['Command, 0 clients.']);
    await assert.rejects(commandPage(contextOf(), 'never.sh'), /No client has fetched never\.sh/);
  });

  it('list every client and every command', () => {
    assert.deepEqual(show(clientsPage(contextOf())).slice(3), [
      'Client Last seen Jobs Failed Refused Bytes',
      'c1 (/v/client/c1) at new jobs 5 failed 1 refused 0 50 B',
      'c2 (/v/client/c2) at first jobs 4 failed 2 refused 1 20 B',
      'c3 (/v/client/c3) at silent jobs 1 failed 0 refused 0 10 B',
    ]);
    assert.match(show(clientsPage(contextOf('name=+x*+'))).at(-1) ?? '', /^No client has this name\.$/);
    assert.equal(show(clientsPage(contextOf('name=+*3+'))).length, 5);
    assert.deepEqual(tell(clientsJson(contextOf())), {
      clients: [
        { client: 'c1', seenAt: 'at new', states: { done: 4, failed: 1 }, received: 50, sent: 95 },
        {
          client: 'c2',
          seenAt: 'at first',
          received: 20,
          sent: 57,
          states: { done: 1, refused: 1, missing: 1, incomplete: 1 },
        },
        { client: 'c3', seenAt: 'at silent', states: { done: 1 }, received: 10, sent: 19 },
      ],
      next: null,
    });
    assert.deepEqual(show(commandsPage(contextOf())).slice(4), [
      'Command Newest job Time End Client',
      'a.sh (/v/command/a.sh) done at new exit 0 c1 (/v/client/c1)',
      'b.sh (/v/command/b.sh) failed at failed exit 7 c1 (/v/client/c1)',
      'c.sh (/v/command/c.sh) incomplete at broken c2 (/v/client/c2)',
      'none.sh (/v/command/none.sh) refused at GET refused status 404 c2 (/v/client/c2)',
    ]);
    assert.deepEqual(tell(commandsJson(contextOf())), {
      commands: [
        { command: 'a.sh', newest: ':new' },
        { command: 'b.sh', newest: ':failed' },
        { command: 'c.sh', newest: ':broken' },
        { command: 'none.sh', newest: ':refused' },
      ],
      next: null,
    });
  });

  it('find texts without surrounding blanks, and jobs by their ids', async () => {
    const hit = (name: string, client: string): string[] => [
      `done at ${name} ${client} (/v/client/${client}) a.sh (/v/command/a.sh) :${name} (/v/job/:${name})`,
      `.out line 1 (/v/job/:${name}?s=out&find=needle) two needle`,
    ];
    assert.deepEqual(show(await searchPage(contextOf('q=+needle+'))), [
      ...['Search', 'JSON (/v/search.json?q=needle)', ...hit('new', 'c1'), ...hit('first', 'c2')],
    ]);
    const hits = [{ stream: 'out', line: 1, text: 'two needle' }];
    const { found, ...rest } = (await searchJson(contextOf('q=+needle+'))) as { found: Record<string, unknown>[] };
    assert.deepEqual(rest, { next: null, complete: true });
    assert.deepEqual(
      found.map(({ jobId, hits: those }) => [named(String(jobId)), those]),
      [':new', ':first'].map((name) => [name, hits]),
    );
    assert.deepEqual(await searchJson(contextOf('q=+')), { found: [], next: null, complete: true });
    assert.match(show(await searchPage(contextOf('q=nothing'))).at(-1) ?? '', /^No output contains this text\./);
    const jobId = planted.get('failed')?.jobId ?? '';
    assert.deepEqual(
      [` ${jobId} `, 'no-job', `${jobId} x`, ''].map((q) =>
        findJobAddress(contextOf(new URLSearchParams({ q }).toString())),
      ),
      [`/v/job/${jobId}`, undefined, undefined, undefined],
    );
  });

  it('list the jobs that match a filter, in its order', async () => {
    const query = 'client=c1%2Cc2&state=failed%2Cdone&sort=oldest';
    assert.deepEqual(show(await jobsPage(contextOf(query))), [
      'Jobs',
      `Live (/v/jobs?${query}&live=1) · CSV (/v/jobs.csv?${query}) · JSON (/v/jobs.json?${query})`,
      'Jobs, the oldest first',
      ...[JOBS, OLDEST, OLDER, OLD, FIRST, FAILED, NEW],
    ]);
    const { jobs } = tell(await jobsJson(contextOf(query))) as { jobs: string[] };
    assert.deepEqual(jobs, [':oldest', ':older', ':old', ':first', ':failed', ':new']);
  });
});

describe('the view', () => {
  const id = (name: string): string => planted.get(name)?.jobId ?? '';
  const rows: [what: string, read: () => unknown, status: number, message: RegExp][] = [
    ['an unknown order', () => jobsPage(contextOf('sort=size')), 400, /^The orders are time, oldest, client/],
    ['an unknown state', () => jobsPage(contextOf('state=done,lost')), 400, /^The states are got, done/],
    ['an exit status that is no number', () => jobsPage(contextOf('exit=-1')), 400, /^An exit status is a whole/],
    ['a time that is none', () => jobsPage(contextOf('since=soon')), 400, /./],
    ['a place that was not made here', () => jobsPage(contextOf('after=x')), 400, /^The position in the list/],
    ['a place of two parts', () => jobsPage(contextOf('after=WyIiLDFd')), 400, /^The position in the list/],
    ['a stream that is none', () => diffPage(contextOf('stream=rdy')), 400, /^The streams are out, err and env\.$/],
    ['a difference to nothing', () => diffPage(contextOf('to=none')), 404, /^There is no job none with output\.$/],
    [
      'one to a job without output',
      () => diffPage(contextOf(`to=${id('refused')}`)),
      404,
      /^There is no job .* with output/,
    ],
    [
      'one to no earlier run',
      () => diffPage(contextOf(`to=${id('first')}&from=previous`)),
      404,
      /^There is no earlier run of a\.sh on c2 with/,
    ],
    [
      'one to no golden run',
      () => diffPage(contextOf(`to=${id('first')}&from=golden`)),
      404,
      /names no golden run of a\.sh on c2/,
    ],
    [
      'a stream of a job that has none',
      () => findStream(contextOf(), 'out', id('missing')),
      404,
      /^This job has no \.out\.$/,
    ],
    ['a job that is not there', () => jobPage(contextOf(), 'none'), 404, /^There is no such job/],
    ['a job of another client', () => jobPage(contextOf('client=c2'), id('new')), 404, /^There is no such job/],
    [
      'a stretch of no stream',
      () => jobPage(contextOf('s=rdy'), id('new')),
      400,
      /^The position in the stream is not valid/,
    ],
    [
      'a stretch at no place',
      () => jobPage(contextOf('s=out&pos=x'), id('new')),
      400,
      /^The position in the stream is not valid/,
    ],
    [
      'a stretch of no form',
      () => jobPage(contextOf('s=out&as=pdf'), id('new')),
      400,
      /^The position in the stream is not valid/,
    ],
    ['a list of what is missed at no place', () => missedPage(contextOf('after=x')), 400, /^The position in the list/],
  ];
  for (const [what, read, status, message] of rows)
    it(`reports ${what}`, async () =>
      await assert.rejects(
        async () => await read(),
        (error: Error) => {
          assert.ok(error instanceof NotShown, error.stack);
          assert.equal(error.status, status);
          assert.match(error.message, message);
          return true;
        },
      ));
});

it('webjob-view --index fails when the index cannot be made', () => {
  const program = join(import.meta.dirname, '..', '..', 'dist', 'webjob-view.cgi');
  const env = {
    PATH: process.env.PATH,
    WEBJOB_VIEW_DIRECTORY: join(own.logFile, 'x'),
    WEBJOB_PROPERTIES_FILE: own.propertiesFile,
  };
  const { status, stderr } = spawnSync(process.execPath, [program, '--index'], { env, encoding: 'utf8' });
  assert.deepEqual([status, /^webjob-view: error: .*ENOTDIR/.test(stderr)], [4, true], stderr);
});

it('options are for the command line: httpd passes a query such as ?--version as an argument', () => {
  const program = join(import.meta.dirname, '..', '..', 'dist', 'webjob-view.cgi');
  const start = (option: string, more: NodeJS.ProcessEnv = {}): string => {
    const env = { PATH: process.env.PATH, WEBJOB_PROPERTIES_FILE: own.propertiesFile, ...more };
    return spawnSync(process.execPath, [program, option], { env, encoding: 'utf8' }).stdout;
  };
  assert.match(start('--version'), /^webjob-view \d/);
  assert.match(start('--help'), /^Usage: webjob-view --listen PLACE /);
  for (const option of ['--version', '--help', '--index'])
    assert.match(start(option, { GATEWAY_INTERFACE: 'CGI/1.1', REQUEST_METHOD: 'GET' }), /^Status: \d{3} /, option);
});

it('the feed of failures has an entry for each time that a job failed', () => {
  const entries = [
    ...named(failuresFeed(contextOf(), 'https://h')).matchAll(
      /<entry>.*?<title>(.*?)<\/title><id>(.*?)<\/id>.*? href="(.*?)"/g,
    ),
  ];
  assert.deepEqual(
    entries.map(([, title, id, href]) => [title, id, href]),
    [
      ['b.sh on c1: failed, exit 7', 'https://h/v/job/:failed#at failed', 'https://h/v/job/:failed'],
      ['none.sh on c2: refused, status 404', 'https://h/v/job/:refused#at GET refused', 'https://h/v/job/:refused'],
      ['c.sh on c2: incomplete', 'https://h/v/job/:broken#at broken', 'https://h/v/job/:broken'],
    ],
  );
});

it('the view shows the state of an assignment as good or bad as it is', () => {
  for (const [state, look] of [
    ['done', 'good'],
    ['failed', 'bad'],
    ['lost', 'bad'],
    ['expired', 'warn'],
    ['waiting', 'plain'],
    ['fetched', 'plain'],
    ['unknown', 'plain'],
  ] as const)
    assert.match(formatAssignmentState(state).text, new RegExp(`class="state ${look}\\b.*>${state}<`), state);
});

it('the view shows a difference of the two streams, in their order', async () => {
  const { to, from, differs } = tell(
    await diffJson(contextOf(`from=${planted.get('old')?.jobId}&to=${planted.get('new')?.jobId}`)),
  ) as Record<string, unknown>;
  assert.deepEqual([from, to, differs], [':old', ':new', true]);
});

it('a list ends with a page that is exactly full', async () => {
  const other = makeSite();
  configure(other, { UseGMT: 'Y' });
  const line = (index: number): string =>
    `2026-11-01 10:00:00 job-${index} c${index} 127.0.0.1 PUT c${index} ${index}.sh 1 0 0 404 -- Not Found\n`;
  try {
    for (const [count, rest] of [
      [100, 0],
      [101, 1],
    ] as const) {
      writeFileSync(other.logFile, Array.from({ length: count }, (_, index) => line(index)).join(''));
      const site = readSite(other.propertiesFile);
      const filled = await fillStore(join(other.root, `${count}.sqlite`), site, {});
      makeScanIndexes(filled.database);
      const context = (query = ''): Context =>
        makeContext({ site, acts: undefined }, filled.database, '', new URLSearchParams(query));
      type Data = { next: string | null } & Record<'clients' | 'commands' | 'jobs', unknown[]>;
      for (const [name, path, read] of [
        ['clients', '/clients.json', clientsJson],
        ['commands', '/commands.json', commandsJson],
      ] as const) {
        const first = read(context()) as Data;
        assert.equal(first[name].length, 100);
        if (rest === 0) assert.equal(first.next, null, name);
        else {
          assert.equal(first.next?.startsWith(`${path}?after=`), true, `${first.next}`);
          const second = read(context(first.next?.split('?')[1])) as Data;
          assert.deepEqual([second[name].length, second.next], [rest, null], name);
        }
      }
      const pages: number[] = [];
      for (let query: string | undefined = ''; query !== undefined; ) {
        const text: string = (await jobsPage(context(query))).content.text;
        pages.push(text.match(/<tr data-row>/g)?.length ?? 0);
        query = /rel="next" href="[^"?]*\?([^"]*)"/.exec(text)?.[1]?.replaceAll('&amp;', '&');
      }
      assert.deepEqual(pages, rest === 0 ? [50, 50] : [50, 50, 1]);
      filled.close();
    }
  } finally {
    other.remove();
  }
});
