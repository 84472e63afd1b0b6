// The small CA of a site, and the server's own certificate: openssl makes them, as docs/guide/authentication.md shows by hand. Everything
// here is made in a private folder first and appears whole.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { dirname, join } from 'node:path';
import { syncFolder } from 'webjob-locker/durable';
import { createFile, replaceFile } from './files.ts';
import { runProgram, withPrivateUmask } from './programs.ts';

/** Below the folder of nph-webjob.cfg: who can read it can make himself any client. */
export const AUTHORITY_FOLDER = 'webjob-ca';

const CONFIGURATION = `# The CA of a WebJob site (docs/guide/authentication.md), kept by webjobctl client.
[ca]
default_ca = webjob

[webjob]
certificate = ca.crt
private_key = ca.key
database = index.txt
new_certs_dir = issued
rand_serial = yes
unique_subject = no
default_md = sha256
default_days = 730
default_crl_days = 365
policy = client_id
x509_extensions = client

[client_id]
commonName = supplied

[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth

[req]
distinguished_name = subject
x509_extensions = authority

[subject]

[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
`;

/** The folder of a site's CA, made when it is not there; ca.crt and the first list of revoked certificates go beside it for httpd. */
export function openAuthority(etcDirectory: string): string {
  const folder = join(etcDirectory, AUTHORITY_FOLDER);
  if (!existsSync(folder)) makeAuthority(folder);
  const certificate = join(etcDirectory, 'webjob-ca.crt');
  if (!existsSync(certificate)) createFile(certificate, readFileSync(join(folder, 'ca.crt')), { mode: 0o644 });
  if (!existsSync(join(etcDirectory, 'webjob-ca.crl'))) writeRevocationList(etcDirectory);
  return folder;
}

function makeAuthority(folder: string): void {
  const unfinished = mkdtempSync(`${folder}.`);
  try {
    withPrivateUmask(() => {
      writeFileSync(join(unfinished, 'ca.cnf'), CONFIGURATION);
      writeFileSync(join(unfinished, 'index.txt'), '');
      mkdirSync(join(unfinished, 'issued'));
      runProgram(
        'openssl',
        [
          ...['req', '-x509', '-config', 'ca.cnf', '-newkey', 'rsa:2048', '-nodes', '-days', '3650'],
          ...['-subj', '/CN=WebJob clients', '-keyout', 'ca.key', '-out', 'ca.crt'],
        ],
        { cwd: unfinished },
      );
    });
    renameSync(unfinished, folder);
    syncFolder(dirname(folder));
  } catch (error) {
    rmSync(unfinished, { recursive: true, force: true });
    throw error;
  }
}

/** Makes the list of revoked certificates anew, where httpd reads it when it starts. */
export function writeRevocationList(etcDirectory: string): void {
  const folder = join(etcDirectory, AUTHORITY_FOLDER);
  const list = runProgram('openssl', ['ca', '-config', 'ca.cnf', '-gencrl'], { cwd: folder });
  replaceFile(join(etcDirectory, 'webjob-ca.crl'), list, { mode: 0o644 });
}

/** A self-signed certificate for a server, unless there is one: webjob-server.key and .crt. */
export function makeServerCertificate(etcDirectory: string, name: string): void {
  const [key, certificate] = ['webjob-server.key', 'webjob-server.crt'].map((file) => join(etcDirectory, file));
  if (key === undefined || certificate === undefined || existsSync(certificate)) return;
  const folder = mkdtempSync(join(etcDirectory, '.webjob-server.'));
  try {
    withPrivateUmask(() =>
      runProgram(
        'openssl',
        [
          ...(existsSync(key)
            ? ['req', '-x509', '-key', key]
            : ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'key']),
          ...[
            '-days',
            '3650',
            '-subj',
            `/CN=${name}`,
            '-addext',
            `subjectAltName=${isIP(name) ? 'IP' : 'DNS'}:${name}`,
          ],
          ...['-out', 'crt'],
        ],
        { cwd: folder },
      ),
    );
    if (!existsSync(key)) createFile(key, readFileSync(join(folder, 'key')), { mode: 0o600 });
    createFile(certificate, readFileSync(join(folder, 'crt')), { mode: 0o644 });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
