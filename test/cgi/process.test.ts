// The script as a process of its web server: its behaviour with any umask, signals, sockets,
// settings and clock.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Body, type CgiResponse, requestFromEnv } from 'node-cgi-compat';
import { handleRequest } from '../../cgi/handle.ts';
import { readSettings } from '../../cgi/settings.ts';
import { startHttpd } from '../../scripts/httpd.ts';
import { configure, type Site } from '../../scripts/site.ts';
import { CGI, collect, runBare, spawnBare } from '../support/bare.ts';
import { custodyOf, readRecords } from '../support/custody-record.ts';
import { giveAway } from '../support/hooks-site.ts';
import {
  bareOptions,
  baseOf,
  GET_HOST_SH,
  isWhole,
  makeLockerSite,
  makeUpload,
  parsePut,
  rawPut,
  statusOf,
} from '../support/locker-upload.ts';
import { getVariables, putVariables } from '../support/resident-requests.ts';
import { findWebUser, readLog } from '../support/tree.ts';

const SIZES = { out: 20_000, err: 300, env: 50 };

let site: Site;
beforeEach(() => {
  site = makeLockerSite();
});
afterEach(() => site.remove());

const lastLine = (): string => readLog(site.base).at(-1) ?? '';

async function until(isTrue: () => boolean, what: string): Promise<void> {
  for (const deadline = Date.now() + 60_000; !isTrue(); await sleep(10))
    if (Date.now() > deadline) assert.fail(`${what}: ${lastLine()} ${readdirSync(site.incoming)}`);
}

describe('a script whose name begins with nph-', () => {
  it('leaves the status line to a FastCGI wrapper, which would turn every status into 200', async () => {
    const user = findWebUser();
    const ask = async (more: Record<string, string>): Promise<string> => {
      const child = spawn(process.execPath, [CGI], {
        env: { ...getVariables(site, 'none.sh'), SCRIPT_FILENAME: CGI, ...more },
        stdio: ['ignore', 'pipe', 'pipe'],
        ...(user && { uid: user.uid, gid: user.gid }),
        cwd: '/',
      });
      return (await collect(child, 30)).stdout.toString('latin1');
    };
    assert.match(await ask({}), /^HTTP\/1\.1 404 Not Found\r\n/);
    assert.match(await ask({ FCGI_ROLE: 'RESPONDER' }), /^Status: 404 Not Found\r\n/);
  });
});

describe('the umask of the web server', () => {
  for (const mask of ['000', '077', '777'])
    it(`has no effect on the files with ${mask}: anyone may read them, only the owner may write`, async () => {
      configure(site, { PutNameFormat: 'new/folder/upload' });
      const folder = join(site.base, 'logfiles');
      giveAway(folder);
      for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true });
      const wrapper = ['/bin/sh', '-c', `umask ${mask}; exec "$0" "$@"`];
      const { stdout, stderr } = await runBare(rawPut(makeUpload('masked', SIZES)), bareOptions(site, { wrapper }));
      assert.equal(statusOf(stdout), 200, stderr);
      const made = ['new', 'new/folder', ...['out', 'err', 'env', 'rdy'].map((name) => `new/folder/upload.${name}`)];
      const paths = [...made.map((name) => join(site.incoming, name)), site.logFile, custodyOf(site)];
      assert.deepEqual(
        paths.map((path) => (statSync(path).mode & 0o777).toString(8)),
        ['755', '755', ...Array.from({ length: 6 }, () => '644')],
      );
    });
});

describe('SIGTERM', () => {
  it('does not interrupt an upload, which is stored, logged and answered', async () => {
    const upload = makeUpload('termed', SIZES);
    const { body } = parsePut(upload);
    const child = spawnBare(parsePut(upload), bareOptions(site));
    const result = collect(child, 30);
    child.stdin?.write(body.subarray(0, 10_000));
    await until(() => (statSync(`${baseOf(site, 'termed')}.out`, { throwIfNoEntry: false })?.size ?? 0) > 0, 'a byte');
    child.kill('SIGTERM');
    await sleep(50);
    child.stdin?.end(body.subarray(10_000));
    const { stdout, exitCode } = await result;
    assert.deepEqual([statusOf(stdout), exitCode], [200, 0]);
    assert.ok(isWhole(baseOf(site, 'termed'), upload));
  });

  for (const mpm of ['event', 'prefork'] as const) {
    it(`keeps and logs what a client of httpd (${mpm}) sent before it left, without lock and .rdy`, async () => {
      const server = await startHttpd({ site, mpm });
      try {
        for (const name of ['first', 'second', 'third']) {
          const socket = connect({ host: '127.0.0.1', port: server.port });
          socket.on('error', () => {});
          const request = rawPut(makeUpload(name, { ...SIZES, out: 200_000 })).toString('latin1');
          socket.write(request.slice(0, 150_000).replace('\r\n', '\r\nHost: 127.0.0.1\r\n'), 'latin1');
          await until(() => existsSync(`${baseOf(site, name)}.out`), `${name}.out`);
          socket.destroy();
          await until(() => lastLine().includes(` PUT client1 ${name} `), `the line of ${name}`);
          assert.match(lastLine(), / 456 -- /);
          await until(() => !existsSync(`${baseOf(site, name)}.lck`), `no ${name}.lck`);
          assert.ok(!existsSync(`${baseOf(site, name)}.rdy`));
        }
      } finally {
        await server.stop();
      }
    });
  }
});

describe('a socket in place of pipes', () => {
  /** Both ends of a TCP connection on this machine: the script's and the client's. */
  async function connected(): Promise<{ ours: Socket; client: Socket; close(): void }> {
    const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const client = connect({ host: '127.0.0.1', port: (server.address() as AddressInfo).port });
    const [ours] = (await once(server, 'connection')) as [Socket];
    for (const socket of [ours, client]) socket.on('error', () => {});
    return {
      ours,
      client,
      close: () => {
        for (const socket of [ours, client]) socket.destroy();
        server.close();
      },
    };
  }

  /** Runs the script on a connection that the client resets after these bytes of the body. */
  async function runReset(variables: Record<string, string>, body: Buffer): Promise<{ code: number; stderr: string }> {
    const { ours, client, close } = await connected();
    try {
      await new Promise((resolve) => client.write(body, resolve));
      client.resetAndDestroy();
      await sleep(50);
      const user = findWebUser();
      const child: ChildProcess = spawn(process.execPath, [CGI], {
        env: { ...variables, SCRIPT_FILENAME: CGI },
        stdio: [ours, ours, 'pipe'],
        ...(user && { uid: user.uid, gid: user.gid }),
        cwd: '/',
      });
      const { stderr, exitCode } = await collect(child, 30);
      return { code: exitCode ?? -1, stderr };
    } finally {
      close();
    }
  }

  it('ends the upload early when it is reset within the body, without a failure', async () => {
    const variables = putVariables(site, 1000, 'server_1_1085355126_00723', 'reset.sh');
    const { code, stderr } = await runReset(variables, Buffer.alloc(400, 'x'));
    assert.match(lastLine(), / PUT client1 reset\.sh 1000 0 \d+ 456 -- /);
    assert.deepEqual([code, stderr], [0, '']);
    assert.equal(existsSync(`${baseOf(site, 'reset.sh')}.rdy`), false);
  });

  it('leaves the upload complete when it is reset before the answer, without a logged error', async () => {
    const variables = putVariables(site, 400, 'server_1_1085355126_00723', 'unread.sh');
    const { code, stderr } = await runReset(variables, Buffer.alloc(400, 'x'));
    assert.match(lastLine(), / PUT client1 unread\.sh 400 0 \d+ 200 -- Success$/);
    assert.deepEqual([code, stderr], [0, '']);
    assert.ok(existsSync(`${baseOf(site, 'unread.sh')}.rdy`));
  });

  it('causes no logged error when it is reset before a file is sent', async () => {
    const { code, stderr } = await runReset(getVariables(site), Buffer.alloc(0));
    assert.match(lastLine(), / GET client1 host\.sh 0 19 \d+ 200 -- Success$/);
    assert.deepEqual([code, stderr], [0, '']);
  });
});

/** Sends a request to the server within this process. */
function handle(method: 'GET' | 'PUT', body: Body, read = readSettings): CgiResponse {
  const variables = method === 'PUT' ? putVariables(site, 4) : getVariables(site);
  const request = requestFromEnv({ ...variables, WEBJOB_PROPERTIES_FILE: '' });
  return handleRequest(request, body, read);
}

describe('an empty WEBJOB_PROPERTIES_FILE', () => {
  it('names no file, so the script looks in the places of the original', () => {
    const asked: (string | undefined)[] = [];
    const { status } = handle('GET', { read: () => 0 }, (file) => {
      asked.push(file);
      return readSettings(file, ['/nonexistent', site.propertiesFile]);
    });
    assert.deepEqual([status, asked], [200, [undefined]]);
  });

  it('leaves the script in the same working directory as none', async () => {
    const statuses = await Promise.all(
      ['', undefined].map(async (value) => {
        const options = bareOptions(site, { environment: [['WEBJOB_PROPERTIES_FILE', value]] });
        return statusOf((await runBare(GET_HOST_SH, options)).stdout);
      }),
    );
    assert.equal(statuses[0], statuses[1]);
  });
});

describe('a clock that is set back during an upload', () => {
  afterEach(() => mock.timers.reset());

  it('never makes a duration negative', () => {
    configure(site, { EnableRequestTracking: 'Y' });
    mock.timers.enable({ apis: ['Date'], now: Date.parse('2004-05-23T17:14:41Z') });
    const left = Buffer.from('body');
    let isRead = false;
    const read: Body['read'] = (buffer) => {
      mock.timers.setTime(Date.parse('2004-05-23T16:14:41Z'));
      if (isRead) return 0;
      isRead = true;
      return left.copy(buffer);
    };
    const { status } = handle('PUT', { read }, () => readSettings(site.propertiesFile));
    assert.equal(status, 200);
    assert.match(lastLine(), / PUT client1 host\.sh 4 0 0 200 -- Success$/);
    const tracked = readFileSync(join(site.base, 'logfiles', 'nph-webjob.json.log'), 'utf8');
    assert.equal(JSON.parse(tracked).milliseconds, 0);
    assert.equal(readRecords(custodyOf(site)).length, 1);
  });
});
