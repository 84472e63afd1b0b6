// The checks of webjobctl configtest one by one: what each finds, and that it finds nothing at an
// almost complete site.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { checkCertificates } from '../../admin/configtest/certificates.ts';
import { checkAccess, checkDirectives, checkModules, findScriptFolders } from '../../admin/configtest/directives.ts';
import type { Finding } from '../../admin/configtest/finding.ts';
import { checkFleet } from '../../admin/configtest/fleet.ts';
import { askHttpd, type Directive, splitArguments } from '../../admin/configtest/httpd.ts';
import { makeMends, setControl } from '../../admin/configtest/mends.ts';
import { checkNodes } from '../../admin/configtest/nodes.ts';
import { probe } from '../../admin/configtest/probe.ts';
import { checkScripts } from '../../admin/configtest/script.ts';
import { checkControls } from '../../admin/configtest/settings.ts';
import { checkTree } from '../../admin/configtest/tree.ts';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { runWebjobctl } from '../support/locker-site.ts';

const root = mkdtempSync(join(tmpdir(), 'webjob-configtest-'));
chmodSync(root, 0o755);
after(() => rmSync(root, { recursive: true }));
const at = (...names: string[]): string => join(root, ...names);
const isRoot = process.getuid?.() === 0;
const me = { name: 'me', uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
const MENDS = {
  propertiesFile: at('nph-webjob.cfg'),
  etcDirectory: root,
  httpd: {},
  httpdConf: at('httpd.conf'),
  shippedText: (name: string): string => readFileSync(join(import.meta.dirname, '..', '..', name), 'utf8'),
};
const mends = makeMends(MENDS);
/** A user who does not exist on this machine and owns nothing. */
const other = { name: 'other', uid: 54_321, gid: 54_321 };

function write(path: string, text: string, mode = 0o644): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

/** As `error: what`, without the part after a colon. */
function brief(findings: readonly Finding[]): string[] {
  return findings.map(({ severity, what }) => `${severity}: ${what.split(':')[0]}`);
}

const serious = (findings: readonly Finding[]): string[] =>
  brief(findings.filter(({ severity, where }) => severity !== 'note' && where !== 'timedatectl'));

describe('the modules of httpd', () => {
  const NEEDED = ['alias', 'env', 'authz_core', 'authn_core', 'cgid'];
  const PASSWORDS = ['auth_basic', 'authn_file', 'authz_user'];
  const missing = (modules: string[], isByPassword = false, sslRequireSsl = false): string[] =>
    checkModules({ modules, directives: undefined }, { sslRequireSsl } as ServerSettings, isByPassword, mends)
      .map(({ what }) => what.replace('httpd has loaded neither mod_cgid nor mod_cgi', 'runner'))
      .map((what) => what.replace('httpd has not loaded mod_', ''));

  it('are those that this site needs, and one that runs scripts', () => {
    assert.deepEqual(missing(NEEDED), []);
    assert.deepEqual(missing([]), ['alias', 'env', 'authz_core', 'authn_core', 'runner']);
    for (const runner of ['cgi', 'cgid', 'fcgid', 'proxy_fcgi'])
      assert.deepEqual(missing([...NEEDED.slice(0, 4), runner]), [], runner);
    assert.deepEqual(missing(NEEDED, true), PASSWORDS);
    assert.deepEqual(missing([...NEEDED, ...PASSWORDS], true), []);
    assert.deepEqual(missing(NEEDED, false, true), ['ssl']);
  });
});

describe('a hint', () => {
  it('works when it is pasted, even where a path has blanks and quotes', () => {
    const folder = at("it's a folder");
    const own = makeMends({ ...MENDS, httpdConf: join(folder, 'httpd.conf'), etcDirectory: folder });
    const run = (command: string): void => {
      const [edit = ''] = command.split(` && ${own.reload}`);
      assert.equal(spawnSync('sh', ['-c', edit], { encoding: 'utf8' }).stderr, '');
    };
    const file = write(own.httpdConf, 'one\ntwo\nthree\n');
    const lines = (): string[] => readFileSync(file, 'utf8').trimEnd().split('\n');
    run(own.removeDirective(`${file}:2`));
    assert.deepEqual(lines(), ['one', 'three']);
    run(own.replaceDirective(`${file}:2`, 'Require', 'all "denied"'));
    assert.deepEqual(lines(), ['one', 'Require all "denied"']);
    run(own.addDirectives("It's", 'last'));
    assert.deepEqual(lines(), ['one', 'Require all "denied"', "It's", 'last']);
    run(setControl(`${file}:1`, 'Key', 'a b'));
    run(setControl(file, 'Other', '$x'));
    assert.deepEqual(lines(), ['Key=a b', 'Require all "denied"', "It's", 'last', 'Other=$x']);
    run(own.writeAccess('apache/htaccess', join(folder, '.htaccess')));
    assert.match(readFileSync(join(folder, '.htaccess'), 'utf8'), /^AuthUserFile .*it's a folder\/webjob\.htpasswd$/m);
  });
});

describe('the httpd of configtest', () => {
  it('is the one in PATH, before those in other places', () => {
    const program = write(at('bin', 'apachectl'), '#!/bin/sh\necho refused >&2\nexit 1\n', 0o755);
    const before = process.env.PATH;
    try {
      process.env.PATH = `/nowhere${delimiter}${dirname(program)}${delimiter}${before}`;
      const { program: asked, httpd, findings } = askHttpd(undefined, undefined);
      assert.deepEqual([asked, httpd], [program, undefined]);
      assert.deepEqual(
        findings.map(({ severity, what }) => `${severity}: ${what}`),
        ['error: httpd refuses its configuration: refused'],
      );
    } finally {
      process.env.PATH = before;
    }
  });
});

describe('the effective directives', () => {
  const folder = at('served');
  const settings = at('etc', 'nph-webjob.cfg');
  const own = makeMends({ ...MENDS, propertiesFile: settings });
  const directive = (name: string, value: string, ...sections: string[]): Directive => {
    return { name, value, sections: sections.length > 0 ? sections : [`Directory "${folder}"`], where: 'httpd.conf:1' };
  };
  const setEnv = (file: string): Directive => directive('SetEnv', `WEBJOB_PROPERTIES_FILE "${file}"`);
  const good = [setEnv(settings), directive('AllowOverride', 'AuthConfig Limit')];
  const find = (...more: Directive[]): string[] => brief(checkDirectives([...good, ...more], folder, own));

  it('are the last of a name, in the section of the directory', () => {
    assert.deepEqual(find(), []);
    write(at('another'), '');
    assert.deepEqual(find(setEnv(at('another'))), [
      `warning: httpd gives the script ${at('another')}, but this command checks ${settings}`,
    ]);
    assert.deepEqual(brief(checkDirectives([setEnv(at('another')), ...good], folder, own)), []);
    assert.deepEqual(find(directive('SetEnv', 'OTHER x')), ['warning: no SetEnv names the settings of the script']);
    assert.deepEqual(find({ ...setEnv('/x'), sections: ['Directory "/elsewhere"'] }), []);
    const said = ['error: .htaccess is ignored'];
    assert.deepEqual(find(directive('AllowOverride', 'None')), said);
    assert.deepEqual(find(directive('AllowOverride', 'All')), []);
    assert.deepEqual(brief(checkDirectives(good.slice(0, 1), folder, own)), said);
  });

  it('admit nobody without a rule', () => {
    const open = (name: string, value: string, ...sections: string[]): number =>
      find(directive(name, value, ...sections)).length;
    assert.deepEqual(find(directive('Require', 'all granted')), [`error: <Directory "${folder}"> lets in everybody`]);
    const inner = find(directive('Require', 'all granted', 'VirtualHost *:80', 'Location /webjob'));
    assert.deepEqual(inner, ['error: <Location /webjob> lets in everybody']);
    assert.equal(open('Require', 'ALL GRANTED'), 1);
    assert.equal(open('Satisfy', 'Any'), 1);
    assert.equal(open('Satisfy', 'All'), 0);
    assert.equal(open('Require', 'all denied'), 0);
    assert.equal(open('Require', 'all granted', 'VirtualHost *:80', `Directory ${folder}/`), 1);
    assert.equal(open('Require', 'all granted', 'Location "/webjob"'), 1);
    assert.equal(open('Require', 'all granted', 'Location /webjob/'), 1);
    assert.equal(open('Require', 'all granted', 'Location /webjobs'), 0);
    assert.equal(open('Require', 'all granted', `Directory "${folder}/below"`), 0);
    assert.equal(open('Require', 'all granted', `Files "${folder}"`), 0);
  });

  it('report unverified certificates, in every section of the configuration', () => {
    const verify = (value: string): string[] => find(directive('SSLVerifyClient', value, 'VirtualHost *:443'));
    assert.deepEqual(verify('optional_no_ca'), ['error: unverified certificates are accepted']);
    assert.deepEqual([verify('optional'), verify('require')], [[], []]);
  });

  it('may limit a body, which is reported', () => {
    assert.deepEqual(find(directive('LimitRequestBody', '0')), []);
    assert.deepEqual(find(directive('LimitRequestBody', '1000')), [
      'note: httpd itself answers 413 to more than 1000 bytes',
    ]);
    assert.deepEqual(find(directive('LimitRequestBody', '1000'), directive('LimitRequestBody', '0')), []);
  });

  it('lead to directories with a script, each once', () => {
    for (const name of ['a', 'b b', 'c']) mkdirSync(at('lead', name), { recursive: true });
    write(at('lead', 'a', 'nph-webjob.cgi'), '');
    write(at('lead', 'b b', 'nph-webjob'), '');
    const alias = (path: string): Directive => directive('ScriptAlias', `/x/ ${path}`, 'VirtualHost *:80');
    const aliases = [
      ...['a/', 'c/', 'a'].map((name) => alias(at('lead', name))),
      alias(`"${at('lead', 'b b')}/"`),
      { ...alias(at('lead', 'a')), name: 'Alias' },
    ];
    const [both, tell] = [
      [at('lead', 'a'), at('lead', 'b b')],
      (name: string, file: string): Directive => {
        return { ...setEnv(file), sections: [`Directory "${at('lead', name)}"`] };
      },
    ];
    assert.deepEqual(findScriptFolders(aliases, settings), both);
    // A directory without a script belongs to the site when SetEnv names the site's settings.
    assert.deepEqual(findScriptFolders([...aliases, tell('c', at('x'))], settings), [
      both[0],
      at('lead', 'c'),
      both[1],
    ]);
    // Of two sites on one server only one is meant.
    const two = [...aliases, tell('a', settings), tell('b b', at('another'))];
    assert.deepEqual(findScriptFolders(two, settings), both.slice(0, 1));
    assert.deepEqual(findScriptFolders(two, at('another')), both.slice(1));
    assert.deepEqual(findScriptFolders(two, at('third')), both);
    assert.deepEqual(splitArguments('/a/ "b c" d'), ['/a/', 'b c', 'd']);
  });
});

describe('.htaccess', () => {
  let made = 0;
  const users = (text: string, mode = 0o640): string => write(at(`users${made++}`), text, mode);
  const check = (text: string, user = me): string[] => {
    const folder = at(`cgi${made++}`);
    write(join(folder, '.htaccess'), text);
    const { isByPassword, findings } = checkAccess(folder, user, 'apache/htaccess', mends);
    return [...(isByPassword ? ['by password'] : []), ...brief(findings)];
  };
  const byPassword = (file: string, more = ''): string => `AuthUserFile ${file}\n Require valid-user\n${more}`;
  const good = (): string => users('client1:$2y$05$x\n');

  it('requires a password or a certificate', () => {
    assert.deepEqual(check(byPassword(good())), ['by password']);
    assert.deepEqual(check(byPassword(`"${good()}"`)), ['by password']);
    assert.deepEqual(check(`Require expr "%{SSL_CLIENT_VERIFY} == 'SUCCESS'"\n`), []);
    const nobody = 'error: .htaccess requires no credentials';
    assert.deepEqual(check('# Require valid-user\n'), [nobody]);
    assert.deepEqual(check(`Require expr "%{SSL_CLIENT_VERIFY} == 'NONE'"\n`), [nobody]);
    assert.deepEqual(brief(checkAccess(at('nowhere'), me, 'apache/htaccess', mends).findings), [
      'error: all access is denied',
    ]);
  });

  it('admits nobody otherwise', () => {
    for (const line of ['Require all granted', 'Satisfy Any', '<Limit GET>'])
      assert.deepEqual(check(byPassword(good(), line)), [
        'by password',
        'error: .htaccess allows some requests without credentials',
      ]);
    assert.deepEqual(check(byPassword(good(), '<LimitExcept GET PUT>\n# Satisfy any')), ['by password']);
  });

  it('names users that the script may read and others may not, with good hashes', () => {
    const find = (file: string, user = me): string[] => check(byPassword(file), user).slice(1);
    assert.deepEqual(find(at('none')), ['error: AuthUserFile names no file']);
    assert.deepEqual(check('Require user x\n').slice(1), ['error: AuthUserFile names no file']);
    const hash = 'a:$2b$05$x\nb:$apr1$x\nc:{SHA}x\nd:x\n';
    assert.deepEqual(find(users(hash)), ['warning: the hash of 3 passwords is weak, not bcrypt']);
    const readable = 'warning: every user of this machine can read the password hashes';
    assert.deepEqual(find(users('a:$2a$x\n', 0o644)), [readable]);
    assert.deepEqual(find(users('a:$2a$x\n', 0o640), other), ['error: other cannot read the users']);
    assert.deepEqual(find(users('a:$2a$x\n', 0o644), other), [readable]);
    const folder = at('inside');
    write(join(folder, '.htaccess'), byPassword(join(folder, 'users')));
    write(join(folder, 'users'), 'a:$2y$x\n', 0o640);
    assert.deepEqual(brief(checkAccess(folder, me, 'apache/htaccess', mends).findings), [
      'error: the user file is in the directory that httpd serves',
    ]);
  });
});

describe('nph-webjob.cfg', () => {
  let made = 0;
  const check = (settings: Record<string, string>, more = ''): { file: string; findings: Finding[] } => {
    const base = at(`base${made++}`);
    const text = Object.entries({ BaseDirectory: base, SslRequireSsl: 'Y', ...settings });
    const file = write(
      join(base, 'nph-webjob.cfg'),
      `${text.map(([key, value]) => `${key}=${value}\n`).join('')}${more}`,
    );
    return { file, findings: checkControls(file).findings };
  };
  const find = (settings: Record<string, string>): string[] => brief(check(settings).findings);

  it('draws warnings of risks, each only where nothing else protects', () => {
    assert.deepEqual(find({}), []);
    const [nobody, every] = ['warning: requests need no credentials', 'warning: every client can act as any other'];
    assert.deepEqual(find({ RequireUser: 'N' }), [nobody]);
    assert.deepEqual(find({ RequireUser: 'N', RequireMatch: 'N' }), [nobody]);
    assert.deepEqual(find({ RequireUser: 'N', SslRequireMatch: 'Y' }), []);
    assert.deepEqual(find({ RequireMatch: 'N' }), [every]);
    assert.deepEqual(find({ RequireMatch: 'N', SslRequireMatch: 'Y' }), []);
    assert.deepEqual(find({ EnableLogging: 'N' }), ['warning: no request leaves a line in the log']);
    assert.deepEqual(find({ SslRequireSsl: 'N' }), ['note: programs, output and passwords may be sent unencrypted']);
  });

  it('draws a warning of names that a client could choose for those of another', () => {
    const replace = { OverwriteExistingFiles: 'Y', KeepDifferingUploads: 'N' };
    const isRisk = (PutNameFormat: string, more = {}): boolean =>
      find({ ...replace, PutNameFormat, ...more }).length > 0;
    for (const format of ['%cid/%jid_%cmd', '%jid=%cid', 'a/%cid+%cmd', '%cid.%cmd', '%cid_%pid_%cmd', '%cid_%s_%cmd'])
      assert.ok(!isRisk(format), format);
    for (const format of ['%cid_%cmd', '%jid', 'a%cid/%cmd', '%cid_%sid_%cmd', '%jid_%cid_x', '%cid-%cmd'])
      assert.ok(isRisk(format), format);
    assert.ok(!isRisk('%cid_%cmd', { KeepDifferingUploads: 'Y' }));
    assert.ok(!isRisk('%cid_%cmd', { OverwriteExistingFiles: 'N' }));
  });

  it('draws warnings of lines that the server skips, with their numbers', () => {
    const { file, findings } = check({}, 'requireuser=Y\nRequireUser=N\nno setting\nColour=red\nUseGTM=Y\n');
    assert.deepEqual(
      findings
        .filter(({ where }) => where !== file)
        .map(({ what, where, remedy }) => [where.slice(file.length), what, remedy]),
      [
        [':5', 'a line without Key=Value has no effect', `sed -i '5s/^/# /' ${file}`],
        [':4', 'RequireUser is in line 3 too, and the last one counts', `sed -i 3d ${file}`],
        [':6', 'Colour is not a setting and has no effect', `sed -i 6d ${file}  # nph-webjob.cfg(5) has them all`],
        [':7', 'UseGTM is not a setting and has no effect', `sed -i '7s/[A-Za-z0-9_]*/UseGMT/' ${file}`],
        [':4', 'requests need no credentials: RequireUser=N', `sed -i '4c\\RequireUser=Y' ${file}`],
      ],
    );
    assert.deepEqual(brief(checkControls(at('none.cfg')).findings).slice(0, 1), ['error: the file does not exist']);
    const wrong = check({ UseGMT: 'perhaps' });
    assert.deepEqual(
      wrong.findings.map(({ severity, where }) => [severity, where]),
      [['error', `${wrong.file}:3`]],
    );
  });

  it('draws warnings of overrides of clients and commands, when they are on', () => {
    const base = at('overridden');
    const folder = join(base, 'config', 'nph-webjob');
    const files = ['commands/x.sh', 'clients/client1', 'clients/client1/commands/y.sh'].map((name) =>
      write(join(folder, name, 'nph-webjob.cfg'), 'RequireUser=N\nPutHookEnable=perhaps\n'),
    );
    write(join(folder, 'elsewhere', 'nph-webjob.cfg'), 'Colour=red\n');
    const main = (more: string): string[] => {
      const file = write(join(base, 'nph-webjob.cfg'), `BaseDirectory=${base}\nSslRequireSsl=Y\n${more}`);
      return checkControls(file).findings.map(({ severity, where }) => `${severity} ${where}`);
    };
    const expected = files.flatMap((file) => [`warning ${file}:1`, `error ${file}:2`]);
    assert.deepEqual(main('').sort(), expected.sort());
    assert.deepEqual(main('EnableConfigOverrides=N\n'), []);
    const hosts = join(folder, 'hosts.access');
    const isListed = (): boolean => main('EnableHostAccessList=Y\nEnableConfigOverrides=N\n').length === 0;
    assert.ok(!isListed());
    write(hosts, '');
    assert.ok(isListed());
  });
});

describe('webjobctl configtest', () => {
  it('reports the worst first, and ends with 1 for anything but notes', async () => {
    const base = at('ordered');
    const file = write(join(base, 'nph-webjob.cfg'), `BaseDirectory=${base}\nColour=red\n`);
    const args = ['-c', file, 'configtest', '--httpd', '/bin/false', ...(isRoot ? [] : ['--web-user', 'nobody'])];
    const { exitCode, text, stderr } = await runWebjobctl(['--json', ...args]);
    assert.equal(exitCode, 1, stderr);
    const severities = text
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as Finding).severity);
    const order = ['error', 'warning', 'note'];
    assert.deepEqual(
      severities,
      order.flatMap((severity) => severities.filter((found) => found === severity)),
    );
    assert.deepEqual([...new Set(severities)], order);
    assert.doesNotMatch((await runWebjobctl(args)).text, /Syntax OK/);
  });
});

describe('directories and logs', { skip: !isRoot && 'owners need root' }, () => {
  const NAMES = { incoming: 0o777, logfiles: 0o755, profiles: 0o755, spool: 0o755 };
  const site = (change: (base: string) => void, more = '', user = other): string[] => {
    const base = mkdtempSync(at('tree-'));
    chmodSync(base, 0o755);
    for (const name of Object.keys(NAMES)) mkdirSync(join(base, name));
    spawnSync('chown', [`${other.uid}`, join(base, 'incoming')]);
    const own = (path: string): string => {
      spawnSync('chown', [`${other.uid}`, path]);
      return path;
    };
    for (const log of ['nph-webjob.log', 'nph-webjob-custody.server_1.jsonl'])
      own(write(join(base, 'logfiles', log), ''));
    mkdirSync(own(join(base, 'logfiles')) && join(base, 'logfiles', 'nph-webjob-custody.server_1.d'));
    spawnSync('chown', ['0', join(base, 'logfiles')]);
    own(join(base, 'logfiles', 'nph-webjob-custody.server_1.d'));
    const file = write(join(base, 'nph-webjob.cfg'), `BaseDirectory=${base}\n${more}`);
    change(base);
    const findings = checkTree(checkControls(file).settings, file, user);
    return serious(findings.filter(({ what }) => !/ left/.test(what)));
  };
  const chmod = (name: string, mode: number) => (base: string) => chmodSync(join(base, name), mode);
  const give = (name: string) => (base: string) => void spawnSync('chown', [`${other.uid}`, join(base, name)]);
  const take = (name: string) => (base: string) => void spawnSync('chown', ['0', join(base, name)]);

  it('are correct as init makes them', () => {
    assert.deepEqual(
      site(() => undefined),
      [],
    );
    // The user that runs httpd may change their own files.
    assert.deepEqual(
      site(() => undefined, '', me),
      [],
    );
  });

  it('have their free space reported once, wherever the logs are', () => {
    const elsewhere = mkdtempSync('/dev/shm/webjob-logs-');
    try {
      for (const logs of ['', `LogfilesDirectory=${elsewhere}\n`]) {
        const file = write(at('space.cfg'), `BaseDirectory=${root}\nIncomingDirectory=${root}\n${logs}`);
        const findings = checkTree(checkControls(file).settings, file, other);
        assert.deepEqual(
          findings.filter(({ what }) => what.startsWith('free: ')).map(({ where }) => where),
          [root],
        );
      }
    } finally {
      rmSync(elsewhere, { recursive: true });
    }
  });

  for (const [what, change, found] of [
    [
      'IncomingDirectory that is missing',
      (base: string) => rmSync(join(base, 'incoming'), { recursive: true }),
      'error: IncomingDirectory does not exist',
    ],
    [
      'one that is a file',
      (base: string) => {
        rmSync(join(base, 'profiles'), { recursive: true });
        write(join(base, 'profiles'), '');
      },
      'error: ProfilesDirectory is not a directory',
    ],
    ['one that may not be written', take('incoming'), 'error: other cannot write in IncomingDirectory'],
    ['one that may not be entered', chmod('profiles', 0o750), 'error: other cannot enter ProfilesDirectory'],
    ['one that everybody may write', chmod('incoming', 0o757), 'error: everyone can write to IncomingDirectory'],
    ['logs that could be replaced', give('logfiles'), 'warning: other can write to LogfilesDirectory'],
    ['programs that could be changed', give('profiles'), 'warning: other can write to ProfilesDirectory'],
    [
      'no folder of logs',
      (base: string) => rmSync(join(base, 'logfiles'), { recursive: true }),
      'error: LogfilesDirectory does not exist error: the log does not exist error: the log does not exist',
    ],
    [
      'a log that is missing',
      (base: string) => rmSync(join(base, 'logfiles', 'nph-webjob.log')),
      'error: the log does not exist',
    ],
    [
      'a log that may not be written',
      take('logfiles/nph-webjob.log'),
      'error: other cannot write the log, which belongs to root',
    ],
    [
      'no room for another custody file',
      take('logfiles/nph-webjob-custody.server_1.d'),
      'warning: other cannot begin another file of the custody record, so the first one keeps growing',
    ],
    ['settings that may not be read', chmod('nph-webjob.cfg', 0o600), 'error: other cannot read the settings'],
    ['settings that could be changed', give('nph-webjob.cfg'), 'warning: other can write to the settings'],
  ] as const)
    it(`are reported with ${what}`, () => {
      assert.equal(site(change).join(' '), found);
    });

  it('may be links to directories', () => {
    const change = (base: string): void => {
      rmSync(join(base, 'profiles'), { recursive: true });
      mkdirSync(join(base, 'elsewhere'));
      symlinkSync(join(base, 'elsewhere'), join(base, 'profiles'));
    };
    assert.deepEqual(
      site(change).filter((found) => !found.startsWith('error: everyone')),
      [],
    );
  });

  it('include one more where a limit is set, in the main file or for one client', () => {
    const missing = ['error: LimitsDirectory does not exist'];
    const none = (): void => undefined;
    for (const control of ['MaxUploadsPerDay', 'MaxBytesPerDay', 'MaxRequestsAtOnce']) {
      assert.deepEqual(site(none, `${control}=5\n`), missing, control);
      const override = (base: string): void => {
        const folder = join(base, 'config/nph-webjob/clients/client1');
        mkdirSync(folder, { recursive: true });
        write(join(folder, 'nph-webjob.cfg'), `${control}=5\n`);
      };
      assert.deepEqual(site(override), missing, control);
      assert.deepEqual(site(override, 'EnableConfigOverrides=N\n'), [], control);
    }
    const make = (base: string): void => mkdirSync(join(base, 'limits'));
    assert.deepEqual(site(make, 'MaxUploadsPerDay=5\n'), ['error: other cannot write in LimitsDirectory']);
    const give = (base: string): void => {
      make(base);
      spawnSync('chown', [`${other.uid}`, join(base, 'limits')]);
    };
    assert.deepEqual(site(give, 'MaxUploadsPerDay=5\n'), []);
  });

  it('include those that hooks, triggers and tracking write to', () => {
    const log = 'error: the log does not exist';
    assert.deepEqual(
      site(() => undefined, 'PutHookEnable=Y\n'),
      [log],
    );
    assert.deepEqual(
      site(() => undefined, 'GetHookEnable=Y\n'),
      ['error: other cannot write in SpoolDirectory', log],
    );
    assert.deepEqual(
      site(() => undefined, 'GetTriggerEnable=Y\n'),
      [log],
    );
    assert.deepEqual(
      site(() => undefined, 'PutTriggerEnable=Y\nEnableRequestTracking=Y\n'),
      [log, log],
    );
    const none = (base: string): void => {
      for (const name of ['nph-webjob.log', 'nph-webjob-custody.server_1.jsonl']) rmSync(join(base, 'logfiles', name));
    };
    assert.deepEqual(site(none, 'EnableLogging=N\nEnableCustody=N\n'), []);
  });
});

describe('the script', () => {
  let made = 0;
  const check = (scripts: Record<string, string>, user = me, mode = 0o755): string[] => {
    const folder = at(`script${made++}`);
    mkdirSync(folder);
    for (const [name, text] of Object.entries(scripts)) write(join(folder, name), text, mode);
    return serious(checkScripts(folder, user));
  };
  const node = process.execPath;
  const ANSWER = "process.stdout.write('HTTP/1.1 405 Method Not Allowed\\r\\n')\n";

  it('exists, under a name that httpd takes for an nph script', () => {
    assert.deepEqual(serious(checkScripts(at('no-folder'), me)), ['error: the directory of the script cannot be read']);
    assert.deepEqual(check({ 'other.cgi': '' }), ['error: the directory contains no script']);
    assert.deepEqual(check({ 'webjob.cgi': `#!${node}\n${ANSWER}` }), [
      'error: httpd does not treat it as an nph script',
    ]);
    const beside = { 'nph-webjob.cgi.20261101T000000.bak': '', 'nph-webjob-resident.cjs': '' };
    assert.deepEqual(check({ 'nph-webjob.cgi': `#!${node}\n${ANSWER}`, ...beside }), [
      'warning: clients can still run a script that an earlier init replaced',
    ]);
    check({});
    symlinkSync(at('nowhere'), join(at(`script${made - 1}`), 'nph-webjob'));
    assert.deepEqual(serious(checkScripts(at(`script${made - 1}`), me)), ['error: the script cannot be read']);
  });

  it('begins with a path to Node', () => {
    for (const [line, found] of [
      ['', 'error: the first line of the script names no interpreter'],
      ['#!node\n', 'error: the first line of the script names no interpreter'],
      ['#!/bin/sh\n', 'error: the interpreter of the script is not Node'],
      ['#!/nowhere/node\n', 'error: the interpreter of the script does not exist'],
      [`#!${node}\n`, 'error: me cannot run the script'],
      [`#!${node}\r\n`, 'error: httpd cannot run the script'],
      [`\ufeff#!${node}\n`, 'error: httpd cannot run the script'],
    ] as const)
      assert.equal(check({ 'nph-webjob.cgi': line })[0], found, line);
    const old = write(at('old-node'), '#!/bin/sh\necho v20.18.9\n', 0o755);
    assert.deepEqual(check({ 'nph-webjob.cgi': `#!${old}\n` }), ['error: the Node of the script is too old']);
    write(old, '#!/bin/sh\n[ "$1" = --version ] && echo v20.19.0 || echo HTTP/1.1 405 No\n', 0o755);
    assert.deepEqual(check({ 'nph-webjob.cgi': `#! ${old}\n` }), []);
    assert.equal(
      check({ 'nph-webjob.cgi': '#!/usr/bin/env node\n' })[0],
      "warning: the Node of the script is looked up in httpd's PATH, which may differ from yours",
    );
    assert.deepEqual(check({ 'nph-webjob.cgi': '#!/usr/bin/env no-node-here\n' }), [
      "warning: the Node of the script is looked up in httpd's PATH, which may differ from yours",
      'error: the interpreter of the script is not Node',
    ]);
  });

  it('can be run by the web user, and changed by others only', { skip: !isRoot && 'owners need root' }, () => {
    for (const mode of [0o750, 0o754, 0o751])
      assert.deepEqual(check({ 'nph-webjob.cgi': `#!${node}\n` }, other, mode), ['error: other cannot run the script']);
    const changed = 'error: other can change what httpd runs';
    const shell = write(
      at('any-node'),
      '#!/bin/sh\n[ "$1" = --version ] && echo v24.0.0 || echo HTTP/1.1 405 No\n',
      0o755,
    );
    assert.deepEqual(check({ 'nph-webjob.cgi': `#!${shell}\n` }, other, 0o757), [changed]);
    chmodSync(shell, 0o750);
    assert.deepEqual(check({ 'nph-webjob.cgi': `#!${shell}\n` }, other), [
      'error: other cannot run the Node of the script',
    ]);
  });
});

describe('a certificate or list with a date', () => {
  const etc = at('dates');
  const [certificate, key] = [join(etc, 'webjob-server.crt'), join(etc, 'webjob-server.key')];
  const NO_CA = ['-addext', 'basicConstraints=CA:FALSE'];
  const make = (days: number): void => {
    const made = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', String(days), '-subj', '/CN=x', ...NO_CA];
    const { status, stderr } = spawnSync('openssl', [...made, '-keyout', key, '-out', certificate], {
      encoding: 'utf8',
    });
    assert.equal(status, 0, stderr);
    chmodSync(key, 0o600);
  };
  before(() => mkdirSync(etc));

  it('must be renewed in the last thirty days, and not before', () => {
    assert.deepEqual(checkCertificates(etc, undefined, mends), []);
    make(31);
    assert.deepEqual(
      checkCertificates(etc, undefined, mends).map(({ severity, what }) => `${severity}: ${what}`),
      ["note: the server's certificate is valid for 30 days"],
    );
    make(30);
    assert.deepEqual(
      checkCertificates(etc, undefined, mends).map(({ severity, what }) => `${severity}: ${what}`),
      ["warning: the server's certificate expires in 29 days"],
    );
  });

  it('is an error before its first day and after its last', () => {
    const folder = join(etc, 'ca');
    const settings = 'database=index\nrand_serial=yes\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\nemail_in_dn=no';
    write(join(folder, 'cnf'), `[ca]\ndefault_ca=d\n[d]\n${settings}\n[p]\ncommonName=supplied\n`);
    write(join(folder, 'index'), '');
    const request = `req -new -newkey rsa:2048 -nodes -subj /CN=x -keyout ${key} -out csr`.split(' ');
    assert.equal(spawnSync('openssl', request, { cwd: folder }).status, 0);
    for (const [first, last, found] of [
      ['20200101000000Z', '20200202000000Z', "error: the server's certificate expired 2020-02-02"],
      ['20900101000000Z', '20910101000000Z', "error: the server's certificate is not valid yet"],
    ] as const) {
      const sign = `ca -config cnf -batch -selfsign -keyfile ${key} -in csr -startdate ${first} -enddate ${last}`;
      const args = [...sign.split(' '), '-notext', '-out', certificate];
      assert.equal(spawnSync('openssl', args, { cwd: folder }).status, 0);
      write(join(folder, 'index'), '');
      assert.deepEqual(serious(checkCertificates(etc, undefined, mends)), [found]);
    }
  });

  it('is where httpd says, or otherwise in the usual place', () => {
    make(31);
    const elsewhere = join(etc, 'elsewhere.crt');
    write(elsewhere, 'no certificate');
    const directive = { name: 'SSLCertificateFile', value: `"${elsewhere}"`, sections: [], where: 'httpd.conf:1' };
    assert.deepEqual(brief(checkCertificates(etc, [directive, directive], mends)), [
      "error: the server's certificate cannot be read",
    ]);
    assert.deepEqual(brief(checkCertificates(etc, [], mends)), ["note: the server's certificate is valid for 30 days"]);
    write(join(etc, 'webjob-ca.crl'), 'no list');
    assert.deepEqual(serious(checkCertificates(etc, [], mends)), ['error: the file is not a revocation list']);
    rmSync(join(etc, 'webjob-ca.crl'));
  });

  it('has a key that only its owner can read', () => {
    for (const mode of [0o640, 0o604, 0o620, 0o602]) {
      chmodSync(key, mode);
      assert.deepEqual(
        serious(checkCertificates(etc, [], mends)),
        ['error: others can read the private key'],
        mode.toString(8),
      );
    }
    chmodSync(key, 0o400);
    assert.deepEqual(serious(checkCertificates(etc, [], mends)), []);
  });
});

describe('the check of job ids and clock', () => {
  const line = (jobId: string, method = 'GET'): string =>
    `2026-11-24 06:00:00 ${jobId} client1 127.0.0.1 ${method} client1 host.sh 0 19 0 200 -- Success\n`;
  const check = (text: string, custody: string[] = []): Finding[] => {
    const base = mkdtempSync(at('nodes-'));
    write(join(base, 'logfiles', 'nph-webjob.log'), text);
    for (const id of custody) write(join(base, 'logfiles', `nph-webjob-custody.${id}.jsonl`), '');
    const file = write(join(base, 'nph-webjob.cfg'), `BaseDirectory=${base}\n`);
    return checkNodes(checkControls(file).settings).filter(({ where }) => where !== 'timedatectl');
  };
  const id = (server: string, seconds: number, pid = '00001'): string => `${server}_${seconds}_${pid}`;
  const now = (): number => Math.floor(Date.now() / 1000);

  it('accepts ids that one server issued once', () => {
    const one = id('server_1', 1_085_355_126);
    assert.deepEqual(serious(check(line(one) + line(one, 'PUT') + line(id('server_1', 1_085_355_127)))), []);
    assert.deepEqual(serious(check(`${line(one)}no line\n${line(one)}`)), [
      `error: 1 job id was issued twice, such as ${one}`,
    ]);
    assert.deepEqual(serious(check('')), []);
  });

  it('reports other servers, as custody records do', () => {
    const notes = (...given: Parameters<typeof check>): string =>
      check(...given)
        .map(({ what }) => what)
        .join();
    assert.match(notes(line(id('server_1', 1_085_355_126)), ['server_1', 'webjobctl']), /^no sign of another server/);
    assert.equal(
      notes(line(id('west', 1_085_355_126)) + line(id('east', 1_085_355_126)), ['north', 'east']),
      'servers with other ids have written here: east, north, west',
    );
  });

  it('combines the servers in SiteServers', () => {
    const base = mkdtempSync(at('nodes-'));
    const folders = ['east', 'west'].map((name) => join(base, 'logs', name));
    const issued = [
      line(id('west', 1_085_355_126)),
      line(id('west', 1_085_355_126)) + line(id('north', 1_085_355_126)),
    ];
    for (const [index, folder] of folders.entries()) write(join(folder, 'nph-webjob.log'), issued[index] ?? '');
    const [own, other] = folders;
    const settings = `LogfilesDirectory=${own}\nServerId=east\nSiteServers=west:${other}\n`;
    const file = write(join(base, 'nph-webjob.cfg'), `BaseDirectory=${base}\n${settings}`);
    const found = checkNodes(checkControls(file).settings).filter(({ where }) => where !== 'timedatectl');
    assert.deepEqual(
      found.map(({ what }) => what),
      [
        `1 job id was issued twice, such as ${id('west', 1_085_355_126)}: two servers have the same ServerId`,
        'other servers of the site: west',
        'servers with other ids have written here: north',
      ],
    );
  });

  it('accepts times at most two minutes ahead', () => {
    assert.deepEqual(serious(check(line(id('server_1', now() + 100)))), []);
    const [found] = check(line(id('server_1', now() + 200)) + line(id('server_1', now() - 50))).slice(-1);
    assert.match(found?.what ?? '', /^the log has a job (?:19\d|200) s in the future/);
  });
});

describe('configtest --probe', () => {
  interface Said {
    status: number;
    date?: Date;
    type?: string;
  }
  let answers: (request: IncomingMessage, isStranger: boolean) => Said;
  const seen: { method: string; query: URLSearchParams; authorization: string; bytes: number; jobId: string }[] = [];
  const server = createServer((request, response) => {
    let bytes = 0;
    request.on('data', (chunk) => {
      bytes += chunk.length;
    });
    request.on('end', () => {
      const { authorization = '', 'job-id': jobId } = request.headers;
      const query = new URLSearchParams(request.url?.split('?')[1]);
      seen.push({ method: request.method ?? '', query, authorization, bytes, jobId: String(jobId) });
      const { status, date = new Date(), type = 'application/octet-stream' } = answers(request, authorization === '');
      response.writeHead(status, { Date: date.toUTCString(), 'Content-Type': type }).end();
    });
  });
  const conf = at('webjob.conf');
  const site = {
    settings: { logfilesDirectory: root },
    errorLog: undefined,
    mends,
    explainMissing: () => undefined,
  };
  let url = '';
  before(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    write(conf, 'ClientId=client1\nURLAuthType=basic\nURLUsername=client1\nURLPassword=p:a\u00e4s\n');
  });
  after(() => server.close());

  const good = ({ method, url: path = '' }: IncomingMessage, isStranger: boolean): Said => {
    if (isStranger) return { status: 401 };
    return { status: method === 'GET' ? 404 : path.includes('linktest') ? 251 : 200 };
  };
  const find = async (change: typeof answers): Promise<string[]> => {
    answers = change;
    seen.length = 0;
    return brief(await probe(url, conf, site)).filter((line) => !line.startsWith('note'));
  };
  const instead = (of: (request: IncomingMessage, isStranger: boolean) => boolean, said: Said) =>
    find((request, isStranger) => (of(request, isStranger) ? said : good(request, isStranger)));

  it('sends requests without credentials, then as the client, and reports the results', async () => {
    assert.deepEqual(await find(good), []);
    const Basic = `Basic ${Buffer.from('client1:p:a\u00e4s', 'utf8').toString('base64')}`;
    assert.deepEqual(
      seen.map(({ method, authorization, query }) => [method, authorization, query.get('RUNTYPE')]),
      [
        ['GET', '', null],
        ['PUT', Basic, 'linktest'],
        ['GET', Basic, null],
        ['PUT', Basic, 'snapshot'],
      ],
    );
    for (const { method, query, bytes, jobId } of seen) {
      const sum = ['STDOUT', 'STDERR', 'STDENV'].reduce((all, name) => all + Number(query.get(`${name}_LENGTH`)), 0);
      assert.equal(sum, bytes);
      assert.match(jobId, method === 'PUT' ? /^probe_\d+_\d{5,}$/ : /^undefined$/);
    }
  });

  it('requires that httpd itself refuses requests without credentials', async () => {
    const stranger = (status: number) => instead((_, isStranger) => isStranger, { status });
    for (const status of [401, 403]) assert.deepEqual(await stranger(status), [], String(status));
    const script = 'warning: httpd lets in anybody; only the script refuses';
    for (const status of [452, 472]) assert.deepEqual(await stranger(status), [script], String(status));
    for (const status of [451, 473, 200, 404])
      assert.deepEqual(await stranger(status), ['error: requests without credentials are accepted'], String(status));
    const httpd = await instead((_, isStranger) => isStranger, { status: 404, type: 'text/html' });
    assert.deepEqual(httpd, ['error: httpd has no script at /webjob/nph-webjob.cgi']);
    assert.equal(seen.length, 1, 'once is enough');
  });

  it('requires that the client is served', async () => {
    const own = (method: string) => (request: IncomingMessage, isStranger: boolean) =>
      !isStranger && request.method === method;
    assert.deepEqual(await instead(own('GET'), { status: 200 }), []);
    assert.deepEqual(await instead(own('GET'), { status: 453 }), ['error: GET webjobctl-probe']);
    assert.deepEqual(await instead(own('PUT'), { status: 200 }), ['error: link test']);
    assert.deepEqual(await instead(own('PUT'), { status: 251 }), ['error: PUT']);
  });

  it('compares the clocks', async () => {
    const shifted = (seconds: number) =>
      instead((_, isStranger) => isStranger, { status: 401, date: new Date(Date.now() + seconds * 1000) });
    assert.deepEqual([await shifted(50), await shifted(-50)], [[], []]);
    for (const seconds of [90, -90])
      assert.match((await shifted(seconds)).join(), /^warning: the server's clock differs by (?:89|9\d) s$/);
  });
});

describe('the files about many clients', () => {
  const folder = at('fleet', 'nph-webjob');
  const settings = { configDirectory: at('fleet'), dynamicDirectory: at('fleet') } as ServerSettings;
  const find = (groups: string, expect: string): string[] => {
    write(join(folder, 'groups'), groups);
    write(join(folder, 'expect'), expect);
    return checkFleet(settings, mends).map(
      ({ severity, what, where }) => `${severity} ${where.replace(/.*[/]/, '')}: ${what}`,
    );
  };

  it('may be missing', () => {
    assert.deepEqual(checkFleet({ ...settings, configDirectory: at('nowhere') }, mends), []);
  });

  it('are read up to the malformed line', () => {
    assert.deepEqual(find('# good\nweb = web-1 /\n', 'tell command /bin/sh\n\nexpect web\n'), [
      'error groups:2: / is not a client id, a glob or a group',
      'error expect:3: nothing is not a command',
    ]);
    assert.deepEqual(find('web = web-1\n', 'tell command /bin/sh\nexpect web x.sh exit=0\n'), []);
  });

  it('name a recipient, existing programs, and secrets that are private', () => {
    assert.deepEqual(find('', 'warn disk 5%\n'), [
      'warning expect: no alert is sent: the file has no line that begins with tell',
    ]);
    assert.deepEqual(find('', `tell command ${at('none')}\ntell mail a@b.c sendmail=${folder}\n`), [
      `error expect:1: ${at('none')} is not a program`,
      `error expect:2: ${folder} is not a program`,
    ]);
    assert.deepEqual(find('', `tell mail a@b.c smtp=smtp://x sendmail=${at('none')}\n`), []);
    const [open, closed] = [write(at('open'), 'x', 0o644), write(at('closed'), 'x', 0o600)];
    assert.deepEqual(
      find(
        '',
        `tell webhook @${open} secret-file=${at('none')}\ntell webhook http://x secret-file=${closed}\nping @${open}\n`,
      ),
      [
        'error open: others can read this secret',
        `error expect:1: ${at('none')} is not there`,
        'error open: others can read this secret',
      ],
    );
    assert.deepEqual(find('', `tell mail a@b.c smtp=smtp://x user=u password-file=${open}\n`), [
      'error open: others can read this secret',
    ]);
  });
});
