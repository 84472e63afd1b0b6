// Checks httpd's directives for the script: it must be served, with the right settings, and only to
// authenticated clients.
import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { quote } from '../../cli/shell.ts';
import { readUserFile } from '../clients/userfile.ts';
import type { User } from '../site/users.ts';
import { error, type Finding, note, warning } from './finding.ts';
import { type Directive, type Httpd, splitArguments } from './httpd.ts';
import { type AccessKind, type Mends, replaceLine } from './mends.ts';
import { findMeant } from './places.ts';
import { attempt, formatOpening } from './trial.ts';

const NEEDED = ['alias', 'env', 'authz_core', 'authn_core'];
const FOR_PASSWORDS = ['auth_basic', 'authn_file', 'authz_user'];

export function checkModules(
  { modules, directives }: Pick<Httpd, 'modules' | 'directives'>,
  settings: ServerSettings,
  isByPassword: boolean,
  mends: Mends,
): Finding[] {
  const wanted = [...NEEDED, ...(isByPassword ? FOR_PASSWORDS : []), ...(settings.sslRequireSsl ? ['ssl'] : [])];
  const remedy = (name: string): string => formatLoading(name, directives ?? [], mends);
  const missing = wanted.filter((name) => !modules.includes(name));
  const isRunner = modules.some((name) => ['cgi', 'cgid', 'fcgid', 'proxy_fcgi'].includes(name));
  return [
    ...missing.map((name) => error(`httpd has not loaded mod_${name}`, 'httpd', remedy(name))),
    ...(isRunner ? [] : [error('httpd has loaded neither mod_cgid nor mod_cgi', 'httpd', remedy('cgid'))]),
  ];
}

/**
 * Debian's own command for Debian's httpd; otherwise a line beside those that load other modules. A
 * new module needs a restart.
 */
function formatLoading(name: string, directives: readonly Directive[], { httpdConf, reload }: Mends): string {
  const restart = reload.replace(/graceful$/, 'restart');
  if (httpdConf.startsWith('/etc/apache2/')) return `a2enmod ${name} && ${restart}`;
  const known = directives.find((one) => one.name === 'LoadModule')?.value ?? '';
  const folder = dirname(splitArguments(known)[1] ?? '/usr/lib/apache2/modules/x');
  return `sed -i ${quote(`1i LoadModule ${name}_module ${folder}/mod_${name}.so`)} ${quote(httpdConf)} && ${restart}`;
}

/**
 * Directories that a ScriptAlias leads to and that contain, or are meant for, a webjob script: a
 * SetEnv names its settings. With several sites on one server, only those of the site with these
 * settings.
 */
export function findScriptFolders(directives: readonly Directive[], propertiesFile: string): string[] {
  const setEnvs = directives.flatMap(({ name, value, sections }) => {
    const [variable, file = ''] = splitArguments(value);
    if (name !== 'SetEnv' || variable !== 'WEBJOB_PROPERTIES_FILE') return [];
    return sections.map(splitArguments).flatMap(([kind, place = '']) => {
      return kind === 'Directory' ? [{ folder: resolve(place), isOwn: resolve(file) === resolve(propertiesFile) }] : [];
    });
  });
  const told = setEnvs.map(({ folder }) => folder);
  const own = setEnvs.filter(({ isOwn }) => isOwn).map(({ folder }) => folder);
  const folders = directives
    .filter(({ name }) => name === 'ScriptAlias')
    .map(({ value }) => resolve(splitArguments(value)[1] ?? '/'))
    .filter(
      (folder) =>
        existsSync(join(folder, 'nph-webjob.cgi')) || existsSync(join(folder, 'nph-webjob')) || told.includes(folder),
    );
  const found = [...new Set(folders)];
  return own.length > 0 ? found.filter((folder) => own.includes(folder) || !told.includes(folder)) : found;
}

export function checkDirectives(directives: readonly Directive[], folder: string, mends: Mends): Finding[] {
  const add = (line: string): string => mends.addDirectives(`<Directory "${folder}">`, line, '</Directory>');
  const isOf = ({ sections }: Directive): boolean => sections.some((section) => coversFolder(section, folder));
  const own = directives.filter(isOf);
  const findOwn = (name: string): Directive | undefined => own.findLast((one) => one.name === name);
  const override = findOwn('AllowOverride');
  const findings = checkSetEnv(findOwn('SetEnv'), folder, mends, add);
  if (!override || !/\b(?:AuthConfig|All)\b/i.test(override.value))
    findings.push(
      error(
        '.htaccess is ignored: AllowOverride AuthConfig is missing',
        override?.where ?? folder,
        override
          ? mends.replaceDirective(override.where, 'AllowOverride', 'AuthConfig')
          : add('AllowOverride AuthConfig'),
      ),
    );
  for (const one of own) findings.push(...checkOpening(one, mends));
  for (const one of directives) {
    if (one.name === 'SSLVerifyClient' && one.value === 'optional_no_ca')
      findings.push(
        error(
          'unverified certificates are accepted: optional_no_ca',
          one.where,
          mends.replaceDirective(one.where, 'SSLVerifyClient', 'require'),
        ),
      );
  }
  const limit = findOwn('LimitRequestBody');
  if (limit && limit.value !== '0')
    findings.push(note(`httpd itself answers 413 to more than ${limit.value} bytes`, limit.where));
  return findings;
}

/**
 * Reports a directory of the script that does not exist when a similar one has the script: the path
 * is misspelt.
 */
export function checkScriptFolder(
  directives: readonly Directive[],
  folder: string,
  { replaceDirective }: Mends,
): Finding | undefined {
  if (existsSync(folder)) return undefined;
  const meant = findMeant(folder, (path) => existsSync(join(path, 'nph-webjob.cgi')));
  const alias = directives.find(
    ({ name, value }) => name === 'ScriptAlias' && resolve(splitArguments(value)[1] ?? '/') === folder,
  );
  if (meant === undefined || !alias) return undefined;
  const [path = ''] = splitArguments(alias.value);
  const mend = replaceDirective(alias.where, 'ScriptAlias', `${path} "${meant}/"`, meant);
  return error(`ScriptAlias leads to a directory that does not exist, ${folder}`, alias.where, mend);
}

/** Checks that the script reads the settings of this site. */
function checkSetEnv(
  setEnv: Directive | undefined,
  folder: string,
  { propertiesFile, replaceDirective }: Mends,
  add: (line: string) => string,
): Finding[] {
  const [variable, file] = splitArguments(setEnv?.value ?? '');
  if (!setEnv || variable !== 'WEBJOB_PROPERTIES_FILE' || file === undefined) {
    const mend = add(`SetEnv WEBJOB_PROPERTIES_FILE "${propertiesFile}"`);
    return [warning('no SetEnv names the settings of the script', folder, mend)];
  }
  if (resolve(file) === resolve(propertiesFile)) return [];
  const value = `WEBJOB_PROPERTIES_FILE "${propertiesFile}"`;
  const mend = replaceDirective(setEnv.where, 'SetEnv', value, propertiesFile);
  // Without the file every setting has its default.
  if (!existsSync(file)) return [error(`httpd gives the script ${file}, which does not exist`, setEnv.where, mend)];
  const what = `httpd gives the script ${file}, but this command checks ${propertiesFile}`;
  return [warning(what, setEnv.where, `${mend}  # or --config`)];
}

/** Reports directives that let everyone in. `Files` sections in apache/ only ever deny. */
function checkOpening({ name, value, where, sections }: Directive, mends: Mends): Finding[] {
  const isOpen = name === 'Require' && /^all granted$/i.test(value);
  const isAny = name === 'Satisfy' && /^any$/i.test(value);
  if (!isOpen && !isAny) return [];
  const section = sections.at(-1) ?? '';
  return [error(`<${section}> lets in everybody: ${name} ${value}`, where, mends.removeDirective(where))];
}

/** `Directory "/…"` of the directory itself, `Location "/webjob…"`. */
function coversFolder(section: string, folder: string): boolean {
  const [kind = '', place = ''] = splitArguments(section);
  if (kind === 'Directory') return resolve(place) === folder;
  return kind === 'Location' && /^\/webjob(?:\/|$)/.test(place);
}

/** The requirements of .htaccess for a client. */
export interface Access {
  file: string;
  isByPassword: boolean;
  isByCertificate: boolean;
  /** Whether the user is taken from the name in a certificate. */
  namesUser: boolean;
  userFile: string | undefined;
  findings: Finding[];
}

/**
 * Checks whether .htaccess requires authentication, and whether the user file is usable. `kind` is
 * the kind that this site should have.
 */
export function checkAccess(folder: string, user: User, kind: AccessKind, mends: Mends): Access {
  const file = join(folder, '.htaccess');
  const none = { file, isByPassword: true, isByCertificate: false, namesUser: false, userFile: undefined };
  const mend = (): string => mends.writeAccess(kind, file);
  if (!existsSync(file))
    return { ...none, findings: [error('all access is denied: there is no .htaccess', file, mend())] };
  const code = attempt(user, file, 'read');
  if (code !== undefined)
    return {
      ...none,
      findings: [error(`${user.name} cannot read .htaccess, and httpd answers 403`, file, `chmod 644 ${quote(file)}`)],
    };
  const lines = readFileSync(file, 'utf8')
    .split('\n')
    .map((line) => line.trim());
  const find = (start: string): number => lines.findIndex((line) => line.toLowerCase().startsWith(start));
  const isByPassword = lines.some((line) => /^Require\s+(?:valid-user|user|group)\b/i.test(line));
  const isByCertificate = lines.some((line) => /^Require\s+expr\s.*SSL_CLIENT_VERIFY.*SUCCESS/i.test(line));
  const findings: Finding[] = [];
  if (!isByPassword && !isByCertificate && !lines.some((line) => /^Require\s+env\s+SSL_CLIENT/i.test(line)))
    findings.push(error('.htaccess requires no credentials', file, mend()));
  if (lines.some((line) => /^(?:Require\s+all\s+granted|Satisfy\s+any|<Limit\b)/i.test(line)))
    findings.push(
      error(
        '.htaccess allows some requests without credentials: Require all granted, Satisfy any or <Limit>',
        file,
        mend(),
      ),
    );
  const line = find('authuserfile');
  const [, userFile] = splitArguments(lines[line] ?? '');
  if (isByPassword) findings.push(...checkUserFile(userFile, { file, line: line + 1 }, user, mends));
  const namesUser = find('sslusername') >= 0;
  return { file, isByPassword, isByCertificate, namesUser, userFile, findings };
}

/** Checks the user file. `place` is that of its directive, with line 0 when there is none. */
function checkUserFile(
  path: string | undefined,
  { file, line }: { file: string; line: number },
  user: User,
  { etcDirectory, webjobctl }: Mends,
): Finding[] {
  const usual = join(etcDirectory, 'webjob.htpasswd');
  const text = `AuthUserFile ${usual}`;
  const name = line > 0 ? replaceLine(file, line, text) : `sed -i ${quote(`1i ${text}`)} ${quote(file)}`;
  const make = `install -m 640 -g ${user.gid} /dev/null`;
  if (path === undefined || !existsSync(path)) {
    const isThere = existsSync(usual);
    const mend = path === usual || !isThere ? `${make} ${quote(path ?? usual)}` : name;
    const added = isThere ? '' : `  # then ${webjobctl} client add CLIENT --generate`;
    return [
      error(
        'AuthUserFile names no file',
        path ?? file,
        `${path === undefined && !isThere ? `${mend} && ${name}` : mend}${added}`,
      ),
    ];
  }
  const weak = readUserFile(path).filter(({ scheme }) => scheme !== 'bcrypt');
  return [
    ...(attempt(user, path, 'read') === undefined
      ? []
      : [
          error(
            `${user.name} cannot read the users`,
            path,
            formatOpening(user, path, `chgrp ${user.gid} ${quote(path)} && chmod 640 ${quote(path)}`),
          ),
        ]),
    ...((statSync(path).mode & 0o004) === 0
      ? []
      : [warning('every user of this machine can read the password hashes', path, `chmod 640 ${quote(path)}`)]),
    ...(resolve(path).startsWith(`${dirname(file)}/`)
      ? [
          error(
            'the user file is in the directory that httpd serves',
            path,
            `mv -n ${quote(path)} ${quote(usual)} && ${name}`,
          ),
        ]
      : []),
    ...(weak.length === 0
      ? []
      : [
          warning(
            `the hash of ${weak.length} passwords is weak, not bcrypt`,
            path,
            `${webjobctl} client passwd ${weak[0]?.name} --generate`,
          ),
        ]),
  ];
}
