// webjobctl metrics: its output is valid in the Prometheus text format, checked by an independent
// parser, and correct for a locker made by real CGI processes. Nobody ever reads an incomplete
// file.
import assert from 'node:assert/strict';
import {
  appendFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { formatFamilies } from '../../admin/metrics/exposition.ts';
import { readSite } from '../../admin/site/site.ts';
import { keepFolder } from '../../admin/site/site-lock.ts';
import { newestStamp } from '../../admin/site/stamps.ts';
import { formatAssignment } from '../../fleet/assignment.ts';
import { readMeasures } from '../../ledger/jobs.ts';
import { fillLocker, makeLockerSite } from '../support/locker-site.ts';

interface Series {
  name: string;
  labels: Record<string, string>;
  value: number;
}

const NAME = '[a-zA-Z_:][a-zA-Z0-9_:]*';
const LABEL = '([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\\\\n]|\\\\[\\\\"n])*)"';
const SAMPLE = new RegExp(`^(${NAME})(?:\\{(${LABEL}(?:,${LABEL})*,?)?\\})? (\\S+)(?: -?[0-9]+)?$`);

/**
 * Parses the text format, version 0.0.4. Throws AssertionError for anything that its rules do not
 * allow.
 */
function parseExposition(text: string): { series: Series[]; types: Map<string, string> } {
  assert.ok(text.endsWith('\n'), 'the last line ends in a line feed');
  const types = new Map<string, string>();
  const helps = new Set<string>();
  const series: Series[] = [];
  const done = new Set<string>();
  let family = '';
  for (const line of text.slice(0, -1).split('\n')) {
    const [, keyword, name = '', rest = ''] = new RegExp(`^# (HELP|TYPE) (${NAME}) (.*)$`).exec(line) ?? [];
    if (keyword === undefined && line.startsWith('#')) continue;
    const sample = keyword === undefined ? SAMPLE.exec(line) : undefined;
    assert.ok(keyword !== undefined || sample, `no sample: ${line}`);
    const current = keyword === undefined ? (sample?.[1] ?? '') : name;
    if (current !== family) {
      assert.ok(!done.has(current), `${current} stands in two places`);
      done.add(current);
      family = current;
    }
    if (keyword === 'HELP') {
      assert.ok(!helps.has(name), `two HELP lines for ${name}`);
      assert.match(rest, /^(?:[^\\]|\\[\\n])*$/, 'only \\\\ and \\n are escapes in HELP');
      helps.add(name);
    } else if (keyword === 'TYPE') {
      assert.ok(
        !types.has(name) && !series.some((other) => other.name === name),
        `TYPE of ${name} comes late or twice`,
      );
      assert.match(rest, /^(?:counter|gauge|histogram|summary|untyped)$/);
      types.set(name, rest);
    } else if (sample) series.push(readSample(sample));
  }
  const keys = series.map(({ name, labels }) => JSON.stringify([name, Object.entries(labels).sort()]));
  assert.equal(new Set(keys).size, keys.length, 'a series stands there twice');
  return { series, types };
}

function readSample(sample: RegExpExecArray): Series {
  const pairs = [...(sample[2] ?? '').matchAll(new RegExp(LABEL, 'g'))].map(([, name = '', value = '']) => [
    name,
    value.replace(/\\(.)/g, (_, escaped: string) => (escaped === 'n' ? '\n' : escaped)),
  ]);
  assert.equal(new Set(pairs.map(([name]) => name)).size, pairs.length, 'a label stands there twice');
  const number = sample.at(-1) ?? '';
  assert.match(number, /^(?:[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?Inf|NaN)$/);
  return { name: sample[1] ?? '', labels: Object.fromEntries(pairs), value: Number(number) };
}

describe('the parser of this test', () => {
  for (const [what, text] of Object.entries({
    'an open quote': 'a{b="c} 1\n',
    'another escape': 'a{b="\\t"} 1\n',
    'a name with a dot': 'a.b 1\n',
    'no last line feed': 'a 1',
    'a series twice': 'a{b="1",c="2"} 1\na{c="2",b="1"} 1\n',
    'a late TYPE': 'a 1\n# TYPE a gauge\n',
    'a family in two places': 'a 1\nb 1\na{b="1"} 1\n',
    'no number': 'a one\n',
  }))
    it(`refuses ${what}`, () => assert.throws(() => parseExposition(text), assert.AssertionError));
});

describe('metrics', () => {
  const its = makeLockerSite();
  const folder = join(its.site.root, 'collector');
  const file = join(folder, 'webjob.prom');
  const hostile = 'a"b\\c{d="e"}';
  before(async () => {
    await fillLocker(its);
    mkdirSync(folder);
    const fields = (jobId: string, client: string, method: string, status: number): string =>
      `${jobId} client1 127.0.0.1 ${method} ${client} host.sh 0 10 0 ${status} -- x\n`;
    appendFileSync(
      its.site.logFile,
      [
        `2026-11-01 00:00:00 ${fields('j1', hostile, 'GET', 200)}`,
        `2026-11-01 00:00:01 ${fields('j2', 'never-let-in', 'GET', 453)}`,
        `2026-11-01 00:00:02 ${fields('j3', 'client1', 'BREW', 418)}`,
      ].join(''),
    );
  });
  after(its.close);

  it('are in the text format, and correct', async () => {
    const ran = await its.webjobctl('metrics', '--textfile', file);
    assert.deepEqual([ran.exitCode, ran.text, ran.stderr], [0, '', '']);
    assert.equal(statSync(file).mode & 0o777, 0o644);
    assert.deepEqual(readdirSync(folder), ['webjob.prom']);
    const { series, types } = parseExposition(readFileSync(file, 'utf8'));
    assert.ok(series.every(({ name }) => types.get(name) === 'gauge'));
    assert.deepEqual([...new Set(series.map(({ labels }) => labels.site))], [its.site.base]);
    const own = ({ site: _site, ...labels }: Record<string, string>): string => Object.values(labels).join(' ');
    const values = (name: string): Record<string, number> =>
      Object.fromEntries(series.filter((one) => one.name === name).map(({ labels, value }) => [own(labels), value]));
    assert.deepEqual(values('webjob_jobs'), {
      got: 2,
      done: 2,
      failed: 2,
      refused: 4,
      incomplete: 1,
      orphan: 1,
      missing: 0,
    });
    assert.deepEqual(values('webjob_requests'), {
      'GET 200': 8,
      'GET 404': 1,
      'GET 453': 1,
      'PUT 200': 4,
      'PUT 453': 1,
      'PUT 456': 1,
      'other other': 1,
    });
    assert.deepEqual(values('webjob_clients'), { '': 3 });
    const seen = values('webjob_client_last_seen_timestamp_seconds');
    assert.deepEqual(Object.keys(seen).sort(), [hostile, 'client1', 'client2'].sort());
    assert.equal(seen[hostile], new Date('2026-11-01T00:00:00').getTime() / 1000);
    assert.ok(Math.abs((seen.client1 ?? 0) - Date.now() / 1000) < 300);
    const sizes = readdirSync(its.site.incoming).map((name) => statSync(join(its.site.incoming, name)).size);
    assert.deepEqual(values('webjob_locker_bytes'), { '': sizes.reduce((sum, size) => sum + size) });
    assert.deepEqual(values('webjob_locker_groups'), { complete: 5, incomplete: 1 });
    assert.deepEqual(values('webjob_locker_strays'), { '': 0 });
    assert.ok((values('webjob_locker_free_bytes')[''] ?? 0) < (values('webjob_locker_size_bytes')[''] ?? 0));
    assert.deepEqual(values('webjob_log_bytes'), { '': statSync(its.site.logFile).size });
  });

  it('leave out the clients that were seen longest ago when there are too many', async () => {
    const { clients, lastSeen } = await readMeasures(readSite(its.site.propertiesFile), 2);
    assert.equal(clients, 3);
    assert.deepEqual(lastSeen.map(([client]) => client).sort(), ['client1', 'client2']);
  });

  it('have the time of the newest time stamp', () => {
    const { settings } = readSite(its.site.propertiesFile);
    const stamps = join(keepFolder(settings), 'custody-timestamps.server_1');
    mkdirSync(stamps, { recursive: true });
    for (const time of [2000, 3000, 1000]) {
      writeFileSync(join(stamps, `${time}.tsr`), '');
      utimesSync(join(stamps, `${time}.tsr`), time, time);
    }
    assert.equal(newestStamp(settings, 'server_1')?.getTime(), 3_000_000);
    rmSync(stamps, { recursive: true });
  });

  it('go to standard output, and with --json each line is a sample', async () => {
    const { text } = await its.webjobctl('metrics', '--textfile', '-');
    const { series } = parseExposition(text);
    const samples = await its.readJson<Series>('metrics', '--textfile', '-');
    const withoutClock = (all: Series[]): string[] =>
      all
        .filter(({ name }) => !/^webjob_metrics_|free_/.test(name))
        .map(({ name, labels = {}, value }) => JSON.stringify([name, labels, value]));
    assert.deepEqual(withoutClock(samples), withoutClock(series));
  });

  it('count the clients that miss expectations', async () => {
    const folder = join(its.site.base, 'config', 'nph-webjob');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'expect'), 'expect x,y host.sh every=1h\n');
    assert.equal((await its.webjobctl('metrics', '--textfile', '-')).exitCode, 4);
    writeFileSync(join(folder, 'groups'), 'two = x y\n');
    writeFileSync(join(folder, 'expect'), 'expect two host.sh every=1h\nexpect client1 host.sh every=1h exit=9\n');
    const { series } = parseExposition((await its.webjobctl('metrics', '--textfile', '-')).text);
    assert.deepEqual(
      series.flatMap(({ name, labels: { command, kind }, value }) =>
        name === 'webjob_expectations_missed' ? [`${command} ${kind} ${value}`] : [],
      ),
      ['host.sh late 2', 'host.sh exit 1', 'host.sh output 0', 'host.sh duration 0'],
    );
    rmSync(folder, { recursive: true });
  });

  it('count the clients of assignments by state, and show the progress of rollouts', async () => {
    const folder = join(its.site.base, 'config', 'nph-webjob');
    mkdirSync(folder, { recursive: true });
    const usual = { args: [], from: 1000, until: undefined, open: 1, by: 'root', at: '', reason: undefined } as const;
    const rollout = { stages: [0.1, 0.5, 1], stage: 1, openedAt: 1000, stopAt: 0.05, seconds: undefined };
    const one = {
      ...usual,
      id: '1',
      command: 'a.sh',
      to: ['x', 'y'],
      schedule: { kind: 'once' },
      state: 'active',
    } as const;
    const two = { ...one, id: '2', command: 'b.sh', to: ['x'], state: 'paused', rollout } as const;
    writeFileSync(join(folder, 'assignments'), [one, two].map((each) => `${formatAssignment(each)}\n`).join(''));
    const { series } = parseExposition((await its.webjobctl('metrics', '--textfile', '-')).text);
    assert.deepEqual(
      series.flatMap(({ name, labels: { assignment, command, state = '' }, value }) =>
        name.startsWith('webjob_assignment_') && value > 0
          ? [`${name.slice(18)} ${assignment} ${command} ${state} ${value}`.replace('  ', ' ')]
          : [],
      ),
      ['clients 1 a.sh waiting 2', 'clients 2 b.sh waiting 1', 'paused 2 b.sh 1', 'stage 2 b.sh 2', 'stages 2 b.sh 3'],
    );
    const many = Array.from({ length: 102 }, (_, index) => ({ ...one, id: String(index + 1) }));
    writeFileSync(join(folder, 'assignments'), many.map((each) => `${formatAssignment(each)}\n`).join(''));
    const { text } = await its.webjobctl('metrics', '--textfile', '-');
    const labels = parseExposition(text).series.flatMap(({ labels: { assignment } }) => assignment ?? []);
    const ids = new Set(labels.map(Number));
    assert.deepEqual([ids.size, Math.min(...ids), Math.max(...ids)], [100, 3, 102], 'the newest hundred');
    rmSync(folder, { recursive: true });
  });

  it('have no series in common at two sites', async () => {
    const [here, there] = await Promise.all(
      [[], ['--site', 'west']].map(async (more) => {
        const { text } = await its.webjobctl('metrics', '--textfile', '-', ...more);
        return parseExposition(text).series.map(({ name, labels }) => JSON.stringify([name, labels]));
      }),
    );
    assert.ok(here && there && here.length > 10);
    assert.deepEqual(
      here.filter((series) => there.includes(series)),
      [],
    );
  });

  it('replace a file without a gap for a reader', async () => {
    let looks = 0;
    let isDone = false;
    const look = async (): Promise<void> => {
      for (; !isDone; await new Promise((resolve) => setTimeout(resolve, 1))) {
        parseExposition(readFileSync(file, 'utf8'));
        looks++;
      }
    };
    const looking = look();
    try {
      for (let run = 0; run < 3 || (looks <= 20 && run < 50); run++)
        assert.equal((await its.webjobctl('metrics', '--textfile', file)).exitCode, 0);
    } finally {
      isDone = true;
      await looking;
    }
    assert.ok(looks > 20);
  });

  it('leave the old file when they fail, and say why', async () => {
    const old = readFileSync(file);
    const log = readFileSync(its.site.logFile);
    rmSync(its.site.logFile);
    const ran = await its.webjobctl('metrics', '--textfile', file);
    assert.equal(ran.exitCode, 4);
    assert.match(ran.stderr, /there is no log/);
    assert.deepEqual(readFileSync(file), old);
    writeFileSync(its.site.logFile, log);
    const lost = await its.webjobctl('metrics', '--textfile', join(folder, 'nowhere', 'x.prom'));
    assert.deepEqual([lost.exitCode, /ENOENT/.test(lost.stderr)], [4, true]);
    assert.equal((await its.webjobctl('metrics')).exitCode, 2);
  });
});

it('metrics can have every value of a number', () => {
  const samples = [0.1, 1e21, -5, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  const family = { name: 'x', help: 'a\nb\\c', type: 'gauge' as const };
  const text = formatFamilies([
    { ...family, samples: samples.map((value, index) => ({ labels: { n: `${index}\n` }, value })) },
    { ...family, name: 'y', samples: [] },
  ]);
  const { series } = parseExposition(text);
  assert.match(text, /^# HELP x a\\nb\\\\c\n/);
  assert.deepEqual(
    series.map(({ labels }) => labels.n),
    samples.map((_, index) => `${index}\n`),
  );
  assert.match(text, / NaN\n.* \+Inf\n.* -Inf\n$/);
});
