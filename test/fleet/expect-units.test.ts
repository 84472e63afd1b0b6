// The file of expectations, line by line, and the states of `webjobctl alert` over several checks
// and deliveries, without a site.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { nameChannel } from '../../admin/alerts/channels.ts';
import { deliver } from '../../admin/alerts/deliver.ts';
import { type AlertState, nextAttemptAt, type Problem, takeLook } from '../../admin/alerts/state.ts';
import { ExpectError, isOverdue, isQuiet, parseExpect } from '../../fleet/expect.ts';

describe('parseExpect', () => {
  it('reads every statement', () => {
    const rules = parseExpect(`# a comment
expect web-* uptime.sh every=1h grace=15m exit=0,3 longest=90s
expect db list.sh unchanged ignore="^pid \\d+ #" ignore=^x stream=err # more
expect db list.sh golden=server_1_1_00001
expect db list.sh unchanged-since=2026-11-01T00:00Z
expect * * every=1d
tell mail ops@example.org,b@example.org from=webjob@example.org smtp=smtps://mail.example.org:465 user=u password-file=/p
tell mail root@localhost
tell webhook https://hooks.example.org/x secret-file=/s
tell command /usr/local/sbin/page --to "the night shift"
ping @/etc/url
remind 1d
quiet 22:00-06:30
retry 5m
timeout 3s
warn certificates 30d
warn disk 5%
warn inodes 10k
warn checkpoint 7d
warn verify 1d since=7d
warn rollout
`);
    const facts = {
      ignore: [],
      stream: 'out',
      same: undefined,
      within: undefined,
      exit: undefined,
      longest: undefined,
    };
    assert.deepEqual(rules.expectations, [
      { ...facts, line: 2, who: 'web-*', command: 'uptime.sh', within: 4500, exit: [0, 3], longest: 90 },
      {
        ...facts,
        line: 3,
        who: 'db',
        command: 'list.sh',
        same: { as: 'previous' },
        stream: 'err',
        ignore: [/^pid \d+ #/u, /^x/u],
      },
      { ...facts, line: 4, who: 'db', command: 'list.sh', same: { as: 'job', jobId: 'server_1_1_00001' } },
      { ...facts, line: 5, who: 'db', command: 'list.sh', same: { as: 'date', date: new Date('2026-11-01T00:00Z') } },
      { ...facts, line: 6, who: '*', command: '*', within: 86_400 },
    ]);
    assert.deepEqual(rules.channels, [
      {
        line: 7,
        kind: 'mail',
        to: ['ops@example.org', 'b@example.org'],
        from: 'webjob@example.org',
        sendmail: '/usr/sbin/sendmail',
        smtp: 'smtps://mail.example.org:465',
        user: 'u',
        passwordFile: '/p',
      },
      {
        line: 8,
        kind: 'mail',
        to: ['root@localhost'],
        from: 'root@localhost',
        sendmail: '/usr/sbin/sendmail',
        smtp: undefined,
        user: undefined,
        passwordFile: undefined,
      },
      { line: 9, kind: 'webhook', url: 'https://hooks.example.org/x', secretFile: '/s' },
      { line: 10, kind: 'command', words: ['/usr/local/sbin/page', '--to', 'the night shift'] },
    ]);
    const { ping, remind, quiet, retry, timeout, warnings } = rules;
    assert.deepEqual([ping, remind, quiet, retry, timeout], ['@/etc/url', 86_400, [1320, 390], 300, 3]);
    assert.deepEqual(warnings, {
      certificates: 2_592_000,
      disk: { part: 0.05 },
      inodes: { count: 10_000 },
      checkpoint: 604_800,
      rollout: true,
      verify: { every: 86_400, since: 604_800 },
    });
  });

  const WRONG: [line: string, message: RegExp][] = [
    ['expects x y every=1h', /expects is not one of expect, tell,/],
    ['expect', /nothing is not a client id/],
    ['expect a/b x.sh every=1h', /a\/b is not a client id, a glob or a group/],
    ['expect a ../x every=1h', /\.\.\/x is not a command/],
    ['expect a x.sh', /it expects nothing/],
    ['expect a x.sh ignore=x', /it expects nothing/],
    ['expect a x.sh grace=1h exit=0', /grace requires every/],
    ['expect a x.sh every=1', /every must be a DURATION/],
    ['expect a x.sh every=0s', /every must be a DURATION/],
    ['expect a x.sh every=1h every=2h', /every is given twice/],
    ['expect a x.sh exit=0;1', /exit codes are numbers/],
    ['expect a x.sh exist=0', /exist=0 is not one of every,/],
    ['expect a x.sh unchanged golden=x', /give one of unchanged,/],
    ['expect a x.sh unchanged=yes', /unchanged has no value/],
    ['expect a x.sh unchanged-since=yesterday', /unchanged-since is a date/],
    ['expect a x.sh golden=a/b', /golden is the id of a job/],
    ['expect a x.sh exit=0 stream=env', /stream is out or err/],
    ['expect a x.sh unchanged ignore=(', /ignore: Invalid regular expression/],
    ['expect a * exit=0 every=1h', /for \* only every and grace/],
    ['expect a x.sh exit=0 ignore="a', /a quote is not closed/],
    ['tell', /nothing is not one of mail, webhook, command/],
    ['tell mail', /nothing is not an address/],
    ['tell mail -oQ/tmp@example.org', /-oQ\/tmp@example.org is not an address/],
    ['tell mail a@b.c from=x', /x is not an address/],
    ['tell mail a@b.c smtp=smtp://u:p@host', /smtp is smtp:\/\/HOST:PORT/],
    ['tell mail a@b.c smtp=smtp://host user=u', /user and password-file must be given together/],
    ['tell mail a@b.c user=u password-file=/p', /user requires smtp/],
    ['tell mail a@b.c smtp=smtp://host user=u password-file=p', /p is not an absolute path/],
    ['tell webhook ftp://x', /ftp:\/\/x is not an http or https URL/],
    ['tell webhook http://u:p@x', /put a URL with a password into a file/],
    ['tell command page', /begins with an absolute path/],
    ['ping x y', /ping takes one word/],
    ['quiet 22-6', /quiet must be two times of day/],
    ['quiet 06:00-06:00', /quiet begins and ends at the same time/],
    ['warn disc 5%', /disc is not one of certificates,/],
    ['warn disk 101%', /disk must be a share or a number/],
    ['warn rollout 5%', /rollout takes no arguments/],
    ['warn verify', /verify must be a DURATION/],
    ['remind', /remind takes one word/],
  ];
  for (const [line, message] of WRONG)
    it(`refuses ${line}`, () => {
      assert.throws(
        () => parseExpect(`\n# good\n${line}\n`),
        (error) => error instanceof ExpectError && error.line === 3 && message.test(error.message),
      );
    });

  it('refuses to give the same statement twice', () => {
    assert.throws(
      () => parseExpect('tell mail a@b.c\ntell mail a@b.c from=x@b.c\n'),
      /line 2: line 1 has the same channel/,
    );
  });
});

describe('isQuiet and isOverdue', () => {
  it('know the minutes, even past midnight', () => {
    const over = parseExpect('quiet 22:00-06:00').quiet;
    assert.deepEqual(
      [0, 359, 360, 1319, 1320].map((minutes) => isQuiet({ quiet: over }, minutes)),
      [true, true, false, false, true],
    );
    const within = parseExpect('quiet 12:00-13:00').quiet;
    assert.deepEqual(
      [719, 720, 779, 780].map((minutes) => isQuiet({ quiet: within }, minutes)),
      [false, true, true, false],
    );
    assert.equal(isQuiet({ quiet: undefined }, 0), false);
    const now = new Date(100_000);
    assert.deepEqual(
      [undefined, new Date(39_999), new Date(40_000)].map((at) => isOverdue(at, 60, now)),
      [true, true, false],
    );
  });
});

describe('takeLook', () => {
  const problem = (key: string): Problem => ({ key, what: 'what', where: 'where' });
  const empty = (): AlertState => ({
    version: 1,
    problems: [],
    held: [],
    messages: [],
    outbox: [],
    failures: {},
    verified: undefined,
  });
  const policy = { channels: ['a', 'b'], remind: 60, isQuiet: false };
  const look = (...keys: string[]) => ({ problems: keys.map(problem), failed: new Set<string>() });
  const kinds = (events: readonly { kind: string; key: string }[]): string[] =>
    events.map(({ kind, key }) => `${kind} ${key}`);

  it('reports a beginning and an end once, to every channel', () => {
    const state = empty();
    assert.deepEqual(kinds(takeLook(state, look('x 1', 'x 2'), policy, 1000)), ['begun x 1', 'begun x 2']);
    assert.deepEqual(kinds(takeLook(state, look('x 1', 'x 2'), policy, 2000)), []);
    assert.deepEqual(kinds(takeLook(state, look('x 2'), policy, 3000)), ['ended x 1']);
    assert.deepEqual(
      state.outbox.map(({ channel, attempts }) => [channel, attempts]),
      [
        ['a', 0],
        ['b', 0],
        ['a', 0],
        ['b', 0],
      ],
    );
    assert.deepEqual(
      state.messages.map(({ events }) => events.map(({ beganAt, at }) => [beganAt, at])),
      [
        [
          [1000, 1000],
          [1000, 1000],
        ],
        [[1000, 3000]],
      ],
    );
    assert.equal(new Set(state.messages.map(({ id }) => id)).size, 2);
  });

  it('sends reminders, and counts from the last one', () => {
    const state = empty();
    takeLook(state, look('x'), policy, 0);
    assert.deepEqual(kinds(takeLook(state, look('x'), policy, 59_999)), []);
    assert.deepEqual(kinds(takeLook(state, look('x'), policy, 60_000)), ['goes on x']);
    assert.deepEqual(kinds(takeLook(state, look('x'), policy, 119_999)), []);
    assert.deepEqual(kinds(takeLook(state, look('x'), { ...policy, remind: undefined }, 1e9)), []);
  });

  it('keeps what happens in quiet hours for one message after them', () => {
    const state = empty();
    takeLook(state, look('x'), { ...policy, isQuiet: true }, 1000);
    takeLook(state, look('y'), { ...policy, isQuiet: true }, 2000);
    assert.deepEqual([state.outbox.length, state.held.length], [0, 3]);
    takeLook(state, look('y'), policy, 3000);
    assert.deepEqual(kinds(state.messages[0]?.events ?? []), ['begun x', 'begun y', 'ended x']);
    assert.deepEqual([state.messages.length, state.held.length], [1, 0]);
  });

  it('ends nothing that a failed check found before', () => {
    const state = empty();
    takeLook(state, look('x 1', 'y 1'), policy, 1000);
    const events = takeLook(state, { problems: [], failed: new Set(['x']) }, policy, 2000);
    assert.deepEqual(kinds(events), ['ended y 1']);
    assert.deepEqual(
      state.problems.map(({ key }) => key),
      ['x 1'],
    );
  });
});

describe('deliver', () => {
  it('waits after a failure as after the first one, when another message was delivered before', async () => {
    const words = ['/bin/sh', '-c', '[ "$WEBJOB_ALERT_ID" != bad ]'];
    const command = { line: 1, kind: 'command', words } as const;
    const rules = { ...parseExpect('retry 60s'), channels: [command] };
    const channel = nameChannel(command);
    const ids = ['good', 'bad'];
    const state: AlertState = {
      version: 1,
      problems: [],
      held: [],
      verified: undefined,
      messages: ids.map((id) => ({ id, at: 1000, events: [] })),
      outbox: ids.map((messageId) => ({ messageId, channel, attempts: 0 })),
      failures: { [channel]: { count: 9, nextAt: 0 } },
    };
    const attempts = await deliver({ state, rules, site: 'site', keep: () => {} });
    assert.deepEqual(
      attempts.map(({ messageId, error }) => [messageId, error === undefined]),
      [
        ['good', true],
        ['bad', false],
      ],
    );
    const { count, nextAt } = state.failures[channel] ?? assert.fail();
    assert.equal(count, 1);
    assert.ok(nextAt <= Date.now() + 60_000);
  });
});

describe('nextAttemptAt', () => {
  it('doubles the wait each time, up to an hour', () => {
    assert.deepEqual(
      [1, 2, 3, 7, 99].map((count) => nextAttemptAt(count, 60, 0)),
      [60_000, 120_000, 240_000, 3_600_000, 3_600_000],
    );
    assert.equal(nextAttemptAt(1, 7200, 0), 7_200_000);
  });
});
