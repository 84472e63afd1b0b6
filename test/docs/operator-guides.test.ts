// The webjobctl commands in the reference pages of docs/guide: every one of them, as it is written,
// in the page's order, at a site whose jobs real CGI processes made. Names of jobs, days and
// directories are replaced by those of the test.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { describe, it } from 'node:test';
import type { Site } from '../../scripts/site.ts';
import { groupNames, makeOldLocker, readCustody, WEBJOBCTL } from '../support/keep-site.ts';
import { fillLocker, makeLockerSite } from '../support/locker-site.ts';
import { hasProgram } from '../support/operator.ts';
import { readFiles } from '../support/tree.ts';

const guide = join(import.meta.dirname, '..', '..', 'docs', 'guide');

/** Lines of code, fenced or indented, that contain webjobctl; of a crontab line the command. */
function readCommands(page: string, ...replacements: [found: string, by: string][]): string[] {
  const lines = readFileSync(join(guide, page), 'utf8').split('\n');
  let isFenced = false;
  const commands = lines.flatMap((line) => {
    if (line.startsWith('```')) isFenced = !isFenced;
    return (isFenced || line.startsWith('    ')) && /^\s*(?:[\d*/]+ .* {2})?webjobctl /.test(line)
      ? [line.slice(line.indexOf('webjobctl '))]
      : [];
  });
  return commands.map((command) => replacements.reduce((text, [found, by]) => text.replaceAll(found, by), command));
}

interface Ended {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a command in a directory of the site, with the built webjobctl. */
function run(site: Site, command: string): Ended {
  const [folder, programs] = [join(site.root, 'operator'), join(site.root, 'programs')];
  mkdirSync(folder, { recursive: true });
  mkdirSync(programs, { recursive: true });
  const program = (name: string, text: string): void =>
    writeFileSync(join(programs, name), `#!/bin/sh\nexec ${text} "$@"\n`, { mode: 0o755 });
  program('webjobctl', `"${process.execPath}" "${WEBJOBCTL}"`);
  // No database server is part of the tests: commands that would reach it are only parsed.
  program('psql', `tee psql.in #`);
  const env = {
    ...process.env,
    PATH: `${programs}${delimiter}${process.env.PATH}`,
    WEBJOB_PROPERTIES_FILE: site.propertiesFile,
  };
  return spawnSync('/bin/sh', ['-c', command], { cwd: folder, env, encoding: 'utf8', timeout: 60_000 });
}

/** Runs it, with an exit code that is allowed; returns its stdout. */
function expect(site: Site, command: string, codes: number[] = [0]): string {
  const { status, stdout, stderr } = run(site, command);
  assert.ok(codes.includes(status ?? -1), `${command}: ${status}: ${stderr}`);
  // Exit code 1 means a finding, whose message has a fixed form; an error would print more.
  assert.doesNotMatch(stderr, /error:|not found$/m, command);
  return stdout;
}

describe('docs/guide/keep.md', () => {
  it('keeps, holds, packs, unpacks and exports with the commands it shows', async () => {
    const past = [401, 100, 99, 98, 97, 96, 95, 40, 39, 1].map((days) => ({ days }));
    const locker = await makeOldLocker([...past, { days: 100, clientId: 'client2' }]);
    const { site } = locker;
    try {
      const commands = readCommands('keep.md', ['/var/webjob', site.base]);
      const take = (start: string): string => {
        const place = commands.findIndex((command) => command.startsWith(start));
        assert.ok(place >= 0, `no ${start} on the page`);
        return commands.splice(place, 1)[0] ?? '';
      };
      const was = readFiles(site.incoming);
      expect(site, take('webjobctl prune --older-than 90d --dry-run'));
      assert.deepEqual(readFiles(site.incoming), was);
      expect(site, take('webjobctl hold add'));
      assert.match(expect(site, take('webjobctl hold list')), /client1 .*case 4711/);
      expect(site, take('webjobctl prune --older-than 90d --keep 5 --yes'));
      assert.equal(groupNames(site).length, locker.names.length, 'what is on hold, and the newest five, stay');
      expect(site, take('webjobctl hold remove'));
      const packed = take('webjobctl pack --older-than 30d && webjobctl prune --older-than 400d');
      expect(site, packed);
      assert.deepEqual(groupNames(site), [locker.names[9]]);
      const packs = (): string[] => readdirSync(join(site.base, 'packed')).filter((name) => name.endsWith('.jsonl'));
      const pruned = readCustody(site).flatMap(({ event, groups }) => (event === 'prune' ? (groups ?? []) : []));
      assert.deepEqual(
        pruned.map(({ name }) => name),
        [locker.names[0]],
      );
      const day = packs()[0]?.replace('.jsonl', '') ?? '';
      checkAlone(site, day, was);
      expect(site, take('webjobctl unpack 2026-10-01').replace('2026-10-01', day));
      // Uploads of two clients on that day that were never archived.
      assert.equal(groupNames(site).length, 3);
      expect(site, take('webjobctl pack --older-than 30d'));
      expect(site, take('webjobctl index'));
      assert.ok(existsSync(join(site.base, 'index/webjob.sqlite')));
      expect(site, take('webjobctl export --csv').replace(/\d{4}-\d\d-\d\d/, '2020-01-01'));
      assert.ok(readFileSync(join(site.root, 'operator/jobs.csv'), 'utf8').split('\n').length > 2);
      expect(site, take('webjobctl export --sql'));
      assert.match(readFileSync(join(site.root, 'operator/psql.in'), 'utf8'), /INSERT INTO/i);
      assert.deepEqual(commands, [], 'these are not tried here');
      query(site);
    } finally {
      locker.close();
    }
  });

  /** One upload by the offset and length in the manifest. */
  function checkAlone(site: Site, day: string, was: Map<string, string>): void {
    const folder = join(site.base, 'packed');
    const [line = ''] = readFileSync(join(folder, `${day}.jsonl`), 'utf8')
      .split('\n')
      .slice(1);
    const { name, offset, length } = JSON.parse(line) as { name: string; offset: number; length: number };
    const [, dd = ''] = /^(dd if=.*)$/m.exec(readFileSync(join(guide, 'keep.md'), 'utf8')) ?? [];
    const values = { '2026-10-01': join(folder, day), OFFSET: String(offset), LENGTH: String(length) };
    expect(
      site,
      Object.entries(values).reduce((text, [found, by]) => text.replace(found, by), dd),
    );
    const file = readFileSync(join(site.root, 'operator', `${name}.out`), 'latin1');
    assert.equal(file, was.get(`${name}.out`));
  }

  function query(site: Site): void {
    if (!hasProgram('sqlite3')) return;
    const [, command = ''] = /^(sqlite3 .*)$/m.exec(readFileSync(join(guide, 'keep.md'), 'utf8')) ?? [];
    const sql = command.replaceAll('/var/webjob', site.base).replace('"failed"', '"done"');
    assert.match(expect(site, sql), /\|\d+\n/);
  }
});

describe('crontabs in the guides', () => {
  const SITE = /^WEBJOB_PROPERTIES_FILE=(.*)$/m;
  /** Blocks with a label that names their file, by page. */
  const tabs = readdirSync(guide)
    .filter((page) => page.endsWith('.md'))
    .flatMap((page) => [
      ...readFileSync(join(guide, page), 'utf8').matchAll(/^```(?:cron \w+)?\n(# \/etc\/cron\.d\/.*?)^```$/gms),
    ])
    .map(([, text = '']) => text);

  it('name the programs and the site, which cron does not know', () => {
    assert.equal(tabs.length, 6);
    for (const text of tabs) {
      assert.match(text, /^PATH=\/usr\/local\/bin:/m);
      if (text.includes('webjobctl')) assert.match(text, SITE);
      assert.doesNotMatch(text, /^[\d*][^\n]*%/m, 'cron makes a line end of it');
    }
    const lines = readdirSync(guide)
      .filter((page) => page.endsWith('.md'))
      .flatMap((page) => readFileSync(join(guide, page), 'utf8').match(/^(?:[\d*/]+ ){5} *\w+ {2}.*$/gm) ?? []);
    for (const line of lines)
      assert.ok(
        tabs.some((text) => text.includes(line)),
        `no crontab has ${line}`,
      );
  });

  it('run with the environment of cron', async () => {
    const locker = makeLockerSite();
    const { site } = locker;
    try {
      await fillLocker(locker);
      // What the pages expect in /usr/local/bin: the built programs, which look up node.
      const programs = join(site.root, 'local-bin');
      mkdirSync(programs);
      symlinkSync(process.execPath, join(programs, 'node'));
      symlinkSync(WEBJOBCTL, join(programs, 'webjobctl'));
      const texts = tabs.filter((text) => /webjobctl (?:pack|report|metrics|assign)/.test(text));
      assert.equal(texts.length, 3);
      for (const text of texts.map((all) => all.replaceAll('/usr/local/bin', programs))) {
        const env = Object.fromEntries(
          [...text.matchAll(/^([A-Z_]+)=(.*)$/gm)].map(([, name, value]) => [name, value]),
        );
        for (const [, command = ''] of text.matchAll(/^(?:[\d*/]+ ){5} *\w+ {2}(.*)$/gm)) {
          const own = command.replaceAll('/var/webjob', site.base).replaceAll('/var/lib/node_exporter', site.root);
          const options = { cwd: '/', encoding: 'utf8', timeout: 60_000 } as const;
          const run = (more: Record<string, string>) =>
            spawnSync('/bin/sh', ['-c', own], { ...options, env: { HOME: '/', PATH: '/usr/bin:/bin', ...more } });
          const ended = run({ ...env, WEBJOB_PROPERTIES_FILE: site.propertiesFile });
          assert.equal(ended.status, 0, `${own}: ${ended.stderr}`);
          assert.notEqual(run({}).status, 0, `${own} needs neither line`);
        }
      }
    } finally {
      locker.close();
    }
  });
});

describe('docs/guide/find.md', () => {
  it('finds jobs with the commands it shows', async () => {
    const locker = makeLockerSite();
    const { site } = locker;
    try {
      const jobs = await fillLocker(locker);
      const commands = readCommands(
        'find.md',
        ['server_1_1085355126_00723', jobs.second],
        ['00723', jobs.second],
        ['00911', jobs.first],
      );
      assert.ok(commands.length >= 15, `${commands.length} commands`);
      for (const command of commands) {
        if (command.includes('| jq') && !hasProgram('jq')) continue;
        // The command exits with 1 for a difference, a silent client or no match, because this site
        // is not that of the page.
        const mayFind = /^webjobctl (?:diff|search|clients|jobs) /.test(command);
        expect(site, command, mayFind ? [0, 1] : [0]);
      }
      assert.equal(readFileSync(join(site.root, 'operator/host.out'), 'utf8'), 'kept\nafter\n');
    } finally {
      locker.close();
    }
  });
});

describe('docs/guide/fleet.md', () => {
  it('assigns and compares with the commands it shows', async () => {
    const locker = makeLockerSite({ BatchCommand: 'batch' });
    const { site } = locker;
    try {
      const groups = /^```groups groups\n(.*?)^```$/ms.exec(readFileSync(join(guide, 'fleet.md'), 'utf8'))?.[1] ?? '';
      mkdirSync(join(site.base, 'config', 'nph-webjob'), { recursive: true });
      // The server's, and the copy on the machine of the signers.
      const copy = join(site.root, 'operator');
      mkdirSync(copy);
      for (const folder of [join(site.base, 'config', 'nph-webjob'), copy])
        writeFileSync(join(folder, 'groups'), groups);
      const commands = readCommands('fleet.md');
      await locker.run({ clientId: 'client1', fileName: 'host.sh', out: 'one\n' });
      assert.equal(commands.length, 18);
      // The keys are those of another page.
      const keys = readCommands('stolen.md').filter((command) =>
        /sign (?:keygen|trust add)\b.* (?:alice|bob)\b/.test(command),
      );
      assert.equal(keys.length, 4);
      for (const command of keys) expect(site, command);
      // None of the group has sent anything.
      for (const command of commands) expect(site, command, command.includes('jobs --client') ? [1] : [0]);
      expect(site, 'webjobctl assign host.sh --to servers');
    } finally {
      locker.close();
    }
  });
});

describe('docs/guide/alerts.md', () => {
  it('sends alerts with the rules and commands it shows', async () => {
    const locker = makeLockerSite();
    const { site } = locker;
    try {
      const page = readFileSync(join(guide, 'alerts.md'), 'utf8');
      const [, rules = ''] = /^```expect expect\n(.*?)^```$/ms.exec(page) ?? [];
      const told = join(site.root, 'told');
      writeFileSync(join(site.root, 'sendmail'), `#!/bin/sh\ncat >> ${told}\n`, { mode: 0o755 });
      mkdirSync(join(site.base, 'config', 'nph-webjob'), { recursive: true });
      writeFileSync(
        join(site.base, 'config', 'nph-webjob', 'expect'),
        rules.replace(/^(tell {2}mail .*)$/m, `$1 sendmail=${join(site.root, 'sendmail')}`),
      );
      await locker.run({ clientId: 'client1', fileName: 'host.sh' });
      const [dryRun = '', test = '', cron = '', ...others] = readCommands('alerts.md');
      assert.deepEqual(others, []);
      assert.match(expect(site, dryRun, [1]), /^begun {4}db: backup\.sh: no result within 26h/m);
      assert.equal(existsSync(told), false);
      assert.match(expect(site, test), /^sent {5}mail root@localhost: /);
      expect(site, cron, [1]);
      assert.match(readFileSync(told, 'utf8'), /backup\.sh/);
    } finally {
      locker.close();
    }
  });
});

describe('docs/guide/report.md and custody.md', () => {
  it('report, measure and verify with the commands they show', async () => {
    const locker = makeLockerSite();
    const { site } = locker;
    try {
      await fillLocker(locker);
      const replacements: [string, string][] = [
        ['/var/webjob', site.base],
        ['/var/lib/node_exporter', site.root],
      ];
      const reports = readCommands('report.md', ...replacements);
      assert.equal(reports.length, 4);
      for (const command of reports) expect(site, command);
      assert.ok(existsSync(join(site.base, 'report/index.html')));
      assert.match(readFileSync(join(site.root, 'webjob.prom'), 'utf8'), /^webjob_metrics_timestamp_seconds\{site=/m);
      const checks = readCommands('custody.md', ...replacements).filter(
        (command) => !/--checkpoint|--key|--tsa|custody prove/.test(command),
      );
      assert.equal(checks.length, 5);
      // The upload that broke off is a finding.
      for (const command of checks) expect(site, command, [command.includes(' verify') ? 1 : 0]);
    } finally {
      locker.close();
    }
  });
});
