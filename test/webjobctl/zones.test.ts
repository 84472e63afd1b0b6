// Every time that webjobctl shows, in three zones, with and without UseGMT=Y: real CGI processes
// write the current log, and one is planted for the day on which summer time ended. Each program
// gets its zone from TZ, so that the machine's does not matter.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { runBare } from '../support/bare.ts';
import { formatHead } from '../support/hooks-site.ts';
import { makeLockerSite, makeRecord, runWebjobctl } from '../support/locker-site.ts';
import { parseLines } from '../support/operator.ts';
import { formatIn, type Planted, plantPast } from '../support/past-site.ts';
import { findWebUser } from '../support/tree.ts';

/**
 * Fourteen hours ahead of UTC; a zone with half an hour, far behind; one with an hour that occurred
 * twice in the night planted below.
 */
const ZONES = ['Pacific/Kiritimati', 'America/St_Johns', 'Europe/Berlin'];

/**
 * The night of 26 October 2025: summer time ended in Berlin at 01:00 GMT, and 02:30 occurred twice.
 */
const NIGHT = ['2025-10-25T23:30:00Z', '2025-10-26T00:30:00Z', '2025-10-26T01:30:00Z', '2025-10-26T02:30:00Z'];
const LATER = '2025-10-26T23:30:00Z';
const HOUR_MS = 3_600_000;

interface Job {
  jobId: string;
  at: string;
  state: string;
  group: string | null;
  get: { at: string } | null;
  put: { at: string } | null;
}

for (const [index, zone] of ZONES.entries()) {
  // Both where an hour occurred twice; of the others one has the times of its log in local time,
  // one in GMT.
  for (const useGmt of index === 2 ? [true, false] : [index === 1]) {
    describe(`webjobctl in ${zone}, with times in ${useGmt ? 'GMT' : 'local time'}`, () => {
      const clock = useGmt ? 'UTC' : zone;
      const its = makeLockerSite(useGmt ? { UseGMT: 'Y' } : {});
      const { site } = its;
      const report = join(site.root, 'report');
      let past: Planted[];
      /** Two jobs within two hours around midnight by the clock of the zone. */
      let midnight: Planted[];
      /** Made by a real CGI process, in this zone. */
      let current = '';
      before(async () => {
        past = plantPast(
          site,
          clock,
          [...NIGHT, LATER].map((at) => ({ at: new Date(at) })),
        );
        const start = findMidnight(zone);
        midnight = plantPast(
          site,
          clock,
          [-HOUR_MS, HOUR_MS].map((shift) => ({ at: new Date(start + shift), command: 'ps.sh', clientId: 'client2' })),
        );
        current = await depositNow();
      });
      after(its.close);

      const run = (...args: string[]) =>
        runWebjobctl(['--config', site.propertiesFile, ...args], { ...process.env, TZ: zone });
      async function read<Value>(...args: string[]): Promise<Value[]> {
        return parseLines<Value>((await run('--json', ...args)).text);
      }

      async function depositNow(): Promise<string> {
        const put = { clientId: 'client3', user: 'client3', fileName: 'now.sh', jobId: 'server_1_1085355126_00001' };
        const env = makeRecord({ ClientId: 'client3', GetRequest: 'now.sh', Jid: put.jobId });
        const raw = Buffer.from(formatHead('PUT', { ...put, env }) + env, 'latin1');
        const environment = [['TZ', zone]] as const;
        await runBare(raw, { settingsFile: site.propertiesFile, user: findWebUser(), environment });
        return put.jobId;
      }

      it('shows the time of each job, and finds the upload by the time in its name', async () => {
        const jobs = new Map((await read<Job>('jobs')).map((job) => [job.jobId, job]));
        for (const { jobId, name, at } of [...past, ...midnight]) {
          const job = jobs.get(jobId);
          assert.equal(job?.put?.at, at.toISOString(), jobId);
          assert.equal(job?.at, at.toISOString());
          assert.equal(job?.group, name);
          assert.equal(job?.state, 'done');
        }
        const now = jobs.get(current);
        assert.ok(Math.abs(Date.parse(now?.at ?? '') - Date.now()) < 120_000, `${now?.at} is not now`);
        assert.equal(now?.state, 'done');
      });

      it('shows the same in jobs from an index', async () => {
        const fromFiles = (await run('--json', 'jobs')).text;
        assert.equal((await run('index')).exitCode, 0);
        assert.equal((await run('--json', 'jobs')).text, fromFiles);
      });

      it('prints local site times in jobs, show and clients', async () => {
        const [first, last] = [past[0], past.at(-1)];
        const { text } = await run('jobs', '--columns', 'time,job', '--command', 'host.sh');
        assert.equal(text.split('\n')[1], `${formatIn(clock, new Date(NIGHT[0] ?? ''))}  ${first?.jobId}`);
        const shown = (await run('show', last?.jobId ?? '')).text;
        assert.match(shown, new RegExp(`^Last seen: +${formatIn(clock, new Date(LATER))}$`, 'm'));
        const clients = (await run('clients', '--client', 'client2')).text;
        assert.match(clients, new RegExp(`^client2 +${formatIn(clock, midnight[1]?.at ?? new Date())} `, 'm'));
      });

      it('includes the ends of --since and --until in jobs', async () => {
        const list = async (...args: string[]): Promise<string[]> =>
          (await read<Job>('jobs', ...args)).map(({ jobId }) => jobId);
        const ids = past.map(({ jobId }) => jobId);
        const [from, to] = [NIGHT[0] ?? '', NIGHT[3] ?? ''];
        assert.deepEqual(await list('--since', from, '--until', to), ids.slice(0, 4));
        assert.deepEqual(await list('--since', from, '--until', from), ids.slice(0, 1));
        assert.deepEqual(await list('--since', LATER, '--until', LATER), ids.slice(4));
        const [before, behind] = [-1000, 1000].map((shift) => new Date(Date.parse(to) + shift).toISOString());
        assert.deepEqual(await list('--since', from, '--until', before ?? ''), ids.slice(0, 3));
        assert.deepEqual(await list('--since', behind ?? '', '--until', LATER), ids.slice(4));
        // Without a zone it is a time of this machine's zone.
        const text = formatIn(zone, new Date(to));
        assert.deepEqual(await list('--since', text, '--until', text), ids.slice(3, 4));
        // A date means its first moment in this machine's zone.
        const day = text.slice(0, 10);
        const since = past.filter(({ at }) => formatIn(zone, at) >= `${day} 00:00:00`).map(({ jobId }) => jobId);
        assert.deepEqual(await list('--since', day, '--until', LATER), since);
      });

      it('gives exact times in metrics, export and clients', async () => {
        const at = midnight[1]?.at ?? new Date();
        const { text } = await run('metrics', '--textfile', '-');
        assert.match(
          text,
          new RegExp(
            `^webjob_client_last_seen_timestamp_seconds\\{site="[^"]+",client="client2"\\} ${at.getTime() / 1000}$`,
            'm',
          ),
        );
        const [client] = await read<{ lastSeen: string }>('clients', '--client', 'client2');
        assert.equal(client?.lastSeen, at.toISOString());
        const rows = (await run('export', '--csv')).text.split('\n');
        const row = rows.find((line) => line.includes(past[4]?.jobId ?? ''));
        assert.ok(row?.includes(LATER.replace('Z', '')), row);
      });

      it('counts a job in report on its local day', async () => {
        const { exitCode, stderr } = await run('report', '--html', report, '--since', '5d');
        assert.equal(exitCode, 0, stderr);
        const page = readFileSync(join(report, 'index.html'), 'utf8');
        const runs = /Runs a day as a table.*?<\/table>/s.exec(page)?.[0] ?? '';
        const expected = new Map<string, number>();
        for (const { at } of midnight) {
          const day = formatIn(clock, at).slice(0, 10);
          expected.set(day, (expected.get(day) ?? 0) + 1);
        }
        for (const [day, count] of expected)
          assert.ok(runs.includes(`<th scope="row">${day}</th><td class="number">${count}<`), `${day}: ${runs}`);
        for (const { at } of midnight)
          assert.ok(page.includes(`<time datetime="${at.toISOString()}">${formatIn(clock, at)}</time>`));
      });

      it('names an archive for the local day in pack', async () => {
        const { exitCode, stderr } = await run('pack', '--older-than', '30d');
        assert.equal(exitCode, 0, stderr);
        const days = new Set(past.map(({ at }) => formatIn(clock, at).slice(0, 10)));
        const archives = readdirSync(join(site.base, 'packed')).filter((name) => name.endsWith('.tar.gz'));
        assert.deepEqual(archives.sort(), [...days].map((day) => `${day}.tar.gz`).sort());
        const jobs = new Map((await read<Job>('jobs')).map((job) => [job.jobId, job]));
        for (const { jobId } of past) assert.equal(jobs.get(jobId)?.state, 'done');
        for (const day of days) assert.equal((await run('unpack', day)).exitCode, 0);
        for (const { name } of past) assert.ok(existsSync(join(site.incoming, `${name}.rdy`)), name);
        rmSync(join(site.base, 'packed'), { recursive: true });
      });
    });
  }
}

/**
 * A midnight by the clock of a zone, two to three days ago: the day that began then is not today by
 * any other clock.
 */
function findMidnight(zone: string): number {
  const wanted = formatIn(zone, new Date(Date.now() - 48 * HOUR_MS)).slice(0, 10);
  const step = HOUR_MS / 4;
  let at = Math.floor(Date.now() / step) * step;
  while (formatIn(zone, new Date(at)).slice(0, 16) !== `${wanted} 00:00`) at -= step;
  return at;
}
