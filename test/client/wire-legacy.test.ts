// Old servers, with unusual but valid answers and with invalid ones: the job succeeds, or ends
// with the right error within its limit, and never with an incomplete program.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Ended, findKeptJob, makeClient } from '../support/client-job.ts';
import {
  afterBody,
  type Behaviour,
  type FakeServer,
  formatAnswer,
  reply,
  serve,
  splitRequest,
  startFake,
} from '../support/client-server.ts';

const client = makeClient();
const marker = join(client.root, 'executed');
const PROGRAM = `#!/bin/sh\n: > '${marker}'\necho done\n`;
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

function configure(more: Record<string, string> = {}): void {
  client.configure({ URLGetURL: fake.url, URLPutURL: fake.url, ...more });
}

/** Sends a text in small pieces, one after the other. */
function drip(text: string, pieceLength = 7): Behaviour {
  return async (socket) => {
    for (let at = 0; at < text.length && !socket.destroyed; at += pieceLength) {
      socket.write(text.slice(at, at + pieceLength), 'latin1');
      await sleep(2);
    }
    socket.end();
  };
}

/** Sends `start`, then `more` repeatedly for as long as the client listens. */
function flood(start: string, more: string, pauseMs: number): Behaviour {
  return async (socket) => {
    socket.write(start);
    while (!socket.destroyed) {
      if (!socket.write(more)) await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), sleep(50)]);
      await sleep(pauseMs);
    }
  };
}

const EXTRAS =
  'date: Sun, 23 May 2004 17:14:41 GMT\r\nserver: Apache/1.3.29 (Unix) mod_ssl/2.8.16\r\nx-empty:\r\nvary: a\r\nvary: b\r\n' +
  'set-cookie: a=b\r\nconnection: close\r\ncontent-type: application/octet-stream\r\n';

/** A complete answer with the headers of an old server. */
function answerOf(body: string, statusLine = 'HTTP/1.1 200 OK'): string {
  return `${statusLine}\r\n${EXTRAS}job-id: server_1_1085355126_00723\r\ncontent-length:${body.length}   \r\n\r\n${body}`;
}

describe('an old server', () => {
  const WAYS: Record<string, Behaviour> = {
    'writes its header in lower case, with lines that mean nothing to us': reply(answerOf(PROGRAM)),
    'speaks HTTP/1.0': reply(answerOf(PROGRAM, 'HTTP/1.0 200 OK')),
    'gives no reason': reply(answerOf(PROGRAM, 'HTTP/1.1 200 ')),
    'sends its bytes slowly': drip(answerOf(PROGRAM)),
    'says 100 Continue first': drip(`HTTP/1.1 100 Continue\r\n\r\n${answerOf(PROGRAM)}`, 30),
    'says 100 Continue first, more than once, with a header': reply(
      `HTTP/1.1 100 Continue\r\nserver: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n${answerOf(PROGRAM)}`,
    ),
    'sends the header and then, later, the program': async (socket) => {
      const [head = '', body = ''] = answerOf(PROGRAM).split('\r\n\r\n');
      socket.write(`${head}\r\n\r\n`);
      await sleep(50);
      socket.end(body);
    },
  };
  for (const [what, behaviour] of Object.entries(WAYS)) {
    it(`is understood when it ${what}`, async () => {
      configure({ GetTimeLimit: '20', PutTimeLimit: '20' });
      fake.get = behaviour;
      fake.put = (socket, received) => {
        socket.write('HTTP/1.1 100 Continue\r\n\r\n');
        afterBody(Buffer.from(answerOf('')))(socket, received);
      };
      assert.deepEqual(await client.execute(['host.sh']), { code: 0, signal: null, stdout: '', stderr: '' });
      const { head, body } = splitRequest(fake.requests().at(-1) ?? Buffer.of());
      assert.match(head, /^PUT [^\n]+\n(?:[^\n]+\n)*Job-Id: server_1_1085355126_00723\r\n/);
      assert.match(body.toString('latin1'), /^done\n/);
    });
  }
});

describe('an old server', () => {
  const TIME_OUT = 'no complete answer within 1 seconds';
  const TOO_LONG = 'the header of the answer is longer than 16383 bytes';
  const refusal = 'HTTP/1.1 453 Access Denied\r\n\r\n';
  const WAYS: Record<string, [behaviour: Behaviour, why: string]> = {
    'fails with a reason and nothing else': [reply(refusal), 'Status = [453], Reason = [Access Denied]'],
    'fails after 100 Continue': [
      reply(`HTTP/1.1 100 Continue\r\n\r\n${refusal}`),
      'Status = [453], Reason = [Access Denied]',
    ],
    'fails with a page that never ends': [
      flood('HTTP/1.1 500 Oops\r\ncontent-type: text/html\r\n\r\n', 'page\n', 1),
      'Status = [500], Reason = [Oops]',
    ],
    'sends a header that never ends, quickly': [flood('HTTP/1.1 200 OK\r\n', 'x: y\r\n'.repeat(100), 1), TOO_LONG],
    'sends one line that never ends': [flood('HTTP/1.1 200 OK\r\nx: ', 'y'.repeat(1000), 1), TOO_LONG],
    'sends a header that never ends, slowly': [flood('HTTP/1.1 200 OK\r\n', 'x: y\r\n', 30), TIME_OUT],
    'says 100 Continue for ever': [flood('', 'HTTP/1.1 100 Continue\r\n\r\n', 5), TIME_OUT],
    'says 100 Continue and nothing more': [(socket) => socket.write('HTTP/1.1 100 Continue\r\n\r\n'), TIME_OUT],
    'starts its answer, and waits': [(socket) => socket.write('HTTP/1.1 200 O'), TIME_OUT],
  };
  for (const [what, [behaviour, why]] of Object.entries(WAYS)) {
    it(`gets the right error when it ${what}`, async () => {
      await Promise.all([assertGetFails(behaviour, why), assertPutFails(behaviour, why)]);
    });
  }

  async function assertGetFails(behaviour: Behaviour, why: string): Promise<void> {
    configure({ GetTimeLimit: '1' });
    fake.get = behaviour;
    assertError(await client.execute(['host.sh']), `webjob: error: GET of host.sh failed: ${why}\n`, 3);
    assert.ok(!existsSync(marker), 'nothing was executed');
    assert.deepEqual(client.left(), []);
  }

  /** Asserts the error of a PUT; has its own server and client, so that it can run in parallel. */
  async function assertPutFails(behaviour: Behaviour, why: string): Promise<void> {
    const server = await startFake();
    const putting = makeClient({ URLGetURL: server.url, URLPutURL: server.url, PutTimeLimit: '1' });
    server.put = behaviour;
    try {
      const ended = await putting.execute(['host.sh']);
      const { command, job } = findKeptJob(ended.stderr);
      assertError(ended, `webjob: error: PUT of host.sh failed: ${why}\nwebjob: hint: ${command}\n`, 5);
      assert.deepEqual(readdirSync(job).sort(), ['env', 'err', 'out', 'parcel.json']);
    } finally {
      await server.close();
      putting.remove();
    }
  }

  it('is given up when it sends a program that never ends', async () => {
    configure({ GetTimeLimit: '1' });
    fake.get = flood(`HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n${PROGRAM}`, '\n', 10);
    assertError(await client.execute(['host.sh']), `webjob: error: GET of host.sh failed: ${TIME_OUT}\n`, 3);
    assert.ok(!existsSync(marker), 'nothing was executed');
    assert.deepEqual(client.left(), []);
  });
});

function assertError({ code, stdout, stderr }: Ended, error: string, expected: number): void {
  assert.equal(stderr, error);
  assert.deepEqual([code, stdout], [expected, '']);
}
