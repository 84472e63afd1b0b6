// What a report says of files and records that were changed behind the server's back: the locker
// and its custody record are made by real CGI processes, then tampered with.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { appendFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { custodyPath } from 'webjob-locker';
import { makeLockerSite } from '../support/locker-site.ts';

const its = makeLockerSite();
const report = join(its.site.root, 'report');
const custody = custodyPath(join(its.site.base, 'logfiles'), 'server_1');
const jobs: string[] = [];
before(async () => {
  for (const out of ['first\n', 'second\n', 'third\n', 'fourth\n']) {
    const record = { HashType: 'SHA256', StdOutHash: createHash('sha256').update(out).digest('hex') };
    jobs.push(await its.run({ clientId: 'client1', fileName: 'host.sh', out, record }));
  }
});
after(its.close);

/** The pages of the four jobs, in order, and the overview, as text without tags. */
async function makeReport(): Promise<{ pages: string[]; overview: string }> {
  const { exitCode, stderr } = await its.webjobctl('report', '--html', report);
  assert.equal(exitCode, 0, stderr);
  const read = (name: string): string =>
    readFileSync(join(report, name), 'utf8')
      .replace(/^.*<main/s, '<main')
      .replace(/<[^>]*>/g, ' ')
      .replace(/\s+/g, ' ');
  const names = readdirSync(join(report, 'job'));
  const pages = jobs.map((id) => read(join('job', names.find((name) => name.startsWith(`${id}-`)) ?? '')));
  return { pages, overview: read('index.html') };
}

/** The path of a stream of a job, found by the id in its .rdy. */
function findStream(jobId: string | undefined, extension: string): string {
  const ready = readdirSync(its.site.incoming)
    .map((name) => join(its.site.incoming, name))
    .find((path) => path.endsWith('.rdy') && readFileSync(path, 'utf8') === `Jid=${jobId}\n`);
  return `${ready?.slice(0, -4)}.${extension}`;
}

it('a report confirms uploads that are unchanged since they were received', async () => {
  const { pages, overview } = await makeReport();
  for (const page of pages) {
    assert.match(page, / verified /);
    assert.match(page, /\.out as received [67] /);
    assert.match(page, /\.env as received \d+ [0-9a-f]{64} /);
    assert.doesNotMatch(page, /does not verify|nothing to compare/);
  }
  assert.match(overview, /clients silent 0/);
  assert.match(overview, /The custody record is intact, 4 entries\./);
  assert.match(overview, /No file of a job with a page differs/);
});

it('a report finds a stream that was changed, one that is missing, and a record rewritten to match', async () => {
  const kept = jobs
    .flatMap((id) => ['out', 'err', 'env'].map((name) => findStream(id, name)))
    .map((path) => ({
      path,
      bytes: readFileSync(path),
    }));
  writeFileSync(findStream(jobs[0], 'out'), 'FIRST\n');
  rmSync(findStream(jobs[1], 'err'));
  // An attacker who also rewrites the run record is detected by what the server recorded.
  const hash = (text: string): string => createHash('sha256').update(text).digest('hex');
  writeFileSync(findStream(jobs[2], 'out'), 'THIRD\n');
  const env = findStream(jobs[2], 'env');
  writeFileSync(env, readFileSync(env, 'utf8').replace(hash('third\n'), hash('THIRD\n')));
  const { pages, overview } = await makeReport();
  const [first = '', second = '', third = '', fourth = ''] = pages;
  assert.match(
    first,
    new RegExp(`\\.out changed since it was received SHA-256 was ${hash('first\n')} 6 ${hash('FIRST\n')}`),
  );
  assert.match(second, /\.err missing/);
  assert.match(third, /\.out changed since it was received/);
  assert.match(third, /\.env changed since it was received/);
  for (const page of [first, second, third]) assert.match(page, /does not verify/);
  assert.match(fourth, / verified /);
  assert.match(overview, /verification failures 3/);
  assert.match(overview, /The newest jobs with verification failures/);
  for (const { path, bytes } of kept) writeFileSync(path, bytes);
});

it('a report finds a custody record that was changed', async () => {
  const text = readFileSync(custody, 'utf8');
  const lines = text.split('\n');
  writeFileSync(custody, text.replace(lines[1] ?? '', (lines[1] ?? '').replace('"client1"', '"client2"')));
  const edited = await makeReport();
  assert.match(
    edited.pages[1] ?? '',
    /does not verify.*unrecorded client1_\w+\.sh: the custody record does not have it\./,
  );
  assert.match(edited.pages[2] ?? '', / verified .*The custody record was changed before the entry of this upload/);
  assert.match(edited.pages[0] ?? '', / verified /);
  assert.match(edited.overview, /not as it was written: 2 faults in 4 entries/);
  writeFileSync(custody, text);
  appendFileSync(custody, '{"covers":[0,');
  assert.match((await makeReport()).overview, /not as it was written: 1 fault in 4 entries/);
  writeFileSync(custody, text);
});

it('a report uses the run record of the client where there is no custody record', async () => {
  const text = readFileSync(custody);
  rmSync(custody);
  const { pages, overview } = await makeReport();
  assert.match(pages[0] ?? '', / as the client stated .*\.out as the client stated 6/);
  assert.match(pages[0] ?? '', /\.env nothing to compare with/);
  assert.match(overview, /There is no custody record/);
  writeFileSync(custody, text);
});
