// The parts of the view without a server: pages of a list compared with the whole list, parts of
// a stream, URLs, and sums of days.
import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import fs, {
  appendFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { basename, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { requestFromEnv } from 'node-cgi-compat';
import { findGroup } from 'webjob-locker';
import { formatTime } from 'webjob-protocol';
import { type ActRequest, formatRequest, makeActId } from '../../admin/acts/request.ts';
import { readSite } from '../../admin/site/site.ts';
import type { Job } from '../../ledger/job.ts';
import {
  findEarlier,
  makeScanIndexes,
  newestOfEach,
  SCAN_ORDERS,
  type ScanFilter,
  type ScanKey,
  type ScanOrder,
  scanJobs,
  sumSpan,
} from '../../ledger/scan.ts';
import { TABLES } from '../../ledger/schema.ts';
import { openDatabase } from '../../ledger/sqlite.ts';
import { fillStore, openStoreAt, type Store } from '../../ledger/store.ts';
import type { StoredStream } from '../../ledger/streams.ts';
import { configure, makeSite } from '../../scripts/site.ts';
import { makeToken, openToken, readForm, requireActor, requireSameOrigin, sendRequest } from '../../view/acting.ts';
import { noteChanges, readChanges } from '../../view/changes.ts';
import { clientJson } from '../../view/client.ts';
import { commandJson } from '../../view/command.ts';
import { formatKey, makeContext, NotShown, parseKey } from '../../view/context.ts';
import { dayStart } from '../../view/days.ts';
import { digestOutputs } from '../../view/digests.ts';
import { failuresFeed } from '../../view/feed.ts';
import { asFormat, makeLinks } from '../../view/links.ts';
import type { ActPlace } from '../../view/place.ts';
import { formatStretch, readStretch } from '../../view/stretch.ts';
import { countOf, groupDigits } from '../../view/words.ts';

const own = makeSite();
const site = (() => {
  configure(own, { UseGMT: 'Y' });
  return readSite(own.propertiesFile);
})();
const path = join(own.root, 'own', 'webjob.sqlite');
let store: Store;

/** Many jobs of one second, some of each client, command and state. */
function makeLog(): string {
  const lines: string[] = [];
  for (let index = 0; index < 120; index++) {
    const at = `2026-11-${String(1 + Math.floor(index / 40)).padStart(2, '0')} 10:00:${String(Math.floor((index % 40) / 8)).padStart(2, '0')}`;
    const [client, command] = [`c${index % 5}`, `${['a', 'b', 'c'][index % 3]}.sh`];
    const id = `server_1_${1793527200 + index}_${index}`;
    const [method, status, message] = index % 4 === 0 ? ['GET', 404, 'Not Found'] : ['PUT', 200, 'Success'];
    lines.push(`${at} ${id} ${client} 127.0.0.1 ${method} ${client} ${command} ${index} 0 0 ${status} -- ${message}\n`);
  }
  return lines.join('');
}

before(async () => {
  writeFileSync(own.logFile, makeLog());
  (await fillStore(path, site, { maxText: 1000 })).close();
  const opened = await openStoreAt(path, site);
  assert.ok(opened);
  store = opened;
  makeScanIndexes(store.database);
});
after(() => {
  store?.close();
  own.remove();
});

const idOf = ({ jobId }: Job): string => jobId ?? '';

/** A whole list, page after page. */
function readPages(filter: ScanFilter, order: ScanOrder, rows: number): string[] {
  const ids: string[] = [];
  for (let after: ScanKey | undefined, isEnd = false; !isEnd; ) {
    let found = 0;
    isEnd = true;
    for (const { key, job } of scanJobs(store.database, site, filter, order, after)) {
      if (!job) continue;
      if (found === rows) {
        isEnd = false;
        break;
      }
      ids.push(idOf(job));
      found++;
      after = parseKey(formatKey(key));
    }
    assert.ok(ids.length < 1000, 'the pages do not end');
  }
  return ids;
}

describe('pages of jobs', () => {
  const all = (filter: ScanFilter = {}, order: ScanOrder = 'time'): Job[] =>
    [...scanJobs(store.database, site, filter, order)].flatMap(({ job }) => job ?? []);

  for (const order of SCAN_ORDERS)
    it(`have every job once, in the order ${order}, even many from one second`, () => {
      const whole = all({}, order).map(idOf);
      assert.equal(new Set(whole).size, 120);
      for (const rows of [1, 7, 50, 1000]) assert.deepEqual(readPages({}, order, rows), whole);
    });

  it('are in their order', () => {
    const times = (jobs: readonly Job[]): number[] => jobs.map(({ at }) => at.getTime());
    assert.deepEqual(
      times(all()),
      times(all()).toSorted((a, b) => b - a),
    );
    assert.deepEqual(times(all({}, 'oldest')), times(all()).toReversed());
    for (const order of ['client', 'command', 'state'] as const) {
      const name = (job: Job): string =>
        (order === 'client' ? job.clientId : order === 'state' ? job.state : job.command) ?? '';
      const expected = all().toSorted((a, b) =>
        name(a) === name(b) ? b.at.getTime() - a.at.getTime() : name(a) < name(b) ? -1 : 1,
      );
      const key = (job: Job): string => `${name(job)} ${job.at.toISOString()}`;
      assert.deepEqual(all({}, order).map(key), expected.map(key));
    }
  });

  it('contain what a filter asks for, whichever index answers it', () => {
    const filters: [ScanFilter, (job: Job) => boolean][] = [
      [{ client: 'c1' }, ({ clientId }) => clientId === 'c1'],
      [{ client: 'c[1]' }, () => false],
      [{ client: 'c[1]*' }, () => false],
      [{ client: 'c?', command: 'a*' }, ({ command }) => command === 'a.sh'],
      [{ client: 'c1', command: 'a.sh' }, ({ clientId, command }) => clientId === 'c1' && command === 'a.sh'],
      [{ states: ['refused'] }, ({ state }) => state === 'refused'],
      [
        { states: ['refused', 'done'], client: 'c2' },
        ({ state, clientId }) => state === 'refused' && clientId === 'c2',
      ],
      [{ exitCode: 0 }, ({ exitCode }) => exitCode === 0],
      [{ since: new Date('2026-11-02T10:00:02Z') }, ({ at }) => at >= new Date('2026-11-02T10:00:02Z')],
      [{ until: new Date('2026-11-02T10:00:02Z') }, ({ at }) => at <= new Date('2026-11-02T10:00:02Z')],
    ];
    for (const [filter, isWanted] of filters)
      for (const order of SCAN_ORDERS) {
        const expected = all({}, order).filter(isWanted).map(idOf);
        assert.deepEqual(readPages(filter, order, 4).sort(), expected.sort(), `${JSON.stringify(filter)} ${order}`);
      }
  });

  it('contain only the given units, few or many', () => {
    const units = all().map(idOf).slice(10, 20);
    const many = [...units, ...Array.from({ length: 1000 }, (_, index) => `none_${index}`)];
    for (const asked of [units, many, []])
      for (const order of SCAN_ORDERS)
        assert.deepEqual(
          readPages({ units: asked }, order, 4),
          all({}, order)
            .map(idOf)
            .filter((id) => asked.includes(id)),
        );
  });

  it('are the same however many rows are read between two pauses', () => {
    for (const filter of [
      {},
      { client: 'c?', command: 'a*' },
      { client: 'c1', exitCode: 3 },
      { states: ['missing'] as const },
    ])
      for (const order of SCAN_ORDERS)
        for (const rows of [1, 7, 24, 120]) {
          const found = [...scanJobs(store.database, site, filter, order, undefined, rows)];
          assert.deepEqual(
            found.flatMap(({ job }) => (job ? idOf(job) : [])),
            all(filter, order).map(idOf),
          );
          // A rare value according to an index is read at once.
          if (rows === 1 && !('exitCode' in filter)) assert.ok(found.some(({ job }) => !job));
        }
  });

  it('begin only at places that the view made', () => {
    for (const text of ['x', formatKey(['a', 'b', 1.5 as number]), Buffer.from('[1,2,3]').toString('base64url')])
      assert.throws(() => parseKey(text), NotShown);
  });
});

describe('the sums of a period', () => {
  it('are those of its jobs, its end excluded', () => {
    const day = sumSpan(store.database, new Date('2026-11-02T00:00:00Z'), new Date('2026-11-03T00:00:00Z'));
    assert.deepEqual(Object.fromEntries(day.states), { missing: 30, refused: 10 });
    const indexes = Array.from({ length: 40 }, (_, index) => 40 + index).filter((index) => index % 4 !== 0);
    assert.equal(
      day.bytes,
      indexes.reduce((sum, index) => sum + index, 0),
    );
    const first = new Date('2026-11-02T10:00:00Z');
    assert.equal(sumSpan(store.database, first, first).states.size, 0);
    assert.equal(sumSpan(store.database, new Date('2026-11-01T10:00:04Z'), first).states.get('missing'), 6);
  });

  it('follow jobs that come, change and go, by whole hours and parts of them', async () => {
    const folder = makeSite();
    configure(folder, { UseGMT: 'Y' });
    const changing = readSite(folder.propertiesFile);
    const file = join(folder.root, 'own', 'webjob.sqlite');
    const line = (id: number, minute: number, method: string, status: number): string => {
      const time = new Date(Date.UTC(2026, 10, 1, 0, minute)).toISOString();
      const at = `${time.slice(0, 10)} ${time.slice(11, 19)}`;
      return `${at} server_1_1793491200_${id} c1 127.0.0.1 ${method} c1 a.sh ${id} 0 0 ${status} -- x\n`;
    };
    const check = async (): Promise<number> => {
      const opened = await openStoreAt(file, changing);
      assert.ok(opened);
      const { database } = opened;
      makeScanIndexes(database);
      const rows = database.prepare('SELECT at, state, put_bytes_received AS bytes FROM jobs').all();
      for (let start = -30; start < 400; start += 25)
        for (const minutes of [0, 20, 60, 61, 119, 120, 240, 500]) {
          const [since, until] = [start, start + minutes].map((minute) => new Date(Date.UTC(2026, 10, 1, 0, minute)));
          assert.ok(since && until);
          const own = rows.filter(({ at }) => String(at) >= since.toISOString() && String(at) < until.toISOString());
          const counts: Record<string, number> = {};
          for (const { state } of own) counts[String(state)] = (counts[String(state)] ?? 0) + 1;
          const bytes = own.reduce((sum, { state, bytes }) => sum + (state === 'refused' ? 0 : Number(bytes)), 0);
          const sums = sumSpan(database, since, until);
          assert.deepEqual([Object.fromEntries(sums.states), sums.bytes], [counts, bytes], `${start} ${minutes}`);
        }
      opened.close();
      return rows.length;
    };
    try {
      writeFileSync(folder.logFile, Array.from({ length: 30 }, (_, id) => line(id, 13 * id, 'GET', 200)).join(''));
      (await fillStore(file, changing, { maxText: 1000 })).close();
      assert.equal(await check(), 30);
      const puts = Array.from({ length: 60 }, (_, id) => line(id, 7 * id, 'PUT', id % 5 === 0 ? 455 : 200));
      appendFileSync(folder.logFile, puts.join(''));
      assert.equal(await check(), 60);
      // Another log: the lines of the first are gone.
      rmSync(folder.logFile);
      writeFileSync(folder.logFile, line(1, 5, 'GET', 404));
      assert.equal(await check(), 1);
    } finally {
      folder.remove();
    }
  });

  it('exclude the bytes of an incomplete upload, which is in the feed of failures', async () => {
    const other = makeSite();
    configure(other, { UseGMT: 'Y' });
    const line = 'c1 127.0.0.1 PUT c1 a.sh 500 0 0 456 -- Content-Length Mismatch';
    writeFileSync(other.logFile, `2026-11-02 10:00:00 server_1_1793527200_00001 ${line}\n`);
    writeFileSync(join(other.incoming, 'c1_20261102100000_00001_a.sh.out'), 'half');
    const filled = await fillStore(join(other.root, 'webjob.sqlite'), readSite(other.propertiesFile), {});
    try {
      makeScanIndexes(filled.database);
      const day = sumSpan(filled.database, new Date('2026-11-02T00:00:00Z'), new Date('2026-11-03T00:00:00Z'));
      assert.deepEqual([Object.fromEntries(day.states), day.bytes], [{ incomplete: 1 }, 0]);
      const place = { site: readSite(other.propertiesFile), acts: undefined };
      const context = makeContext(place, filled.database, '', new URLSearchParams());
      assert.match(failuresFeed(context, 'https://example.org'), /<entry><title>a\.sh on c1: /);
    } finally {
      filled.close();
      other.remove();
    }
  });

  it('have days that begin at midnight of the displayed time zone', () => {
    const now = new Date('2026-11-30T12:34:56Z');
    assert.equal(dayStart(now, true, 0).toISOString(), '2026-11-30T00:00:00.000Z');
    assert.equal(dayStart(now, true, 30).toISOString(), '2026-10-31T00:00:00.000Z');
    const zone = process.env.TZ;
    process.env.TZ = 'Asia/Kolkata';
    assert.equal(dayStart(now, false, 0).toISOString(), '2026-11-29T18:30:00.000Z');
    assert.equal(dayStart(now, false, 30).toISOString(), '2026-10-30T18:30:00.000Z');
    assert.equal(dayStart(now, true, 0).toISOString(), '2026-11-30T00:00:00.000Z');
    if (zone === undefined) delete process.env.TZ;
    else process.env.TZ = zone;
  });
});

it('the newest results exclude jobs without output', () => {
  assert.deepEqual(newestOfEach(store.database, site, { command: 'a.sh' }, { limit: 10 }), []);
  const [job] = [...scanJobs(store.database, site, {}, 'time')].flatMap(({ job: one }) => one ?? []);
  assert.ok(job);
  assert.equal(findEarlier(store.database, site, job), undefined);
});

it('a client page shows an output that changed, even when the GET of its job was read before the PUT', async () => {
  const other = makeSite();
  configure(other, { UseGMT: 'Y' });
  const [its, file, begin] = [readSite(other.propertiesFile), join(other.root, 'webjob.sqlite'), Date.now() - 60_000];
  const at = (number: number): string => formatTime(new Date(begin + number * 1000), true);
  const idAt = (number: number): string => `server_1_${Math.floor(begin / 1000)}_0000${number}`;
  const log = (method: string, number: number): void =>
    appendFileSync(
      other.logFile,
      `${at(number)} ${idAt(number)} c1 127.0.0.1 ${method} c1 a.sh 9 0 0 200 -- Success\n`,
    );
  const upload = (number: number): void => {
    log('PUT', number);
    const base = join(other.incoming, `c1_${at(number).replace(/\D/g, '')}_00001_a.sh`);
    const contents = { out: `output ${number}`, err: '', env: 'KidStatus=0\n', rdy: `Jid=${idAt(number)}\n` };
    for (const [extension, text] of Object.entries(contents)) writeFileSync(`${base}.${extension}`, text);
  };
  const look = async (): Promise<string[]> => {
    const opened = await openStoreAt(file, its);
    assert.ok(opened);
    try {
      await noteChanges(opened.database, its);
      return readChanges(opened.database, new Date(0), 10).changes.map(({ earlier, job }) => `${earlier} ${job}`);
    } finally {
      opened.close();
    }
  };
  // A pass that takes long leaves the rest to the next one.
  const countAll = async (): Promise<number> => {
    for (let looks = 0; looks < 5; looks += 1) await look();
    return (await look()).length;
  };
  try {
    log('GET', 1);
    upload(1);
    (await fillStore(file, its, {})).close();
    assert.deepEqual(await look(), []);
    log('GET', 2);
    assert.deepEqual(await look(), []);
    upload(2);
    assert.deepEqual(await look(), [`${idAt(1)} ${idAt(2)}`]);
    // Several jobs that were seen before their ends, and one whose row was the last and is gone.
    for (const number of [3, 4, 5]) log('GET', number);
    await look();
    for (const number of [3, 4, 5]) upload(number);
    assert.equal(await countAll(), 4);
    log('GET', 6);
    await look();
    const text = readFileSync(other.logFile, 'utf8');
    writeFileSync(other.logFile, text.split('\n').slice(0, -2).join('\n').concat('\n'));
    await look();
    log('GET', 7);
    upload(7);
    assert.equal(await countAll(), 5);
    const opened = await openStoreAt(file, its);
    assert.ok(opened);
    makeScanIndexes(opened.database);
    const context = makeContext({ site: its, acts: undefined }, opened.database, '', new URLSearchParams());
    const { newest } = (await clientJson(context, 'c1')) as { newest: { changed: boolean }[] };
    opened.close();
    assert.deepEqual(
      newest.map(({ changed }) => changed),
      [true],
    );
  } finally {
    other.remove();
  }
});

it('the second page of a command continues with its next client', async () => {
  const other = makeSite();
  writeFileSync(other.logFile, '');
  const clients = Array.from({ length: 501 }, (_, index) => `c${String(index).padStart(3, '0')}`);
  for (const client of clients) {
    const base = join(other.incoming, `${client}_20261102100000_00001_a.sh`);
    writeFileSync(`${base}.env`, 'KidStatus=0\n');
    writeFileSync(`${base}.rdy`, `Jid=${client}\n`);
  }
  const site = readSite(other.propertiesFile);
  const filled = await fillStore(join(other.root, 'webjob.sqlite'), site, {});
  try {
    makeScanIndexes(filled.database);
    const found: string[] = [];
    for (let query: string | undefined = ''; query !== undefined; ) {
      const context = makeContext({ site, acts: undefined }, filled.database, '', new URLSearchParams(query));
      const page = (await commandJson(context, 'a.sh')) as { groups: { newest: { client: string }[] }[]; next: string };
      found.push(...page.groups.flatMap(({ newest }) => newest.map(({ client }) => client)));
      query = page.next?.split('?')[1];
    }
    assert.deepEqual(found.sort(), clients);
  } finally {
    filled.close();
    other.remove();
  }
});

describe('a part of a stream', () => {
  const streamOf = (bytes: Buffer): StoredStream => ({
    bytes: bytes.length,
    open: undefined,
    async *read() {
      for (let at = 0; at < bytes.length; at += 1000) yield bytes.subarray(at, at + 1000);
    },
  });
  const later = (): number => performance.now() + 10_000;
  const wish = { stream: 'out', at: 0, as: undefined, find: undefined } as const;

  it('begins and ends between characters', async () => {
    const text = streamOf(Buffer.from('\u20ac'.repeat(20_000)));
    const { bytes, from, as } = await readStretch(text, { ...wish, at: 3001 }, later());
    assert.deepEqual([from, as, bytes.toString().replaceAll('\u20ac', '')], [3003, 'text', '']);
    const last = await readStretch(text, { ...wish, at: 'last' }, later());
    assert.equal(last.from + last.bytes.length, 60_000);
    assert.ok(last.bytes.length > 16_000);
  });

  it('is a hexadecimal dump of whole rows where there are no characters', async () => {
    const { bytes, from, as } = await readStretch(streamOf(Buffer.alloc(10_000)), { ...wish, at: 5001 }, later());
    assert.deepEqual([from, as, bytes.length], [4992, 'hex', 4096]);
  });

  it('contains a text, even across pieces', async () => {
    const at = 256 * 1024 - 3;
    const text = streamOf(Buffer.concat([Buffer.alloc(at, 'x'), Buffer.from('needle'), Buffer.alloc(1000, 'y')]));
    const found = await readStretch(text, { ...wish, find: 'needle' }, later());
    assert.deepEqual([found.found, found.from, found.bytes.includes('needle')], ['found', at - 512, true]);
    const none = await readStretch(text, { ...wish, find: 'needle', at: at + 1 }, later());
    assert.equal(none.found, 'not found');
    const late = await readStretch(text, { ...wish, find: 'nowhere' }, 0);
    assert.deepEqual([late.found, late.from], ['not yet found', 256 * 1024]);
  });
});

it('a part of a stream leads to the one before it, and never before the first byte', () => {
  const stretch = {
    stream: 'out',
    bytes: Buffer.alloc(10),
    size: 100,
    as: 'text',
    find: undefined,
    found: undefined,
  } as const;
  const places = (from: number): string[] => {
    const { text } = formatStretch('out', { ...stretch, from }, ({ pos }) => `/${pos}`);
    return [...text.matchAll(/href="\/([^"]*)">(First|Previous|Next|Last)</g)].map(
      ([, pos, words]) => `${words} ${pos}`,
    );
  };
  assert.deepEqual(places(0), ['Next 10', 'Last last']);
  assert.deepEqual(places(5), ['First 0', 'Previous 0', 'Next 15', 'Last last']);
  assert.deepEqual(places(90), ['First 0', 'Previous 0']);
});

it('a request to act is on disk before its name, and its name before the reader is told', () => {
  const inbox = join(own.root, 'inbox');
  mkdirSync(inbox);
  const steps: string[] = [];
  const { fsyncSync, renameSync } = fs;
  fs.fsyncSync = (fd) => {
    steps.push(`fsync ${basename(readlinkSync(`/proc/self/fd/${fd}`)).replace(/^\..*\.new$/, 'request')}`);
    fsyncSync(fd);
  };
  fs.renameSync = (from, to) => {
    steps.push('rename');
    renameSync(from, to);
  };
  syncBuiltinESMExports();
  try {
    const facts = { job: 'server_1_1793527200_0', client: 'c', user: 'anna', text: undefined, stream: undefined };
    const request = { act: 'verify', assignment: undefined, ...facts } as unknown as ActRequest;
    sendRequest({ inbox } as ActPlace, makeActId('x', Date.now()), request);
  } finally {
    Object.assign(fs, { fsyncSync, renameSync });
    syncBuiltinESMExports();
  }
  assert.deepEqual(steps, ['fsync request', 'rename', 'fsync inbox']);
  assert.equal(readdirSync(inbox).length, 1);
});

describe('a URL of the view', () => {
  const links = makeLinks('/v');
  const job = (facts: Partial<Job>): Job =>
    ({ at: new Date('2026-11-01T00:00:00Z'), clientId: 'c', command: 'x.sh', ...facts }) as Job;

  it('has only path characters in its path, and the rest in its query', () => {
    assert.equal(links.client('web-1'), '/v/client/web-1');
    assert.equal(links.command('report.json'), '/v/command/report.json.html');
    assert.equal(links.command('..'), '/v/command/-?name=..');
    assert.equal(links.job(job({ jobId: 'a/../b' }), { s: 'out' }), '/v/job/-?name=a%2F..%2Fb&s=out');
    assert.equal(
      links.job(job({ jobId: undefined })),
      '/v/job/-?at=2026-11-01T00%3A00%3A00.000Z&client=c&command=x.sh',
    );
    assert.equal(links.stream(job({ jobId: 'j_1' }), 'err'), '/v/stream/err/j_1');
  });

  it('is the same for a program beside the view', () => {
    assert.equal(asFormat('/v/job/j_1', 'json'), '/v/job/j_1.json');
    assert.equal(asFormat('/v/command/report.json.html', 'json'), '/v/command/report.json.json');
    assert.equal(asFormat('/v/job/-?name=a', 'json'), '/v/job/-.json?name=a');
  });
});

it('numbers have grouped digits, and counts have nouns', () => {
  assert.deepEqual([0, 999, 1000, 1_234_567].map(groupDigits), ['0', '999', '1,000', '1,234,567']);
  assert.deepEqual([countOf(1, 'job'), countOf(2000, 'job')], ['1 job', '2,000 jobs']);
});

describe('a form', () => {
  const place = { inbox: '', answers: '', secret: join(own.root, 'acts.secret') };
  const purpose = { user: 'alice', act: 'note', subject: 'server_1_1085355126_00723' } as const;
  const isRefused = (act: () => unknown, message: RegExp, status = 403): void =>
    assert.throws(act, (error) => {
      assert.ok(error instanceof NotShown);
      assert.deepEqual([error.status, message.test(error.message)], [status, true], error.message);
      return true;
    });

  it('is for the group where httpd names it, and nowhere else', () => {
    const actor = (env: Record<string, string>): string => requireActor(requestFromEnv(env));
    assert.equal(actor({ WEBJOB_VIEW_ACTOR: 'yes', REMOTE_USER: 'alice' }), 'alice');
    for (const env of [
      { REMOTE_USER: 'alice' },
      { WEBJOB_VIEW_ACTOR: 'yes' },
      { HTTP_WEBJOB_VIEW_ACTOR: 'yes', REMOTE_USER: 'alice' },
      { WEBJOB_VIEW_ACTOR: '', REMOTE_USER: 'alice' },
    ])
      isRefused(() => actor(env), /^You may not act: you are not in the group that webjob-view\.conf names\.$/);
  });

  it('is accepted only from a page of this site', () => {
    const check = (origin?: string, site?: string): void =>
      requireSameOrigin(
        requestFromEnv({
          HTTP_HOST: 'server:8443',
          ...(origin !== undefined && { HTTP_ORIGIN: origin }),
          ...(site !== undefined && { HTTP_SEC_FETCH_SITE: site }),
        }),
      );
    check('https://server:8443', 'same-origin');
    check('https://server:8443');
    // Behind a proxy that ends TLS.
    check('http://server:8443', 'same-origin');
    const elsewhere = /^This form was sent from another site\.$/;
    for (const [origin, site] of [
      ['https://server:8443', 'same-site'],
      ['https://server:8443', 'none'],
      ['https://server:8443', ''],
      ['https://server', 'same-origin'],
      ['https://server:8443.evil.example'],
      ['null', 'same-origin'],
      [undefined, 'same-origin'],
      [],
    ])
      isRefused(() => check(origin, site), elsewhere);
    isRefused(() => requireSameOrigin(requestFromEnv({ HTTP_ORIGIN: 'https://server' })), elsewhere);
  });

  it('has a token for one reader, act and job, valid for eight hours in this view', () => {
    const now = Date.now();
    const token = makeToken(place, purpose, now);
    assert.equal(openToken(place, purpose, token, now + 7.9 * 3_600_000), token.split('.')[0]);
    assert.notEqual(makeToken(place, purpose, now), token);
    const [old, foreign] = [/^This form is too old: load its page again\.$/, /^This form was not made for you\.$/];
    isRefused(() => openToken(place, purpose, token, now + 8.1 * 3_600_000), old);
    for (const change of [{ user: 'bob' }, { act: 'hold' }, { subject: 'server_1_1085355126_00724' }] as const)
      isRefused(() => openToken(place, { ...purpose, ...change }, token), foreign);
    const later = `${String(now + 1).padStart(13, '0')}${token.slice(13)}`;
    for (const bad of ['', '.', 'x', token.slice(1), `${token}0`, token.toUpperCase(), later])
      isRefused(() => openToken(place, purpose, bad), foreign);
    isRefused(() => openToken({ ...place, secret: `${place.secret}2` }, purpose, token), foreign);
  });

  it('is signed with a secret that nobody else reads, made again when it is damaged', () => {
    const secret = join(own.root, 'other.secret');
    const openAnew = (path: string): string => openToken({ ...place, secret: path }, purpose, token);
    const token = makeToken({ ...place, secret }, purpose);
    const found = statSync(secret);
    assert.deepEqual([found.mode & 0o777, found.size], [0o600, 32]);
    // Another process reads what is there; two paths are two files for this one.
    const copy = `${secret}.copy`;
    writeFileSync(copy, readFileSync(secret));
    assert.equal(openAnew(copy), token.split('.')[0]);
    const short = `${secret}.short`;
    writeFileSync(short, readFileSync(secret).subarray(0, 31));
    isRefused(() => openAnew(short), /^This form was not made for you\.$/);
    assert.equal(statSync(short).size, 32);
  });

  it('is refused where two hundred acts wait, and no earlier', () => {
    const inbox = join(own.root, 'waiting');
    mkdirSync(inbox);
    const facts = { job: 'server_1_1793527200_0', client: 'c', user: 'anna', text: undefined, stream: undefined };
    const send = (): void => sendRequest({ ...place, inbox }, makeActId('x', Date.now()), { act: 'verify', ...facts });
    for (let count = 0; count < 199; count++) writeFileSync(join(inbox, `${count}`), '');
    send();
    isRefused(send, /^Too many acts are waiting: webjobctl acts does not seem to run\.$/);
    const names = readdirSync(inbox);
    assert.equal(names.length, 200);
    const [request = ''] = names.filter((name) => name.endsWith('.json'));
    assert.equal(statSync(join(inbox, request)).mode & 0o777, 0o600);
    assert.equal(readFileSync(join(inbox, request), 'utf8'), formatRequest({ act: 'verify', ...facts }));
  });

  it('has room for its longest text, and no more', () => {
    const read = (text: string, type = 'application/x-www-form-urlencoded'): URLSearchParams => {
      let rest = Buffer.from(text);
      return readForm(requestFromEnv({ CONTENT_TYPE: type }), {
        read: (buffer) => {
          const count = rest.copy(buffer, 0, 0, Math.min(7000, buffer.length));
          rest = rest.subarray(count);
          return count;
        },
      });
    };
    const text = '\u{1f600}'.repeat(1000);
    assert.equal(read(`act=note&text=${encodeURIComponent(text)}`).get('text'), text);
    assert.equal(read('a=b', 'application/x-www-form-urlencoded; charset=UTF-8').get('a'), 'b');
    isRefused(() => read(`text=${'x'.repeat(20_000)}`), /^This form is too long\.$/, 400);
    assert.equal(read(`text=${'x'.repeat(16 * 1024 - 5)}`).get('text')?.length, 16 * 1024 - 5);
    isRefused(() => read(`text=${'x'.repeat(16 * 1024 - 4)}`), /^This form is too long\.$/, 400);
    isRefused(() => read('a=b', 'multipart/form-data; boundary=x'), /^This is not a form of the view\.$/, 400);
    isRefused(() => read('a=b', ''), /^This is not a form of the view\.$/, 400);
  });
});

describe('the output of a job', () => {
  it('is computed once, and again when the upload was replaced', async () => {
    const { incomingDirectory: locker } = site.settings;
    const database = openDatabase(':memory:', false);
    database.exec(TABLES);
    const stamp = database.prepare(
      "INSERT OR REPLACE INTO uploads (name, place, folder, unit, facts, has, stamp, bytes) VALUES ('r', '', '.', 'r', '', 0, ?, 1)",
    );
    const read = async (text: string): Promise<boolean> => {
      writeFileSync(join(locker, 'r.out'), text);
      const group = findGroup(locker, 'r');
      const context = { database, site, deadline: Number.POSITIVE_INFINITY };
      const [output] = await digestOutputs(context, [{ group } as Job]);
      return typeof output === 'object' && output.sha256 === hash('sha256', text);
    };
    stamp.run('first');
    writeFileSync(join(locker, 'r.rdy'), '');
    assert.ok(await read('a'));
    assert.ok(!(await read('b')), 'its stamp is the same');
    stamp.run('second');
    assert.ok(await read('b'));
    database.close();
    for (const extension of ['out', 'rdy']) rmSync(join(locker, `r.${extension}`));
  });
});
