// Time stamps of checkpoints by a real authority: openssl ts behind httpd. Its time stamps are
// stored and verified, even after its certificate has ended; refusals, and time stamps of another
// authority or for another text, are rejected.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type HttpdServer, startHttpd } from '../../scripts/httpd.ts';
import { makeLockerSite, type Ran } from '../support/locker-site.ts';

const ENDS_AFTER_MS = 30_000;
// httpd sends the output of a script with this name as it is.
const CUT_SHORT = "#!/bin/sh\nprintf 'HTTP/1.1 200 OK\\r\\nContent-Length: 100\\r\\n\\r\\nhalf'\n";

describe('webjobctl custody timestamp', () => {
  const its = makeLockerSite();
  const { site } = its;
  const at = (name: string): string => join(site.root, name);
  const tsa = (name: string): string => join(site.root, 'tsa', name);
  const custody = (...args: string[]): Promise<Ran> => its.webjobctl('custody', ...args);
  const kept = join(site.base, 'config', 'nph-webjob', 'custody-timestamps.server_1');
  let server: HttpdServer;
  let url: string;
  let ends = 0;

  const openssl = (...args: string[]): string =>
    execFileSync('openssl', args, { cwd: join(site.root, 'tsa'), encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const makeAuthority = (name: string): void => {
    const request = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '9', '-subj', `/CN=${name}`];
    openssl(...request, '-keyout', `${name}.key`, '-out', `${name}.pem`);
  };
  const makeSigner = (name: string, end: Date, key: string[], usage: string): void => {
    const stamp = (time: Date): string => time.toISOString().replace(/[-:T]|\.\d+/g, '');
    openssl('req', '-new', ...key, '-nodes', '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.csr`);
    writeFileSync(tsa(`${name}.ext`), usage);
    writeFileSync(tsa('index.txt'), '');
    const dates = ['-startdate', stamp(new Date(Date.now() - 60_000)), '-enddate', stamp(end)];
    openssl(
      'ca',
      '-batch',
      '-config',
      'tsa.cnf',
      '-extfile',
      `${name}.ext`,
      ...dates,
      '-in',
      `${name}.csr`,
      '-out',
      `${name}.pem`,
    );
  };
  const USAGE = 'extendedKeyUsage=critical,timeStamping\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n';

  before(async () => {
    mkdirSync(tsa(''), { mode: 0o777 });
    chmodSync(tsa(''), 0o777);
    writeFileSync(
      tsa('tsa.cnf'),
      `[ca]
default_ca=c
[c]
dir=${tsa('')}
database=$dir/index.txt
new_certs_dir=$dir
rand_serial=yes
certificate=$dir/ca.pem
private_key=$dir/ca.key
default_md=sha256
policy=p
[p]
commonName=supplied
${['short', 'ed25519', 'plain']
  .map(
    (name) => `[${name}]
serial=${tsa('serial')}
signer_cert=${tsa(`${name}.pem`)}
certs=${tsa('ca.pem')}
signer_key=${tsa(`${name}.key`)}
signer_digest=sha256
default_policy=1.2.3.4.1
digests=sha256
accuracy=secs:1
`,
  )
  .join('')}`,
    );
    for (const name of ['ca', 'other']) makeAuthority(name);
    ends = Date.now() + ENDS_AFTER_MS;
    makeSigner('short', new Date(ends), ['-newkey', 'rsa:2048'], USAGE);
    makeSigner('ed25519', new Date(Date.now() + 86_400_000), ['-newkey', 'ed25519'], USAGE);
    const names = ['short', 'ed25519'];
    mkdirSync(at('authority'));
    for (const name of names) {
      chmodSync(tsa(`${name}.key`), 0o644);
      // Under mod_cgid standard input is a socket, which openssl cannot open by name.
      const answer = `openssl ts -reply -config ${tsa('tsa.cnf')} -section ${name} -queryfile "$q"`;
      const head = "printf 'Content-Type: application/timestamp-reply\\r\\n\\r\\n'";
      const script = `#!/bin/sh\nq=$(mktemp)\ncat > "$q"\n${head}\n${answer}\nrm "$q"\n`;
      writeFileSync(join(at('authority'), name), script, { mode: 0o755 });
    }
    const lines = `ScriptAlias /tsa/ "${at('authority')}/"\n<Directory "${at('authority')}">\nRequire all granted\n</Directory>`;
    server = await startHttpd({ site, mpm: 'event', after: lines });
    url = `${server.url}/tsa/short`;
    assert.equal((await its.webjobctl('sign', 'keygen', at('custody'))).exitCode, 0);
    await its.run({ clientId: 'client1', fileName: 'host.sh', out: 'one\n' });
  });
  after(async () => {
    await server?.stop();
    its.close();
  });

  it('reports a missing checkpoint', async () => {
    const { stderr, exitCode } = await custody('timestamp', '--tsa', url, '--ca', tsa('ca.pem'));
    assert.equal(exitCode, 1);
    assert.match(stderr, /error: there is no checkpoint\nwebjobctl: hint: webjobctl custody checkpoint/);
  });

  it('keeps what the authority stamped, and openssl agrees', async () => {
    const { text } = await custody('checkpoint', '--key', at('custody.key'));
    writeFileSync(at('checkpoint'), text);
    const { stderr, stdout, exitCode } = await custody('timestamp', '--tsa', url, '--ca', tsa('ca.pem'));
    assert.equal(exitCode, 0, stderr);
    assert.match(String(stdout), /^\S+\/webjob\/server_1 had its \d+ entries at 20\S+Z: \S+\.tsr\n$/);
    const [note = '', stamp = ''] = readdirSync(kept).sort();
    assert.equal(readFileSync(join(kept, note), 'utf8'), text);
    const words = ['ts', '-verify', '-data', join(kept, note), '-in', join(kept, stamp), '-CAfile', tsa('ca.pem')];
    assert.match(openssl(...words), /Verification: OK/);
  });

  it('checks it with the certificate of the CA alone, even after that of the authority expired', async () => {
    await sleep(Math.max(0, ends + 1_500 - Date.now()));
    const [, stamp = ''] = readdirSync(kept).sort();
    const words = ['ts', '-verify', '-data', at('checkpoint'), '-in', join(kept, stamp), '-CAfile', tsa('ca.pem')];
    assert.notEqual(spawnSync('openssl', words).status, 0, 'it has ended');
    const check = (ca: string, file = at('checkpoint')): Promise<Ran> =>
      custody('check', file, '--key', at('custody.pub'), '--timestamp', join(kept, stamp), '--ca', tsa(ca));
    const good = await check('ca.pem');
    assert.deepEqual([good.exitCode, /^good: it existed at 20\S+Z$/m.test(good.text)], [0, true], good.stderr);
    const other = await check('other.pem');
    assert.equal(other.exitCode, 1);
    assert.match(other.stderr, /error: the time stamp is not valid: [a-z][a-z ,]+$/m);
    await its.run({ clientId: 'client1', fileName: 'host.sh', out: 'two\n' });
    writeFileSync(at('later'), (await custody('checkpoint', '--key', at('custody.key'))).text);
    const later = await check('ca.pem', at('later'));
    assert.equal(later.exitCode, 1, 'of another checkpoint');
    assert.match(later.stderr, /error: the time stamp is not valid: message imprint mismatch$/m);
  });

  it('accepts no answer from a server that rejects, is not an authority, or does not exist', async () => {
    const before = readdirSync(kept);
    writeFileSync(join(at('authority'), 'nph-cut'), CUT_SHORT, { mode: 0o755 });
    for (const [place, said, code] of [
      [`${server.url}/tsa/nph-cut`, /error: \S+\/tsa\/nph-cut: \S/, 4],
      [`${server.url}/tsa/ed25519`, /error: the authority has not stamped it: Rejected/, 1],
      [`${server.url}/tsa/nobody`, /error: \S+: 404 Not Found$/m, 4],
      [`${server.url}/webjob/nph-webjob.cgi`, /error: \S+: 403 Forbidden$/m, 4],
      ['http://127.0.0.1:9/', /error: http:\/\/127\.0\.0\.1:9\/: /, 4],
      ['https://me:secret@tsa.example.org', /^webjobctl: error: --tsa takes no password\n/, 2],
      ['tsa.example.org', /error: --tsa tsa\.example\.org is not a URL$/m, 2],
    ] as const) {
      const { stderr, exitCode } = await custody('timestamp', '--tsa', place, '--ca', tsa('ca.pem'));
      assert.match(stderr, said);
      assert.equal(exitCode, code, place);
      assert.doesNotMatch(stderr, /secret/);
    }
    writeFileSync(at('noise'), 'noise');
    const noise = await custody('timestamp', '--response', at('noise'), '--ca', tsa('ca.pem'), '--server', 'server_1');
    assert.match(noise.stderr, /error: it is not an RFC 3161 response: [a-z][a-z ,]+$/m);
    assert.deepEqual(readdirSync(kept), before);
  });

  it('writes the query for a machine with network access, and reads the answer', async () => {
    makeSigner('short', new Date(Date.now() + 86_400_000), ['-newkey', 'rsa:2048'], USAGE);
    chmodSync(tsa('short.key'), 0o644);
    assert.equal((await custody('timestamp', '--request', at('question.tsq'))).exitCode, 0);
    const words = [
      '-config',
      'tsa.cnf',
      '-section',
      'short',
      '-queryfile',
      at('question.tsq'),
      '-out',
      at('answer.tsr'),
    ];
    openssl('ts', '-reply', ...words);
    const taken = await custody('timestamp', '--response', at('answer.tsr'), '--ca', tsa('ca.pem'));
    assert.equal(taken.exitCode, 0, taken.stderr);
    assert.equal(readdirSync(kept).length, 4);
  });

  it('requires options that match', async () => {
    for (const args of [
      [],
      ['--tsa', url],
      ['--tsa', url, '--request', at('x')],
      ['--response', at('x')],
      ['--tsa', url, '--response', at('x'), '--ca', at('x')],
    ])
      assert.equal((await custody('timestamp', ...args)).exitCode, 2, args.join(' '));
    assert.equal((await custody('check', at('later'), '--key', at('custody.pub'), '--ca', tsa('ca.pem'))).exitCode, 2);
  });

  it('has its age reported by configtest and metrics', async () => {
    const metrics = (await its.webjobctl('metrics', '--textfile', '-')).text;
    for (const name of ['checkpoint', 'checkpoint_stamp']) {
      const [, seconds] =
        new RegExp(`^webjob_${name}_timestamp_seconds\\{[^}]*server="server_1"[^}]*\\} (\\S+)$`, 'm').exec(metrics) ??
        [];
      assert.ok(Math.abs(Number(seconds) - Date.now() / 1000) < 600, `${name}: ${seconds}`);
    }
    const said = async (): Promise<string> => (await its.webjobctl('configtest')).text;
    assert.match(await said(), /the newest checkpoint of the custody record of server_1 is less than a day old/);
    const old = Date.now() / 1000 - 40 * 86_400;
    utimesSync(join(kept, '..', 'custody-checkpoints.server_1'), old, old);
    for (const name of readdirSync(kept)) utimesSync(join(kept, name), old, old);
    const late = await said();
    assert.match(late, /warning.*the newest checkpoint of the custody record of server_1 is 40 days old/);
    assert.match(late, /warning.*the newest time stamp of the custody record of server_1 is 40 days old/);
    rmSync(kept, { recursive: true });
    assert.doesNotMatch(await said(), /time stamp/);
  });
});
