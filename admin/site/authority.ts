// The small CA of a site, and the server's own certificate: openssl makes them, as docs/guide/authentication.md shows by hand. Everything
// here is made in a private folder first and appears whole.
import { X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { basename, dirname, join, resolve } from 'node:path';
import { syncFolder } from 'webjob-locker/durable';
import { Failure } from '../../cli/failure.ts';
import { createFile, errorCode, removeUnfinished, replaceFile, syncTree } from '../../cli/files.ts';
import { withLock } from '../../cli/lockfile.ts';
import { askProgram, runProgram, withPrivateUmask } from './programs.ts';

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

/** Where httpd reads the list of revoked certificates when it starts. */
export const revocationListOf = (etcDirectory: string): string => join(etcDirectory, 'webjob-ca.crl');

/** The list of revoked certificates by the index.txt in a folder; `authority` is the CA's folder as seen from there. */
export function makeRevocationList(folder: string, authority: string, days?: number): string {
  const until = days === undefined ? [] : ['-crldays', String(days)];
  return runProgram('openssl', ['ca', ...authorityOptions(authority), '-gencrl', ...until], { cwd: folder });
}

/** Renews the list of revoked certificates before it expires: past its date httpd refuses everybody. Returns its path. */
export function renewRevocationList(etcDirectory: string, days: number | undefined): string {
  const folder = openAuthority(etcDirectory);
  const list = revocationListOf(etcDirectory);
  // As client remove does it: the list is by the index, which must not change meanwhile.
  withLock(join(folder, 'index.txt'), () => {
    removeUnfinished(list);
    replaceFile(list, makeRevocationList(folder, '.', days), { mode: 0o644 });
  });
  return list;
}

/** For `openssl ca`, run where index.txt and issued/ are. */
export function authorityOptions(authority: string): string[] {
  const own = (name: string): string => join(authority, name);
  return ['-config', own('ca.cnf'), '-cert', own('ca.crt'), '-keyfile', own('ca.key')];
}

/**
 * Of a server alone: who has its key can sign for nobody. Without keyUsage: one that allows no signing of certificates keeps clients from
 * seeing that this one is signed by itself.
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

/** A self-signed certificate for a server, unless there is one: webjob-server.key and .crt. */
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

/** Makes the file crt, and without a key the file key, in a folder. */
function signServer(folder: string, key: string | undefined, name: string, days: number, serial = ''): void {
  writeFileSync(join(folder, 'cnf'), `${SERVER_CONFIGURATION}subjectAltName = ${isIP(name) ? 'IP' : 'DNS'}:${name}\n`);
  const source = key === undefined ? ['-newkey', 'rsa:2048', '-nodes', '-keyout', 'key'] : ['-key', resolve(key)];
  const names = ['-config', 'cnf', '-subj', `${serial}/CN=${name}`, '-days', String(days), '-out', 'crt'];
  runProgram('openssl', ['req', '-x509', ...source, ...names], { cwd: folder });
}

/** Where the next certificate of the server waits until clients know it. */
export const nextServerCertificateOf = (etcDirectory: string): string => join(etcDirectory, 'webjob-server.next.crt');

/**
 * Another self-signed certificate for the server's key. With `isAhead` it waits beside the one in use, so that clients can be given it first;
 * else it takes its place, and so does one that has waited. Returns its path. Throws Failure `failed`.
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
        // Of two certificates of one subject OpenSSL looks at the first: a client that has both would refuse the other.
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
  throw new Failure('failed', `${path} is signed by another CA`, 'have that one renew it, and httpd reload it');
}

/** Puts a list of revoked certificates, made where the key of the CA is, where httpd reads it. Throws Failure `failed`. */
export function installRevocationList(etcDirectory: string, file: string): string {
  const [authority, list] = [join(etcDirectory, 'webjob-ca.crt'), revocationListOf(etcDirectory)];
  const ask = (path: string, ...args: string[]): string => {
    const { status, stdout, stderr } = askProgram('openssl', ['crl', '-in', path, '-noout', ...args]);
    return status === 0 ? `${stdout}${stderr}` : '';
  };
  const dateOf = (path: string, name: string): number =>
    new Date(/=(.*)$/m.exec(ask(path, `-${name}`))?.[1] ?? Number.NaN).getTime();
  if (!/verify OK/.test(ask(file, '-CAfile', authority)))
    throw new Failure('failed', `${file} is not a list of revoked certificates by the CA in ${authority}`);
  if (!(dateOf(file, 'nextupdate') > Date.now())) throw new Failure('failed', `${file} has ended`, 'webjobctl ca crl');
  // One that somebody has kept would let in whom a later one keeps out.
  if (dateOf(file, 'lastupdate') < dateOf(list, 'lastupdate'))
    throw new Failure('failed', `${file} is older than ${list}`, 'webjobctl ca crl');
  withLock(list, () => {
    removeUnfinished(list);
    replaceFile(list, readFileSync(file), { mode: 0o644 });
  });
  return list;
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
