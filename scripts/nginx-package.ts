// nginx and fcgiwrap for the tests: the machine's, or Debian's, unpacked without installation, so
// that no service starts.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { refuseWhenFast } from './debian.ts';

export interface NginxPrograms {
  nginx: string;
  fcgiwrap: string;
  /** The parameters that nginx passes to a FastCGI program, as in Debian. */
  fastcgiParams: string;
  /** The directories for LD_LIBRARY_PATH. */
  libraryPath: string;
}

const cache = join(import.meta.dirname, '..', '.cache', 'nginx');
const PACKAGES = ['nginx', 'nginx-common', 'fcgiwrap', 'libfcgi0ldbl'];

/**
 * Finds or unpacks nginx and fcgiwrap; undefined when they are not available, and apt-get has then
 * reported why.
 */
export function obtainNginx(): NginxPrograms | undefined {
  refuseWhenFast('nginx');
  const found = findIn('/') ?? findIn(join(cache, 'root'));
  if (found || spawnSync('apt-get', ['--version']).status !== 0) return found;
  process.stderr.write('webjob: getting nginx and fcgiwrap from the Debian packages (once)\n');
  mkdirSync(cache, { recursive: true });
  const isRoot = process.getuid?.() === 0;
  const script = `${isRoot ? 'apt-get update -q && ' : ''}apt-get download -q -o APT::Sandbox::User= "$@" &&
    for package in *.deb; do dpkg -x "$package" unpacked || exit; done && mv unpacked root`;
  // Another run may have unpacked them meanwhile.
  const once = ['-c', `[ -d root ] || { ${script}; }`, 'sh', ...PACKAGES];
  spawnSync('flock', ['lock', 'sh', ...once], { cwd: cache, stdio: ['ignore', 'ignore', 'inherit'] });
  return findIn(join(cache, 'root'));
}

function findIn(root: string): NginxPrograms | undefined {
  const libraries = existsSync(join(root, 'usr/lib')) ? readdirSync(join(root, 'usr/lib')) : [];
  const found: NginxPrograms = {
    nginx: join(root, 'usr/sbin/nginx'),
    fcgiwrap: join(root, 'usr/sbin/fcgiwrap'),
    fastcgiParams: join(root, 'etc/nginx/fastcgi_params'),
    libraryPath: libraries
      .filter((name) => name.endsWith('-linux-gnu'))
      .map((name) => join(root, 'usr/lib', name))
      .join(':'),
  };
  return [found.nginx, found.fcgiwrap, found.fastcgiParams].every((path) => existsSync(path)) ? found : undefined;
}
