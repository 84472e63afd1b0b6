// PostgreSQL for the tests: the machine's, or Debian's, unpacked without installation, so that no
// service starts.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { refuseWhenFast } from './debian.ts';

const cache = join(import.meta.dirname, '..', '.cache', 'postgres');

export interface PostgresPrograms {
  /** The directory of initdb and postgres. */
  bin: string;
  /** The directories for LD_LIBRARY_PATH. */
  libraryPath: string;
}

/**
 * Finds or unpacks PostgreSQL; undefined when it is not available, and apt-get has then reported
 * why.
 */
export function obtainPostgres(): PostgresPrograms | undefined {
  refuseWhenFast('PostgreSQL');
  const found = findIn('/') ?? findIn(join(cache, 'root'));
  if (found || spawnSync('apt-get', ['--version']).status !== 0) return found;
  process.stderr.write('webjob: getting PostgreSQL from the Debian packages (once)\n');
  mkdirSync(cache, { recursive: true });
  const isRoot = process.getuid?.() === 0;
  // The JIT compiler is left out: it is as large as everything else, and the server works without
  // it.
  const script = `${isRoot ? 'apt-get update -q && ' : ''}server=$(apt-cache depends postgresql | sed -n 's/.*Depends: \\(postgresql-[0-9]*\\)$/\\1/p') &&
    apt-get download -q -o APT::Sandbox::User= "$server" $(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts \
      --no-breaks --no-replaces --no-enhances "$server" | grep -E '^lib[a-z0-9.+-]+$' | grep -vE '^lib(llvm|c6|gcc|stdc)') &&
    for package in *.deb; do dpkg -x "$package" unpacked || exit; done && mv unpacked root`;
  // Another run may have unpacked it meanwhile.
  spawnSync('flock', ['lock', 'sh', '-c', `[ -d root ] || { ${script}; }`], {
    cwd: cache,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  return findIn(join(cache, 'root'));
}

function findIn(root: string): PostgresPrograms | undefined {
  const versions = join(root, 'usr/lib/postgresql');
  const newest = existsSync(versions)
    ? readdirSync(versions)
        .sort((a, b) => Number(a) - Number(b))
        .at(-1)
    : undefined;
  const bin = join(versions, newest ?? 'none', 'bin');
  if (!existsSync(join(bin, 'initdb'))) return undefined;
  const libraries =
    root === '/' ? [] : readdirSync(join(root, 'usr/lib')).filter((name) => name.endsWith('-linux-gnu'));
  return { bin, libraryPath: libraries.map((name) => join(root, 'usr/lib', name)).join(':') };
}
