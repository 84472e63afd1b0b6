// A report made again: unchanged pages are kept and their files not read, everything else is new;
// and more jobs than a page holds.
import assert from 'node:assert/strict';
import {
  appendFileSync,
  chmodSync,
  linkSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, normalize } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { custodyOf } from '../support/custody-record.ts';
import { makeLockerSite } from '../support/locker-site.ts';

const its = makeLockerSite();
const report = join(its.site.root, 'report');
const jobs: string[] = [];

before(async () => {
  for (const client of ['client1', 'client2'])
    for (const fileName of ['host.sh', 'ps.sh'])
      jobs.push(await its.run({ clientId: client, fileName, out: `${client} ${fileName}\n` }));
});
after(its.close);

interface Made {
  pages: number;
  written: number;
  jobPages: number;
}

async function make(...args: string[]): Promise<Made> {
  const [line] = await its.readJson('report', '--html', report, '--since', '2000-01-01', ...args);
  return line as Made;
}

/** Inode numbers of the pages of jobs, by the job id that their names begin with. */
const jobInodes = (): Record<string, number> =>
  Object.fromEntries(
    readdirSync(join(report, 'job')).map((name) => [
      name.replace(/-[0-9a-f]{16}\.html$/, ''),
      statSync(join(report, 'job', name)).ino,
    ]),
  );

const readJobPage = (id = ''): string =>
  readFileSync(
    join(report, 'job', readdirSync(join(report, 'job')).find((name) => name.startsWith(`${id}-`)) ?? ''),
    'utf8',
  );

/** The path of a file of a job, found by the id in its .rdy. */
function findFile(jobId: string | undefined, extension: string): string {
  const ready = readdirSync(its.site.incoming)
    .map((name) => join(its.site.incoming, name))
    .find((path) => path.endsWith('.rdy') && readFileSync(path, 'utf8') === `Jid=${jobId}\n`);
  return `${ready?.slice(0, -4)}.${extension}`;
}

describe('a report made again', () => {
  beforeEach(async () => {
    // A file written in the same tick as it was read could have been written again in it.
    await sleep(2100);
    await make();
  });

  it('has the same pages as the last one, except for the time of the report', async () => {
    const first = jobInodes();
    assert.equal(Object.keys(first).length, 4);
    const { pages, written } = await make();
    assert.deepEqual(jobInodes(), first);
    assert.ok(written <= 1, `${written} of ${pages}`);
    assert.match(
      readFileSync(join(report, 'index.html'), 'utf8'),
      /No file was read again: they have not been touched/,
    );
  });

  it('has a new page for a job whose file was changed, even when its time was set back', async () => {
    const before = jobInodes();
    const path = findFile(jobs[1], 'out');
    const { mtime } = statSync(path);
    const bytes = readFileSync(path);
    writeFileSync(
      path,
      bytes.map((byte, index) => (index === 0 ? byte ^ 1 : byte)),
    );
    utimesSync(path, mtime, mtime);
    await make();
    assert.match(readJobPage(jobs[1]), /changed since it was received/);
    assert.match(readJobPage(jobs[0]), /verified<\/a>/);
    const now = jobInodes();
    const changed = Object.keys(now).filter((id) => now[id] !== before[id]);
    assert.deepEqual(changed, [jobs[1]]);
    writeFileSync(path, bytes);
  });

  for (const [what, change, words] of [
    ['a stream that is gone', () => rmSync(findFile(jobs[2], 'err')), /\.err<\/th><td><span class="state bad">missing/],
    ['a .rdy that is gone', () => rmSync(findFile(jobs[3], 'rdy')), /has no \.rdy file|upload missing/],
  ] as const) {
    it(`has a new page for a job with ${what}`, async () => {
      const before = jobInodes();
      const id = what.startsWith('a stream') ? jobs[2] : jobs[3];
      const kept = what.startsWith('a stream') ? findFile(id, 'err') : findFile(id, 'rdy');
      const bytes = readFileSync(kept);
      change();
      await make();
      const page = readdirSync(join(report, 'job')).filter((name) => name.startsWith(`${id}-`));
      assert.ok(
        page.some((name) => words.test(readFileSync(join(report, 'job', name), 'utf8'))),
        page.join(),
      );
      for (const other of jobs.filter((job) => job !== id)) assert.equal(jobInodes()[other], before[other], other);
      writeFileSync(kept, bytes, { mode: 0o644 });
    });
  }

  it('has a new page for every job whose record was changed', async () => {
    const [custody = ''] = readdirSync(join(its.site.base, 'logfiles')).filter((name) => name.endsWith('.jsonl'));
    const path = join(its.site.base, 'logfiles', custody);
    const text = readFileSync(path, 'utf8');
    writeFileSync(path, text.replace('"client1"', '"client9"'));
    await make();
    assert.match(readJobPage(jobs[0]), /does not verify/);
    writeFileSync(path, text);
  });

  it('has a new page for an archived job when its record was changed', async () => {
    const path = findFile(jobs[1], 'rdy').slice(0, -4);
    for (const extension of ['out', 'err', 'env', 'rdy']) utimesSync(`${path}.${extension}`, 1e9, 1e9);
    assert.equal((await its.webjobctl('pack', '--older-than', '30d')).exitCode, 0);
    await sleep(2100);
    await make();
    const before = jobInodes()[jobs[1] ?? ''];
    await make();
    assert.equal(jobInodes()[jobs[1] ?? ''], before);
    const custody = custodyOf(its.site);
    const text = readFileSync(custody, 'utf8');
    const lines = text.split('\n');
    const at = lines.findIndex((line) => line.includes(`"${basename(path)}"`));
    assert.ok(at >= 0);
    lines[at] = lines[at]?.replace('"client1"', '"client9"') ?? '';
    writeFileSync(custody, lines.join('\n'));
    await make();
    assert.notEqual(jobInodes()[jobs[1] ?? ''], before);
    writeFileSync(custody, text);
    await its.webjobctl('unpack', '2001-09-09');
  });

  it('is completely new with --all, and where another user could have changed the last one', async () => {
    const first = jobInodes();
    const { pages, written } = await make('--all');
    assert.equal(written, pages);
    for (const [id, ino] of Object.entries(jobInodes())) assert.notEqual(ino, first[id]);
    chmodSync(join(report, 'job'), 0o777);
    const open = await make();
    assert.equal(open.written, open.pages);
    assert.equal(statSync(join(report, 'job')).mode & 0o777, 0o755);
  });

  it('never writes into a page of the last one', async () => {
    const copies = join(its.site.root, 'copies');
    rmSync(copies, { recursive: true, force: true });
    const names = readdirSync(join(report, 'job'));
    const before = names.map((name) => readFileSync(join(report, 'job', name), 'utf8'));
    for (const name of names) linkSync(join(report, 'job', name), join(its.site.root, `copy-${name}`));
    await make('--all');
    for (const [index, name] of names.entries()) {
      const copy = join(its.site.root, `copy-${name}`);
      assert.equal(readFileSync(copy, 'utf8'), before[index]);
      rmSync(copy);
    }
  });
});

describe('jobs beyond one page', () => {
  it('are on the pages of their day, client and command, each of them once', async () => {
    const lines = Array.from({ length: 2300 }, (_, number) => {
      const minute = String(Math.floor(number / 60) % 60).padStart(2, '0');
      const time = `2026-11-02 1${Math.floor(number / 3600)}:${minute}:${String(number % 60).padStart(2, '0')}`;
      return `${time} many_${number} client7 127.0.0.1 GET client7 none.sh 0 0 0 404 -- Not Found\n`;
    });
    appendFileSync(its.site.logFile, lines.join(''));
    const { jobPages } = await make();
    assert.equal(jobPages, 2304);
    const pages = readdirSync(report, { recursive: true })
      .map(String)
      .filter((name) => name.endsWith('.html'));
    const rows = (names: readonly string[]): string[] =>
      names.flatMap((name) =>
        [
          ...readFileSync(join(report, name), 'utf8').matchAll(
            /<th scope="row" class="job"><a href="([^"]+)">(many_\d+)</g,
          ),
        ].map(([, target = '', id = '']) => {
          assert.ok(pages.includes(normalize(join(dirname(name), target))), `${name} leads to ${target}`);
          return id;
        }),
      );
    const wanted = lines.map((_, number) => `many_${number}`).sort();
    assert.deepEqual(rows(pages.filter((name) => name.startsWith('day/2026-11-02'))).sort(), wanted);
    for (const folder of ['client', 'command']) {
      const parts = pages.filter((name) => name.startsWith(`${folder}/`) && /-[0-9a-f]{16}-\d+\.html$/.test(name));
      assert.equal(parts.length, 3);
      assert.deepEqual(rows(parts).sort(), wanted);
    }
    assert.deepEqual(rows(['jobs.html']).length, 496);
    assert.match(readFileSync(join(report, 'day', '2026-11-02-2.html'), 'utf8'), /Jobs 1001 to 2000 of this day/);
    // The oldest parts stay as they are when a job arrives.
    await sleep(2100);
    appendFileSync(its.site.logFile, (lines.at(-1) ?? '').replace('many_2299', 'many_2300'));
    const { written } = await make();
    assert.ok(written < 15, `${written} pages were written for one job`);
  });
});
