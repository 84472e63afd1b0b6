// webjobctl init with real files and a real httpd: it makes what the installation guides make by
// hand, the site serves a job, and existing files are never lost.
import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { obtainHttpd } from '../../scripts/httpd-package.ts';
import { findWebUser } from '../../scripts/web-user.ts';
import { makeClient } from '../support/client-job.ts';
import { isRoot, readGuide, runCommands, stageCheckout, webUser, write } from '../support/deployment-guide.ts';
import { type Apache, formatBasics, startApache } from '../support/deployment-httpd.ts';
import { type Ground, makeGround, parseLines, runWebjobctl } from '../support/operator.ts';

const MODULES = 'mpm_event cgid alias env auth_basic authn_core authn_file authz_core authz_user reqtimeout';
const needsRoot = { skip: !isRoot && 'owners need root' };

let ground: Ground;
before(() => {
  ground = makeGround();
});
after(() => ground.remove());

/** Every file and directory below a path: mode, owner, group, and the text of files. */
function readTree(root: string, omit: (path: string) => boolean = () => false): Record<string, string> {
  const names = readdirSync(root, { recursive: true }).map(String).sort();
  return Object.fromEntries(
    names
      .filter((name) => !omit(name))
      .map((name) => {
        const { mode, uid, gid } = lstatSync(join(root, name));
        const isFile = lstatSync(join(root, name)).isFile();
        const text = isFile ? readFileSync(join(root, name), 'utf8') : '';
        return [name, `${(mode & 0o7777).toString(8)} ${uid} ${gid} ${text}`];
      }),
  );
}

describe('webjobctl init with each layout', () => {
  const GUIDES = {
    article: {
      file: 'apache/README.md',
      paths: ['/usr/local/apache', '/var/integrity', '/etc/logrotate.d'],
      parts: ['2. ', '3. ', '4. ', '5. '],
    },
    debian: {
      file: 'apache/debian/README.md',
      paths: ['/etc/apache2', '/etc/webjob', '/etc/logrotate.d', '/usr/lib/cgi-bin', '/var/lib/webjob'],
      parts: ['1. ', '2. ', '3. '],
    },
  } as const;

  for (const [layout, { file, paths, parts }] of Object.entries(GUIDES)) {
    it(`makes for ${layout} what ${file} makes by hand`, needsRoot, async () => {
      const byHand = join(ground.root, `${layout}-hand`);
      const byInit = join(ground.root, `${layout}-init`);
      for (const folder of ['var/lib', 'etc/apache2/conf-available', 'usr/local/apache/conf']) {
        mkdirSync(join(byHand, folder), { recursive: true });
        if (layout === 'debian' || folder === 'var/lib') mkdirSync(join(byInit, folder), { recursive: true });
      }
      const guide = readGuide(file, byHand, [...paths]);
      const commands = parts
        .flatMap((part) => guide.blocks('sh', part))
        .map((block) => block.replace(/^WEB_USER=.*$/m, `WEB_USER=${webUser}`).replace(/^apachectl .*$/gm, ''));
      // The paths in the texts stay those of the guide.
      const checkout = stageCheckout(byHand, []);
      const run = { checkout, serverRoot: byHand, configurationFile: '' };
      runCommands(
        commands.map((block) =>
          block
            .replaceAll(`|${byHand}/`, '|/')
            .replaceAll(`=${byHand}/`, '=/')
            .replaceAll(`AuthUserFile ${byHand}/`, 'AuthUserFile /'),
        ),
        run,
      );
      rmSync(checkout, { recursive: true });
      await ground.run(0, 'init', '--prefix', layout, '--root', byInit, '--node', ground.node);
      // The guides do not copy man pages by hand, because they are not needed to serve a site.
      const differs = (name: string): boolean =>
        /custody|\/config$|\/config\/nph-webjob$|webjob-site\.conf|^usr\/local\/share|^etc\/fish|^(?:usr|var|etc)(?:\/(?:local|lib|apache2|apache2\/conf-available|local\/apache\/conf|local\/apache))?$/.test(
          name,
        );
      const [hand, init] = [byHand, byInit].map((root) => readTree(root, differs));
      assert.ok(hand && init);
      for (const [name, found] of Object.entries(init)) {
        // The guide's has a password, and `env node`.
        const strip = (text = ''): string =>
          text.replace(/^(\S+ \S+ \S+ )(?:client1:.*\n|#!.*\n)/, '$1').replace(/[ ]#!.*\n/, ' ');
        assert.equal(strip(found), strip(hand[name]), name);
      }
      assert.deepEqual(Object.keys(init), Object.keys(hand));
      const script = join(
        byInit,
        layout === 'debian' ? 'usr/lib/cgi-bin/webjob' : 'usr/local/apache/webjob',
        'nph-webjob.cgi',
      );
      assert.equal(readFileSync(script, 'utf8').split('\n')[0], `#!${ground.node}`);
    });
  }

  it('shows everything with --dry-run, and makes nothing', async () => {
    const prefix = join(ground.root, 'dry');
    const shown = parseLines(
      await ground.run(0, 'init', '--prefix', prefix, '--node', ground.node, '--tls', '--dry-run', '--json'),
    );
    assert.equal(existsSync(prefix), false);
    await ground.run(0, 'init', '--prefix', prefix, '--node', ground.node, '--tls');
    const made = ['', ...readdirSync(prefix, { recursive: true })].map((name) => join(prefix, String(name)));
    const announced = shown.flatMap(({ path }) => (path === undefined ? [] : [String(path)]));
    assert.deepEqual([...announced, prefix].sort(), made.map((path) => path.replace(/\/$/, '')).sort());
    assert.deepEqual(shown.at(-1), { run: ['apachectl', 'graceful'] });
  });

  it('keeps the private key to itself', () => {
    assert.equal(lstatSync(join(ground.root, 'dry/etc/webjob-server.key')).mode & 0o777, 0o600);
  });
});

describe('webjobctl init on an existing site', () => {
  const init = (code: number, ...more: string[]): Promise<string> =>
    ground.run(code, 'init', '--prefix', join(ground.root, 'again'), '--node', ground.node, ...more);
  const place = (name: string): string => join(ground.root, 'again', name);
  before(() => init(0));

  it('keeps files that are the same, and users and logs', async () => {
    writeFileSync(place('etc/webjob.htpasswd'), 'client1:x\n');
    writeFileSync(place('integrity/logfiles/nph-webjob.log'), 'a line\n');
    const earlier = readTree(place(''));
    const states = parseLines(await init(0, '--json')).flatMap(({ state }) => state ?? []);
    assert.deepEqual([...new Set(states)], ['kept']);
    assert.deepEqual(readTree(place('')), earlier);
  });

  it('changes nothing when a file differs', async () => {
    writeFileSync(place('etc/nph-webjob.cfg'), 'BaseDirectory=/mine\n');
    chmodSync(place('integrity/incoming'), 0o777);
    rmSync(place('webjob/.htaccess'));
    symlinkSync('/etc/passwd', place('webjob/.htaccess'));
    rmSync(place('etc/webjob.conf'));
    const earlier = readTree(place(''));
    const { code, stderr } = await runWebjobctl(['init', '--prefix', place(''), '--node', ground.node]);
    assert.equal(code, 4);
    for (const [name, why] of [
      ['etc/nph-webjob.cfg', 'content'],
      ['integrity/incoming', 'mode'],
      ['webjob/.htaccess', 'kind'],
    ] as const)
      assert.ok(stderr.includes(`${place(name)} (${why})`), stderr);
    assert.match(stderr, /hint: --force/);
    assert.deepEqual(readTree(place('')), earlier);
    await init(1, '--dry-run');
  });

  it('replaces a differing file with --force, keeps the old one, and follows no link', async () => {
    const passwd = readFileSync('/etc/passwd', 'utf8');
    // The unfinished files of a killed run.
    rmSync(place('integrity/profiles'), { recursive: true });
    mkdirSync(place('integrity/.profiles.new'), 0o700);
    const settings = /warning: --force would remove these settings from \S+: BaseDirectory=\/mine\n/;
    const dryRun = ['init', '--prefix', place(''), '--node', ground.node, '--force', '--dry-run'];
    assert.match((await runWebjobctl(dryRun)).stderr, settings);
    const replaced = parseLines(await init(0, '--force', '--json')).filter(({ state }) => state === 'replaced');
    assert.equal(replaced.length, 3);
    const backup = replaced.find(({ path }) => path === place('etc/nph-webjob.cfg'))?.backup;
    assert.equal(readFileSync(String(backup), 'utf8'), 'BaseDirectory=/mine\n');
    // Old versions are moved out of what httpd serves.
    const link = String(replaced.find(({ path }) => path === place('webjob/.htaccess'))?.backup);
    assert.deepEqual([dirname(link), readlinkSync(link)], [place('etc/replaced'), '/etc/passwd']);
    assert.equal(lstatSync(place('etc/replaced')).mode & 0o777, 0o700);
    assert.deepEqual(readdirSync(place('webjob')).sort(), ['.htaccess', 'nph-webjob.cgi']);
    assert.equal(lstatSync(place('integrity/incoming')).mode & 0o777, 0o755);
    assert.deepEqual(
      ['profiles', '.profiles.new'].map((name) => existsSync(place(`integrity/${name}`))),
      [true, false],
    );
    assert.match(readFileSync(place('webjob/.htaccess'), 'utf8'), /^AuthUserFile /m);
    assert.equal(readFileSync('/etc/passwd', 'utf8'), passwd);
    await init(0);
  });
});

describe('webjobctl init with wrong arguments', () => {
  const refused = async (code: number, why: RegExp, ...args: string[]): Promise<void> => {
    const ended = await runWebjobctl(['init', '--prefix', join(ground.root, 'refused'), ...args]);
    assert.match(ended.stderr, why);
    assert.deepEqual([ended.code, ended.stdout], [code, '']);
    assert.equal(existsSync(join(ground.root, 'refused')), false);
  };

  it('names the wrong option', async () => {
    await refused(2, /--server-id <SERVER>' argument 'a b' is invalid/, '--server-id', 'a b');
    await refused(2, /--base <DIRECTORY>' argument 'a\nb' is invalid/, '--base', 'a\nb');
    await refused(2, /--server-name <NAME>' .* invalid/, '--tls', '--server-name', 'a/CN=b');
    await refused(2, /--tls-port <PORT>' .* invalid/, '--tls-port', '65536');
    await refused(2, /--certificates requires --tls/, '--certificates');
    await refused(2, /--apply requires the file/, '--apply');
    await refused(4, /--cgi: there is no \/nowhere/, '--cgi', '/nowhere');
    await refused(4, /--cgi: \/tmp is not a regular file/, '--cgi', '/tmp');
    await refused(4, /no Node for the script: \/bin\/sh is not Node[\s\S]*--node FILE/, '--node', '/bin/sh');
  });

  it('refuses a Node that the web user cannot start', needsRoot, async () => {
    const closed = join(ground.root, 'closed');
    mkdirSync(closed, { mode: 0o700 });
    symlinkSync(closed, join(ground.root, 'open'));
    writeFileSync(join(closed, 'node'), '#!/bin/sh\necho v24.0.0\n', { mode: 0o755 });
    await refused(4, new RegExp(`${webUser} may not execute \\S+node`), '--node', join(ground.root, 'open/node'));
    await refused(4, /there is no user nobody-of-that-name/, '--web-user', 'nobody-of-that-name');
  });

  it('requires root for the layouts of the system', needsRoot, async () => {
    const user = findWebUser();
    assert.ok(user);
    const program = join(ground.root, 'webjobctl');
    for (const name of ['webjobctl', 'nph-webjob.cgi', 'package.json'])
      writeFileSync(join(ground.root, name), readFileSync(join(import.meta.dirname, '..', '..', 'dist', name)));
    const { code, stderr } = await runWebjobctl(['init', '--prefix', 'debian'], { user, program, cwd: '/' });
    assert.equal(code, 4);
    assert.match(stderr, /init --prefix debian requires root/);
  });

  it('names the place where it looked for the script', async () => {
    const folder = join(ground.root, 'alone');
    mkdirSync(folder);
    write(join(folder, 'webjobctl'), readFileSync(join(import.meta.dirname, '..', '..', 'dist/webjobctl'), 'utf8'));
    write(join(folder, 'package.json'), '{"type":"commonjs"}');
    const { code, stderr } = await runWebjobctl(['init', '--dry-run'], { program: join(folder, 'webjobctl') });
    assert.equal(code, 4);
    assert.ok(stderr.includes(`nph-webjob.cgi is not beside webjobctl in ${folder}`), stderr);
  });
});

describe('webjobctl init --apply', () => {
  const httpdRoot = (): string => join(ground.root, 'httpd');
  const configuration = (): string => join(httpdRoot(), 'httpd.conf');
  let httpd: Apache | undefined;
  after(() => httpd?.stop());

  it('makes a site that serves a job through the real client', async () => {
    mkdirSync(httpdRoot());
    httpd = await startApache({
      serverRoot: httpdRoot(),
      configurationFile: configuration(),
      errorLog: join(httpdRoot(), 'error.log'),
      portCount: 1,
      configure: (ports) =>
        write(configuration(), `ServerRoot "${httpdRoot()}"\n${formatBasics(httpdRoot(), ports, MODULES)}`),
    });
    const prefix = join(ground.root, 'served');
    const args = ['init', '--prefix', prefix, '--node', ground.node, '--server-id', 'east'];
    const apply = ['--apply', '--httpd', obtainHttpd().binary, '--httpd-conf', configuration()];
    await ground.run(0, ...args, ...apply);
    // After another run, there is still one Include.
    await ground.run(0, ...args, ...apply);
    assert.equal(readFileSync(configuration(), 'utf8').match(/^Include /gm)?.length, 1);
    write(join(prefix, 'integrity/profiles/client1/commands/host.sh'), '#!/bin/sh\nhostname\n');
    writeFileSync(join(prefix, 'etc/webjob.htpasswd'), 'client1:{SHA}C+7Hteo/D9vJXQ3UfzxbwnXaijM=\n');
    const url = `http://127.0.0.1:${httpd.ports[0]}/webjob/nph-webjob.cgi`;
    const user = { URLUsername: 'client1', URLPassword: 'foo', URLAuthType: 'basic' };
    // A graceful restart takes effect a moment after the command.
    const client = makeClient({ URLGetURL: url, URLPutURL: url, ...user, RetryLimit: '9', RetryDelay: '1' });
    try {
      let ended = await client.execute(['host.sh']);
      for (let i = 0; ended.code !== 0 && i < 20; i++) ended = await client.execute(['host.sh']);
      assert.deepEqual({ code: ended.code, stderr: ended.stderr }, { code: 0, stderr: '' });
    } finally {
      client.remove();
    }
    const log = readFileSync(join(prefix, 'integrity/logfiles/nph-webjob.log'), 'utf8');
    assert.match(log, / east_\d+_\d+ client1 127\.0\.0\.1 PUT client1 host\.sh .* 200 -- Success\n$/);
    assert.equal(readdirSync(join(prefix, 'integrity/incoming')).length, 4);
  });

  it('includes nothing where httpd has no module that runs scripts', async () => {
    const bare = join(ground.root, 'bare.conf');
    const text = readFileSync(configuration(), 'utf8').replace(/^(?:LoadModule cgid_|ScriptSock|Include ).*\n/gm, '');
    writeFileSync(bare, text, { mode: 0o640 });
    const apply = ['--apply', '--httpd', obtainHttpd().binary, '--httpd-conf', bare];
    const init = ['init', '--prefix', join(ground.root, 'unserved'), '--node', ground.node];
    const { code, stderr } = await runWebjobctl([...init, ...apply]);
    assert.equal(code, 4, stderr);
    assert.match(stderr, /no module that runs scripts\n.*LoadModule cgid_module/);
    assert.equal(readFileSync(bare, 'utf8'), text);
  });

  it('changes the target of a linked configuration, and keeps its mode', async () => {
    const link = join(ground.root, 'linked.conf');
    symlinkSync(configuration(), link);
    chmodSync(configuration(), 0o640);
    const apply = ['--apply', '--httpd', obtainHttpd().binary, '--httpd-conf', link];
    await ground.run(0, 'init', '--prefix', join(ground.root, 'linked'), '--node', ground.node, ...apply);
    assert.ok(lstatSync(link).isSymbolicLink());
    assert.equal(lstatSync(configuration()).mode & 0o777, 0o640);
    assert.match(readFileSync(configuration(), 'utf8'), /^Include .*linked\/etc\/webjob-site\.conf$/m);
  });

  it('stops when httpd refuses its configuration', async () => {
    writeFileSync(configuration(), `${readFileSync(configuration(), 'utf8')}\nNoSuchDirective\n`);
    const apply = ['--apply', '--httpd', obtainHttpd().binary, '--httpd-conf', configuration()];
    const { code, stderr } = await runWebjobctl([
      'init',
      '--prefix',
      join(ground.root, 'other'),
      '--node',
      ground.node,
      ...apply,
    ]);
    assert.equal(code, 4);
    assert.match(stderr, /Invalid command 'NoSuchDirective'[\s\S]*failed with 1/);
    // The hint has the remaining steps, of which none was taken.
    const [said = '', hint = ''] = stderr.split('webjobctl: hint: correct that, then: ');
    assert.doesNotMatch(said, /graceful/);
    assert.match(hint, / -t && \S+ -f \S+ -k graceful\n$/);
  });
});
