// apache/README.md and apache/debian/README.md as an administrator follows them: their commands,
// their lines of httpd.conf, and at the end their example through the real client.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  fillClientConf,
  findProgram,
  isRoot,
  type Run,
  readGuide,
  runCommands,
  stageCheckout,
  webUser,
  write,
} from '../support/deployment-guide.ts';
import { type Apache, formatBasics, formatModules, makeRoot, startApache } from '../support/deployment-httpd.ts';
import { ask, getHead } from '../support/deployment-wire.ts';

const MODULES = 'mpm_event cgid alias env auth_basic authn_core authn_file authz_core authz_user reqtimeout';
const needsRoot = { skip: !isRoot && 'chown needs root' };

/** Two more lines in the log and four files, as both pages promise, and the upload is recorded. */
function checkPromise(base: string): void {
  const lines = readFileSync(join(base, 'logfiles/nph-webjob.log'), 'utf8').trimEnd().split('\n').slice(-2);
  assert.deepEqual(
    lines.map((line) => line.replace(/^.* client1 127\.0\.0\.1 ([A-Z]+) .* (\d+ -- .*)$/, '$1 $2')),
    ['GET 200 -- Success', 'PUT 200 -- Success'],
  );
  assert.match(readFileSync(join(base, 'logfiles/nph-webjob-custody.server_1.jsonl'), 'utf8'), /"event":"deposit"/);
  const extensions = readdirSync(join(base, 'incoming')).map((name) => name.slice(-4));
  assert.deepEqual(extensions.sort(), ['.env', '.err', '.out', '.rdy']);
  const custody = readFileSync(join(base, 'logfiles/nph-webjob-custody.server_1.jsonl'), 'utf8');
  assert.match(custody, /^\{[^\n]*"event":"deposit"[^\n]*\}\n$/, 'the upload is on record');
}

function owner(path: string): string {
  return execFileSync('stat', ['-c', '%A %U %G', path], { encoding: 'utf8' }).trim();
}

/** A graceful restart takes effect a moment after the command. */
async function waitForStatus(port: number, status: number): Promise<void> {
  let seen = 0;
  for (const deadline = Date.now() + 60_000; Date.now() < deadline && seen !== status; await sleep(20)) {
    seen = (await ask(port, getHead({ headers: ['Connection: close'] }))).status;
  }
  assert.equal(seen, status);
}

describe('the commands of apache/README.md, run as printed', async () => {
  const root = makeRoot();
  const paths = ['/usr/local/apache', '/var/integrity', '/etc/logrotate.d'];
  const guide = readGuide('apache/README.md', root, paths);
  const serverRoot = join(root, 'usr/local/apache');
  const run: Run = {
    checkout: stageCheckout(root, paths),
    serverRoot,
    configurationFile: join(serverRoot, 'conf/httpd.conf'),
  };
  const configure = (ports: number[], ...lines: string[]): void =>
    write(run.configurationFile, formatBasics(join(serverRoot, 'logs'), ports, MODULES) + lines.join('\n'));
  for (const folder of [join(serverRoot, 'logs'), join(root, 'var')]) mkdirSync(folder, { recursive: true });
  const httpd = await startApache({
    serverRoot,
    configurationFile: run.configurationFile,
    errorLog: join(serverRoot, 'logs/error.log'),
    portCount: 1,
    configure,
  });
  const [port = 0] = httpd.ports;
  after(async () => {
    await httpd.stop();
    rmSync(root, { recursive: true, force: true });
  });
  const [install = '', locker = '', users = ''] = ['2. ', '3. ', '4. '].flatMap((number) => guide.blocks('sh', number));
  const [include = '', elsewhere = ''] = guide.blocks('apache', '5. ');

  it('install the script, the locker and access for clients', () => {
    runCommands([install.replace(/^WEB_USER=.*$/m, `WEB_USER=${webUser}`), locker, users], run);
    assert.match(readFileSync(join(serverRoot, 'etc/nph-webjob.cfg'), 'utf8'), /^BaseDirectory=.*\/var\/integrity$/m);
    assert.match(readFileSync(join(serverRoot, 'etc/webjob.htpasswd'), 'utf8'), /^client1:\$(?:2y|apr1)\$/);
  });

  it('give the web user uploads, the log and the custody record, and nothing else', needsRoot, () => {
    const base = join(root, 'var/integrity');
    assert.equal(owner(join(base, 'incoming')), `drwxr-xr-x ${webUser} root`);
    for (const file of ['nph-webjob.log', 'nph-webjob-custody.server_1.jsonl'])
      assert.equal(owner(join(base, 'logfiles', file)), `-rw-r--r-- ${webUser} root`);
    for (const folder of ['', 'logfiles', 'profiles']) assert.equal(owner(join(base, folder)), 'drwxr-xr-x root root');
    assert.match(owner(join(serverRoot, 'etc/webjob.htpasswd')), /^-rw-r----- root /);
    assert.equal(owner(join(serverRoot, 'webjob/nph-webjob.cgi')), '-rwxr-xr-x root root');
  });

  it('serve host.sh through the real client after the Include and one graceful restart', async () => {
    configure(httpd.ports, include);
    assert.match(runCommands(guide.blocks('sh', '5. '), run), /Syntax OK/);
    await waitForStatus(port, 404);
    fillClientConf(run.checkout, `http://127.0.0.1:${port}/webjob/nph-webjob.cgi`);
    assert.equal(runCommands(guide.blocks('sh', '6. '), run), '');
    checkPromise(join(root, 'var/integrity'));
  });

  it('use other paths from the Defines', async () => {
    const places = [...elsewhere.matchAll(/ (\/opt\S+)/g)].map(([, path = '']) => path);
    assert.equal(places.length, 2);
    const moved = elsewhere.replaceAll('/opt/', `${root}/opt/`);
    const [folder = '', file = ''] = places.map((path) => root + path);
    mkdirSync(join(folder, '..'), { recursive: true });
    symlinkSync(join(serverRoot, 'webjob'), folder);
    const missing = join(root, 'nowhere');
    write(file, `BaseDirectory=${missing}\n`);
    configure(httpd.ports, moved);
    assert.equal(httpd.control('-k', 'graceful').code, 0);
    await waitForStatus(port, 550);
  });

  it('serve nothing without the Include, and keep the locker', async () => {
    configure(httpd.ports);
    assert.equal(httpd.control('-k', 'graceful').code, 0);
    await waitForStatus(port, 403);
    assert.equal(readdirSync(join(root, 'var/integrity/incoming')).length, 4);
  });
});

/** What is enabled on a fresh Debian. */
const DEBIAN_MODULES =
  'access_compat alias auth_basic authn_core authn_file authz_core authz_host authz_user autoindex deflate dir env filter mime ' +
  'mpm_event negotiation reqtimeout setenvif status';

/**
 * /etc/apache2 below `root`: Debian's own modules if the package is installed, otherwise
 * equivalents.
 */
function makeDebianTree(root: string): string {
  const folder = join(root, 'etc/apache2');
  const installed = '/etc/apache2/mods-available';
  for (const kind of ['conf', 'mods', 'sites']) mkdirSync(join(folder, `${kind}-enabled`), { recursive: true });
  if (existsSync(join(installed, 'cgid.load'))) {
    symlinkSync(installed, join(folder, 'mods-available'));
  } else {
    for (const name of `${DEBIAN_MODULES} cgid`.split(' ')) {
      write(join(folder, `mods-available/${name}.load`), `${formatModules(name)}\n`);
    }
    write(join(folder, 'mods-available/mime.conf'), 'TypesConfig /dev/null\n');
    write(join(folder, 'mods-available/cgid.conf'), `ScriptSock \${APACHE_RUN_DIR}/socks/cgisock\n`);
  }
  write(join(folder, 'envvars'), '');
  // An equivalent of the package's conf-available/serve-cgi-bin.conf.
  write(
    join(folder, 'conf-enabled/serve-cgi-bin.conf'),
    `<IfModule mod_cgid.c>
  ScriptAlias /cgi-bin/ ${root}/usr/lib/cgi-bin/
  <Directory "${root}/usr/lib/cgi-bin">
    AllowOverride None
    Options +ExecCGI -MultiViews +SymLinksIfOwnerMatch
    Require all granted
  </Directory>
</IfModule>
`,
  );
  for (const name of DEBIAN_MODULES.split(' ')) {
    for (const extension of ['load', 'conf']) {
      const file = join(folder, `mods-available/${name}.${extension}`);
      if (existsSync(file)) symlinkSync(file, join(folder, `mods-enabled/${name}.${extension}`));
    }
  }
  return folder;
}

/** The parts of the package's apache2.conf that matter here. */
function formatDebianConfiguration(): string {
  return `
DefaultRuntimeDir \${APACHE_RUN_DIR}
PidFile \${APACHE_PID_FILE}
${isRoot ? `User \${APACHE_RUN_USER}\nGroup \${APACHE_RUN_GROUP}` : ''}
Mutex file:\${APACHE_RUN_DIR} default
ServerName 127.0.0.1
ErrorLog \${APACHE_LOG_DIR}/error.log
IncludeOptional mods-enabled/*.load
IncludeOptional mods-enabled/*.conf
Include ports.conf
<Directory />
  Options FollowSymLinks
  AllowOverride None
  Require all denied
</Directory>
AccessFileName .htaccess
<FilesMatch "^\\.ht">
  Require all denied
</FilesMatch>
IncludeOptional conf-enabled/*.conf
IncludeOptional sites-enabled/*.conf
`;
}

const a2 = findProgram('a2enconf') ? "Debian's a2enconf" : 'the links that a2enconf makes, which is not installed';

describe(`the commands of apache/debian/README.md, run as printed, with ${a2}`, async () => {
  const root = makeRoot();
  const paths = ['/etc/apache2', '/etc/webjob', '/etc/logrotate.d', '/usr/lib/cgi-bin', '/var/lib/webjob'];
  const guide = readGuide('apache/debian/README.md', root, paths);
  const serverRoot = makeDebianTree(root);
  const runDirectory = join(root, 'run');
  const environment = {
    APACHE_CONFDIR: serverRoot,
    APACHE_STATE_DIRECTORY: join(root, 'state'),
    APACHE_RUN_DIR: runDirectory,
    APACHE_PID_FILE: join(runDirectory, 'apache2.pid'),
    APACHE_LOG_DIR: join(root, 'log'),
    APACHE_RUN_USER: webUser,
    APACHE_RUN_GROUP: webUser,
    LANG: 'C',
  };
  for (const folder of ['run/socks', 'log', 'state']) mkdirSync(join(root, folder), { recursive: true });
  const run: Run = {
    checkout: stageCheckout(root, paths),
    serverRoot,
    configurationFile: join(serverRoot, 'apache2.conf'),
    environment,
  };
  const base = join(root, 'var/lib/webjob');
  mkdirSync(join(root, 'var/lib'), { recursive: true });
  mkdirSync(join(serverRoot, 'conf-available'), { recursive: true });
  write(run.configurationFile, formatDebianConfiguration());
  write(join(serverRoot, 'ports.conf'), 'Listen 127.0.0.1:1\n');
  const start = (): Promise<Apache> =>
    startApache({
      serverRoot,
      configurationFile: run.configurationFile,
      errorLog: join(root, 'log/error.log'),
      environment,
      portCount: 1,
      configure: (ports) => write(join(serverRoot, 'ports.conf'), `Listen 127.0.0.1:${ports[0]}\n`),
    });
  let httpd: Apache | undefined;
  let port = 0;
  after(async () => {
    await httpd?.stop();
    rmSync(root, { recursive: true, force: true });
  });

  it('install the site, enable it and start httpd', async () => {
    const said = runCommands(
      ['1. ', '2. ', '3. ', '4. '].flatMap((number) => guide.blocks('sh', number)),
      run,
    );
    assert.match(said, /Syntax OK/);
    assert.ok(existsSync(join(serverRoot, 'conf-enabled/webjob.conf')));
    assert.ok(existsSync(join(serverRoot, 'mods-enabled/cgid.load')));
    assert.match(said, /^systemctl restart apache2$/m);
    httpd = await start();
    [port = 0] = httpd.ports;
  });

  it('serve host.sh through the real client', () => {
    fillClientConf(run.checkout, `http://127.0.0.1:${port}/webjob/nph-webjob.cgi`);
    assert.equal(runCommands(guide.blocks('sh', '5. '), run), '');
    checkPromise(base);
  });

  it('protect /cgi-bin/ as well as /webjob/', async () => {
    const script = '/cgi-bin/webjob/nph-webjob.cgi';
    assert.equal((await ask(port, getHead({ script }))).status, 200);
    const refused = await ask(port, getHead({ script, password: 'wrong', headers: ['Connection: close'] }));
    assert.equal(refused.status, 401);
    const file = await ask(port, getHead({ script: '/cgi-bin/webjob/.htaccess', headers: ['Connection: close'] }));
    assert.equal(file.status, 403);
  });

  it('give the web user uploads, the log and the custody record, and nothing else', needsRoot, () => {
    assert.equal(owner(join(base, 'incoming')), `drwxr-xr-x ${webUser} root`);
    for (const file of ['nph-webjob.log', 'nph-webjob-custody.server_1.jsonl'])
      assert.equal(owner(join(base, 'logfiles', file)), `-rw-r--r-- ${webUser} root`);
    assert.match(owner(join(root, 'etc/webjob/webjob.htpasswd')), /^-rw-r----- root /);
  });
});
