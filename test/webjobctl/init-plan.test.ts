// The plan of webjobctl init, path by path; how it compares the plan with what exists, carries it
// out and syncs it; and the steps for httpd.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs, {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { applySteps, type Makers } from '../../admin/init/apply.ts';
import { compareWishes, type Step } from '../../admin/init/compare.ts';
import { formatHttpdStep, planHttpdSteps, takeHttpdSteps } from '../../admin/init/httpd-steps.ts';
import { findPlaces } from '../../admin/init/places.ts';
import type { Wish } from '../../admin/init/plan.ts';
import { runWebjobctl } from '../support/locker-site.ts';
import { runProgram, WEBJOBCTL } from '../support/program-runs.ts';
import { findWebUser } from '../support/tree.ts';

const root = mkdtempSync(join(tmpdir(), 'webjob-init-'));
chmodSync(root, 0o755);
after(() => rmSync(root, { recursive: true }));
const isRoot = process.getuid?.() === 0;
const needsRoot = { skip: !isRoot && 'owners need root' };
let folder: string;
let made = 0;
beforeEach(() => {
  folder = join(root, String(made++));
  mkdirSync(folder);
});

/** In one directory. */
async function runIn(
  cwd: string,
  args: readonly string[],
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await runProgram(WEBJOBCTL, args, { cwd, environment: process.env });
  return { code, stdout: stdout.toString(), stderr: stderr.toString() };
}

/** The output of init --dry-run, as `0755 root:root folder PATH`, below --root. */
async function plan(code: number, ...args: string[]): Promise<{ paths: string[]; states: string[]; left: string[] }> {
  const words = ['--json', 'init', '--dry-run', '--root', folder, '--node', process.execPath, ...args];
  const { exitCode, text, stderr } = await runWebjobctl(words);
  assert.equal(exitCode, code, stderr);
  const lines = text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
  const steps = lines.filter(({ path }) => path !== undefined);
  return {
    paths: steps.map(
      ({ mode, owner, group, kind, path }) => `${mode} ${owner}:${group} ${kind} ${path.slice(folder.length)}`,
    ),
    states: steps.map(({ state }) => state),
    left: lines.slice(steps.length).map((step) => formatHttpdStep(step)),
  };
}

describe('the plan of webjobctl init', { skip: !(isRoot && findWebUser()) && 'owners need root' }, () => {
  const site = (cgi: string, etc: string, base: string, siteFile: string, more: string[] = []): string[] => [
    `0755 root:root folder ${cgi}`,
    `0755 root:root file ${cgi}/nph-webjob.cgi`,
    `0644 root:root file ${cgi}/.htaccess`,
    `0755 root:root folder ${etc}`,
    `0644 root:root file ${etc}/nph-webjob.cfg`,
    `0644 root:root file ${etc}/webjob.conf`,
    ...more.filter((line) => line.endsWith('.conf')),
    `0644 root:root file ${siteFile}`,
    ...(siteFile.startsWith('/w/')
      ? ['0644 root:root file /w/etc/webjob.logrotate']
      : ['0755 root:root folder /etc/logrotate.d', '0644 root:root file /etc/logrotate.d/webjob']),
    `0640 root:web file ${etc}/webjob.htpasswd`,
    ...more.filter((line) => !line.endsWith('.conf')),
    `0755 root:root folder ${base}`,
    `0755 web:root folder ${base}/incoming`,
    `0755 web:root folder ${base}/limits`,
    `0755 web:root folder ${base}/dynamic`,
    `0755 root:root folder ${base}/logfiles`,
    ...['nph-webjob.log', 'nph-webjob.json.log', 'nph-webjob-hook.log', 'nph-webjob-trigger.log'].map(
      (name) => `0644 web:root file ${base}/logfiles/${name}`,
    ),
    `0644 web:root file ${base}/logfiles/nph-webjob-custody.server_1.jsonl`,
    `0755 web:root folder ${base}/logfiles/nph-webjob-custody.server_1.d`,
    `0755 root:root folder ${base}/profiles`,
    ...documents(siteFile.startsWith('/w/') ? '/w/share' : '/usr/local/share'),
    `0755 root:root folder ${base}/config`,
    `0755 root:root folder ${base}/config/nph-webjob`,
    `0600 root:root file ${base}/config/nph-webjob/custody-witness.json`,
  ];

  const fishOf = (share: string): string =>
    share === '/w/share' ? `${share}/fish/vendor_completions.d` : '/etc/fish/completions';
  const documents = (share: string): string[] => [
    ...['', '/man', '/man/man8', '/man/man5', '/man/man1', '/bash-completion', '/bash-completion/completions'].map(
      (name) => `0755 root:root folder ${share}${name}`,
    ),
    ...['/zsh', '/zsh/site-functions'].map((name) => `0755 root:root folder ${share}${name}`),
    ...[dirname(fishOf(share)), fishOf(share)].map((name) => `0755 root:root folder ${name}`),
    ...[
      'man8/nph-webjob.8',
      'man5/nph-webjob.cfg.5',
      'man1/pad-make-script.1',
      'man1/webjob-sign.1',
      'man8/webjob-view.8',
    ].map((name) => `0644 root:root file ${share}/man/${name}`),
    ...['man1/webjob.1', 'man5/webjob.conf.5', 'man8/webjobctl.8'].map(
      (name) => `0644 root:root file ${share}/man/${name}`,
    ),
    ...['bash-completion/completions/webjob', 'bash-completion/completions/webjobctl'].map(
      (name) => `0644 root:root file ${share}/${name}`,
    ),
    ...['zsh/site-functions/_webjob', 'zsh/site-functions/_webjobctl'].map(
      (name) => `0644 root:root file ${share}/${name}`,
    ),
    ...['webjob.fish', 'webjobctl.fish'].map((name) => `0644 root:root file ${fishOf(share)}/${name}`),
  ];

  it('has owners and modes, in the layout of the article, of Debian, and in one directory', async () => {
    const apache = '/usr/local/apache';
    const article = await plan(0, '--httpd-conf', '/x/httpd.conf');
    const expected = site(`${apache}/webjob`, `${apache}/etc`, '/var/integrity', `${apache}/etc/webjob-site.conf`);
    assert.deepEqual(article.paths.slice(0, -1), expected);
    assert.match(article.paths.at(-1) ?? '', /^0600 root:root file .*\/custody\S*\.gz$|^0600 root:root file .*\.gz$/);
    assert.deepEqual(article.left, [
      `grep -qxF 'Include ${apache}/etc/webjob-site.conf' /x/httpd.conf || echo 'Include ${apache}/etc/webjob-site.conf' >> /x/httpd.conf`,
      ...['apachectl -f /x/httpd.conf -t', 'apachectl -f /x/httpd.conf -k graceful'],
    ]);
    const debian = await plan(0, '--prefix', 'debian', '--base', '/srv/w');
    const conf = '/etc/apache2/conf-available/webjob.conf';
    assert.deepEqual(debian.paths.slice(0, -1), site('/usr/lib/cgi-bin/webjob', '/etc/webjob', '/srv/w', conf));
    assert.ok(debian.left.includes('a2enconf webjob'));
    const tls = ['--tls', '--certificates', '--server-name', '2001:db8::1', '--tls-port', '65535'];
    const own = await plan(0, '--prefix', '/w', ...tls);
    const certificates = [
      ...['0644 root:root file /w/etc/webjob-tls.conf', '0644 root:root file /w/etc/webjob-certificates.conf'],
      ...['0600 root:root file /w/etc/webjob-server.key', '0644 root:root file /w/etc/webjob-server.crt'],
      ...['0644 root:root file /w/etc/webjob-ca.crt', '0644 root:root file /w/etc/webjob-ca.crl'],
    ];
    assert.deepEqual(
      own.paths.slice(0, -1),
      site('/w/webjob', '/w/etc', '/w/integrity', '/w/etc/webjob-site.conf', certificates),
    );
    assert.deepEqual([...new Set(own.states)], ['make']);
    assert.deepEqual(readdirSync(folder), []);
  });

  it('adds the view, with a user of its own where there is one', async () => {
    const added = async (...args: string[]): Promise<string[]> => {
      const [without, using] = [await plan(0, ...args), await plan(0, ...args, '--view')];
      assert.deepEqual(
        without.paths.filter((path) => !using.paths.includes(path)),
        [],
      );
      return using.paths.filter((path) => !without.paths.includes(path));
    };
    assert.deepEqual(await added('--prefix', 'debian'), [
      '0755 root:root folder /usr/lib/cgi-bin/webjob-view',
      '0755 root:root file /usr/lib/cgi-bin/webjob-view/webjob-view.cgi',
      '0644 root:root file /etc/webjob/webjob-view.conf',
      '0640 root:web file /etc/webjob/webjob-view.htpasswd',
      '0700 web:web folder /var/lib/webjob-view',
    ]);
    const words = ['init', '--root', folder, '--prefix', '/w', '--node', process.execPath];
    const tls = ['--tls', '--server-name', 'w.example', '--tls-port', '8443'];
    const { exitCode, stderr } = await runWebjobctl([...words, ...tls, '--view', '--view-user', 'daemon']);
    assert.equal(exitCode, 0, stderr);
    assert.match(
      stderr,
      /for readers: htpasswd -B \/w\/etc\/webjob-view\.htpasswd alice\n[\s\S]*webjob-acts: alice[\s\S]*systemctl/,
    );
    const text = (path: string): string => readFileSync(join(folder, 'w', path), 'utf8');
    const lines = [
      'Define WEBJOB_VIEW_SOCKET /run/webjob-view/view.sock',
      'Define WEBJOB_VIEW_GROUP_FILE /w/etc/webjob-view.groups',
    ];
    const siteFile = text('etc/webjob-site.conf');
    for (const line of ['Define WEBJOB_VIEW', ...lines]) assert.ok(siteFile.includes(`${line}\n`), line);
    assert.ok(!siteFile.includes('webjob-view.conf'), 'only the virtual host with TLS includes the view');
    assert.equal(siteFile.trimEnd().split('\n').at(-1), 'Include /w/etc/webjob-tls.conf');
    assert.match(text('etc/nph-webjob.cfg'), /^ViewURL=https:\/\/w\.example:8443\/webjob-view$/m);
    const service = text('etc/webjob-view.service');
    assert.match(service, /^ExecStart=\/w\/view\/webjob-view\.cgi --idle 600$/m);
    assert.match(service, /^User=daemon$/m);
    assert.match(service, /^ReadWritePaths=\/w\/view-state$/m);
    assert.match(service, /^ReadWritePaths=-\/w\/integrity\/config\/webjob-acts\/inbox$/m);
    assert.match(
      text('etc/webjob-acts.service'),
      /^ExecStart=\S+ \S+\/webjobctl --config \/w\/etc\/nph-webjob\.cfg acts$/m,
    );
    assert.match(text('etc/webjob-acts.path'), /^PathChanged=\/w\/integrity\/config\/webjob-acts\/inbox$/m);
    assert.match(text('etc/webjob-view.socket'), /^SocketUser=www-data$/m);
    const [view, inbox] = ['view-state', 'integrity/config/webjob-acts/inbox'].map((path) =>
      statSync(join(folder, 'w', path)),
    );
    const { uid } = statSync(join(folder, 'w/integrity/incoming'));
    assert.deepEqual([view?.uid, (view?.mode ?? 0) & 0o777], [inbox?.uid, (inbox?.mode ?? 0) & 0o777]);
    assert.ok(view?.uid !== 0 && view?.uid !== uid && ((view?.mode ?? 0) & 0o777) === 0o700);
    const again = await plan(0, '--prefix', '/w', ...tls, '--view', '--view-user', 'daemon');
    assert.deepEqual([...new Set(again.states)], ['keep']);
    await plan(4, '--prefix', '/w', '--view', '--view-user', 'no-such-user');
    await plan(2, '--prefix', '/w', '--view-user', 'daemon');
  });

  it('keeps uploads and logs to a group with --private, and otherwise says who can read them', async () => {
    const group = readFileSync('/etc/group', 'utf8').split('\n').at(1)?.split(':')[0] ?? '';
    const words = ['init', '--root', folder, '--prefix', '/w', '--node', process.execPath];
    const open = await runWebjobctl([...words, '--dry-run']);
    assert.match(open.stderr, /every user of this machine can read uploads and logs: --private GROUP/);
    const { exitCode, stderr } = await runWebjobctl([...words, '--private', group]);
    assert.equal(exitCode, 0, stderr);
    assert.doesNotMatch(stderr, /everybody/);
    const [web, nobody] = [findWebUser()?.uid, 65_533];
    const may = (uid: number | undefined, ...command: string[]): boolean =>
      spawnSync('setpriv', [`--reuid=${uid}`, '--regid=65533', '--clear-groups', ...command]).status === 0;
    const asAnalyst = (...command: string[]): boolean =>
      spawnSync('setpriv', ['--reuid=65533', `--regid=${group}`, '--clear-groups', ...command]).status === 0;
    const [incoming, logs] = [join(folder, 'w/integrity/incoming'), join(folder, 'w/integrity/logfiles')];
    assert.ok(
      may(web, 'sh', '-c', `umask 022; echo evidence > ${incoming}/a.out && echo line >> ${logs}/nph-webjob.log`),
    );
    assert.ok(may(web, 'touch', join(logs, 'nph-webjob-custody.server_1.d', 'segment')));
    const secrets = [`${incoming}/a.out`, `${logs}/nph-webjob.log`, `${logs}/nph-webjob-custody.server_1.d/segment`];
    for (const path of secrets) {
      assert.deepEqual([may(nobody, 'cat', path), asAnalyst('cat', path)], [false, true], path);
      assert.equal(asAnalyst('sh', '-c', `echo x >> ${path}`), false);
    }
    assert.deepEqual(
      [may(nobody, 'ls', incoming), may(nobody, 'ls', logs), asAnalyst('ls', incoming)],
      [false, false, true],
    );
    assert.deepEqual([...new Set((await plan(0, '--prefix', '/w', '--private', group)).states)], ['keep']);
    const unknown = await runWebjobctl([...words, '--private', 'no-such-group']);
    assert.match(unknown.stderr, /there is no group no-such-group\n.*groupadd no-such-group/);
    await plan(2, '--private', 'a b');
  });

  it('admits clients with a password or a certificate', async () => {
    const words = ['init', '--root', folder, '--prefix', '/w', '--node', process.execPath];
    const { exitCode, stderr } = await runWebjobctl([...words, '--tls', '--certificates', '--passwords']);
    assert.equal(exitCode, 0, stderr);
    const text = (path: string): string => readFileSync(join(folder, path), 'utf8');
    assert.match(
      text('w/etc/webjob-site.conf'),
      /\nDefine WEBJOB_CERTIFICATES\nDefine WEBJOB_CERTIFICATE_OPTIONAL\nInclude /,
    );
    assert.match(text('w/etc/nph-webjob.cfg'), /^SslRequireSsl=Y$/m);
    assert.doesNotMatch(text('w/etc/nph-webjob.cfg'), /^SslRequire(?:Match|Cn)=Y$/m);
    const shipped = readFileSync(join(import.meta.dirname, '..', '..', 'apache', 'htaccess-either'), 'utf8');
    const own = shipped.replace(/^AuthUserFile .*$/m, 'AuthUserFile /w/etc/webjob.htpasswd');
    assert.equal(text('w/webjob/.htaccess'), own);
    await plan(2, '--prefix', '/w', '--passwords');
  });

  it('is compared with existing files, which --force may replace', async () => {
    mkdirSync(join(folder, 'w', 'etc'), { recursive: true });
    writeFileSync(join(folder, 'w', 'etc', 'webjob.conf'), 'mine');
    assert.ok((await plan(1, '--prefix', '/w')).states.includes('differs'));
    await plan(0, '--prefix', '/w', '--force');
  });

  it('is refused with arguments out of their limits', async () => {
    for (const args of [
      ['--tls-port', '0'],
      ['--tls-port', '443x'],
      ['--server-id', 'x'.repeat(65)],
      ['--server-id', ''],
      ['--server-name', `a${'b'.repeat(253)}`],
      ['--server-name', '-a'],
      ['--prefix', '/a b'],
      ['--base', '/a"b'],
    ])
      await plan(2, ...args);
    await plan(0, '--prefix', '/w', '--server-id', 'x'.repeat(64), '--tls', '--server-name', 'a'.repeat(253));
  });

  it('has its paths in every file that names them', async () => {
    const words = ['init', '--root', folder, '--prefix', '/w', '--base', '/b', '--server-id', 'east', '--tls'];
    const more = ['--server-name', 'h.example', '--tls-port', '8443', '--certificates', '--node', process.execPath];
    const { exitCode, stderr } = await runWebjobctl([...words, ...more]);
    assert.equal(exitCode, 0, stderr);
    assert.match(
      stderr,
      new RegExp(`next: \\S*webjobctl --config ${folder}/w/etc/nph-webjob\\.cfg client add client1 --cert\\n`),
    );
    const text = (path: string): string => readFileSync(join(folder, path), 'utf8');
    const settings = text('w/etc/nph-webjob.cfg').split('\n');
    for (const line of ['BaseDirectory=/b', 'ServerId=east', 'SslRequireSsl=Y', 'SslRequireMatch=Y'])
      assert.ok(settings.includes(line), line);
    assert.deepEqual(text('w/etc/webjob-site.conf').split('\n').slice(1), [
      ...['Define WEBJOB_CGI_DIRECTORY /w/webjob', 'Define WEBJOB_PROPERTIES_FILE /w/etc/nph-webjob.cfg'],
      ...['Define WEBJOB_SERVER_NAME h.example', 'Define WEBJOB_SERVER_CERTIFICATE /w/etc/webjob-server.crt'],
      ...['Define WEBJOB_SERVER_KEY /w/etc/webjob-server.key', 'Define WEBJOB_SNIPPETS /w/etc'],
      ...['Define WEBJOB_TLS_PORT 8443', 'Define WEBJOB_CA_FILE /w/etc/webjob-ca.crt'],
      ...[
        'Define WEBJOB_CRL_FILE /w/etc/webjob-ca.crl',
        'Define WEBJOB_CERTIFICATES',
        'Include /w/etc/webjob-tls.conf',
        '',
      ],
    ]);
    assert.match(text('b/logfiles/nph-webjob-custody.east.jsonl'), /"event":"genesis",.*"serverId":"east"/);
    assert.equal(text('w/webjob/nph-webjob.cgi').split('\n')[0], `#!${process.execPath}`);
    const seen = JSON.parse(text('b/config/nph-webjob/custody-witness.json')).seen;
    assert.deepEqual(
      seen.map(({ file, size }: { file: string; size: number }) => [file, size]),
      [['nph-webjob-custody.east.jsonl', statSync(join(folder, 'b/logfiles/nph-webjob-custody.east.jsonl')).size]],
    );
    const again = await runWebjobctl(['--json', ...words, ...more]);
    assert.deepEqual([again.exitCode, again.text.includes('"made"')], [0, false], again.text);
    assert.deepEqual(
      readdirSync(folder, { recursive: true }).filter((name) => /\.(?:new|bak)$|lock/.test(String(name))),
      [],
    );
  });
});

describe('a planned file', () => {
  const wish = (name: string, more: Partial<Wish> = {}): Wish => {
    return { kind: 'file', path: `/${name}`, mode: 0o644, owner: 'root', group: 'root', content: 'x', ...more };
  };
  const webUser = isRoot ? { name: 'web', uid: 12_345, gid: 23_456 } : undefined;
  const compare = (one: Wish): Step => {
    const [step] = compareWishes([one], { root: folder, webUser });
    assert.ok(step);
    return step;
  };
  const tell = (one: Wish): string => {
    const { state, why } = compare(one);
    return [state, ...why].join(' ');
  };
  const UNSERVED = { directories: ['/nowhere'], replacedDirectory: '/nowhere/replaced' };
  const NO_MAKERS = {} as Makers;
  const { content: _content, ...any } = wish('a');

  it('differs in content, mode, owner, group or kind', () => {
    const path = join(folder, 'a');
    assert.equal(tell(wish('a')), 'make');
    writeFileSync(path, 'x');
    chmodSync(path, 0o644);
    assert.equal(tell(wish('a')), 'keep');
    assert.equal(tell(wish('a', { content: 'xy' })), 'differs content');
    assert.equal(tell(any), 'keep');
    for (const mode of [0o600, 0o1644, 0o4644, 0o2644, 0o645])
      assert.equal(tell(wish('a', { mode })), 'differs mode', mode.toString(8));
    assert.equal(tell(wish('a', { kind: 'folder' })), 'differs kind');
    rmSync(path);
    symlinkSync('/etc/passwd', path);
    assert.equal(tell(wish('a')), 'differs kind');
    rmSync(path);
    symlinkSync('/nowhere', path);
    assert.equal(tell(wish('a')), 'differs kind');
    writeFileSync(join(folder, 'b'), '');
    assert.throws(() => compare(wish('b/c')), { kind: 'failed' });
  });

  it('has an owner and a group', needsRoot, () => {
    const path = join(folder, 'a');
    writeFileSync(path, 'x');
    chmodSync(path, 0o644);
    for (const [uid, gid, own, other] of [
      [0, 0, {}, { owner: 'web' }],
      [12_345, 0, { owner: 'web' }, { group: 'web' }],
      [0, 23_456, { group: 'web' }, { owner: 'web' }],
      [12_345, 23_456, { owner: 'web', group: 'web' }, { owner: 'web' }],
    ] as const) {
      chownSync(path, uid, gid);
      assert.deepEqual([tell(wish('a', own)), tell(wish('a', other))], ['keep', 'differs owner'], `${uid}:${gid}`);
    }
  });

  it('is made whatever the umask, and is on disk', () => {
    const steps: string[] = [];
    const { fsyncSync, renameSync } = fs;
    const apply = (...wishes: Wish[]): void => {
      const before = process.umask(0o077);
      Object.assign(fs, {
        fsyncSync: (fd: number): void => {
          steps.push(`fsync ${basename(readlinkSync(`/proc/self/fd/${fd}`))}`);
          fsyncSync(fd);
        },
        renameSync: (from: string, to: string): void => {
          steps.push(`rename ${basename(from)} ${basename(to)}`);
          renameSync(from, to);
        },
      });
      syncBuiltinESMExports();
      try {
        applySteps(compareWishes(wishes, { root: folder, webUser }), NO_MAKERS, UNSERVED, () => undefined);
      } finally {
        process.umask(before);
        Object.assign(fs, { fsyncSync, renameSync });
        syncBuiltinESMExports();
      }
    };
    const wishes = [
      { ...any, kind: 'folder' as const, path: '/open', mode: 0o1777, owner: 'web' as const },
      wish('open/file', { mode: 0o2755, group: 'web' }),
    ];
    mkdirSync(join(folder, '.open.new'));
    apply(...wishes);
    assert.deepEqual(wishes.map(tell), ['keep', 'keep']);
    assert.deepEqual(readdirSync(folder), ['open']);
    assert.deepEqual(steps.slice(0, 2), ['rename .open.new open', `fsync ${basename(folder)}`]);
    chmodSync(join(folder, 'open'), 0o700);
    writeFileSync(join(folder, 'open', 'file'), 'another');
    utimesSync(join(folder, 'open', 'file'), 0, 0);
    writeFileSync(join(folder, 'open', '.file.0123456789ab'), 'what a killed run left');
    apply(...wishes);
    assert.deepEqual(wishes.map(tell), ['keep', 'keep']);
    const names = readdirSync(join(folder, 'open'));
    assert.match(names.join(), /^file,file\.\d{8}T\d{6}\.bak$/);
    assert.equal(readFileSync(join(folder, 'open', names[1] ?? ''), 'utf8'), 'another');
    writeFileSync(join(folder, 'open', '.file.0123456789ab'), 'what a killed run left');
    apply(...wishes);
    assert.equal(readdirSync(join(folder, 'open')).length, 2);
  });

  it('causes a failure that names it when it cannot be made', () => {
    const step = { ...compare(wish('a/b')), place: '/proc/nothing/b' };
    assert.throws(
      () => applySteps([step], NO_MAKERS, UNSERVED, () => undefined),
      /\/proc\/nothing\/b cannot be made: /,
    );
  });
});

describe('the steps for httpd', () => {
  const steps = (prefix: string, isTls: boolean, options = {}): string[] =>
    planHttpdSteps(findPlaces(prefix, undefined), isTls, options).map(formatHttpdStep);

  it('are for the given httpd', () => {
    assert.deepEqual(steps('/w', true, { httpd: '/x/httpd', httpdConf: '/x/httpd.conf' }), [
      "grep -qxF 'Include /w/etc/webjob-site.conf' /x/httpd.conf || echo 'Include /w/etc/webjob-site.conf' >> /x/httpd.conf",
      '/x/httpd -f /x/httpd.conf -t',
      '/x/httpd -f /x/httpd.conf -k graceful',
    ]);
  });

  it('load the modules of Debian, and start new sites', () => {
    const planned = steps('debian', true);
    assert.equal(
      planned.some((step) => step.startsWith('apt-get')),
      !existsSync('/etc/apache2'),
    );
    assert.ok(planned.includes('a2enmod ssl'));
    assert.ok(!steps('debian', false).includes('a2enmod ssl'));
    assert.ok(planned.indexOf('a2enconf webjob') < planned.indexOf('apachectl configtest'));
    assert.equal(planned.at(-1), 'apachectl graceful');
    assert.ok(
      steps('/w', false, { httpdConf: '/etc/apache2/apache2.conf' }).some((step) => step.startsWith('a2enmod')),
    );
    assert.ok(!steps('/w', false, { httpdConf: '/etc/apache22/x' }).some((step) => step.startsWith('a2enmod')));
  });

  const httpd = (modules: string, status = 0): string => {
    const path = join(folder, 'httpd');
    const version = `printf ' -D HTTPD_ROOT="${folder}"\\n -D SERVER_CONFIG_FILE="conf.d/httpd.conf"\\n'`;
    writeFileSync(
      path,
      `#!/bin/sh\necho "$@" >> ${folder}/asked\n[ "$1" = -V ] && ${version}\n[ "$3" = -M ] && echo ' ${modules} (shared)'\nexit ${status}\n`,
    );
    chmodSync(path, 0o755);
    return path;
  };
  const take = (program: string, conf: string): void => {
    const options = { httpd: program, httpdConf: conf };
    takeHttpdSteps(planHttpdSteps(findPlaces('/w', undefined), false, options), options);
  };
  const LINE = 'Include /w/etc/webjob-site.conf';

  it('include the site once, at the end, and keep the owner and mode of the file', () => {
    const conf = join(folder, 'httpd.conf');
    for (const [text, expected] of [
      ['Listen 80', `Listen 80\n\n${LINE}\n`],
      ['Listen 80\n\n\n', `Listen 80\n\n${LINE}\n`],
      [`  ${LINE}\t\nListen 80\n`, `  ${LINE}\t\nListen 80\n`],
      [`#${LINE}\n`, `#${LINE}\n\n${LINE}\n`],
    ] as const) {
      writeFileSync(conf, text);
      chmodSync(conf, 0o640);
      if (isRoot) chownSync(conf, 12_345, 23_456);
      take(httpd('cgid_module'), conf);
      assert.equal(readFileSync(conf, 'utf8'), expected);
      const { mode, uid, gid } = statSync(conf);
      assert.deepEqual([mode & 0o7777, uid, gid], [0o640, isRoot ? 12_345 : uid, isRoot ? 23_456 : gid]);
      take(httpd('cgid_module'), conf);
      assert.equal(readFileSync(conf, 'utf8'), expected);
    }
    const asked = readFileSync(join(folder, 'asked'), 'utf8').split('\n').slice(0, 3);
    assert.deepEqual(asked, [`-f ${conf} -M`, `-f ${conf} -t`, `-f ${conf} -k graceful`]);
  });

  it('can be pasted in any directory, again and again', async () => {
    const program = httpd('cgid_module');
    const conf = join(folder, 'conf.d', 'httpd.conf');
    mkdirSync(join(folder, 'conf.d'));
    mkdirSync(join(folder, 'elsewhere'));
    writeFileSync(conf, 'Listen 80\n');
    const words = ['init', '--prefix', '/w', '--root', 'made', '--node', process.execPath, '--httpd', './httpd'];
    const ended = await runIn(folder, words);
    assert.equal(ended.code, 0, ended.stderr);
    const steps = ended.stdout.split('\n').filter((line) => !/^(?:made|make|kept|replaced|differs) /.test(line));
    assert.equal(steps.filter(Boolean).length, 3, steps.join('\n'));
    for (let times = 0; times < 2; times += 1) {
      const shell = spawnSync('sh', ['-ec', steps.join('\n')], { cwd: join(folder, 'elsewhere'), encoding: 'utf8' });
      assert.equal(shell.status, 0, shell.stderr);
    }
    assert.equal(readFileSync(conf, 'utf8'), `Listen 80\n${LINE}\n`);
    assert.deepEqual(readdirSync(join(folder, 'elsewhere')), []);
    assert.deepEqual(readFileSync(join(folder, 'asked'), 'utf8').split('\n').slice(-3), ['configtest', 'graceful', '']);
    const next = /next: (.*)/.exec(ended.stderr)?.[1] ?? '';
    assert.ok(next.includes(` --config ${folder}/made/w/etc/nph-webjob.cfg `), next);
    const pasted = spawnSync('sh', ['-ec', `${next} --help`], { cwd: join(folder, 'elsewhere'), encoding: 'utf8' });
    assert.match(pasted.stdout, /Usage: webjobctl client add/, pasted.stderr);
    assert.equal(program, join(folder, 'httpd'));
  });

  it('say which restart is a full one', () => {
    const full = formatHttpdStep({ run: ['apachectl', 'restart'], why: 'a full restart' });
    assert.equal(full, 'apachectl restart  # a full restart');
    const planned = steps('debian', true).filter((step) => / restart\b/.test(step));
    const enabled = ['cgid', 'ssl'].every((name) => existsSync(`/etc/apache2/mods-enabled/${name}.load`));
    assert.equal(planned.length, enabled ? 0 : 1);
    for (const step of planned)
      assert.match(step, / {2}# a full restart, because a module is new: requests in progress are cut off$/);
  });

  it('name no file where it is unknown', () => {
    const [include] = steps('/w', false, { httpd: join(folder, 'none') });
    assert.match(
      include ?? '',
      existsSync('/etc/apache2/apache2.conf')
        ? /apache2\.conf$/
        : /^# add to what httpd reads, or give --httpd-conf FILE: Include \/w/,
    );
  });

  it('end at the first that fails, and where nothing runs scripts', () => {
    const conf = join(folder, 'httpd.conf');
    writeFileSync(conf, '');
    assert.throws(() => take(httpd('cgi_module', 3), conf), /failed with 3/);
    writeFileSync(conf, '');
    for (const module of ['cgix_module', 'alias_module']) {
      assert.throws(() => take(httpd(module), conf), /no module that runs scripts/, module);
      assert.equal(readFileSync(conf, 'utf8'), '');
    }
    for (const module of ['cgi_module', 'cgid_module', 'fcgid_module', 'proxy_fcgi_module']) take(httpd(module), conf);
    assert.throws(() => take(httpd('cgi_module'), join(folder, 'none')), /none cannot be changed: ENOENT/);
  });
});
