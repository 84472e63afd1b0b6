// webjobctl configtest on a real site under a real httpd: it finds nothing at a correct site, and
// every fault that is made here, with a remedy.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { findNearest } from '../../admin/configtest/spelling.ts';
import { describeRoom } from '../../admin/configtest/tree.ts';
import { mayAccess } from '../../admin/site/users.ts';
import { obtainHtpasswd, obtainHttpd } from '../../scripts/httpd-package.ts';
import { findWebUser } from '../../scripts/web-user.ts';
import { isRoot, write } from '../support/deployment-guide.ts';
import { type Apache, formatBasics, startApache } from '../support/deployment-httpd.ts';
import { type Ground, makeGround, parseLines, runWebjobctl } from '../support/operator.ts';

interface Finding {
  severity: string;
  what: string;
  where: string;
  remedy: string;
}

const MODULES =
  'mpm_event cgid alias env auth_basic authn_core authn_file authz_core authz_user reqtimeout ssl socache_shmcb';
const needsRoot = { skip: !isRoot && 'owners need root' };

obtainHtpasswd();
const ground: Ground = makeGround();
const at = (...names: string[]): string => join(ground.root, ...names);
const site = (name: string): string => at('site', name);
const conf = at('httpd', 'httpd.conf');
let httpd: Apache;
let url = '';

before(async () => {
  mkdirSync(at('httpd'));
  httpd = await startApache({
    serverRoot: at('httpd'),
    configurationFile: conf,
    errorLog: at('httpd', 'error.log'),
    portCount: 1,
    configure: (ports) => write(conf, `ServerRoot "${at('httpd')}"\n${formatBasics(at('httpd'), ports, MODULES)}`),
  });
  url = `http://127.0.0.1:${httpd.ports[0]}/`;
  const apply = ['--apply', '--httpd', obtainHttpd().binary, '--httpd-conf', conf];
  await ground.run(0, 'init', '--prefix', at('site'), '--node', ground.node, ...apply);
  await ground.run(0, '-c', site('etc/nph-webjob.cfg'), 'client', 'add', 'client1', '--generate', '--url', url);
});
after(async () => {
  await httpd?.stop();
  ground.remove();
});

/** Errors and warnings, except those about the disk and the clock of the test machine. */
async function test(...more: string[]): Promise<{ serious: Finding[]; notes: Finding[] }> {
  const { binary } = obtainHttpd();
  const args = [
    '-c',
    site('etc/nph-webjob.cfg'),
    'configtest',
    '--json',
    '--httpd',
    binary,
    '--httpd-conf',
    conf,
    ...more,
  ];
  const { code, stdout, stderr } = await runWebjobctl(args, { cwd: ground.root });
  const findings = parseLines<Finding>(stdout);
  const all = findings.filter(({ severity }) => severity !== 'note');
  assert.equal(code, all.length > 0 ? 1 : 0, stdout + stderr);
  return {
    serious: all.filter(({ what, where }) => where !== 'timedatectl' && !/room is left|inodes are left/.test(what)),
    notes: findings.filter(({ severity }) => severity === 'note'),
  };
}

/** Exactly these findings. */
async function expectFindings(
  expected: [severity: string, what: RegExp, remedy: RegExp][],
  ...more: string[]
): Promise<void> {
  const { serious } = await test(...more);
  for (const [severity, what, remedy] of expected) {
    const found = serious.find((finding) => what.test(finding.what));
    assert.ok(found, `not found: ${what} in ${JSON.stringify(serious, undefined, 1)}`);
    assert.equal(found.severity, severity, found.what);
    assert.match(found.remedy, remedy);
    assert.notEqual(found.where, '');
  }
  const others = serious.filter(({ what }) => !expected.some(([, pattern]) => pattern.test(what)));
  assert.deepEqual(others, []);
}

/** Restores what is changed in `files` afterwards. */
async function withCopies(files: string[], work: () => Promise<void>): Promise<void> {
  for (const [index, file] of files.entries()) copyFileSync(file, at(`copy-${index}`));
  try {
    await work();
  } finally {
    for (const [index, file] of files.entries()) copyFileSync(at(`copy-${index}`), file);
  }
}

describe('webjobctl configtest', () => {
  it('finds nothing on a site that init made, and asks the server itself', async () => {
    const probe = ['--probe', url, '--as', at('client1/webjob.conf')];
    let { serious, notes } = await test(...probe);
    // A graceful restart takes effect a moment after the command.
    for (let i = 0; serious.length > 0 && i < 20; i++) ({ serious, notes } = await test(...probe));
    assert.deepEqual(serious, []);
    const said = notes.map(({ what }) => what).join('\n');
    for (const what of [
      /link test: 251 Link Test OK/,
      /GET webjobctl-probe: 404/,
      /PUT: 200 OK; job probe_\d+_\d+ is in the locker/,
      /^the script answers in \d+ ms with Node v[\d.]+$/m,
    ])
      assert.match(said, what);
    const jobId = /job (probe_\S+)/.exec(said)?.[1];
    const ready = readdirSync(site('integrity/incoming')).filter((name) => name.endsWith('.rdy'));
    const ids = ready.map((name) => readFileSync(site(`integrity/incoming/${name}`), 'utf8'));
    assert.ok(ids.includes(`Jid=${jobId}\n`), `${ids}`);
    // The client has a result key, so an unsigned result would be a finding.
    assert.match(readFileSync(at('client1/webjob.conf'), 'utf8'), /^ResultKeyFile=/m);
    const verified = await runWebjobctl(['-c', site('etc/nph-webjob.cfg'), '--json', 'show', jobId ?? '']);
    assert.match(verified.stdout, /"signature":"signed by client1\+[0-9a-f]{8}"/);
  });

  it('prints Syntax OK after its notes', async () => {
    const { serious } = await test();
    assert.deepEqual(serious, []);
    const args = [
      '-c',
      site('etc/nph-webjob.cfg'),
      'configtest',
      '--httpd',
      obtainHttpd().binary,
      '--httpd-conf',
      'httpd/httpd.conf',
    ];
    const { code, stdout } = await runWebjobctl(args, { cwd: ground.root });
    assert.doesNotMatch(stdout, /refuses its configuration/, 'a relative path is ours, not of ServerRoot');
    assert.equal(/\nSyntax OK\n$/.test(stdout), code === 0, stdout);
  });

  it('finds wrong settings, and suggests the intended ones', async () => {
    const cfg = site('etc/nph-webjob.cfg');
    await withCopies([cfg], async () => {
      const more =
        'RequireUsr=Y\nthis is no control\nServerId=a b\nUseGMT=Y\nColour=blue\nRequireMatch=N\nEnableHostAccessList=Y\n';
      writeFileSync(cfg, `BaseDirectory=${site('integrity')}\nUseGMT=N\n${more}`);
      write(
        site('integrity/config/nph-webjob/clients/client1/nph-webjob.cfg'),
        'RequireUser=N\nMaxContentLenth=5\nGetHookStatus=999\n',
      );
      await expectFindings([
        ['warning', /^RequireUsr is not a setting/, /^sed -i '3s.*RequireUser/],
        ['warning', /^a line without Key=Value/, /^sed -i '4s/],
        ['error', /^ServerId in line 5 has a value that is not allowed/, /550/],
        ['warning', /^UseGMT is in line 2 too/, /^sed -i 2d/],
        ['warning', /^Colour is not a setting/, /^sed -i 7d/],
        ['warning', /RequireMatch=N/, /RequireMatch=Y/],
        ['error', /EnableHostAccessList=Y, but the list does not exist/, /EnableHostAccessList=N/],
        ['warning', /^RequireUser cannot be overridden/, /main file/],
        ['warning', /^MaxContentLenth is not a setting/, /MaxContentLength/],
        ['error', /^GetHookStatus in line 3 has a value/, /550/],
      ]);
      rmSync(site('integrity/config'), { recursive: true });
    });
  });

  it('finds missing directories and logs', async () => {
    for (const name of ['incoming', 'profiles', 'logfiles/nph-webjob.log'])
      renameSync(site(`integrity/${name}`), at(`aside-${name.replace('/', '-')}`));
    await expectFindings([
      ['error', /^IncomingDirectory does not exist/, /^mkdir -p .*incoming && chown /],
      ['error', /^ProfilesDirectory does not exist/, /^mkdir -p /],
      ['error', /^the log does not exist/, /^touch .* && chown /],
    ]);
    for (const name of ['incoming', 'profiles', 'logfiles/nph-webjob.log'])
      renameSync(at(`aside-${name.replace('/', '-')}`), site(`integrity/${name}`));
  });

  it('finds wrong owners and modes', needsRoot, async () => {
    const web = findWebUser();
    assert.ok(web);
    const places = [
      'integrity/incoming',
      'integrity/logfiles/nph-webjob.log',
      'integrity/profiles',
      'etc/nph-webjob.cfg',
      'webjob/nph-webjob.cgi',
    ];
    const give = (uids: number[]): void => {
      for (const [index, name] of places.entries()) chownSync(site(name), uids[index] ?? 0, 0);
    };
    give([0, 0, web.uid, web.uid, web.uid]);
    await expectFindings([
      ['error', new RegExp(`^${web.name} cannot write in IncomingDirectory`), new RegExp(`^chown ${web.name}:0`)],
      ['error', new RegExp(`^${web.name} cannot write the log, which belongs to root`), /^chown/],
      ['warning', /can write to ProfilesDirectory: a compromised script/, /^chown 0:0/],
      ['warning', /can write to the settings: a compromised script/, /^chown 0:0/],
      ['error', /can change what httpd runs/, /^chown 0:0/],
    ]);
    give([web.uid, web.uid, 0, 0, 0]);
    chmodSync(site('webjob/nph-webjob.cgi'), 0o644);
    chmodSync(site('integrity/profiles'), 0o777);
    await expectFindings([
      ['error', /cannot run the script/, /^chmod 755/],
      ['error', /^everyone can write to ProfilesDirectory/, /^chmod 755/],
    ]);
    chmodSync(site('webjob/nph-webjob.cgi'), 0o755);
    chmodSync(site('integrity/profiles'), 0o755);
  });

  it('finds a script directory that other users can write to', needsRoot, async () => {
    const web = findWebUser();
    assert.ok(web);
    chownSync(site('webjob'), web.uid, 0);
    try {
      const { serious } = await test();
      const found = serious.filter(({ what }) => /can change what httpd runs/.test(what));
      assert.deepEqual(
        found.map(({ severity, where, remedy }) => [severity, where, remedy]),
        [['error', site('webjob'), `chown 0:0 ${site('webjob')} && chmod 755 ${site('webjob')}`]],
      );
    } finally {
      chownSync(site('webjob'), 0, 0);
    }
  });

  it('does not succeed when there is only a warning', async () => {
    const script = site('webjob/nph-webjob.cgi');
    await withCopies([script], async () => {
      writeFileSync(script, readFileSync(script, 'utf8').replace(/^#!.*/, '#!/usr/bin/env node'));
      const args = ['-c', site('etc/nph-webjob.cfg'), 'configtest', '--json', '--httpd', obtainHttpd().binary];
      const environment = { PATH: `${dirname(ground.node)}:${process.env.PATH}` };
      const { code, stdout } = await runWebjobctl([...args, '--httpd-conf', conf], { cwd: ground.root, environment });
      const severities = parseLines<Finding>(stdout).map(({ severity }) => severity);
      assert.ok(severities.includes('warning'), stdout);
      assert.equal(code, 1);
    });
  });

  it('finds errors of the script and of access control', async () => {
    const [script, access, users] = [
      site('webjob/nph-webjob.cgi'),
      site('webjob/.htaccess'),
      site('etc/webjob.htpasswd'),
    ];
    await withCopies([script, access, users], async () => {
      writeFileSync(script, readFileSync(script, 'utf8').replace(/^#!.*/, '#!/bin/sh'));
      writeFileSync(site('webjob/webjob.cgi'), readFileSync(at('copy-0')), { mode: 0o755 });
      writeFileSync(users, 'client1:{SHA}C+7Hteo/D9vJXQ3UfzxbwnXaijM=\n');
      chmodSync(users, 0o644);
      await expectFindings([
        ['error', /^the interpreter of the script is not Node: #!\/bin\/sh/, /^sed -i .*node/],
        ['error', /does not begin with nph-/, /^rm /],
        ['warning', /^the hash of 1 passwords is weak/, /client passwd client1/],
        ['warning', /^every user of this machine can read the password hashes/, /chmod 640/],
      ]);
      rmSync(site('webjob/webjob.cgi'));
      copyFileSync(at('copy-0'), script);
      chmodSync(users, 0o640);
      copyFileSync(at('copy-2'), users);
      writeFileSync(access, 'Require all granted\n');
      await expectFindings([
        ['error', /requires no credentials/, /^printf .*Require valid-user/],
        ['error', /allows some requests without credentials/, /^printf .*Require valid-user/],
        [
          'error',
          /^requests without credentials reach the script in the main server: 450 /,
          /^printf .*Require valid-user/,
        ],
      ]);
      // The script still refuses, so this is only a warning; without RequireUser everyone would be
      // served.
      const probe = ['--probe', url, '--as', at('client1/webjob.conf')];
      const { serious } = await test(...probe);
      assert.ok(
        serious.some(({ severity, what }) => severity === 'warning' && /only the script refuses: 452/.test(what)),
        JSON.stringify(serious),
      );
      await withServerOpen(async () => {
        const { serious: open } = await test(...probe);
        assert.ok(
          open.some(
            ({ severity, what }) =>
              severity === 'error' && /^requests without credentials are accepted: 404/.test(what),
          ),
          JSON.stringify(open),
        );
      });
      rmSync(access);
      await expectFindings([['error', /^all access is denied/, /^printf .*Require valid-user/]]);
    });
  });

  async function withServerOpen(work: () => Promise<void>): Promise<void> {
    const cfg = site('etc/nph-webjob.cfg');
    const text = readFileSync(cfg, 'utf8');
    writeFileSync(cfg, text.replace('RequireUser=Y', 'RequireUser=N'));
    try {
      await work();
    } finally {
      writeFileSync(cfg, text);
    }
  }

  it('finds errors in the configuration of httpd', async () => {
    await withCopies([conf, site('etc/webjob.conf')], async () => {
      const text = readFileSync(conf, 'utf8')
        .replace(/^LoadModule authz_user_module.*\n/m, '')
        .replace(/^LoadModule cgid_module.*\n|^ScriptSock.*\n/gm, '');
      // Like an administrator's own snippet, which does not check for a module that runs scripts.
      const snippet = site('etc/webjob.conf');
      const guard = /^<IfModule !cgi_module>\n.*?^<\/IfModule>\n/ms;
      writeFileSync(snippet, readFileSync(snippet, 'utf8').replace(guard, ''));
      writeFileSync(
        conf,
        `${text}\n<Location "/webjob/">\nRequire all granted\n</Location>\nSSLVerifyClient optional_no_ca\n`,
      );
      await expectFindings([
        ['error', /has not loaded mod_authz_user/, /LoadModule authz_user_module .*\/mod_authz_user.so/],
        ['error', /neither mod_cgid nor mod_cgi/, /LoadModule cgid_module/],
        ['error', /<Location "\/webjob\/"> lets in everybody/, /^sed -i \d+d /],
        ['error', /optional_no_ca/, /SSLVerifyClient require/],
      ]);
      copyFileSync(at('copy-1'), snippet);
      writeFileSync(conf, `${readFileSync(at('copy-0'), 'utf8').replace(/^Include .*$/m, '')}`);
      await expectFindings([['error', /^no ScriptAlias leads to the script/, /Include/]]);
      writeFileSync(conf, `${readFileSync(at('copy-0'), 'utf8')}\nNoSuchDirective on\n`);
      await expectFindings([['error', /refuses its configuration: .*NoSuchDirective/, /^sed -i '\d+s/]]);
      writeFileSync(
        conf,
        readFileSync(at('copy-0'), 'utf8').replace(/^LoadModule cgid_module.*\n|^ScriptSock.*\n/gm, ''),
      );
      await expectFindings([
        ['error', /refuses its configuration: .*no module that runs scripts/, /-t {2}# and correct what it reports/],
      ]);
    });
  });

  it('finds certificates and revocation lists that have expired or expire soon', async () => {
    const client = (...args: string[]): Promise<string> =>
      ground.run(0, '-c', site('etc/nph-webjob.cfg'), 'client', ...args);
    await client('add', 'client2', '--cert', '--days', '5', '--url', url);
    const openssl = (command: string, cwd: string): void => {
      const ended = spawnSync('openssl', command.split(' '), { cwd, encoding: 'utf8' });
      assert.equal(ended.status, 0, ended.stderr);
    };
    openssl(
      'req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=x -addext basicConstraints=CA:FALSE -keyout webjob-server.key -out webjob-server.crt',
      site('etc'),
    );
    chmodSync(site('etc/webjob-server.key'), 0o640);
    openssl(
      'ca -config ca.cnf -gencrl -crl_lastupdate 20200101000000Z -crl_nextupdate 20200102000000Z -out ../webjob-ca.crl',
      site('etc/webjob-ca'),
    );
    await expectFindings([
      [
        'warning',
        /certificates of clients expire within 30 days or have expired: client2/,
        /client list --expiring 30d/,
      ],
      ['error', /^1 client has a certificate and no password, which this site requires: client2$/, /client add/],
      ['warning', /^the server's certificate expires in [89] days/, /renew it/],
      ['error', /others can read the private key/, /chmod 600/],
      ['error', /^the revocation list expired 2020-01-02/, /^webjobctl --config \S+ ca crl && \S+ -f \S+ -k graceful$/],
    ]);
    for (const name of ['webjob-ca', 'webjob-ca.crt', 'webjob-ca.crl', 'webjob-server.key', 'webjob-server.crt'])
      rmSync(site(`etc/${name}`), { recursive: true });
  });

  it('finds job ids that two servers issued, and a clock that is ahead', async () => {
    const log = site('integrity/logfiles/nph-webjob.log');
    await withCopies([log], async () => {
      const line = (jobId: string): string =>
        `2026-11-24 06:00:00 ${jobId} client1 127.0.0.1 GET client1 host.sh 0 19 0 200 -- Success\n`;
      const ahead = Math.floor(Date.now() / 1000) + 3600;
      writeFileSync(
        log,
        line('server_1_1085355126_00723') + line('server_1_1085355126_00723') + line(`east_${ahead}_00001`),
      );
      await expectFindings([
        ['error', /^1 job id was issued twice, such as server_1_1085355126_00723/, /ServerId of its own/],
        ['error', /a job 3[56]\d\d s in the future/, /set-ntp/],
      ]);
      const own = site('integrity/logfiles/nph-webjob-custody.webjobctl.jsonl');
      writeFileSync(own, '');
      const { notes } = await test();
      rmSync(own);
      assert.ok(notes.some(({ what }) => what === 'servers with other ids have written here: east'));
    });
  });

  it('reports a wrong password, an unreachable server, and a file that is not a webjob.conf', async () => {
    writeFileSync(
      at('wrong.conf'),
      readFileSync(at('client1/webjob.conf'), 'utf8')
        .replace(/^URLPassword=.*$/m, 'URLPassword=wrong')
        .replace(/^ResultKeyFile=/m, '$&client1/'),
      { mode: 0o600 },
    );
    await expectFindings(
      [
        ['error', /^link test: 401/, /^webjobctl --config \S+ client passwd client1 --generate --out /],
        ['error', /^GET webjobctl-probe: 401/, /^webjobctl --config \S+ client passwd client1 --generate --out /],
        ['error', /^PUT: 401/, /^webjobctl --config \S+ client passwd client1 --generate --out /],
      ],
      ...['--probe', url, '--as', at('wrong.conf')],
    );
    const { serious } = await test('--probe', 'http://127.0.0.1:1/', '--as', at('client1/webjob.conf'));
    assert.match(serious[0]?.what ?? '', /^the server cannot be reached: .*ECONNREFUSED/);
    assert.equal(serious.length, 1, 'once is enough');
    const configtest = async (code: number, why: RegExp, ...args: string[]): Promise<void> => {
      const ended = await runWebjobctl(['-c', site('etc/nph-webjob.cfg'), 'configtest', ...args]);
      assert.match(ended.stderr, why);
      assert.equal(ended.code, code);
    };
    await configtest(2, /--probe and --as must be given together/, '--probe', url);
    await configtest(4, /--as: \/nowhere cannot be read: ENOENT/, '--probe', url, '--as', '/nowhere');
    await configtest(2, /--probe is not an http or https URL/, '--probe', 'ftp://h', '--as', at('client1/webjob.conf'));
  });
});

describe('free space', () => {
  it('is low by bytes or by percentage, and so are inodes', () => {
    const large = { bsize: 4000, blocks: 25_000_000, bavail: 5_000_000, files: 1000, ffree: 500 };
    for (const [room, severities] of [
      [{}, ['note']],
      [{ bavail: 1_250_000 }, ['note']],
      [{ bavail: 1_249_999 }, ['warning']],
      [{ blocks: 300_000, bavail: 250_000 }, ['note']],
      [{ blocks: 300_000, bavail: 249_999 }, ['warning']],
      [{ ffree: 50 }, ['note']],
      [{ ffree: 49 }, ['note', 'warning']],
      [{ files: 0, ffree: 0 }, ['note']],
      [{ blocks: 0 }, ['note']],
    ] as const) {
      const found = describeRoom('/', { ...large, ...room });
      assert.deepEqual(
        found.map(({ severity }) => severity),
        severities,
        JSON.stringify(room),
      );
    }
  });
});

describe('the path that a user can reach', { skip: process.platform === 'win32' && 'no modes' }, () => {
  it('ends at the first directory without access', () => {
    const folder = at('on-the-way');
    mkdirSync(join(folder, 'inner'), { recursive: true });
    const file = join(folder, 'inner', 'file');
    writeFileSync(file, '', { mode: 0o644 });
    const other = { name: 'other', uid: 12_345, gid: 12_345 };
    const may = (): boolean[] => (['read', 'write'] as const).map((wanted) => mayAccess(other, file, wanted));
    assert.deepEqual(may(), [true, false]);
    chmodSync(folder, 0o700);
    assert.deepEqual(may(), [false, false]);
    chmodSync(folder, 0o711);
    assert.deepEqual(may(), [true, false]);
  });
});

describe('the suggested setting', () => {
  it('is the nearest by changed, added, removed or swapped letters', () => {
    const words = ['RequireUser', 'RequireMatch', 'UseGMT', 'ServerId', 'FolderList'];
    for (const [given, nearest] of [
      ['RequierUser', 'RequireUser'],
      ['usegtm', 'UseGMT'],
      ['ServerID', 'ServerId'],
      ['FoldersList', 'FolderList'],
      ['Requiremach', 'RequireMatch'],
      ['Colour', undefined],
      ['x', undefined],
    ] as const)
      assert.equal(findNearest(given, words), nearest, given);
  });
});
