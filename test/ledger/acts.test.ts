// What operators did about a job, from the index and from newer records: always the same as from
// the records alone.
import assert from 'node:assert/strict';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, describe, it } from 'node:test';
import { readSite } from '../../admin/site/site.ts';
import { appendCustody, listCustodyFiles } from '../../cgi/locker/index.ts';
import { Acts } from '../../evidence/acts.ts';
import { WRITER } from '../../evidence/events.ts';
import { readActs } from '../../ledger/acts.ts';
import type { Job } from '../../ledger/job.ts';
import { findJobs } from '../../ledger/jobs.ts';
import { logFolders } from '../../ledger/site.ts';
import { type FilledLocker, fillLocker, type LockerSite, makeLockerSite } from '../support/locker-site.ts';

describe('the events of a job', () => {
  let its: LockerSite;
  let ids: FilledLocker;
  let job: Job;
  let store = '';
  let record = '';

  before(async () => {
    its = makeLockerSite();
    ids = await fillLocker(its);
    store = join(its.site.base, 'index', 'webjob.sqlite');
    record = join(its.site.base, 'logfiles', 'nph-webjob-custody.webjobctl.jsonl');
    await its.webjobctl('note', ids.first, 'the first note');
    await its.webjobctl('hold', 'add', '--client', 'client1', '--reason', 'case 7');
    assert.equal((await its.webjobctl('index')).exitCode, 0);
    const [found] = await findJobs(readSite(its.site.propertiesFile), ids.first, undefined);
    assert.ok(found);
    job = found;
  });
  after(() => its?.close());

  const fromStore = (): string[] => readActs(readSite(its.site.propertiesFile), job).map(({ text }) => text);
  /** The texts of the acts, which must equal those from the records alone. */
  function readTexts(): string[] {
    const site = readSite(its.site.propertiesFile);
    const acts = readActs(site, job);
    assert.deepEqual(acts, new Acts(logFolders(site)).of(job), 'as the records tell them');
    return acts.map(({ text }) => text);
  }
  const inStore = (): number => {
    const database = new DatabaseSync(store, { readOnly: true });
    try {
      return Number(database.prepare('SELECT count(*) AS count FROM acts').get()?.count);
    } finally {
      database.close();
    }
  };

  it('come from the index, and from later custody entries', async () => {
    assert.deepEqual(readTexts(), ['the first note', 'case 7']);
    assert.equal(inStore(), 2);
    const database = new DatabaseSync(store);
    database.exec("UPDATE acts SET act = replace(act, 'the first note', 'as the index has it')");
    database.close();
    assert.deepEqual(fromStore(), ['as the index has it', 'case 7'], 'what the index has is not read again');
    await its.webjobctl('index', '--rebuild');
    await its.webjobctl('note', ids.first, 'the second note');
    assert.deepEqual(readTexts(), ['the first note', 'case 7', 'the second note']);
    await its.webjobctl('jobs');
    assert.equal(inStore(), 3, 'each once');
    assert.deepEqual(readTexts(), ['the first note', 'case 7', 'the second note']);
  });

  it('continue in further segments', async () => {
    // As webjobctl writes them where nobody but root can replace the directory of logs.
    for (let count = 0; count < 20; count++) {
      const facts = { by: 'root', event: 'note', jobId: ids.first, text: `note ${count} ${'x'.repeat(400)}` };
      appendCustody(record, { time: new Date(), ...facts }, { mayCreate: true, segmentLimit: 4096 });
    }
    const logs = join(its.site.base, 'logfiles');
    assert.ok(listCustodyFiles(logs).filter(({ serverId }) => serverId === WRITER).length > 2);
    assert.equal(readTexts().length, 23);
    await its.webjobctl('jobs');
    assert.equal(inStore(), 23);
    assert.equal(readTexts().length, 23);
  });

  it('are those of the records when a segment is replaced or gone', async () => {
    const kept = `${record}.kept`;
    renameSync(record, kept);
    writeFileSync(record, readFileSync(kept, 'latin1').replaceAll('the first note', 'another note!!'), 'latin1');
    // An edited record is ignored, because its checksum is wrong.
    assert.deepEqual(readTexts().slice(0, 2), ['case 7', 'the second note']);
    rmSync(record);
    const fewer = readTexts().length;
    assert.ok(fewer < 22 && fewer > 0, `${fewer} acts are in the segments that are left`);
    await its.webjobctl('jobs');
    assert.equal(inStore(), fewer, 'nor does the index know more');
    renameSync(kept, record);
    assert.equal(readTexts().length, 23);
  });

  it('are shown without an index, and with one of another version', async () => {
    await its.webjobctl('jobs');
    const database = new DatabaseSync(store);
    database.exec('DELETE FROM acts; PRAGMA user_version = 1');
    database.close();
    assert.equal(readTexts().length, 23);
    rmSync(join(its.site.base, 'index'), { recursive: true });
    assert.equal(readTexts().length, 23);
    const { acts } = (await its.readJson<{ acts: unknown[] }>('show', ids.first))[0] ?? {};
    assert.equal(acts?.length, 23);
  });
});
