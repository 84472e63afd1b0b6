// Workers that are killed with kill -9 during many concurrent uploads: every acknowledged upload
// is stored and recorded, and every announced one is complete. Few kills in an ordinary run;
// WEBJOB_TEST_KILLS=2000 for a night.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { STREAMS } from '../../cgi/locker/index.ts';
import { startResident } from '../../scripts/resident.ts';
import { makeSite, type Site } from '../../scripts/site.ts';
import { custodyOf, readRecords } from '../support/custody-record.ts';
import { askFastCgi } from '../support/fastcgi-client.ts';
import { randomNumbers } from '../support/locker-kills.ts';
import { digest, isAnnounced, makeUpload, parsePut, type Upload } from '../support/locker-upload.ts';
import { putVariables } from '../support/resident-requests.ts';

const KILLS = Number(process.env.WEBJOB_TEST_KILLS ?? 12);
const SEED = Number(process.env.WEBJOB_TEST_SEED ?? 20040523);
const PROCESSES = 4;
const CLIENTS = 12;
/** Uploads are checked and forgotten in between; otherwise a long run would not end. */
const KILLS_A_SITE = 100;

/** The workers of a primary. */
function workersOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1');
  return text.split(' ').filter(Boolean).map(Number);
}

/** Undefined when the connection broke, or there was no server. */
async function send(site: Site, socket: string, upload: Upload): Promise<number | undefined> {
  const { out, err, env } = upload.streams;
  const { body } = parsePut(upload);
  const given = putVariables(site, 0, upload.jobId, upload.name);
  const lengths = `STDOUT_LENGTH=${out.length}&STDERR_LENGTH=${err.length}&STDENV_LENGTH=${env.length}`;
  const query = given.QUERY_STRING?.replace(/STDOUT_LENGTH=.*/, lengths) ?? '';
  const variables = { ...given, QUERY_STRING: query, CONTENT_LENGTH: String(body.length) };
  const { status, protocolStatus } = await askFastCgi(socket, variables, body);
  return protocolStatus === undefined ? undefined : status;
}

interface Round {
  uploads: Map<string, Upload>;
  statuses: Map<string, number | undefined>;
  kills: number;
}

/** Uploads from all clients until this many workers have been killed. */
async function killUnderLoad(site: Site, kills: number, random: () => number): Promise<Round> {
  const primary = await startResident(site, ['--processes', String(PROCESSES)]);
  const round: Round = { uploads: new Map(), statuses: new Map(), kills: 0 };
  let isOver = false;
  try {
    const clients = Array.from({ length: CLIENTS }, async (_, client) => {
      for (let count = 0; !isOver; count += 1) {
        const sizes = { out: Math.floor(random() ** 4 * 300_000), err: Math.floor(random() * 3000), env: 400 };
        const upload = makeUpload(`kill_${client}_${count}`, sizes);
        round.uploads.set(upload.name, upload);
        let status = await send(site, primary.socket, upload);
        // As a client does that received no answer.
        if (status === undefined) status = await send(site, primary.socket, upload);
        round.statuses.set(upload.name, status);
        if (status === undefined) await sleep(20);
      }
    });
    let answered = 0;
    while (round.kills < kills) {
      await sleep(random() * 100);
      // Then some workers are busy, and not all of them starting.
      if (round.statuses.size === answered) continue;
      answered = round.statuses.size;
      const workers = workersOf(primary.pid);
      const victim = workers[Math.floor(random() * workers.length)];
      if (victim === undefined) continue;
      try {
        process.kill(victim, 'SIGKILL');
        round.kills += 1;
      } catch (error) {
        // The worker was killed before, and has just ended.
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    }
    isOver = true;
    await Promise.all(clients);
    return round;
  } finally {
    isOver = true;
    await primary.stop();
  }
}

/** Returns the number of announced uploads, and the number of those that no client was told of. */
function judge(site: Site, { uploads, statuses }: Round): { announced: number; unheard: number; unfinished: number } {
  const counts = { announced: 0, unheard: 0, unfinished: 0 };
  const recorded = new Map(readRecords(custodyOf(site)).map(({ name, sha256 }) => [name, sha256]));
  for (const [name, upload] of uploads) {
    const base = join(site.incoming, `client1_${name}`);
    const isComplete = existsSync(`${base}.rdy`);
    const status = statuses.get(name);
    // The lock of a retry that was killed while it compared may still be there.
    if (isComplete) assert.ok(isAnnounced(base, upload), `${name}: announced, and not what was sent`);
    // 451: the name has the fresh lock of the killed upload.
    assert.ok(status === undefined || status === 200 || status === 451, `${name}: ${status}`);
    if (status === 200) assert.ok(isComplete, `${name}: 200, and not announced`);
    if (!isComplete) {
      counts.unfinished += 1;
      continue;
    }
    counts.announced += 1;
    if (status !== 200) counts.unheard += 1;
    const sums = STREAMS.map((stream) => [stream, digest(upload.streams[stream])]);
    assert.deepEqual(recorded.get(`client1_${name}`), Object.fromEntries(sums), name);
  }
  for (const file of readdirSync(site.incoming).filter((name) => name.endsWith('.rdy')))
    assert.ok(uploads.has(file.slice('client1_'.length, -'.rdy'.length)), file);
  return counts;
}

it(`a server that is killed ${KILLS} times under load (seed ${SEED}) loses nothing it acknowledged`, async (t) => {
  const random = randomNumbers(SEED);
  const totals = { kills: 0, uploads: 0, announced: 0, unheard: 0, unfinished: 0 };
  while (totals.kills < KILLS) {
    const site = makeSite({ resident: true, settings: { PutNameFormat: '%cid_%cmd' } });
    try {
      const round = await killUnderLoad(site, Math.min(KILLS_A_SITE, KILLS - totals.kills), random);
      const { announced, unheard, unfinished } = judge(site, round);
      totals.kills += round.kills;
      totals.uploads += round.uploads.size;
      totals.announced += announced;
      totals.unheard += unheard;
      totals.unfinished += unfinished;
      assert.ok(existsSync(custodyOf(site)));
    } finally {
      site.remove();
    }
  }
  t.diagnostic(JSON.stringify(totals));
  assert.ok(totals.announced > 0 && totals.unfinished > 0, JSON.stringify(totals));
});
