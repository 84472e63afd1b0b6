// The parts of a report: escaping and paths of pages, tables and charts, numbers of a period, and
// the directory that replaces the last one.
import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { type LogLine, RECORD_FIELDS, type RunRecord } from 'webjob-protocol';
import { replaceFolder, tidyFolder } from '../../admin/report/folder.ts';
import { actorsPath, clientPath, commandPath, dayPath, jobPath, partPath } from '../../admin/report/links.ts';
import { Pages } from '../../admin/report/pages.ts';
import { dayOf, Newest, summarize } from '../../admin/report/summary.ts';
import type { Act } from '../../evidence/acts.ts';
import { judge, type Verdict } from '../../evidence/verdict.ts';
import { isFailure, type Job, uploadBytes } from '../../ledger/job.ts';
import type { Site } from '../../ledger/site.ts';
import { formatChart, formatMeter } from '../../pages/charts.ts';
import { html, trustedMarkup } from '../../pages/html.ts';
import { formatActs, formatFacts, formatLog, formatRecordTable, formatVerification } from '../../pages/job.ts';
import { formatDump, formatStream, isBinary } from '../../pages/stream.ts';
import {
  type Book,
  formatClient,
  formatCommand,
  formatEnd,
  formatInstant,
  formatJobTable,
  formatSpan,
} from '../../pages/tables.ts';

const root = mkdtempSync(join(tmpdir(), 'webjob-report-'));
after(() => rmSync(root, { recursive: true }));
let place: string;
let made = 0;
beforeEach(() => {
  const folder = join(root, String(made++));
  mkdirSync(folder);
  place = join(folder, 'report');
});

const T0 = Date.parse('2026-11-01T12:00:00Z');
const DAY = 86_400_000;
const job = (more: Partial<Job> = {}): Job => {
  const nothing = { clientId: 'c', command: 'x', get: undefined, put: undefined, group: undefined, packed: undefined };
  const none = { exitCode: undefined, signal: undefined, outerId: undefined, clockSkew: undefined, seenAt: undefined };
  return {
    jobId: 'job',
    state: 'done',
    at: new Date(T0),
    attempts: [],
    uploads: [],
    differing: [],
    left: [],
    ...nothing,
    ...none,
    ...more,
  };
};
const put = (bytesReceived: number, status = 200) => ({ bytesReceived, status }) as Job['put'];

const book: Book = {
  useGmt: true,
  now: new Date(T0),
  clientHref: (clientId, root) => (clientId === 'c' ? root + clientPath(clientId) : undefined),
  commandHref: (command, root) => (command === 'x' ? root + commandPath(command) : undefined),
  jobHref: (one, root) => (one.jobId === 'job' ? root + jobPath(one) : undefined),
};

describe('a page', () => {
  it('contains nothing from a client that a browser interprets', () => {
    const hostile = `<script>"'&\x1b\u202e`;
    assert.equal(
      html`<b title="${hostile}">${[hostile, undefined, 5]}</b>`.text,
      `<b title="${'&lt;script&gt;&quot;&#39;&amp;\\x1b\\u202e'}">${'&lt;script&gt;&quot;&#39;&amp;\\x1b\\u202e'}5</b>`,
    );
    assert.equal(html`${html`<i>`}${trustedMarkup('<p>')}`.text, '<i><p>');
  });

  it('has a name of its own, with only letters, digits, - and _ in it', () => {
    const names = [
      'a',
      'A',
      'a.b',
      'a_b',
      'a/b',
      '../x',
      'x'.repeat(60),
      'x'.repeat(61),
      `${'x'.repeat(60)}y`,
      '\u00e4',
      '',
    ].map(clientPath);
    assert.equal(new Set(names).size, names.length);
    for (const name of names) assert.match(name, /^client\/[A-Za-z0-9_-]{17,77}\.html$/);
    assert.notEqual(basename(clientPath('a')), 'a.html');
    assert.ok(commandPath('a').startsWith('command/a-'));
    const jobs = [
      job(),
      job({ clientId: 'd' }),
      job({ command: 'y' }),
      job({ group: { name: 'g', has: new Set() } }),
      job({ put: put(1) }),
      job({ get: put(1) }),
      job({ jobId: undefined }),
    ];
    assert.equal(new Set(jobs.map(jobPath)).size, jobs.length);
    assert.deepEqual(
      [
        dayPath('2026-11-01', 1),
        dayPath('2026-11-01', 2),
        actorsPath('client', 1),
        actorsPath('command', 3),
        partPath('a.html', 2),
      ],
      ['day/2026-11-01.html', 'day/2026-11-01-2.html', 'clients.html', 'commands-3.html', 'a-2.html'],
    );
  });
});

describe('a stream of a client', () => {
  it('is shown as text or as a dump, to its last byte or as far as it is shown', () => {
    assert.deepEqual(
      [isBinary(Buffer.from('text\n\t\r')), isBinary(Buffer.from('a\0')), isBinary(Buffer.from([0xc3, 0xa4]))],
      [false, true, false],
    );
    assert.deepEqual(
      [isBinary(Buffer.from(`\x1b${'x'.repeat(9)}`)), isBinary(Buffer.from(`\x1b${'x'.repeat(8)}`))],
      [false, true],
    );
    assert.equal(
      formatDump(Buffer.from('host\x00\x7f~ 0123456789')),
      '00000000  68 6f 73 74 00 7f 7e 20 30 31 32 33 34 35 36 37  |host..~ 01234567|\n00000010  38 39                                            |89|',
    );
    const show = (bytes: Buffer, size = bytes.length): string => formatStream('out', { head: bytes, size }).text;
    assert.equal(show(Buffer.alloc(0)), '<p class="note">Nothing.</p>');
    assert.match(
      show(Buffer.from('0123456789<a>\x1b')),
      /Text, 14 bytes\.<\/p>\n<pre class="text"[^>]*>0123456789&lt;a&gt;<span class="shown">\\x1b<\/span><\/pre>$/,
    );
    assert.match(show(Buffer.from('a\u00e4').subarray(0, 2), 9), /Text, the first 1 of 9 bytes\.[\s\S]*>a<\/pre>$/);
    for (const length of [2, 3, 4])
      assert.match(
        show(Buffer.from('a\u{1f600}').subarray(0, length), 9),
        /, the first 1 of 9 bytes\.[\s\S]*>a<\/pre>$/,
      );
    assert.match(show(Buffer.from([0x61, 0xff])), /a<span class="shown">\\xff<\/span>/);
    assert.match(show(Buffer.alloc(5000)), /Binary, the first 2048 of 5000 bytes/);
    assert.match(show(Buffer.from('a\r\nb')), />a\nb</);
  });
});

describe('the verification of a job', () => {
  it('shows what the custody record has when nothing is left of it', () => {
    const shown = { job: job(), heads: {}, verdict: undefined, deposit: undefined, earlier: [], acts: [] };
    assert.equal(
      formatVerification({ ...shown, missing: ['c_1'] }).text,
      '<p class="bad">The custody record has c_1, and it is missing.</p>',
    );
    assert.match(formatVerification({ ...shown, missing: [] }).text, /no files to verify/);
  });
});

describe('the page of a job', () => {
  /** The cells of each row of a body. */
  const cells = (markup: string): string[][] =>
    [...markup.matchAll(/<tr>(.*?)<\/tr>/gs)].map(([, row = '']) =>
      [...row.matchAll(/<t[hd][^>]*>(.*?)<\/t[hd]>/gs)].map(([, cell = '']) => cell.replaceAll(/<[^>]*>/g, '')),
    );
  const line = (more: Partial<LogLine>): LogLine => ({
    time: '2026-11-01 12:00:00',
    jobId: 'job',
    remoteUser: 'u',
    remoteAddress: '127.0.0.1',
    method: 'PUT',
    clientId: 'c',
    fileName: 'x',
    bytesReceived: 1,
    bytesSent: 2,
    seconds: 3,
    status: 200,
    message: 'Success',
    ...more,
  });
  const stream = { state: 'received', bytes: 1, sha256: 'ff', proof: undefined } as const;
  const record: RunRecord = {
    fields: Object.fromEntries(RECORD_FIELDS.map((name) => [name, `its ${name}`])) as RunRecord['fields'],
    extra: [
      ['OuterJid', 'outer'],
      ['Other', 'field'],
    ],
  };
  const verdict: Verdict = {
    streams: { out: stream, err: stream, env: stream },
    findings: [],
    record,
    recordProblem: undefined,
    isAnnounced: true,
    result: undefined,
  };

  it('has every known value', () => {
    const one = job({
      exitCode: 3,
      clockSkew: -7200,
      differing: ['u~2'],
      get: line({ method: 'GET', time: '2026-11-01 11:00:00', message: 'Fine' }),
      put: line({ status: 454, message: 'Full' }),
      outerId: 'outer',
      left: ['left', 'g'],
      group: { name: 'g', has: new Set() },
    });
    const shown = { job: one, heads: {}, verdict, deposit: undefined, missing: [], acts: [] };
    const earlier = [{ name: 'before', verdict: { ...verdict, isAnnounced: false } }];
    assert.deepEqual(cells(formatFacts({ ...shown, earlier }, '', book).text), [
      ['Job id', 'job'],
      ['Client', 'c'],
      ['Command', 'x'],
      ['End', 'exit 3'],
      ['Reason', 'its KidReason'],
      ['Clock', 'client 2 h 0 min behind the server'],
      ['Differs', '1 differing upload'],
      ['Fetched', '2026-11-01 11:00:00, 200 Fine'],
      ['Uploaded', '2026-11-01 12:00:00, 454 Full'],
      ['Started by', 'outer'],
      ['Left behind', 'left'],
      ['Uploaded before', `before, ${judge(earlier[0]?.verdict ?? verdict).words}`],
      ['Files', 'g'],
    ]);
    const bare = { ...shown, job: job({ jobId: undefined, packed: { pack: 'p', name: 'n' } }), verdict: undefined };
    assert.deepEqual(cells(formatFacts({ ...bare, earlier: [] }, '', book).text), [
      ['Job id', 'none'],
      ['Client', 'c'],
      ['Command', 'x'],
      ['End', ''],
      ['Fetched', 'not in the log'],
      ['Uploaded', 'not in the log'],
      ['Files', 'n, in the archive p'],
    ]);
  });

  it('has every field of the run record, or the record itself', () => {
    assert.deepEqual(cells(formatRecordTable(verdict, {}).text), [
      ...RECORD_FIELDS.map((name) => [name, `its ${name}`]),
      ...record.extra,
    ]);
    const broken = { ...verdict, record: undefined };
    const heads = { env: { head: Buffer.from('no record'), size: 9 } };
    assert.match(formatRecordTable(broken, heads).text, />no record</);
    assert.match(formatRecordTable(broken, {}).text, /There is none/);
  });

  it('has every request in the order of time, with its result', () => {
    const get = line({ method: 'GET', time: '2026-11-01 11:00:00' });
    const again = line({ time: '2026-11-01 11:30:00', remoteAddress: '::1', status: 503, message: 'Busy' });
    assert.deepEqual(cells(formatLog(job({ get, put: line({}), attempts: [again] })).text).slice(1), [
      ['2026-11-01 11:00:00', 'GET', '127.0.0.1', 'u', '1', '2', '3', '200', 'Success'],
      ['2026-11-01 11:30:00', 'PUT', '::1', 'u', '1', '2', '3', '503', 'Busy'],
      ['2026-11-01 12:00:00', 'PUT', '127.0.0.1', 'u', '1', '2', '3', '200', 'Success'],
    ]);
    const act = { id: 'job', at: '2026-11-01T12:00:00Z', by: 'root', text: 'why' } as const;
    const acts: Act[] = [
      { ...act, event: 'hold', kind: 'client' },
      { ...act, event: 'note', kind: 'job' },
    ];
    const shown = formatActs({ acts }, book)?.text ?? '';
    assert.deepEqual(cells(shown).slice(1), [
      ['2026-11-01 12:00:00', 'Put on hold (the client)', 'root', 'why'],
      ['2026-11-01 12:00:00', 'Note', 'root', 'why'],
    ]);
    assert.match(shown, /On hold/);
    assert.doesNotMatch(formatActs({ acts: acts.slice(1) }, book)?.text ?? '', /On hold/);
    assert.equal(formatActs({ acts: [] }, book), undefined);
  });
});

describe('tables', () => {
  it('show times, endings and durations in words', () => {
    assert.deepEqual([0, 59, 60, 119, 120, 3599, 3600, 86_399, 86_400, 200_000].map(formatSpan), [
      ...[
        'less than a minute',
        'less than a minute',
        '1 minute',
        '1 minute',
        '2 minutes',
        '59 minutes',
        '1 hour',
        '23 hours',
        '1 day',
        '2 days',
      ],
    ]);
    assert.deepEqual(
      [
        { signal: 9, exitCode: 0 },
        { signal: 0, exitCode: 3 },
        { exitCode: 0 },
        {},
        { state: 'refused', put: put(0, 453), get: put(0, 200) },
        { state: 'refused', get: put(0, 404) },
        { put: put(0) },
      ].map((more) => formatEnd(job(more as Partial<Job>))),
      ['signal 9', 'exit 3', 'exit 0', '', 'status 453', 'status 404', ''],
    );
    assert.match(formatInstant(new Date(T0), book).text, /datetime="2026-11-01T12:00:00\.000Z">2026-11-01 12:00:00</);
    assert.match(formatInstant(new Date(Number.NaN), book).text, /never/);
    assert.match(formatInstant(undefined, book).text, /never/);
  });

  it('link what has a page, and nothing else', () => {
    assert.deepEqual(
      [formatClient('c', '../', book).text.startsWith('<a href="../client/'), formatClient('d', '../', book).text],
      [true, 'd'],
    );
    assert.deepEqual(
      [
        formatCommand('x', '', book).text.startsWith('<a href="command/'),
        formatCommand(undefined, '', book).text.includes('unknown'),
      ],
      [true, true],
    );
    const table = formatJobTable(
      't',
      'Jobs',
      [job({ put: put(1500), differing: ['u~2'] }), job({ jobId: undefined, state: 'failed' })],
      '../',
      book,
    ).text;
    assert.equal(table.match(/href="\.\.\/job\//g)?.length, 1);
    for (const part of [
      '1.5 kB',
      '1 differing upload',
      'no job id',
      'class="state bad failed">failed',
      'class="state good done">done',
    ])
      assert.ok(table.includes(part), part);
    assert.match(formatJobTable('t', 'Jobs', [], '', book).text, /None/);
  });

  it('have charts whose bars match their values', () => {
    const bars = [
      ['a', 0],
      ['b', 50],
      ['c', 200],
      ['d', 1],
    ].map(([label, value]) => ({ label: String(label), value: Number(value) }));
    const chart = formatChart({ id: 'i', title: 'T', labels: 'L', bars, format: (value) => `${value}!` }).text;
    assert.match(chart, /251! in all, at most 200!/);
    assert.deepEqual(
      [...chart.matchAll(/class="bar" x="([\d.]+)" y="([\d.]+)" width="0\.72" height="([\d.]+)"/g)].map(
        ([, ...found]) => found.join(' '),
      ),
      [...['1.14 75 25', '2.14 0 100', '3.14 98.5 1.5']],
    );
    assert.match(chart, /4 bars from a to d, the highest 200! at c\./);
    assert.match(chart, /class="axis" aria-hidden="true"><span>a<\/span><span>b<\/span><span>d<\/span>/);
    assert.match(
      formatChart({ id: 'i', title: 'T', labels: 'L', bars: [], format: String }).text,
      /No data in this period/,
    );
    assert.deepEqual(
      [-1, 0.5, 2].map((share) => /width="(\d+)" height/.exec(formatMeter(share, false).text)?.[1]),
      ['0', '50', '100'],
    );
    assert.match(formatMeter(1, true).text, /bar-bad/);
  });
});

describe('the numbers of a period', () => {
  const site = { settings: { useGMT: true } } as Site;

  it('are those of its jobs, day by day', async () => {
    const jobs = [
      job({ at: new Date(T0 - 3 * DAY), clientId: 'old', seenAt: new Date(T0 - 3 * DAY) }),
      job({ at: new Date(T0 - 2 * DAY), put: put(10), seenAt: new Date(T0 - 2 * DAY) }),
      job({ at: new Date(T0 - 2 * DAY + 1), state: 'refused', clientId: 'd', command: 'y' }),
      job({ at: new Date(T0), put: put(5), state: 'failed', differing: ['u~2'] }),
      job({ at: new Date(T0 + DAY), clientId: undefined, put: put(1) }),
      job({ at: new Date(Number.NaN), clientId: 'e' }),
    ];
    const { total, periods, states, clients, commands, failures, differing, newest, periodDays } = await summarize(
      jobs,
      { since: new Date(T0 - 2 * DAY), now: new Date(T0), site },
    );
    assert.deepEqual(total, { jobs: 4, failures: 2, bytes: 16 });
    assert.deepEqual(
      [periodDays, periods.map(({ label, jobs: count, failures: bad, bytes }) => `${label} ${count} ${bad} ${bytes}`)],
      [1, ['2026-10-30 2 1 10', '2026-10-31 0 0 0', '2026-11-01 2 1 6']],
    );
    assert.deepEqual([...states].sort(), [
      ['done', 2],
      ['failed', 1],
      ['refused', 1],
    ]);
    assert.deepEqual([...clients.keys()].sort(), ['c', 'd', 'e', 'old']);
    const { c, d, old } = Object.fromEntries(clients) as Record<
      string,
      { jobs: number; bytes: number; seenAt?: Date; last?: { state: string } }
    >;
    assert.deepEqual([c?.jobs, c?.bytes, c?.seenAt?.getTime(), c?.last?.state], [2, 15, T0 - 2 * DAY, 'failed']);
    assert.deepEqual([d?.seenAt, old?.jobs, old?.seenAt?.getTime()], [undefined, 0, T0 - 3 * DAY]);
    assert.equal(commands.get('x')?.jobs, 3);
    assert.deepEqual(
      [failures.count, differing.count, newest.count, newest.jobs[0]?.at.getTime()],
      [2, 1, 4, T0 + DAY],
    );
    const long = await summarize([], { since: new Date(T0 - 92 * DAY), now: new Date(T0), site });
    assert.deepEqual([long.periodDays, long.periods.length], [2, 47]);
    const most = await summarize([], { since: new Date(T0 - 91 * DAY), now: new Date(T0), site });
    assert.deepEqual([most.periodDays, most.periods.length], [1, 92]);
  });

  it('include the newest, however many there are', () => {
    const newest = new Newest(3);
    for (let index = 0; index < 1000; index++)
      newest.add(job({ jobId: String(index), at: new Date(T0 + ((index * 7) % 1000) * 1000) }));
    assert.deepEqual([newest.count, newest.jobs.map(({ at }) => (at.getTime() - T0) / 1000)], [1000, [999, 998, 997]]);
    assert.deepEqual(
      (['failed', 'refused', 'incomplete', 'missing', 'done', 'got', 'orphan'] as const)
        .filter((state) => isFailure(job({ state })))
        .slice(0, 3),
      ['failed', 'refused', 'incomplete'],
    );
    assert.deepEqual([uploadBytes(job({ put: put(7) })), uploadBytes(job())], [7, 0]);
    assert.equal(dayOf(new Date('2026-11-01T00:30:00Z'), true), '2026-11-01');
  });
});

describe('the directory of a report', () => {
  const write = (path: string, text: string): void => writeFileSync(path, text);
  const make = (text: string, fill?: (folder: string, old: string | undefined) => void): Promise<void> =>
    replaceFolder(place, async (folder, old) => {
      write(join(folder, 'index.html'), text);
      fill?.(folder, old);
    });
  const text = (): string => readFileSync(join(place, 'index.html'), 'utf8');
  const beside = (): string[] => readdirSync(join(place, '..')).sort();

  it('replaces the last one as a whole, with its mode', async () => {
    await make('one');
    assert.deepEqual([text(), statSync(place).mode & 0o777], ['one', 0o755]);
    chmodSync(place, 0o750);
    if (process.getuid?.() === 0) chownSync(place, 0, 23_456);
    const { gid } = statSync(place);
    let last: string | undefined;
    await make('two', (_folder, old) => {
      last = old;
      assert.equal(text(), 'one');
    });
    assert.deepEqual(
      [text(), statSync(place).mode & 0o777, statSync(place).gid, last, beside()],
      ['two', 0o750, gid, place, ['report']],
    );
    await assert.rejects(
      make('three', () => assert.fail('broken')),
      /broken/,
    );
    assert.deepEqual([text(), beside()], ['two', ['report']]);
  });

  it('links nothing from a directory that others can change', async () => {
    await make('one');
    for (const [what, change, undo] of [
      ['writable', () => chmodSync(place, 0o775), () => chmodSync(place, 0o755)],
      [
        'a folder in it',
        () => void [mkdirSync(join(place, 'job')), chmodSync(join(place, 'job'), 0o757)],
        () => rmSync(join(place, 'job'), { recursive: true }),
      ],
      ['a link in it', () => symlinkSync('/', join(place, 'job')), () => rmSync(join(place, 'job'))],
    ] as const) {
      change();
      let last: string | undefined = 'unasked';
      await assert.rejects(
        make('two', (_folder, old) => {
          last = old;
          throw new Error('enough');
        }),
        /enough/,
      );
      assert.equal(last, undefined, what);
      undo();
    }
  });

  it('must have been made for a report', async () => {
    mkdirSync(place);
    write(join(place, 'precious'), '');
    await assert.rejects(make('one'), /contains other files/);
    rmSync(join(place, 'precious'));
    await make('one');
    assert.equal(text(), 'one');
    rmSync(place, { recursive: true });
    write(place, '');
    await assert.rejects(make('two'), /not a directory/);
    rmSync(place);
    mkdirSync(join(place, '..', 'elsewhere'));
    symlinkSync('elsewhere', place);
    await assert.rejects(make('two'), /not a directory/);
  });

  it('is restored when a run was killed between its two names', async () => {
    await make('one');
    const old = join(place, '..', '.report.999999999.old');
    const left = [
      '.report.999999998.new',
      '.report.999999998.old',
      `.report.${process.pid}.new`,
      '.other.999999999.new',
    ];
    for (const name of left) mkdirSync(join(place, '..', name));
    rmSync(old, { recursive: true, force: true });
    mkdirSync(old);
    for (const name of readdirSync(place)) write(join(old, name), readFileSync(join(place, name), 'utf8'));
    rmSync(place, { recursive: true });
    tidyFolder(place);
    assert.deepEqual([text(), beside()], ['one', [left[3], left[2], 'report'].sort()]);
    tidyFolder(place);
    assert.ok(existsSync(place));
  });

  it('keeps unchanged pages, and writes changed ones', () => {
    const [first, second] = [join(place, '..', 'a'), join(place, '..', 'b')];
    for (const path of [first, second]) mkdirSync(path);
    const frame = { siteName: 's', madeAt: 'then', version: '1' };
    const page = (title: string) => ({ title, root: '', place: 'jobs.html', content: html`<p>` }) as const;
    const one = new Pages(first, undefined, frame, () => undefined);
    for (const title of ['x', 'y']) one.put(`${title}.html`, page(title));
    let advanced = 0;
    const two = new Pages(second, first, { ...frame, madeAt: 'now' }, () => void advanced++);
    two.put('x.html', page('x'));
    two.put('y.html', page('other'));
    two.put('z.html', page('z'));
    assert.deepEqual([two.kept, two.written, two.count, advanced], [1, 2, 3, 3]);
    assert.equal(statSync(join(second, 'x.html')).ino, statSync(join(first, 'x.html')).ino);
    assert.ok(
      readFileSync(join(first, 'y.html'), 'utf8').includes('>y ') ||
        readFileSync(join(first, 'y.html'), 'utf8').includes('<title>y'),
    );
    const three = new Pages(join(place, '..', 'c'), first, { ...frame, version: '2' }, () => undefined);
    mkdirSync(join(place, '..', 'c'));
    three.put('x.html', page('x'));
    assert.equal(three.kept, 0);
    assert.equal(statSync(join(second, 'y.html')).mode & 0o777, 0o644);
  });
});
