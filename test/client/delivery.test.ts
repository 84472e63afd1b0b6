// What counts as delivered: an upload is sent until a WebJob server acknowledges it, and waits
// after any other answer.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { type Ended, makeClient, runWebjob } from '../support/client-job.ts';
import {
  afterBody,
  type Behaviour,
  type FakeServer,
  formatAnswer,
  serve,
  startFake,
} from '../support/client-server.ts';

const PROGRAM = '#!/bin/sh\necho "$@"\nhead -c 300000 /dev/urandom >&2\n';
const TAKES = afterBody(formatAnswer());
const BREAKS: Behaviour = (socket) => socket.destroy();
const client = makeClient();
const spool = join(client.root, 'spool');
let fake: FakeServer;

before(async () => {
  fake = await startFake();
});
after(async () => {
  await fake.close();
  client.remove();
});
beforeEach(() => {
  rmSync(spool, { recursive: true, force: true });
  for (const name of readdirSync(client.temp)) rmSync(join(client.temp, name), { recursive: true });
  fake.get = serve(PROGRAM);
  fake.put = TAKES;
});

function configure(more: Record<string, string> = {}): void {
  client.configure({ URLGetURL: fake.url, URLPutURL: fake.url, RetryLimit: '2', RetryDelay: '0', ...more });
}

const refuse = (status: string, more = ''): Behaviour => afterBody(formatAnswer('', status, more));

/**
 * The PUT requests that arrived while `action` ran, at a server that behaves in these ways one
 * after the other, and then correctly.
 */
async function uploadsOf(
  behaviours: Behaviour[],
  action: () => Promise<Ended>,
): Promise<{ ended: Ended; puts: Buffer[] }> {
  const earlier = fake.requests().length;
  fake.put = (socket, received) => (behaviours.shift() ?? TAKES)(socket, received);
  const ended = await action();
  const isPut = (request: Buffer): boolean => request.toString('latin1', 0, 3) === 'PUT';
  return { ended, puts: fake.requests().slice(earlier).filter(isPut) };
}

const warning = (why: string): string =>
  `webjob: warning: PUT of host\\.sh failed: ${why}; trying again in \\d+\\.\\d seconds\n`;

describe('a PUT that fails', () => {
  const PASSING: Record<string, Behaviour> = {
    ...Object.fromEntries([408, 429, 500, 502, 503, 504, 507].map((status) => [status, refuse(`${status} Later`)])),
    'a connection that is closed': BREAKS,
    'a connection that is reset': (socket) => socket.resetAndDestroy(),
    'an acknowledgement that is lost': afterBody(Buffer.of()),
    'half an acknowledgement': afterBody(Buffer.from('HTTP/1.1 200 OK\r\nContent-Len')),
  };
  for (const [what, behaviour] of Object.entries(PASSING)) {
    it(`is tried again after ${what}, with the same bytes and a line for each try`, async () => {
      configure();
      const { ended, puts } = await uploadsOf([behaviour, behaviour], () => client.execute(['host.sh', 'x']));
      assert.deepEqual([ended.code, ended.stdout, puts.length], [0, '', 3]);
      assert.match(ended.stderr, new RegExp(`^(?:${warning('[^\n]+')}){2}$`));
      const last = puts.at(-1) ?? assert.fail();
      for (const put of puts) assert.ok(last.subarray(0, put.length).equals(put), 'the beginning of the same request');
      if (!what.includes('connection that')) assert.ok(puts[0]?.equals(last));
    });
  }

  const FINAL: Record<string, Behaviour> = {
    ...Object.fromEntries([301, 401, 403, 450, 451, 453, 456, 501, 505, 553].map((s) => [s, refuse(`${s} No`)])),
    '503, to come again in more than an hour': refuse('503 No', 'Retry-After: 3601\r\n'),
    'the page of a portal': afterBody(Buffer.from('HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\npage')),
    'another success': refuse('202 Accepted'),
  };
  for (const [what, behaviour] of Object.entries(FINAL)) {
    it(`is not tried again after ${what}`, async () => {
      configure();
      const { ended, puts } = await uploadsOf([behaviour], () => client.execute(['host.sh']));
      assert.deepEqual([ended.code, puts.length], [5, 1]);
      assert.match(ended.stderr, /^webjob: error: PUT of host\.sh failed: [^\n]+\n(?:webjob: hint: [^\n]+\n){1,2}$/);
    });
  }

  it('waits as Retry-After asks', async () => {
    configure();
    const started = performance.now();
    const { ended } = await uploadsOf([refuse('503 Busy', 'Retry-After: 2\r\n')], () => client.execute(['host.sh']));
    assert.equal(ended.code, 0);
    assert.ok(performance.now() - started > 2000);
  });

  it('has PutTimeLimit for each try, and is given up after RetryLimit', async () => {
    configure({ PutTimeLimit: '1' });
    const silent: Behaviour = () => {};
    const { ended, puts } = await uploadsOf(Array(9).fill(silent), () => client.execute(['host.sh']));
    assert.deepEqual([ended.code, puts.length], [5, 3]);
    const why = 'no complete answer within 1 seconds';
    const last = `webjob: error: PUT of host\\.sh failed: ${why}\nwebjob: hint: [^\n]+\n`;
    assert.match(ended.stderr, new RegExp(`^(?:${warning(why)}){2}${last}$`));
  });

  it('is not tried again unless RetryLimit allows it', async () => {
    client.configure({ URLGetURL: fake.url, URLPutURL: fake.url });
    const { ended, puts } = await uploadsOf([BREAKS], () => client.execute(['host.sh']));
    assert.deepEqual([ended.code, puts.length], [5, 1]);
  });

  it('is not tried with settings that rule out the GET: UploadOnGetFailure needs an answer', async () => {
    const getUrl = fake.url.replace('http:', 'https:');
    const tls = { SSLVerifyPeerCert: 'Y', SSLBundledCAsFile: '/nowhere', SSLExpectedPeerCN: 'a' };
    configure({ URLGetURL: getUrl, UploadOnGetFailure: 'Y', ...tls });
    const { ended, puts } = await uploadsOf([], () => client.execute(['host.sh']));
    assert.deepEqual([ended.code, puts.length], [2, 0]);
  });

  it('is tried again when it reports a GET that failed', async () => {
    configure({ UploadOnGetFailure: 'Y' });
    fake.get = refuse('404 Not Found');
    const { ended, puts } = await uploadsOf([refuse('503 Busy')], () => client.execute(['host.sh']));
    assert.deepEqual([ended.code, puts.length], [3, 2]);
    assert.ok(puts[0]?.equals(puts[1] ?? Buffer.of()));
  });
});

describe('a spooled job', () => {
  const flush = (): Promise<Ended> => runWebjob(['--flush', '--file', client.conf]);
  const jobs = (): string[] => (existsSync(spool) ? readdirSync(spool).sort() : []);
  const PAGE = '<html>Please log in</html>';
  const PORTALS: Record<string, [bytes: string, what: RegExp]> = {
    'a page': [
      `HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: ${PAGE.length}\r\n\r\n${PAGE}`,
      /Status = \[200\], Reason = \[OK\], Content-Type = \[text\/html\], Content-Length = \[26\]\n/,
    ],
    'an empty page': [
      'HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 0\r\n\r\n',
      /Content-Type = \[text\/html; charset=utf-8\]/,
    ],
    'a page without a length': [
      `HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n${PAGE}`,
      /Content-Type = \[text\/html\]\n/,
    ],
    'a redirect': [
      'HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n',
      /Status = \[302\], Reason = \[Found\]\n/,
    ],
    '511': ['HTTP/1.1 511 Network Authentication Required\r\n\r\n', /Status = \[511\]/],
    '204': ['HTTP/1.1 204 No Content\r\n\r\n', /Status = \[204\], Reason = \[No Content\]\n/],
    'no length': ['HTTP/1.1 200 OK\r\n\r\n', /the answer does not have exactly one Content-Length\n/],
  };
  for (const [what, [bytes, told]] of Object.entries(PORTALS)) {
    it(`waits after ${what}, and is delivered byte for byte when the server is back`, async () => {
      configure({ SpoolDirectory: spool });
      const portal = afterBody(Buffer.from(bytes));
      const { ended: first, puts: sent } = await uploadsOf([portal], () => client.execute(['host.sh', 'x']));
      assert.equal(first.code, 5);
      assert.match(first.stderr, told);
      const waiting = jobs();
      assert.equal(waiting.length, 1);
      const { ended: second } = await uploadsOf([portal], flush);
      assert.equal(second.code, 5);
      assert.match(second.stderr, told);
      assert.doesNotMatch(second.stderr, /delivered/);
      assert.deepEqual(jobs(), waiting);
      const { ended: third, puts: delivered } = await uploadsOf([], flush);
      assert.deepEqual([third.code, third.stderr, jobs()], [0, 'webjob: delivered 1 of 1 job\n', []]);
      assert.ok(delivered[0]?.equals(sent[0] ?? Buffer.of()));
    });
  }

  it('is named by a hint, as is what may be in its way', async () => {
    configure({ SpoolDirectory: spool });
    const portal = afterBody(Buffer.from(PORTALS['a page']?.[0] ?? ''));
    const { ended } = await uploadsOf([portal], () => client.execute(['host.sh', 'x']));
    assert.deepEqual(ended.stderr.split('\n').slice(1), [
      'webjob: hint: a proxy, portal or filter in between may have answered instead of the server, or changed its answer',
      `webjob: hint: webjob --flush --file ${client.conf}`,
      '',
    ]);
  });

  it('is retried as RetryLimit says when --flush sends it', async () => {
    configure({ SpoolDirectory: spool, RetryLimit: '0' });
    assert.equal((await uploadsOf([BREAKS], () => client.execute(['host.sh']))).ended.code, 5);
    configure({ SpoolDirectory: spool });
    const { ended, puts } = await uploadsOf([refuse('503 Busy'), BREAKS], flush);
    assert.deepEqual([ended.code, puts.length, jobs()], [0, 3, []]);
    assert.match(ended.stderr, new RegExp(`^(?:${warning('[^\n]+')}){2}webjob: delivered 1 of 1 job\n$`));
  });
});
