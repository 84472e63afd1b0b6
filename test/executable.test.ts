// npm run build:exe: the client and its Node in one file, which needs neither beside it.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { buildExecutable } from '../scripts/executable.ts';
import { Authority, makeServerCertificate } from './certificates.ts';
import { WEBJOB } from './client-job.ts';
import { type ClientSite, startClientSite } from './client-site.ts';

const isTried = ['linux', 'darwin', 'win32'].includes(process.platform);
const skip = isTried ? false : `nobody has tried a single executable on ${process.platform}`;
/** No node in PATH, and nothing that Node reads from an environment. */
const BARE = { PATH: '/usr/bin:/bin', TMPDIR: tmpdir() };

describe('the standalone executable', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'webjob-alone-'));
  const alone = join(folder, 'webjob');
  let site: ClientSite;
  before(async () => {
    copyFileSync(buildExecutable(), alone);
    site = await startClientSite();
  });
  after(async () => {
    await site?.close();
    rmSync(folder, { recursive: true });
  });

  const run = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(alone, args, { cwd: folder, env: BARE });
    return { status, stdout: stdout.toString(), stderr: stderr.toString() };
  };

  it('says what the script says', () => {
    for (const args of [['--version'], ['--help'], ['--hashsum', '--type', 'SHA256', WEBJOB], ['--nonsense'], []]) {
      const script = spawnSync(process.execPath, [WEBJOB, ...args]);
      const expected = { status: script.status, stdout: `${script.stdout}`, stderr: `${script.stderr}` };
      assert.deepEqual(run(...args), expected, args.join(' '));
    }
  });

  it('takes the options of Node for those of the program', () => {
    assert.equal(run('--eval', '1').status, 1);
  });

  it('gets, runs and puts a program, with arguments', () => {
    site.configure();
    site.add('args.sh', '#!/bin/sh\necho "$@"\nexit 3\n');
    assert.deepEqual(run('-e', '-f', site.client.conf, 'args.sh', '--version', '-f', 'a b'), {
      ...{ status: 0, stdout: '', stderr: '' },
    });
    const upload = site.takeUpload();
    assert.equal(upload.out.toString(), '--version -f a b\n');
    assert.match(upload.env, /^KidStatus=3$/m);
    assert.deepEqual(site.client.left(), []);
  });

  it('shows a certificate over TLS', async () => {
    const clients = join(folder, 'clients');
    mkdirSync(clients);
    makeServerCertificate(folder);
    new Authority(clients);
    const [key, cert] = ['key', 'crt'].map((end) => readFileSync(join(folder, `webjob-server.${end}`)));
    const server = createServer({ key, cert, requestCert: true, rejectUnauthorized: false }, (request, response) => {
      const shown = String((request.socket as TLSSocket).getPeerCertificate().subject?.CN);
      response.setHeader('Content-Length', shown.length).end(shown);
    }).listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    try {
      const conf = join(folder, 'tls.conf');
      const files = `SSLPublicCertFile=${clients}/client1.crt\nSSLPrivateKeyFile=${clients}/client1.key\n`;
      writeFileSync(conf, `SSLUseCertificate=Y\n${files}`);
      const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/`;
      const child = spawn(alone, ['-g', '-f', conf, url], { env: BARE });
      const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)]);
      assert.deepEqual({ out, err }, { out: 'client1', err: '' });
    } finally {
      server.close();
    }
  });
});
