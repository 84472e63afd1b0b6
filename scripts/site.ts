// A private WebJob site in one folder, laid out as the 2004 article does it: folders, owners, modes, settings, client1 with the
// password foo, and host.sh. For npm start, the tests and the benchmarks; knows nothing of how it is served.
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
  /** Holds everything below; removed by remove(). */
  root: string;
  /** ScriptAlias leads here: nph-webjob.cgi and .htaccess. */
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
  /** Controls beside BaseDirectory. */
  settings?: Record<string, string>;
  /** A link to the launcher of an installation elsewhere, in place of a copy of the built file. */
  linkLauncher?: boolean;
  /** Beside a copy what it needs to stay. */
  resident?: boolean;
  /** Nothing in logfiles/ but the log, as the article has it: the web user can then make no custody record. */
  withoutCustody?: boolean;
}

const project = join(import.meta.dirname, '..');

/** Makes the site in a new folder of the temporary directory. The built CGI must exist. */
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

/** Writes nph-webjob.cfg anew: BaseDirectory, the controls given, then `more` as it stands. */
export function configure(site: Site, settings: Record<string, string>, more = ''): void {
  const lines = Object.entries({ BaseDirectory: site.base, ...settings }).map(([key, value]) => `${key}=${value}\n`);
  writeFileSync(site.propertiesFile, `${lines.join('')}${more}\n`, { mode: 0o644 });
  // A process that stays does not read a file that may still be being written.
  utimesSync(site.propertiesFile, SETTLED, SETTLED);
}

/** Lets a user in. `{SHA}` is enough for a password that is printed on the screen; a real site uses `htpasswd -B`. */
export function addUser(site: Site, name: string, password: string): void {
  appendFileSync(site.userFile, `${name}:{SHA}${createHash('sha1').update(password).digest('base64')}\n`, {
    mode: 0o644,
  });
}

/** Puts a command where the article's walk-through puts it: profiles/<client>/<name>. */
export function addCommand(site: Site, clientId: string, name: string, content: string | Uint8Array): string {
  mkdirSync(join(site.profiles, clientId, 'commands'), { recursive: true, mode: 0o755 });
  const path = join(site.profiles, clientId, name);
  writeFileSync(path, content, { mode: 0o644 });
  return path;
}

/** The article's webjob.conf, word for word but for the URL and the folder it works in; returns its path. */
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
    // The checkout itself may lie where the web user cannot go.
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
