// The file of expectations, line by line, and the states of `webjobctl alert` over several checks
// and deliveries, without a site.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { nameChannel } from '../../admin/alerts/channels.ts';
import { deliver } from '../../admin/alerts/deliver.ts';
import { type AlertState, nextAttemptAt, type Problem, takeLook } from '../../admin/alerts/state.ts';
import { ExpectError, isOverdue, isQuiet, parseExpect, targetOf } from '../../fleet/expect.ts';

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

  it('reads what is rare, and what is not given', () => {
    const rules = parseExpect(
      [
        'expect a x.sh longest=2m ignore="say \\"hi\\" # \\d" # "a comment',
        'expect * * every=1h grace=5m',
        'expect a x.sh exit=0',
        'expect a x.sh unchanged ignore=a#b ignore="" ignore="\\u{1f600}"',
        'tell webhook http://user@x/#y',
        'tell mail a@b.c sendmail=/s smtp=smtp://[::1]:25',
        'warn disk 2.5k',
        'warn inodes 100%',
        'quiet 23:59-00:00',
      ].join('\r\n'),
    );
    const { expectations, channels, warnings, quiet } = rules;
    assert.deepEqual(
      expectations.map(({ within, exit, longest, ignore, line }) => [line, within, exit, longest, ignore.map(String)]),
      [
        [1, undefined, undefined, 120, ['/say "hi" # \\d/u']],
        [2, 3900, undefined, undefined, []],
        [3, undefined, [0], undefined, []],
        [4, undefined, undefined, undefined, ['/a#b/u', '/(?:)/u', '/\\u{1f600}/u']],
      ],
    );
    assert.deepEqual(
      channels.map((channel) => [targetOf(channel), channel.kind === 'mail' && [channel.sendmail, channel.smtp]]),
      [
        ['http://user@x/#y', false],
        ['a@b.c', ['/s', 'smtp://[::1]:25']],
      ],
    );
    assert.deepEqual([warnings.disk, warnings.inodes, quiet], [{ count: 2500 }, { part: 1 }, [1439, 0]]);
    const none = parseExpect('# "\n\n');
    assert.deepEqual([none.retry, none.timeout, none.remind, none.ping, none.quiet], [60, 10, ...Array(3)]);
    assert.deepEqual(new Set(Object.values(none.warnings)), new Set([undefined, false]));
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
    ['expect a x.sh exit=0 ignore="a\\"', /a quote is not closed/],
    ['expect a x.sh exit=0, longest=1s', /exit codes are numbers/],
    ['expect a x.sh longest=0s', /longest must be a DURATION/],
    ['expect a x.sh golden=', /golden is the id of a job/],
    ['expect a x.sh unchanged ignore=\\d{', /ignore: Invalid regular expression/],
    ['expect a * every=1h longest=1s', /for \* only every and grace/],
    [
      'expected a x.sh exit=0',
      /^line 3: expected is not one of expect, tell, warn, ping, remind, quiet, retry, timeout$/,
    ],
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
    ['quiet 24:00-06:00', /quiet must be two times of day/],
    ['quiet 22:00-06:60', /quiet must be two times of day/],
    ['warn disk 5% 6%', /disk takes one word/],
    ['warn disk', /disk must be a share or a number/],
    ['warn disk 100.1%', /disk must be a share or a number/],
    ['warn certificates 30d 40d', /certificates takes one word/],
    ['tell mail a@b.c,', /nothing is not an address/],
    ['tell mail a@b.c smtp=smtp://host:123456', /smtp is smtp:\/\/HOST:PORT/],
    ['tell mail a@b.c sendmail=sendmail', /sendmail is not an absolute path/],
    ['tell webhook https://x secret-file=s', /s is not an absolute path/],
    ['ping @url', /url is not an absolute path/],
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
