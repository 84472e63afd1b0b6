// Finds the machine's httpd, or gets one for the tests. Never starts a service and never changes
// the machine's configuration.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { installPackages, refuseWhenFast } from './debian.ts';

export interface HttpdProgram {
  binary: string;
  modulesDirectory: string;
  /**
   * Directories of shared libraries that the binary needs and the system lacks, for
   * LD_LIBRARY_PATH.
   */
  libraryPath?: string;
}

const PLACES = [
  { binary: '/usr/sbin/apache2', modules: '/usr/lib/apache2/modules' }, // Debian
  { binary: '/usr/sbin/httpd', modules: '/usr/lib64/httpd/modules' }, // Red Hat
  { binary: '/usr/sbin/httpd', modules: '/usr/libexec/apache2' }, // macOS
  { binary: '/usr/local/sbin/httpd', modules: '/usr/local/libexec/apache24' }, // FreeBSD
  { binary: '/usr/local/apache/bin/httpd', modules: '/usr/local/apache/modules' }, // from source
  { binary: '/usr/local/apache2/bin/httpd', modules: '/usr/local/apache2/modules' },
];
const FCGID = 'libapache2-mod-fcgid';
const cache = join(import.meta.dirname, '..', '.cache', 'httpd');

/** The machine's httpd, or the one unpacked earlier; undefined when there is none. */
export function findHttpd(): HttpdProgram | undefined {
  const installed = PLACES.find(
    ({ binary, modules }) => existsSync(binary) && existsSync(join(modules, 'mod_alias.so')),
  );
  if (installed) return { binary: installed.binary, modulesDirectory: installed.modules };
  return findUnpacked();
}

/**
 * The machine's httpd, or Debian's: installed for root, otherwise unpacked into .cache/httpd.
 * Throws an Error with a hint when neither is possible.
 */
export function obtainHttpd(): HttpdProgram {
  refuseWhenFast('an httpd');
  const found = findHttpd();
  if (found) return found;
  if (spawnSync('apt-get', ['--version']).status !== 0) {
    throw new Error(
      'no httpd on this machine, and no apt-get to get one; install Apache 2.4 with mod_cgi and mod_cgid',
    );
  }
  if (process.getuid?.() === 0) installPackages(['apache2-bin']);
  else unpackPackages();
  const obtained = findHttpd();
  if (!obtained) throw new Error('the Debian package apache2-bin came without an httpd; install Apache 2.4 by hand');
  return obtained;
}

/**
 * An httpd with mod_fcgid, which is in a separate package; undefined when that is not available.
 */
export function obtainFcgid(): HttpdProgram | undefined {
  const program = obtainHttpd();
  const module = join(program.modulesDirectory, 'mod_fcgid.so');
  if (!existsSync(module)) installPackages([FCGID]);
  return existsSync(module) ? program : undefined;
}

/**
 * Puts Apache's htpasswd into PATH: the machine's, or Debian's, obtained like httpd. Throws Error
 * when it is not available.
 */
export function obtainHtpasswd(): void {
  const isThere = (): boolean => spawnSync('htpasswd', ['-nbB', 'a', 'a']).status === 0;
  if (isThere()) return;
  if (process.getuid?.() === 0) installPackages(['apache2-utils']);
  else {
    mkdirSync(cache, { recursive: true });
    execFileSync('apt-get', ['download', '-q', 'apache2-utils'], {
      cwd: cache,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const file = readdirSync(cache).find((name) => name.startsWith('apache2-utils_'));
    execFileSync('dpkg', ['-x', file ?? '', 'root'], { cwd: cache });
    process.env.PATH += `${delimiter}${join(cache, 'root', 'usr', 'bin')}`;
  }
  if (!isThere()) throw new Error('the Debian package apache2-utils came without htpasswd; install it by hand');
}

/** Without root: unpacks the package and its dependencies below .cache/httpd. */
function unpackPackages(): void {
  process.stderr.write('webjob: getting httpd from the Debian packages (once)\n');
  mkdirSync(cache, { recursive: true });
  const listing = execFileSync(
    'apt-cache',
    [
      'depends',
      '--recurse',
      '--no-recommends',
      '--no-suggests',
      '--no-conflicts',
      '--no-breaks',
      '--no-replaces',
      '--no-enhances',
      'apache2-bin',
      FCGID,
    ],
    { encoding: 'utf8' },
  );
  const packages = listing.split('\n').filter((line) => /^(?:apache2-bin|lib[a-z0-9.+-]+)$/.test(line));
  execFileSync('apt-get', ['download', '-q', ...packages], { cwd: cache, stdio: ['ignore', 'ignore', 'inherit'] });
  for (const file of readdirSync(cache).filter((name) => name.endsWith('.deb'))) {
    execFileSync('dpkg', ['-x', file, 'root'], { cwd: cache });
  }
}

function findUnpacked(): HttpdProgram | undefined {
  const root = join(cache, 'root');
  const binary = join(root, 'usr/sbin/apache2');
  if (!existsSync(binary)) return undefined;
  const libraries = readdirSync(join(root, 'usr/lib')).filter((name) => name.endsWith('-linux-gnu'));
  return {
    binary,
    modulesDirectory: join(root, 'usr/lib/apache2/modules'),
    libraryPath: libraries.map((name) => join(root, 'usr/lib', name)).join(delimiter),
  };
}
