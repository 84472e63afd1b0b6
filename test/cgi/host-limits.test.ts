// node-cgi-compat/host in error cases: scripts that fail, hang or write garbage, and clients that
// disconnect. In every case the client gets a status or a broken connection, no script is left
// behind, and the host continues.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type CgiHostOptions, createCgiHost } from 'node-cgi-compat/host';
import supertest from 'supertest';
import { exchangeBytes, type Folder, isAlive, makeFolder, serving, until } from '../support/cgi-scripts.ts';
import { askStrictly, zeros } from '../support/strict-client.ts';

const SCRIPT_NAME = '/cgi-bin/script';
const GET = `GET ${SCRIPT_NAME} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`;
const HEADER = `printf 'Content-Type: text/plain\\r\\n\\r\\n'`;
/** A script of either kind: nph- and ordinary. */
const PREFIXES = ['', 'nph-'];

let folder: Folder;

before(() => {
  folder = makeFolder();
});
after(() => folder.remove());

/** A host for a script that first writes its process id to `<name>.pid`. */
function host(name: string, lines: string[], options: Partial<CgiHostOptions> = {}) {
  const text = ['#!/bin/sh', `echo $$ > '${folder.path}/${name}.new'`];
  const noted = [...text, `mv '${folder.path}/${name}.new' '${folder.path}/${name}.pid'`, ...lines];
  const scriptFilename = folder.add(name, `${noted.join('\n')}\n`);
  return createCgiHost({ scriptName: SCRIPT_NAME, scriptFilename, ...options });
}

function findPid(name: string): number | undefined {
  const path = join(folder.path, `${name}.pid`);
  return existsSync(path) ? Number(readFileSync(path, 'utf8')) : undefined;
}

async function untilGone(name: string): Promise<void> {
  const pid = await until(() => findPid(name), `start of ${name}`);
  await until(() => !isAlive(pid), `end of ${name}`);
}

describe('a script that cannot answer', () => {
  const other = (scriptFilename: string) => createCgiHost({ scriptName: SCRIPT_NAME, scriptFilename });

  it('gets the client a 500 when it cannot be started', async () => {
    for (const prefix of PREFIXES) {
      const missing = join(folder.path, `${prefix}missing`);
      const closed = folder.add(`${prefix}closed`, '#!/bin/sh\n', 0o644);
      // spawn throws ENOTDIR instead of emitting it.
      for (const path of [missing, closed, folder.path, join(closed, 'below')]) {
        assert.equal((await supertest(other(path)).get(SCRIPT_NAME)).status, 500, path);
        assert.equal((await supertest(other(path)).put(SCRIPT_NAME).send('body')).status, 500, path);
      }
    }
  });

  it('gets the client a 502 when it prints nothing', async () => {
    for (const prefix of PREFIXES) {
      const response = await supertest(host(`${prefix}silent`, ['cat >/dev/null', 'exit 3']))
        .put(SCRIPT_NAME)
        .send('x');
      assert.equal(response.status, 502, prefix);
    }
  });

  it('gets the client a 502 when its header is malformed, endless or cut off', async () => {
    for (const text of ['no header\\n\\n', '\\n\\n', 'Status: many\\n\\n', 'A: \\001\\n\\n', 'X-A: b\\n']) {
      const response = await supertest(host('malformed', [`printf '${text}'`])).get(SCRIPT_NAME);
      assert.equal(response.status, 502, text);
    }
    assert.equal((await supertest(host('endless', ['exec yes X-A:b'])).get(SCRIPT_NAME)).status, 502);
    await untilGone('endless');
  });

  it('cannot bring the host down with headers that only the host may send', async () => {
    const lines = [`printf 'Content-Length: 2\\nTrailer: X-A\\nTransfer-Encoding: chunked\\n\\nok'`];
    const response = await supertest(host('trailer', lines)).get(SCRIPT_NAME);
    assert.equal(response.status, 200);
    assert.equal(response.headers.trailer, undefined);
    assert.equal(response.headers['content-length'], '2');
  });
});

describe('a request that reaches no script', () => {
  it('is answered with 404 for a path beside the script', async () => {
    const listener = host('beside', [HEADER]);
    for (const path of ['/', '/cgi-bin/', '/cgi-bin/scriptless', '/cgi-bin/script2', '/CGI-BIN/script']) {
      assert.equal((await supertest(listener).get(path)).status, 404, path);
    }
    assert.equal(findPid('beside'), undefined);
    assert.equal((await supertest(listener).get(`${SCRIPT_NAME}/below`)).status, 200);
  });

  it('is answered once its body is in: a client that first sends 20 MB still gets the status', async () => {
    await serving(host('refused', [HEADER], { authenticate: () => false }), async (port) => {
      const bytes = 20 * 1024 * 1024;
      for (const [path, status] of [
        ['/none', 404],
        [SCRIPT_NAME, 401],
      ] as const) {
        const head = `PUT ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: ${bytes}\r\n\r\n`;
        assert.equal((await askStrictly({ port, head, body: zeros(bytes) })).status, status);
      }
    });
  });

  it('does no harm ahead of a request for an nph script', async () => {
    await serving(host('nph-behind', [`printf 'HTTP/1.1 200 OK\\r\\n\\r\\n'`]), async (port) => {
      const answer = await exchangeBytes(port, `GET /none HTTP/1.1\r\nHost: a\r\n\r\n${GET}`);
      assert.match(answer.toString(), /^HTTP\/1\.1 404 Not Found\r\n/);
      assert.equal((await exchangeBytes(port, GET)).toString(), 'HTTP/1.1 200 OK\r\n\r\n');
    });
  });

  it('may hold a NUL in its path', async () => {
    const listener = host('nul', [HEADER, `printf '%s' "$PATH_INFO"`]);
    assert.equal((await supertest(listener).get(`${SCRIPT_NAME}/a%00b`)).text, '/a%00b');
  });
});

describe('a script over its time limit', { concurrency: true }, () => {
  for (const prefix of PREFIXES) {
    it(`is answered with 504 and ended${prefix && ', nph too'}`, async () => {
      const name = `${prefix}slow`;
      const response = await supertest(host(name, ['exec sleep 60'], { timeLimitSeconds: 1 })).get(SCRIPT_NAME);
      assert.equal(response.status, 504);
      await untilGone(name);
    });

    it(`can tidy up at SIGTERM${prefix && ', nph too'}`, async () => {
      const name = `${prefix}tidy`;
      const lines = [`trap 'echo tidy > "${folder.path}/${name}.out"; exit' TERM`, 'while :; do sleep 0.1; done'];
      const response = await supertest(host(name, lines, { timeLimitSeconds: 1 })).get(SCRIPT_NAME);
      assert.equal(response.status, 504);
      await untilGone(name);
      assert.equal(readFileSync(join(folder.path, `${name}.out`), 'utf8'), 'tidy\n');
    });

    it(`is killed when it ignores SIGTERM${prefix && ', nph too'}`, async () => {
      const name = `${prefix}stubborn`;
      const lines = [`trap '' TERM`, 'while :; do sleep 0.1; done'];
      const response = await supertest(host(name, lines, { timeLimitSeconds: 5 })).get(SCRIPT_NAME);
      assert.equal(response.status, 504);
      assert.equal(isAlive(findPid(name) ?? 0), true);
      await untilGone(name);
    });

    it(`leaves half an answer broken, not ended as if it were complete${prefix && ', nph too'}`, async () => {
      const name = `${prefix}half`;
      const head = prefix ? `printf 'HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\n\\r\\n'` : HEADER;
      await serving(host(name, [head, 'printf half', 'exec sleep 60'], { timeLimitSeconds: 5 }), async (port) => {
        const answer = (await exchangeBytes(port, GET)).toString();
        assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
        assert.match(answer, /half(?:\r\n)?$/);
        await untilGone(name);
      });
    });
  }

  it('does not exist as long as the script ends in time or has no time limit', async () => {
    for (const timeLimitSeconds of [60, 0]) {
      const response = await supertest(host('quick', [HEADER, 'sleep 0.1'], { timeLimitSeconds })).get(SCRIPT_NAME);
      assert.equal(response.status, 200);
    }
  });
});

describe('a client that disconnects', { concurrency: true }, () => {
  for (const prefix of PREFIXES) {
    it(`ends a script that has not answered${prefix && ', nph too'}`, async () => {
      const name = `${prefix}waiting`;
      await serving(host(name, ['exec sleep 60']), (port) => leaveAfterStart(port, GET, name));
    });

    it(`ends a script that is reading its body${prefix && ', nph too'}`, async () => {
      const name = `${prefix}reading`;
      const request = `PUT ${SCRIPT_NAME} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nten bytes.`;
      await serving(host(name, ['exec cat']), (port) => leaveAfterStart(port, request, name));
    });

    it(`ends a script in the middle of its answer, even one that ignores signals${prefix && ', nph too'}`, async () => {
      const name = `${prefix}writing`;
      const head = prefix ? `printf 'HTTP/1.1 200 OK\\r\\n\\r\\n'` : HEADER;
      const lines = [`trap '' TERM PIPE`, head, 'while :; do printf x 2>/dev/null; sleep 0.05; done'];
      await serving(host(name, lines), (port) => leaveAfterStart(port, GET, name));
    });
  }
});

async function leaveAfterStart(port: number, request: string, name: string): Promise<void> {
  const socket = connect({ host: '127.0.0.1', port });
  socket.write(request);
  await until(() => findPid(name), `start of ${name}`);
  socket.destroy();
  await untilGone(name);
}

describe('the stderr of a script', () => {
  it('arrives line by line without control characters, with long lines cut', async () => {
    const lines: string[] = [];
    const long = `printf '%05000d' 7 >&2`;
    const noisy = [HEADER, `printf 'a\\033[31mb\\351\\n\\n' >&2`, long, `printf '\\nlast\\007' >&2`];
    const listener = host('noisy', noisy, { onStderr: (line) => lines.push(line) });
    assert.equal((await supertest(listener).get(SCRIPT_NAME)).status, 200);
    await until(() => lines.length === 4, 'the last line');
    assert.deepEqual(lines, ['a?[31mb?', '', '0'.repeat(4096), 'last?']);
  });
});
