// No client can destroy what was acknowledged: a repeated upload is stored once, a different one of
// the same name is stored beside the first, and at a site that replaces uploads, the records say
// so.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { chownSync, mkdirSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { configure } from '../../scripts/site.ts';
import { runBare } from '../support/bare.ts';
import { custodyOf, readRecords } from '../support/custody-record.ts';
import { type LockerSite, makeLockerSite, makeRecord } from '../support/locker-site.ts';
import { NO_STRACE, readTrace, traceTo } from '../support/locker-strace.ts';
import { makeScratch } from '../support/locker-upload.ts';
import { findWebUser, readFiles, readLog } from '../support/tree.ts';
import { formatHead, type Put } from '../support/wire-request.ts';

const RECOMMENDED = { PutNameFormat: '%cid/%jid_%cmd', OverwriteExistingFiles: 'Y' };
const JOB = 'server_1_1085355126_00723';
const FIRST = `client1/${JOB}_host.sh`;
const REPEATED = / 200 -- Success: the same upload was stored before$/;
/** Larger than what is compared at once. */
const LARGE = randomBytes(600_000).toString('latin1');

let its: LockerSite;
beforeEach(() => {
  its = makeLockerSite(RECOMMENDED);
});
afterEach(() => its.close());

function upload(more: Partial<Put> = {}): Put {
  return { clientId: 'client1', fileName: 'host.sh', jobId: JOB, out: 'out', err: 'err', env: 'env\n', ...more };
}

/** The files of the locker, by path. */
function stored(): Record<string, string> {
  return Object.fromEntries(readFiles(its.site.incoming));
}

function group(name: string, { out = '', err = '', env = '', jobId }: Put): Record<string, string> {
  return { [`${name}.out`]: out, [`${name}.err`]: err, [`${name}.env`]: env, [`${name}.rdy`]: `Jid=${jobId}\n` };
}

async function put(more: Partial<Put> = {}): Promise<number> {
  return (await its.put(upload(more))).status;
}

/** A PUT by a CGI that is started by a program. */
async function putBehind(wrapper: readonly string[], more: Partial<Put>): Promise<number> {
  const { out, err, env } = upload(more);
  const raw = `${formatHead('PUT', upload(more))}${out}${err}${env}`;
  const options = { settingsFile: its.site.propertiesFile, user: findWebUser(), timeLimitSeconds: 60, wrapper };
  const { stdout } = await runBare(Buffer.from(raw, 'latin1'), options);
  return Number(/^HTTP\/1\.1 (\d+) /.exec(stdout.toString('latin1'))?.[1]);
}

function makeClientFolder(): void {
  const [path, user] = [join(its.site.incoming, 'client1'), findWebUser()];
  mkdirSync(path, { recursive: true });
  if (user) chownSync(path, user.uid, user.gid);
}

/**
 * Stores uploads with consecutive numbers directly, without the CGI; all have streams of the same
 * sizes.
 */
function storeMany(from: number, to: number): void {
  makeClientFolder();
  for (let number = from; number <= to; number++) {
    const files = group(number === 1 ? FIRST : `${FIRST}~${number}`, upload({ out: manyOut(number) }));
    for (const [path, text] of Object.entries(files)) writeFileSync(join(its.site.incoming, path), text);
  }
}

function manyOut(number: number): string {
  return String(number).padStart(6);
}

async function verify(): Promise<string[]> {
  const values = await its.readJson<{ kind?: string; place?: string }>('verify');
  return values.flatMap(({ kind, place }) => (kind && place ? [`${kind} ${place}`] : []));
}

describe('a repeated identical upload', () => {
  for (const [what, given] of [
    ['small', {}],
    ['larger than what is compared at once', { out: LARGE, err: LARGE.slice(1), env: LARGE.slice(2) }],
    ['of nothing', { out: '', err: '', env: '' }],
    ['of stderr alone', { out: '', env: '' }],
  ] as [string, Partial<Put>][]) {
    for (const OverwriteExistingFiles of ['Y', 'N'])
      it(`is answered with 200 and stored once with OverwriteExistingFiles=${OverwriteExistingFiles}: ${what}`, async () => {
        configure(its.site, { ...RECOMMENDED, OverwriteExistingFiles });
        const again = (await its.putAsCgi(upload(given))).status;
        assert.deepEqual([again, await put(given), await put(given)], [200, 200, 200]);
        assert.deepEqual(stored(), group(FIRST, upload(given)));
        const [first = '', ...others] = readLog(its.site.base);
        assert.match(first, / 200 -- Success$/);
        for (const line of others) assert.match(line, REPEATED);
        assert.equal(readRecords(custodyOf(its.site)).length, 1);
        assert.deepEqual(await verify(), []);
      });
  }

  it("is compared with the files on disk, not with the server's memory", async () => {
    await put();
    writeFileSync(join(its.site.incoming, `${FIRST}.out`), 'OUT');
    assert.equal(await put(), 200);
    assert.deepEqual(stored(), { ...group(FIRST, upload({ out: 'OUT' })), ...group(`${FIRST}~2`, upload()) });
  });

  it('counts as another upload for another job', async () => {
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

  it('leaves the first unchanged, and nothing beside it, when it breaks off', async () => {
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

  it('are numbered on, and every reader of the locker names the job', async () => {
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
    const report = join(its.site.root, 'report');
    assert.equal((await its.webjobctl('report', '--html', report)).exitCode, 0);
    const read = (name: string): string => readFileSync(join(report, name), 'utf8').replace(/<[^>]*>/g, ' ');
    const page = readdirSync(join(report, 'job')).find((name) => name.startsWith(JOB));
    assert.match(read(`job/${page}`), / Differs +11 differing uploads /);
    assert.match(read('index.html'), /with differing uploads +1 .*The newest jobs with differing uploads/s);
    for (const name of ['index.html', 'jobs.html'])
      assert.match(read(name), new RegExp(`${JOB} +11 differing uploads `));
  });

  it('are complete after eight concurrent writers, each content exactly once', async () => {
    const outs = Array.from({ length: 8 }, (_, index) => `${index} ${LARGE.slice(index)}`);
    await Promise.all(
      outs.map(async (out) => {
        for (let tries = 0; tries < 100; tries++) {
          const { status } = await its.putAsCgi(upload({ out }));
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

  it('cost no more system calls when there are many, and get the next number', { skip: NO_STRACE }, async () => {
    const counts: number[] = [];
    let stored = 0;
    for (const many of [40, 1000]) {
      storeMany(stored + 1, many);
      const trace = join(makeScratch(its.site, 'traces'), 'trace');
      assert.equal(await putBehind(traceTo(trace), { out: manyOut(0) }), 200);
      counts.push(readTrace(trace).filter(({ text }) => text.includes(FIRST)).length);
      stored = many + 1;
      assert.equal(readFileSync(join(its.site.incoming, `${FIRST}~${stored}.out`), 'latin1'), manyOut(0));
      assert.equal(await put({ out: manyOut(0) }), 200);
    }
    const [few = 0, many = 0] = counts;
    assert.ok(few > 0 && many <= few, `${few} calls behind 40, ${many} behind 1000`);
    assert.deepEqual(
      readLog(its.site.base).map((line) => REPEATED.test(line)),
      [false, true, false, true],
    );
  });

  for (const count of [1, 2, 3, 15, 17])
    it(`get the next number after ${count}, and the first and the last are recognized`, async () => {
      storeMany(1, count);
      for (const number of [1, count]) assert.equal(await put({ out: manyOut(number) }), 200);
      assert.deepEqual(
        readLog(its.site.base).filter((line) => !REPEATED.test(line)),
        [],
      );
      assert.equal(await put({ out: manyOut(count + 1) }), 200);
      assert.equal(readFileSync(join(its.site.incoming, `${FIRST}~${count + 1}.out`), 'latin1'), manyOut(count + 1));
    });

  it('replace what a killed server left under the next number', async () => {
    await put();
    for (const extension of ['out', 'env'])
      writeFileSync(join(its.site.incoming, `${FIRST}~2.${extension}`), 'left by a killed server');
    assert.equal(await put({ out: 'OUT' }), 200);
    assert.deepEqual(stored(), { ...group(FIRST, upload()), ...group(`${FIRST}~2`, upload({ out: 'OUT' })) });
  });

  it('are found by verify when the custody record is gone, and not before they are announced', async () => {
    assert.deepEqual([await put(), await put({ out: 'OUT' })], [200, 200]);
    const found = async (): Promise<string[]> => (await verify()).filter((finding) => finding.startsWith('differing '));
    rmSync(custodyOf(its.site));
    assert.deepEqual(await found(), [`differing ${FIRST}~2`]);
    rmSync(join(its.site.incoming, `${FIRST}~2.rdy`));
    assert.deepEqual(await found(), []);
  });

  it('need few descriptors, however many have the same length', async () => {
    storeMany(1, 400);
    const limited = ['/bin/sh', '-c', 'ulimit -n 100; exec "$0" "$@"'];
    assert.equal(await putBehind(limited, { out: manyOut(0) }), 200);
    assert.equal(await putBehind(limited, { out: manyOut(0) }), 200);
    assert.equal(readLog(its.site.base).filter((line) => REPEATED.test(line)).length, 1);
  });

  it('get the number of an upload that was removed in between, and replace none', async () => {
    storeMany(1, 9);
    const before = stored();
    for (const extension of ['out', 'err', 'env', 'rdy']) {
      rmSync(join(its.site.incoming, `${FIRST}~4.${extension}`));
      delete before[`${FIRST}~4.${extension}`];
    }
    for (const number of [20, 21]) assert.equal(await put({ out: manyOut(number) }), 200);
    const after = stored();
    assert.deepEqual({ ...after, ...before }, after);
    const outs = Object.entries(after).flatMap(([path, text]) => (path.endsWith('.out') ? [text] : []));
    assert.deepEqual(outs.sort(), [1, 2, 3, 5, 6, 7, 8, 9, 20, 21].map(manyOut).sort());
  });

  it('end at 9999: the next is refused, and the first is still recognized', async () => {
    storeMany(1, 1);
    const numbers = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];
    for (let number = 8192; number <= 9999; number++) numbers.push(number);
    for (const number of numbers) writeFileSync(join(its.site.incoming, `${FIRST}~${number}.rdy`), `Jid=${JOB}\n`);
    assert.deepEqual([await put({ out: manyOut(0) }), await put({ out: manyOut(1) })], [451, 200]);
  });

  it('are refused with OverwriteExistingFiles=N', async () => {
    configure(its.site, { ...RECOMMENDED, OverwriteExistingFiles: 'N' });
    assert.deepEqual([await put(), await put({ out: 'OUT' }), await put({ out: 'other' })], [200, 451, 451]);
    assert.deepEqual(stored(), group(FIRST, upload()));
  });
});

describe('differing uploads in archives', () => {
  const DAY = '2026-10-01';
  const NAMES = [FIRST, `${FIRST}~2`, `${FIRST}~3`];

  beforeEach(async () => {
    const env = makeRecord({ ClientId: 'client1', GetRequest: 'host.sh', Jid: JOB });
    for (const name of NAMES) assert.equal(await put({ out: name, env }), 200);
  });

  async function pack(...names: string[]): Promise<void> {
    const then = new Date(`${DAY}T12:00:00`);
    for (const name of names)
      for (const extension of ['out', 'err', 'env', 'rdy'])
        utimesSync(join(its.site.incoming, `${name}.${extension}`), then, then);
    const { exitCode, stderr } = await its.webjobctl('pack', '--older-than', '1d');
    assert.equal(exitCode, 0, stderr);
    for (const name of names) assert.ok(!Object.hasOwn(stored(), `${name}.rdy`), name);
  }

  async function unpack(): Promise<void> {
    const { exitCode, stderr } = await its.webjobctl('unpack', DAY);
    assert.equal(exitCode, 0, stderr);
  }

  const NOTE = '2 differing uploads';
  const NAMED = { jobs: NOTE, show: NOTE, page: NOTE, overview: '1', list: NOTE };

  /** The uploads that verify reports, and what each reader of the locker says about the job. */
  async function differing(): Promise<{ kinds: string[] } & Record<keyof typeof NAMED, string | undefined>> {
    const report = join(its.site.root, 'report');
    assert.equal((await its.webjobctl('report', '--html', report)).exitCode, 0);
    const read = (name: string): string => readFileSync(join(report, name), 'utf8').replace(/<[^>]*>/g, ' ');
    const page = readdirSync(join(report, 'job')).find((name) => name.startsWith(JOB));
    return {
      kinds: (await verify()).map((finding) => finding.replace(/^differing (?:packed\/\S+: )?/, '')).sort(),
      jobs: / (\d+ differing uploads?)\n$/.exec((await its.webjobctl('jobs')).text)?.[1],
      show: /^Differs: +(.*)$/m.exec((await its.webjobctl('show', JOB)).text)?.[1],
      page: / Differs +(\d+ differing uploads?) /.exec(read(`job/${page}`))?.[1],
      overview: /with differing uploads +(\d+) /.exec(read('index.html'))?.[1],
      list: new RegExp(`${JOB} +(\\d+ differing uploads?) `).exec(read('jobs.html'))?.[1],
    };
  }

  for (const [what, packed] of [
    ['all of them', NAMES],
    ['the first alone', NAMES.slice(0, 1)],
    ['one that differs alone', NAMES.slice(1, 2)],
    ['both that differ', NAMES.slice(1)],
  ] as const)
    it(`are found and noted as in the locker, even after unpack: ${what}`, async () => {
      const expected = { kinds: NAMES.slice(1), ...NAMED };
      // An index may know an archive, or have to learn of it: each of the two sees two of the four.
      const isIndexed = packed.length === 1;
      if (isIndexed) assert.equal((await its.webjobctl('index')).exitCode, 0);
      else assert.deepEqual(await differing(), expected, 'in the locker');
      await pack(...packed);
      assert.deepEqual(await differing(), expected);
      await unpack();
      assert.deepEqual(
        isIndexed ? await differing() : (await verify()).sort(),
        isIndexed ? expected : NAMES.slice(1).map((name) => `differing ${name}`),
        'unpacked',
      );
    });

  it('are named with their archive, also by verify of the job alone', async () => {
    await pack(...NAMES);
    const expected = NAMES.slice(1).map((name) => `differing packed/${DAY}: ${name}`);
    assert.deepEqual(await verify(), expected);
    const { exitCode, text } = await its.webjobctl('verify', JOB);
    assert.equal(exitCode, 1);
    for (const name of NAMES.slice(1)) assert.ok(text.includes(`packed/${DAY}: ${name}`), text);
  });

  it('are found once when they are in the locker as well', async () => {
    const before = Object.entries(stored());
    await pack(...NAMES);
    for (const [path, text] of before) writeFileSync(join(its.site.incoming, path), text, 'latin1');
    assert.deepEqual((await differing()).jobs, NOTE);
    const found = (await verify()).filter((finding) => finding.startsWith('differing '));
    assert.deepEqual(
      found,
      NAMES.slice(1).map((name) => `differing ${name}`),
    );
  });
});

describe('KeepDifferingUploads=N', () => {
  it('replaces uploads, and the custody record and verify report what was replaced', async () => {
    const NAME = 'client1/host.sh';
    const other = upload({ jobId: `${JOB}1`, out: 'other' });
    configure(its.site, { ...RECOMMENDED, PutNameFormat: '%cid/%cmd', KeepDifferingUploads: 'N' });
    assert.deepEqual([await put(), await put(), await put(other)], [200, 200, 200]);
    assert.deepEqual(stored(), group(NAME, other));
    const records = readRecords(custodyOf(its.site));
    assert.deepEqual(
      records.map(({ event }) => event),
      ['deposit', 'replaced', 'deposit'],
    );
    const { name, jobId, replacedBy, bytes, sha256 } = records[1] ?? {};
    const digest = (text: string): string => createHash('sha256').update(text).digest('hex');
    assert.deepEqual([name, jobId, replacedBy], [NAME, JOB, other.jobId]);
    assert.deepEqual(bytes, { out: 3, err: 3, env: 4 });
    assert.deepEqual(sha256, { out: digest('out'), err: digest('err'), env: digest('env\n') });
    assert.deepEqual(await verify(), [`replaced ${NAME}`]);
  });

  it('is Y by default', () => {
    assert.match(
      readFileSync(join(import.meta.dirname, '../../conf/nph-webjob.cfg'), 'utf8'),
      /^KeepDifferingUploads=Y$/m,
    );
  });
});
