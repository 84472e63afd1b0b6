// When what has a date ends: certificates of servers and authorities, lists of revoked certificates, the clients' certificates.
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { askProgram } from '../site/programs.ts';
import { type Certificate, findLatest, listCertificates } from './certificates.ts';

/** What a directive of httpd names where init has set the site up, beside nph-webjob.cfg. */
export const USUAL_FILES = {
  SSLCertificateFile: 'webjob-server.crt',
  SSLCertificateKeyFile: 'webjob-server.key',
  SSLCACertificateFile: 'webjob-ca.crt',
  SSLCARevocationFile: 'webjob-ca.crl',
} as const;

/** From when until when a certificate is good. Throws for what is none. */
export function certificateDates(path: string): { from: Date; until: Date } {
  const { validFromDate, validToDate } = new X509Certificate(readFileSync(path));
  return { from: validFromDate, until: validToDate };
}

/** When a list of revoked certificates ends, after which httpd refuses everybody; undefined for what is none. */
export function revocationListEnd(path: string): Date | undefined {
  const { stdout } = askProgram('openssl', ['crl', '-in', path, '-noout', '-nextupdate']);
  const until = new Date(/^nextUpdate=(.*)$/m.exec(stdout)?.[1] ?? '');
  return Number.isNaN(until.getTime()) ? undefined : until;
}

/** The newest certificates of clients that have ended or end within so many seconds, by client. */
export function listEnding(etcDirectory: string, seconds: number): Certificate[] {
  const certificates = listCertificates(etcDirectory);
  return [...new Set(certificates.map(({ client }) => client))].flatMap((client) => {
    const latest = findLatest(certificates, client);
    return latest && latest.until.getTime() - Date.now() < seconds * 1000 ? [latest] : [];
  });
}
