// Nothing that was acknowledged can be destroyed by a client: the same upload again is stored once, another of the same name is kept beside
// the first, and where a site insists on replacing, the records say so.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { configure } from '../scripts/site.ts';
import { runBare } from './bare.ts';
import { custodyOf, readRecords } from './custody-record.ts';
import { type LockerSite, makeLockerSite, makeRecord } from './locker-site.ts';
import { findWebUser, readFiles, readLog } from './tree.ts';
import { formatHead, type Put } from './wire-request.ts';

const RECOMMENDED = { PutNameFormat: '%cid/%jid_%cmd', OverwriteExistingFiles: 'Y' };
const JOB = 'server_1_1085355126_00723';
const FIRST = `client1/${JOB}_host.sh`;
const REPEATED = / 200 -- Success: the same upload was stored before$/;
/** Longer than what is compared at once. */
const LARGE = randomBytes(600_000).toString('latin1');

let its: LockerSite;
beforeEach(() => {
  its = makeLockerSite(RECOMMENDED);
});
afterEach(() => its.close());

function upload(more: Partial<Put> = {}): Put {
  return { clientId: 'client1', fileName: 'host.sh', jobId: JOB, out: 'out', err: 'err', env: 'env\n', ...more };
}

/** The locker, by path. */
function stored(): Record<string, string> {
  return Object.fromEntries(readFiles(its.site.incoming));
}

function group(name: string, { out = '', err = '', env = '', jobId }: Put): Record<string, string> {
  return { [`${name}.out`]: out, [`${name}.err`]: err, [`${name}.env`]: env, [`${name}.rdy`]: `Jid=${jobId}\n` };
}

async function put(more: Partial<Put> = {}): Promise<number> {
  return (await its.put(upload(more))).status;
}

async function verify(): Promise<string[]> {
  const values = await its.readJson<{ kind?: string; place?: string }>('verify');
  return values.flatMap(({ kind, place }) => (kind && place ? [`${kind} ${place}`] : []));
}

describe('the same upload again', () => {
  for (const [what, given] of [
    ['small', {}],
    ['larger than what is compared at once', { out: LARGE, err: LARGE.slice(1), env: LARGE.slice(2) }],
    ['of nothing', { out: '', err: '', env: '' }],
    ['of stderr alone', { out: '', env: '' }],
  ] as [string, Partial<Put>][]) {
    for (const OverwriteExistingFiles of ['Y', 'N'])
      it(`${what}, is answered 200 and stored once with OverwriteExistingFiles=${OverwriteExistingFiles}`, async () => {
        configure(its.site, { ...RECOMMENDED, OverwriteExistingFiles });
        assert.deepEqual([await put(given), await put(given), await put(given)], [200, 200, 200]);
        assert.deepEqual(stored(), group(FIRST, upload(given)));
        const [first = '', ...others] = readLog(its.site.base);
        assert.match(first, / 200 -- Success$/);
        for (const line of others) assert.match(line, REPEATED);
        assert.equal(readRecords(custodyOf(its.site)).length, 1);
        assert.deepEqual(await verify(), []);
      });
  }

  it('is compared with what lies on disk, not with what is remembered', async () => {
    await put();
    writeFileSync(join(its.site.incoming, `${FIRST}.out`), 'OUT');
    assert.equal(await put(), 200);
    assert.deepEqual(stored(), { ...group(FIRST, upload({ out: 'OUT' })), ...group(`${FIRST}~2`, upload()) });
  });

  it('of another job is another upload', async () => {
    configure(its.site, { PutNameFormat: '%cid/%cmd', OverwriteExistingFiles: 'Y' });
    assert.deepEqual([await put(), await put({ jobId: 'other' })], [200, 200]);
    const name = 'client1/host.sh';
    assert.deepEqual(stored(), { ...group(name, upload()), ...group(`${name}~2`, upload({ jobId: 'other' })) });
  });

  it('runs no hook and no trigger', async () => {
    const mark = join(its.site.base, 'incoming', 'mark');
    const more = { PutHookEnable: 'Y', PutHookCommandLine: `echo >> ${mark}` };
    const trigger = { PutTriggerEnable: 'Y', PutTriggerCommandLine: `echo >> ${mark}`, GetTriggerEnable: 'Y' };
    configure(its.site, { ...RECOMMENDED, ...more, ...trigger, GetTriggerCommandLine: `echo get >> ${mark}` });
    await put();
    for (let tries = 0; stored().mark !== '\n\n' && tries < 200; tries++)
      await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(await put(), 200);
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(stored().mark, '\n\n');
  });

  it('that breaks off leaves the first as it is, and nothing beside it', async () => {
    await put({ out: LARGE });
    const before = stored();
    for (const bytes of [0, 1, 300_000, LARGE.length + 6]) {
      const raw = `${formatHead('PUT', upload({ out: LARGE }))}${`${LARGE}errenv\n`.slice(0, bytes)}`;
      const options = { settingsFile: its.site.propertiesFile, user: findWebUser(), timeLimitSeconds: 60 };
      const { stdout } = await runBare(Buffer.from(raw, 'latin1'), options);
      assert.match(stdout.toString('latin1'), /^HTTP\/1\.1 456 /, `${bytes} bytes`);
      assert.deepEqual(stored(), before);
    }
  });
});

describe('other bytes under the same name', () => {
  const DIFFERENT: [string, Partial<Put>][] = [
    ['first byte', { out: `X${LARGE.slice(1)}` }],
    ['a byte in the middle', { out: `${LARGE.slice(0, 262_144)}\x01${LARGE.slice(262_145)}` }],
    ['last byte', { env: 'env!' }],
    ['stderr', { err: 'eRr' }],
    ['length', { out: LARGE.slice(0, -1) }],
    ['end of it moved into the next stream', { out: LARGE.slice(0, -1), err: `${LARGE.at(-1)}err` }],
  ];
  for (const [where, given] of DIFFERENT)
    it(`are kept beside it when they differ in: ${where}`, async () => {
      const [one, two] = [upload({ out: LARGE }), upload({ out: LARGE, ...given })];
      if (JSON.stringify(one) === JSON.stringify(two)) assert.fail('they do not differ');
      for (const given of [one, two, one, two]) assert.equal((await its.put(given)).status, 200);
      assert.deepEqual(stored(), { ...group(FIRST, one), ...group(`${FIRST}~2`, two) });
      const repeated = readLog(its.site.base).map((line) => REPEATED.test(line));
      assert.deepEqual(repeated, [false, false, true, true]);
      const records = readRecords(custodyOf(its.site));
      assert.deepEqual(
        records.map(({ event, name, differsFrom }) => [event, name, differsFrom]),
        [
          ['deposit', FIRST, undefined],
          ['deposit', `${FIRST}~2`, FIRST],
        ],
      );
      assert.deepEqual(await verify(), [`differing ${FIRST}~2`]);
    });

  it('are numbered on, and all that reads the locker names the job', async () => {
    const env = makeRecord({ ClientId: 'client1', GetRequest: 'host.sh', Jid: JOB });
    for (let number = 1; number <= 12; number++) assert.equal(await put({ out: `out ${number}`, env }), 200);
    const names = Object.keys(stored()).flatMap((path) => (path.endsWith('.rdy') ? [path.slice(0, -4)] : []));
    const numbered = Array.from({ length: 11 }, (_, index) => `${FIRST}~${index + 2}`);
    assert.deepEqual(names.sort(), [FIRST, ...numbered].sort());
    assert.deepEqual((await verify()).sort(), numbered.map((name) => `differing ${name}`).sort());
    assert.match((await its.webjobctl('jobs')).text, / 11 differing uploads\n$/);
    assert.match((await its.webjobctl('show', JOB)).text, /^Differs: +11 differing uploads$/m);
    const [job] = await its.readJson<{ uploads: string[] }>('jobs');
    assert.equal(job?.uploads.length, 12);
  });

  it('are found whole after eight writers at once, each content exactly once', async () => {
    const outs = Array.from({ length: 8 }, (_, index) => `${index} ${LARGE.slice(index)}`);
    await Promise.all(
      outs.map(async (out) => {
        for (let tries = 0; tries < 100; tries++) {
          const status = await put({ out });
          if (status === 200) return;
          assert.equal(status, 451);
          await new Promise((resolve) => setTimeout(resolve, 50 * Math.random()));
        }
        assert.fail('never taken');
      }),
    );
    const found = Object.entries(stored()).flatMap(([path, text]) => (path.endsWith('.out') ? [text] : []));
    assert.deepEqual(found.sort(), outs.sort());
    assert.ok(!Object.keys(stored()).some((path) => path.endsWith('.lck')));
  });

  it('are refused with OverwriteExistingFiles=N', async () => {
    configure(its.site, { ...RECOMMENDED, OverwriteExistingFiles: 'N' });
    assert.deepEqual([await put(), await put({ out: 'OUT' }), await put({ out: 'other' })], [200, 451, 451]);
    assert.deepEqual(stored(), group(FIRST, upload()));
  });
});

describe('KeepDifferingUploads=N', () => {
  it('replaces, and the custody record and verify say what was replaced', async () => {
    configure(its.site, { ...RECOMMENDED, KeepDifferingUploads: 'N' });
    assert.deepEqual([await put(), await put(), await put({ out: 'other' })], [200, 200, 200]);
    assert.deepEqual(stored(), group(FIRST, upload({ out: 'other' })));
    const records = readRecords(custodyOf(its.site));
    assert.deepEqual(
      records.map(({ event }) => event),
      ['deposit', 'replaced', 'deposit'],
    );
    const { name, jobId, replacedBy, bytes, sha256 } = records[1] ?? {};
    const digest = (text: string): string => createHash('sha256').update(text).digest('hex');
    assert.deepEqual([name, jobId, replacedBy], [FIRST, JOB, JOB]);
    assert.deepEqual(bytes, { out: 3, err: 3, env: 4 });
    assert.deepEqual(sha256, { out: digest('out'), err: digest('err'), env: digest('env\n') });
    assert.deepEqual(await verify(), [`replaced ${FIRST}`]);
  });

  it('is Y unless said otherwise', () => {
    assert.match(
      readFileSync(join(import.meta.dirname, '../conf/nph-webjob.cfg'), 'utf8'),
      /^KeepDifferingUploads=Y$/m,
    );
  });
});
