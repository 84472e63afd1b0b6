// The small CA of a site, and the server's own certificate, made by openssl as
// docs/guide/authentication.md shows by hand. Everything is made in a private directory first and
// appears as a whole.
import { X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { basename, dirname, join, resolve } from 'node:path';
import { syncFolder } from 'webjob-locker/durable';
import { Failure } from '../../cli/failure.ts';
import { createFile, errorCode, removeUnfinished, replaceFile, syncTree } from '../../cli/files.ts';
import { withLock } from '../../cli/lockfile.ts';
import { askProgram, runProgram, withPrivateUmask } from './programs.ts';

/**
 * The CA's directory, below that of nph-webjob.cfg. Anyone who can read it can impersonate every
 * client.
 */
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

/**
 * The directory of a site's CA, created if it does not exist. ca.crt and the first revocation list
 * are put beside it for httpd.
 */
export function openAuthority(etcDirectory: string): string {
  const folder = join(etcDirectory, AUTHORITY_FOLDER);
  const [certificate, list] = [join(etcDirectory, 'webjob-ca.crt'), revocationListOf(etcDirectory)];
  if ([folder, certificate, list].every((path) => existsSync(path))) return folder;
  if (!existsSync(folder) && existsSync(certificate))
    throw new Failure(
      'failed',
      `the key of the CA in ${certificate} is not kept here`,
      'sign there: webjobctl ca sign, webjobctl ca revoke; then webjobctl ca install',
    );
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

/** The path of the revocation list, which httpd reads when it starts. */
export const revocationListOf = (etcDirectory: string): string => join(etcDirectory, 'webjob-ca.crl');

/**
 * Makes a revocation list from the index.txt in a directory; `authority` is the path of the CA
 * relative to it.
 */
export function makeRevocationList(folder: string, authority: string, days?: number): string {
  const until = days === undefined ? [] : ['-crldays', String(days)];
  return runProgram('openssl', ['ca', ...authorityOptions(authority), '-gencrl', ...until], { cwd: folder });
}

/**
 * Renews the revocation list before it expires, because after its date httpd refuses everyone.
 * Returns its path.
 */
export function renewRevocationList(etcDirectory: string, days: number | undefined): string {
  const folder = openAuthority(etcDirectory);
  const list = revocationListOf(etcDirectory);
  // Locked as by client remove: the list is made from the index, which must not change meanwhile.
  withLock(join(folder, 'index.txt'), () => {
    removeUnfinished(list);
    replaceFile(list, makeRevocationList(folder, '.', days), { mode: 0o644 });
  });
  return list;
}

/** Options for `openssl ca`, run in the directory of index.txt and issued/. */
export function authorityOptions(authority: string): string[] {
  const own = (name: string): string => join(authority, name);
  return ['-config', own('ca.cnf'), '-cert', own('ca.crt'), '-keyfile', own('ca.key')];
}

/**
 * The configuration for a server certificate that cannot sign others. It has no keyUsage: one that
 * forbids signing certificates keeps clients from recognising it as self-signed.
 */
const SERVER_CONFIGURATION = `[req]
distinguished_name = subject
x509_extensions = server

[subject]

[server]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
`;

const SERVER_DAYS = 3650;

/**
 * Makes a self-signed certificate for a server, webjob-server.key and .crt, unless there is one.
 */
export function makeServerCertificate(etcDirectory: string, name: string): void {
  const key = join(etcDirectory, 'webjob-server.key');
  const certificate = join(etcDirectory, 'webjob-server.crt');
  withLock(certificate, () => {
    removeUnfinished(key);
    if (existsSync(certificate)) return;
    const isNew = !existsSync(key);
    makeInPrivate(
      certificate,
      (folder) => signServer(folder, isNew ? undefined : key, name, SERVER_DAYS),
      (folder) => {
        if (isNew) createFile(key, readFileSync(join(folder, 'key')), { mode: 0o600 });
        createFile(certificate, readFileSync(join(folder, 'crt')), { mode: 0o644 });
      },
    );
  });
}

/** Makes the file crt, and without a key the file key, in a directory. */
function signServer(folder: string, key: string | undefined, name: string, days: number, serial = ''): void {
  writeFileSync(join(folder, 'cnf'), `${SERVER_CONFIGURATION}subjectAltName = ${isIP(name) ? 'IP' : 'DNS'}:${name}\n`);
  const source = key === undefined ? ['-newkey', 'rsa:2048', '-nodes', '-keyout', 'key'] : ['-key', resolve(key)];
  const names = ['-config', 'cnf', '-subj', `${serial}/CN=${name}`, '-days', String(days), '-out', 'crt'];
  runProgram('openssl', ['req', '-x509', ...source, ...names], { cwd: folder });
}

/** The path of the server's next certificate until clients know it. */
export const nextServerCertificateOf = (etcDirectory: string): string => join(etcDirectory, 'webjob-server.next.crt');

/**
 * Makes another self-signed certificate for the server's key. With `isAhead` it waits beside the
 * current one, so that clients can get it first; otherwise it replaces the current one, as does one
 * that has waited. Returns its path. Throws Failure `failed`.
 */
export function renewServerCertificate(etcDirectory: string, days: number, isAhead: boolean): string {
  const [certificate, key] = ['crt', 'key'].map((kind) => join(etcDirectory, `webjob-server.${kind}`)) as [
    string,
    string,
  ];
  const next = nextServerCertificateOf(etcDirectory);
  const name = readServerName(certificate);
  withLock(certificate, () => {
    removeUnfinished(next);
    if (isAhead || !existsSync(next))
      makeInPrivate(
        certificate,
        // OpenSSL looks only at the first of two certificates with the same subject. A client with
        // both would refuse the other, so the subject must be unique.
        (folder) => signServer(folder, key, name, days, `/serialNumber=${Date.now()}`),
        (folder) => replaceFile(isAhead ? next : certificate, readFileSync(join(folder, 'crt')), { mode: 0o644 }),
      );
    else {
      renameSync(next, certificate);
      syncFolder(etcDirectory);
    }
  });
  return isAhead ? next : certificate;
}

function readServerName(path: string): string {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(readFileSync(path));
  } catch (error) {
    throw new Failure('failed', `${path} cannot be read: ${errorCode(error)}`, 'webjobctl init --tls makes one');
  }
  const name = /^CN=(.+)$/m.exec(certificate.subject)?.[1];
  if (name !== undefined && certificate.verify(certificate.publicKey)) return name;
  throw new Failure('failed', `${path} is signed by another CA`, 'renew it with that CA, then reload httpd');
}

/**
 * Installs a revocation list, made where the CA's key is kept, for httpd. Throws Failure `failed`.
 */
export function installRevocationList(etcDirectory: string, file: string): string {
  const [authority, list] = [join(etcDirectory, 'webjob-ca.crt'), revocationListOf(etcDirectory)];
  const ask = (path: string, ...args: string[]): string => {
    const { status, stdout, stderr } = askProgram('openssl', ['crl', '-in', path, '-noout', ...args]);
    return status === 0 ? `${stdout}${stderr}` : '';
  };
  const dateOf = (path: string, name: string): number =>
    new Date(/=(.*)$/m.exec(ask(path, `-${name}`))?.[1] ?? Number.NaN).getTime();
  if (!/verify OK/.test(ask(file, '-CAfile', authority)))
    throw new Failure('failed', `${file} is not a revocation list of the CA in ${authority}`);
  if (!(dateOf(file, 'nextupdate') > Date.now()))
    throw new Failure('failed', `${file} has expired`, 'webjobctl ca crl');
  // An older list would let in clients that a later one has revoked.
  if (dateOf(file, 'lastupdate') < dateOf(list, 'lastupdate'))
    throw new Failure('failed', `${file} is older than ${list}`, 'webjobctl ca crl');
  withLock(list, () => {
    removeUnfinished(list);
    replaceFile(list, readFileSync(file), { mode: 0o644 });
  });
  return list;
}

/**
 * Lets `make` work in a private directory beside `path`, and `place` take files from it when they
 * are on disk. Files that killed runs left there are removed first, so the caller must hold a lock.
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
