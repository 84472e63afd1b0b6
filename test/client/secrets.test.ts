// The password is nowhere but in webjob.conf and on the wire: searched from inside a running
// program, over https with a test certificate.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { parseLogLine, parseRecord } from 'webjob-protocol';
import { addUser } from '../../scripts/site.ts';
import { until } from '../support/client-job.ts';
import { type ClientSite, startClientSite } from '../support/client-site.ts';

const SECRET = 'pAss-w0rd-7291';
const FORMS = [SECRET, Buffer.from(`client1:${SECRET}`).toString('base64')];
const folder = mkdtempSync(join(tmpdir(), 'webjob-tls-'));
const tls = { keyFile: join(folder, 'key.pem'), certificateFile: join(folder, 'certificate.pem') };
let home: ClientSite;

before(async () => {
  const subject = ['-subj', '/CN=127.0.0.1', '-days', '2'];
  const key = ['-newkey', 'rsa:2048', '-nodes', '-keyout', tls.keyFile, '-out', tls.certificateFile];
  execFileSync('openssl', ['req', '-x509', ...subject, ...key], { stdio: 'ignore' });
  home = await startClientSite({ tls });
  rmSync(home.site.userFile);
  addUser(home.site, 'client1', SECRET);
});
after(async () => {
  await home.close();
  rmSync(folder, { recursive: true });
});

/** The server's certificate is its own CA. */
function configure(more: Record<string, string>): void {
  home.configure({ SSLVerifyPeerCert: 'Y', SSLBundledCAsFile: tls.certificateFile, ...more });
}

function assertNoSecret(text: string, where: string): void {
  for (const form of FORMS) assert.ok(!text.includes(form), `the password shows in ${where}`);
}

describe('https with basic authentication', () => {
  it('carries a job from end to end', async () => {
    configure({ URLPassword: SECRET });
    assert.deepEqual(await home.client.execute(['host.sh']), { code: 0, signal: null, stdout: '', stderr: '' });
    const { out, env, rdy } = home.takeUpload();
    assert.equal(out.toString(), `${hostname()}\n`);
    assert.equal(rdy, `Jid=${parseRecord(env).fields.Jid}\n`);
    const lines = readFileSync(home.site.logFile, 'utf8').trimEnd().split('\n').map(parseLogLine);
    assert.deepEqual(
      lines.map(({ method, status }) => [method, status]),
      [
        ['GET', 200],
        ['PUT', 200],
      ],
    );
  });

  it('refuses a wrong password, and does not show it', async () => {
    const url = `${home.server.url}/webjob/nph-webjob.cgi`;
    for (const controls of [
      { URLPassword: `${SECRET}x` },
      { URLPassword: SECRET, URLAuthType: 'none' },
      { URLGetURL: url.replace('//', `//client1:${SECRET}x@`), URLPassword: SECRET },
    ]) {
      configure(controls);
      const { code, stdout, stderr } = await home.client.execute(['host.sh']);
      assert.equal(stderr, 'webjob: error: GET of host.sh failed: Status = [401], Reason = [Unauthorized]\n');
      assert.deepEqual([code, stdout], [3, '']);
    }
  });

  it('reports plain http to an https port as one clear error', async () => {
    configure({
      URLPassword: SECRET,
      URLGetURL: `${home.server.url.replace('https', 'http')}/webjob/nph-webjob.cgi`,
    });
    const { code, stderr } = await home.client.execute(['host.sh']);
    assert.match(stderr, /^webjob: error: GET of host\.sh failed: [^\n]+\n$/);
    assert.equal(code, 3);
    assertNoSecret(stderr, 'an error');
  });
});

describe('the password', { skip: !existsSync('/proc/self/cmdline') && 'no /proc to look for it in' }, () => {
  /** One kind of file in /proc for all processes, as far as readable. */
  function readProcesses(file: 'cmdline' | 'environ'): string {
    const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
    return pids.map((pid) => readIfAllowed(`/proc/${pid}/${file}`)).join('\n');
  }

  function readIfAllowed(path: string): string {
    try {
      return readFileSync(path, 'latin1');
    } catch {
      return '';
    }
  }

  for (const way of ['controls', 'URL']) {
    it(`is in no command line, environment, file or record during a run (from the ${way})`, async () => {
      const url = `${home.server.url}/webjob/nph-webjob.cgi`.replace('//', `//client1:${SECRET}@`);
      configure(way === 'URL' ? { URLGetURL: url, URLPutURL: url, URLPassword: '' } : { URLPassword: SECRET });
      const go = join(home.client.root, `go-${way}`);
      home.add(
        'wait.sh',
        `#!/bin/sh\nenv\nwhile [ ! -e ${go} -a -d ${home.client.root} ]; do sleep 0.05; done\nenv >&2\ncat "$0"\n`,
      );
      const { child, ended } = home.client.start(['wait.sh', 'argument-of-the-program']);
      await until(() => home.client.left().some((name) => name.endsWith('/err')), 'the program runs');
      await until(() => readProcesses('cmdline').includes('wait.sh\0argument-of-the-program'), 'it shows in /proc');
      const commandLines = readProcesses('cmdline');
      const environments = readProcesses('environ');
      assert.match(commandLines, /webjob\.conf\0wait\.sh/, 'webjob itself was looked at');
      assertNoSecret(commandLines, 'a command line');
      assertNoSecret(environments, 'an environment');
      for (const name of home.client.left()) {
        const path = join(home.client.temp, name);
        assert.equal(statSync(path).mode & 0o077, 0, `${name} is private`);
        if (statSync(path).isFile()) assertNoSecret(readFileSync(path, 'latin1'), name);
      }
      execFileSync('touch', [go]);
      const { code, stdout, stderr } = await ended;
      assert.deepEqual([code, stdout, stderr, child.exitCode], [0, '', '', 0]);
      const { out, err, env } = home.takeUpload();
      assert.match(out.toString(), /^PATH=/m);
      for (const stream of [out, err, env]) assertNoSecret(String(stream), 'the upload');
    });
  }
});
