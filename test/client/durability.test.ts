// What must be on disk before a job is sent, and when it has to wait: the order of the system
// calls, from strace on the real process; and the effect of each failure.
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { paste, runWebjob } from '../support/client-job.ts';
import { type Home, REFUSES, startHome, TAKES } from '../support/client-kept.ts';
import { type Call, inject, NO_STRACE, readTrace, traceTo } from '../support/locker-strace.ts';
import { makeExaminer } from '../support/sealed-streams.ts';

const FILES = ['out', 'err', 'env', 'parcel.json'];

describe('keeping a job', { skip: NO_STRACE }, () => {
  let home: Home;
  let trace: string;
  before(async () => {
    home = await startHome();
    trace = join(home.client.root, 'trace');
  });
  after(() => home.close());
  beforeEach(() => {
    home.reset({ SpoolDirectory: home.spool });
    home.serve('echo out');
  });

  /**
   * Runs a job under strace; returns the steps that touched the spool or the private directory, or
   * sent something, without repetitions.
   */
  async function traceJob(): Promise<{ steps: string[]; stderr: string }> {
    const { stderr } = await home.client.execute(['job.sh'], { wrapper: traceTo(trace) });
    const steps = readTrace(trace).flatMap((call) => describeCall(call, home.client.root) ?? []);
    // From the GET on, whose answer is written to TempDirectory.
    const begin = steps.findIndex((step) => /^mkdir .*\/run$/.test(step));
    const spool = steps.slice(0, begin).filter((step) => / (?:spool|\.)$/.test(step));
    const all = [...spool, ...steps.slice(begin)].filter((step) => step !== 'unlink temp/job.sh');
    return { steps: all.filter((step, index) => step !== all[index - 1]), stderr };
  }

  function makeResultKey(): void {
    const pem = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' });
    writeFileSync(join(home.client.root, 'result.key'), pem, { mode: 0o600 });
  }

  const begun = (place: string): string[] => [
    `mkdir ${place}/run`,
    ...['parcel.json', 'env'].flatMap((name) => [`open ${place}/run/${name}`, `write ${place}/run/${name}`]),
    ...['out', 'err'].map((name) => `create ${place}/run/${name}`),
    `write ${place}/run/out`,
  ];
  const completed = (place: string): string[] =>
    ['parcel.json', 'env'].flatMap((name) => [`open ${place}/run/${name}`, `write ${place}/run/${name}`]);
  const synced = (folder: string): string[] => [...FILES.map((name) => `fsync ${folder}/${name}`), `fsync ${folder}`];

  it('syncs streams, record, directory, name and spool before the job is sent', async () => {
    const { steps } = await traceJob();
    assert.deepEqual(steps.slice(0, steps.indexOf('send') + 1), [
      ...['mkdir spool', 'fsync .'],
      ...begun('spool'),
      ...['fsync spool/run/out', 'fsync spool/run/err'],
      ...completed('spool'),
      ...synced('spool/run'),
      ...['rename spool/run spool/sending', 'fsync spool', 'send'],
    ]);
    const later = steps.slice(steps.indexOf('send') + 1);
    assert.equal(later[0], 'rename spool/sending spool/sent');
    assert.ok(
      later.slice(1).every((step) => step.startsWith('unlink spool/sent')),
      String(later),
    );
  });

  it("syncs the journal and the job's last name when it could not be sent", async () => {
    home.reset({ SpoolDirectory: home.spool, JournalFile: join(home.client.root, 'journal') });
    home.fake.put = REFUSES;
    const { steps } = await traceJob();
    assert.deepEqual(steps.slice(steps.lastIndexOf('send') + 1), [
      ...['open journal', 'fsync .', 'write journal', 'fsync journal'],
      ...['rename spool/sending spool/job', 'fsync spool'],
    ]);
  });

  it('syncs sealed streams and the record before they replace the plain files', async () => {
    const { recipient } = await makeExaminer();
    makeResultKey();
    home.reset({ SpoolDirectory: home.spool, ResultKeyFile: 'result.key', SealTo: recipient });
    const { steps } = await traceJob();
    const begin = steps.indexOf('open spool/run/out.age');
    const record = 'spool/run/env.sealed';
    assert.deepEqual(steps.slice(begin, steps.indexOf('send')), [
      ...['out', 'err'].flatMap((name) => ['open', 'write', 'fsync'].map((call) => `${call} spool/run/${name}.age`)),
      ...['open', 'write', 'fsync'].map((call) => `${call} ${record}.new`),
      ...['fsync spool/run', `rename ${record}.new ${record}`, 'fsync spool/run'],
      ...['out', 'err'].map((name) => `rename spool/run/${name}.age spool/run/${name}`),
      ...['fsync spool/run', `rename ${record} spool/run/env`, 'fsync spool/run'],
      ...completed('spool'),
      ...synced('spool/run'),
      ...['rename spool/run spool/sending', 'fsync spool'],
    ]);
  });

  it('syncs a record that is signed later before it replaces the unsigned one', async () => {
    makeResultKey();
    home.reset({ SpoolDirectory: home.spool, ResultKeyFile: 'result.key' });
    home.fake.put = REFUSES;
    assert.equal((await home.client.execute(['job.sh'])).code, 5);
    const [job = ''] = readdirSync(home.spool);
    const env = join(home.spool, job, 'env');
    writeFileSync(
      env,
      readFileSync(env, 'utf8').replace(/^(?:Std(?:Out|Err)(?:Bytes|Sha256)|ResultSignature)=.*\n/gm, ''),
    );
    home.fake.put = TAKES;
    assert.equal((await runWebjob(['--flush', '--file', home.client.conf], { wrapper: traceTo(trace) })).code, 0);
    const steps = readTrace(trace).flatMap((call) => describeCall(call, home.client.root) ?? []);
    const begin = steps.indexOf('open spool/sending/env.new');
    assert.deepEqual(steps.slice(begin, steps.indexOf('send')), [
      ...['open', 'write', 'fsync'].map((call) => `${call} spool/sending/env.new`),
      ...['rename spool/sending/env.new spool/sending/env', 'fsync spool/sending'],
    ]);
  });

  it('syncs the name of each new directory above the job', async () => {
    home.reset({ SpoolDirectory: join(home.spool, 'of', 'client') });
    const { steps } = await traceJob();
    assert.deepEqual(
      readTrace(trace)
        .flatMap((call) => describeCall(call, home.client.root) ?? [])
        .filter((step) => /^fsync (?:\.|spool|spool\/of)$/.test(step)),
      ['fsync spool/of', 'fsync spool', 'fsync .'],
    );
    assert.ok(steps.includes('send'));
  });

  it('syncs nothing before sending without SpoolDirectory, and everything when the job waits', async () => {
    home.reset();
    home.fake.put = REFUSES;
    const { steps } = await traceJob();
    const sent = steps.indexOf('send');
    assert.deepEqual(steps.slice(0, sent), [
      ...begun('temp/webjob'),
      ...completed('temp/webjob'),
      'rename temp/webjob/run temp/webjob/sending',
    ]);
    assert.deepEqual(steps.slice(steps.lastIndexOf('send') + 1), [
      ...completed('temp/webjob').map((step) => step.replace('/run/', '/sending/')),
      ...synced('temp/webjob/sending'),
      ...['rename temp/webjob/sending temp/webjob/job', 'fsync temp/webjob'],
    ]);
  });

  /**
   * The calls of a job with an existing spool, by the number of the call of that name, and what
   * they belong to.
   */
  const FAILURES: [call: string, when: number, what: string][] = [
    ['fsync', 3, 'the sync of out'],
    ['fsync', 5, 'the sync of the record'],
    ['fsync', 7, 'the sync of the folder'],
    ['fsync', 8, 'the sync of the spool'],
  ];
  for (const [call, when, what] of FAILURES) {
    it(`sends the job at once with a warning when ${what} fails, and the hint delivers it otherwise`, async () => {
      mkdirSync(home.spool, { mode: 0o700 });
      const wrapper = inject(trace, `${call}:error=EIO:when=${when}`, []);
      const uploads = await home.uploadsOf(async () => {
        const { code, stderr } = await home.client.execute(['job.sh'], { wrapper });
        assert.equal(code, 0, stderr);
        assert.equal(stderr, `webjob: warning: the job cannot be kept in ${home.spool}: EIO; it is sent at once\n`);
      });
      assert.deepEqual([uploads.length, readdirSync(home.spool), home.client.left()], [1, [], []]);

      home.fake.put = REFUSES;
      const { code, stderr } = await home.client.execute(['job.sh'], { wrapper });
      const [, command = ''] = /hint: (webjob --flush .*)\n$/.exec(stderr) ?? [];
      assert.equal(code, 5);
      home.fake.put = TAKES;
      const delivered = await home.uploadsOf(async () => assert.equal((await paste(command)).code, 0, stderr));
      assert.deepEqual([delivered.length, readdirSync(home.spool), home.client.left()], [1, [], []]);
    });
  }

  it('leaves the job in TempDirectory when every sync of the spool fails', async () => {
    mkdirSync(home.spool, { mode: 0o700 });
    home.fake.put = REFUSES;
    const wrapper = inject(trace, 'fsync:error=EIO:when=3..12', []);
    const { code, stderr } = await home.client.execute(['job.sh'], { wrapper });
    assert.equal(code, 5);
    home.fake.put = TAKES;
    const [, command = ''] = /hint: (webjob --flush .*)\n$/.exec(stderr) ?? [];
    const delivered = await home.uploadsOf(async () => assert.equal((await paste(command)).code, 0, stderr));
    assert.equal(delivered.length, 1);
  });

  it('works in a spool that cannot sync directories', async () => {
    mkdirSync(home.spool, { mode: 0o700 });
    const wrapper = inject(trace, 'fsync:error=EINVAL:when=7+1', []);
    assert.deepEqual(await home.client.execute(['job.sh'], { wrapper }), {
      code: 0,
      signal: null,
      stdout: '',
      stderr: '',
    });
  });

  it('sends the job at once when a rename in the spool fails', async () => {
    mkdirSync(home.spool, { mode: 0o700 });
    home.fake.put = REFUSES;
    // The first rename is that of the program.
    const wrapper = inject(trace, 'rename:error=EROFS:when=2+1', []);
    const { code, stderr } = await home.client.execute(['job.sh'], { wrapper });
    assert.equal(code, 5);
    const [, command = ''] = /hint: (webjob --flush .*)\n$/.exec(stderr) ?? [];
    home.fake.put = TAKES;
    const delivered = await home.uploadsOf(async () => assert.equal((await paste(command)).code, 0, stderr));
    assert.equal(delivered.length, 1);
    assert.ok(existsSync(home.spool));
  });

  it('sends the complete job at once when a record is written short', async () => {
    // Files are limited to 512 bytes: the run record is cut there, and later writes fail.
    const wrapper = ['/bin/sh', '-c', 'ulimit -f 1; exec "$@"', 'sh'];
    home.reset();
    home.fake.put = REFUSES;
    const { code, stderr } = await home.client.execute(['job.sh'], { wrapper });
    assert.equal(code, 5);
    assert.match(stderr, /webjob: warning: the job cannot be kept in \S+: EFBIG\n/);
    home.reset({ SpoolDirectory: home.spool });
    const [upload] = await home.uploadsOf(async () => {
      const ended = await home.client.execute(['job.sh'], { wrapper });
      assert.equal(ended.code, 0, ended.stderr);
      assert.match(ended.stderr, /: EFBIG; /);
    });
    assert.deepEqual([upload?.out.toString(), upload?.fields.RunError], ['out\n', 'NA']);
    assert.ok((upload?.env.length ?? 0) > 512);
    assert.deepEqual([readdirSync(home.spool), home.client.left()], [[], []]);
  });
});

/** One call as a step; undefined for an irrelevant one. */
function describeCall({ name, text }: Call, root: string): string | undefined {
  if (/ = -1 \w+/.test(text)) return undefined;
  if (/^(?:write|writev|sendmsg)\(\d+<(?:socket|TCP)/.test(text)) return text.includes('PUT ') ? 'send' : undefined;
  const quoted = [...text.matchAll(/"([^"]*)"/g)].map((match) => match[1] ?? '');
  const onDescriptor = /^\w+\(\d+<([^>]*)>/.exec(text)?.[1];
  const paths = onDescriptor === undefined ? quoted : [onDescriptor];
  if (paths.length === 0 || !paths.every((path) => path === root || path.startsWith(`${root}/`))) return undefined;
  const verb = verbOf(name, text);
  return verb && [verb, ...paths.map((path) => labelOf(relative(root, path) || '.'))].join(' ');
}

/** `spool/run/out`, `temp/webjob/job`. */
function labelOf(path: string): string {
  return path
    .replace(/\bwebjob-\w{6}\b/, 'webjob')
    .replace(/\b(run|sending|sent|over)-[^/]*/, '$1')
    .replace(/\bjob-\d+-\d+/, 'job');
}

function verbOf(name: string, text: string): string | undefined {
  if (name === 'close' || name === 'statfs') return undefined;
  if (name !== 'openat') return name.replace(/^p?(write|rename|unlink|mkdir|link|fsync|rmdir).*/, '$1');
  if (text.includes('O_CREAT')) return text.includes('O_EXCL') ? 'create' : 'open';
  return undefined;
}
