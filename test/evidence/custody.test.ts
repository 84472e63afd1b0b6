// The custody record under httpd: a 200 is only sent for an upload whose record is on disk, the
// record says what was stored and who sent it, and the client is told when no record can be
// written.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import { makeSite, type Site } from '../../scripts/site.ts';
import { runBare } from '../support/bare.ts';
import { custodyOf, readRecords } from '../support/custody-record.ts';
import { formatHead, giveAway, type Put, startCommandSite } from '../support/hooks-site.ts';
import { inject, NO_STRACE } from '../support/locker-strace.ts';
import { bareOptions, makeLockerSite, makeScratch, makeUpload, rawPut, statusOf } from '../support/locker-upload.ts';
import { makeCertificates, useSite } from '../support/secure-site.ts';
import { part } from '../support/thorough.ts';
import { findWebUser, readLog } from '../support/tree.ts';

/** The output of the system's own program for a file. */
function sha256sum(path: string): string {
  return spawnSync('sha256sum', [path], { encoding: 'latin1' }).stdout.slice(0, 64);
}

/** The files of an upload in the form of the record. */
function contentOf(base: string): Record<string, unknown> {
  const streams = ['out', 'err', 'env'] as const;
  return {
    bytes: Object.fromEntries(streams.map((stream) => [stream, readFileSync(`${base}.${stream}`).length])),
    sha256: Object.fromEntries(streams.map((stream) => [stream, sha256sum(`${base}.${stream}`)])),
  };
}

const UPLOAD: Put = {
  jobId: 'server_9_1085355126_00723',
  out: `\0\xff${'o'.repeat(700_001)}`,
  err: 'e',
  env: 'Key=value\n',
};

for (const mpm of part(['prefork', 'event'] as const, 1)) {
  describe(`the custody record under ${mpm}`, async () => {
    const its = await startCommandSite({ mpm });
    const { site } = its;
    const custody = custodyOf(site);
    after(its.close);
    beforeEach(() => {
      its.reset();
      its.configure({ PutNameFormat: 'f/%jid' });
    });

    it('names what was stored, who sent it and when', async () => {
      for (const put of [UPLOAD, { jobId: 'a', out: '', err: '', env: '' }]) {
        writeFileSync(custody, '');
        const before = Date.now();
        assert.equal((await its.put(put)).status, 200);
        const [record, ...more] = readRecords(custody);
        assert.deepEqual(more, []);
        const { covers, prev, sum, time, receivedAt, pid, ...facts } = record ?? {};
        assert.deepEqual(facts, {
          event: 'deposit',
          serverId: 'server_1',
          name: `f/${put.jobId}`,
          jobId: put.jobId,
          clientId: 'client1',
          fileName: 'host.sh',
          remoteUser: 'client1',
          remoteAddress: '127.0.0.1',
          ...contentOf(join(site.incoming, 'f', String(put.jobId))),
        });
        const times = [before, Date.parse(String(receivedAt)), Date.parse(String(time)), Date.now()];
        assert.deepEqual(times, times.toSorted(), 'in the order in which it happened');
        assert.ok(Number.isInteger(pid));
      }
    });

    it('has one entry for each of many concurrent clients', async () => {
      const names = Array.from({ length: 12 }, (_, number) => `job_${number}`);
      const answers = await Promise.all(names.map((jobId) => its.put({ ...UPLOAD, jobId, out: jobId })));
      assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
      assert.equal((await its.put({ ...UPLOAD, jobId: 'last' })).status, 200);
      assert.deepEqual(
        readRecords(custody)
          .map(({ jobId }) => jobId)
          .toSorted(),
        [...names, 'last'].sort(),
      );
    });

    it('reports what a hook left', async () => {
      const hook = { PutHookEnable: 'Y', PutHookCommandLine: 'echo changed > %out; : > %err' };
      its.configure({ PutNameFormat: '%jid', ...hook });
      assert.equal((await its.put(UPLOAD)).status, 200);
      const [record] = readRecords(custody);
      assert.deepEqual(
        { bytes: record?.bytes, sha256: record?.sha256 },
        contentOf(join(site.incoming, String(UPLOAD.jobId))),
      );
      assert.deepEqual(record?.bytes, { out: 8, err: 0, env: 10 });
    });

    it('has nothing of what was not stored, and is off when it is switched off', async () => {
      its.configure({ PutNameFormat: '%jid', PutHookEnable: 'Y', PutHookCommandLine: 'exit 1' });
      assert.equal((await its.put(UPLOAD)).status, 551);
      its.configure({ PutNameFormat: '%jid' });
      assert.equal((await its.put(UPLOAD)).status, 451);
      assert.equal((await its.put({ ...UPLOAD, runType: 'linktest' })).status, 251);
      its.configure({ PutNameFormat: '%jid', EnableCustody: 'N' });
      assert.equal((await its.put({ ...UPLOAD, jobId: 'off' })).status, 200);
      assert.deepEqual(readRecords(custody), []);
    });
  });
}

/** A script with the rights of the tests could write what the web user may not. */
const needsRoot = { skip: !findWebUser() && 'only root can be two users' };

describe('a custody record that cannot be written', () => {
  let site: Site;
  const sites: Site[] = [];
  beforeEach(() => {
    site = makeLockerSite();
    sites.push(site);
  });
  afterEach(() => {
    for (const made of sites.splice(0)) made.remove();
  });
  const upload = makeUpload('host.sh', { out: 3000, err: 10, env: 100 });
  const put = (wrapper: string[] = []) => runBare(rawPut(upload), bareOptions(site, { wrapper, timeLimitSeconds: 60 }));
  const standing = (): string[] =>
    readdirSync(site.incoming)
      .map((name) => name.slice(-4))
      .sort();

  it('is reported in the error log where its file is missing, and the upload is accepted', needsRoot, async () => {
    site = makeSite({ settings: { PutNameFormat: '%cid_%cmd' }, withoutCustody: true });
    sites.push(site);
    const { stdout, stderr } = await put();
    assert.equal(statusOf(stdout), 200);
    assert.equal(stderr, `nph-webjob: no custody record is kept: ${custodyOf(site)}: open failed: EACCES\n`);
    assert.deepEqual(standing(), ['.env', '.err', '.out', '.rdy']);
    assert.ok(!existsSync(custodyOf(site)));
  });

  it('is made where the web user may make it', async () => {
    rmSync(custodyOf(site));
    giveAway(join(site.base, 'logfiles'));
    assert.equal(statusOf((await put()).stdout), 200);
    assert.equal(readRecords(custodyOf(site)).length, 1);
  });

  it('causes 500 when the file exists, and the upload stays without .rdy', needsRoot, async () => {
    rmSync(custodyOf(site));
    writeFileSync(custodyOf(site), '', { mode: 0o600 });
    const { stdout, stderr } = await put();
    assert.deepEqual([statusOf(stdout), stderr], [500, '']);
    assert.match(
      readLog(site.base).at(-1) ?? '',
      / 500 -- Internal Server Error: custody record: open failed: EACCES$/,
    );
    assert.deepEqual(standing(), ['.env', '.err', '.out']);
  });

  const faults = [
    { call: 'write', error: 'ENOSPC', status: 507, left: [] },
    { call: 'write', error: 'EIO', status: 500, left: ['.env', '.err', '.out'] },
    { call: 'fsync', error: 'EIO', status: 500, left: ['.env', '.err', '.out'] },
  ];
  for (const { call, error, status, left } of faults) {
    it(`causes ${status} when ${call} fails with ${error}`, { skip: NO_STRACE }, async () => {
      const { stdout, stderr } = await put(
        inject(join(makeScratch(site, 'scratch'), 'trace'), `${call}:error=${error}`, [custodyOf(site)]),
      );
      assert.equal(statusOf(stdout), status, stderr);
      assert.match(readLog(site.base).at(-1) ?? '', new RegExp(`custody record: \\w+ failed: ${error}$`));
      assert.deepEqual(standing(), left);
    });
  }
});

describe('a client that lies', () => {
  const site = makeSite({ settings: { PutNameFormat: '%pid', RequireMatch: 'N' } });
  after(site.remove);

  it('adds no line, no field and no terminal sequence', async () => {
    const forged = '{"covers":[0,0],"prev":"0","event":"deposit"}';
    const values = [`"}\n${forged}`, `","sum":"${'a'.repeat(64)}"}\n`, '\x1b[2J', '\u2028', '\x7f', '\u{1f600}', '\\'];
    for (const value of values) {
      writeFileSync(custodyOf(site), '');
      const text = Buffer.from(value).toString('latin1');
      const names = ['REMOTE_USER', 'REMOTE_ADDR', 'SSL_CLIENT_VERIFY', 'SSL_CLIENT_S_DN'] as const;
      const environment = names.map((name) => [name, text] as const);
      const raw = Buffer.from(formatHead('PUT', { jobId: `"}${forged}` }), 'latin1');
      const { stdout, stderr } = await runBare(raw, bareOptions(site, { environment }));
      assert.equal(statusOf(stdout), 200, stderr);
      const [record, ...more] = readRecords(custodyOf(site));
      const said = [record?.remoteUser, record?.remoteAddress, record?.tlsVerify, record?.tlsSubject];
      assert.deepEqual([said, more, record?.jobId], [[value, value, value, value], [], `"}${forged}`]);
      assert.match(readFileSync(custodyOf(site), 'latin1'), /^[\x20-\x7e]+\n$/);
    }
  });
});

describe('a client with a certificate', () => {
  const certificates = makeCertificates();
  after(() => certificates.remove());
  const use = useSite({ certificates, virtualHost: 'certificate' });

  it('is recorded by the subject that httpd verified', async () => {
    const its = use();
    its.configure('certificate');
    its.permit('htaccess-certificates');
    const identity = certificates.site.issue({ subject: '/O=Example, Inc./CN=client1' });
    assert.equal(await its.status({ identity, upload: Buffer.from('a') }), 200);
    const [record] = readRecords(custodyOf(its.site));
    assert.equal(record?.tlsVerify, 'SUCCESS');
    assert.match(String(record?.tlsSubject), /CN=client1/);
    assert.match(String(record?.tlsSubject), /O=Example\\?, Inc\./);
    assert.equal(
      `${record?.name}.out`,
      basename(readdirSync(its.site.incoming).find((name) => name.endsWith('.out')) ?? ''),
    );
  });
});
