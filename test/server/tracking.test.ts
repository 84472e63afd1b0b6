// Request tracking under httpd: one line of JSON for each request, with the facts of the request,
// which nothing that a client sends can break or forge.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { configure, makeSite, type Site } from '../../scripts/site.ts';
import { custodyOf, readRecords } from '../support/custody-record.ts';
import { formatHead, giveAway, type Put, prepareSite, readLines, startCommandSite } from '../support/hooks-site.ts';
import { askWorker } from '../support/locker-worker.ts';

/** The lines so far, each of them one object in plain ASCII. */
function readTracks(site: Site): Record<string, unknown>[] {
  return readLines(join(site.base, 'logfiles/nph-webjob.json.log')).map((line) => {
    assert.match(line, /^\{[\x20-\x7e]*\}$/);
    return JSON.parse(line) as Record<string, unknown>;
  });
}

/** The output of the system's own program. */
function sha256sum(content: string): string {
  return spawnSync('sha256sum', { input: Buffer.from(content, 'latin1'), encoding: 'latin1' }).stdout.slice(0, 64);
}

/** Checks and removes what differs between requests. */
function checkCommonFacts(track: Record<string, unknown> | undefined, before: number): Record<string, unknown> {
  const { time, pid, milliseconds, ...facts } = track ?? {};
  assert.ok(typeof time === 'string' && time === new Date(time).toISOString());
  assert.ok(Date.parse(time) >= before && Date.parse(time) <= Date.now(), time);
  assert.ok(Number.isInteger(pid) && Number.isInteger(milliseconds), `${pid} ${milliseconds}`);
  assert.ok(Number(milliseconds) >= 0 && Number(milliseconds) <= Date.now() - before, `${milliseconds} ms`);
  return facts;
}

const CLIENT = { serverId: 'server_1', remoteUser: 'client1', remoteAddress: '127.0.0.1', clientId: 'client1' };
const PROGRAM = { fileName: 'host.sh', version: 'webjob 1.4.0', system: 'any' };

for (const way of ['event', 'worker'] as const) {
  describe(`request tracking under ${way}`, async () => {
    const its = await startCommandSite(way === 'worker' ? way : { mpm: way });
    const { site } = its;
    const signature = join(site.profiles, 'client1/host.sh.sig');
    after(its.close);
    beforeEach(() => {
      its.reset();
      rmSync(signature, { force: true });
      its.configure({ EnableRequestTracking: 'Y', PutNameFormat: 'f/%cid.x' });
    });
    const upload: Put = {
      jobId: 'a',
      out: `\0\xff${'o'.repeat(700_001)}`,
      err: 'e'.repeat(300_000),
      env: 'Key=value\n',
    };

    it('reports what was served', async () => {
      for (const signed of [false, true]) {
        its.reset();
        if (signed) writeFileSync(signature, 'signed\n');
        const before = Date.now();
        const { headers, body } = await its.get();
        assert.deepEqual(checkCommonFacts(readTracks(site)[0], before), {
          ...CLIENT,
          ...PROGRAM,
          method: 'GET',
          jobId: headers.get('job-id'),
          bytesReceived: 0,
          bytesSent: 19,
          status: 200,
          message: 'Success',
          signed,
          sha256: { payload: sha256sum(body.toString()) },
        });
      }
    });

    it('reports the output of a hook, megabytes or nothing', async () => {
      for (const [command, bytes] of [
        ['yes 0123456 | head -c 3000001', 3_000_001],
        ['true', 0],
      ] as const) {
        its.reset();
        const hook = { GetHookEnable: 'Y', GetHookCommandLine: command };
        its.configure({ EnableRequestTracking: 'Y', ...hook });
        const { body } = await its.get();
        const [track] = readTracks(site);
        assert.deepEqual(track?.sha256, { payload: sha256sum(body.toString()) });
        assert.deepEqual([body.length, track?.bytesSent], [bytes, bytes]);
      }
    });

    it('reports what was stored', async () => {
      for (const streams of [upload, { ...upload, out: '', err: '', env: '' }, { ...upload, err: '' }]) {
        its.reset();
        const before = Date.now();
        assert.equal((await its.put(streams)).status, 200);
        const { out = '', err = '', env = '' } = streams;
        assert.equal(readTracks(site)[0]?.pid, readRecords(custodyOf(site)).at(-1)?.pid, 'that of the custody record');
        assert.deepEqual(checkCommonFacts(readTracks(site)[0], before), {
          ...CLIENT,
          ...PROGRAM,
          method: 'PUT',
          jobId: 'a',
          runType: 'snapshot',
          upload: 'client1.x',
          bytesOut: out.length,
          bytesErr: err.length,
          bytesEnv: env.length,
          bytesSent: 0,
          bytesReceived: out.length + err.length + env.length,
          status: 200,
          message: 'Success',
          sha256: { out: sha256sum(out), err: sha256sum(err), env: sha256sum(env) },
        });
      }
    });

    it('reports what was refused, without a digest', async () => {
      const before = Date.now();
      const statuses = [
        await its.get({ fileName: 'none.sh' }),
        await its.get({ clientId: 'client2' }),
        await its.get({ folder: '/open/' }),
        await its.get({ version: 'forged"}' }),
        await its.put({ ...upload, runType: 'linktest' }),
        await its.put({ ...upload, clientId: 'client2' }),
        await its.put({ ...upload, runType: 'portrait' }),
      ].map(({ status }) => status);
      assert.deepEqual(statuses, [404, 453, 452, 450, 251, 453, 450]);
      const tracks = readTracks(site);
      assert.deepEqual(
        tracks.map(({ status }) => status),
        statuses,
      );
      for (const track of tracks) {
        const { bytesSent, sha256, upload: name, tls } = checkCommonFacts(track, before);
        assert.deepEqual([bytesSent, sha256, name, tls], [0, undefined, undefined, undefined]);
      }
      const [, , anybody, illegible] = tracks;
      assert.equal(anybody?.remoteUser, undefined);
      assert.deepEqual([illegible?.clientId, illegible?.version], [undefined, undefined]);
    });

    it('records a bad setting, and is off by default', async () => {
      its.configure({ EnableRequestTracking: 'Y', EnablePutService: 'maybe' });
      assert.equal((await its.get()).status, 550);
      assert.match(String(readTracks(site)[0]?.message), /EnablePutService in line 3 /);
      its.configure({});
      assert.equal((await its.get()).status, 200);
      assert.equal(readTracks(site).length, 1);
    });

    it('keeps the lines of concurrent clients apart', async () => {
      its.configure({ EnableRequestTracking: 'Y', PutNameFormat: '%jid' });
      const client = async (number: number): Promise<(string | undefined)[]> => {
        const ids: (string | undefined)[] = [];
        for (let turn = 0; turn < 3; turn++) {
          ids.push((await its.get()).headers.get('job-id'));
          const jobId = `job_${number}_${turn}`;
          const system = encodeURIComponent('x'.repeat(200));
          assert.equal((await its.put({ ...upload, jobId, system, out: jobId })).status, 200);
          ids.push(jobId);
        }
        return ids;
      };
      const ids = await Promise.all(Array.from({ length: 8 }, (_, number) => client(number)));
      const tracks = readTracks(site);
      assert.deepEqual(tracks.map(({ jobId }) => jobId).sort(), ids.flat().sort());
      for (const { jobId, method, sha256 } of tracks) {
        if (method === 'PUT') assert.equal((sha256 as { out: string }).out, sha256sum(String(jobId)));
      }
    });

    it('changes no answer when its log cannot be written', async () => {
      const log = join(site.base, 'logfiles/nph-webjob.json.log');
      rmSync(log);
      mkdirSync(log);
      try {
        const { status, body } = await its.get();
        assert.deepEqual([status, body.length], [200, 19]);
        assert.equal((await its.put(upload)).status, 200);
        const told = its.errors().match(/nph-webjob: nph-webjob\.json\.log: EISDIR: \{.*\}/g);
        assert.equal(told?.length, 2, 'the error log has the lines');
        assert.equal(readLines(site.logFile).length, 2);
      } finally {
        rmSync(log, { recursive: true });
        writeFileSync(log, '');
        giveAway(log);
      }
    });
  });
}

const FORGED = '{"status":200,"jobId":"forged"}';
const HOSTILE = [
  ...[
    `"}\n${FORGED}`,
    `\\"}\r\n${FORGED}`,
    `\\\\"},${FORGED}`,
    `\u2028${FORGED}`,
    `\x85${FORGED}`,
    '\\',
    '"',
    '\\u000a',
  ],
  ...['\x1b[2J\x1b]0;x\x07', '\x7f', '\xff\xfe', '\u{1f600}', '</script>', '%0a', 'a\tb', "'", '\b\f\v'],
];

describe('a line of request tracking', () => {
  const site = makeSite();
  prepareSite(site);
  after(site.remove);
  const log = join(site.base, 'logfiles/nph-webjob.json.log');
  const utf8 = (text: string): string => Buffer.from(text).toString('latin1');

  /** The line of a request with these additional variables. */
  async function track(method: 'GET' | 'PUT', ask: Put, environment: [string, string][]) {
    writeFileSync(log, '');
    const raw = Buffer.from(formatHead(method, ask), 'latin1');
    const { status } = await askWorker(raw, site.propertiesFile, environment);
    const [line, ...more] = readTracks(site);
    assert.deepEqual(more, []);
    assert.equal(line?.status, status);
    return line;
  }

  it('treats what a web server says of a client as text, whatever it is', async () => {
    configure(site, { EnableRequestTracking: 'Y', RequireMatch: 'N', PutNameFormat: '%pid' });
    for (const value of HOSTILE) {
      const tls = [
        'SSL_PROTOCOL',
        'SSL_CIPHER',
        'SSL_CLIENT_VERIFY',
        'SSL_CLIENT_S_DN_CN',
        'SSL_CLIENT_S_DN',
        'SSL_CLIENT_I_DN',
      ];
      const names = ['REMOTE_USER', 'REMOTE_ADDR', ...tls];
      const line = await track('GET', {}, [
        ['HTTPS', 'on'],
        ...names.map((name): [string, string] => [name, utf8(value)]),
      ]);
      const expected = {
        protocol: value,
        cipher: value,
        verify: value,
        commonName: value,
        subject: value,
        issuer: value,
      };
      assert.deepEqual([line?.remoteUser, line?.remoteAddress, line?.tls], [value, value, expected]);
      assert.match(String(line?.jobId), /^server_1_/);
    }
  });

  it('treats methods, queries and job ids as text, or leaves them out', async () => {
    const hostileIds = ['"}{"a":"', '\\', '\\"', '\\u000a', `x",${FORGED.slice(1)}`, '</script>', "'--"];
    for (const jobId of hostileIds) {
      const line = await track('PUT', { jobId }, []);
      assert.deepEqual([line?.status, line?.jobId], [200, jobId]);
    }
    for (const value of HOSTILE) {
      const method = await track('GET', {}, [['REQUEST_METHOD', utf8(value)]]);
      assert.deepEqual([method?.status, method?.method], [405, value]);
      const query = await track('GET', {}, [
        ['QUERY_STRING', utf8(`VERSION=webjob&SYSTEM=${value}&CLIENTID=client1&FILENAME=host.sh`)],
      ]);
      assert.deepEqual([query?.status, query?.system], [450, undefined]);
      if (/^[\x21-\x7e]+$/.test(value)) continue;
      const id = await track('PUT', {}, [['HTTP_JOB_ID', utf8(value)]]);
      assert.deepEqual([id?.status, id?.jobId], [450, undefined]);
    }
    const line = await track('GET', { version: 'webjob+(1.4.0),_-', system: 'a:b/c~d%23e+f' }, []);
    assert.deepEqual([line?.version, line?.system], ['webjob (1.4.0),_-', 'a:b/c~d#e f']);
  });
});
