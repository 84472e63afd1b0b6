// Pages of the view where there is more than one of everything: silent clients, changed results,
// jobs of one id, jobs that started others, and streams that are empty or long; without a server.
import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { readSite } from '../../admin/site/site.ts';
import type { Job } from '../../ledger/job.ts';
import { makeScanIndexes } from '../../ledger/scan.ts';
import { fillStore, type Store } from '../../ledger/store.ts';
import { configure, makeSite } from '../../scripts/site.ts';
import { noteChanges } from '../../view/changes.ts';
import { type Context, makeContext, NotShown } from '../../view/context.ts';
import { digestOutputs } from '../../view/digests.ts';
import { findStream, jobDetails, jobPage } from '../../view/job.ts';
import { overviewJson, overviewPage } from '../../view/overview.ts';
import { makeTextSearch } from '../../view/texts.ts';
import { formatTimeline } from '../../view/timeline.ts';
import { type PastJob, type Planted, plantPast } from '../support/past-site.ts';

const HOUR = 3_600_000;
const now = Date.now();
const own = makeSite();
configure(own, { UseGMT: 'Y' });
const site = readSite(own.propertiesFile);
const ids = new Map<string, Planted>();
let store: Pick<Store, 'database' | 'close'>;

function plant(name: string, hours: number, job: Omit<PastJob, 'at'>): void {
  for (const one of plantPast(own, 'UTC', [{ at: new Date(now - hours * HOUR), ...job }])) ids.set(name, one);
}
const idOf = (name: string): string => ids.get(name)?.jobId ?? assert.fail(name);

before(async () => {
  for (let index = 1; index <= 6; index++) plant(`s${index}`, 24 * (9 - index), { clientId: `s${index}` });
  for (let index = 1; index <= 4; index++)
    for (const [name, hours, out] of [
      ['before', 9, 'one\n'],
      ['after', 8, 'two\n'],
    ] as const)
      plant(`${name}-${index}`, hours, { clientId: `k${index}`, command: 'a.sh', out });
  plant('parent', 3, { clientId: 'k1', command: 'parent.sh' });
  plant('child', 2, { clientId: 'k1', command: 'child.sh', out: 'needle 1\nneedle 2\nneedle 3\n' });
  appendFileSync(join(own.incoming, `${ids.get('child')?.name}.env`), `OuterJid=${idOf('parent')}\n`);
  plant('large', 1, { clientId: 'k2', command: 'large.sh', out: Buffer.alloc(8 * 1024 * 1024 + 1, 'x\n') });
  for (const clientId of ['k1', 'k2'])
    plant(`twin of ${clientId}`, 4, { clientId, command: 'twin.sh', jobId: 'server_1_1085355126_00723' });
  plant('refused', 5, { clientId: 'k1', command: 'no.sh', put: { status: 455, message: 'x' }, out: false });
  const filled = await fillStore(join(own.root, 'webjob.sqlite'), site, { maxText: 1000 });
  store = filled;
  makeScanIndexes(filled.database);
  for (let round = 0; round < ids.size; round++) await noteChanges(filled.database, site);
});
after(() => {
  store?.close();
  own.remove();
});

const contextOf = (query = ''): Context =>
  makeContext({ site, acts: undefined }, store.database, '/v', new URLSearchParams(query));
const textOf = async (name: string, query = ''): Promise<string> =>
  (await jobPage(contextOf(query), name)).content.text.replaceAll('&amp;', '&');
const countIn = (text: string, pattern: RegExp): number => [...text.matchAll(pattern)].length;

describe('the overview of a site with much to say', () => {
  it('names the clients that are silent for longest, and says that there are more', () => {
    const { text } = overviewPage(contextOf()).content;
    const [, silent = ''] = /6 clients silent<\/span> <span class="detail">(.*?)<\/span>/.exec(text) ?? [];
    assert.equal(
      silent.replaceAll(/<[^>]*>/g, ''),
      's1 for 8 days, s2 for 7 days, s3 for 6 days, s4 for 5 days, s5 for 4 days, and more',
    );
  });

  it('names three of four results that changed, and its JSON all of them', () => {
    const { text } = overviewPage(contextOf()).content;
    const [, changed = ''] = /4 results changed<\/span> <span class="detail">(.*?)<\/span>/.exec(text) ?? [];
    const words = changed.replaceAll(/<[^>]*>/g, '');
    assert.match(words, /^in the last 24 hours: a\.sh on k\d, a\.sh on k\d, a\.sh on k\d, and more$/);
    const { changed: all } = overviewJson(contextOf()) as { changed: { client: string }[] };
    assert.deepEqual(all.map(({ client }) => client).sort(), ['k1', 'k2', 'k3', 'k4']);
  });

  it('has the ten newest jobs, and days that end before the next begins', () => {
    const { newest } = overviewJson(contextOf()) as { newest: unknown[] };
    assert.equal(newest.length, 10);
    const { text } = overviewPage(contextOf()).content;
    const days = [...text.matchAll(/since=([^&"]*)&amp;until=([^&"]*)"/g)].map(([, since = '', until = '']) =>
      [since, until].map((time) => new Date(decodeURIComponent(time)).getTime()),
    );
    assert.ok(days.length >= 30);
    for (const [since = 0, until = 0] of days.slice(0, 29)) assert.equal(until - since, 24 * HOUR - 1);
  });
});

describe('the page of a job', () => {
  it('leads to the job that started it, and to those that it started', async () => {
    const [parent, child] = [await textOf(idOf('parent')), await textOf(idOf('child'))];
    assert.match(child, new RegExp(`<h2>Started by</h2>.*?href="/v/job/${idOf('parent')}"`, 's'));
    assert.doesNotMatch(child, /<h2>Started<\/h2>/);
    assert.match(parent, new RegExp(`<h2>Started</h2>.*?href="/v/job/${idOf('child')}"`, 's'));
    assert.doesNotMatch(parent, /<h2>Started by<\/h2>/);
  });

  it('leads to what changed since the run before, in the order of time, and to downloads', async () => {
    const text = await textOf(idOf('after-1'));
    assert.ok(text.includes(`href="/v/diff?from=${idOf('before-1')}&to=${idOf('after-1')}"`));
    assert.doesNotMatch(await textOf(idOf('before-1')), /What changed since the previous run/);
    for (const stream of ['out', 'err', 'env'])
      assert.match(text, new RegExp(`href="[^"]*/stream/${stream}/[^"]*" download`));
    assert.doesNotMatch(text, /Verify, note, hold, download/);
  });

  it('shows two streams and says which of them is empty, and the run record when it is asked for', async () => {
    const text = await textOf(idOf('child'));
    assert.match(text, /id="out">Standard output<.*id="err">Standard error<\/h3>\s*<p class="note">Nothing\.<\/p>/s);
    assert.equal(countIn(text, /<p class="note">Nothing\.<\/p>/g), 1);
    assert.doesNotMatch(text, /<h3 id="env">/);
    assert.match(await textOf(idOf('child'), 's=env'), /<h3 id="env">Run record</);
    assert.match(await textOf(idOf('refused')), /<p class="note">There is none\.<\/p>/);
  });

  it('has no verdict on an upload that is too long for a page, and says so', async () => {
    assert.match(
      await textOf(idOf('large')),
      /Its 8,38\d,\d{3} bytes are not read for a page: webjobctl verify reads them\./,
    );
    assert.doesNotMatch(await textOf(idOf('child')), /are not read for a page/);
  });

  it('lets choose among several jobs of one id, and gives none of their streams', async () => {
    const id = 'server_1_1085355126_00723';
    const text = await textOf(id);
    assert.match(text, /<p class="lead">2 jobs have this id\.<\/p>/);
    const ways = [...text.matchAll(/href="\?([^"]*)"/g)].map(([, query = '']) => query);
    assert.equal(ways.length, 2);
    const seen = await Promise.all(ways.map(async (query) => /<h1>(.*?)<\/h1>/.exec(await textOf(id, query))?.[1]));
    assert.deepEqual(seen.sort(), ['twin.sh on k1', 'twin.sh on k2']);
    for (const query of ways) assert.ok(new URLSearchParams(query).has('at'));
    await assert.rejects(
      findStream(contextOf(), 'out', id),
      (error) => error instanceof NotShown && error.message === 'Several jobs have this id.',
    );
    assert.equal((await findStream(contextOf(ways[0]), 'out', id)).stored.bytes, 5);
    assert.equal(((await jobDetails(contextOf(), id)) as unknown[]).length, 2);
  });

  it('has the same as JSON, with the bytes of each stream, its record and its verdict', async () => {
    const child = (await jobDetails(contextOf(), idOf('child'))) as Record<string, unknown>;
    const { bytes, record, verification, attempts } = child as {
      bytes: object;
      record: Record<string, string>;
    } & typeof child;
    assert.deepEqual({ ...bytes, env: 0 }, { out: 27, err: 0, env: 0 });
    assert.equal(record.OuterJid, idOf('parent'));
    assert.equal(typeof verification, 'string');
    assert.deepEqual(attempts, []);
    const refused = (await jobDetails(contextOf(), idOf('refused'))) as Record<string, unknown>;
    assert.deepEqual([refused.bytes, refused.record], [{ out: null, err: null, env: null }, null]);
  });
});

describe('the outputs of jobs', () => {
  const packed = (pack: string): Job => ({ packed: { pack, name: 'a' } }) as Job;

  it('are missing where an archive is damaged or gone, and known of all others', async () => {
    const folder = join(own.base, 'packed');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, '2026-10-01.jsonl'), 'no manifest\n');
    const [group] = [{ name: ids.get('child')?.name, has: new Set() }] as unknown as Job['group'][];
    try {
      const found = await digestOutputs(contextOf(), [packed('2026-10-01'), packed('2026-10-02'), { group } as Job]);
      assert.deepEqual(found.slice(0, 2), ['missing', 'missing']);
      assert.deepEqual(typeof found[2] === 'object' && found[2].bytes, 27);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('are not read when there is no time, nor when they are not there', async () => {
    const name = ids.get('large')?.name;
    store.database.exec('DELETE FROM view_digests');
    const late = { ...contextOf(), deadline: 0 };
    assert.deepEqual(await digestOutputs(late, [{ group: { name, has: new Set() } } as unknown as Job]), [
      'not read yet',
    ]);
    assert.deepEqual(await digestOutputs(late, [{ group: { name: 'none', has: new Set() } } as unknown as Job]), [
      'missing',
    ]);
  });

  it('are searched for as many lines as are asked for, also beyond their beginning', async () => {
    const { find } = makeTextSearch(contextOf(), 'needle');
    const job = { group: { name: ids.get('child')?.name, has: new Set() } } as unknown as Job;
    for (const limit of [1, 2, 3, 9]) assert.equal((await find(job, limit)).length, Math.min(limit, 3));
  });
});

it('a timeline has the jobs of its days alone, and says which they are', () => {
  const at = (hours: number, state = 'done'): Job => ({ at: new Date(now - hours * HOUR), state }) as Job;
  const { text } = formatTimeline([at(1), at(1, 'failed'), at(30), at(49), at(-1)], new Date(now), 2, contextOf());
  const [from, to] = [48, 0].map((hours) => new Date(now - hours * HOUR).toISOString().slice(0, 10));
  assert.match(text, new RegExp(`3 jobs from ${from} to ${to}, 1 failure\\.`));
  assert.equal(countIn(text, /<rect /g), 2);
  assert.equal(countIn(text, /class="bar-bad"/g), 1);
});
