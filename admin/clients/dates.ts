// Expiry dates: of server and CA certificates, revocation lists, and client certificates.
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { askProgram } from '../site/programs.ts';
import { type Certificate, findLatest, listCertificates } from './certificates.ts';

/** The files beside nph-webjob.cfg that httpd's directives name at a site made by init. */
export const USUAL_FILES = {
  SSLCertificateFile: 'webjob-server.crt',
  SSLCertificateKeyFile: 'webjob-server.key',
  SSLCACertificateFile: 'webjob-ca.crt',
  SSLCARevocationFile: 'webjob-ca.crl',
} as const;

/** The validity period of a certificate. Throws for a file that is not one. */
export function certificateDates(path: string): { from: Date; until: Date } {
  const { validFromDate, validToDate } = new X509Certificate(readFileSync(path));
  return { from: validFromDate, until: validToDate };
}

/**
 * When a revocation list ends, after which httpd refuses everyone; undefined for a file that is not
 * one.
 */
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
