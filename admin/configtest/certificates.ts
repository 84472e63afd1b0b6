// Checks expiry dates: of the server's certificate, the CA, the revocation list, and client
// certificates.
import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { countOf } from '../../cli/counts.ts';
import { errorCode } from '../../cli/files.ts';
import { quote } from '../../cli/shell.ts';
import { daysLeft } from '../clients/certificates.ts';
import { certificateDates, listEnding, revocationListEnd, USUAL_FILES } from '../clients/dates.ts';
import { AUTHORITY_FOLDER } from '../site/authority.ts';
import { error, type Finding, note, warning } from './finding.ts';
import { type Directive, splitArguments } from './httpd.ts';
import { judgeAuthority, judgeClients, judgeServers } from './judged.ts';
import type { Mends } from './mends.ts';

/** Days before its end at which something should be renewed. */
const SOON = 30;

export function checkCertificates(
  etcDirectory: string,
  directives: readonly Directive[] | undefined,
  mends: Mends,
): Finding[] {
  const { webjobctl, reload } = mends;
  const placed = (name: keyof typeof USUAL_FILES): string[] => {
    const named = directives?.filter((one) => one.name === name).map(({ value }) => splitArguments(value)[0] ?? '');
    const paths = named?.length ? named : [join(etcDirectory, USUAL_FILES[name])];
    return [...new Set(paths)].filter((path) => existsSync(path));
  };
  const authorities = placed('SSLCACertificateFile');
  const judged = [
    ...judgeServers(etcDirectory, directives, mends),
    ...authorities.flatMap((path) => judgeAuthority(path, etcDirectory, directives)),
    ...judgeClients(etcDirectory, directives, mends),
  ];
  // For a certificate that httpd refuses, the number of days does not matter.
  const isRefused = ({ severity, where }: Finding): boolean =>
    severity === 'note' && judged.some((one) => one.severity === 'error' && one.where === where);
  const dated = [
    ...placed('SSLCertificateFile').flatMap((path) =>
      checkDate("the server's certificate", path, `${webjobctl} ca server --prepare  # or have its CA renew it`),
    ),
    ...authorities.flatMap((path) =>
      checkDate(
        'the CA of the clients',
        path,
        `openssl x509 -in ${quote(path)} -noout -subject -dates  # renew it, then ${reload}`,
      ),
    ),
  ];
  return [
    ...judged,
    ...dated.filter((finding) => !isRefused(finding)),
    ...placed('SSLCARevocationFile').flatMap((path) => checkRevocationList(path, mends)),
    ...placed('SSLCertificateKeyFile').flatMap(checkKey),
    ...checkClients(etcDirectory, mends),
  ];
}

function checkDate(what: string, path: string, remedy: string): Finding[] {
  try {
    const { from, until } = certificateDates(path);
    if (from.getTime() > Date.now())
      return [error(`${what} is not valid yet`, path, "date  # is this machine's clock right?")];
    return judge(what, until, path, remedy);
  } catch (failure) {
    return [
      error(
        `${what} cannot be read: ${errorCode(failure)}`,
        path,
        `openssl x509 -in ${quote(path)}  # it must be in PEM`,
      ),
    ];
  }
}

function judge(what: string, until: Date, path: string, remedy: string): Finding[] {
  const days = daysLeft(until);
  if (until.getTime() <= Date.now())
    return [error(`${what} expired ${until.toISOString().slice(0, 10)}`, path, remedy)];
  if (days < SOON) return [warning(`${what} expires in ${countOf(days, 'day')}`, path, remedy)];
  return [note(`${what} is valid for ${countOf(days, 'day')}`, path)];
}

/** After the list's date httpd refuses everyone. */
function checkRevocationList(path: string, { webjobctl, reload }: Mends): Finding[] {
  const until = revocationListEnd(path);
  const isHere = existsSync(join(dirname(path), AUTHORITY_FOLDER));
  const remedy = isHere
    ? `${webjobctl} ca crl && ${reload}`
    : `${webjobctl} ca install webjob-ca.crl && ${reload}  # with the list that webjobctl ca crl makes where the CA is kept`;
  if (!until) return [error('the file is not a revocation list', path, remedy)];
  return judge('the revocation list', until, path, remedy);
}

function checkKey(path: string): Finding[] {
  if ((statSync(path).mode & 0o077) === 0) return [];
  return [
    error(
      'others can read the private key',
      path,
      `chmod 600 ${quote(path)}  # and make another one, with its certificate`,
    ),
  ];
}

function checkClients(etcDirectory: string, { webjobctl }: Mends): Finding[] {
  const ending = listEnding(etcDirectory, SOON * 86_400).map(({ client }) => client);
  if (ending.length === 0) return [];
  const what = `certificates of clients expire within ${SOON} days or have expired: ${ending.slice(0, 5).join(', ')}`;
  const remedy = `${webjobctl} client list --expiring ${SOON}d  # then ${webjobctl} client renew CLIENT for each`;
  return [warning(what, etcDirectory, remedy)];
}
