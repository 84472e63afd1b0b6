// Retries: temporary failures are retried as often and after as long as the settings and the server
// say, all others are reported at once.
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { hostname } from 'node:os';
import { after, before, beforeEach, describe, it } from 'node:test';
import fc from 'fast-check';
import { delaySeconds, isWorthWaiting, splaySeconds } from '../../client/retry.ts';
import { type Ended, makeClient } from '../support/client-job.ts';
import { type Behaviour, type FakeServer, formatAnswer, reply, serve, startFake } from '../support/client-server.ts';

const PROGRAM = '#!/bin/sh\necho fetched\n';
const client = makeClient();
let fake: FakeServer;

before(async () => {
  fake = await startFake();
});
after(async () => {
  await fake.close();
  client.remove();
});
beforeEach(() => configure());

/** Without URLPutURL every request is a GET. */
function configure(more: Record<string, string> = {}): void {
  client.configure({ URLGetURL: fake.url, RetryLimit: '2', RetryDelay: '0', ...more });
}

const refuse = (status: string, more = ''): Behaviour => reply(formatAnswer('', status, more));

/** Runs the job at a server that behaves in these ways one after the other, and then correctly. */
async function run(...behaviours: Behaviour[]): Promise<Ended & { tries: number; seconds: number }> {
  const earlier = fake.requests().length;
  fake.get = (socket, received) => (behaviours.shift() ?? serve(PROGRAM))(socket, received);
  const started = performance.now();
  const ended = await client.execute(['host.sh']);
  return { ...ended, tries: fake.requests().length - earlier, seconds: (performance.now() - started) / 1000 };
}

const warning = (why: string): string =>
  `webjob: warning: GET of host\\.sh failed: ${why}; trying again in \\d+\\.\\d seconds\n`;

describe('a GET that fails', () => {
  const PASSING: Record<string, Behaviour> = {
    ...Object.fromEntries([408, 429, 500, 502, 503, 504, 507].map((status) => [status, refuse(`${status} Later`)])),
    'a connection that is closed': (socket) => socket.destroy(),
    'a body that breaks off': reply(formatAnswer(PROGRAM).subarray(0, -1)),
  };
  for (const [what, behaviour] of Object.entries(PASSING)) {
    it(`is tried again after ${what}, with a line for each try`, async () => {
      const { code, stdout, stderr, tries } = await run(behaviour, behaviour);
      assert.deepEqual([code, stdout, tries], [0, 'fetched\n', 3]);
      assert.match(stderr, new RegExp(`^(?:${warning('[^\n]+')}){2}$`));
    });
  }

  for (const status of [301, 401, 403, 404, 450, 452, 457, 459, 501, 505]) {
    it(`is not tried again after ${status}`, async () => {
      const { code, stderr, tries } = await run(refuse(`${status} No`));
      assert.deepEqual([code, tries], [3, 1]);
      assert.equal(stderr, `webjob: error: GET of host.sh failed: Status = [${status}], Reason = [No]\n`);
    });
  }

  it('is not tried again after a TLS error', async () => {
    let connections = 0;
    const plain = createServer((socket) => {
      connections += 1;
      socket.on('error', () => {}).once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    });
    await new Promise<void>((resolve) => plain.listen(0, '127.0.0.1', resolve));
    try {
      const address = plain.address();
      const port = typeof address === 'object' && address ? address.port : 0;
      configure({ URLGetURL: `https://127.0.0.1:${port}/cgi`, SSLVerifyHost: 'Y' });
      const { code, stderr } = await client.execute(['host.sh']);
      assert.match(stderr, /^webjob: error: GET of host\.sh failed: TLS failed: [^\n]+\n$/);
      assert.deepEqual([code, connections], [3, 1]);
    } finally {
      plain.close();
    }
  });

  it('is given up after RetryLimit with the error of the last try, or at once by default', async () => {
    const last = 'webjob: error: GET of host\\.sh failed: Status = \\[500\\], Reason = \\[Third\\]\n';
    const ended = await run(refuse('502 First'), refuse('503 Second'), refuse('500 Third'));
    assert.deepEqual([ended.code, ended.tries, ended.stdout], [3, 3, '']);
    const warnings =
      warning('Status = \\[502\\], Reason = \\[First\\]') + warning('Status = \\[503\\], Reason = \\[Second\\]');
    assert.match(ended.stderr, new RegExp(`^${warnings}${last}$`));
    client.configure({ URLGetURL: fake.url });
    const atOnce = await run(refuse('503 Once'));
    assert.deepEqual([atOnce.code, atOnce.tries], [3, 1]);
    assert.deepEqual(readdirSync(client.temp), []);
  });

  it('has GetTimeLimit for each try', async () => {
    configure({ GetTimeLimit: '1' });
    const silent: Behaviour = () => {};
    const { code, stderr, tries, seconds } = await run(silent, silent);
    assert.deepEqual([code, tries], [0, 3]);
    assert.match(stderr, new RegExp(`^(?:${warning('no complete answer within 1 seconds')}){2}$`));
    assert.ok(seconds >= 2, `${seconds}`);
  });

  it('uses nothing from an earlier try', async () => {
    const { stdout } = await run(reply(formatAnswer('#!/bin/sh\necho wrong\n').subarray(0, -1)));
    assert.equal(stdout, 'fetched\n');
  });
});

describe('Retry-After', () => {
  const header = (value: string): string => `Retry-After: ${value}\r\n`;

  it('is waited for in seconds or as a date', async () => {
    for (const make of [() => '2', () => new Date(Date.now() + 3000).toUTCString()]) {
      const value = make();
      const { code, tries, seconds } = await run(refuse('503 Busy', header(value)));
      assert.deepEqual([code, tries], [0, 2]);
      assert.ok(seconds >= 1.5, `${value}: ${seconds}`);
    }
  });

  it('causes no wait when it is in the past or malformed', async () => {
    for (const value of ['0', 'Thu, 01 Jan 1970 00:00:00 GMT', 'soon', '-5', '']) {
      const { code, stderr } = await run(refuse('503 Busy', header(value)));
      assert.equal(code, 0);
      assert.match(stderr, /; trying again in 0\.0 seconds\n$/, value);
    }
  });

  it('is not waited for beyond five minutes: the next run tries again', async () => {
    for (const value of ['301', '3600', '999999999', 'Fri, 31 Dec 9999 23:59:59 GMT']) {
      const { code, stderr, tries } = await run(refuse('503 Busy', header(value)));
      assert.deepEqual([code, tries], [3, 1]);
      assert.equal(stderr, 'webjob: error: GET of host.sh failed: Status = [503], Reason = [Busy]\n');
    }
  });

  it('is waited for up to five minutes, or for as long as RetryDelay grows to', () => {
    for (const [retryDelay, attempt, retryAfter, expected] of [
      [0, 0, 300, true],
      [0, 9, 301, false],
      [400, 0, 400, true],
      [400, 0, 401, false],
      [400, 1, 800, true],
      [999_999, 998, 3600, true],
      [999_999, 998, 3601, false],
    ] as const)
      assert.equal(isWorthWaiting(retryDelay, attempt, retryAfter), expected, `${retryDelay} ${attempt} ${retryAfter}`);
  });
});

describe('the delay before a retry', () => {
  const arbitrary = {
    retryDelay: fc.integer({ min: 0, max: 999_999 }),
    attempt: fc.integer({ min: 0, max: 998 }),
    retryAfter: fc.integer({ min: 0, max: 3600 }),
    chance: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
  };

  it('is at least what the server asked for, doubles up to an hour, and grows by chance', () => {
    fc.assert(
      fc.property(fc.record(arbitrary), ({ retryDelay, attempt, retryAfter, chance }) => {
        const least = Math.max(retryAfter, Math.min(3600, retryDelay * 2 ** attempt));
        const delay = delaySeconds(retryDelay, attempt, retryAfter, chance);
        assert.ok(delay >= least && delay <= 1.5 * least, `${delay} for ${least}`);
        assert.ok(delay * 1000 < 2 ** 31, 'a timer takes it');
      }),
    );
  });

  it('differs between clients', () => {
    const delays = [0, 0.25, 0.5, 0.75].map((chance) => delaySeconds(10, 1, 0, chance));
    assert.deepEqual(delays, [20, 22.5, 25, 27.5]);
    assert.deepEqual(
      [0, 1, 2, 3].map((attempt) => delaySeconds(10, attempt, 0, 0)),
      [10, 20, 40, 80],
    );
  });
});

describe('Splay', () => {
  const names = fc.array(fc.string(), { minLength: 1, maxLength: 3 });

  it('is the same part of its window at every run', () => {
    fc.assert(
      fc.property(names, fc.integer({ min: 1, max: 999_999 }), (parts, window) => {
        const seconds = splaySeconds(window, parts);
        assert.ok(seconds >= 0 && seconds < window);
        assert.equal(splaySeconds(window, [...parts]), seconds);
        assert.ok(Math.abs(splaySeconds(2 * window, parts) - 2 * seconds) < 1e-6 * window);
      }),
    );
  });

  it('spreads ten thousand clients, and the programs of one, evenly over its window', () => {
    for (const name of [(n: number) => [`host${n}`, 'c', 'p'], (n: number) => ['host', 'c', `p${n}`]]) {
      const tenths = Array<number>(10).fill(0);
      for (let n = 0; n < 10_000; n++) {
        const tenth = Math.floor(splaySeconds(10, name(n)));
        tenths[tenth] = (tenths[tenth] ?? 0) + 1;
      }
      assert.ok(
        tenths.every((count) => count > 850 && count < 1150),
        tenths.join(),
      );
    }
  });

  it('passes before anything is asked of the server', async () => {
    // A client and program in a late part of the window, so that the delay can be told from the
    // start-up time.
    const program = Array.from({ length: 1000 }, (_, n) => `p${n}`).find(
      (name) => splaySeconds(2, [hostname(), 'client1', name]) > 1.8,
    );
    configure({ Splay: '2' });
    fake.get = serve(PROGRAM);
    const started = performance.now();
    assert.equal((await client.execute([program ?? ''])).code, 0);
    assert.ok(performance.now() - started > 1800);
  });
});
