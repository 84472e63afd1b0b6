// webjobctl client add --schedule: the files by which cron or systemd has a client fetch its batch
// contain the requested schedule, each client has its own times, and the client understands what
// they run.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { formatSchedule, parseSchedule } from '../../admin/clients/schedule.ts';
import { lastDue } from '../../fleet/due.ts';
import { obtainHtpasswd } from '../../scripts/httpd-package.ts';
import { configure } from '../../scripts/site.ts';
import { type LockerSite, makeLockerSite } from '../support/locker-site.ts';
import { hasProgram } from '../support/operator.ts';

obtainHtpasswd();
const SPANS = ['1m', '5m', '10m', '30m', '1h', '2h', '12h', '24h', '1d'];
const filesOf = (client: string, span: string) =>
  formatSchedule({
    client,
    seconds: parseSchedule(span),
    conf: '/etc/webjob/webjob.conf',
    batchCommand: 'batch',
    isForC: false,
  });
/** The five fields of the line. */
const cronOf = (client: string, span: string): string =>
  /^((?:\S+ ){5})root /m.exec(filesOf(client, span)['webjob.cron'])?.[1]?.trim() ?? '';

describe("a client's schedule", () => {
  for (const span of SPANS)
    it(`runs every ${span} in cron, at different times for each client`, () => {
      const seconds = parseSchedule(span);
      const firsts = new Set<number>();
      for (let client = 0; client < 50; client++) {
        const schedule = { kind: 'cron' as const, cron: cronOf(`client${client}`, span) };
        const end = Date.UTC(2026, 10, 30, 23, 59) / 1000;
        const times: number[] = [];
        for (
          let at = lastDue(schedule, 0, end);
          at !== undefined && times.length < 4;
          at = lastDue(schedule, 0, at - 60)
        )
          times.push(at);
        assert.deepEqual(
          times.slice(1).map((at, index) => (times[index] ?? 0) - at),
          [seconds, seconds, seconds],
          schedule.cron,
        );
        firsts.add((times[0] ?? 0) % seconds);
      }
      assert.ok(firsts.size >= Math.min(seconds / 60, 25) * 0.8, `${firsts.size} times of 50 clients`);
    });

  it('is refused when cron cannot express it', () => {
    for (const wrong of ['0m', '30s', '7m', '90m', '5h', '2d', '1w', 'x', '61s'])
      assert.throws(() => parseSchedule(wrong), /minutes that divide an hour/, wrong);
  });

  it('is a timer that systemd understands', { skip: !hasProgram('systemd-analyze') && 'no systemd-analyze' }, () => {
    for (const span of SPANS) {
      const [, calendar = ''] = /^OnCalendar=(.*)$/m.exec(filesOf('client1', span)['webjob-batch.timer']) ?? [];
      const ended = spawnSync('systemd-analyze', ['calendar', '--iterations=3', calendar], {
        encoding: 'utf8',
        env: { ...process.env, TZ: 'UTC' },
      });
      assert.equal(ended.status, 0, `${calendar}: ${ended.stderr}`);
      const times = [...ended.stdout.matchAll(/(?:Next elapse|Iter\. #\d+): \w+ ([\d-]+) ([\d:]+) UTC/g)];
      const [first, second] = times.map(([, day, time]) => Date.parse(`${day}T${time}Z`) / 1000);
      assert.equal((second ?? 0) - (first ?? 0), parseSchedule(span), ended.stdout);
    }
  });

  it('runs what a client understands, with names that a shell or systemd would split', () => {
    for (const isForC of [false, true]) {
      const files = formatSchedule({
        client: 'c',
        seconds: 600,
        conf: "/etc/it's 100%/webjob.conf",
        batchCommand: 'batch',
        isForC,
      });
      const [, line = ''] = /^(?:\S+ ){5}root (.*)$/m.exec(files['webjob.cron']) ?? [];
      const told = spawnSync('sh', ['-c', `webjob() { printf '%s|' "$@"; }\n${line.replaceAll('\\%', '%')}`], {
        encoding: 'utf8',
      });
      assert.equal(told.stdout, `${isForC ? '-e' : '--batch'}|-f|/etc/it's 100%/webjob.conf|batch|`);
      assert.doesNotMatch(line, /(?<!\\)%/, 'cron makes a line end of it');
    }
  });
});

describe('webjobctl client add --schedule', () => {
  let its: LockerSite;
  before(() => {
    its = makeLockerSite();
  });
  after(() => its.close());

  it('puts schedules into the client kit, at sites with batches', async () => {
    const out = join(its.site.root, 'kit');
    const words = [
      'client',
      'add',
      'sched-1',
      '--generate',
      '--url',
      'http://localhost',
      '--out',
      out,
      '--schedule',
      '10m',
    ];
    const without = await its.webjobctl(...words);
    assert.deepEqual([without.exitCode, existsSync(out)], [3, false], without.stderr);
    configure(its.site, { BatchCommand: 'nightly' });
    const { exitCode, stderr } = await its.webjobctl(...words);
    assert.equal(exitCode, 0, stderr);
    assert.match(stderr, /install -m 644 webjob\.cron \/etc\/cron\.d\/webjob-batch/);
    assert.match(
      readFileSync(join(out, 'webjob.cron'), 'utf8'),
      /root webjob --batch -f \/etc\/webjob\/webjob\.conf nightly\n$/,
    );
    assert.match(
      readFileSync(join(out, 'webjob-batch.service'), 'utf8'),
      /^ExecStart=\/usr\/bin\/env webjob --batch -f /m,
    );
    assert.ok(existsSync(join(out, 'webjob-batch.timer')));
    for (const [name, more, line] of [
      ['sched-2', ['--c-client'], `root webjob -e -f ${join(its.site.root, 'sched-2')}/webjob.conf nightly\n`],
      ['sched-3', ['--install-dir', '/opt/wj'], 'root webjob --batch -f /opt/wj/webjob.conf nightly\n'],
    ] as const) {
      const kit = join(its.site.root, name);
      await its.webjobctl('client', 'add', name, ...words.slice(3, 7), kit, '--schedule', '1h', ...more);
      assert.ok(readFileSync(join(kit, 'webjob.cron'), 'utf8').endsWith(line));
    }
    rmSync(out, { recursive: true });
    mkdirSync(out);
    writeFileSync(join(out, 'unrelated'), '');
  });
});
