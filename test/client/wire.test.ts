// The client against servers that misbehave: always one clear error and the right exit code,
// nothing executed, nothing left behind but output that has no other copy, and no password in any
// message.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { basename, join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { type Ended, findKeptJob, makeClient, until } from '../support/client-job.ts';
import {
  afterBody,
  type Behaviour,
  type FakeServer,
  formatAnswer,
  reply,
  serve,
  startFake,
} from '../support/client-server.ts';

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

/** Both stages at the fake server, with a password that must never be shown. */
function configure(more: Record<string, string> = {}): void {
  client.configure({
    URLGetURL: fake.url,
    URLPutURL: fake.url,
    URLAuthType: 'basic',
    URLUsername: 'client1',
    URLPassword: SECRET,
    ...more,
  });
}

/**
 * One error line on stderr with the reason, this exit code, nothing on stdout, no secret. After a
 * GET, TempDirectory is empty; after a PUT a hint delivers the job, which is in a directory that no
 * other user can read.
 */
function assertFailure(ended: Ended, code: 3 | 5, why: RegExp | string, getHint = ''): void {
  const shown = `${ended.stdout}${ended.stderr}`;
  const hint = code === 5 ? `webjob --flush ${client.temp}/webjob-\\w{6} --file ${client.conf}` : getHint;
  const between = code === 5 ? '(?:webjob: hint: a proxy, portal or filter [\\x20-\\x7e]+\n)?' : '';
  const [, message] =
    new RegExp(
      `^webjob: error: ${code === 3 ? 'GET' : 'PUT'} of host\\.sh failed: ([\\x20-\\x7e]+)\n${between}${hint && `webjob: hint: ${hint}\n`}$`,
    ).exec(ended.stderr) ?? [];
  assert.ok(message !== undefined, `not one error line: ${JSON.stringify(ended.stderr)}`);
  if (typeof why === 'string') assert.equal(message, why);
  else assert.match(message, why);
  assert.deepEqual([ended.code, ended.signal, ended.stdout], [code, null, '']);
  assert.equal(existsSync(marker), code === 5, 'executed');
  for (const secret of [SECRET, Buffer.from(`client1:${SECRET}`).toString('base64')])
    assert.ok(!shown.includes(secret));
  if (code === 5) takeKeptOutput(ended.stderr);
  assert.deepEqual(client.left(), []);
}

/** The output of a program that no server has: the only thing left in TempDirectory. Removes it. */
function takeKeptOutput(stderr: string): string {
  const { folder, job } = findKeptJob(stderr);
  assert.deepEqual(readdirSync(client.temp), [basename(folder)]);
  assert.deepEqual(readdirSync(job).sort(), ['env', 'err', 'out', 'parcel.json']);
  for (const path of [folder, job, ...readdirSync(job).map((name) => join(job, name))])
    assert.equal(statSync(path).mode & 0o077, 0, `${path} is private`);
  const out = readFileSync(join(job, 'out'), 'latin1');
  rmSync(folder, { recursive: true });
  return out;
}

const BROKE_OFF = 'the connection broke off before the answer was complete';
const NOT_ONE_LENGTH = 'the answer does not have exactly one Content-Length';
const OK = 'HTTP/1.1 200 OK\r\n';
const LENGTH = `Content-Length: ${PROGRAM.length}\r\n`;
const NO_BODY = 'Content-Length: 0\r\n\r\n';

const ON_THE_WAY =
  'a proxy, portal or filter in between may have answered instead of the server, or changed its answer';
const notProgram = (what: string): string => `the answer is not a program of a WebJob server: ${what}`;
/** A complete answer with the program, in which these lines are not those of a WebJob server. */
const foreign = (header: string, statusLine = '200 OK'): string =>
  `HTTP/1.1 ${statusLine}\r\n${header}${LENGTH}\r\n${PROGRAM}`;
const GIVEN_LENGTH = `Content-Length = [${PROGRAM.length}]`;

/** Wrong answers to a GET. A careless client would take some of them for a program. */
const WRONG_ANSWERS: Record<string, [answer: string, why: RegExp | string, hint?: string]> = {
  'closes without an answer': ['', /socket hang up|broke off/],
  'closes in the middle of the header': [`${OK}Content-Le`, /broke off|socket hang up|not HTTP/],
  'closes in the middle of the body': [`${OK}${LENGTH}\r\n${PROGRAM.slice(0, -1)}`, BROKE_OFF],
  'sends no Content-Length': [`${OK}\r\n${PROGRAM}`, NOT_ONE_LENGTH, ON_THE_WAY],
  'sends two that differ': [`${OK}${LENGTH}Content-Length: 1\r\n\r\n${PROGRAM}`, NOT_ONE_LENGTH],
  'sends the same one twice': [`${OK}${LENGTH}${LENGTH}\r\n${PROGRAM}`, NOT_ONE_LENGTH],
  'sends a list of two': [`${OK}Content-Length: 5, 5\r\n\r\n#!/bi`, NOT_ONE_LENGTH],
  'sends a negative one': [`${OK}Content-Length: -1\r\n\r\n${PROGRAM}`, NOT_ONE_LENGTH],
  'sends one that no number can hold': [`${OK}Content-Length: ${'9'.repeat(30)}\r\n\r\n${PROGRAM}`, NOT_ONE_LENGTH],
  'sends more than it announced': [
    `${OK}Content-Length: 10\r\n\r\n${PROGRAM}`,
    'the answer is longer than its Content-Length',
  ],
  'sends chunks': [
    `${OK}Transfer-Encoding: chunked\r\n\r\na\r\n#!/bin/sh\n\r\n0\r\n\r\n`,
    ...([NOT_ONE_LENGTH, ON_THE_WAY] as const),
  ],
  'is a portal with a page': [
    foreign('Content-Type: text/html\r\n'),
    notProgram(`Status = [200], Reason = [OK], Content-Type = [text/html], ${GIVEN_LENGTH}`),
    ON_THE_WAY,
  ],
  'is a portal with a page in chunks': [
    `${OK}Content-Type: text/html; charset="utf-8"\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n<\r\n0\r\n\r\n`,
    notProgram('Status = [200], Reason = [OK], Content-Type = [text/html; charset="utf-8"]'),
    ON_THE_WAY,
  ],
  'sends a type that takes over a terminal': [
    foreign('Content-Type: text/\x9b31mhtml\r\n'),
    notProgram(`Status = [200], Reason = [OK], Content-Type = [text/?31mhtml], ${GIVEN_LENGTH}`),
    ON_THE_WAY,
  ],
  ...Object.fromEntries(
    ['application/x-sh', 'text/plain2', 'text/html, text/plain', 'application/json', 'multipart/byteranges'].map(
      (type) => [
        `sends ${type}`,
        [foreign(`Content-Type: ${type}\r\n`), new RegExp(`Content-Type = \\[${type}\\]`), ON_THE_WAY],
      ],
    ),
  ),
  'sends two types': [
    foreign('Content-Type: application/octet-stream\r\nContent-Type: text/html\r\n'),
    /Content-Type = \[application\/octet-stream, text\/html\]/,
    ON_THE_WAY,
  ],
  ...Object.fromEntries(
    ['gzip', 'br', 'identity', ''].map((encoding) => [
      `sends content that is encoded: ${encoding}`,
      [
        foreign(`Content-Type: application/octet-stream\r\nContent-Encoding: ${encoding}\r\n`),
        new RegExp(`Content-Encoding = \\[${encoding}\\]`),
        ON_THE_WAY,
      ],
    ]),
  ),
  ...Object.fromEntries(
    [
      '201 Created',
      '202 Accepted',
      '203 Non-Authoritative',
      '206 Partial Content',
      '226 IM Used',
      '251 Link Test OK',
    ].map((statusLine) => [
      `answers ${statusLine}`,
      [
        foreign('Content-Type: application/octet-stream\r\n', statusLine),
        notProgram(
          `Status = [${statusLine.slice(0, 3)}], Reason = [${statusLine.slice(4)}], Content-Type = [application/octet-stream], ${GIVEN_LENGTH}`,
        ),
        ON_THE_WAY,
      ],
    ]),
  ),
  'sends chunks and a length': [
    `${OK}Transfer-Encoding: chunked\r\n${LENGTH}\r\na\r\n#!/bin/sh\n\r\n0\r\n\r\n`,
    /not have exactly one|not HTTP/,
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
  'has no content': [
    'HTTP/1.1 204 No Content\r\n\r\n',
    notProgram('Status = [204], Reason = [No Content]'),
    ON_THE_WAY,
  ],
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

describe('a GET', () => {
  for (const [what, [answer, why, hint]] of Object.entries(WRONG_ANSWERS)) {
    it(`fails when the server ${what}`, async () => {
      configure();
      fake.get = reply(answer);
      const before = fake.requests().length;
      assertFailure(await client.execute(['host.sh']), 3, why, hint);
      assert.equal(fake.requests().length, before + 1, 'asked once');
    });
  }

  it('fails when the server resets the connection', async () => {
    configure();
    fake.get = (socket) => socket.resetAndDestroy();
    assertFailure(await client.execute(['host.sh']), 3, BROKE_OFF);
  });

  it('fails when the server dribbles its answer past GetTimeLimit', async () => {
    configure({ GetTimeLimit: '1' });
    fake.get = dribble(`${OK}Content-Length: 1000\r\n\r\n${PROGRAM}`);
    assertFailure(await client.execute(['host.sh']), 3, 'no complete answer within 1 seconds');
  });

  it('fails when the server is silent for GetTimeLimit', async () => {
    configure({ GetTimeLimit: '1' });
    fake.get = () => {};
    assertFailure(await client.execute(['host.sh']), 3, 'no complete answer within 1 seconds');
  });

  it('fails when the server announces more than URLDownloadLimit', async () => {
    configure({ URLDownloadLimit: String(PROGRAM.length - 1) });
    assertFailure(await client.execute(['host.sh']), 3, 'the program is larger than URLDownloadLimit');
    fake.get = reply(`${OK}Content-Length: 999999999999999\r\n\r\n${PROGRAM}`);
    assertFailure(await client.execute(['host.sh']), 3, 'the program is larger than URLDownloadLimit');
  });

  it('succeeds when the server announces exactly URLDownloadLimit', async () => {
    configure({ URLDownloadLimit: String(PROGRAM.length), URLPutURL: '' });
    assert.equal((await client.execute(['host.sh'])).code, 0);
    assert.ok(existsSync(marker));
  });

  it('fails when the server announces a program larger than any disk and closes', async () => {
    configure();
    fake.get = reply(`${OK}Content-Length: 999999999999999\r\n\r\n${PROGRAM}`);
    assertFailure(await client.execute(['host.sh']), 3, BROKE_OFF);
  });

  it('fails without a server', async () => {
    const gone = await startFake();
    await gone.close();
    configure({ URLGetURL: gone.url });
    assertFailure(await client.execute(['host.sh']), 3, `connect ECONNREFUSED 127.0.0.1:${gone.port}`);
  });

  it('fails with a name that nobody knows', async () => {
    // A label of 64 characters, which the resolver refuses without a query.
    configure({ URLGetURL: `http://user:${SECRET}@${'x'.repeat(64)}.invalid/` });
    assertFailure(await client.execute(['host.sh']), 3, /^getaddrinfo E\w+ x{64}\.invalid$/);
  });

  it('fails when the server does not speak TLS on an https port', async (test) => {
    const plain = createTcpServer((socket) =>
      socket.once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')),
    );
    test.after(() => plain.close());
    await new Promise<void>((resolve) => plain.listen(0, '127.0.0.1', resolve));
    configure({ URLGetURL: `https://127.0.0.1:${(plain.address() as AddressInfo).port}/`, SSLVerifyHost: 'Y' });
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

/**
 * Successful answers that no WebJob server gives to a PUT of a snapshot: the upload was not stored.
 */
const NO_RECEIPTS: [what: string, [bytes: string, why: RegExp | string]][] = (
  [
    ['a page of a portal', '200 OK', 'Content-Type: text/html\r\nContent-Length: 4\r\n', 'page'],
    ['an empty page', '200 OK', 'Content-Type: text/html\r\nContent-Length: 0\r\n', ''],
    ['an empty page, in capitals', '200 OK', 'CONTENT-TYPE: Text/HTML;charset=x\r\nContent-Length: 0\r\n', ''],
    ['a page in chunks', '200 OK', 'Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n', '1\r\n<\r\n0\r\n\r\n'],
    ['a page without a length', '200 OK', 'Content-Type: text/html\r\n', 'page'],
    [
      'what a GET is answered with',
      '200 OK',
      'Content-Type: application/octet-stream\r\nContent-Length: 4\r\n',
      '#!/b',
    ],
    ['encoded content', '200 OK', 'Content-Encoding: gzip\r\nContent-Length: 0\r\n', ''],
    ['JSON', '200 OK', 'Content-Type: application/json\r\nContent-Length: 2\r\n', '{}'],
    ['201', '201 Created', 'Content-Length: 0\r\n', ''],
    ['202', '202 Accepted', 'Content-Length: 0\r\n', ''],
    ['204', '204 No Content', '', ''],
    ['204 with a length', '204 No Content', 'Content-Length: 0\r\n', ''],
    ['206', '206 Partial Content', 'Content-Length: 0\r\n', ''],
    ['251 to a snapshot, which it threw away', '251 Link Test OK', 'Content-Length: 0\r\n', ''],
    ['299', '299 Thanks', 'Content-Length: 0\r\n', ''],
  ] as const
).map(([what, status, header, body]) => [
  `acknowledges with ${what}`,
  [
    `HTTP/1.1 ${status}\r\n${header}\r\n${body}`,
    new RegExp(
      `^the answer is not an acknowledgement of a WebJob server: Status = \\[${status.slice(0, 3)}\\], Reason = \\[${status.slice(4)}\\]`,
    ),
  ],
]);

describe('a PUT', () => {
  const answers: Record<string, [bytes: string, why: RegExp | string]> = {
    'answers 451': [`HTTP/1.1 451 File Already Exists\r\n${NO_BODY}`, 'Status = [451], Reason = [File Already Exists]'],
    'answers 500': [`HTTP/1.1 500 Oh\x1b[31m\r\n${NO_BODY}`, /^Status = \[500\], Reason = \[Oh\?\[31m\]$|not HTTP/],
    'sends no Content-Length': [`${OK}\r\n`, NOT_ONE_LENGTH],
    'sends garbage': ['garbage\r\n\r\n', /^the answer is not HTTP \(HPE_\w+\)$/],
    'sends half a header': [OK, /broke off|socket hang up|not HTTP/],
    'closes without an answer': ['', /socket hang up|broke off/],
    ...Object.fromEntries(NO_RECEIPTS),
    redirects: [
      `HTTP/1.1 307 Temporary Redirect\r\nLocation: /\r\n${NO_BODY}`,
      'Status = [307], Reason = [Temporary Redirect]',
    ],
  };
  for (const [what, [bytes, why]] of Object.entries(answers)) {
    it(`fails when the server ${what}`, async () => {
      configure();
      fake.put = afterBody(Buffer.from(bytes, 'latin1'));
      assertFailure(await client.execute(['host.sh']), 5, why);
    });
  }

  it('fails when the server does not answer within PutTimeLimit', async () => {
    configure({ PutTimeLimit: '1' });
    fake.put = () => {};
    assertFailure(await client.execute(['host.sh']), 5, 'no complete answer within 1 seconds');
  });

  it('fails when the server stops reading past PutTimeLimit', async () => {
    configure({ PutTimeLimit: '1' });
    fake.get = serve(`${PROGRAM}head -c ${20 * MEGABYTE} /dev/zero\n`);
    fake.put = (socket) => socket.pause();
    assertFailure(await client.execute(['host.sh']), 5, 'no complete answer within 1 seconds');
  });

  it('counts an answer that comes before the body is read, not the broken pipe', async () => {
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

  it('fails when the server closes in the middle of the body', async () => {
    configure();
    fake.get = serve(`${PROGRAM}head -c ${20 * MEGABYTE} /dev/zero\n`);
    fake.put = (socket) => socket.destroy();
    assertFailure(await client.execute(['host.sh']), 5, BROKE_OFF);
  });

  it('fails without a server', async () => {
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
    it(`ends it during GET, cleaned up, with exit code ${code} (${signal})`, async () => {
      assert.deepEqual(await signalDuring('get', signal), { code, signal: null, stdout: '', stderr: '' });
      assert.deepEqual(client.left(), []);
      assert.ok(!existsSync(marker));
    });

    it(`ends it during PUT with exit code ${code}, and says where the output is (${signal})`, async () => {
      const { stderr, ...ended } = await signalDuring('put', signal);
      assert.deepEqual(ended, { code, signal: null, stdout: '' });
      assert.match(
        stderr,
        new RegExp(`^webjob: warning: ended by ${signal} before the upload was complete; to deliver it: .+\n$`),
      );
      assert.equal(takeKeptOutput(stderr), 'printed\n');
      assert.ok(existsSync(marker));
    });
  }

  async function signalDuring(stage: 'get' | 'put', signal: NodeJS.Signals): Promise<Ended> {
    configure();
    let isAsked = false;
    fake.get = serve(`${PROGRAM}echo printed\n`);
    fake[stage] = () => {
      isAsked = true;
    };
    const { child, ended } = client.start(['host.sh']);
    await until(() => isAsked, 'the request has come');
    child.kill(signal);
    return await ended;
  }
});
