// A private WebJob site in one directory, laid out as in the 2004 article: directories, owners,
// modes, settings, client1 with the password foo, and host.sh. For npm start, the tests and the
// benchmarks. It does not depend on how the site is served.
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { custodyPath, segmentFolder } from 'webjob-locker';
import { findWebUser, openTree } from './web-user.ts';

export interface Site {
  /** The directory that contains all others; remove() removes it. */
  root: string;
  /** The target of ScriptAlias: nph-webjob.cgi and .htaccess. */
  cgiDirectory: string;
  propertiesFile: string;
  userFile: string;
  /** BaseDirectory. */
  base: string;
  incoming: string;
  profiles: string;
  logFile: string;
  remove(): void;
}

export interface SiteOptions {
  /** Settings in addition to BaseDirectory. */
  settings?: Record<string, string>;
  /**
   * Install a link to the launcher of an installation elsewhere, instead of a copy of the built
   * file.
   */
  linkLauncher?: boolean;
  /** Copy the file for persistent workers too. */
  resident?: boolean;
  /**
   * Let the web user write only the log in logfiles/, as in the article, so that it cannot make a
   * custody record.
   */
  withoutCustody?: boolean;
}

const project = join(import.meta.dirname, '..');

/** Makes the site in a new temporary directory. The CGI must have been built. */
export function makeSite(options: SiteOptions = {}): Site {
  const root = mkdtempSync(join(tmpdir(), 'webjob-site-'));
  chmodSync(root, 0o755);
  const base = join(root, 'integrity');
  const site: Site = {
    root,
    cgiDirectory: join(root, 'webjob'),
    propertiesFile: join(root, 'etc', 'nph-webjob.cfg'),
    userFile: join(root, 'etc', 'webjob.htpasswd'),
    base,
    incoming: join(base, 'incoming'),
    profiles: join(base, 'profiles'),
    logFile: join(base, 'logfiles', 'nph-webjob.log'),
    remove: () => rmSync(root, { recursive: true, force: true }),
  };
  for (const folder of [
    site.cgiDirectory,
    join(root, 'etc'),
    base,
    site.incoming,
    join(base, 'limits'),
    join(base, 'dynamic'),
    join(base, 'logfiles'),
    site.profiles,
  ]) {
    mkdirSync(folder, 0o755);
  }
  writeFileSync(site.logFile, '', { mode: 0o644 });
  giveToWebUser(site.incoming);
  giveToWebUser(join(base, 'limits'));
  giveToWebUser(join(base, 'dynamic'));
  giveToWebUser(site.logFile);
  if (!options.withoutCustody) {
    const custody = custodyPath(join(base, 'logfiles'), options.settings?.ServerId ?? 'server_1');
    writeFileSync(custody, '', { mode: 0o644 });
    giveToWebUser(custody);
    mkdirSync(segmentFolder(custody), 0o755);
    giveToWebUser(segmentFolder(custody));
  }
  installScript(site, options);
  configure(site, options.settings ?? {});
  addUser(site, 'client1', 'foo');
  addCommand(site, 'client1', 'host.sh', '#!/bin/sh\nhostname\n');
  return site;
}

const SETTLED = new Date('2004-05-23');

/** Writes nph-webjob.cfg: BaseDirectory, the given settings, then `more` as it is. */
export function configure(site: Site, settings: Record<string, string>, more = ''): void {
  const lines = Object.entries({ BaseDirectory: site.base, ...settings }).map(([key, value]) => `${key}=${value}\n`);
  writeFileSync(site.propertiesFile, `${lines.join('')}${more}\n`, { mode: 0o644 });
  // A persistent worker ignores a file that may still be being written, so it gets an older time.
  utimesSync(site.propertiesFile, SETTLED, SETTLED);
}

/**
 * Adds a user. `{SHA}` is sufficient for a password that is printed on the screen; a real site uses
 * `htpasswd -B`.
 */
export function addUser(site: Site, name: string, password: string): void {
  appendFileSync(site.userFile, `${name}:{SHA}${createHash('sha1').update(password).digest('base64')}\n`, {
    mode: 0o644,
  });
}

/** Adds a command at its path in the article: profiles/<client>/<name>. */
export function addCommand(site: Site, clientId: string, name: string, content: string | Uint8Array): string {
  mkdirSync(join(site.profiles, clientId, 'commands'), { recursive: true, mode: 0o755 });
  const path = join(site.profiles, clientId, name);
  writeFileSync(path, content, { mode: 0o644 });
  return path;
}

/** Writes the article's webjob.conf, except for the URL and its directory; returns its path. */
export function writeClientConf(site: Site, url: string, name = 'webjob.conf'): string {
  const folder = join(site.root, 'client');
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const text = [
    'ClientId=client1',
    `URLGetURL=${url}/webjob/nph-webjob.cgi`,
    `URLPutURL=${url}/webjob/nph-webjob.cgi`,
    'URLUsername=client1',
    'URLPassword=foo',
    'URLAuthType=basic',
    'RunType=snapshot',
    `TempDirectory=${folder} # Use \\temp for NT/2K`,
    'OverwriteExecutable=Y',
    'UnlinkOutput=N',
    'UnlinkExecutable=N',
  ];
  const path = join(folder, name);
  writeFileSync(path, `${text.join('\n')}\n`, { mode: 0o600 });
  return path;
}

function installScript(site: Site, options: SiteOptions): void {
  const script = join(site.cgiDirectory, 'nph-webjob.cgi');
  if (options.linkLauncher) {
    // The web user may not be able to reach the checkout, so the programs are copied.
    for (const room of ['bin', 'dist']) cpSync(join(project, room), join(site.root, 'opt', room), { recursive: true });
    openTree(join(site.root, 'opt'));
    symlinkSync(join(site.root, 'opt', 'bin', 'nph-webjob'), script);
  } else copyFileSync(join(project, 'dist', 'nph-webjob.cgi'), script);
  if (options.resident) {
    const name = 'nph-webjob-resident.cjs';
    copyFileSync(join(project, 'dist', name), join(site.cgiDirectory, name));
  }
  const sample = readFileSync(join(project, 'apache', 'htaccess'), 'utf8');
  writeFileSync(
    join(site.cgiDirectory, '.htaccess'),
    sample.replace(/^AuthUserFile .*$/m, `AuthUserFile "${site.userFile}"`),
  );
}

function giveToWebUser(path: string): void {
  const user = process.getuid?.() === 0 ? findWebUser() : undefined;
  if (user) chownSync(path, user.uid, 0);
}
