// npm run build:exe: the client with its Node in one file that needs no other files.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import { buildExecutable } from '../../scripts/executable.ts';
import { Authority, makeServerCertificate } from '../support/certificates.ts';
import { WEBJOB } from '../support/client-job.ts';
import { type ClientSite, startClientSite } from '../support/client-site.ts';

const isTried = ['linux', 'darwin', 'win32'].includes(process.platform);
const skip = isTried ? false : `nobody has tried a single executable on ${process.platform}`;
/** No node in PATH, and none of the variables that Node reads. */
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

  const runWith = (environment: Record<string, string>, ...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(alone, args, { cwd: folder, env: { ...BARE, ...environment } });
    return { status, stdout: stdout.toString(), stderr: stderr.toString() };
  };
  const run = (...args: string[]) => runWith({}, ...args);

  it('prints what the script prints', () => {
    for (const args of [['--version'], ['--help'], ['--hashsum', '--type', 'SHA256', WEBJOB], ['--nonsense'], []]) {
      const script = spawnSync(process.execPath, [WEBJOB, ...args]);
      const expected = { status: script.status, stdout: `${script.stdout}`, stderr: `${script.stderr}` };
      assert.deepEqual(run(...args), expected, args.join(' '));
    }
  });

  it('takes options of Node for options of the program', () => {
    assert.equal(run('--eval', '1').status, 1);
  });

  it('ignores Node switches in the environment, and passes them to the program', () => {
    const loaded = join(folder, 'loaded.cjs');
    writeFileSync(loaded, 'console.log("loaded"); process.exit(9);\n');
    site.configure({ URLPutURL: '' });
    site.add('environment.sh', '#!/bin/sh\necho "$NODE_OPTIONS"\n');
    for (const NODE_OPTIONS of [`--require ${loaded}`, `--import ${loaded}`, '--no-such-option', '--inspect-brk=0']) {
      const expected = { status: 0, stdout: `${NODE_OPTIONS}\n`, stderr: '' };
      assert.deepEqual(runWith({ NODE_OPTIONS }, '-e', '-f', site.client.conf, 'environment.sh'), expected);
    }
  });

  it('uses the URLs of its settings, whatever the environment sets for Node', () => {
    site.configure({ URLPutURL: '' });
    site.add('plain.sh', '#!/bin/sh\necho plain\n');
    const nowhere = 'http://127.0.0.1:1/';
    const environment = { NODE_USE_ENV_PROXY: '1', HTTP_PROXY: nowhere, http_proxy: nowhere, NODE_PATH: folder };
    const expected = { status: 0, stdout: 'plain\n', stderr: '' };
    assert.deepEqual(runWith(environment, '-e', '-f', site.client.conf, 'plain.sh'), expected);
  });

  it('starts no debugger on SIGUSR1', async () => {
    site.configure({ URLPutURL: '' });
    site.add('slow.sh', '#!/bin/sh\nsleep 1\necho slow\n');
    const child = spawn(alone, ['-e', '-f', site.client.conf, 'slow.sh'], { env: BARE });
    const result = Promise.all([text(child.stdout), text(child.stderr)]);
    for (let n = 0; n < 4; n += 1) {
      await sleep(150);
      child.kill('SIGUSR1');
    }
    assert.deepEqual(await result, ['slow\n', '']);
  });

  it('gets, runs and puts a program, with arguments', () => {
    site.configure();
    site.add('args.sh', '#!/bin/sh\necho "$@"\nexit 3\n');
    assert.deepEqual(run('-e', '-f', site.client.conf, 'args.sh', '--version', '-f', 'a b'), {
      status: 0,
      stdout: '',
      stderr: '',
    });
    const upload = site.takeUpload();
    assert.equal(upload.out.toString(), '--version -f a b\n');
    assert.match(upload.env, /^KidStatus=3$/m);
    assert.deepEqual(site.client.left(), []);
  });

  it('presents a certificate over TLS', async () => {
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
      const get = async (environment: Record<string, string> = {}): Promise<string[]> => {
        const child = spawn(alone, ['-g', '-f', conf, url], { env: { ...BARE, ...environment } });
        return await Promise.all([text(child.stdout), text(child.stderr)]);
      };
      const [shown, said] = await get();
      assert.equal(shown, 'client1');
      assert.match(said ?? '', /^webjob: warning: the server's certificate is not checked: [^\n]+\n$/);
      writeFileSync(conf, `SSLVerifyHost=Y\nSSLUseCertificate=Y\n${files}`);
      const [out, err] = await get({ NODE_TLS_REJECT_UNAUTHORIZED: '0' });
      assert.deepEqual([out, /not trusted/.test(err ?? '')], ['', true]);
    } finally {
      server.close();
    }
  });
});
