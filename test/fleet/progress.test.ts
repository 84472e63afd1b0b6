// The state of each client of an assignment, from claims and jobs that were planted at chosen
// times: each client is a case of its own.
import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { describeProgress, readProgress } from '../../admin/fleet/states.ts';
import { readSite } from '../../admin/site/site.ts';
import type { Assignment } from '../../fleet/assignment.ts';
import { configure, makeSite } from '../../scripts/site.ts';
import { type PastJob, plantPast } from '../support/past-site.ts';

const DAY = 86_400;
const NOW = Math.floor(Date.now() / 1000);
const FROM = NOW - 3 * DAY;
/** When most of the batches here were fetched, and their ids. */
const BEGAN = NOW - 10_000;

const once: Assignment = {
  ...{ id: '1', command: 'host.sh', args: [], to: ['*'], schedule: { kind: 'once' }, from: FROM, until: undefined },
  ...{ state: 'active', open: 1, by: 'root', at: '2026-11-30T08:00:00Z', reason: undefined },
};
const sibling: Assignment = { ...once, id: '2' };
const end = (id: string, exit: number): string => `assignment ${id} due ${FROM} exit ${exit}\n`;

interface Case {
  /** When the batch was fetched. */
  began?: number;
  /** The assignments in the batch, in their order. */
  claims?: string[];
  /** What the batch printed; undefined when it has not come back. */
  out?: string;
  /** When it came back. */
  ended?: number;
  /** The runs of the command. */
  runs?: (Omit<PastJob, 'at'> & { from: number; to: number; outer?: string })[];
  state: string;
  webjobExit?: number;
  /** The run that was found, counted from 0. */
  run?: number;
}

const KID = (KidStatus: string): Pick<PastJob, 'fields'> => ({ fields: { KidStatus } });
const CASES: Record<string, Case> = {
  'never-asked': { claims: [], state: 'waiting' },
  'silent-for-a-day': { began: NOW - DAY, state: 'fetched' },
  'silent-for-longer': { began: NOW - DAY - 1, state: 'lost' },
  'got-for-a-day': { began: NOW - DAY, runs: [{ from: 1, to: 1, put: false, out: false }], state: 'fetched', run: 0 },
  'got-for-longer': { began: NOW - DAY - 1, runs: [{ from: 1, to: 1, put: false, out: false }], state: 'lost', run: 0 },
  'done-by-one': { runs: [{ from: 1, to: 9 }], state: 'done', run: 0 },
  'failed-by-one': { runs: [{ from: 1, to: 9, ...KID('3') }], state: 'failed', run: 0 },
  'webjob-failed': { out: end('1', 1), state: 'failed', webjobExit: 1 },
  'nothing-said': { out: '', state: 'lost' },
  'said-but-not-sent': { out: end('1', 0), state: 'lost' },
  'far-down': { out: `${'x'.repeat(99)}\n`.repeat(2000) + end('1', 7), state: 'failed', webjobExit: 7 },
  'run-by-hand-later': { out: end('1', 5), ended: 20, runs: [{ from: 40, to: 50 }], state: 'failed', webjobExit: 5 },
  'run-by-hand-before': { out: end('1', 5), runs: [{ from: -9, to: 5 }], state: 'failed', webjobExit: 5 },
  'of-another-batch': { runs: [{ from: 1, to: 9, outer: `server_1_${BEGAN - 5}_77777` }], state: 'fetched' },
  'in-their-order': {
    ...{ claims: ['1', '2'], out: end('1', 0) + end('2', 0) },
    runs: [
      { from: 20, to: 30 },
      { from: 1, to: 9, ...KID('3') },
    ],
    ...{ state: 'failed', run: 1 },
  },
  'the-second-of-two': {
    ...{ claims: ['2', '1'], out: end('2', 0) + end('1', 0) },
    runs: [
      { from: 1, to: 9, ...KID('3') },
      { from: 20, to: 30 },
    ],
    ...{ state: 'done', run: 1 },
  },
};

const own = makeSite();
configure(own, { UseGMT: 'Y', BatchCommand: 'batch' });
const site = readSite(own.propertiesFile);
const taken = join(own.base, 'dynamic', 'assignments', 'taken');
const ran = new Map<string, string[]>();

function plant(clientId: string, number: number, given: Case): string[] {
  const { began = BEGAN, claims = ['1'], out, ended = 30, runs = [] } = given;
  const idOf = (epoch: number, index: number): string =>
    `server_1_${epoch}_${String(number * 100 + index).padStart(5, '0')}`;
  const batch = idOf(began, 0);
  const at = (seconds: number): Date => new Date((began + seconds) * 1000);
  const jobs: PastJob[] = runs.map(({ from, to, ...job }, index) => ({
    ...{ ...job, clientId, jobId: idOf(began + from, index + 1), at: at(to) },
  }));
  if (out !== undefined) jobs.push({ clientId, command: 'batch', jobId: batch, out, at: at(ended) });
  const planted = plantPast(own, 'UTC', jobs);
  for (const [index, { outer }] of runs.entries())
    if (outer !== undefined) appendFileSync(join(own.incoming, `${planted[index]?.name}.env`), `OuterJid=${outer}\n`);
  ran.set(
    clientId,
    planted.map(({ jobId }) => jobId),
  );
  return claims.map((id, index) => `${id} ${FROM} ${clientId} ${index + 1} ${batch}`);
}

const clientIds = Object.keys(CASES).sort();

before(() => {
  mkdirSync(taken, { recursive: true });
  mkdirSync(join(taken, '..', 'clients'));
  const lines = Object.entries(CASES).flatMap(([clientId, given], index) => plant(clientId, index + 1, given));
  for (const id of ['1', '2']) {
    const own = lines.filter((line) => line.startsWith(`${id} `)).map((line) => `${line.slice(2)}\n`);
    writeFileSync(join(taken, `${id}.server_1`), own.join(''));
  }
  // The web user owns the directory, and may put anything there.
  mkdirSync(join(taken, '1.directory'));
  writeFileSync(join(own.root, 'elsewhere'), `${FROM} never-asked 1 server_1_${BEGAN}_99999\n`);
  symlinkSync(join(own.root, 'elsewhere'), join(taken, '1.link'));
});
after(() => own.remove());

const read = (change: Partial<Assignment> = {}, clients: readonly string[] = clientIds) =>
  readProgress(site, { active: [once, sibling], past: [] }, { ...once, ...change }, clients, NOW);

describe('a client of an assignment', () => {
  for (const [clientId, { state, webjobExit, run }] of Object.entries(CASES))
    it(`is ${state} in the case ${clientId}`, async () => {
      const progress = await read();
      const found = [...progress.clients()].filter((one) => one.clientId === clientId);
      const due =
        CASES[clientId]?.claims?.length === 0 ? null : new Date(FROM * 1000).toISOString().replace('.000', '');
      assert.deepEqual(
        found.map((one) => {
          const { exit: _, due: at, ...rest } = describeProgress(one);
          return { ...rest, due: typeof at === 'string' ? at.replace('.000', '') : at };
        }),
        [
          {
            ...{ client: clientId, state, due, webjobExit: webjobExit ?? null },
            jobId: run === undefined ? null : ran.get(clientId)?.[run],
          },
        ],
      );
    });

  it('is counted once, and listed in order also when no group names it', async () => {
    const some = clientIds.filter((_, index) => index % 3 === 1);
    const asked = clientIds.filter((clientId) => some.includes(clientId) || clientId !== 'never-asked');
    const { size, counts, clients } = await read({}, some);
    const listed = [...clients()];
    assert.deepEqual(
      listed.map(({ clientId }) => clientId),
      asked,
    );
    assert.equal(size, asked.length);
    for (const [state, count] of Object.entries(counts)) {
      assert.equal(listed.filter((one) => one.state === state).length, count, state);
      assert.deepEqual(
        [...clients([state as never])].map(({ clientId }) => clientId),
        listed.flatMap((one) => (one.state === state ? [one.clientId] : [])),
      );
    }
  });

  it('that has not fetched it waits until its end, and no longer', async () => {
    const stateOf = async (change: Partial<Assignment>): Promise<string[]> => {
      const found = [...(await read(change)).clients()];
      return ['never-asked', 'done-by-one'].flatMap(
        (clientId) => found.find((one) => one.clientId === clientId)?.state ?? [],
      );
    };
    assert.deepEqual(await stateOf({ until: NOW + 1 }), ['waiting', 'done']);
    assert.deepEqual(await stateOf({ until: NOW }), ['expired', 'done']);
    assert.deepEqual(await stateOf({ state: 'cancelled' }), ['cancelled', 'done']);
    assert.deepEqual(await stateOf({ state: 'cancelled', until: NOW }), ['cancelled', 'done']);
    // It is due again.
    const again = { schedule: { kind: 'every', seconds: 3 * DAY } } as const;
    assert.deepEqual(await stateOf(again), ['waiting', 'waiting']);
    assert.deepEqual(await stateOf({ ...again, schedule: { kind: 'every', seconds: 3 * DAY + 1 } }), [
      'waiting',
      'done',
    ]);
    assert.deepEqual(await stateOf({ ...again, until: NOW }), ['expired', 'done']);
  });
});
