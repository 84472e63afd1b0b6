// A stock Debian with the package apache2, in its own namespaces: /etc, /usr and /var are overlays,
// so whatever is installed, configured and served there leaves the machine as it is, and its ports
// are private.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { obtainHtpasswd, obtainHttpd } from '../../scripts/httpd-package.ts';
import { noteGroup } from '../../scripts/test-leftovers.ts';

const project = join(import.meta.dirname, '..', '..');
const CACHE = join(project, '.cache', 'debian');
const PROGRAMS = ['webjobctl', 'nph-webjob.cgi', 'nph-webjob-resident.cjs', 'webjob', 'package.json'];
const TIME_LIMIT_MS = 60_000;

/**
 * What the package's scripts do during installation. Debian's httpd runs as www-data, and its
 * apachectl starts it when systemd does not.
 */
const SET_UP = `
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$WORK"
for name in etc usr var; do
  mkdir -p "$WORK/$name/upper" "$WORK/$name/work"
  mount -t overlay -o "lowerdir=/$name,upperdir=$WORK/$name/upper,workdir=$WORK/$name/work" overlay "/$name"
done
mount -t tmpfs tmpfs /run
ip link set lo up
rm -rf /etc/apache2
for package in "$CACHE"/apache2_*.deb "$CACHE"/apache2-data_*.deb; do
  dpkg --fsys-tarfile "$package" | tar -x -C / --no-same-owner --keep-directory-symlink
done
cd /etc/apache2
mkdir -p mods-enabled conf-enabled sites-enabled /var/log/apache2 /var/www/html /run/apache2 /run/lock /usr/lib/cgi-bin
for name in access_compat alias auth_basic authn_core authn_file authz_core authz_host authz_user autoindex deflate dir env \
  filter mime mpm_event negotiation reqtimeout setenvif status; do a2enmod -q "$name"; done
for name in charset localized-error-pages other-vhosts-access-log security serve-cgi-bin; do a2enconf -q "$name"; done
a2ensite -q 000-default
mkdir -p /usr/lib/webjob-programs
cp "$NODE" /usr/lib/webjob-programs/node
mkdir /usr/lib/webjob-files
for file in $FILES; do cp "$file" /usr/lib/webjob-files/; done
for name in ${PROGRAMS.join(' ')}; do cp "$DIST/$name" /usr/lib/webjob-programs/; done
chmod -R go+rX /usr/lib/webjob-programs
cat > /usr/local/bin/webjobctl <<'END'
#!/bin/sh
exec /usr/lib/webjob-programs/node /usr/lib/webjob-programs/webjobctl "$@"
END
chmod 755 /usr/local/bin/webjobctl
cd /
mount -t tmpfs tmpfs /root
mount -t tmpfs -o mode=1777 tmpfs /tmp
echo ready
exec cat
`;

export interface Debian {
  /** Runs shell commands as root there; never throws. */
  run(script: string): { code: number | null; stdout: string; stderr: string };
  /** Runs shell commands as root there; throws Error unless they succeed. Returns stdout. */
  must(script: string): string;
  /** The status of a request with curl, 0 when there was no answer. */
  status(...words: string[]): number;
  close(): Promise<void>;
}

/** Why it is not possible here, or false. */
export function findObstacle(): string | false {
  if (process.getuid?.() !== 0) return 'a Debian in namespaces needs root';
  const tried = spawnSync('unshare', ['-mnp', '--fork', '--mount-proc', 'mount', '-t', 'tmpfs', 'tmpfs', '/run']);
  if (tried.status !== 0) return 'no namespaces on this machine';
  return obtainPackages() ? false : 'the package apache2 cannot be had';
}

function obtainPackages(): boolean {
  obtainHttpd();
  obtainHtpasswd();
  mkdirSync(CACHE, { recursive: true });
  const isThere = (): boolean =>
    ['apache2_', 'apache2-data_'].every((start) => readdirSync(CACHE).some((name) => name.startsWith(start)));
  if (!isThere()) spawnSync('apt-get', ['download', '-q', 'apache2', 'apache2-data'], { cwd: CACHE });
  return isThere();
}

/** `files` are copied to /usr/lib/webjob-files, because the checkout need not be visible there. */
export async function openDebian(files: readonly string[] = []): Promise<Debian> {
  const work = mkdtempSync('/tmp/webjob-debian-');
  const holder = spawn('unshare', ['-mnp', '--fork', '--mount-proc', '--kill-child', 'sh', '-c', SET_UP], {
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
    env: {
      ...process.env,
      WORK: work,
      CACHE,
      NODE: process.execPath,
      DIST: join(project, 'dist'),
      LC_ALL: 'C',
      FILES: files.join(' '),
    },
  });
  noteGroup(holder.pid);
  await waitForReady(holder);
  const inner = readFileSync(`/proc/${holder.pid}/task/${holder.pid}/children`, 'utf8').trim();
  const run: Debian['run'] = (script) => {
    const { status, stdout, stderr } = spawnSync('nsenter', ['-t', inner, '-m', '-n', '-p', 'sh', '-c', script], {
      encoding: 'utf8',
      cwd: '/',
      timeout: TIME_LIMIT_MS,
      env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root', LC_ALL: 'C' },
    });
    return { code: status, stdout, stderr };
  };
  return {
    run,
    must(script) {
      const { code, stdout, stderr } = run(script);
      if (code !== 0) throw new Error(`${script}: ${code}: ${stdout}${stderr}`);
      return stdout;
    },
    status(...words) {
      const quoted = words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
      return Number(run(`curl -sk --max-time 20 -o /dev/null -w '%{http_code}' ${quoted}`).stdout);
    },
    async close() {
      const ended = new Promise((resolve) => holder.on('close', resolve));
      holder.stdin?.end();
      await ended;
      spawnSync('rmdir', [work]);
    },
  };
}

function waitForReady(holder: ChildProcess): Promise<void> {
  let said = '';
  return new Promise((resolve, reject) => {
    holder.stderr?.on('data', (chunk: Buffer) => {
      said += chunk;
    });
    holder.stdout?.on('data', (chunk: Buffer) => {
      if (String(chunk).includes('ready')) resolve();
    });
    holder.on('close', () => reject(new Error(`no Debian: ${said}`)));
  });
}
