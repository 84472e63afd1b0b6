// SealTo: a program's output leaves the client sealed to the examiners, immediately or from the
// spool; a kill at any moment loses nothing and leaves no plain text behind.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { verifierOf } from '../../notes/ed25519.ts';
import { openResult, type SignedResult } from '../../notes/result.ts';
import { type Ended, paste, runWebjob, until } from '../support/client-job.ts';
import { type Home, mountDisk, REFUSES, startHome, TAKES, type Upload } from '../support/client-kept.ts';
import { NO_STRACE } from '../support/locker-strace.ts';
import { findMountObstacle, unmountTmpfs } from '../support/locker-tmpfs.ts';
import { type Examiner, makeExaminer, open } from '../support/sealed-streams.ts';
import { streamsOf } from '../support/signed-results.ts';
import { many } from '../support/thorough.ts';

let home: Home;
let [alice, bob, carol]: Examiner[] = [];
const { publicKey, privateKey } = generateKeyPairSync('ed25519');
const at = (name: string): string => join(home.client.root, name);
const SECRET = 'the-secret-of-the-case';
/** A variant of the text that cannot match the program itself, which is in TempDirectory. */
const PRINTED = 'the-secret$(:)-of-the-case';

before(async () => {
  home = await startHome();
  [alice, bob, carol] = await Promise.all([makeExaminer(), makeExaminer(), makeExaminer('hybrid')]);
  writeFileSync(at('result.key'), privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  writeFileSync(at('alice.txt'), `${alice?.identity}\n`, { mode: 0o600 });
});
after(() => home.close());

const settings = (more: Record<string, string> = {}): Record<string, string> => {
  const sealing = { ResultKeyFile: 'result.key', SealTo: alice?.recipient ?? '' };
  return { ...sealing, ...more };
};
beforeEach(() => {
  home.reset(settings());
  home.serve(`echo "${PRINTED} $1"; echo "err ${PRINTED}" >&2; : > '${at('ran')}'`);
  rmSync(at('ran'), { force: true });
});

/** The signed run record of an upload, if it is valid and no stream is readable. */
async function check({ env, out, err }: Upload, examiner: Examiner | undefined, plain?: string): Promise<SignedResult> {
  const result = openResult(Buffer.from(env)) ?? assert.fail(`not signed: ${env}`);
  const { isGood } = verifierOf('client1', publicKey);
  assert.ok(isGood(result.text, result.signature.bytes) && result.sealing);
  assert.deepEqual(result.streams, streamsOf(out, err));
  for (const bytes of [out, err]) assert.ok(!bytes.includes(SECRET));
  assert.ok(examiner);
  const opened = { out: await open(out, examiner), err: await open(err, examiner) };
  assert.deepEqual(result.sealing.plain, streamsOf(opened.out, opened.err));
  if (plain !== undefined) assert.equal(opened.out.toString(), plain);
  const { HashType, StdOutHash, StdErrHash } = result.record.fields;
  const hash = (bytes: Buffer): string => createHash(HashType.toLowerCase()).update(bytes).digest('hex');
  if (StdOutHash !== 'NA') assert.deepEqual([StdOutHash, StdErrHash], [hash(out), hash(err)]);
  return result;
}

const flush = (...more: string[]): Promise<Ended> => runWebjob(['--flush', ...more, '--file', home.client.conf]);

/** Whether a file below a directory contains a text. */
const isBelow = (folder: string, text: string): boolean =>
  existsSync(folder) && spawnSync('grep', ['-rqF', text, folder]).status === 0;

describe('a client with SealTo', () => {
  for (const HashType of ['MD5', 'SHA256'])
    it(`sends what only the examiner can open, and signs the plain text, with ${HashType} in the record`, async () => {
      home.reset(settings({ HashType }));
      const [upload] = await home.uploadsOf(async () => {
        assert.deepEqual(await home.client.execute(['job.sh', 'x']), { code: 0, signal: null, stdout: '', stderr: '' });
      });
      assert.ok(upload);
      const { sealing } = await check(upload, alice, `${SECRET} x\n`);
      assert.deepEqual(sealing?.recipients, [alice?.recipient]);
      assert.deepEqual(home.client.left(), []);
      assert.ok(bob);
      await assert.rejects(open(upload.out, bob));
    });

  it('seals to several recipients, hybrid ones included', async () => {
    home.reset(settings({ SealTo: `${alice?.recipient}, ${bob?.recipient}` }));
    const [both] = await home.uploadsOf(() => home.client.execute(['job.sh', 'x']));
    assert.ok(both);
    for (const examiner of [alice, bob]) await check(both, examiner, `${SECRET} x\n`);
    home.reset(settings({ SealTo: carol?.recipient ?? '' }));
    const [hybrid] = await home.uploadsOf(() => home.client.execute(['job.sh', 'x']));
    assert.ok(hybrid);
    assert.deepEqual((await check(hybrid, carol, `${SECRET} x\n`)).sealing?.recipients, [carol?.recipient]);
  });

  it('keeps a job sealed that could not be sent, and sends the same bytes later', async () => {
    home.reset(settings({ SpoolDirectory: home.spool }));
    home.fake.put = REFUSES;
    const [first] = await home.uploadsOf(() => home.client.execute(['job.sh', 'x']));
    assert.ok(!isBelow(home.spool, SECRET) && !isBelow(home.client.temp, SECRET));
    home.fake.put = TAKES;
    home.client.configure({
      ...settings({ SpoolDirectory: home.spool, SealTo: bob?.recipient ?? '' }),
      URLGetURL: home.fake.url,
      URLPutURL: home.fake.url,
    });
    const [later] = await home.uploadsOf(flush);
    assert.ok(first && later);
    assert.deepEqual([later.env, later.out, later.err], [first.env, first.out, first.err]);
    await check(later, alice, `${SECRET} x\n`);
  });

  it('keeps sealed what UnlinkOutput=N leaves', async () => {
    home.reset(settings({ UnlinkOutput: 'N' }));
    await home.client.execute(['job.sh', 'x']);
    const left = home.client.left().filter((name) => name.endsWith('.out'));
    assert.equal(left.length, 1);
    assert.ok(!isBelow(home.client.temp, SECRET));
  });

  it('seals what fit on a full disk as what was kept', async () => {
    home.serve('head -c 3000000 /dev/zero');
    const [upload] = await home.uploadsOf(async () => {
      const wrapper = ['bash', '-c', 'ulimit -f 4000; exec "$@"', 'bash'];
      assert.equal((await home.client.execute(['job.sh'], { wrapper })).code, 0);
    });
    assert.ok(upload);
    assert.equal((await check(upload, alice)).sealing?.plain.out.bytes, 3_000_000);
  });

  it('seals nothing of a GET that failed, and signs it', async () => {
    home.reset(settings({ UploadOnGetFailure: 'Y', URLGetURL: `${home.fake.url}x` }));
    home.fake.get = (socket) => socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n');
    const [upload] = await home.uploadsOf(() => home.client.execute(['job.sh']));
    assert.equal(upload?.out.length, 0);
    assert.equal(openResult(Buffer.from(upload?.env ?? ''))?.sealing, undefined);
  });
});

describe('a SealTo that cannot be used', () => {
  const cases: [what: string, sealTo: () => string, why: RegExp][] = [
    ['is empty', () => '', /SealTo names no recipient\n/],
    ['is a comma', () => ',', /SealTo: it names no recipient\n/],
    ['ends with a comma', () => `${alice?.recipient},`, /SealTo: an empty entry is not an age recipient\n/],
    ['is a word', () => 'alice', /SealTo: alice is not an age recipient\n/],
    [
      'has a typing mistake',
      () => `${alice?.recipient.slice(0, -1)}${alice?.recipient.endsWith('q') ? 'p' : 'q'}`,
      /SealTo: age1\w+\.\.\. is not an age recipient: /,
    ],
    ['is cut off', () => alice?.recipient.slice(0, 40) ?? '', /SealTo: age1\w+\.\.\. is not an age recipient\n/],
    ['is a secret key', () => alice?.identity ?? '', /SealTo: it contains the secret key of an examiner\n/],
    [
      'is good but for one',
      () => `${alice?.recipient},${bob?.recipient.slice(1)}`,
      /SealTo: ge1\w+\.\.\. is not an age recipient\n/,
    ],
    [
      'mixes kinds',
      () => `${alice?.recipient},${carol?.recipient}`,
      /SealTo: age1pq1\.\.\. cannot be combined with other recipients\n/,
    ],
    [
      'is a point of small order',
      () => 'age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqsxdwgjs',
      /SealTo: /,
    ],
  ];
  for (const [what, sealTo, why] of cases)
    it(`is an error before any request because it ${what}`, async () => {
      home.reset(settings({ SealTo: sealTo() }));
      const earlier = home.fake.requests().length;
      const { code, stderr } = await home.client.execute(['job.sh']);
      assert.equal(code, 2, stderr);
      assert.match(stderr, why);
      assert.doesNotMatch(stderr, /AGE-SECRET-KEY/);
      assert.deepEqual([home.fake.requests().length, existsSync(at('ran'))], [earlier, false]);
    });

  it('is an error because nothing would be signed', async () => {
    home.reset(settings({ ResultKeyFile: '' }));
    const { code, stderr } = await home.client.execute(['job.sh']);
    assert.equal(code, 2);
    assert.match(stderr, /SealTo requires ResultKeyFile\n/);
  });
});

describe('a webjob that is to seal', () => {
  it('leaves a job that is sealed before it is sent when it is killed during the run', async () => {
    home.reset(settings({ SpoolDirectory: home.spool }));
    home.serve(`echo ${PRINTED}; echo $$ > '${at('ran')}.new'; mv '${at('ran')}.new' '${at('ran')}'; exec sleep 60`);
    const running = home.client.start(['job.sh']);
    await until(() => existsSync(at('ran')) && isBelow(home.spool, SECRET), 'it printed', running);
    running.child.kill('SIGKILL');
    await running.ended;
    process.kill(Number(readFileSync(at('ran'), 'utf8')), 'SIGKILL');
    const others = settings({ SpoolDirectory: home.spool, SealTo: bob?.recipient ?? '' });
    home.client.configure({ ...others, URLGetURL: home.fake.url, URLPutURL: home.fake.url });
    const uploads = await deliverAll();
    assert.equal(uploads.length, 1);
    assert.ok(uploads[0]);
    const { record } = await check(uploads[0], alice, `${SECRET}\n`);
    assert.deepEqual(
      [record.fields.RunError, record.fields.StdOutHash],
      ['was still running when webjob was ended', 'NA'],
    );
  });

  for (const call of ['rename', 'fsync', 'ftruncate'])
    it(`loses nothing and leaves no plain text when it is killed at any ${call}`, {
      skip: NO_STRACE,
    }, async (context) => {
      let killed = 0;
      for (let nth = 1; ; nth += many(1, 3)) {
        home.reset(settings({ SpoolDirectory: home.spool }));
        rmSync(at('ran'), { force: true });
        const filter = ['-e', `trace=${call}`, '-e', `inject=${call}:signal=KILL:when=${nth}`];
        let ended: Ended | undefined;
        const sent = await home.uploadsOf(async () => {
          ended = await home.client.execute(['job.sh', 'x'], {
            wrapper: ['strace', '-f', '-o', at('trace'), ...filter],
          });
        });
        const isKilled = ended?.code !== 0;
        const uploads = [...sent, ...(isKilled ? await deliverAll() : [])];
        if (existsSync(at('ran'))) assert.ok(uploads.length > 0, `${call} ${nth}`);
        for (const upload of uploads) await check(upload, alice, `${SECRET} x\n`);
        assert.ok(!isBelow(home.spool, SECRET) && !isBelow(home.client.temp, SECRET), `${call} ${nth}`);
        if (!isKilled) break;
        killed++;
        assert.ok(nth < 60);
      }
      context.diagnostic(`killed at ${killed} calls of ${call}`);
      assert.ok(killed >= many(4, 2));
    });

  /** Delivers everything that waits or was left behind, until nothing remains. */
  async function deliverAll(): Promise<Upload[]> {
    return await home.uploadsOf(async () => {
      const { stderr } = await flush();
      for (const [, command = ''] of stderr.matchAll(/to deliver it: (.*?); to remove it/g)) {
        const { code, stderr: said } = await paste(command);
        // Killed before it printed anything, it leaves a directory without a file for it.
        if (existsSync(at('ran'))) assert.equal(code, 0, said);
      }
      const left = existsSync(home.spool) ? readdirSync(home.spool) : [];
      assert.deepEqual(
        left.filter((name) => !/^(?:run-|sent-)/.test(name)),
        [],
      );
      for (const name of left) rmSync(join(home.spool, name), { recursive: true });
    });
  }

  it('seals elsewhere when its spool is full', { skip: findMountObstacle() }, async () => {
    const spool = at('small');
    mkdirSync(spool);
    mountDisk(spool, 'size=600k,nr_inodes=100');
    try {
      home.reset(settings({ SpoolDirectory: spool }));
      home.serve(`head -c 400000 /dev/zero; echo ${PRINTED}`);
      let ended: Ended | undefined;
      const [upload] = await home.uploadsOf(async () => {
        ended = await home.client.execute(['job.sh']);
      });
      assert.ok(upload && ended);
      assert.equal(ended.code, 0, ended.stderr);
      assert.match(ended.stderr, /^webjob: warning: SpoolDirectory is full or unusable: ENOSPC; /);
      await check(upload, alice);
      assert.ok(!isBelow(spool, SECRET) && !isBelow(home.client.temp, SECRET));
    } finally {
      unmountTmpfs(spool);
    }
  });
});
