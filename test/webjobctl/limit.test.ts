// jobs --limit reads only as far back as necessary, and prints each job as it would without a
// limit.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, it } from 'node:test';
import { formatLogLine, formatTime } from 'webjob-protocol';
import { makeLockerSite } from '../support/locker-site.ts';

const HOUR_MS = 3_600_000;
/**
 * Hours since the GET and since the PUT of each job: within a day, across two days, within thirty,
 * across them, and long ago.
 */
const JOBS = [
  [2500, 2499],
  [1000, 999],
  [731, 700],
  [240, 239],
  [52, 47],
  [47, 46],
  [3, 2],
] as const;

const its = makeLockerSite({ UseGMT: 'Y' });
after(its.close);

it('the newest jobs with --limit are the newest of all jobs', async () => {
  const now = Date.now();
  const lines = JOBS.flatMap((hours, number) =>
    hours.map((ago, index) => {
      const line = formatLogLine({
        time: formatTime(new Date(now - ago * HOUR_MS), true),
        jobId: `server_1_108535512${number}_00001`,
        remoteUser: 'client1',
        remoteAddress: '127.0.0.1',
        method: index === 0 ? 'GET' : 'PUT',
        clientId: 'client1',
        fileName: number % 2 ? 'ps.sh' : 'host.sh',
        bytesReceived: 0,
        bytesSent: 0,
        seconds: 0,
        status: 200,
        message: 'Success',
      });
      return { ago, line };
    }),
  );
  lines.sort((a, b) => b.ago - a.ago);
  writeFileSync(its.site.logFile, lines.map(({ line }) => `${line}\n`).join(''));
  const all = await its.readJson<{ command: string }>('jobs');
  assert.equal(all.length, JOBS.length);
  for (let limit = 1; limit <= JOBS.length + 1; limit++)
    assert.deepEqual(await its.readJson('jobs', '--limit', String(limit)), all.slice(-limit), String(limit));
  const some = all.filter(({ command }) => command === 'ps.sh');
  assert.deepEqual(await its.readJson('jobs', '--limit', '2', '--command', 'ps.sh'), some.slice(-2));
  assert.deepEqual(await its.readJson('jobs', '--limit', '9', '--since', '1d'), all.slice(-1));
  assert.deepEqual(await its.readJson('jobs', '--limit', '1', '--until', '60h'), all.slice(-4, -3));
});

it('jobs of one second are listed in the order in which they began, whatever their ids', async () => {
  const second = Math.floor(Date.now() / 1000) - 60;
  // Ids of a persistent worker: the ninth request of a second has a longer number than the first of
  // the next second.
  const ids = [`server_1_${second - 1}_4200000`, `server_1_${second}_04200`, `server_1_${second}_4198504`];
  const lines = ids.map((jobId) =>
    formatLogLine({
      time: formatTime(new Date(second * 1000), true),
      jobId,
      remoteUser: 'client1',
      remoteAddress: '127.0.0.1',
      method: 'PUT',
      clientId: 'client1',
      fileName: 'host.sh',
      bytesReceived: 0,
      bytesSent: 0,
      seconds: 0,
      status: 404,
      message: 'Not Found',
    }),
  );
  writeFileSync(its.site.logFile, lines.map((line) => `${line}\n`).join(''));
  const told = async (...args: string[]): Promise<string[]> =>
    (await its.readJson<{ jobId: string }>('jobs', ...args)).map(({ jobId }) => jobId);
  assert.deepEqual(await told(), ids);
  assert.deepEqual(await told('--limit', '2'), ids.slice(-2));
});
