// node-cgi-compat/host with real scripts: what it passes to them, and what it makes of their
// answers. Error cases are in host-limits.test.ts.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { Agent, get, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type CgiHostOptions, createCgiHost } from 'node-cgi-compat/host';
import supertest from 'supertest';
import { startEmbedded } from '../../scripts/embedded.ts';
import { makeSite } from '../../scripts/site.ts';
import { exchangeBytes, type Folder, makeFolder, serving } from '../support/cgi-scripts.ts';
import { askStrictly, zeros } from '../support/strict-client.ts';

const MEGABYTE = 1024 * 1024;
const SCRIPT_NAME = '/cgi-bin/script';
const HEADER = `printf 'Content-Type: text/plain\\r\\n\\r\\n'`;

let folder: Folder;
let parsed: string;
let verbatim: string;

before(() => {
  folder = makeFolder();
  // cat returns the request's body, preceded by the variables.
  const show = `printf '%s|%s|%s|' "$REQUEST_METHOD" "$QUERY_STRING" "$PATH_INFO"; cat`;
  parsed = folder.add('parsed', `#!/bin/sh\n${HEADER}\n${show}\n`);
  verbatim = folder.add('nph-verbatim', `#!/bin/sh\nprintf 'HTTP/1.1 251 Link Test OK\\r\\n\\r\\n'\n${show}\n`);
});

after(() => folder.remove());

function host(scriptFilename: string, options: Partial<CgiHostOptions> = {}) {
  return createCgiHost({ scriptName: SCRIPT_NAME, scriptFilename, ...options });
}

function script(name: string, ...lines: string[]): string {
  return folder.add(name, `#!/bin/sh\n${lines.join('\n')}\n`);
}

describe('an ordinary script under the host', () => {
  it('gets method, query, path and body', async () => {
    const response = await supertest(host(parsed)).put(`${SCRIPT_NAME}/a%20b?c=d`).type('text').send('body');
    assert.equal(response.status, 200);
    assert.equal(response.text, 'PUT|c=d|/a b|body');
    assert.equal(response.type, 'text/plain');
  });

  it('sets the status and its reason with a Status header', async () => {
    const withReason = script('reason', `printf 'Status: 471 Its Own\\nX-A: 1\\nX-A: 2\\n\\nbody'`);
    await serving(host(withReason), async (port) => {
      const answer = (await exchangeBytes(port, `GET ${SCRIPT_NAME} HTTP/1.0\r\n\r\n`)).toString();
      assert.match(answer, /^HTTP\/1\.1 471 Its Own\r\nX-A: 1\r\nX-A: 2\r\n/);
      assert.match(answer, /\r\n\r\nbody$/);
    });
    const bare = await supertest(host(script('status', `printf 'Status: 404\\n\\n'`))).get(SCRIPT_NAME);
    assert.equal((bare as unknown as { res: IncomingMessage }).res.statusMessage, 'Not Found');
  });

  it('redirects with Location alone', async () => {
    const response = await supertest(host(script('location', `printf 'Location: /elsewhere\\n\\n'`))).get(SCRIPT_NAME);
    assert.equal(response.status, 302);
    assert.equal(response.headers.location, '/elsewhere');
  });

  it('answers HEAD without content', async () => {
    const head = script('head', `printf 'Content-Type: text/plain\\nContent-Length: 5\\n\\nhello'`);
    await serving(host(head), async (port) => {
      const answer = await exchangeBytes(port, `HEAD ${SCRIPT_NAME} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
      assert.match(answer.toString(), /^HTTP\/1\.1 200 OK\r\n.*Content-Length: 5\r\n.*\r\n\r\n$/s);
    });
  });

  it('answers HTTP/1.0 by closing the connection, not in chunks', async () => {
    await serving(host(parsed), async (port) => {
      const answer = await exchangeBytes(port, `GET ${SCRIPT_NAME}?old HTTP/1.0\r\nConnection: close\r\n\r\n`);
      assert.doesNotMatch(answer.toString(), /transfer-encoding/i);
      assert.match(answer.toString(), /\r\n\r\nGET\|old\|\|$/);
    });
  });

  it('serves two requests on one connection', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    await serving(host(parsed), async (port) => {
      const ask = (query: string): Promise<{ text: string; reused: boolean }> =>
        new Promise((resolve, reject) => {
          const request = get({ port, host: '127.0.0.1', path: `${SCRIPT_NAME}?${query}`, agent }, async (response) => {
            const text = (await response.toArray()).join('');
            resolve({ text, reused: request.reusedSocket });
          }).on('error', reject);
        });
      assert.deepEqual(await ask('1'), { text: 'GET|1||', reused: false });
      assert.deepEqual(await ask('2'), { text: 'GET|2||', reused: true });
      agent.destroy();
    });
  });

  it('answers pipelined requests in their order', async () => {
    const slowFirst = script('order', `[ "$QUERY_STRING" = 1 ] && sleep 0.3`, HEADER, `printf %s "<$QUERY_STRING>"`);
    await serving(host(slowFirst), async (port) => {
      const one = `GET ${SCRIPT_NAME}?1 HTTP/1.1\r\nHost: a\r\n\r\n`;
      const two = `GET ${SCRIPT_NAME}?2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`;
      assert.match((await exchangeBytes(port, one + two)).toString(), /<1>.*HTTP\/1\.1 200 OK.*<2>/s);
    });
  });
});

describe('an nph script under the host', () => {
  it('has its bytes passed on unchanged', async () => {
    const bytes = String.raw`HTTP/1.1 299 \351t\351 \000\r\nOdd header\r\n\r\n\001\377`;
    const odd = script('nph-odd', `printf '${bytes}'`);
    await serving(host(odd), async (port) => {
      const answer = await exchangeBytes(port, `GET ${SCRIPT_NAME} HTTP/1.1\r\nHost: a\r\n\r\n`);
      assert.equal(answer.toString('latin1'), 'HTTP/1.1 299 \xe9t\xe9 \0\r\nOdd header\r\n\r\n\x01\xff');
    });
  });

  it('gets the body, and sends its own status and reason', async () => {
    const response = await supertest(host(verbatim)).put(`${SCRIPT_NAME}?x=y`).send('body');
    assert.equal(response.status, 251);
    assert.equal((response as unknown as { res: IncomingMessage }).res.statusMessage, 'Link Test OK');
    await serving(host(verbatim), async (port) => {
      const request = `PUT ${SCRIPT_NAME}?x=y HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody`;
      const answer = await exchangeBytes(port, request);
      assert.equal(answer.toString(), 'HTTP/1.1 251 Link Test OK\r\n\r\nPUT|x=y||body');
    });
  });

  it('has the connection to itself: a request pipelined behind its own starts nothing', async () => {
    const note = `echo run >> '${folder.path}/runs'`;
    const counting = script('nph-counting', note, 'sleep 0.3', `printf 'HTTP/1.1 200 OK\\r\\n\\r\\none'`);
    await serving(host(counting), async (port) => {
      const one = `GET ${SCRIPT_NAME} HTTP/1.1\r\nHost: a\r\n\r\n`;
      assert.equal((await exchangeBytes(port, one + one)).toString(), 'HTTP/1.1 200 OK\r\n\r\none');
    });
    assert.equal(readFileSync(join(folder.path, 'runs'), 'utf8'), 'run\n');
  });
});

describe('request bodies', () => {
  for (const [kind, name, head] of [
    ['an ordinary script', 'stream', HEADER],
    ['an nph script', 'nph-stream', `printf 'HTTP/1.1 200 OK\\r\\nContent-Type: text/plain\\r\\n\\r\\n'`],
  ] as const) {
    it(`stream both ways through ${kind}, 20 MB in lockstep`, async () => {
      const streaming = script(name, head, 'exec cat');
      await serving(host(streaming), async (port) => {
        // HTTP/1.0: the content of either kind of script is sent up to the end of the connection.
        const first = `PUT ${SCRIPT_NAME} HTTP/1.0\r\nContent-Length: ${20 * MEGABYTE}\r\n\r\n`;
        assert.equal(await lockstep(port, first, 20), 20 * MEGABYTE);
      });
    });
  }

  it('may come in chunks, without a length', async () => {
    const chunked = script('chunked', HEADER, `printf '%s' "<\${CONTENT_LENGTH-none}>"`, 'cat');
    await serving(host(chunked), async (port) => {
      const head = `PUT ${SCRIPT_NAME} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n`;
      const answer = await exchangeBytes(port, `${head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n`);
      assert.match(answer.toString().replaceAll(/\r\n[0-9a-f]+\r\n/g, ''), /<none>.*abcde/s);
    });
  });

  it('wait for 100 Continue when the client does', async () => {
    await serving(host(verbatim), async (port) => {
      const socket = connect({ host: '127.0.0.1', port });
      socket.write(`PUT ${SCRIPT_NAME} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n`);
      let text = '';
      for await (const chunk of socket) {
        if (text === '') socket.write('body');
        text += chunk;
      }
      assert.equal(text, 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 251 Link Test OK\r\n\r\nPUT|||body');
    });
  });
});

/**
 * Sends each megabyte only when the previous one has come back, which is impossible if a body is
 * kept in memory.
 */
async function lockstep(port: number, head: string, megabytes: number): Promise<number> {
  const socket = connect({ host: '127.0.0.1', port });
  socket.setTimeout(60_000, () => socket.destroy(new Error('nothing comes back')));
  const piece = Buffer.alloc(MEGABYTE, 0x61);
  let sent = 0;
  let received = Number.NaN;
  const next = (): void => {
    if (sent === megabytes) return;
    sent += 1;
    socket.write(piece);
  };
  socket.write(head);
  next();
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    const at = Number.isNaN(received) ? chunk.indexOf('\r\n\r\n') + 4 : 0;
    received = (Number.isNaN(received) ? 0 : received) + chunk.length - at;
    if (received === sent * MEGABYTE) next();
  }
  return received;
}

describe('the environment of a script', () => {
  it("is RFC 3875, options.env and PATH, and nothing from the host's own environment", async () => {
    process.env.NODE_CGI_COMPAT_SECRET = 'leaked';
    try {
      const environ = script('environ', HEADER, `cat "/proc/$$/environ"`);
      const listener = host(environ, { env: { SITE: 'here', REQUEST_METHOD: 'FORGED' }, serverSoftware: 'Test/1.0' });
      const response = await supertest(listener).get(SCRIPT_NAME).set('Proxy', 'http://evil').set('X-A', 'b');
      const variables = new Map(
        response.text.split('\0').map((line): [string, string] => {
          const at = line.indexOf('=');
          return [line.slice(0, at), line.slice(at + 1)];
        }),
      );
      variables.delete('');
      const names = [...variables.keys()].filter((name) => name !== 'HTTP_ACCEPT_ENCODING').sort();
      assert.deepEqual(
        names,
        'GATEWAY_INTERFACE HTTP_HOST HTTP_X_A PATH QUERY_STRING REMOTE_ADDR REMOTE_PORT REQUEST_METHOD REQUEST_URI SCRIPT_FILENAME SCRIPT_NAME SERVER_ADDR SERVER_NAME SERVER_PORT SERVER_PROTOCOL SERVER_SOFTWARE SITE'.split(
          ' ',
        ),
      );
      assert.equal(variables.get('REQUEST_METHOD'), 'GET');
      assert.equal(variables.get('PATH'), process.env.PATH);
      assert.equal(variables.get('SERVER_SOFTWARE'), 'Test/1.0');
      assert.equal(variables.get('REMOTE_ADDR'), '127.0.0.1');
      assert.equal(variables.get('SERVER_ADDR'), '127.0.0.1');
    } finally {
      delete process.env.NODE_CGI_COMPAT_SECRET;
    }
  });

  it("includes the script's own directory as the working directory", async () => {
    const response = await supertest(host(script('cwd', HEADER, 'pwd'))).get(SCRIPT_NAME);
    assert.equal(response.text.trim(), folder.path);
  });

  it('names the authenticated user, and nobody where access is open', async () => {
    const user = script(
      'user',
      HEADER,
      `printf '%s' "\${REMOTE_USER-none} \${AUTH_TYPE-none} \${HTTP_AUTHORIZATION-none}"`,
    );
    const open = await supertest(host(user)).get(SCRIPT_NAME).auth('client1', 'foo');
    assert.equal(open.text, 'none none none');
    const authenticate = (name: string, password: string): boolean => name === 'client1' && password === 'f:oo';
    const closed = host(user, { authenticate });
    assert.equal((await supertest(closed).get(SCRIPT_NAME).auth('client1', 'f:oo')).text, 'client1 Basic none');
    assert.equal((await supertest(closed).get(SCRIPT_NAME).auth('client1', 'foo')).status, 401);
    const nobody = await supertest(closed).get(SCRIPT_NAME);
    assert.equal(nobody.status, 401);
    assert.equal(nobody.headers['www-authenticate'], 'Basic realm="CGI"');
    // A function that returns a promise has not returned an answer.
    const promising = host(user, { authenticate: (async () => false) as unknown as () => boolean });
    assert.equal((await supertest(promising).get(SCRIPT_NAME).auth('client1', 'foo')).status, 401);
  });

  it('belongs to a separate process for each of eight concurrent requests', async () => {
    const started = join(folder.path, 'started');
    // Each script waits until all eight have started; a hundred tries take at least five seconds.
    const meet = script(
      'meet',
      `mkdir -p '${started}'`,
      `: > '${started}/'"$QUERY_STRING"`,
      'for look in $(seq 100); do',
      `  [ "$(ls '${started}' | wc -l)" -eq 8 ] && break`,
      '  sleep 0.05',
      'done',
      HEADER,
      `printf '%s of %s' "$QUERY_STRING" "$(ls '${started}' | wc -l)"`,
    );
    const listener = host(meet);
    await serving(listener, async (port) => {
      const ask = async (id: number) => (await fetch(`http://127.0.0.1:${port}${SCRIPT_NAME}?${id}`)).text();
      const ids = [0, 1, 2, 3, 4, 5, 6, 7];
      assert.deepEqual(
        await Promise.all(ids.map(ask)),
        ids.map((id) => `${id} of 8`),
      );
    });
  });
});

describe("the project's own CGI under the host", () => {
  const QUERY = 'VERSION=webjob+1.4.0&SYSTEM=Linux&CLIENTID=client1&FILENAME=host.sh';
  const put = (lengths: [number, number, number], clientId = 'client1'): string =>
    `PUT /webjob/nph-webjob.cgi?${QUERY.replace('client1', clientId)}&RUNTYPE=snapshot&STDOUT_LENGTH=${lengths[0]}&STDERR_LENGTH=${lengths[1]}&STDENV_LENGTH=${lengths[2]} HTTP/1.1\r\nHost: a\r\nAuthorization: Basic ${btoa('client1:foo')}\r\nContent-Length: ${lengths[0] + lengths[1] + lengths[2]}\r\n\r\n`;

  it('serves a command, stores an upload and refuses 50 MB with a status', async () => {
    const site = makeSite();
    const server = await startEmbedded(site);
    try {
      const head = `GET /webjob/nph-webjob.cgi?${QUERY} HTTP/1.1\r\nHost: a\r\nAuthorization: Basic ${btoa('client1:foo')}\r\nContent-Length: 0\r\n\r\n`;
      const got = await askStrictly({ port: server.port, head });
      assert.equal(got.status, 200);
      assert.equal(got.body.toString(), '#!/bin/sh\nhostname\n');
      assert.match(got.headers.get('job-id') ?? '', /^server_1_\d{10}_\d{5,}$/);

      const stored = await askStrictly({ port: server.port, head: put([3, 2, 1]), body: [Buffer.from('outere')] });
      assert.equal(stored.status, 200);
      const names = readdirSync(site.incoming).sort();
      assert.deepEqual(
        names.map((name) => name.slice(-4)),
        ['.env', '.err', '.out', '.rdy'],
      );
      assert.equal(readFileSync(join(site.incoming, names[2] ?? ''), 'utf8'), 'out');

      const big = 50 * MEGABYTE;
      const refused = await askStrictly({ port: server.port, head: put([big, 0, 0], 'client2'), body: zeros(big) });
      assert.equal(refused.status, 453);
      const unknown = put([big, 0, 0]).replace('Basic ', 'Basic x');
      assert.equal((await askStrictly({ port: server.port, head: unknown, body: zeros(big) })).status, 401);
      assert.equal(readdirSync(site.incoming).length, 4);
    } finally {
      await server.stop();
      site.remove();
    }
    assert.equal(existsSync(site.root), false);
  });
});
