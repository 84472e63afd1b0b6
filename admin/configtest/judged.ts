// Checks whether httpd will accept its own certificates and keys when it starts, which -t does not
// test, and those of clients. openssl loads them as httpd does: it has the same library, and
// therefore the same security level, unless SSLCipherSuite sets another.
import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { quote } from '../../cli/shell.ts';
import { listCertificates } from '../clients/certificates.ts';
import { AUTHORITY_FOLDER } from '../site/authority.ts';
import { askProgram } from '../site/programs.ts';
import { error, type Finding, warning } from './finding.ts';
import { type Directive, splitArguments } from './httpd.ts';
import type { Mends } from './mends.ts';

/** A certificate that httpd serves, with the settings of its virtual host. */
interface Served {
  certificate: string;
  key: string;
  /** The value of SSLCipherSuite; undefined for the library's default. */
  ciphers: string | undefined;
  isKeyEncrypted: boolean;
}

/** Reports the server's certificates that httpd or clients refuse, regardless of dates. */
export function judgeServers(
  etcDirectory: string,
  directives: readonly Directive[] | undefined,
  mends: Pick<Mends, 'reload'>,
): Finding[] {
  const usual = { certificate: join(etcDirectory, 'webjob-server.crt'), key: join(etcDirectory, 'webjob-server.key') };
  const found = directives ? findServed(directives) : [];
  const served =
    found.length > 0 ? found : [{ ...usual, ciphers: findCiphers(directives ?? []), isKeyEncrypted: false }];
  const isNew = (one: Served, at: number): boolean =>
    served.findIndex((other) => JSON.stringify(other) === JSON.stringify(one)) === at;
  return served.filter(isNew).flatMap((one) => (existsSync(one.certificate) ? judgeServer(one, mends.reload) : []));
}

/**
 * Reports a CA that is too weak for every security level in use: httpd then refuses all clients,
 * whatever their certificates.
 */
export function judgeAuthority(
  path: string,
  etcDirectory: string,
  directives: readonly Directive[] | undefined,
): Finding[] {
  const reason = findRefusal(path, findLevels(etcDirectory, directives ?? []));
  if (reason === undefined) return [];
  const what = `httpd refuses all clients because their CA is too weak: ${reason}`;
  return [error(what, path, 'webjobctl ca make webjob-ca.new')];
}

/**
 * Reports the newest certificates of clients that httpd refuses at every security level in use,
 * regardless of dates.
 */
export function judgeClients(
  etcDirectory: string,
  directives: readonly Directive[] | undefined,
  { webjobctl }: Pick<Mends, 'webjobctl'>,
): Finding[] {
  const levels = findLevels(etcDirectory, directives ?? []);
  return [...groupClients(etcDirectory).values()].flatMap(({ path, clients }) => {
    const reason = findRefusal(path, levels);
    if (reason === undefined) return [];
    const [first = ''] = clients;
    const more = clients.length > 5 ? ` and ${clients.length - 5} more` : '';
    const why = reason.replace('its key is', 'their keys are').replace('its signature is', 'their signatures are');
    const what = `httpd refuses certificates of clients, for ${why}: ${clients.slice(0, 5).join(', ')}${more}`;
    const renew = `${webjobctl} client renew ${first}${reason.includes('key') ? ' --new-key' : ''}`;
    return [error(what, etcDirectory, `${renew}  # repeat for each, and copy what it writes to the client`)];
  });
}

/**
 * Groups clients whose newest certificates have the same key size and signature algorithm, because
 * a result for one applies to all.
 */
function groupClients(etcDirectory: string): Map<string, { path: string; clients: string[] }> {
  const groups = new Map<string, { path: string; clients: string[] }>();
  const valid = listCertificates(etcDirectory).filter(({ state }) => state === 'valid');
  for (const [client, serial] of new Map(valid.map((one) => [one.client, one.serial]))) {
    const path = join(etcDirectory, AUTHORITY_FOLDER, 'issued', `${serial}.pem`);
    const certificate = readCertificate(path);
    if (certificate === undefined) continue;
    const kind = `${describeKey(path)} ${certificate.publicKey.asymmetricKeyType} ${readAlgorithm(certificate.raw)}`;
    const group = groups.get(kind) ?? { path, clients: [] };
    groups.set(kind, group);
    group.clients.push(client);
  }
  return groups;
}

/** The signatureAlgorithm of a certificate, after its first part (RFC 5280, section 4.1). */
function readAlgorithm(der: Buffer): string {
  const skip = (at: number): { content: number; end: number } => {
    const first = der[at + 1] ?? 0;
    const count = first < 0x80 ? 0 : first - 0x80;
    const length = count === 0 ? first : der.readUIntBE(at + 2, count);
    return { content: at + 2 + count, end: at + 2 + count + length };
  };
  const algorithm = skip(skip(0).content).end;
  return der.toString('hex', algorithm, skip(algorithm).end);
}

/**
 * For each virtual host, a key to load certificates with, and its SSLCipherSuite. A key of 2048
 * bits is too small for some levels.
 */
type Level = Pick<Served, 'key' | 'ciphers'>;

function findLevels(etcDirectory: string, directives: readonly Directive[]): Level[] {
  const served: Level[] = findServed(directives);
  const usual = { key: join(etcDirectory, 'webjob-server.key'), ciphers: findCiphers(directives) };
  const levels = (served.length > 0 ? served : [usual]).filter(({ key }) => existsSync(key));
  return levels.filter((one, at) => levels.findIndex(({ ciphers }) => ciphers === one.ciphers) === at);
}

/** Why every level refuses a certificate; undefined when one accepts it. */
function findRefusal(path: string, levels: readonly Level[]): string | undefined {
  // Any key is sufficient, because a refused certificate is refused before its key is looked at.
  const reasons = levels.map(({ key, ciphers }) => findWeakness(load(path, key, ciphers), path));
  return reasons.every((reason) => reason !== undefined) ? reasons[0] : undefined;
}

function judgeServer(one: Served, reload: string): Finding[] {
  const certificate = readCertificate(one.certificate);
  // checkCertificates() reports a file that is not a certificate.
  if (certificate === undefined) return [];
  const said = load(one.certificate, one.key, one.ciphers);
  const reason = findReason(said, one);
  const remedy = formatRemedy(one, certificate, reload);
  if (reason !== undefined)
    return [error(`httpd refuses the server's certificate: ${reason}`, one.certificate, remedy)];
  const findings: Finding[] = [];
  if (/unable to load|could not (?:read|open)|no start line/i.test(said) && !one.isKeyEncrypted)
    findings.push(error("the server's private key cannot be read", one.key, remedy));
  if (certificate.ca) {
    const what = "the server's certificate is that of a CA: with its key, certificates for other names can be signed";
    findings.push(warning(what, one.certificate, remedy));
  }
  return findings;
}

/** The errors of OpenSSL when it loads a certificate and key. Nothing connects to the socket. */
function load(certificate: string, key: string, ciphers: string | undefined): string {
  const level = ciphers === undefined ? [] : ['-cipher', ciphers];
  const pair = ['-cert', certificate, '-key', key, '-pass', 'pass:'];
  return askProgram('openssl', ['s_client', '-unix', '/nonexistent/webjob', ...level, ...pair]).stderr;
}

function findReason(said: string, { certificate, key }: Served): string | undefined {
  const weakness = findWeakness(said, certificate);
  if (weakness !== undefined) return weakness;
  if (said.includes('key values mismatch') || said.includes('key type mismatch'))
    return `${key} is the key of another certificate`;
  return undefined;
}

function findWeakness(said: string, certificate: string): string | undefined {
  if (said.includes('key too small')) return `its key is too small (${describeKey(certificate)})`;
  return said.includes('md too weak') ? `its signature is too weak (${describeSignature(certificate)})` : undefined;
}

function readCertificate(path: string): X509Certificate | undefined {
  try {
    return new X509Certificate(readFileSync(path));
  } catch {
    return undefined;
  }
}

function describeKey(path: string): string {
  const details = readCertificate(path)?.publicKey;
  const size = details?.asymmetricKeyDetails?.modulusLength;
  return size === undefined ? String(details?.asymmetricKeyType) : `${size} bits`;
}

function describeSignature(path: string): string {
  const { stdout } = askProgram('openssl', ['x509', '-in', path, '-noout', '-text']);
  return /Signature Algorithm: (\S+)/.exec(stdout)?.[1] ?? 'unknown';
}

/**
 * The remedy: a self-signed certificate is made again; for any other a request is made for its CA.
 */
function formatRemedy({ certificate: path, key }: Served, certificate: X509Certificate, reload: string): string {
  const name = /^CN=(.*)$/m.exec(certificate.subject)?.[1] ?? 'webjob.example.com';
  const quoted = /^[\w.:-]+$/.test(name) ? name : 'webjob.example.com';
  const subject = `-subj /CN=${quoted} -addext subjectAltName=${isIP(quoted) ? 'IP' : 'DNS'}:${quoted}`;
  const make = 'openssl req -newkey rsa:2048 -nodes';
  if (certificate.issuer !== certificate.subject)
    return `${make} -new ${subject} -keyout ${quote(`${path}.key`)} -out ${quote(`${path}.csr`)}`;
  const own = '-x509 -days 3650 -addext basicConstraints=critical,CA:FALSE';
  return `${make} ${own} ${subject} -keyout ${quote(key)} -out ${quote(path)} && ${reload}`;
}

/**
 * The certificates by virtual host, in the order of the configuration. Directives outside of
 * virtual hosts apply to all.
 */
function findServed(directives: readonly Directive[]): Served[] {
  const main = directives.filter(({ sections }) => !sections[0]?.startsWith('VirtualHost'));
  const isKeyEncrypted = directives.some(({ name }) => name === 'SSLPassPhraseDialog');
  return [main, ...splitHosts(directives)].flatMap((host) => {
    const read = (wanted: string): string[] =>
      host
        .filter(({ name, sections }) => name === wanted && sections.length < 2)
        .flatMap(({ value }) => splitArguments(value));
    const keys = read('SSLCertificateKeyFile');
    const ciphers = findCiphers(host) ?? findCiphers(main);
    return read('SSLCertificateFile').map((certificate, at) => {
      return { certificate, key: keys[at] ?? certificate, ciphers, isKeyEncrypted };
    });
  });
}

/**
 * Two virtual hosts with one address have the same section: the second ServerName begins the second
 * one.
 */
function splitHosts(directives: readonly Directive[]): Directive[][] {
  const hosts: Directive[][] = [];
  let section: string | undefined;
  for (const one of directives) {
    const [first = ''] = one.sections;
    const isName = one.name === 'ServerName' && one.sections.length === 1;
    if (first.startsWith('VirtualHost')) {
      const isSecond = isName && hosts.at(-1)?.some(({ name }) => name === 'ServerName');
      if (first !== section || isSecond) hosts.push([]);
      hosts.at(-1)?.push(one);
    }
    section = first;
  }
  return hosts;
}

/**
 * `HIGH:@SECLEVEL=0` of `SSLCipherSuite SSL HIGH:@SECLEVEL=0`; the one for TLS 1.3 sets no level.
 */
function findCiphers(host: readonly Directive[]): string | undefined {
  const suites = host
    .filter(({ name, sections }) => name === 'SSLCipherSuite' && sections.length < 2)
    .map(({ value }) => splitArguments(value))
    .filter(([first = '']) => first !== 'TLSv1.3');
  return suites.at(-1)?.at(-1);
}
