// A directory of the locker that is too large to be listed for every question: broken-off uploads
// in it are found a little later, and announced uploads at once, by their custody records.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, beforeEach, describe, it } from 'node:test';
import { readSite } from '../../admin/site/site.ts';
import { openStoreAt } from '../../ledger/store.ts';
import { type LockerSite, makeLockerSite } from '../support/locker-site.ts';
import { plantPast, setTime } from '../support/past-site.ts';

const HOUR_MS = 3_600_000;
let its: LockerSite;
let store: string;
let planted = 0;

before(async () => {
  its = makeLockerSite({ UseGMT: 'Y' });
  store = join(its.site.base, 'index', 'webjob.sqlite');
  plantPast(its.site, 'UTC', [{ at: new Date(Date.now() - HOUR_MS) }]);
  assert.equal((await its.webjobctl('index')).exitCode, 0);
});
/** Makes the store believe that the directory was large at the last walk. */
beforeEach(() => change((database) => database.exec("UPDATE folders SET uploads = 30000 WHERE path = '.'")));
after(() => its.close());

function change<Value>(act: (database: DatabaseSync) => Value): Value {
  const database = new DatabaseSync(store);
  try {
    return act(database);
  } finally {
    database.close();
  }
}

/** A PUT that broke off two minutes ago, with the file that it left; returns its job id. */
function breakOff(clientId: string): string {
  const at = new Date(1000 * (Math.floor(Date.now() / 1000) - 120 + 5 * ++planted));
  const put = { status: 456, message: 'Content-Length Mismatch' };
  const [job] = plantPast(its.site, 'UTC', [{ at, clientId, put, out: false }]);
  writeFileSync(join(its.site.incoming, `${job?.name}.out`), 'arriv');
  setTime(its.site, job?.name ?? '', at);
  return job?.jobId ?? '';
}

async function stateOf(jobId: string): Promise<string | undefined> {
  const jobs = await its.readJson<{ jobId: string; state: string }>('jobs');
  return jobs.find((job) => job.jobId === jobId)?.state;
}

interface Waiting {
  lines: string[];
  from: number;
}

const readWaiting = (): Waiting =>
  change((database) =>
    JSON.parse(String(database.prepare("SELECT value FROM facts WHERE name = 'brokenOff'").get()?.value)),
  );
function setFrom(from: number): void {
  const value = JSON.stringify({ ...readWaiting(), from });
  change((database) => database.prepare("UPDATE facts SET value = ? WHERE name = 'brokenOff'").run(value));
}

describe('an incomplete upload in a large directory', () => {
  it('is found at once, when nothing was looked for recently', async () => {
    const began = Date.now();
    assert.equal(await stateOf(breakOff('client1')), 'incomplete');
    const { lines, from } = readWaiting();
    assert.deepEqual(lines, []);
    assert.ok(from > began && from < Date.now() + HOUR_MS, String(from));
  });

  it('waits for the next listing, with all others', async () => {
    setFrom(Date.now() + 600_000);
    const jobs = ['client1', 'client2', 'client2'].map(breakOff);
    for (const job of jobs) assert.equal(await stateOf(job), 'refused');
    assert.equal(readWaiting().lines.length, 3);
    setFrom(Date.now() - 1);
    for (const job of jobs) assert.equal(await stateOf(job), 'incomplete');
    assert.deepEqual(readWaiting().lines, []);
  });

  it('does not wait for a clock that was ahead', async () => {
    setFrom(Date.now() + 24 * HOUR_MS);
    assert.equal(await stateOf(breakOff('client1')), 'incomplete');
  });

  it('is found by index, however long it would wait', async () => {
    setFrom(Date.now() + 600_000);
    const job = breakOff('client3');
    assert.equal((await its.webjobctl('index', '--check')).exitCode, 0);
    assert.equal(await stateOf(job), 'incomplete');
  });
});

it('an upload is found by its record alone when it is recorded while the logs are read', async () => {
  const at = new Date(Date.now() - 10_000);
  const [line] = plantPast(its.site, 'UTC', [{ at, out: false }]);
  const { jobId = '' } = line ?? {};
  let isDone = false;
  const advance = (): void => {
    if (isDone) return;
    isDone = true;
    // The time in this name is not in the log.
    plantPast(its.site, 'UTC', [{ at, jobId, get: false, put: false, name: 'client1_20200101000000_1_host.sh' }]);
  };
  const opened = await openStoreAt(store, readSite(its.site.propertiesFile), { advance });
  assert.ok(opened && isDone);
  const { state } = opened.database.prepare('SELECT state FROM jobs WHERE unit = ?').get(jobId) ?? {};
  opened.close();
  assert.equal(state, 'done');
});
