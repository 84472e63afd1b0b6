// The directives that hold for the script: it is served, from the right settings, to nobody who has not said who he is.
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { ServerSettings } from '../../cgi/controls.ts';
import { readUserFile } from '../clients/userfile.ts';
import { mayAccess, type User } from '../site/users.ts';
import { error, type Finding, note, warning } from './finding.ts';
import { type Directive, type Httpd, splitArguments } from './httpd.ts';

const NEEDED = ['alias', 'env', 'authz_core', 'authn_core'];
const FOR_PASSWORDS = ['auth_basic', 'authn_file', 'authz_user'];

export function checkModules({ modules }: Httpd, settings: ServerSettings, isByPassword: boolean): Finding[] {
  const wanted = [...NEEDED, ...(isByPassword ? FOR_PASSWORDS : []), ...(settings.sslRequireSsl ? ['ssl'] : [])];
  const remedy = (name: string): string => `a2enmod ${name}, or LoadModule ${name}_module`;
  const missing = wanted.filter((name) => !modules.includes(name));
  const isRunner = modules.some((name) => ['cgi', 'cgid', 'fcgid', 'proxy_fcgi'].includes(name));
  return [
    ...missing.map((name) => error(`httpd has not loaded mod_${name}`, 'httpd', remedy(name))),
    ...(isRunner ? [] : [error('httpd has loaded neither mod_cgid nor mod_cgi', 'httpd', remedy('cgid'))]),
  ];
}

/** Folders that a ScriptAlias leads to and that hold a webjob script. */
export function findScriptFolders(directives: readonly Directive[]): string[] {
  const folders = directives
    .filter(({ name }) => name === 'ScriptAlias')
    .map(({ value }) => resolve(splitArguments(value)[1] ?? '/'))
    .filter((folder) => existsSync(join(folder, 'nph-webjob.cgi')) || existsSync(join(folder, 'nph-webjob')));
  return [...new Set(folders)];
}

export function checkDirectives(directives: readonly Directive[], folder: string, propertiesFile: string): Finding[] {
  const isOf = ({ sections }: Directive): boolean => sections.some((section) => coversFolder(section, folder));
  const own = directives.filter(isOf);
  const findOwn = (name: string): Directive | undefined => own.findLast((one) => one.name === name);
  const override = findOwn('AllowOverride');
  const [variable, file] = splitArguments(findOwn('SetEnv')?.value ?? '');
  const findings: Finding[] = [];
  if (variable !== 'WEBJOB_PROPERTIES_FILE' || file === undefined)
    findings.push(warning('no SetEnv tells the script its settings', folder, 'include apache/webjob.conf'));
  else if (resolve(file) !== resolve(propertiesFile))
    findings.push(
      warning(`httpd hands the script ${file}, and this is about ${propertiesFile}`, folder, '--config, or the Define'),
    );
  if (!override || !/\b(?:AuthConfig|All)\b/i.test(override.value))
    findings.push(
      error(
        '.htaccess has no say: AllowOverride AuthConfig is missing',
        override?.where ?? folder,
        'include apache/webjob.conf',
      ),
    );
  for (const one of own) findings.push(...checkOpening(one));
  for (const one of directives) {
    if (one.name === 'SSLVerifyClient' && one.value === 'optional_no_ca')
      findings.push(
        error('certificates that nobody verified get in: optional_no_ca', one.where, 'SSLVerifyClient require'),
      );
  }
  const limit = findOwn('LimitRequestBody');
  if (limit && limit.value !== '0')
    findings.push(note(`httpd itself answers 413 to more than ${limit.value} bytes`, limit.where));
  return findings;
}

/** What lets in everybody. `Files` sections only ever close something in apache/. */
function checkOpening({ name, value, where, sections }: Directive): Finding[] {
  const isOpen = name === 'Require' && /^all granted$/i.test(value);
  const isAny = name === 'Satisfy' && /^any$/i.test(value);
  if (!isOpen && !isAny) return [];
  const section = sections.at(-1) ?? '';
  return [error(`<${section}> lets in everybody: ${name} ${value}`, where, 'remove it; .htaccess says who may enter')];
}

/** `Directory "/…"` of the folder itself, `Location "/webjob…"`. */
function coversFolder(section: string, folder: string): boolean {
  const [kind = '', place = ''] = splitArguments(section);
  if (kind === 'Directory') return resolve(place) === folder;
  return kind === 'Location' && /^\/webjob(?:\/|$)/.test(place);
}

/** Whether .htaccess asks who somebody is, and whether the file of users is fit for it. */
export function checkAccess(folder: string, user: User): { isByPassword: boolean; findings: Finding[] } {
  const file = join(folder, '.htaccess');
  if (!existsSync(file))
    return {
      isByPassword: true,
      findings: [error('nobody may enter: there is no .htaccess', file, 'copy apache/htaccess there')],
    };
  const lines = readFileSync(file, 'utf8')
    .split('\n')
    .map((line) => line.trim());
  const find = (start: string): string | undefined =>
    lines
      .find((line) => line.toLowerCase().startsWith(start))
      ?.slice(start.length)
      .trim();
  const isByPassword = lines.some((line) => /^Require\s+(?:valid-user|user|group)\b/i.test(line));
  const isByCertificate = lines.some((line) => /^Require\s+expr\s.*SSL_CLIENT_VERIFY.*SUCCESS/i.test(line));
  const findings: Finding[] = [];
  if (!isByPassword && !isByCertificate)
    findings.push(
      error(
        '.htaccess asks nobody who he is',
        file,
        'take apache/htaccess, apache/htaccess-certificates or apache/htaccess-either',
      ),
    );
  if (lines.some((line) => /^(?:Require\s+all\s+granted|Satisfy\s+any|<Limit\b)/i.test(line)))
    findings.push(
      error(
        '.htaccess lets in some without a word: Require all granted, Satisfy any or <Limit>',
        file,
        'take apache/htaccess',
      ),
    );
  const [userFile = ''] = splitArguments(find('authuserfile') ?? '');
  if (isByPassword) findings.push(...checkUserFile(userFile, folder, user));
  return { isByPassword, findings };
}

function checkUserFile(path: string, folder: string, user: User): Finding[] {
  if (path === '' || !existsSync(path))
    return [error('AuthUserFile names no file', path || folder, 'webjobctl client add makes users')];
  const weak = readUserFile(path).filter(({ scheme }) => scheme !== 'bcrypt');
  return [
    ...(mayAccess(user, path, 'read')
      ? []
      : [error(`${user.name} cannot read the users`, path, `chgrp ${user.name} ${path} && chmod 640 ${path}`)]),
    ...((statSync(path).mode & 0o004) === 0
      ? []
      : [warning('everybody on this machine may read the hashes of the passwords', path, `chmod 640 ${path}`)]),
    ...(resolve(path).startsWith(`${folder}/`)
      ? [error('the users lie in the folder that httpd serves', path, 'move the file out of it')]
      : []),
    ...(weak.length === 0
      ? []
      : [
          warning(
            `the hash of ${weak.length} passwords is weak, not bcrypt`,
            path,
            `webjobctl client passwd ${weak[0]?.name} --generate`,
          ),
        ]),
  ];
}
