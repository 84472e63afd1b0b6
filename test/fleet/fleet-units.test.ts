// Groups, assignments and due times, function by function.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { Cron } from 'croner';
import fc from 'fast-check';
import { monthAgo } from '../../admin/fleet/options.ts';
import {
  type Assignment,
  dueFor,
  formatAssignment,
  openFor,
  parseAssignments,
  rankOf,
} from '../../fleet/assignment.ts';
import { formatBatch, parseBatch, parseBatchOutput } from '../../fleet/batch-script.ts';
import { lastDue, parseCron } from '../../fleet/due.ts';
import { makeMembership, namedClients, parseGroups } from '../../fleet/groups.ts';

describe('groups', () => {
  const groups = parseGroups(`# who serves
web = web-1, web-2  web-*
servers = web db mail-?
db = db1
db = db2 # two lines of one group add up
`);
  const isIn = (client: string, word: string): boolean => makeMembership(groups, client)(word);

  it('contain clients, globs and other groups', () => {
    const rows: [client: string, word: string, isMeant: boolean][] = [
      ['d', 'db', false],
      ['web-1', 'web', true],
      ['web-99', 'servers', true],
      ['db2', 'servers', true],
      ['mail-1', 'servers', true],
      ['mail-11', 'servers', false],
      ['db3', 'servers', false],
      ['db', 'servers', false],
      ['db3', 'db?', true],
      ['db3', 'db3', true],
      ['web', 'web', false],
    ];
    for (const [client, word, isMeant] of rows) assert.equal(isIn(client, word), isMeant, `${client} ${word}`);
    assert.deepEqual([...namedClients(groups, ['servers', 'x', 'y*'])], ['web-1', 'web-2', 'db1', 'db2', 'x']);
  });

  it('hold no client whose id is only a part of a member', () => {
    for (const client of ['b1', 'db', 'd', 'eb-1', 'web-'])
      assert.equal(isIn(client, 'db') || isIn(client, 'mail'), false, client);
    const two = parseGroups('a = xb1 b12, b1x\nb = xb1 b1\n');
    assert.deepEqual(
      ['a', 'b'].map((word) => makeMembership(two, 'b1')(word)),
      [false, true],
    );
  });

  it('answer for many clients as for one', () => {
    const members = Array.from({ length: 1000 }, (_, index) => `c${index}`);
    const large = parseGroups(`all = ${members.join(' ')}\n`);
    for (const client of [...members, 'c1000', 'c', 'all'])
      assert.equal(makeMembership(large, client)('all'), members.includes(client), client);
  });

  it('may have a million members on one line', () => {
    const members = Array.from({ length: 1_000_000 }, (_, index) => `host-${index}`);
    const large = parseGroups(`all = ${members.join(' ')}\n`);
    for (const [client, isMeant] of [
      ['host-999999', true],
      ['host-1000000', false],
      ['host', false],
      ['host-0', true],
    ] as const)
      assert.equal(makeMembership(large, client)('all'), isMeant, client);
  });

  it('accept members of up to 64 characters, wherever they are and whatever is between them', () => {
    const lengths = [1, 2, 31, 63, 64, 65, 66, 128, 130];
    for (const gap of [' ', ',', '\t', ', ', '  \t,'])
      for (const first of lengths)
        for (const second of lengths)
          for (const third of lengths) {
            const line = `a = ${[first, second, third].map((length) => 'x'.repeat(length)).join(gap)}\n`;
            const isGood = Math.max(first, second, third) <= 64;
            if (isGood) assert.equal(parseGroups(line).size, 1, line);
            else assert.throws(() => parseGroups(line), { message: /^line 1: x{65,} is not a client id/ }, line);
          }
  });

  it('are refused with the number of the malformed line', () => {
    const rows: [text: string, message: RegExp][] = [
      [`a = b ${'x'.repeat(65)}`, /^line 1: x{65} is not a client id/],
      ['web: a b', /^line 1: it must be: name = member member$/],
      ['\n\nweb* = a', /^line 3: it must be: name = member member$/],
      ['web = a/b', /^line 1: a\/b is not a client id, a glob or a group$/],
      ['a = b\nb = c a', /^line 1: the group a contains itself$/],
      ['a = b\nb = c\n\na = a', /^line 1: the group a contains itself$/],
      ['ok = x\nself = self', /^line 2: the group self contains itself$/],
    ];
    for (const [text, message] of rows) assert.throws(() => parseGroups(text), { message }, text);
  });
});

describe('a due time', () => {
  it('begins with its first time in an interval, and is the latest one', () => {
    const every = { kind: 'every', seconds: 3600 } as const;
    assert.deepEqual(
      [999, 1000, 4599, 4600, 8300].map((now) => lastDue(every, 1000, now)),
      [undefined, 1000, 1000, 4600, 8200],
    );
    assert.deepEqual(
      [999, 1000, 99_999].map((now) => lastDue({ kind: 'once' }, 1000, now)),
      [undefined, 1000, 1000],
    );
  });

  it('equals that of another implementation for a cron expression', () => {
    const word = (low: number, high: number): fc.Arbitrary<string> =>
      fc.oneof(
        fc.constant('*'),
        fc.integer({ min: low, max: high }).map(String),
        fc.tuple(fc.integer({ min: low, max: high }), fc.integer({ min: low, max: high })).map(([a, b]) => {
          return `${Math.min(a, b)}-${Math.max(a, b)}`;
        }),
        fc.integer({ min: 1, max: high }).map((step) => `*/${step}`),
        fc.array(fc.integer({ min: low, max: high }), { minLength: 2, maxLength: 4 }).map((list) => list.join(',')),
      );
    const expression = fc.tuple(word(0, 59), word(0, 23), word(1, 28), word(1, 12), word(0, 6));
    const time = fc.integer({ min: 1_600_000_000, max: 1_900_000_000 });
    fc.assert(
      fc.property(expression, time, (words, now) => {
        const cron = words.join(' ');
        // According to crontab(5), a star with a step does not limit the days; the other
        // implementation differs there.
        fc.pre(!words[2].startsWith('*/') && !words[4].startsWith('*/'));
        const other = new Cron(cron, { timezone: 'UTC', paused: true }).previousRuns(1, new Date((now + 1) * 1000))[0];
        assert.equal(lastDue({ kind: 'cron', cron }, 0, now), other && other.getTime() / 1000, `${cron} at ${now}`);
      }),
      { numRuns: 500 },
    );
  });

  it('is in UTC for a cron expression, whatever the time zone of the machine', () => {
    const [zone, sunday] = [process.env.TZ, Date.UTC(2026, 10, 29) / 1000];
    for (const TZ of ['Pacific/Kiritimati', 'America/New_York']) {
      process.env.TZ = TZ;
      for (const hour of [0, 12, 23]) {
        const at = sunday + hour * 3600;
        assert.equal(lastDue({ kind: 'cron', cron: `0 ${hour} * * sun` }, 0, at + 86_400), at, TZ);
        assert.equal(lastDue({ kind: 'cron', cron: `0 ${hour} 29 nov *` }, 0, at + 86_400), at, TZ);
      }
    }
    if (zone === undefined) delete process.env.TZ;
    else process.env.TZ = zone;
  });

  it('is never before the assignment began for a cron expression', () => {
    const cron = { kind: 'cron', cron: '0 3 * * *' } as const;
    const three = Date.UTC(2026, 10, 30, 3) / 1000;
    assert.deepEqual(
      [three - 1, three, three + 86_399].map((now) => lastDue(cron, three - 100, now)),
      [undefined, three, three],
    );
    assert.equal(lastDue(cron, three + 1, three + 100), undefined);
    assert.equal(lastDue({ kind: 'cron', cron: '0 0 29 feb *' }, 0, three), Date.UTC(2024, 1, 29) / 1000);
    assert.equal(lastDue({ kind: 'cron', cron: '0 0 * * 7' }, 0, three), Date.UTC(2026, 10, 29) / 1000);
    assert.equal(lastDue({ kind: 'cron', cron: '@weekly' }, 0, three), Date.UTC(2026, 10, 29) / 1000);
    assert.equal(lastDue({ kind: 'cron', cron: '15 12 31 2 *' }, 0, three), undefined);
  });

  it('of a cron expression has the short names, names and steps of crontab(5)', () => {
    // A Sunday.
    const now = Date.UTC(2026, 10, 29, 12, 34, 56) / 1000;
    for (const [cron, at] of [
      ['@hourly', '2026-11-29T12:00:00Z'],
      ['@daily', '2026-11-29T00:00:00Z'],
      [' @Midnight ', '2026-11-29T00:00:00Z'],
      ['@weekly', '2026-11-29T00:00:00Z'],
      ['@monthly', '2026-11-01T00:00:00Z'],
      ['@yearly', '2026-01-01T00:00:00Z'],
      ['@annually', '2026-01-01T00:00:00Z'],
      ['5/10 * * * *', '2026-11-29T12:25:00Z'],
      ['5 * * * *', '2026-11-29T12:05:00Z'],
      ['30-40/3 12 * * *', '2026-11-29T12:33:00Z'],
      ['0 0 * OCT Sat', '2026-10-31T00:00:00Z'],
      ['0 0 * * mon-wed', '2026-11-25T00:00:00Z'],
      ['0 0 * * 5-7', '2026-11-29T00:00:00Z'],
      // A star with a step does not make one of the days enough.
      ['0 0 */2 * mon', '2026-11-23T00:00:00Z'],
      ['0 0 13 * mon', '2026-11-23T00:00:00Z'],
      ['0 0 28 * mon', '2026-11-28T00:00:00Z'],
    ] as const)
      assert.equal(lastDue({ kind: 'cron', cron }, 0, now), Date.parse(at) / 1000, cron);
  });

  it('is refused with the field that is wrong', () => {
    for (const [text, message] of [
      ['* * * *', /five fields, not 4/],
      ['60 * * * *', /60 is not a minute/],
      ['* 5-2 * * *', /5-2 is not a hour/],
      ['* * 0 * *', /0 is not a day of the month/],
      ['* * * foo *', /foo is not a month/],
      ['* * * * */0', /\*\/0 is not a day of the week/],
    ] as const)
      assert.throws(() => parseCron(text), { message }, text);
  });
});

it('results of the last thirty days count when no time is given', () => {
  assert.ok(Math.abs(Date.now() - 30 * 86_400_000 - monthAgo().getTime()) < 60_000);
});

describe('an assignment', () => {
  const assignment: Assignment = {
    id: '7',
    command: 'job.sh',
    args: ["it's", '$(id)', 'a\nb', ''],
    to: ['web-*'],
    from: 1000,
    until: 5000,
    schedule: { kind: 'once' },
    state: 'active',
    open: 1,
    by: 'root',
    at: '2026-11-30T08:00:00.000Z',
    reason: 'x',
  };
  const due = (change: Partial<Assignment>, clientId = 'web-1', now = 2000): number | undefined =>
    dueFor({ ...assignment, ...change }, { clientId, isMeant: makeMembership(new Map(), clientId) }, now);

  it('reads as it was written', () => {
    const others: Assignment[] = [
      { ...assignment, schedule: { kind: 'every', seconds: 60 }, until: undefined, reason: undefined },
      { ...assignment, id: '8', schedule: { kind: 'cron', cron: '@daily' }, state: 'paused', open: 0.25 },
    ];
    const text = [assignment, ...others].map((one) => `${formatAssignment(one)}\n`).join('');
    assert.deepEqual(parseAssignments(text), [assignment, ...others]);
  });

  it('is given only to its clients, and only while it lasts', () => {
    assert.equal(due({}), 1000);
    assert.equal(due({}, 'db-1'), undefined);
    assert.equal(due({}, 'web-1', 999), undefined);
    assert.equal(due({}, 'web-1', 5000), undefined);
    assert.equal(due({ state: 'paused' }), undefined);
    assert.equal(due({ state: 'cancelled' }), undefined);
  });

  it('reaches the open part of its clients, a different part for each assignment', () => {
    const clients = Array.from({ length: 1000 }, (_, index) => `web-${index}`);
    const reached = (id: string): string[] => clients.filter((client) => due({ id, open: 0.1 }, client) !== undefined);
    assert.ok(Math.abs(reached('7').length - 100) < 40, `${reached('7').length} of 1000`);
    assert.notDeepEqual(reached('7'), reached('8'));
    for (const client of clients) assert.equal(due({ open: rankOf(assignment, client) }, client), undefined);
  });

  it('reaches at least one client in every stage', () => {
    const clients = Array.from({ length: 10 }, (_, index) => `web-${index}`);
    const reached = (part: number): number => {
      const open = openFor(assignment, clients, part);
      return clients.filter((client) => due({ open }, client) !== undefined).length;
    };
    assert.deepEqual([0, 0.01, 0.05, 0.1, 0.11, 0.95, 1].map(reached), [0, 1, 1, 1, 2, 10, 10]);
  });

  it('is refused with the line and the malformed field', () => {
    const wrong: [field: string, value: unknown][] = [
      ['id', 7],
      ['command', '../x'],
      ['args', 'x'],
      ['args', ['\0']],
      ['to', []],
      ['to', ['a b']],
      ['from', -1],
      ['until', 'x'],
      ['state', 'off'],
      ['open', 2],
      ['every', 0],
      ['cron', '* *'],
    ];
    for (const [field, value] of wrong) {
      const line = JSON.stringify({ ...JSON.parse(formatAssignment(assignment)), [field]: value });
      assert.throws(
        () => parseAssignments(`${formatAssignment(assignment)}\n${line}\n`),
        { message: /^line 2: / },
        field,
      );
    }
  });
});

describe('a batch script', () => {
  const folder = mkdtempSync(join(tmpdir(), 'webjob-batch-'));
  after(() => rmSync(folder, { recursive: true }));
  /** Stands for the client: writes down its arguments, each ended by a NUL. */
  const client = join(folder, 'webjob');
  const told = join(folder, 'told');
  writeFileSync(client, `#!/bin/sh\nprintf '%s\\0' "$@" >> '${told}'\nexit 3\n`, { mode: 0o755 });
  const shells = [['dash'], ['bash'], ['bash', '--posix'], ['busybox', 'sh'], ['mksh'], ['ksh']].filter(
    ([name = '']) => spawnSync(name, ['-c', ':']).error === undefined,
  );

  function run(shell: readonly string[], script: string, environment: NodeJS.ProcessEnv = {}) {
    const path = join(folder, 'batch');
    writeFileSync(path, script);
    rmSync(told, { force: true });
    const [program = '', ...options] = shell;
    const ended = spawnSync(program, [...options, path], {
      encoding: 'utf8',
      env: { PATH: '/usr/bin:/bin', WEBJOB_FILE: "/etc/it's here.conf", WEBJOB_PROGRAM: `'${client}'`, ...environment },
    });
    const words = existsSync(told) ? readFileSync(told, 'utf8').split('\0').slice(0, -1) : [];
    assert.match(
      ended.stderr,
      words.length > 0 ? /^$/ : /^webjob-batch: this batch was made for job \S+, and does not run /,
    );
    return { ended, words };
  }

  it('passes on every argument unchanged, in every shell, and nothing else runs', (t) => {
    assert.ok(shells.length >= 2);
    t.diagnostic(shells.map((shell) => shell.join(' ')).join(', '));
    const args = [
      ...["it's", '"', '$(touch x)', '`touch x`', '\\', 'a\nb', '', '-e', '--', '*', '~', '!', 'ünïcödé', '\x01\x7f'],
      ...['$IFS', '%s', '&', ';', '|', '>', '#', ' ', '\t', "'\\''", 'x'.repeat(100_000)],
    ];
    for (const shell of shells) {
      const { ended, words } = run(shell, formatBatch('client1', [{ id: '7', due: 1000, command: 'job.sh', args }]));
      assert.deepEqual(words, ['-e', '-f', "/etc/it's here.conf", 'job.sh', ...args], shell.join(' '));
      assert.equal(ended.stdout, 'assignment 7 due 1000 exit 3\n');
    }
  });

  it('runs all assignments in order, whatever one of them does', () => {
    const orders = ['1', '22', '333'].map((id) => ({ id, due: Number(id) * 1000, command: `job${id}.sh`, args: [] }));
    for (const shell of shells) {
      const { ended, words } = run(shell, formatBatch('client1', orders));
      assert.deepEqual(
        words.filter((word) => word.startsWith('job')),
        ['job1.sh', 'job22.sh', 'job333.sh'],
      );
      assert.deepEqual(
        [...parseBatchOutput(ended.stdout)],
        [
          ['1@1000', 3],
          ['22@22000', 3],
          ['333@333000', 3],
        ],
      );
    }
  });

  it('tells each client which assignment it runs', () => {
    const own = join(folder, 'own');
    writeFileSync(own, `#!/bin/sh\nprintf '%s\\0' "$WEBJOB_ASSIGNMENT" >> '${told}'\n`, { mode: 0o755 });
    const orders = ['7', '22'].map((id) => ({ id, due: 1000, command: 'job.sh', args: ['a b'] }));
    for (const shell of shells) {
      const { words } = run(shell, formatBatch('client1', orders), { WEBJOB_PROGRAM: own });
      assert.deepEqual(words, ['7@1000', '22@1000'], shell.join(' '));
    }
  });

  it('gives the same to clients that need no shell, and to no others', () => {
    const orders = [
      { id: '7', due: 1000, command: 'job.sh', args: ["it's", 'a\nb', '\u2028', '#orders [', '', 'ü'] },
      { id: '8', due: 1001, command: 'x', args: [] },
    ];
    assert.deepEqual(parseBatch(formatBatch('client1', orders)), orders);
    assert.deepEqual(parseBatch(formatBatch('client1', [])), []);
    const signed = orders.map((order) => ({ ...order, note: 'a\nb \u2014 c' }));
    assert.deepEqual(parseBatch(formatBatch('client1', signed)), signed);
    const script = formatBatch('client1', orders);
    for (const [wrong, message] of [
      ['#!/bin/sh\necho\n', /it is not a batch/],
      [
        script.replace(/^#orders .*$/m, ''),
        /: it is a batch of an older server, which a shell must run: webjob -e -f FILE batch$/,
      ],
      [script.replace('"due":1000', '"due":1.5'), /orders are malformed/],
      [script.replace('"due":1000', '"note":7,"due":1000'), /orders are malformed/],
      [script.replace('"command":"x"', '"command":["x"]'), /orders are malformed/],
      [script.replace('#orders [', '#orders {['), /JSON/],
      [script.replace('"id":"7"', '"id":"-f"'), /orders are malformed/],
      [script.replace('"args":[]', '"args":[1]'), /orders are malformed/],
    ] as const)
      assert.throws(() => parseBatch(wrong), message);
  });

  it('runs only in the job that it was made for', () => {
    const orders = [{ id: '7', due: 1000, command: 'job.sh', args: [] }];
    for (const shell of shells)
      for (const [jobId, count] of [
        ['server_1_1085355126_00723', 1],
        ['server_1_1085355126_00724', 0],
        [undefined, 1],
      ] as const) {
        const script = formatBatch('client1', orders, 'server_1_1085355126_00723');
        const { ended, words } = run(shell, script, { ...(jobId !== undefined && { WEBJOB_JID: jobId }) });
        assert.equal(words.filter((word) => word === 'job.sh').length, count, `${shell.join(' ')} ${jobId}`);
        assert.equal(ended.stdout, count > 0 ? 'assignment 7 due 1000 exit 3\n' : '');
      }
  });

  /** The tools that the script needs, and no webjob. */
  function makeTools(): string {
    const tools = join(folder, 'tools');
    rmSync(tools, { recursive: true, force: true });
    mkdirSync(tools);
    for (const name of ['awk', 'ps', 'readlink', 'tr']) {
      const found = spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout.trim();
      if (found !== '') symlinkSync(found, join(tools, name));
    }
    return tools;
  }

  it('finds the program and the configuration file of a client that does not name them', () => {
    const tools = makeTools();
    const path = join(folder, 'batch');
    writeFileSync(path, formatBatch('client1', [{ id: '7', due: 1000, command: 'job.sh', args: ['x y'] }]));
    // The process that starts the batch is a shell, which runs the file as a script.
    const conf = join(folder, "it's here.conf");
    writeFileSync(conf, `printf '%s\\0' "$0" "$@" >> '${told}'\nexit 3\n`);
    const start = (words: readonly string[], given = '') => {
      rmSync(told, { force: true });
      const args = ['-c', `/bin/sh '${path}' ${given}; :`, 'webjob', ...words];
      const ended = spawnSync('/bin/sh', args, { encoding: 'utf8', env: { PATH: tools } });
      return { ended, words: existsSync(told) ? readFileSync(told, 'utf8').split('\0').slice(0, -1) : [] };
    };
    for (const options of [['-f', conf], [`-f${conf}`], ['--file', conf], [`--file=${conf}`], []]) {
      const { ended, words } = start(['-e', ...options, 'batch'], options.length > 0 ? '' : `"${conf}"`);
      assert.deepEqual([words, ended.stderr], [[conf, 'job.sh', 'x y'], ''], options.join(' '));
      assert.equal(ended.stdout, 'assignment 7 due 1000 exit 3\n');
    }
    // A client in PATH comes first.
    copyFileSync(client, join(tools, 'webjob'));
    const { ended, words } = start([`--file=${conf}`]);
    assert.deepEqual([ended.stdout, words], ['assignment 7 due 1000 exit 3\n', ['-e', '-f', conf, 'job.sh', 'x y']]);
    const unknown = start([]);
    assert.deepEqual(
      [unknown.ended.stdout, unknown.ended.stderr, unknown.words],
      [
        'assignment 7 due 1000 exit 1\n',
        'webjob-batch: its configuration file is unknown; give it again: webjob -e -f FILE BATCH FILE\n',
        [],
      ],
    );
  });

  it('goes on as it was when another is written over it', () => {
    const own = join(folder, 'overwrites');
    writeFileSync(
      own,
      `#!/bin/sh\nprintf '%s\\0' "$WEBJOB_ASSIGNMENT" >> '${told}'\n: > '${join(folder, 'batch')}'\n`,
      {
        mode: 0o755,
      },
    );
    const orders = ['7', '8', '9'].map((id) => ({ id, due: 1000, command: 'job.sh', args: ['x'.repeat(20_000)] }));
    for (const shell of shells) {
      const { words } = run(shell, formatBatch('client1', orders), { WEBJOB_PROGRAM: own });
      assert.deepEqual(words, ['7@1000', '8@1000', '9@1000'], shell.join(' '));
    }
  });

  it('tells the end of each order once, whatever is printed behind it', () => {
    const text =
      ' assignment 1 due 4 exit 0\nassignment 1 due 5 exit 3\nassignment 1 due 5 exit 0\nassignment 1 due 6 exit 143\n';
    assert.deepEqual(
      [...parseBatchOutput(text)],
      [
        ['1@5', 3],
        ['1@6', 143],
      ],
    );
  });

  it('does nothing when nothing is due', () => {
    const ended = spawnSync('sh', ['-ec', formatBatch('client1', [])], { encoding: 'utf8' });
    assert.deepEqual([ended.status, ended.stdout, ended.stderr], [0, '', '']);
  });
});
