// The strictest client (test/support/strict-client.ts) against real httpd: no answer is ever lost,
// whatever was refused and however much of a body was in transit.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { REASONS, type Status } from 'webjob-protocol';
import { configure, type Site } from '../../scripts/site.ts';
import { askStrictly, type StrictAnswer, zeros } from '../support/strict-client.ts';
import { startServer } from '../support/target.ts';
import { part } from '../support/thorough.ts';

const KILOBYTE = 1024;
const MEGABYTE = 1024 * KILOBYTE;
const LARGE = 50 * MEGABYTE;
/**
 * More for a long run, in which every status is also tried with the large body under both: an
 * answer that is lost once in a hundred times is noticed there.
 */
const TRIES = Number(process.env.WEBJOB_TEST_TRIES ?? 2);
const USUAL_TRIES = 2;
const AT_ONCE = 4;

interface Case {
  status: Status;
  /** The difference from a PUT that is stored. */
  method?: string;
  folder?: '/webjob/' | '/open/';
  clientId?: string;
  runType?: string;
  jobId?: string;
  /** Added to STDOUT_LENGTH. */
  surplus?: number;
  settings?: Record<string, string>;
  /** The smallest body with which the status occurs, in bytes. */
  fewest?: number;
}

const CASES: Case[] = [
  { status: 200 },
  { status: 251, runType: 'linktest' },
  { status: 404, method: 'GET' },
  { status: 405, method: 'POST', folder: '/open/' },
  { status: 450, runType: 'portrait' },
  { status: 451, jobId: 'taken' },
  { status: 452, folder: '/open/' },
  { status: 453, clientId: 'client2' },
  { status: 455, settings: { CapContentLength: 'Y', MaxContentLength: '1' }, fewest: KILOBYTE },
  { status: 456, surplus: 1 },
  { status: 500, settings: { PutNameFormat: 'file/%jid' } },
  { status: 550, settings: { EnableLogging: 'maybe' } },
  { status: 553, settings: { EnablePutService: 'N' } },
];

let count = 0;

/** A request with the headers of a C client, and a body of this size. */
function formatHead(port: number, its: Case, bytes: number): string {
  count += 1;
  const query = `VERSION=webjob+1.4.0+ssl+32+bit&SYSTEM=sparc+OpenBSD+3.5&CLIENTID=${its.clientId ?? 'client1'}&FILENAME=none.sh`;
  const isGet = its.method === 'GET';
  const put = `&RUNTYPE=${its.runType ?? 'snapshot'}&STDOUT_LENGTH=${bytes + (its.surplus ?? 0)}&STDERR_LENGTH=0&STDENV_LENGTH=0`;
  return [
    `${its.method ?? 'PUT'} ${its.folder ?? '/webjob/'}nph-webjob.cgi?${query}${isGet ? '' : put} HTTP/1.1`,
    `Host: 127.0.0.1:${port}`,
    'Content-Type: application/octet-stream',
    `Content-Length: ${bytes}`,
    ...(its.folder === '/open/' ? [] : [`Authorization: Basic ${Buffer.from('client1:foo').toString('base64')}`]),
    ...(isGet ? [] : [`Job-Id: ${its.jobId ?? `strict_${count}`}`]),
    '\r\n',
  ].join('\r\n');
}

function checkAnswer(answer: StrictAnswer, status: Status): void {
  assert.deepEqual([answer.status, answer.reason], [status, REASONS[status]]);
  assert.equal(answer.body.length, 0);
}

/**
 * Repeats requests often enough to notice a lost answer, a few at once; returns what went wrong.
 */
async function askOften(port: number, its: Case, bytes: number, tries: number): Promise<string[]> {
  const problems: string[] = [];
  let left = tries;
  const ask = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      try {
        checkAnswer(await askStrictly({ port, head: formatHead(port, its, bytes), body: zeros(bytes) }), its.status);
      } catch (error) {
        problems.push((error as Error).message);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, ask));
  return problems;
}

function settle(site: Site, its: Case): void {
  configure(site, { PutNameFormat: '%jid', ...its.settings });
}

for (const mpm of part(['event', 'prefork'] as const, 1)) {
  describe(`a strict client of httpd with ${mpm}`, async () => {
    const { site, server, close } = await startServer(mpm);
    after(close);
    for (const name of ['taken.out', 'file']) writeFileSync(join(site.incoming, name), '');

    for (const [index, its] of CASES.entries()) {
      const { status, method = 'PUT' } = its;
      // Large bodies take long: success under both, every other status under one of them.
      const isLarge = TRIES > USUAL_TRIES || status === 200 || index % 2 === (mpm === 'event' ? 0 : 1);
      const sizes = [0, KILOBYTE, isLarge ? LARGE : MEGABYTE].filter((bytes) => bytes >= (its.fewest ?? 0));
      it(`sees ${status} ${REASONS[status]} for ${method} after ${sizes.join(', ')} bytes of body`, async () => {
        settle(site, its);
        for (const bytes of sizes) assert.deepEqual(await askOften(server.port, its, bytes, 1), [], `${bytes} bytes`);
      });
      it(`never loses ${status} for ${method} in ${TRIES} tries with 1 MB`, async () => {
        settle(site, its);
        assert.deepEqual(await askOften(server.port, its, MEGABYTE, TRIES), []);
      });
    }

    it('gets files of every size', async () => {
      configure(site, {});
      const folder = join(site.profiles, 'client1', 'commands');
      mkdirSync(folder, { recursive: true });
      for (const bytes of [0, KILOBYTE, MEGABYTE, LARGE]) {
        const content = Buffer.alloc(bytes, 'webjob');
        writeFileSync(join(folder, 'none.sh'), content);
        const answer = await askStrictly({
          port: server.port,
          head: formatHead(server.port, { status: 200, method: 'GET' }, 0),
        });
        assert.equal(answer.status, 200);
        assert.ok(answer.body.equals(content), `${bytes} bytes arrive as they are`);
      }
    });
  });
}
