// A batch hands everything out once: when runs overlap, when two servers share the site, when a
// server is killed at any system call, and when the disk is full. Each batch is made by the real
// CGI.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { parseLogLine } from 'webjob-protocol';
import { type Assignment, formatAssignment } from '../../fleet/assignment.ts';
import { configure, type Site } from '../../scripts/site.ts';
import { runBare } from '../support/bare.ts';
import { custodyOf, readRecords } from '../support/custody-record.ts';
import { inject, NO_STRACE } from '../support/locker-strace.ts';
import { bareOptions, makeLockerSite, makeScratch, statusOf } from '../support/locker-upload.ts';
import { askWorker } from '../support/locker-worker.ts';
import { runWebjobctl } from '../support/operator.ts';
import { many } from '../support/thorough.ts';
import { readLog } from '../support/tree.ts';
import { formatHead } from '../support/wire-request.ts';

const SETTINGS = { BatchCommand: 'batch' };
const GET_BATCH = Buffer.from(formatHead('GET', { fileName: 'batch' }), 'latin1');
/** Assignments of client1, in the order of the file. */
const IDS = ['1', '2', '3'];

let site: Site;
beforeEach(() => {
  site = makeLockerSite();
  configure(site, SETTINGS);
  assign(IDS.map((id) => ({ id })));
});
afterEach(() => site.remove());

/** Writes the assignments of the site; by default one run of job.sh, now, for client1. */
function assign(changes: readonly (Partial<Assignment> & { id: string })[]): void {
  const folder = join(site.base, 'config', 'nph-webjob');
  mkdirSync(folder, { recursive: true });
  const lines = changes.map((change) => {
    const usual = {
      command: 'job.sh',
      args: [change.id],
      to: ['client1'],
      from: 1000,
      until: undefined,
      reason: undefined,
    };
    const plain: Omit<Assignment, 'id'> = {
      ...usual,
      schedule: { kind: 'once' },
      state: 'active',
      open: 1,
      by: 'root',
      at: '2026-11-30T08:00:00Z',
    };
    return `${formatAssignment({ ...plain, ...change })}\n`;
  });
  writeFileSync(join(folder, 'assignments'), lines.join(''));
}

/** The assignments of a batch, from the lines of its script. */
function ordersIn(answer: Buffer): string[] {
  return [...answer.toString('latin1').matchAll(/^run '(\d+) due (\d+)' job\.sh/gm)].map(([, id = '']) => id);
}

async function askBatch(): Promise<string[]> {
  const answer = await askWorker(GET_BATCH, site.propertiesFile);
  assert.equal(answer.status, 200, answer.body.toString());
  return ordersIn(answer.body);
}

const claimsFolder = (): string => join(site.base, 'dynamic', 'assignments');

function listLinks(): string[] {
  try {
    return readdirSync(join(claimsFolder(), 'clients', 'client1')).sort();
  } catch {
    return [];
  }
}

/** The number of clients by state, from `assign show`. */
async function countStates(id: string): Promise<Record<string, number>> {
  const { stdout, stderr } = await runWebjobctl(['-c', site.propertiesFile, '--json', 'assign', 'show', id]);
  assert.notEqual(stdout, '', stderr);
  const { clients, states } = JSON.parse(stdout.split('\n')[0] ?? '');
  const counted = Object.entries(states as Record<string, number>).filter(([, count]) => count > 0);
  assert.equal(
    counted.reduce((sum, [, count]) => sum + count, 0),
    clients,
  );
  return Object.fromEntries(counted);
}

describe('a batch', () => {
  it('contains each assignment once, in order, and is recorded', async () => {
    const answer = await askWorker(GET_BATCH, site.propertiesFile);
    assert.deepEqual([answer.status, ordersIn(answer.body)], [200, IDS]);
    assert.equal(parseLogLine(readLog(site.base).at(-1) ?? '').bytesSent, answer.body.length);
    assert.deepEqual(await askBatch(), []);
    const events = readRecords(custodyOf(site)).filter(({ event }) => event === 'batch');
    assert.equal(events.length, 1);
    const [{ orders, clientId, jobId }] = events as unknown as [Record<string, unknown>];
    assert.deepEqual(
      orders,
      IDS.map((id) => ({ id, due: 1000, command: 'job.sh' })),
    );
    assert.deepEqual([clientId, readLog(site.base)[0]?.split(' ')[2]], ['client1', jobId]);
    assert.deepEqual(await countStates('2'), { fetched: 1 });
    const show = ['-c', site.propertiesFile, '--json', 'assign', 'show', '2', '--state'];
    const ids = async (state: string): Promise<string[]> =>
      (await runWebjobctl([...show, state])).stdout
        .split('\n')
        .flatMap((text) => /"client":"([^"]*)"/.exec(text)?.[1] ?? []);
    assert.deepEqual([await ids('fetched'), await ids('waiting')], [['client1'], []]);
    const { code, stderr } = await runWebjobctl([...show, 'fetchd']);
    assert.equal(code, 2);
    assert.match(stderr, /'fetchd' is invalid\. Allowed choices are waiting, fetched, done/);
  });

  it('contains a repeated assignment each time it is due, and keeps only the last two claims', async () => {
    const now = Math.floor(Date.now() / 1000);
    for (const [round, seconds] of [900, 700, 500, 300].entries()) {
      assign([{ id: '1', schedule: { kind: 'every', seconds: 100_000 }, from: now - seconds }]);
      assert.deepEqual(await askBatch(), ['1'], String(round));
      assert.deepEqual(await askBatch(), [], String(round));
    }
    assert.deepEqual(listLinks(), [`1@${now - 500}`, `1@${now - 300}`]);
    for (const seconds of [500, 400]) {
      assign([{ id: '1', schedule: { kind: 'every', seconds: 100_000 }, from: now - seconds }]);
      assert.deepEqual(await askBatch(), [], 'a clock that is set back, also to between two claims');
    }
  });

  it('contains at most a hundred assignments, and the next batch the rest', async () => {
    assign(Array.from({ length: 150 }, (_, index) => ({ id: String(index + 1) })));
    const [first, second] = [await askBatch(), await askBatch()];
    assert.deepEqual([first.length, second.length, new Set([...first, ...second]).size], [100, 50, 150]);
  });

  it('is refused when assignments or groups cannot be read, and claims nothing', async () => {
    const folder = join(site.base, 'config', 'nph-webjob');
    const text = readFileSync(join(folder, 'assignments'));
    const rows: [file: string, content: string, message: RegExp][] = [
      ['assignments', `${text}{"id":\n`, /assignments: line 4: /],
      ['groups', 'web: a\n', /groups: line 1: it must be: name = member member/],
    ];
    for (const [file, content, message] of rows) {
      writeFileSync(join(folder, file), content);
      const answer = await askWorker(GET_BATCH, site.propertiesFile);
      assert.equal(answer.status, 550);
      assert.match(readLog(site.base).at(-1) ?? '', message);
      rmSync(join(folder, 'groups'), { force: true });
      writeFileSync(join(folder, 'assignments'), text);
    }
    assert.deepEqual(await askBatch(), IDS);
  });

  it('is refused where the directory of claims cannot be made', async () => {
    rmSync(join(site.base, 'dynamic'), { recursive: true });
    const answer = await askWorker(GET_BATCH, site.propertiesFile);
    assert.equal(answer.status, 550);
    assert.match(readLog(site.base).at(-1) ?? '', /550 -- .*DynamicDirectory: /);
  });

  it('is an ordinary command when batches are off', async () => {
    configure(site, {});
    assert.equal((await askWorker(GET_BATCH, site.propertiesFile)).status, 404);
    assert.deepEqual(listLinks(), []);
  });
});

describe('concurrent batches', () => {
  it('give each assignment to one of them, on two servers with one locker', async () => {
    for (let round = 0; round < 3; round += 1) {
      assign(Array.from({ length: 20 }, (_, index) => ({ id: String(index + 1 + round * 20) })));
      const runs = Array.from({ length: 8 }, async (_, index) => {
        const options = bareOptions(site, { isAlone: true });
        const environment = [
          ['WEBJOB_PROPERTIES_FILE', index % 2 === 0 ? site.propertiesFile : secondServer()],
        ] as const;
        return ordersIn((await runBare(GET_BATCH, { ...options, environment })).stdout);
      });
      const given = (await Promise.all(runs)).flat();
      assert.equal(given.length, 20, 'each once');
      assert.equal(new Set(given).size, 20);
      assert.deepEqual(await countStates(String(1 + round * 20)), { fetched: 1 });
    }
  });

  /** The settings of another server of the site. */
  function secondServer(): string {
    const path = `${site.propertiesFile}.second`;
    const text = readFileSync(site.propertiesFile, 'utf8');
    writeFileSync(path, `${text}ServerId=server_2\n`);
    return path;
  }
});

describe('a server that fails', { skip: NO_STRACE }, () => {
  const CALLS = ['mkdir', 'symlink', 'fsync', 'fdatasync', 'write', 'unlink'];

  it('reports every lost assignment when it is killed at any system call, and gives none twice', async (t) => {
    const scratch = makeScratch(site, 'trace');
    const counts = { waiting: 0, fetched: 0, answered: 0 };
    for (const call of CALLS) {
      for (let nth = 1; nth <= 12; nth += many(1, 3)) {
        rmSync(claimsFolder(), { recursive: true, force: true });
        const wrapper = inject(join(scratch, 'trace'), `?${call}:signal=KILL:when=${nth}`, []);
        const { stdout, exitCode } = await runBare(GET_BATCH, bareOptions(site, { wrapper, isAlone: true }));
        const isAnswered = statusOf(stdout) === 200;
        const given = isAnswered ? ordersIn(stdout) : [];
        const where = `${call} ${nth}: ${exitCode}`;
        const known = listLinks().map((name) => name.split('@')[0] ?? '');
        for (const id of given) assert.ok(known.includes(id), `${where}: ${id} was given and is not claimed`);
        for (const id of IDS) {
          const states = await countStates(id);
          assert.deepEqual(states, known.includes(id) ? { fetched: 1 } : { waiting: 1 }, `${where}: ${id}`);
          counts[known.includes(id) ? 'fetched' : 'waiting'] += 1;
        }
        assert.deepEqual(
          await askBatch(),
          IDS.filter((id) => !known.includes(id)),
          `after ${where}`,
        );
        if (isAnswered) counts.answered += 1;
        // A batch makes fewer calls than this.
        if (isAnswered && exitCode === 0) break;
      }
    }
    t.diagnostic(JSON.stringify(counts));
    assert.ok(counts.waiting > 5 && counts.fetched > 5, JSON.stringify(counts));
  });

  it('answers 507 or 500 when its disk is full, and the next batch has everything', async () => {
    const scratch = makeScratch(site, 'trace');
    // If its only slot were not free, the first assignment could not be in the next batch.
    assign(IDS.map((id) => ({ id, ...(id === '1' && { limit: 1 }) })));
    const fsyncs = ['ENOSPC:when=3', 'EIO:when=5', 'EIO:when=7'].map((error) => `fsync:error=${error}`);
    for (const injection of ['symlink:error=ENOSPC:when=2', ...fsyncs]) {
      rmSync(claimsFolder(), { recursive: true, force: true });
      const wrapper = inject(join(scratch, 'trace'), injection, []);
      const { stdout } = await runBare(GET_BATCH, bareOptions(site, { wrapper, isAlone: true }));
      assert.match(String(statusOf(stdout)), /^50[07]$|^550$/, injection);
      assert.deepEqual(listLinks(), [], injection);
      assert.deepEqual(await askBatch(), IDS, injection);
    }
  });
});
