// Compatibility with the originals: original servers that write to the same locker and log at the
// same time, and equally old clients. The Perl that plays the server is perl-base, which every
// Debian has.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { groupPaths, STREAMS } from 'webjob-locker';
import { parseLogLine } from 'webjob-protocol';
import { startHttpd } from '../../scripts/httpd.ts';
import { until } from '../support/cgi-scripts.ts';
import { findProgram } from '../support/deployment-guide.ts';
import { contentOf, type LegacyWriter, type Lengths, startLegacyWriter } from '../support/legacy-writer.ts';
import { makeLockerSite } from '../support/locker-upload.ts';
import { askStrictly, parseAnswer } from '../support/strict-client.ts';
import { sendRaw } from '../support/target.ts';

const perl = findProgram('perl') ?? '';
const needsPerl = { skip: perl === '' && 'needs perl' };
const AUTHORIZATION = `Authorization: Basic ${Buffer.from('client1:foo').toString('base64')}`;
/** Uploads of each of the four concurrent writers. */
const RUNS = Number(process.env.WEBJOB_TEST_RUNS ?? 6);
const [OURS, THEIRS] = [RUNS, 2 * RUNS];
const SIZES: Lengths = { out: 400_000, err: 3_000, env: 700 };

const site = makeLockerSite();
const server = await startHttpd({ site, mpm: 'event' });
const writers: LegacyWriter[] = [];
after(async () => {
  await Promise.all(writers.map((writer) => writer.end()));
  await server.stop();
  site.remove();
});
beforeEach(() => {
  for (const name of readdirSync(site.incoming)) rmSync(join(site.incoming, name));
  writeFileSync(site.logFile, '');
});

function startWriter(): LegacyWriter {
  const writer = startLegacyWriter(site, perl);
  writers.push(writer);
  return writer;
}

const logged = () => {
  const lines = readFileSync(site.logFile, 'latin1').split('\n');
  assert.equal(lines.pop(), '', 'the last line is whole');
  return lines.map(parseLogLine);
};

function headOf(name: string, jobId: string | undefined, { out, err, env }: Lengths, version = 'HTTP/1.1'): string {
  const query = [
    `VERSION=webjob+1.4.0+ssl+32+bit&SYSTEM=sparc+OpenBSD+3.5&CLIENTID=client1&FILENAME=${name}&RUNTYPE=snapshot`,
    `STDOUT_LENGTH=${out}&STDERR_LENGTH=${err}&STDENV_LENGTH=${env}`,
  ].join('&');
  const lines = [
    `PUT /webjob/nph-webjob.cgi?${query} ${version}`,
    ...(version === 'HTTP/1.1' ? ['Host: 127.0.0.1:80'] : []),
    'Content-Type: application/octet-stream',
    `Content-Length: ${out + err + env}`,
    AUTHORIZATION,
    ...(jobId === undefined ? [] : [`Job-Id: ${jobId}`]),
  ];
  return `${lines.join('\r\n')}\r\n\r\n`;
}

function bodyOf(jobId: string, lengths: Lengths): Buffer {
  return Buffer.from(STREAMS.map((stream) => contentOf(jobId, stream, lengths[stream])).join(''));
}

/** An upload to our server; resolves with its status. */
async function put(name: string, jobId: string, lengths: Lengths): Promise<number> {
  const head = headOf(name, jobId, lengths);
  return (await askStrictly({ port: server.port, head, body: [bodyOf(jobId, lengths)] })).status;
}

/** The upload contains exactly what the job sent, and is announced under its job id. */
function checkGroup(name: string, jobId: string, lengths: Lengths): void {
  const paths = groupPaths(join(site.incoming, `client1_${name}`));
  for (const stream of STREAMS) {
    assert.ok(readFileSync(paths[stream], 'latin1') === contentOf(jobId, stream, lengths[stream]), `${name}.${stream}`);
  }
  assert.equal(readFileSync(paths.rdy, 'latin1'), `Jid=${jobId}\n`);
  assert.ok(!existsSync(paths.lck), `${name}.lck`);
}

/** Sends all of a PUT but its last byte, and waits until our server has stored that. */
async function putAlmost(name: string, jobId: string): Promise<{ finish(): Promise<number> }> {
  const request = Buffer.concat([Buffer.from(headOf(name, jobId, SIZES)), bodyOf(jobId, SIZES)]);
  const socket: Socket = connect(server.port, '127.0.0.1');
  const answer = new Promise<Buffer>((resolve, reject) => {
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => resolve(Buffer.concat(chunks)));
    socket.on('error', reject);
  });
  socket.write(request.subarray(0, -1));
  const { env } = groupPaths(join(site.incoming, `client1_${name}`));
  await until(() => existsSync(env) && statSync(env).size === SIZES.env - 1, 'all but the last byte');
  return {
    finish: async () => {
      socket.write(request.subarray(-1));
      return parseAnswer(await answer).status;
    },
  };
}

describe('original servers that share the locker and the log', needsPerl, () => {
  it('lose nothing to new servers and take nothing from them, four of each at once', { timeout: 300_000 }, async () => {
    const stored = new Map<string, { jobId: string; lengths: Lengths }>();
    const sizesOf = (run: number): Lengths => ({ out: (run % 7) * 9_000, err: (run % 3) * 50, env: 600 });
    let left = 4;
    const ours = async (who: number): Promise<void> => {
      for (let run = 0; run < OURS; run++) {
        const [name, jobId] = [`ours_${who}_${run}`, `server_1_0000000001_1${who}${run}`];
        assert.equal(await put(name, jobId, sizesOf(run)), 200);
        stored.set(name, { jobId, lengths: sizesOf(run) });
      }
      left--;
    };
    const theirs = async (who: number): Promise<void> => {
      const writer = startWriter();
      // Runs as long as our writers do, at a pace that leaves the processors to them.
      for (let run = 0; left > 0 || run < THEIRS; run++, await sleep(10)) {
        const [name, jobId] = [`theirs_${who}_${run}`, `server_2_0000000001_2${who}${run}`];
        assert.equal(await writer.put(`client1_${name}`, jobId, sizesOf(run)), 200);
        stored.set(name, { jobId, lengths: sizesOf(run) });
      }
    };
    await Promise.all([0, 1, 2, 3].flatMap((who) => [ours(who), theirs(who)]));
    assert.ok(stored.size >= 4 * (OURS + THEIRS), `${stored.size} uploads`);
    for (const [name, { jobId, lengths }] of stored) checkGroup(name, jobId, lengths);
    assert.equal(readdirSync(site.incoming).length, stored.size * 4, 'nothing else is left');
    const lines = logged();
    assert.deepEqual(
      lines
        .map(({ jobId, fileName, bytesReceived, status, message }) =>
          [jobId, fileName, bytesReceived, status, message].join(' '),
        )
        .sort(),
      [...stored]
        .map(
          ([
            name,
            {
              jobId,
              lengths: { out, err, env },
            },
          ]) => `${jobId} ${name} ${out + err + env} 200 Success`,
        )
        .sort(),
    );
  });

  it('keep a name that they hold, against new servers at any step', async () => {
    const writer = startWriter();
    for (const step of ['look', 'write', 'middle', 'ready'] as const) {
      await writer.putUntil(step, `client1_${step}`, 'theirs', SIZES);
      assert.equal(await put(step, 'ours', SIZES), 451, step);
      assert.equal(await writer.finish(), 200);
      checkGroup(step, 'theirs', SIZES);
      assert.equal(await put(step, 'late', SIZES), 451, 'and afterwards');
      checkGroup(step, 'theirs', SIZES);
    }
    assert.equal(readdirSync(site.incoming).length, 16);
    assert.deepEqual(
      logged().map(({ jobId, status }) => `${jobId} ${status}`),
      ['look', 'write', 'middle', 'ready'].flatMap(() => ['ours 451', 'theirs 200', 'late 451']),
    );
  });

  it('are refused a name that a new server holds, and leave the streams alone', async () => {
    const writer = startWriter();
    const upload = await putAlmost('held', 'ours');
    assert.equal(await writer.put('client1_held', 'theirs', SIZES), 451);
    const status = await upload.finish();
    const paths = groupPaths(join(site.incoming, 'client1_held'));
    for (const stream of STREAMS) {
      assert.ok(readFileSync(paths[stream], 'latin1') === contentOf('ours', stream, SIZES[stream]), stream);
    }
    // It removes a .lck that it did not make. Ours may then announce or fail, but reports which.
    assert.ok(status === 200 || status === 500, `status ${status}`);
    assert.equal(existsSync(paths.rdy), status === 200);
    if (status === 200) checkGroup('held', 'ours', SIZES);
    assert.deepEqual(
      logged().map(({ jobId, status }) => `${jobId} ${status}`),
      ['theirs 451', `ours ${status}`],
    );
  });

  // An original server truncates the .lck before it notices that the name is taken; the locker
  // renames it to .rdy as it is.
  it('cannot empty the ready line of an upload that a new server announces meanwhile', async () => {
    const writer = startWriter();
    const upload = await putAlmost('announced', 'ours');
    await writer.putUntil('refuse', 'client1_announced', 'theirs', SIZES);
    const status = await upload.finish();
    assert.equal(await writer.finish(), 451);
    assert.equal(status, 200);
    checkGroup('announced', 'ours', SIZES);
  });
});

describe('clients as old as the original servers', () => {
  const none: Lengths = { out: 12, err: 0, env: 30 };
  const freshId = /^server_1_\d{10}_\d{5,}$/;

  it('may omit the Job-Id: the upload is given a new one', async () => {
    assert.equal(
      (await askStrictly({ port: server.port, head: headOf('old', undefined, none), body: [bodyOf('x', none)] }))
        .status,
      200,
    );
    const [line] = logged();
    assert.match(line?.jobId ?? '', freshId);
    const paths = groupPaths(join(site.incoming, 'client1_old'));
    assert.equal(readFileSync(paths.rdy, 'latin1'), `Jid=${line?.jobId}\n`);
    assert.equal(readFileSync(paths.out, 'latin1'), contentOf('x', 'out', 12));
  });

  for (const connection of ['', 'Connection: keep-alive\r\n', 'Connection: close\r\n']) {
    it(`may use HTTP/1.0, without a Host${connection && `, ${connection.trim()}`}`, async () => {
      const head = headOf('old', 'job_7', none, 'HTTP/1.0').replace(AUTHORIZATION, `${connection}${AUTHORIZATION}`);
      const stored = await sendRaw(server.port, Buffer.concat([Buffer.from(head), bodyOf('job_7', none)]));
      assert.equal(parseAnswer(Buffer.from(stored, 'latin1')).status, 200);
      checkGroup('old', 'job_7', none);
      const query = 'VERSION=webjob+1.2.0&SYSTEM=any&CLIENTID=client1&FILENAME=host.sh';
      const get = `GET /webjob/nph-webjob.cgi?${query} HTTP/1.0\r\n${connection}${AUTHORIZATION}\r\nContent-Length: 0\r\n\r\n`;
      const got = parseAnswer(Buffer.from(await sendRaw(server.port, Buffer.from(get)), 'latin1'));
      assert.deepEqual([got.status, got.body.toString()], [200, '#!/bin/sh\nhostname\n']);
      assert.match(got.headers.get('job-id') ?? '', freshId);
      assert.deepEqual(
        logged().map(({ method, status }) => `${method} ${status}`),
        ['PUT 200', 'GET 200'],
      );
    });
  }
});
