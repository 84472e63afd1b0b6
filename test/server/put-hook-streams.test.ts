// The streams that a PutHook leaves: an upload without one of them is not announced, changed ones
// are on disk, and a repeated upload is recognised although the files have other bytes by then.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { afterEach, describe, it } from 'node:test';
import { configure } from '../../scripts/site.ts';
import { runBare } from '../support/bare.ts';
import { custodyOf, readRecords } from '../support/custody-record.ts';
import { type LockerSite, makeLockerSite, makeRecord } from '../support/locker-site.ts';
import { NO_STRACE, readTrace, traceTo } from '../support/locker-strace.ts';
import { makeScratch } from '../support/locker-upload.ts';
import { findWebUser, readFiles, readLog } from '../support/tree.ts';
import { formatHead, type Put } from '../support/wire-request.ts';

const NAMING = { PutNameFormat: '%cid/%jid_%cmd', OverwriteExistingFiles: 'Y', PutHookEnable: 'Y' };
const JOB = 'server_1_1085355126_00723';
const FIRST = `client1/${JOB}_host.sh`;
const REPEATED = / 200 -- Success: the same upload was stored before$/;
const ENV = makeRecord({ ClientId: 'client1', GetRequest: 'host.sh', Jid: JOB });
/** Ways of a hook to change the bytes that the client sent. */
const CHANGES: Record<string, string> = {
  'of another length': 'echo more >> %out',
  'of the same length, in place': 'printf X | dd of=%out conv=notrunc 2> /dev/null',
  'in another file': 'tr a-z A-Z < %out > %out.x && mv %out.x %out',
  'of every stream': 'for f in %out %err %env; do gzip < $f > $f.x && mv $f.x $f || exit 1; done',
};

let its: LockerSite;
afterEach(() => its.close());

function start(settings: Record<string, string>): void {
  its = makeLockerSite({ ...NAMING, ...settings });
}

function upload(more: Partial<Put> = {}): Put {
  return { clientId: 'client1', fileName: 'host.sh', jobId: JOB, out: 'out', err: 'err', env: ENV, ...more };
}

async function put(more: Partial<Put> = {}): Promise<number> {
  return (await its.put(upload(more))).status;
}

function names(): string[] {
  return [...readFiles(its.site.incoming)].map(([path]) => path).filter((path) => path.endsWith('.rdy'));
}

async function verify(): Promise<string[]> {
  const values = await its.readJson<{ kind?: string; place?: string }>('verify');
  return values.flatMap(({ kind, place }) => (kind && place ? [`${kind} ${place}`] : []));
}

describe('a PutHook that removes a stream', () => {
  const WAYS: Record<string, [hook: string, detail: string]> = {
    'by removing it': ['rm %out', '.out: ENOENT'],
    'by removing another': ['rm %env', '.env: ENOENT'],
    'by a link in its place': ['ln -sf /etc/hostname %err', '.err: ELOOP'],
    'by a folder in its place': ['rm %out && mkdir %out', '.out'],
    'by a FIFO in its place': ['rm %out && mkfifo %out', '.out'],
  };
  for (const [how, [hook, detail]] of Object.entries(WAYS))
    for (const EnableCustody of ['Y', 'N'])
      it(`causes 551, and nothing is announced: ${how}, with EnableCustody=${EnableCustody}`, async () => {
        start({ PutHookCommandLine: hook, EnableCustody });
        assert.equal(await put(), 551);
        const what = `551 -- Hook Failed: PutHook left no regular file as ${detail}`;
        assert.ok(readLog(its.site.base)[0]?.endsWith(what), readLog(its.site.base)[0]);
        assert.deepEqual(names(), []);
        assert.deepEqual(readRecords(custodyOf(its.site)), []);
      });
});

describe('a PutHook that changes a stream', () => {
  it('has it on disk before the upload is announced', { skip: NO_STRACE }, async () => {
    start({ PutHookCommandLine: CHANGES['in another file'] ?? '', EnableCustody: 'N' });
    const trace = join(makeScratch(its.site, 'traces'), 'trace');
    const { out, err, env } = upload();
    const raw = `${formatHead('PUT', upload())}${out}${err}${env}`;
    const options = { settingsFile: its.site.propertiesFile, user: findWebUser(), timeLimitSeconds: 60 };
    await runBare(Buffer.from(raw, 'latin1'), { ...options, wrapper: traceTo(trace) });
    const calls = readTrace(trace).map(({ name, text }) => ({ name, text }));
    const changed = calls.findLastIndex(({ name, text }) => /^rename/.test(name) && text.includes('.out.x'));
    const announced = calls.findLastIndex(({ name, text }) => /^rename/.test(name) && text.includes('.rdy'));
    const synced = calls.slice(changed, announced).filter(({ name }) => name === 'fsync');
    for (const stream of ['out', 'err', 'env'])
      assert.ok(
        synced.some(({ text }) => text.includes(`${FIRST}.${stream}`)),
        stream,
      );
    assert.ok(0 < changed && changed < announced);
  });

  for (const [how, hook] of Object.entries(CHANGES))
    for (const settings of [{}, { OverwriteExistingFiles: 'N' }, { KeepDifferingUploads: 'N' }])
      it(`lets an identical upload be recognized: ${how} ${JSON.stringify(settings)}`, async () => {
        start({ PutHookCommandLine: hook, ...settings });
        assert.deepEqual([await put(), await put(), await put()], [200, 200, 200]);
        const [, ...again] = readLog(its.site.base);
        for (const line of again) assert.match(line, REPEATED);
        assert.deepEqual(names(), [`${FIRST}.rdy`]);
        assert.equal([...readFiles(its.site.incoming)].length, 4);
        const [record, ...more] = readRecords(custodyOf(its.site));
        assert.deepEqual(more, []);
        const sha256 = Object.fromEntries(
          Object.entries({ out: 'out', err: 'err', env: ENV }).map(([name, text]) => [name, digest(text)]),
        );
        assert.deepEqual(record?.received, { bytes: { out: 3, err: 3, env: ENV.length }, sha256 });
        assert.notDeepEqual(record?.sha256, sha256);
      });

  it('keeps other bytes beside the upload, and both are recognized', async () => {
    start({ PutHookCommandLine: CHANGES['in another file'] ?? '' });
    for (const out of ['one', 'two', 'one', 'two', 'TWO']) assert.equal(await put({ out }), 200);
    assert.deepEqual(
      readLog(its.site.base).map((line) => REPEATED.test(line)),
      // The current contents of the files were sent in the end.
      [false, false, true, true, true],
    );
    assert.deepEqual(names(), [`${FIRST}.rdy`, `${FIRST}~2.rdy`]);
    const found = (await verify()).filter((finding) => finding.startsWith('differing'));
    assert.deepEqual(found, [`differing ${FIRST}~2`]);
  });

  it('refuses other bytes with OverwriteExistingFiles=N', async () => {
    start({ PutHookCommandLine: CHANGES['of another length'] ?? '', OverwriteExistingFiles: 'N' });
    assert.deepEqual([await put(), await put({ out: 'OUT' }), await put({ out: 'longer' })], [200, 451, 451]);
    assert.deepEqual(names(), [`${FIRST}.rdy`]);
  });

  it('has the job recognized by its id, unlike an upload that was not announced', async () => {
    start({ PutHookCommandLine: CHANGES['of another length'] ?? '', PutNameFormat: '%cid/%cmd' });
    assert.deepEqual([await put(), await put({ jobId: 'other' })], [200, 200]);
    assert.deepEqual(names(), ['client1/host.sh.rdy', 'client1/host.sh~2.rdy']);
    configure(its.site, { ...NAMING, PutHookCommandLine: 'echo more >> %out; exit 3', PutHookStatus: '0' });
    assert.deepEqual([await put(), await put()], [551, 551]);
  });

  it('has the job recognized past the end of a segment of the custody record', async () => {
    start({ PutHookCommandLine: CHANGES['of another length'] ?? '', CustodySegmentLimit: '1' });
    assert.deepEqual([await put({ jobId: 'other' }), await put(), await put()], [200, 200, 200]);
    assert.match(readLog(its.site.base).at(-1) ?? '', REPEATED);
  });

  it('is not consulted about streams that it did not change', async () => {
    start({ PutHookCommandLine: 'true' });
    assert.deepEqual([await put(), await put(), await put({ out: 'OUT' })], [200, 200, 200]);
    for (const record of readRecords(custodyOf(its.site))) assert.equal(record.received, undefined);
    assert.deepEqual(names(), [`${FIRST}.rdy`, `${FIRST}~2.rdy`]);
  });
});

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
