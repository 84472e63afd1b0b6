// Certificates of clients, by the site's CA: issued, listed, revoked. What openssl writes down in index.txt is the record.
import { X509Certificate } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AUTHORITY_FOLDER, openAuthority, writeRevocationList } from '../authority.ts';
import { Failure } from '../failure.ts';
import { errorCode, replaceFile } from '../files.ts';
import { withLock } from '../lockfile.ts';
import { runProgram, withPrivateUmask } from '../programs.ts';

export interface Certificate {
  client: string;
  serial: string;
  from: Date;
  until: Date;
  state: 'valid' | 'expired' | 'revoked';
}

export interface Issued {
  certificate: string;
  /** Undefined when the key is the client's own and was never here. */
  key: string | undefined;
  request: string;
}

/** All that the CA ever issued, the oldest first; none where there is no CA. */
export function listCertificates(etcDirectory: string): Certificate[] {
  const folder = join(etcDirectory, AUTHORITY_FOLDER);
  try {
    return readFileSync(join(folder, 'index.txt'), 'utf8')
      .split('\n')
      .filter(Boolean)
      .map((line) => readCertificate(folder, line));
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT' && !existsSync(folder)) return [];
    throw new Failure('failed', `the CA in ${folder} cannot be read: ${code}`);
  }
}

/** `V 261124…Z <tab> <tab> serial unknown /CN=client1`: the state is openssl's, the dates are the certificate's own. */
function readCertificate(folder: string, line: string): Certificate {
  const [state = '', , , serial = '', , subject = ''] = line.split('\t');
  const certificate = new X509Certificate(readFileSync(join(folder, 'issued', `${serial}.pem`)));
  const until = certificate.validToDate;
  return {
    ...{ client: /\/CN=([^/]*)/.exec(subject)?.[1] ?? '', serial, from: certificate.validFromDate, until },
    state: state === 'R' ? 'revoked' : until.getTime() <= Date.now() ? 'expired' : 'valid',
  };
}

/** The certificate that a client uses by now: of those that are not revoked the one that lasts longest. */
export function findLatest(certificates: readonly Certificate[], client: string): Certificate | undefined {
  return certificates
    .filter((certificate) => certificate.client === client && certificate.state !== 'revoked')
    .reduce<Certificate | undefined>((best, next) => (best && best.until > next.until ? best : next), undefined);
}

/** Issues a certificate: for a request of the client's, for the key it has by now, or for a new key. Throws Failure `failed`. */
export function issueCertificate(
  etcDirectory: string,
  client: string,
  days: number,
  source: { requestFile: string } | 'new key' | 'same key',
): Issued {
  const folder = openAuthority(etcDirectory);
  const desk = mkdtempSync(join(folder, '.desk-'));
  try {
    const [key, request, certificate] = ['key', 'csr', 'crt'].map((name) => join(desk, name)) as [
      string,
      string,
      string,
    ];
    withPrivateUmask(() => {
      if (source === 'new key') {
        const made = ['-subj', `/CN=${client}`, '-keyout', key, '-out', request];
        runProgram('openssl', ['req', '-new', '-newkey', 'rsa:2048', '-nodes', ...made]);
      } else writeFileSync(request, readRequest(folder, client, source));
      // The name is said here once more, because a request may hold any.
      const names = ['-subj', `/CN=${client}`, '-days', String(days)];
      const sign = ['ca', '-config', 'ca.cnf', '-batch', '-notext', ...names, '-in', request, '-out', certificate];
      withLock(join(folder, 'index.txt'), () => {
        runProgram('openssl', sign, { cwd: folder });
        replaceFile(join(folder, `${client}.csr`), readFileSync(request), { mode: 0o600 });
      });
    });
    const read = (path: string): string => readFileSync(path, 'utf8');
    return {
      ...{ certificate: read(certificate), request: read(request) },
      key: source === 'new key' ? read(key) : undefined,
    };
  } finally {
    rmSync(desk, { recursive: true, force: true });
  }
}

function readRequest(folder: string, client: string, source: { requestFile: string } | 'same key'): Buffer {
  const path = source === 'same key' ? join(folder, `${client}.csr`) : source.requestFile;
  try {
    return readFileSync(path);
  } catch (error) {
    const hint = source === 'same key' ? '--new-key makes a key, too' : undefined;
    throw new Failure('failed', `the request ${path} cannot be read: ${errorCode(error)}`, hint);
  }
}

/** Revokes certificates and makes the list of them anew. httpd reads it when it starts. */
export function revokeCertificates(etcDirectory: string, serials: readonly string[]): void {
  const folder = join(etcDirectory, AUTHORITY_FOLDER);
  withLock(join(folder, 'index.txt'), () => {
    for (const serial of serials)
      runProgram('openssl', ['ca', '-config', 'ca.cnf', '-revoke', join('issued', `${serial}.pem`)], { cwd: folder });
    writeRevocationList(etcDirectory);
  });
}
