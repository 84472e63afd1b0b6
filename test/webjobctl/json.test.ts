// The --json output of every command of webjobctl, at a site whose jobs real CGI processes made:
// one value for each line, with names that the manual has in the command's own part. A command that
// is missing here fails the test.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { formatRequest, makeActId } from '../../admin/acts/request.ts';
import type { CommandRow } from '../../admin/completion/tree.ts';
import { obtainHtpasswd } from '../../scripts/httpd-package.ts';
import { configure } from '../../scripts/site.ts';
import { findReader } from '../../scripts/view.ts';
import { setAge } from '../support/keep-site.ts';
import { type FilledLocker, fillLocker, type LockerSite, makeLockerSite } from '../support/locker-site.ts';
import { readPage, readSection } from '../support/mdoc.ts';
import { parseLines, runWebjobctl } from '../support/operator.ts';
import { NO_POSTGRES, type PostgresServer, startPostgres } from '../support/postgres.ts';

/** Values whose names are data: fields of a run record, labels of a sample, files of an archive. */
const OPEN = ['record', 'labels'];

/** Commands whose values the manual describes as those of another command. */
const LIKE: Record<string, string> = {
  'client show': 'client list',
  show: 'jobs',
  export: 'jobs',
  latest: 'jobs',
  'sign payload': 'sign show',
  'sign add': 'sign show',
  'sign assignment': 'sign show',
  'sign trust remove': 'sign trust list',
};

function* namesIn(value: unknown): Generator<string> {
  if (Array.isArray(value)) for (const item of value) yield* namesIn(item);
  else if (value !== null && typeof value === 'object')
    for (const [name, inner] of Object.entries(value)) {
      yield name;
      if (!OPEN.includes(name)) yield* namesIn(inner);
    }
}

obtainHtpasswd();

describe('webjobctl --json', () => {
  const page = readPage('webjobctl.8');
  let locker: LockerSite;
  let jobs: FilledLocker;
  let postgres: PostgresServer | undefined;
  before(async () => {
    if (!NO_POSTGRES) postgres = await startPostgres();
    locker = makeLockerSite();
    jobs = await fillLocker(locker);
    configure(locker.site, { BatchCommand: 'batch' });
    writeFileSync(join(locker.site.root, 'program'), 'true\n');
    writeFileSync(join(locker.site.root, 'rules'), 'expect x y every=1h\ntell command /bin/true\n');
    const openssl = (...args: string[]): void => {
      const { status, stderr } = spawnSync('openssl', args, { cwd: locker.site.root, encoding: 'utf8' });
      assert.equal(status, 0, stderr);
    };
    const etc = dirname(locker.site.propertiesFile);
    const certificate = ['-keyout', join(etc, 'webjob-server.key'), '-out', join(etc, 'webjob-server.crt')];
    openssl('genpkey', '-algorithm', 'ed25519', '-out', 'custody.key');
    openssl('pkey', '-in', 'custody.key', '-pubout', '-out', 'custody.pub');
    const key = ['--key', join(locker.site.root, 'custody.key')];
    const { text } = await locker.webjobctl('custody', 'checkpoint', ...key);
    writeFileSync(join(locker.site.root, 'checkpoint'), text);
    const usage = ['-addext', 'extendedKeyUsage=critical,timeStamping'];
    openssl(
      'req',
      '-x509',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-subj',
      '/CN=tsa',
      ...usage,
      '-keyout',
      'tsa.key',
      '-out',
      'tsa.pem',
    );
    const lines = ['[t]', 'serial=tsa.serial', 'signer_cert=tsa.pem', 'signer_key=tsa.key', 'signer_digest=sha256'];
    writeFileSync(
      join(locker.site.root, 'tsa.cnf'),
      [...lines, 'default_policy=1.2.3', 'digests=sha256', ''].join('\n'),
    );
    openssl('ts', '-query', '-data', 'checkpoint', '-sha256', '-cert', '-out', 'tsa.tsq');
    openssl('ts', '-reply', '-config', 'tsa.cnf', '-section', 't', '-queryfile', 'tsa.tsq', '-out', 'tsa.tsr');
    openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=localhost', ...certificate);
    openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=any', '-keyout', 'two.key', '-out', 'two.csr');
  });
  after(async () => {
    locker.close();
    await postgres?.stop();
  });

  /** The request that the view would put into its inbox. */
  function askForAct(): void {
    const inbox = join(locker.site.base, 'config', 'webjob-acts', 'inbox');
    mkdirSync(inbox, { recursive: true });
    const request = {
      act: 'note',
      job: jobs.second,
      client: undefined,
      user: 'anna',
      text: 'x',
      stream: undefined,
    } as const;
    const file = join(inbox, `${makeActId(jobs.second, Date.now())}.json`);
    writeFileSync(file, formatRequest(request));
    const owner = process.getuid?.() === 0 ? findReader() : undefined;
    if (owner) for (const path of [inbox, file]) chownSync(path, owner.uid, owner.gid);
  }

  /** The commands in an order in which each finds its input; a command may occur twice. */
  const tries = (): [command: string, args: string[]][] => {
    const { root } = locker.site;
    const key = ['--key', join(root, 'signing.key')];
    const to = ['--to', postgres?.url() ?? ''];
    const held = ['--client', 'client2', '--reason', 'a case'];
    return [
      ['init', ['--prefix', join(root, 'other'), '--dry-run']],
      ['client add', ['one', '--generate', '--cert']],
      ['client list', []],
      ['client show', ['one']],
      ['client passwd', ['one', '--generate']],
      ['client renew', ['one']],
      ['client result-key', ['one', '--out', join(root, 'next')]],
      ['client remove', ['one']],
      ['ca crl', []],
      ['ca server', []],
      ['ca make', [join(root, 'ca')]],
      ['ca sign', [join(root, 'ca'), 'two', join(root, 'two.csr')]],
      ['ca revoke', [join(root, 'ca'), 'two']],
      ['ca install', [join(dirname(locker.site.propertiesFile), 'webjob-ca.crl')]],
      ['configtest', []],
      ['sign keygen', [join(root, 'signing')]],
      ['sign payload', [...key, join(root, 'program')]],
      ['sign verify', ['--key', join(root, 'signing.pub'), join(root, 'program')]],
      ['sign keygen', [join(root, 'second')]],
      ['sign add', ['--key', join(root, 'second.key'), join(root, 'program')]],
      ['sign show', [join(root, 'program')]],
      ['sign assignment', [...key, '--client', '*', '-o', join(root, 'x.assignment'), 'host.sh']],
      ['sign show', [join(root, 'x.assignment')]],
      ['sign trust add', [join(root, 'trusted.keys'), join(root, 'signing.vkey')]],
      ['sign trust list', [join(root, 'trusted.keys')]],
      ['sign trust remove', [join(root, 'trusted.keys'), join(root, 'signing.vkey')]],
      ['jobs', []],
      ['show', [jobs.second]],
      ['note', [jobs.second, 'looked at']],
      ['diff', [jobs.second, '--previous']],
      ['search', ['kept']],
      ['tail', []],
      ['clients', ['--expect', '1d']],
      ['index', []],
      ['export', []],
      ['ledger setup', to],
      ['ledger push', [...to, '--as', 'one']],
      ['ledger list', to],
      ['ledger forget', ['one', ...to]],
      ['report', ['--html', join(root, 'report')]],
      ['metrics', ['--textfile', '-']],
      ['alert', ['--rules', join(root, 'rules')]],
      ['verify', []],
      ['custody checkpoint', ['--key', join(root, 'custody.key')]],
      [
        'custody timestamp',
        ['--server', 'server_1', '--response', join(root, 'tsa.tsr'), '--ca', join(root, 'tsa.pem')],
      ],
      ['custody prove', [jobs.second]],
      ['custody consistency', [join(root, 'checkpoint'), join(root, 'checkpoint')]],
      ['custody check', [join(root, 'checkpoint'), '--key', join(root, 'custody.pub')]],
      ['acts', []],
      ['evidence', [jobs.second, '--out', join(root, 'package'), '--zip', '--key', join(root, 'custody.pub')]],
      ['evidence', ['--verify', join(root, 'package')]],
      ['custody adopt', ['--reason', 'a test']],
      ['latest', ['host.sh']],
      ['compare', ['host.sh']],
      ['assign add', ['host.sh', '--to', 'client1']],
      ['assign add', ['host.sh', '--to', 'nobody-*', '--stages', '10%,100%']],
      ['assign advance', []],
      ['assign list', []],
      ['assign show', ['1']],
      ['assign pause', ['1']],
      ['assign resume', ['1']],
      ['assign cancel', ['1']],
      ['assign add', ['host.sh', '--to', 'client1', '--not-before', '2026-01-01', '--until', '2026-01-02']],
      ['assign retry', ['3']],
      ['hold add', held],
      ['hold list', []],
      ['hold remove', held],
      ['prune', ['--older-than', '30d', '--dry-run']],
      ['pack', ['--older-than', '30d', '--dry-run']],
      ['pack', ['--older-than', '30d']],
      ['unpack', [new Date(Date.now() - 40 * 86_400_000).toISOString().slice(0, 10)]],
      ['prune', ['--older-than', '30d', '--yes']],
      ['completion', []],
    ];
  };

  /** The names in the manual's part on a command, and on the one that it refers to. */
  function wordsOf(command: string): Set<string> {
    const title = [command, command.split(' ')[0]].find((name) => page.includes(`.Ss ${name}`)) ?? '';
    const section = readSection(page, title, 'Ss').join('\n');
    const like = LIKE[command];
    if (like !== undefined) assert.match(section, new RegExp(`^\\.Cm ${like}\\b`, 'm'));
    const texts = [section, ...(like === undefined ? [] : readSection(page, like, 'Ss'))];
    return new Set(texts.join(' ').split(/[^A-Za-z0-9_]+/));
  }

  it('prints, for every command, values with the names of the manual', async () => {
    const rows = parseLines<CommandRow>((await runWebjobctl(['completion', '--json'])).stdout);
    const leaves = rows.filter(({ name, commands }) => name !== '' && commands.length === 0).map(({ name }) => name);
    assert.deepEqual([...new Set(tries().map(([command]) => command))].sort(), leaves.sort());
    const { site } = locker;
    const [old = ''] = (await locker.readJson<{ group: string | null }>('jobs', '--state', 'done')).flatMap(
      ({ group }) => group ?? [],
    );
    setAge(site, old, 40);
    askForAct();
    const unknown: string[] = [];
    for (const [command, args] of tries().filter(([name]) => !(NO_POSTGRES && name.startsWith('ledger ')))) {
      const ended = await runWebjobctl(['--json', '--config', site.propertiesFile, ...command.split(' '), ...args], {
        cwd: site.root,
      });
      assert.ok(ended.code === 0 || ended.code === 1, `${command}: ${ended.code}: ${ended.stderr}`);
      const lines = parseLines(ended.stdout);
      assert.ok(lines.length > 0 && lines.every((line) => typeof line === 'object'), `${command} printed nothing`);
      const words = wordsOf(command);
      // For the two requests of a job the manual has the common half of the name.
      const isKnown = (name: string): boolean => words.has(name) || words.has(name.replace(/^(?:get|put)_/, '_'));
      for (const name of new Set(lines.flatMap((line) => [...namesIn(line)])))
        if (!isKnown(name)) unknown.push(`${command}: ${name}`);
    }
    assert.deepEqual(unknown, []);
  });
});
