// Checks how clients authenticate, and whether httpd, .htaccess, nph-webjob.cfg and the clients'
// credentials agree.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { quote } from '../../cli/shell.ts';
import { listCertificates } from '../clients/certificates.ts';
import { readUserFile } from '../clients/userfile.ts';
import { AUTHORITY_FOLDER } from '../site/authority.ts';
import type { Access } from './directives.ts';
import { error, type Finding } from './finding.ts';
import type { Directive } from './httpd.ts';
import { type Mends, setControl } from './mends.ts';
import type { Ways } from './ways.ts';

const MAX_NAMED = 5;

export interface Identities {
  settings: ServerSettings;
  access: Access;
  directives: readonly Directive[] | undefined;
  ways: Ways | undefined;
  mends: Mends;
  /** `FILE:LINE` of a setting, or the file when it is not set. */
  placeOf(setting: string): string;
}

export function checkIdentities(site: Identities): Finding[] {
  return [...checkClientKinds(site), ...checkTls(site)];
}

/** Reports clients that have a password where only certificates are accepted, and vice versa. */
function checkClientKinds({ settings, access, mends, placeOf }: Identities): Finding[] {
  const { isByPassword, isByCertificate, file } = access;
  const { etcDirectory } = mends;
  const wantsCertificate = !isByPassword || settings.sslRequireMatch || settings.sslRequireCn;
  const wantsPassword = isByPassword && !isByCertificate;
  const isOwnAuthority = existsSync(join(etcDirectory, AUTHORITY_FOLDER));
  const users = namesIn(access.userFile ?? join(etcDirectory, 'webjob.htpasswd'));
  const holders = isOwnAuthority
    ? listCertificates(etcDirectory).flatMap(({ client, state }) => (state === 'valid' ? [client] : []))
    : [];
  const without = (clients: readonly string[], others: readonly string[]): string[] =>
    [...new Set(clients)].filter((client) => !others.includes(client));
  // Nothing is known here of certificates that another CA has issued.
  const passwordOnly = wantsCertificate && (isOwnAuthority || !isByPassword) ? without(users, holders) : [];
  const certificateOnly = wantsPassword ? without(holders, users) : [];
  const replace = (clients: readonly string[], how: string, folder: string): string => {
    const command = `${mends.webjobctl} client`;
    return `for name in ${clients.join(' ')}; do ${command} remove $name && ${command} add $name ${how} --out $name-${folder}; done`;
  };
  return [
    ...(settings.sslRequireMatch && isByPassword && isByCertificate
      ? [
          error(
            'SslRequireMatch=Y refuses every client that authenticates by password',
            placeOf('SslRequireMatch'),
            setControl(placeOf('SslRequireMatch'), 'SslRequireMatch', 'N'),
          ),
        ]
      : passwordOnly.length > 0
        ? [
            error(
              `${describe(passwordOnly)} a password and no certificate, which this site requires: ${list(passwordOnly)}`,
              file,
              replace(passwordOnly, '--cert', 'certificate'),
            ),
          ]
        : []),
    ...(certificateOnly.length > 0
      ? [
          error(
            `${describe(certificateOnly)} a certificate and no password, which this site requires: ${list(certificateOnly)}`,
            file,
            replace(certificateOnly, '--generate', 'password'),
          ),
        ]
      : []),
  ];
}

const describe = ({ length }: readonly string[]): string => (length === 1 ? '1 client has' : `${length} clients have`);

function list(clients: readonly string[]): string {
  const more = clients.length > MAX_NAMED ? ` and ${clients.length - MAX_NAMED} more` : '';
  return `${clients.slice(0, MAX_NAMED).join(', ')}${more}`;
}

/** Names that are not client ids belong to people. */
function namesIn(path: string): string[] {
  return existsSync(path) ? readUserFile(path).flatMap(({ name }) => (/^[\w-]{1,64}$/.test(name) ? [name] : [])) : [];
}

/**
 * Reports requirements that no request can meet. Behind a balancer, which passes TLS facts on in
 * variables, httpd does not know them.
 */
function checkTls({ settings, access, directives, ways: found, mends, placeOf }: Identities): Finding[] {
  if (
    !directives ||
    !found ||
    directives.some(({ name, value }) => /^(?:SetEnv|RequestHeader)/i.test(name) && /HTTPS|SSL_/.test(value))
  )
    return [];
  const { servers, ways } = found;
  const own = servers.filter((server) => ways.some((way) => way.server === server));
  const findings: Finding[] = [];
  if (settings.sslRequireSsl && own.length > 0 && !own.some(({ isTls }) => isTls))
    findings.push(turnOff('SslRequireSsl', 'no virtual host with TLS leads to the script'));
  const isAsked = directives.some(
    ({ name, value }) => name === 'SSLVerifyClient' && /^(?:require|optional)/i.test(value),
  );
  if (isAsked) {
    if (!access.isByPassword && settings.requireUser && !access.namesUser)
      findings.push(
        error(
          'RequireUser=Y, but .htaccess does not take the user from the certificate',
          access.file,
          `echo 'SSLUserName SSL_CLIENT_S_DN_CN' >> ${quote(access.file)}`,
        ),
      );
    return findings;
  }
  if (!access.isByPassword && access.isByCertificate)
    findings.push(
      error(
        '.htaccess requires a certificate, but httpd asks for none',
        access.file,
        mends.writeAccess('apache/htaccess', access.file),
      ),
    );
  else if (settings.sslRequireMatch) findings.push(turnOff('SslRequireMatch', 'httpd asks for no certificate'));
  else if (settings.sslRequireCn) findings.push(turnOff('SslRequireCn', 'httpd asks for no certificate'));
  return findings;

  function turnOff(setting: string, why: string): Finding {
    const place = placeOf(setting);
    const mend = setControl(place, setting, 'N');
    return error(`${setting}=Y, and ${why}: every request is refused`, place, `${mend}  # or webjobctl init --tls`);
  }
}
