// Client certificates of the site's CA: issued, listed, revoked. openssl's index.txt is the
// authoritative list.
import { X509Certificate } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from '../../cli/failure.ts';
import { createFile, errorCode, removeUnfinished, replaceFile } from '../../cli/files.ts';
import { withLock } from '../../cli/lockfile.ts';
import {
  AUTHORITY_FOLDER,
  authorityOptions,
  makeInPrivate,
  makeRevocationList,
  openAuthority,
  revocationListOf,
} from '../site/authority.ts';
import { askProgram, runProgram } from '../site/programs.ts';

/** The name of certificates and users that are made to test httpd; no client can have it. */
export const PROBE_NAME = 'webjobctl probe';

export interface Certificate {
  client: string;
  serial: string;
  from: Date;
  until: Date;
  state: 'valid' | 'expired' | 'revoked';
}

export interface Issued {
  certificate: string;
  /** The private key; undefined when the client made it and it was never on this machine. */
  key: string | undefined;
  /** The request for the certificate; undefined when it was signed elsewhere. */
  request: string | undefined;
}

/** Every certificate that the CA has issued to clients, oldest first; empty without a CA. */
export function listCertificates(etcDirectory: string): Certificate[] {
  const folder = join(etcDirectory, AUTHORITY_FOLDER);
  try {
    return readFileSync(join(folder, 'index.txt'), 'utf8')
      .split('\n')
      .filter(Boolean)
      .map((line) => readCertificate(folder, line))
      .filter(({ client }) => client !== PROBE_NAME);
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT' && !existsSync(folder)) return [];
    throw new Failure('failed', `the CA in ${folder} cannot be read: ${code}`);
  }
}

/**
 * Parses `V 261124…Z <tab> <tab> serial unknown /CN=client1`. The state is openssl's; the dates are
 * taken from the certificate itself.
 */
function readCertificate(folder: string, line: string): Certificate {
  const [state = '', , , serial = '', , subject = ''] = line.split('\t');
  const certificate = new X509Certificate(readFileSync(join(folder, 'issued', `${serial}.pem`)));
  const until = certificate.validToDate;
  return {
    client: /\/CN=([^/]*)/.exec(subject)?.[1] ?? '',
    serial,
    from: certificate.validFromDate,
    until,
    state: state === 'R' ? 'revoked' : until.getTime() <= Date.now() ? 'expired' : 'valid',
  };
}

/**
 * The certificate that a client uses: of those that are not revoked, the one that lasts longest.
 */
export function findLatest(certificates: readonly Certificate[], client: string): Certificate | undefined {
  return certificates
    .filter((certificate) => certificate.client === client && certificate.state !== 'revoked')
    .reduce<Certificate | undefined>((best, next) => (best && best.until > next.until ? best : next), undefined);
}

/**
 * Issues a certificate: for the client's own request, for its current key, or for a new key. Throws
 * Failure `failed`.
 */
export function issueCertificate(
  etcDirectory: string,
  client: string,
  days: number,
  source: { requestFile: string } | 'new key' | 'same key',
): Issued {
  const folder = openAuthority(etcDirectory);
  const given = source === 'new key' ? undefined : readRequest(folder, client, source);
  let issued: Issued | undefined;
  changeAuthority(folder, (copy) => {
    const read = (name: string): string => readFileSync(join(copy, name), 'utf8');
    if (given === undefined) {
      const made = ['-subj', `/CN=${client}`, '-keyout', 'key', '-out', 'csr'];
      runProgram('openssl', ['req', '-new', '-newkey', 'rsa:2048', '-nodes', ...made], { cwd: copy });
    } else writeFileSync(join(copy, 'csr'), given);
    // The name is repeated here, because a request may contain any.
    const names = ['-subj', `/CN=${client}`, '-days', String(days)];
    const sign = ['-batch', '-notext', ...names, '-in', 'csr', '-out', 'crt'];
    runProgram('openssl', ['ca', ...authorityOptions('..'), ...sign], { cwd: copy });
    issued = { certificate: read('crt'), request: read('csr'), key: given === undefined ? read('key') : undefined };
  });
  if (!issued) throw new Error('openssl issued nothing');
  return issued;
}

/**
 * A client's certificate that was signed elsewhere by the site's CA, in PEM. Throws Failure
 * `failed`.
 */
export function readSigned(etcDirectory: string, client: string, file: string): string {
  const authority = join(etcDirectory, 'webjob-ca.crt');
  try {
    const text = readFileSync(file, 'utf8');
    const certificate = new X509Certificate(text);
    if (certificate.subject !== `CN=${client}`)
      throw new Failure('failed', `${file} is not a certificate of ${client}`);
    const { status } = askProgram('openssl', ['verify', '-purpose', 'sslclient', '-CAfile', authority, file]);
    if (status === 0) return text;
    throw new Failure('failed', `${file} is not valid: the CA in ${authority} has not signed it, or it has expired`);
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('failed', `--signed: ${file} is not a certificate in PEM: ${errorCode(error)}`);
  }
}

/**
 * Keeps the request of a client that has its certificate, for the next certificate of the same key.
 */
export function keepRequest(etcDirectory: string, client: string, { request }: Issued): void {
  if (request === undefined) return;
  replaceFile(requestOf(join(etcDirectory, AUTHORITY_FOLDER), client), request, { mode: 0o600 });
}

const requestOf = (folder: string, client: string): string => join(folder, `${client}.csr`);

/**
 * Changes the CA's index in a copy, which then replaces the original as a whole: openssl writes in
 * several steps, and continues for a while when the calling process is killed.
 */
function changeAuthority(folder: string, work: (copy: string) => void): void {
  const index = join(folder, 'index.txt');
  withLock(index, () =>
    makeInPrivate(
      join(folder, 'desk'),
      (copy) => {
        copyFileSync(index, join(copy, 'index.txt'));
        mkdirSync(join(copy, 'issued'));
        work(copy);
      },
      (copy) => {
        removeUnfinished(index);
        for (const name of readdirSync(join(folder, 'issued')))
          if (name.startsWith('.')) rmSync(join(folder, 'issued', name));
        for (const name of readdirSync(join(copy, 'issued')))
          createFile(join(folder, 'issued', name), readFileSync(join(copy, 'issued', name)), { mode: 0o600 });
        replaceFile(index, readFileSync(join(copy, 'index.txt')), { mode: 0o600 });
      },
    ),
  );
}

function readRequest(folder: string, client: string, source: { requestFile: string } | 'same key'): Buffer {
  const path = source === 'same key' ? requestOf(folder, client) : source.requestFile;
  try {
    return readFileSync(path);
  } catch (error) {
    const hint = source === 'same key' ? '--new-key also makes a key' : undefined;
    throw new Failure('failed', `the request ${path} cannot be read: ${errorCode(error)}`, hint);
  }
}

/** Revokes certificates and makes a new revocation list, which httpd reads when it starts. */
export function revokeCertificates(etcDirectory: string, serials: readonly string[]): void {
  const folder = join(etcDirectory, AUTHORITY_FOLDER);
  changeAuthority(folder, (copy) => {
    const revoke = (serial: string): string[] => ['-revoke', join('..', 'issued', `${serial}.pem`)];
    for (const serial of serials)
      runProgram('openssl', ['ca', ...authorityOptions('..'), ...revoke(serial)], { cwd: copy });
    // Before the CA's index changes: if this process is killed here, the certificates are still
    // valid in the index, and the next run revokes them again.
    removeUnfinished(revocationListOf(etcDirectory));
    replaceFile(revocationListOf(etcDirectory), makeRevocationList(copy, '..'), { mode: 0o644 });
  });
}

/** The number of whole days until a time; negative for a time in the past. */
export function daysLeft(until: Date): number {
  return Math.floor((until.getTime() - Date.now()) / 86_400_000);
}
