// index and export, on a locker made by real CGI processes: the index agrees with the files, it is
// used only for what has not changed, a kill does no harm, and what clients sent is text wherever
// it is loaded.
import assert from 'node:assert/strict';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, describe, it } from 'node:test';
import { readSettings } from '../../cgi/settings.ts';
import { findCandidates } from '../../ledger/candidates.ts';
import { FIELDS } from '../../ledger/fields.ts';
import type { Job } from '../../ledger/job.ts';
import { type JobFilter, readJobs } from '../../ledger/jobs.ts';
import { type Site, serverOf } from '../../ledger/site.ts';
import { openKnownStore } from '../../ledger/store.ts';
import { runKilled } from '../support/keep-site.ts';
import { fillLocker, type LockerSite, makeLockerSite } from '../support/locker-site.ts';
import { readPage, readSection } from '../support/mdoc.ts';

const EVIL = `=HYPERLINK("http://evil/","x")'); DROP TABLE jobs; --`;

let locker: LockerSite;
const site = (): Site => {
  const { propertiesFile } = locker.site;
  const { settings } = readSettings(propertiesFile);
  return { propertiesFile, settings, servers: [serverOf(settings)], label: undefined };
};
/** The same site, asked without a store. */
const readFromFiles = (filter: JobFilter = {}): AsyncIterable<Job> => {
  const { settings, ...rest } = site();
  return readJobs(
    { ...rest, settings: { ...settings, baseDirectory: join(settings.baseDirectory, 'nowhere') } },
    filter,
  );
};
const database = (): string => join(locker.site.base, 'index', 'webjob.sqlite');

before(async () => {
  locker = makeLockerSite();
  await fillLocker(locker);
  // A refused PUT whose message and user contain characters that formats quote.
  const line = `2026-11-01 00:00:00 server_1_1085355126_99999 "a",'b' 127.0.0.1 PUT client1 host.sh 99999999999999999999 0 0 456 -- ${EVIL}\n`;
  writeFileSync(locker.site.logFile, line + readFileSync(locker.site.logFile, 'latin1'));
});
after(() => locker.close());

async function index(...args: string[]): Promise<{ jobs: number; groups: number; read: number; removed: number }> {
  const { exitCode, text, stderr } = await locker.webjobctl('--json', 'index', ...args);
  assert.equal(exitCode, 0, stderr);
  assert.equal(stderr, '', 'not a word about experiments');
  return JSON.parse(text);
}

/** The path of the upload of a job, without an extension. */
function groupOf(jobId: string): string {
  const names = readdirSync(locker.site.incoming).filter((name) => name.endsWith('.rdy'));
  const ready = names
    .map((name) => join(locker.site.incoming, name))
    .find((path) => readFileSync(path, 'utf8') === `Jid=${jobId}\n`);
  assert.ok(ready, jobId);
  return ready.slice(0, -4);
}

async function collect(jobs: AsyncIterable<Job> | Iterable<Job>): Promise<Job[]> {
  const all: Job[] = [];
  for await (const job of jobs) all.push(job);
  return all;
}

/** How many uploads search would read. */
async function countCandidates(text: string): Promise<number> {
  return [...(await findCandidates(site(), [text]))].length;
}

/** Whether there is a complete store of this version and this site. */
async function isUsed(): Promise<boolean> {
  const store = await openKnownStore(site());
  store?.close();
  return store !== undefined;
}

describe('webjobctl index', () => {
  it('contains every job as the files show it', async () => {
    const done = await index();
    const expected = await collect(readFromFiles());
    assert.equal(done.jobs, expected.length);
    assert.deepEqual(await collect(readJobs(site())), expected);
    // Users who may read the locker and the logs may read it; nobody else may.
    assert.equal(statSync(database()).mode & 0o777, 0o644);
  });

  it('is updated by every reader, who reads only what is new', async () => {
    assert.equal((await index()).read, 0);
    const jobId = await locker.run({ clientId: 'client1', fileName: 'host.sh', out: `one more ${EVIL}\n` });
    const before = statSync(database(), { bigint: true }).mtimeNs;
    assert.equal((await locker.readJson<{ jobId: string }>('jobs')).filter((job) => job.jobId === jobId).length, 1);
    assert.ok(statSync(database(), { bigint: true }).mtimeNs > before, 'it was written');
    const after = await index();
    assert.deepEqual([after.read, after.removed], [1, 0]);
    assert.equal((await index()).read, 0);
  });

  it('is updated where a file replaces a directory', async () => {
    const its = makeLockerSite({ PutNameFormat: '%cid/%Y%m%d%H%M%S_%pid_%cmd' });
    try {
      const jobId = await its.run({ clientId: 'client1', fileName: 'host.sh' });
      assert.equal((await its.webjobctl('index')).exitCode, 0);
      const folder = join(its.site.incoming, 'client1');
      assert.ok(statSync(folder).isDirectory());
      rmSync(folder, { recursive: true });
      writeFileSync(folder, '');
      const { exitCode, text, stderr } = await its.webjobctl('--json', 'jobs', '--client', 'client1');
      assert.equal(exitCode, 0, stderr);
      const { jobId: found, state } = JSON.parse(text);
      assert.deepEqual([found, state], [jobId, 'missing']);
    } finally {
      its.close();
    }
  });

  it('finds where a text can be, whatever it contains', async () => {
    assert.equal(await countCandidates('kept'), 2);
    assert.equal(await countCandidates('nowhere at all'), 0);
    assert.equal(await countCandidates(EVIL), 1);
    assert.equal(await countCandidates('" OR "a'), 0);
    assert.equal(await countCandidates("'; DROP TABLE jobs"), 0);
    assert.equal(await countCandidates(`\x1b[2Jplain`), 1);
    assert.equal(await countCandidates('\ufffd31m'), 1, 'what is no UTF-8 is U+FFFD, as it is shown');
    assert.ok((await countCandidates('ke')) > 5, 'too short to be looked up');
  });

  it('changes nothing in the answers of jobs and search', async () => {
    const since = new Date(Date.now() - 3_600_000);
    for (const filter of [{}, { since }, { until: since }, { client: 'cl*2' }, { states: ['failed' as const] }])
      assert.deepEqual(await collect(readJobs(site(), filter)), await collect(readFromFiles(filter)));
    const answers = async (): Promise<string[]> => {
      const texts = ['kept', 'arrived', EVIL, '/k.pt/', '/^KEPT$/i', '/nowhere|arrived/', '/not (found|there)\\b/'];
      return Promise.all(texts.map(async (text) => (await locker.webjobctl('search', text)).text));
    };
    const fast = await answers();
    assert.ok(await isUsed());
    renameSync(database(), `${database()}.aside`);
    assert.ok(!(await isUsed()));
    assert.deepEqual(fast, await answers());
    renameSync(`${database()}.aside`, database());
  });

  it('is used by search for unchanged uploads, and changed or new ones are read', async () => {
    const search = async (text: string): Promise<string[]> =>
      (await locker.readJson<{ jobId: string }>('search', text, '--in', 'out')).map(({ jobId }) => jobId);
    const old = await locker.run({ clientId: 'client1', fileName: 'host.sh', out: 'an old straw\n' });
    const again = await locker.run({ clientId: 'client1', fileName: 'ps.sh', out: 'another straw\n' });
    await index();
    const young = await locker.run({ clientId: 'client1', fileName: 'host.sh', out: 'a young straw\n' });
    assert.deepEqual((await search('straw')).sort(), [old, again, young].sort());
    assert.deepEqual(await search('young straw'), [young]);
    assert.deepEqual(await search('needle in it'), []);
    // A replaced upload, as with OverwriteExistingFiles, gets another .rdy; otherwise a known
    // upload is not read again.
    const group = groupOf(again);
    writeFileSync(`${group}.out`, 'needle in it\n');
    assert.deepEqual(await search('needle in it'), [], 'it was passed over');
    writeFileSync(`${group}.new`, readFileSync(`${group}.rdy`));
    renameSync(`${group}.new`, `${group}.rdy`);
    await index();
    assert.deepEqual(await search('needle in it'), [again]);
    writeFileSync(`${group}.out`, 'another straw\n');
    writeFileSync(`${group}.new`, readFileSync(`${group}.rdy`));
    renameSync(`${group}.new`, `${group}.rdy`);
    await index();
  });

  it('does not treat a part of a stream as complete', async () => {
    await locker.run({ clientId: 'client1', fileName: 'host.sh', out: `${'x'.repeat(5000)}needle\n` });
    await index('--max-text', '4000');
    const found = new Set([...(await findCandidates(site(), ['needle']))].map(({ name }) => name));
    const names = (await collect(readFromFiles())).filter(
      ({ put }) => put?.status === 200 && (put.bytesReceived ?? 0) > 5000,
    );
    assert.ok(found.has(names[0]?.group?.name ?? ''));
    assert.equal((await index('--max-text', '4000')).read, 0);
    // With another limit every upload is read again, and only once.
    const { groups, read } = await index();
    assert.equal(read, groups);
    assert.equal((await index()).read, 0);
  });

  it('reads of incomplete uploads what the index does not cover, and no more', async () => {
    const name = 'client1_20040523163210_00999_host.sh';
    const path = join(locker.site.incoming, name);
    const isRead = async (text: string): Promise<boolean> =>
      [...(await findCandidates(site(), [text]))].some((upload) => upload.name === name);
    try {
      writeFileSync(`${path}.out`, 'the first straw that broke off\n');
      await index();
      assert.ok(await isRead('straw that broke off'));
      assert.ok(!(await isRead('no upload has this')));
      // While it is being written it is read for every text.
      writeFileSync(`${path}.lck`, '');
      // A directory that has just changed would be walked again.
      utimesSync(locker.site.incoming, 1e9, 1e9);
      await index();
      appendFileSync(`${path}.out`, 'a word that came later\n');
      assert.ok(await isRead('a word that came later'));
      rmSync(`${path}.lck`);
      await index('--max-text', '20');
      assert.ok(await isRead('no upload has this'), 'it is longer than what is indexed');
      await index();
      assert.ok(!(await isRead('no upload has this')));
    } finally {
      for (const extension of ['out', 'lck']) rmSync(`${path}.${extension}`, { force: true });
      await index();
    }
  });

  it('is rebuilt when it has another version, and not touched when another user owns it', async () => {
    const edit = new DatabaseSync(database());
    edit.exec('PRAGMA user_version = 99');
    edit.close();
    assert.ok(!(await isUsed()));
    assert.ok((await index()).read > 0);
    const other = join(locker.site.root, 'other.sqlite');
    const theirs = new DatabaseSync(other);
    theirs.exec('CREATE TABLE precious (a)');
    theirs.close();
    for (const file of [other, locker.site.logFile]) {
      const { exitCode, stderr } = await locker.webjobctl('index', '--database', file, '--rebuild');
      assert.equal(exitCode, 4);
      assert.match(stderr, /is not an index of webjobctl/);
      assert.ok(existsSync(file));
    }
  });

  it('is not used when it is damaged, which is reported', async () => {
    const bytes = Buffer.alloc(statSync(database()).size - 4096, 0x55);
    const { openSync, writeSync, closeSync } = await import('node:fs');
    const fd = openSync(database(), 'r+');
    writeSync(fd, bytes, 0, bytes.length, 4096);
    closeSync(fd);
    const { exitCode, stderr } = await locker.webjobctl('index');
    assert.equal(exitCode, 4);
    assert.match(stderr, /error: .*malformed/);
    assert.ok((await index('--rebuild')).jobs > 0);
  });

  it('can be killed at any moment', async () => {
    const expected = await collect(readFromFiles());
    const started = performance.now();
    await index('--rebuild');
    const life = performance.now() - started;
    for (let count = 0; count < 4; count++) {
      await runKilled(locker.site, ['index', '--rebuild'], life * (0.3 + 0.7 * Math.random()));
      assert.deepEqual(await collect(readJobs(site())), expected, 'whether it is whole or not');
    }
    await index();
    assert.deepEqual(await collect(readJobs(site())), expected);
    assert.equal(await countCandidates('kept'), 2);
  });

  it('has the fields that webjobctl(8) lists, as export does', () => {
    const section = readSection(readPage('webjobctl.8'), 'export', 'Ss').join('\n');
    for (const { name, column } of FIELDS) {
      const words = [column, name, column.replace(/^(?:get|put)_/, '_')];
      assert.ok(
        words.some((word) => section.split(/[\s,]+/).includes(word)),
        `${name} is not in the manual`,
      );
    }
  });
});

/** A parser for RFC 4180, independent of the writer. */
function parseCsv(text: string): string[][] {
  const rows: string[][] = [];
  const pattern = /("(?:[^"]|"")*"|[^,\r\n"]*)(,|\r\n)/gy;
  let row: string[] = [];
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    const [all, cell = '', separator] = found;
    row.push(cell.startsWith('"') ? cell.slice(1, -1).replaceAll('""', '"') : cell);
    if (separator === '\r\n') {
      rows.push(row);
      row = [];
    }
    end = found.index + all.length;
  }
  assert.equal(end, text.length, 'all of it is CSV');
  return rows;
}

describe('webjobctl export', () => {
  type Row = Record<string, string | number | null>;
  let lines: Record<string, unknown>[];
  let rows: Row[];
  /** A line of JSON in the form of a CSV or SQL row. */
  const flatten = (line: Record<string, unknown>): Row =>
    Object.fromEntries(
      FIELDS.map(({ name, column }) => {
        const [part = '', inner] = name.split('.');
        const outer = line[part] as Record<string, unknown> | null;
        const value = inner === undefined ? line[part] : (outer?.[inner] ?? null);
        return [column, (Array.isArray(value) ? value.join(' ') : value) as Row[string]];
      }),
    );
  before(async () => {
    lines = await locker.readJson('export');
    rows = lines.map(flatten);
  });

  it('writes the lines of jobs with --json, of every job', async () => {
    const jobs = await collect(readFromFiles());
    assert.deepEqual(
      rows.map((row) => [row.job_id, row.client, row.state]),
      jobs.map(({ jobId, clientId, state }) => [jobId ?? null, clientId ?? null, state]),
    );
    assert.deepEqual(lines, await locker.readJson('jobs'));
    assert.equal(rows.find(({ put_message: message }) => message === EVIL)?.put_user, `"a",'b'`);
    const { exitCode, text } = await locker.webjobctl('export', '--json', '--client', 'client2');
    assert.equal(exitCode, 0);
    assert.equal(text.trim().split('\n').length, rows.filter(({ client }) => client === 'client2').length);
  });

  it('writes RFC 4180 with --csv', async () => {
    const { text } = await locker.webjobctl('export', '--csv');
    const [head = [], ...cells] = parseCsv(text);
    assert.deepEqual(
      head,
      FIELDS.map(({ column }) => column),
    );
    assert.deepEqual(
      cells,
      rows.map((row) =>
        head.map((name) => (typeof row[name] === 'number' ? String(BigInt(row[name])) : (row[name] ?? ''))),
      ),
    );
  });

  it('disarms formulas with --csv --spreadsheet, and nothing else', async () => {
    const { text } = await locker.webjobctl('export', '--csv', '--spreadsheet');
    const cells = parseCsv(text).flat();
    assert.ok(cells.includes(`'${EVIL}`));
    assert.deepEqual(
      cells.filter((cell) => /^[=+\-@\t\r]/.test(cell)),
      [],
    );
  });

  it('reports a damaged index, and never half an answer as if it were complete', async () => {
    await index('--rebuild');
    const whole = readFileSync(database());
    const jobs = () => locker.webjobctl('--json', 'jobs');
    const expected = (await jobs()).text;
    const codes = new Set<number | null>();
    try {
      // The first pages, and every fourth of the others, beginning with another one in every run.
      const pages = Array.from({ length: whole.length / 4096 - 1 }, (_, index) => (index + 1) * 4096);
      const from = Math.floor(Math.random() * 4);
      for (const page of pages.filter((_, index) => index < 3 || index % 4 === from)) {
        writeFileSync(database(), Buffer.from(whole).fill(0xee, page, page + 4096));
        const { exitCode, text, stderr } = await jobs();
        codes.add(exitCode);
        if (exitCode === 0) assert.equal(text, expected, stderr);
        else assert.match(stderr, /^webjobctl: error: the index is damaged: .*\nwebjobctl: hint: .*--rebuild.*\n$/);
      }
    } finally {
      writeFileSync(database(), whole);
    }
    assert.ok([...codes].every((code) => code === 0 || code === 4));
    assert.ok(codes.has(0), 'the files answer where the damage is found in time');
  });

  it('writes to no file of another user, and follows no journal of theirs', {
    skip: process.geteuid?.() !== 0,
  }, async () => {
    const folder = join(locker.site.root, 'shared');
    mkdirSync(folder);
    chmodSync(folder, 0o1777);
    const path = join(folder, 'webjob.sqlite');
    for (const planted of [path, `${path}-journal`, `${path}-wal`]) {
      writeFileSync(planted, '');
      chownSync(planted, 65_534, 65_534);
      const { exitCode, stderr } = await locker.webjobctl('index', '--database', path);
      assert.equal(exitCode, 4);
      assert.match(stderr, /webjob\.sqlite(?:-journal|-wal)? belongs to another user\n/);
      assert.equal(statSync(planted).size, 0);
      rmSync(planted);
    }
    await index('--database', path);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    for (const suffix of ['-journal', '-wal', '-shm']) {
      const planted = database() + suffix;
      writeFileSync(planted, '');
      chownSync(planted, 65_534, 65_534);
      const { exitCode, stderr } = await locker.webjobctl('jobs');
      rmSync(planted);
      assert.equal(exitCode, 4, suffix);
      assert.match(stderr, new RegExp(`webjob\\.sqlite${suffix} belongs to another user\n`));
    }
    assert.equal((await locker.webjobctl('jobs')).exitCode, 0);
  });

  it('writes statements with --sql that load every value unchanged', async () => {
    const { text } = await locker.webjobctl('export', '--sql', '--table', 'my_jobs');
    assert.match(text, /^SET standard_conforming_strings = on;\nSET client_encoding = 'UTF8';\nBEGIN;\n/);
    const sqlite = new DatabaseSync(':memory:');
    // It can be loaded repeatedly.
    for (let load = 0; load < 2; load++) sqlite.exec(text.replace(/^SET .*\n/gm, ''));
    const loaded = sqlite.prepare('SELECT * FROM my_jobs').all();
    assert.deepEqual(
      loaded.map((row) => ({ ...row })),
      rows,
    );
    sqlite.close();
  });

  for (const args of [[], ['--csv', '--sql'], ['--sql', '--spreadsheet'], ['--sql', '--table', 'a"b']]) {
    it(`refuses ${args.join(' ') || 'to guess a format'}`, async () => {
      const { exitCode, stderr } = await locker.webjobctl('export', ...args);
      assert.equal(exitCode, 2, stderr);
    });
  }

  it('ends with 4 where there is no log', async () => {
    const empty = makeLockerSite();
    try {
      mkdirSync(join(empty.site.root, 'none'));
      writeFileSync(empty.site.propertiesFile, `BaseDirectory=${join(empty.site.root, 'none')}\n`);
      const { exitCode, stderr } = await empty.webjobctl('export', '--csv');
      assert.equal(exitCode, 4);
      assert.match(stderr, /^webjobctl: error: /);
    } finally {
      empty.close();
    }
  });
});
