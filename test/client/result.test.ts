// ResultKeyFile: what a client sends is signed, immediately or from the spool; without a usable key
// it does not run.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { RECORD_FIELDS } from 'webjob-protocol';
import { verifierOf } from '../../notes/ed25519.ts';
import { openResult, type SignedResult } from '../../notes/result.ts';
import { paste, runWebjob, until } from '../support/client-job.ts';
import { type Home, JOB_ID, REFUSES, startHome, TAKES, type Upload } from '../support/client-kept.ts';
import { formatAnswer, reply } from '../support/client-server.ts';
import { streamsOf } from '../support/signed-results.ts';

let home: Home;
const { publicKey, privateKey } = generateKeyPairSync('ed25519');
const pem = (key: KeyObject): string => key.export({ type: 'pkcs8', format: 'pem' }).toString();
const at = (name: string): string => join(home.client.root, name);
const configure = (more: Record<string, string> = {}): void => home.reset({ ResultKeyFile: 'result.key', ...more });

before(async () => {
  home = await startHome();
  writeFileSync(at('result.key'), pem(privateKey), { mode: 0o600 });
});
after(() => home.close());
beforeEach(() => {
  configure();
  home.serve('echo "out of $1"; echo "err of $1" >&2');
});

/** What was signed, if the signature is valid for this upload. */
function check({ env, out, err }: Upload): SignedResult {
  const result = openResult(Buffer.from(env)) ?? assert.fail(`not signed: ${env}`);
  const { name, id, isGood } = verifierOf('client1', publicKey);
  assert.deepEqual([result.signature.name, result.signature.id], [name, id]);
  assert.ok(isGood(result.text, result.signature.bytes));
  assert.deepEqual(result.streams, streamsOf(out, err));
  return result;
}

async function run(...args: string[]): Promise<Upload> {
  const [upload, ...more] = await home.uploadsOf(async () => {
    assert.deepEqual(await home.client.execute(['job.sh', ...args]), { code: 0, signal: null, stdout: '', stderr: '' });
  });
  assert.ok(upload && more.length === 0);
  return upload;
}

describe('a client with ResultKeyFile', () => {
  for (const HashType of ['MD5', 'SHA1', 'SHA256'])
    it(`signs the record and the streams, with ${HashType} in the record as before`, async () => {
      configure({ HashType });
      const upload = await run('x');
      const { record } = check(upload);
      assert.deepEqual(
        [record.fields.Jid, record.fields.Command, record.fields.ClientId],
        [JOB_ID, 'job.sh', 'client1'],
      );
      const hash = execFileSync(`${HashType.toLowerCase()}sum`, { input: upload.out, encoding: 'utf8' }).split(' ')[0];
      assert.equal(record.fields.StdOutHash, hash);
      const names = upload.env.split('\n').map((line) => line.split('=')[0]);
      const ours = ['StdOutBytes', 'StdOutSha256', 'StdErrBytes', 'StdErrSha256', 'ResultSignature', ''];
      assert.deepEqual(names, [...RECORD_FIELDS, ...ours]);
    });

  it('makes signatures that openssl verifies, with the commands of docs/protocol.md', async () => {
    const { env } = await run('x');
    writeFileSync(at('job.env'), env);
    writeFileSync(at('client1.pub'), publicKey.export({ type: 'spki', format: 'pem' }));
    const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'protocol.md'), 'utf8');
    const commands =
      /^ {4}\{ echo webjob-result\/v1; sed '\$d' job\.env; \} > text\n(?: {4}.*\n)+/m.exec(page)?.[0] ?? '';
    const said = execFileSync('sh', ['-ec', commands], { cwd: home.client.root, encoding: 'utf8' });
    assert.equal(said, 'Signature Verified Successfully\n');
    writeFileSync(at('job.env'), env.replace('KidStatus=0', 'KidStatus=1'));
    assert.throws(() => execFileSync('sh', ['-ec', commands], { cwd: home.client.root, stdio: 'pipe' }));
  });

  it('signs an empty result, one of a megabyte, and one with an outer job', async () => {
    home.serve('exit 3');
    assert.equal(check(await run()).streams.out.bytes, 0);
    home.serve('head -c 1000000 /dev/zero | tr "\\0" x');
    assert.equal(check(await run()).streams.out.bytes, 1_000_000);
    home.serve(':');
    const [upload] = await home.uploadsOf(() =>
      home.client.execute(['job.sh'], { environment: { WEBJOB_JID: 'server_1_1085355126_00001' } }),
    );
    assert.ok(upload);
    assert.deepEqual(check(upload).record.extra[0], ['OuterJid', 'server_1_1085355126_00001']);
  });

  it('signs what fit on a full disk as what was kept', async () => {
    home.serve('head -c 3000000 /dev/zero');
    const [upload] = await home.uploadsOf(async () => {
      const wrapper = ['bash', '-c', 'ulimit -f 1000; exec "$@"', 'bash'];
      assert.equal((await home.client.execute(['job.sh'], { wrapper })).code, 4);
    });
    assert.ok(upload);
    assert.equal(check(upload).streams.out.bytes, 1_024_000);
  });

  it('signs the record of a GET that failed', async () => {
    configure({ UploadOnGetFailure: 'Y' });
    home.fake.get = reply(formatAnswer('', '404 Not Found'));
    const [upload] = await home.uploadsOf(async () => assert.equal((await home.client.execute(['job.sh'])).code, 3));
    assert.ok(upload);
    assert.match(check(upload).record.fields.GetError, /404/);
  });

  it('delivers a spooled job with its original signature, whatever key is set by then', async () => {
    configure({ SpoolDirectory: home.spool });
    home.fake.put = REFUSES;
    const [first] = await home.uploadsOf(() => home.client.execute(['job.sh', 'x']));
    home.fake.put = TAKES;
    const another = generateKeyPairSync('ed25519').privateKey;
    writeFileSync(at('other.key'), pem(another), { mode: 0o600 });
    const settings = { URLGetURL: home.fake.url, URLPutURL: home.fake.url, SpoolDirectory: home.spool };
    for (const more of [{ ResultKeyFile: 'other.key' }, {}]) {
      home.client.configure({ ...settings, ...more });
      home.fake.put = 'ResultKeyFile' in more ? REFUSES : TAKES;
      const [later] = await home.uploadsOf(() => runWebjob(['--flush', '--file', home.client.conf]));
      assert.ok(first && later);
      assert.deepEqual([later.env, later.out, later.err], [first.env, first.out, first.err]);
      check(later);
    }
  });

  it('does not sign a job that was kept without a key', async () => {
    home.reset({ SpoolDirectory: home.spool });
    home.fake.put = REFUSES;
    await home.client.execute(['job.sh', 'x']);
    home.client.configure({
      URLGetURL: home.fake.url,
      URLPutURL: home.fake.url,
      SpoolDirectory: home.spool,
      ResultKeyFile: 'result.key',
    });
    home.fake.put = TAKES;
    const [upload] = await home.uploadsOf(() => runWebjob(['--flush', '--file', home.client.conf]));
    assert.equal(openResult(Buffer.from(upload?.env ?? '')), undefined);
  });
});

describe('a webjob that was to sign and was killed', () => {
  const kill = async (): Promise<string> => {
    const pids = at('pids');
    home.serve(`echo printed; echo $$ > '${pids}.new'; mv '${pids}.new' '${pids}'; exec sleep 60`);
    const running = home.client.start(['job.sh']);
    const isKept = (name: string): boolean => readFileSync(join(home.spool, name, 'out'), 'utf8') === 'printed\n';
    await until(() => existsSync(pids) && readdirSync(home.spool).some(isKept), 'what it prints is kept', running);
    running.child.kill('SIGKILL');
    await running.ended;
    process.kill(Number(readFileSync(pids, 'utf8')), 'SIGKILL');
    execFileSync('rm', [pids]);
    const { stderr } = await runWebjob(['--flush', '--file', home.client.conf]);
    return /to deliver it: (.*?); to remove/.exec(stderr)?.[1] ?? assert.fail(stderr);
  };

  it('leaves a job that is signed when it is sent, the same on every try', async () => {
    configure({ SpoolDirectory: home.spool });
    const command = await kill();
    home.fake.put = REFUSES;
    const tries = await home.uploadsOf(async () => {
      await paste(command);
      await paste(command);
      home.fake.put = TAKES;
      assert.equal((await paste(command)).code, 0);
    });
    assert.equal(tries.length, 3);
    for (const upload of tries) {
      assert.equal(check(upload).record.fields.RunError, 'was still running when webjob was ended');
      assert.deepEqual([upload.env, upload.out.toString()], [tries[0]?.env, 'printed\n']);
    }
    assert.deepEqual(readdirSync(home.spool), []);
  });

  it('leaves a job that is not sent without the key', async () => {
    configure({ SpoolDirectory: home.spool });
    const command = await kill();
    home.client.configure({ URLGetURL: home.fake.url, URLPutURL: home.fake.url, SpoolDirectory: home.spool });
    const uploads = await home.uploadsOf(async () => {
      const { code, stderr } = await paste(command);
      assert.equal(code, 5);
      assert.match(stderr, /is to be signed with client1\+[0-9a-f]{8}/);
    });
    assert.deepEqual(uploads, []);
  });
});

describe('a ResultKeyFile that cannot be used', () => {
  const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
  for (const [what, text, mode, why] of [
    ['is not there', undefined, 0, 'cannot be read: ENOENT'],
    ['may be read by the group', pem(privateKey), 0o640, 'may be read by others, who could sign for this client\n'],
    ['may be read by everybody', pem(privateKey), 0o604, 'may be read by others'],
    [
      'is a public key',
      publicKey.export({ type: 'spki', format: 'pem' }).toString(),
      0o600,
      'is not a private key in PEM',
    ],
    ['is of another kind', pem(p256), 0o600, 'is not a private key in PEM: not an Ed25519 key'],
    ['is empty', '', 0o600, 'is not a private key in PEM'],
    ['is half of a key', pem(privateKey).slice(0, 60), 0o600, 'is not a private key in PEM'],
  ] as const)
    it(`is an error before any request because it ${what}`, async () => {
      configure({ ResultKeyFile: 'bad.key' });
      if (text !== undefined) writeFileSync(at('bad.key'), text);
      if (text !== undefined) chmodSync(at('bad.key'), mode);
      const earlier = home.fake.requests().length;
      const { code, stderr } = await home.client.execute(['job.sh']);
      assert.equal(code, 2, stderr);
      assert.ok(stderr.startsWith(`webjob: error: ResultKeyFile: ${at('bad.key')} ${why}`), stderr);
      assert.equal(home.fake.requests().length, earlier);
    });
});
