// The small CA of a site, and the server's own certificate: openssl makes them, as docs/guide/authentication.md shows by hand. Everything
// here is made in a private folder first and appears whole.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { syncFolder } from 'webjob-locker/durable';
import { createFile, removeUnfinished, replaceFile, syncTree } from '../../cli/files.ts';
import { withLock } from '../../cli/lockfile.ts';
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
  const [certificate, list] = [join(etcDirectory, 'webjob-ca.crt'), revocationListOf(etcDirectory)];
  if ([folder, certificate, list].every((path) => existsSync(path))) return folder;
  withLock(folder, () => {
    for (const path of [certificate, list]) removeUnfinished(path);
    if (!existsSync(folder)) makeInPrivate(certificate, makeAuthority, (made) => renameSync(made, folder));
    if (!existsSync(certificate)) createFile(certificate, readFileSync(join(folder, 'ca.crt')), { mode: 0o644 });
    if (!existsSync(list)) replaceFile(list, makeRevocationList(folder, '.'), { mode: 0o644 });
  });
  return folder;
}

function makeAuthority(folder: string): void {
  writeFileSync(join(folder, 'ca.cnf'), CONFIGURATION);
  writeFileSync(join(folder, 'index.txt'), '');
  mkdirSync(join(folder, 'issued'));
  const names = ['-subj', '/CN=WebJob clients', '-keyout', 'ca.key', '-out', 'ca.crt'];
  const make = ['req', '-x509', '-config', 'ca.cnf', '-newkey', 'rsa:2048', '-nodes', '-days', '3650', ...names];
  runProgram('openssl', make, { cwd: folder });
}

/** Where httpd reads the list of revoked certificates when it starts. */
export const revocationListOf = (etcDirectory: string): string => join(etcDirectory, 'webjob-ca.crl');

/** The list of revoked certificates by the index.txt in a folder; `authority` is the CA's folder as seen from there. */
export function makeRevocationList(folder: string, authority: string): string {
  return runProgram('openssl', ['ca', ...authorityOptions(authority), '-gencrl'], { cwd: folder });
}

/** For `openssl ca`, run where index.txt and issued/ are. */
export function authorityOptions(authority: string): string[] {
  const own = (name: string): string => join(authority, name);
  return ['-config', own('ca.cnf'), '-cert', own('ca.crt'), '-keyfile', own('ca.key')];
}

/** A self-signed certificate for a server, unless there is one: webjob-server.key and .crt. */
export function makeServerCertificate(etcDirectory: string, name: string): void {
  const key = join(etcDirectory, 'webjob-server.key');
  const certificate = join(etcDirectory, 'webjob-server.crt');
  withLock(certificate, () => {
    removeUnfinished(key);
    if (existsSync(certificate)) return;
    const isNew = !existsSync(key);
    const source = isNew ? ['-newkey', 'rsa:2048', '-nodes', '-keyout', 'key'] : ['-key', key];
    const names = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=${isIP(name) ? 'IP' : 'DNS'}:${name}`];
    const make = ['req', '-x509', ...source, '-days', '3650', ...names, '-out', 'crt'];
    makeInPrivate(
      certificate,
      (folder) => runProgram('openssl', make, { cwd: folder }),
      (folder) => {
        if (isNew) createFile(key, readFileSync(join(folder, 'key')), { mode: 0o600 });
        createFile(certificate, readFileSync(join(folder, 'crt')), { mode: 0o644 });
      },
    );
  });
}

/**
 * Lets `make` work in a folder beside `path` that is its owner's alone, and `place` take from it what is on disk. What killed runs left there is
 * taken away first: so only under a lock.
 */
export function makeInPrivate(path: string, make: (folder: string) => void, place: (folder: string) => void): void {
  removeUnfinished(path);
  const folder = mkdtempSync(join(dirname(path), `.${basename(path)}.new-`));
  try {
    withPrivateUmask(() => make(folder));
    syncTree(folder);
    place(folder);
    syncFolder(dirname(path));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
