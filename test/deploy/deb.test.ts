// The Debian package on a stock Debian with Apache: installed, configured, upgraded, removed and
// purged by dpkg, and evidence survives all of it.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, chmodSync, copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { buildDeb } from '../../scripts/deb.ts';
import { type Folder, makeFolder } from '../support/cgi-scripts.ts';
import { type Debian, findObstacle, openDebian } from '../support/debian-namespace.ts';

const HAS_DPKG = spawnSync('dpkg-deb', ['--version']).status === 0;
const needsDpkg = { skip: !HAS_DPKG && 'dpkg-deb is missing' };
const NO_DEBIAN = HAS_DPKG ? findObstacle() : 'dpkg-deb is missing';

const sha256 = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex');

/** The package of an earlier version, which its script reports. */
function buildEarlier(current: string, folder: Folder): string {
  const tree = join(folder.path, 'earlier');
  execFileSync('dpkg-deb', ['-R', current, tree]);
  const control = readFileSync(join(tree, 'DEBIAN/control'), 'utf8');
  writeFileSync(join(tree, 'DEBIAN/control'), control.replace(/^Version: .*/m, 'Version: 0.1.0~earlier'));
  appendFileSync(join(tree, 'usr/lib/webjob/nph-webjob.cgi'), '// the earlier script\n');
  // Conffiles that differ between two releases: dpkg replaces those that nobody edited.
  for (const name of ['webjob-fcgid.conf', 'webjob-view.conf'])
    appendFileSync(join(tree, 'etc/webjob', name), '# earlier\n');
  const file = join(folder.path, 'webjob_0.1.0~earlier_all.deb');
  execFileSync('dpkg-deb', ['--root-owner-group', '-Znone', '-b', tree, file], { stdio: 'ignore' });
  return file;
}

/** Node as a package, because Debian's own is older than webjobctl requires. */
function buildNode(folder: Folder): string {
  const tree = join(folder.path, 'nodejs');
  mkdirSync(join(tree, 'usr/bin'), { recursive: true });
  mkdirSync(join(tree, 'DEBIAN'));
  copyFileSync(process.execPath, join(tree, 'usr/bin/node'));
  chmodSync(join(tree, 'usr/bin/node'), 0o755);
  const architecture = execFileSync('dpkg', ['--print-architecture']).toString().trim();
  writeFileSync(
    join(tree, 'DEBIAN/control'),
    `Package: nodejs\nVersion: ${process.versions.node}-1\nArchitecture: ${architecture}\nMaintainer: a test\nDescription: Node\n`,
  );
  const file = join(folder.path, 'nodejs.deb');
  execFileSync('dpkg-deb', ['--root-owner-group', '-Znone', '-b', tree, file], { stdio: 'ignore' });
  return file;
}

describe('npm run build:deb', needsDpkg, () => {
  let folder: Folder;
  let file: string;
  before(() => {
    folder = makeFolder();
    file = buildDeb(folder.path);
  });
  after(() => folder.remove());

  it('builds the same bytes again', () => {
    const first = sha256(file);
    rmSync(file);
    assert.equal(sha256(buildDeb(folder.path)), first);
  });

  it('builds a package that lintian accepts', {
    skip: spawnSync('lintian', ['--version']).error && 'lintian is missing',
  }, () => {
    const { status, stdout, stderr } = spawnSync('lintian', ['--fail-on', 'error,warning', file], { encoding: 'utf8' });
    assert.equal(status, 0, stdout + stderr);
  });

  it('declares every file below /etc as a configuration file', () => {
    const list = execFileSync('dpkg-deb', ['-c', file]).toString();
    const below = [...list.matchAll(/^-\S+ .* \.(\/etc\/\S+)$/gm)].map(([, path]) => path);
    const conffiles = execFileSync('dpkg-deb', ['-I', file, 'conffiles']).toString().trim().split('\n');
    assert.ok(below.includes('/etc/apache2/conf-available/webjob.conf'), list);
    assert.deepEqual(conffiles.sort(), below.sort());
  });
});

describe('the Debian package', { skip: NO_DEBIAN, timeout: 900_000 }, () => {
  const CONTROL = 'export WEBJOB_PROPERTIES_FILE=/etc/webjob/nph-webjob.cfg';
  const SCRIPT = '/usr/lib/cgi-bin/webjob/nph-webjob.cgi';
  const url = 'https://localhost/webjob/nph-webjob.cgi';
  let folder: Folder;
  let debian: Debian;
  let packages: { node: string; earlier: string; current: string };

  before(async () => {
    folder = makeFolder();
    const current = buildDeb(folder.path);
    const files = [buildNode(folder), buildEarlier(current, folder), current];
    const [node = '', earlier = '', newest = ''] = files.map((file) => `/usr/lib/webjob-files/${basename(file)}`);
    packages = { node, earlier, current: newest };
    debian = await openDebian(files);
    debian.must('rm /usr/local/bin/webjobctl');
    install(packages.node);
  });
  after(async () => {
    await debian?.close();
    folder?.remove();
  });

  function install(file: string): string {
    return debian.must(`DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i ${file} 2>&1`);
  }

  /** Runs a job, and returns the state and status of all jobs, newest first. */
  function runJob(): string[] {
    debian.must('cd /root && webjob --execute --file client1/webjob.conf host.sh');
    const lines = debian.must(`${CONTROL}; webjobctl jobs --columns state,status`).trim().split('\n').slice(1);
    return lines.map((line) => line.replace(/ +/g, ' ').trim());
  }

  /** Every file of the locker except webjobctl's own files. */
  function evidence(): string {
    return debian.must(
      "cd /var/lib/webjob && find incoming profiles logfiles -type f -exec sha256sum '{}' + | sort -k 2",
    );
  }

  it('installs its programs and serves nothing', () => {
    install(packages.earlier);
    debian.must('apachectl start 2>&1; sleep 1');
    for (const path of ['/webjob/nph-webjob.cgi', '/cgi-bin/webjob/nph-webjob.cgi'])
      assert.equal(debian.status(`http://localhost${path}`), 404, path);
    for (const program of ['webjob', 'webjobctl', 'webjob-sign', 'pad-make-script'])
      assert.match(debian.must(`${program} --version 2>&1`), /\d+\.\d+\.\d+/, program);
    assert.match(debian.must('gzip -dc /usr/share/man/man8/webjobctl.8.gz'), /^\.Dt WEBJOBCTL 8$/m);
    assert.equal(debian.must('getent passwd webjob-view | cut -d : -f 7').trim(), '/usr/sbin/nologin');
  });

  it('contains the files that webjobctl init would make, where a site has none of its own', () => {
    const plan = debian.must('webjobctl --json init --prefix debian --dry-run');
    const steps = plan
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const kept = steps.filter(({ state }) => state === 'keep').map(({ path }) => path);
    for (const path of [
      '/etc/apache2/conf-available/webjob.conf',
      '/etc/logrotate.d/webjob',
      '/etc/webjob/webjob.conf',
    ])
      assert.ok(kept.includes(path), `${path}: ${plan}`);
    assert.ok(!plan.includes('/usr/local/share'), 'the package has the man pages');
  });

  it('is configured by webjobctl init, which links to its script', () => {
    const made = debian.must(`webjobctl init --prefix debian --tls --server-name localhost --apply 2>&1
webjobctl -c /etc/webjob/nph-webjob.cfg client add client1 --generate --url https://localhost --out /root/client1
printf '#!/bin/sh\nhostname\n' > /var/lib/webjob/profiles/client1/commands/host.sh`);
    assert.equal(debian.must(`readlink ${SCRIPT}`).trim(), '/usr/lib/webjob/nph-webjob.cgi', made);
    assert.match(made, new RegExp(`^made +link root:root +${SCRIPT} -> /usr/lib/webjob/nph-webjob\\.cgi$`, 'm'));
    assert.match(made, /^made +0640 root:www-data +\/etc\/webjob\/webjob\.htpasswd$/m);
    assert.equal(debian.status(url), 401);
    assert.deepEqual(runJob(), ['done 200']);
    assert.match(debian.must('find /var/cache/webjob -type f'), /^\/var\/cache\/webjob\/v\S+$/m, 'compiled code');
  });

  it('adds the view to the site, and serves it only over TLS', () => {
    debian.must(`webjobctl init --prefix debian --tls --server-name localhost --view --apply --force 2>&1
htpasswd -bB /etc/webjob/webjob-view.htpasswd alice secret 2>&1`);
    // Copies there would hide the units of the package, and those of its upgrades.
    assert.equal(debian.must('find /etc/systemd/system -name "webjob*"'), '');
    debian.must('test -e /usr/lib/systemd/system/webjob-view.socket');
    const elsewhere = debian.must('webjobctl init --prefix debian --base /srv/w --view --tls --dry-run --force 2>&1');
    assert.match(elsewhere, / \/etc\/systemd\/system\/webjob-view\.service$/m);
    const ask = (address: string): number => debian.status('-u', 'alice:secret', address);
    assert.equal(ask('http://localhost/webjob-view/'), 404);
    assert.equal(ask('http://localhost/cgi-bin/webjob-view/webjob-view.cgi'), 403);
    assert.equal(debian.status('https://localhost/webjob-view/'), 401);
    // There is no systemd here that would listen at the socket.
    assert.equal(ask('https://localhost/webjob-view/'), 503);
    assert.deepEqual(runJob(), ['done 200', 'done 200']);
  });

  it('gets a new script and keeps edited settings on upgrade', () => {
    debian.must(`echo '# mine' >> /etc/webjob/webjob-view.conf; echo '# mine' >> /etc/webjob/nph-webjob.cfg`);
    assert.match(debian.must(`tail -1 ${SCRIPT}`), /the earlier script/);
    const before = evidence();
    // Nothing here lets it reload httpd, and it says so.
    assert.match(install(packages.current), /^invoke-rc\.d: /m);
    assert.doesNotMatch(debian.must(`tail -1 ${SCRIPT}`), /the earlier script/);
    assert.equal(evidence(), before);
    const ends = debian.must('tail -qn 1 /etc/webjob/webjob-view.conf /etc/webjob/nph-webjob.cfg');
    assert.equal(ends, '# mine\n# mine\n');
    assert.doesNotMatch(debian.must('cat /etc/webjob/webjob-fcgid.conf'), /# earlier/);
    assert.deepEqual(runJob(), ['done 200', 'done 200', 'done 200']);
    debian.must(`${CONTROL}; webjobctl verify`);
  });

  it('is no longer served after removal, which leaves settings and evidence', () => {
    const before = evidence();
    debian.must('DEBIAN_FRONTEND=noninteractive dpkg -r webjob 2>&1; sleep 1');
    assert.equal(debian.must('ls /etc/apache2/conf-enabled').includes('webjob'), false);
    debian.must('test ! -e /var/cache/webjob');
    // There is no systemd here that would reload httpd.
    debian.must('apachectl graceful 2>&1; sleep 2');
    assert.equal(debian.status('http://localhost/webjob/nph-webjob.cgi'), 404);
    assert.notEqual(debian.status('http://localhost/cgi-bin/webjob/nph-webjob.cgi'), 200);
    assert.equal(evidence(), before);
    debian.must('test -s /etc/webjob/webjob.htpasswd && test -s /etc/webjob/nph-webjob.cfg');
  });

  it('can be installed again, and the site continues', () => {
    install(packages.current);
    assert.ok(debian.must('ls /etc/apache2/conf-enabled').includes('webjob.conf'));
    debian.must('apachectl graceful 2>&1; sleep 2');
    assert.deepEqual(runJob(), ['done 200', 'done 200', 'done 200', 'done 200']);
  });

  it('removes settings and passwords when purged, and leaves evidence and its keys', () => {
    const before = evidence();
    debian.must('echo key > /etc/webjob/webjob-ca.key');
    const { code, stdout, stderr } = debian.run('DEBIAN_FRONTEND=noninteractive dpkg -P webjob');
    assert.equal(code, 0, stderr);
    assert.match(stdout + stderr, /evidence in \/var\/lib\/webjob is kept/);
    assert.match(stdout + stderr, /\/etc\/webjob is kept; it has keys/);
    assert.equal(evidence(), before);
    const left = debian.must("cd /etc/webjob && find . -type f -not -name '*.bak' | sort").trim().split('\n');
    assert.deepEqual(left, ['./webjob-ca.key', './webjob-result-keys/client1']);
    debian.must('test ! -e /var/lib/apache2/conf/disabled_by_maint/webjob');
    debian.must('test -z "$(ls -A /usr/lib/cgi-bin)" && test ! -e /etc/systemd/system/webjob-view.service');
    debian.must('test ! -e /usr/lib/webjob && test ! -e /usr/bin/webjob');
  });
});
