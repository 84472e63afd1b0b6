// The client against servers that do what servers should not: always one clear error and the right exit code, nothing executed, nothing
// left behind, and no password in what it says. And the bytes it sends to a good one.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { arch, machine, release, type as systemType } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { parseRecord } from 'webjob-protocol';
import { type Ended, makeClient, until } from './client-job.ts';
import {
  afterBody,
  type Behaviour,
  type FakeServer,
  formatAnswer,
  reply,
  serve,
  splitRequest,
  startFake,
} from './client-server.ts';

const SECRET = 'pAss-w0rd-7291';
const MEGABYTE = 1024 * 1024;
const client = makeClient();
const marker = join(client.root, 'executed');
const PROGRAM = `#!/bin/sh\n: > '${marker}'\n`;
let fake: FakeServer;

before(async () => {
  fake = await startFake();
});
after(async () => {
  await fake.close();
  client.remove();
});
beforeEach(() => {
  rmSync(marker, { force: true });
  for (const name of readdirSync(client.temp)) rmSync(join(client.temp, name), { recursive: true });
  fake.get = serve(PROGRAM);
  fake.put = afterBody(formatAnswer());
});

/** Both stages at the fake server, with a password that must never show. */
function configure(more: Record<string, string> = {}): void {
  client.configure({
    ...{ URLGetURL: fake.url, URLPutURL: fake.url, URLAuthType: 'basic', URLUsername: 'client1', URLPassword: SECRET },
    ...more,
  });
}

/** One error line on stderr that says why, this exit code, nothing on stdout, nothing in TempDirectory, no secret. */
function assertFailure(ended: Ended, code: number, why: RegExp | string): void {
  const shown = `${ended.stdout}${ended.stderr}`;
  const stage = code === 3 ? 'GET' : 'PUT';
  const message = new RegExp(`^webjob: error: ${stage} of host\\.sh failed: ([\\x20-\\x7e]+)\\n$`).exec(
    ended.stderr,
  )?.[1];
  assert.ok(message !== undefined, `not one error line: ${JSON.stringify(ended.stderr)}`);
  if (typeof why === 'string') assert.equal(message, why);
  else assert.match(message, why);
  assert.deepEqual([ended.code, ended.signal, ended.stdout], [code, null, '']);
  assert.deepEqual(client.left(), []);
  assert.equal(existsSync(marker), code === 5, 'executed');
  for (const secret of [SECRET, Buffer.from(`client1:${SECRET}`).toString('base64')])
    assert.ok(!shown.includes(secret));
}

const BROKE_OFF = 'the connection broke off before the answer was complete';
const NOT_ONE_LENGTH = 'the answer has not exactly one Content-Length';
const OK = 'HTTP/1.1 200 OK\r\n';
const LENGTH = `Content-Length: ${PROGRAM.length}\r\n`;
const NO_BODY = 'Content-Length: 0\r\n\r\n';

/** Wrong answers to a GET. Some of them look like a program to a client that is not careful. */
const WRONG_ANSWERS: Record<string, [answer: string, why: RegExp | string]> = {
  'closes without an answer': ['', /socket hang up|broke off/],
  'closes in the middle of the header': [`${OK}Content-Le`, /broke off|socket hang up|not HTTP/],
  'closes in the middle of the body': [`${OK}${LENGTH}\r\n${PROGRAM.slice(0, -1)}`, BROKE_OFF],
  'sends no Content-Length': [`${OK}\r\n${PROGRAM}`, NOT_ONE_LENGTH],
  'sends two that differ': [`${OK}${LENGTH}Content-Length: 1\r\n\r\n${PROGRAM}`, NOT_ONE_LENGTH],
  'sends the same one twice': [`${OK}${LENGTH}${LENGTH}\r\n${PROGRAM}`, NOT_ONE_LENGTH],
  'sends a list of two': [`${OK}Content-Length: 5, 5\r\n\r\n#!/bi`, NOT_ONE_LENGTH],
  'sends a negative one': [`${OK}Content-Length: -1\r\n\r\n${PROGRAM}`, NOT_ONE_LENGTH],
  'sends one that no number can hold': [`${OK}Content-Length: ${'9'.repeat(30)}\r\n\r\n${PROGRAM}`, NOT_ONE_LENGTH],
  'sends more than it announced': [
    `${OK}Content-Length: 10\r\n\r\n${PROGRAM}`,
    'the answer is longer than its Content-Length',
  ],
  'sends chunks': [`${OK}Transfer-Encoding: chunked\r\n\r\na\r\n#!/bin/sh\n\r\n0\r\n\r\n`, NOT_ONE_LENGTH],
  'sends chunks and a length': [
    `${OK}Transfer-Encoding: chunked\r\n${LENGTH}\r\na\r\n#!/bin/sh\n\r\n0\r\n\r\n`,
    /not exactly one|not HTTP/,
  ],
  'sends garbage': ['\x00\xff\x1b[31mgarbage\r\n\r\n', /^the answer is not HTTP \(HPE_\w+\)$/],
  'sends another protocol': ['SSH-2.0-OpenSSH_9.2\r\n', /^the answer is not HTTP \(HPE_\w+\)$/],
  'sends a program and no header': [PROGRAM, /^the answer is not HTTP \(HPE_\w+\)$/],
  'sends a header line without a colon': [
    `${OK}nonsense\r\n${LENGTH}\r\n${PROGRAM}`,
    /^the answer is not HTTP \(HPE_\w+\)$/,
  ],
  'sends a header of 16,384 bytes': [
    `${OK}${LENGTH}X: ${'x'.repeat(16_384 - OK.length - LENGTH.length - 7)}\r\n\r\n${PROGRAM}`,
    'the header of the answer is longer than 16383 bytes',
  ],
  'sends a header without end': [
    `${OK}${'X: y\r\n'.repeat(20_000)}`,
    'the header of the answer is longer than 16383 bytes',
  ],
  redirects: [`HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n${NO_BODY}`, 'Status = [302], Reason = [Found]'],
  'switches protocols': [
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n',
    /Status = \[101\]|socket hang up|broke off/,
  ],
  'has no content': ['HTTP/1.1 204 No Content\r\n\r\n', NOT_ONE_LENGTH],
  'answers 404': [`HTTP/1.1 404 Not Found\r\n${NO_BODY}`, 'Status = [404], Reason = [Not Found]'],
  'answers 452': [`HTTP/1.1 452 Username Undefined\r\n${NO_BODY}`, 'Status = [452], Reason = [Username Undefined]'],
  'answers 500 with a program as its page': [
    `HTTP/1.1 500 Internal Server Error\r\n${LENGTH}\r\n${PROGRAM}`,
    'Status = [500], Reason = [Internal Server Error]',
  ],
  'gives no reason': [`HTTP/1.1 404 \r\n${NO_BODY}`, 'Status = [404], Reason = []'],
  'gives a reason that would take over a terminal': [
    `HTTP/1.1 404 \x1b]0;x\x07\x1b[2J\x9b31m\x7f\t\xe4\r\n${NO_BODY}`,
    /^Status = \[404\], Reason = \[[\x20-\x7e]*\]$|^the answer is not HTTP/,
  ],
  'gives an endless reason': [
    `HTTP/1.1 404 ${'x'.repeat(5000)}\r\n${NO_BODY}`,
    `Status = [404], Reason = [${'x'.repeat(255)}]`,
  ],
};

describe('a GET from a server that', () => {
  for (const [what, [answer, why]] of Object.entries(WRONG_ANSWERS)) {
    it(what, async () => {
      configure();
      fake.get = reply(answer);
      const before = fake.requests().length;
      assertFailure(await client.execute(['host.sh']), 3, why);
      assert.equal(fake.requests().length, before + 1, 'asked once');
    });
  }

  it('resets the connection', async () => {
    configure();
    fake.get = (socket) => socket.resetAndDestroy();
    assertFailure(await client.execute(['host.sh']), 3, BROKE_OFF);
  });

  it('dribbles its answer past GetTimeLimit', async () => {
    configure({ GetTimeLimit: '1' });
    fake.get = dribble(`${OK}Content-Length: 1000\r\n\r\n${PROGRAM}`);
    assertFailure(await client.execute(['host.sh']), 3, 'no complete answer within 1 seconds');
  });

  it('says nothing within GetTimeLimit', async () => {
    configure({ GetTimeLimit: '1' });
    fake.get = () => {};
    assertFailure(await client.execute(['host.sh']), 3, 'no complete answer within 1 seconds');
  });

  it('announces more than URLDownloadLimit', async () => {
    configure({ URLDownloadLimit: String(PROGRAM.length - 1) });
    assertFailure(await client.execute(['host.sh']), 3, 'the program is larger than URLDownloadLimit');
    fake.get = reply(`${OK}Content-Length: 999999999999999\r\n\r\n${PROGRAM}`);
    assertFailure(await client.execute(['host.sh']), 3, 'the program is larger than URLDownloadLimit');
  });

  it('announces a program larger than any disk and closes', async () => {
    configure();
    fake.get = reply(`${OK}Content-Length: 999999999999999\r\n\r\n${PROGRAM}`);
    assertFailure(await client.execute(['host.sh']), 3, BROKE_OFF);
  });

  it('is not there', async () => {
    const gone = await startFake();
    await gone.close();
    configure({ URLGetURL: gone.url });
    assertFailure(await client.execute(['host.sh']), 3, `connect ECONNREFUSED 127.0.0.1:${gone.port}`);
  });

  it('nobody knows', async () => {
    // A label of 64 characters: the resolver refuses it without asking anybody.
    configure({ URLGetURL: `http://user:${SECRET}@${'x'.repeat(64)}.invalid/` });
    assertFailure(await client.execute(['host.sh']), 3, /^getaddrinfo E\w+ x{64}\.invalid$/);
  });

  it('speaks no TLS where https was asked for', async (test) => {
    const plain = createTcpServer((socket) =>
      socket.once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')),
    );
    test.after(() => plain.close());
    await new Promise<void>((resolve) => plain.listen(0, '127.0.0.1', resolve));
    configure({ URLGetURL: `https://127.0.0.1:${(plain.address() as AddressInfo).port}/` });
    assertFailure(await client.execute(['host.sh']), 3, /^TLS failed: [a-z ]+$/);
  });
});

/** Sends a byte now and then and never ends. */
function dribble(text: string): Behaviour {
  return (socket) => {
    let at = 0;
    const timer = setInterval(() => socket.write(text[at++] ?? 'x'), 20);
    socket.on('close', () => clearInterval(timer));
  };
}

describe('a PUT to a server that', () => {
  const answers: Record<string, [bytes: string, why: RegExp | string]> = {
    'answers 451': [`HTTP/1.1 451 File Already Exists\r\n${NO_BODY}`, 'Status = [451], Reason = [File Already Exists]'],
    'answers 500': [`HTTP/1.1 500 Oh\x1b[31m\r\n${NO_BODY}`, /^Status = \[500\], Reason = \[Oh\?\[31m\]$|not HTTP/],
    'sends no Content-Length': [`${OK}\r\n`, NOT_ONE_LENGTH],
    'sends garbage': ['garbage\r\n\r\n', /^the answer is not HTTP \(HPE_\w+\)$/],
    'sends half a header': [OK, /broke off|socket hang up|not HTTP/],
    'closes without an answer': ['', /socket hang up|broke off/],
    redirects: [
      `HTTP/1.1 307 Temporary Redirect\r\nLocation: /\r\n${NO_BODY}`,
      'Status = [307], Reason = [Temporary Redirect]',
    ],
  };
  for (const [what, [bytes, why]] of Object.entries(answers)) {
    it(what, async () => {
      configure();
      fake.put = afterBody(Buffer.from(bytes, 'latin1'));
      assertFailure(await client.execute(['host.sh']), 5, why);
    });
  }

  it('does not answer within PutTimeLimit', async () => {
    configure({ PutTimeLimit: '1' });
    fake.put = () => {};
    assertFailure(await client.execute(['host.sh']), 5, 'no complete answer within 1 seconds');
  });

  it('stops reading, past PutTimeLimit', async () => {
    configure({ PutTimeLimit: '1' });
    fake.get = serve(`${PROGRAM}head -c ${20 * MEGABYTE} /dev/zero\n`);
    fake.put = (socket) => socket.pause();
    assertFailure(await client.execute(['host.sh']), 5, 'no complete answer within 1 seconds');
  });

  it('answers before it has read the body, and closes: its answer is what counts, not the broken pipe', async () => {
    configure();
    fake.get = serve(`${PROGRAM}head -c ${20 * MEGABYTE} /dev/zero\n`);
    const closings: Behaviour[] = [(s) => s.destroy(), (s) => s.resetAndDestroy(), (s) => s.end()];
    for (let attempt = 0; attempt < 12; attempt += 1) {
      fake.put = (socket, received) => {
        socket.pause();
        const close = closings[attempt % closings.length] ?? assert.fail();
        socket.write(`HTTP/1.1 451 File Already Exists\r\n${NO_BODY}`, () => close(socket, received));
      };
      assertFailure(await client.execute(['host.sh']), 5, 'Status = [451], Reason = [File Already Exists]');
      rmSync(marker);
    }
  });

  it('closes in the middle of the body without a word', async () => {
    configure();
    fake.get = serve(`${PROGRAM}head -c ${20 * MEGABYTE} /dev/zero\n`);
    fake.put = (socket) => socket.destroy();
    assertFailure(await client.execute(['host.sh']), 5, BROKE_OFF);
  });

  it('is not there', async () => {
    const gone = await startFake();
    await gone.close();
    configure({ URLPutURL: gone.url });
    assertFailure(await client.execute(['host.sh']), 5, `connect ECONNREFUSED 127.0.0.1:${gone.port}`);
  });
});

describe('a signal to webjob', () => {
  const SIGNALS: [signal: NodeJS.Signals, code: number][] = [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ];
  for (const [signal, code] of SIGNALS) {
    it(`${signal} in GET or PUT ends it, cleaned up, with exit code ${code}`, async () => {
      for (const stage of ['get', 'put'] as const) {
        configure();
        let isAsked = false;
        fake.get = serve(PROGRAM);
        fake[stage] = () => {
          isAsked = true;
        };
        const { child, ended } = client.start(['host.sh']);
        await until(() => isAsked, 'the request has come');
        child.kill(signal);
        assert.deepEqual(await ended, { code, signal: null, stdout: '', stderr: '' });
        assert.deepEqual(client.left(), []);
        assert.equal(existsSync(marker), stage === 'put');
      }
    });
  }
});

describe('to a good server the client', () => {
  const PRINTS = '#!/bin/sh\nprintf "out\\000put"\nprintf error >&2\n';

  /** The requests of one job. */
  async function run(more: Record<string, string>): Promise<Buffer[]> {
    configure(more);
    fake.get = serve(PRINTS);
    const before = fake.requests().length;
    const ended = await client.execute(['host.sh', 'a b']);
    assert.deepEqual(ended, { code: 0, signal: null, stdout: '', stderr: '' });
    return fake.requests().slice(before);
  }

  const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '..', 'package.json'), 'utf8'));
  const bits = /64|s390x/.test(arch()) ? 64 : 32;
  const system = `${machine()} ${systemType()} ${release()}`
    .replace(/[^\w ().-]/g, '_')
    .slice(0, 64)
    .replace(/[()]/g, (c) => (c === '(' ? '%28' : '%29'))
    .replaceAll(' ', '+');
  const identity = `VERSION=webjob+${version}+ssl+${bits}+bit&SYSTEM=${system}&CLIENTID=client1&FILENAME=host.sh`;

  it('sends the bytes of a C client', async () => {
    const [get = Buffer.of(), put = Buffer.of(), ...more] = await run({});
    assert.equal(more.length, 0);
    const authorization = `Authorization: Basic ${Buffer.from(`client1:${SECRET}`).toString('base64')}\r\n`;
    const start = `HTTP/1.1\r\nHost: 127.0.0.1:${fake.port}\r\nContent-Type: application/octet-stream\r\n`;
    assert.equal(
      get.toString('latin1'),
      `GET /cgi/nph-webjob.cgi?${identity} ${start}Content-Length: 0\r\n${authorization}Connection: close\r\n\r\n`,
    );
    const { head, body } = splitRequest(put);
    const env = body.toString('latin1', 'out\0puterror'.length);
    assert.equal(body.toString('latin1', 0, body.length - env.length), 'out\0puterror');
    const lengths = `RUNTYPE=snapshot&STDOUT_LENGTH=7&STDERR_LENGTH=5&STDENV_LENGTH=${env.length}`;
    assert.equal(
      head,
      `PUT /cgi/nph-webjob.cgi?${identity}&${lengths} ${start}Content-Length: ${body.length}\r\n${authorization}` +
        'Job-Id: server_1_1085355126_00723\r\nConnection: close\r\n\r\n',
    );
    assert.equal(parseRecord(env).fields.Jid, 'server_1_1085355126_00723');
  });

  it('sends no Authorization unless told, and no Job-Id that is none', async () => {
    for (const header of [
      '',
      'Job-Id: a b\r\n',
      `Job-Id: ${'x'.repeat(256)}\r\n`,
      'Job-Id: \xe4\r\n',
      'Job-Id: a\r\nJob-Id: b\r\n',
    ]) {
      const getting = formatAnswer(PRINTS, '200 OK', header);
      configure({ URLAuthType: 'none' });
      fake.get = reply(getting);
      const ended = await client.execute(['host.sh']);
      assert.deepEqual([ended.code, ended.stderr], [0, ''], header);
      const [get, put] = fake.requests().slice(-2).map(splitRequest);
      assert.doesNotMatch(`${get?.head}${put?.head}`, /^(?:Authorization|Job-Id)/im);
      assert.equal(parseRecord(put?.body.toString('latin1', 12) ?? '').fields.Jid, 'NA');
    }
  });

  it('takes an answer that is unusual but right', async () => {
    configure({ URLPutURL: '' });
    const printing = '#!/bin/sh\necho ran\n';
    const header = (name: string): string => `HTTP/1.0 200 OK\r\n${name}: ${printing.length}\r\n`;
    for (const answer of [
      `${header('CONTENT-LENGTH')}\r\n${printing}`,
      `HTTP/1.1 100 Continue\r\n\r\n${header('content-length')}\r\n${printing}`,
      `${header('Content-Length').replace('200 OK', '251 Link Test OK')}\r\n${printing}`,
      `${header('Content-Length')}X: ${'x'.repeat(16_000)}\r\n\r\n${printing}`,
    ]) {
      fake.get = reply(answer);
      assert.deepEqual(await client.execute(['host.sh']), { code: 0, signal: null, stdout: 'ran\n', stderr: '' });
    }
  });

  it('streams its uploads', {
    skip: !existsSync('/proc/self/status') && 'no /proc to see its memory in',
  }, async (test) => {
    const bytes = 100 * MEGABYTE;
    let received = 0;
    let peak = 0;
    let pid: number | undefined;
    const server = createServer(async (request, response) => {
      for await (const chunk of request) received += chunk.length;
      peak = Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
      response.setHeader('Content-Length', 0).end();
    });
    test.after(() => server.close());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    configure({ URLPutURL: `http://127.0.0.1:${(server.address() as AddressInfo).port}/` });
    fake.get = serve(`#!/bin/sh\nhead -c ${bytes} /dev/zero\n`);
    const { child, ended } = client.start(['host.sh']);
    pid = child.pid;
    const { code, stderr } = await ended;
    assert.deepEqual([code, stderr], [0, '']);
    assert.ok(received > bytes && received < bytes + 4096, `${received}`);
    assert.ok(peak > MEGABYTE && peak < 120 * MEGABYTE, `${Math.round(peak / MEGABYTE)} MB at its peak`);
  });
});
