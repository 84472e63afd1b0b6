// Runs the commands of an installation guide as they are printed, in a directory tree of its own:
// every absolute path of the guide, and of the shipped files it installs, is moved below a
// temporary directory. Nothing else is changed.
import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { obtainHttpd } from '../../scripts/httpd-package.ts';
import { findWebUser, openTree } from '../../scripts/web-user.ts';

const project = join(import.meta.dirname, '..', '..');
export const isRoot = process.getuid?.() === 0;
export const webUser = findWebUser()?.name ?? '';

export interface Guide {
  /**
   * The blocks of a language, in order, below a heading that begins like this; below all headings
   * when it is empty.
   */
  blocks(language: string, heading?: string): string[];
}

/** Reads a guide with its absolute paths moved below `root`. */
export function readGuide(file: string, root: string, paths: string[]): Guide {
  const text = move(readFileSync(join(project, file), 'utf8'), root, paths);
  const sections = text.split(/^## /m);
  return {
    blocks: (language, heading = '') =>
      sections
        .filter((section) => section.startsWith(heading))
        .flatMap((section) => [...section.matchAll(/^```(\w+)\n(.*?)^```$/gms)])
        .filter(([, name]) => name === language)
        .map(([, , block = '']) => block),
  };
}

/** A copy of what a checkout ships, in `root`/checkout: the files an administrator installs. */
export function stageCheckout(root: string, paths: string[]): string {
  const checkout = join(root, 'checkout');
  for (const room of ['apache', 'conf']) {
    cpSync(join(project, room), join(checkout, room), { recursive: true });
    for (const entry of readdirSync(join(checkout, room), { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      if (entry.isFile()) writeFileSync(path, move(readFileSync(path, 'utf8'), root, paths));
    }
  }
  mkdirSync(join(checkout, 'dist'));
  for (const program of ['nph-webjob.cgi', 'webjob']) {
    copyFileSync(join(project, 'dist', program), join(checkout, 'dist', program));
  }
  openTree(checkout);
  return checkout;
}

function move(text: string, root: string, paths: string[]): string {
  return paths.reduce((moved, path) => moved.replaceAll(path, root + path), text);
}

/**
 * Stubs for what is outside of the tree: typing a password, httpd's own command, starting services,
 * and for an ordinary user, who cannot give files away, chown.
 */
const WORLD = `
htpasswd() {
  if [ -n "$REAL_HTPASSWD" ]; then printf 'foo\\n' | "$REAL_HTPASSWD" -i "$@"; return; fi
  [ "$1" = -c ] && : > "\${3}"
  [ "$1" = -c ] && shift
  printf '%s:%s\\n' "$3" "$(openssl passwd -apr1 foo)" >> "$2"
}
apachectl() {
  case $1 in configtest) set -- -t ;; *) set -- -k "$1" ;; esac
  "$HTTPD" -d "$SERVER_ROOT" -f "$CONFIGURATION" "$@"
}
webjob() { "$NODE" dist/webjob "$@"; }
enable() {
  for file in "$APACHE_CONFDIR/$1-available/$2".*; do ln -sf "$file" "$APACHE_CONFDIR/$1-enabled/"; done
}
a2enmod() { if [ -n "$REAL_A2ENMOD" ]; then "$REAL_A2ENMOD" "$1"; else enable mods "$1"; fi; }
a2enconf() { if [ -n "$REAL_A2ENCONF" ]; then "$REAL_A2ENCONF" "$1"; else enable conf "$1"; fi; }
systemctl() { echo "systemctl $*"; }
`;

const SEARCH_PATH = `${process.env.PATH}:/usr/sbin:/sbin`;

/** The path of a program that not every machine has. */
export function findProgram(name: string): string | undefined {
  const places = SEARCH_PATH.split(delimiter).map((folder) => join(folder, name));
  return places.find((place) => existsSync(place));
}

export interface Run {
  checkout: string;
  serverRoot: string;
  configurationFile: string;
  environment?: Record<string, string>;
}

/**
 * Runs blocks in one shell that stops at the first failure, with the strict umask of an
 * administrator. Throws Error with its output.
 */
export function runCommands(blocks: string[], run: Run): string {
  const { binary, libraryPath } = obtainHttpd();
  const chown = isRoot ? '' : 'chown() { :; }\n';
  const script = `${WORLD}${chown}umask 077\n${blocks.join('\n')}`;
  const ended = spawnSync('/bin/sh', ['-euc', script], {
    cwd: run.checkout,
    encoding: 'utf8',
    env: {
      PATH: `${dirname(process.execPath)}${delimiter}${SEARCH_PATH}`,
      NODE: process.execPath,
      HTTPD: binary,
      SERVER_ROOT: run.serverRoot,
      CONFIGURATION: run.configurationFile,
      REAL_HTPASSWD: findProgram('htpasswd') ?? '',
      REAL_A2ENMOD: findProgram('a2enmod') ?? '',
      REAL_A2ENCONF: findProgram('a2enconf') ?? '',
      ...(libraryPath && { LD_LIBRARY_PATH: libraryPath }),
      ...run.environment,
    },
  });
  if (ended.status !== 0) throw new Error(`a command of the guide failed: ${ended.stdout}${ended.stderr}`);
  return ended.stdout + ended.stderr;
}

/** The shipped webjob.conf, filled in for client1. */
export function fillClientConf(checkout: string, url: string): void {
  const values = { ClientId: 'client1', URLGetURL: url, URLPutURL: url, URLUsername: 'client1', URLPassword: 'foo' };
  const filled = Object.entries({ ...values, URLAuthType: 'basic', TempDirectory: join(checkout, 'tmp') }).reduce(
    (text, [key, value]) => text.replace(new RegExp(`^#?${key}=.*$`, 'm'), `${key}=${value}`),
    readFileSync(join(checkout, 'conf/webjob.conf'), 'utf8'),
  );
  mkdirSync(join(checkout, 'tmp'));
  writeFileSync(join(checkout, 'webjob.conf'), filled, { mode: 0o600 });
}

/** Creates the parent directories of a file, then the file. */
export function write(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}
