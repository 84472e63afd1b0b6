// What is expected of clients, checked against a log and a locker: each kind of rule, many clients.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { findMissed } from '../../admin/fleet/expectations.ts';
import { readSite } from '../../admin/site/site.ts';
import { parseExpect } from '../../fleet/expect.ts';
import { parseGroups } from '../../fleet/groups.ts';
import { configure, makeSite } from '../../scripts/site.ts';
import { type PastJob, plantPast } from '../support/past-site.ts';

const HOUR = 3_600_000;
const MANY = 110;

describe('an expectation of clients', () => {
  const own = makeSite();
  configure(own, { UseGMT: 'Y' });
  const site = readSite(own.propertiesFile);
  const now = new Date(Math.floor(Date.now() / 1000) * 1000);
  const many = Array.from({ length: MANY }, (_, index) => `many-${String(index).padStart(3, '0')}`);
  const clients = ['c1', 'c2', ...many];
  const ids: string[] = [];
  const plant = (hours: number, job: Omit<PastJob, 'at'>): void => {
    const at = new Date(now.getTime() - hours * HOUR);
    ids.push(...plantPast(own, 'UTC', [{ at, ...job }]).map(({ jobId }) => jobId));
  };
  before(() => {
    plant(240, { clientId: 'c1', command: 'a.sh', out: 'a\ntime 0\n' });
    plant(30, { clientId: 'c1', command: 'a.sh', out: 'a\ntime 1\n' });
    const epochOf = (second: number): string => `2026-11-30 12:00:${second} UTC (17960724${second}.000000)`;
    const epochs = { RunEpoch: epochOf(10), PutEpoch: epochOf(30) };
    plant(3, { clientId: 'c1', command: 'a.sh', out: 'a\ntime 2\n', fields: { KidStatus: '3', ...epochs } });
    plant(2, { clientId: 'c2', command: 'b.sh', out: 'killed\n', fields: { KidStatus: '0', KidSignal: '9' } });
    for (const clientId of many) plant(1, { clientId, command: 'm.sh', custody: false });
  });
  after(() => own.remove());

  /** The expectations that are missed of these rules: client, command, kind, line and detail. */
  async function miss(...rules: string[]): Promise<string[]> {
    const { expectations } = parseExpect(rules.map((rule) => `expect ${rule}`).join('\n'));
    const missed = await findMissed(site, expectations, parseGroups('both = c1, c2\n'), clients, now);
    return missed.map(({ clientId, command, kind, line, detail }) =>
      [clientId, command, kind, line, detail]
        .join(' ')
        .replace(ids[2] ?? '', 'JOB')
        .replace(ids[1] ?? '', 'BEFORE'),
    );
  }
  const ago = (hours: number): string => new Date(now.getTime() - hours * HOUR).toISOString();

  it('can be a result within a time, to the second', async () => {
    assert.deepEqual(await miss('c1 a.sh every=3h', 'c2 b.sh every=1h grace=1h'), []);
    assert.deepEqual(await miss('c1 a.sh every=10799s', 'both a.sh every=1d'), [
      `c1 a.sh late 1 no result within 10799s: the last one was at ${ago(3)}`,
      'c2 a.sh late 2 no result within 1d: none is on record',
    ]);
    assert.deepEqual(await miss('c? * every=2h', 'gone * every=1h'), [
      `c1 * late 1 no request within 2h: the last one was at ${ago(3)}`,
      'gone * late 2 no request within 1h: none is on record',
    ]);
  });

  it('can be an exit code, and never a signal', async () => {
    assert.deepEqual(await miss('c1 a.sh exit=0,3'), []);
    assert.deepEqual(await miss('both a.sh exit=0,2', 'both b.sh exit=0'), [
      'c1 a.sh exit 1 it ended with 3 instead of 0 or 2',
      'c2 b.sh exit 2 it ended with sig 9 instead of 0',
    ]);
  });

  it('can be a maximum run time', async () => {
    assert.deepEqual(await miss('c1 a.sh longest=20s', 'c2 b.sh longest=1s'), []);
    assert.deepEqual(await miss('c1 a.sh longest=19s'), ['c1 a.sh duration 1 it took 20 s, more than 19s']);
  });

  it('can be output that stays the same, except for ignored lines', async () => {
    const differs = ['c1 a.sh output 1 its output differs from that of BEFORE'];
    assert.deepEqual(await miss('c1 a.sh unchanged'), differs);
    assert.deepEqual(await miss('c1 a.sh unchanged ignore=^time'), []);
    assert.deepEqual(await miss('c1 a.sh unchanged stream=err'), []);
    assert.deepEqual(await miss(`c1 a.sh golden=${ids[1]}`), differs);
    assert.deepEqual(await miss(`c1 a.sh golden=${ids[2]}`), []);
    assert.deepEqual(await miss('c1 a.sh golden=none'), ['c1 a.sh output 1 the golden job is missing']);
    assert.deepEqual(await miss(`c1 a.sh unchanged-since=${ago(20).slice(0, 16)}Z`), differs);
    const old = await miss(`c1 a.sh unchanged-since=${ago(100).slice(0, 16)}Z`);
    assert.deepEqual(old, [`c1 a.sh output 1 its output differs from that of ${ids[0]}`]);
  });

  it('counts once for a client, by the first rule, in the order of clients', async () => {
    assert.deepEqual(
      (await miss('c* a.sh exit=0', 'c1 a.sh exit=1', 'c2 a.sh every=1h', 'c1 a.sh every=1h')).map((one) =>
        one.split(' ').slice(0, 4).join(' '),
      ),
      ['c1 a.sh late 4', 'c1 a.sh exit 1', 'c2 a.sh late 3'],
    );
  });

  it('is checked for every one of many clients', async () => {
    assert.deepEqual(await miss('many-* m.sh every=2h'), []);
    assert.equal((await miss('many-* m.sh every=30m')).length, MANY);
  });
});
