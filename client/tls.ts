// TLS: the handshake, then every check that the settings require, each with its own error message
// (docs/protocol.md, section 7).
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIP, type Socket } from 'node:net';
import {
  type ConnectionOptions,
  checkServerIdentity,
  connect,
  createSecureContext,
  type DetailedPeerCertificate,
  type TLSSocket,
} from 'node:tls';
import { decodeUtf8 } from './bytes.ts';
import { Failure, WireError, warn } from './failure.ts';
import { askPassPhrase } from './passphrase.ts';
import type { ClientSettings } from './settings.ts';
import { printable } from './status.ts';

/** Secures a connection to a host. Sends nothing but the handshake. Throws WireError. */
export type Secure = (host: string, plain: Socket, signal: AbortSignal | undefined) => Promise<TLSSocket>;

/** Reads the TLS files. Throws Failure `settings` for an unusable file or pass phrase. */
export async function prepareSecurity(settings: ClientSettings): Promise<Secure> {
  warnUnchecked(settings);
  const ca = settings.sslBundledCAsFile === '' ? undefined : readBundle(settings.sslBundledCAsFile);
  // The ciphers of old servers are below the level that OpenSSL considers secure.
  const level = isOld(settings) ? { ciphers: 'DEFAULT@SECLEVEL=0' } : {};
  const options: ConnectionOptions = {
    ...(await credentialsOf(settings, level)),
    ...(ca && { ca }),
    minVersion: settings.sslMinVersion,
    ...level,
    // The chain is checked below, where the reason can be reported. The host name is checked only
    // with SSLVerifyHost.
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
  };
  return async (host, plain, signal) => {
    const secure = connect({ ...options, socket: plain, ...(isIP(host) === 0 && { servername: host }) });
    const stop = (): unknown => secure.destroy(signal?.reason);
    signal?.addEventListener('abort', stop);
    try {
      await untilSecure(secure);
      checkPeer(settings, host, secure);
      return secure;
    } catch (error) {
      secure.destroy();
      throw error;
    } finally {
      signal?.removeEventListener('abort', stop);
    }
  };
}

/** Whether old protocol versions were requested; they imply small keys and SHA-1. */
const isOld = ({ sslMinVersion }: ClientSettings): boolean => /v1(?:\.1)?$/.test(sslMinVersion);

let isWarned = false;

/** Warns once per run, not for every connection, that certificates are not checked. */
function warnUnchecked({ sslVerifyHost, sslVerifyPeerCert }: ClientSettings): void {
  if (isWarned || sslVerifyHost || sslVerifyPeerCert) return;
  isWarned = true;
  warn("the server's certificate is not checked: set SSLVerifyHost=Y, or SSLVerifyPeerCert=Y and SSLBundledCAsFile");
}

function untilSecure(secure: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    // A time limit ends both sockets, and each of them emits an error.
    secure.once('secureConnect', resolve).on('error', reject);
    secure.once('close', () => reject(new WireError('TLS failed: the server closed the connection', 0)));
  });
}

interface Credentials {
  cert?: Buffer;
  key?: Buffer;
  passphrase?: string;
}

async function credentialsOf(settings: ClientSettings, level: { ciphers?: string }): Promise<Credentials> {
  if (!settings.sslUseCertificate) return {};
  const cert = readPem('SSLPublicCertFile', settings.sslPublicCertFile);
  const key = readPem('SSLPrivateKeyFile', settings.sslPrivateKeyFile);
  const passphrase = await askPassPhrase(settings, key);
  try {
    const credentials = { cert, ...(passphrase === undefined ? { key } : unlock(key, passphrase)) };
    createSecureContext({ ...credentials, ...level });
    checkPair(credentials);
    return credentials;
  } catch (error) {
    if (error instanceof Failure) throw error;
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ERR_OSSL_X509_KEY_VALUES_MISMATCH') throw mismatch('');
    if (/_TOO_(?:SMALL|WEAK)$/.test(code ?? ''))
      throw new Failure(
        'settings',
        `SSLPublicCertFile is refused: ${/SMALL$/.test(code ?? '') ? 'its key is too small' : 'its signature is too weak'}`,
        `it needs a 2048-bit key and a SHA-256 signature; ${OLD_HINT}`,
      );
    throw new Failure(
      'settings',
      `SSLPrivateKeyFile and SSLPublicCertFile cannot be used: ${code ?? 'not PEM'}`,
      'check the pass phrase, and that both files are PEM',
    );
  }
}

/**
 * Checks that a key and certificate match. OpenSSL keeps one pair for each type, so it accepts an
 * EC key with an RSA certificate and then uses neither. Throws Failure `settings`, and the errors
 * of node:crypto.
 */
function checkPair({ cert, key, passphrase }: Required<Pick<Credentials, 'cert' | 'key'>> & Credentials): void {
  const certificate = new X509Certificate(cert);
  const own = createPrivateKey({ key, ...(passphrase !== undefined && { passphrase }) });
  const [its, mine] = [certificate.publicKey, own].map(({ asymmetricKeyType }) => asymmetricKeyType);
  if (its !== mine) throw mismatch(`: that is of type ${its}, and the key of type ${mine}`);
}

function mismatch(types: string): Failure {
  return new Failure(
    'settings',
    `SSLPrivateKeyFile is not the key of the certificate in SSLPublicCertFile${types}`,
    'name the two files of one pair',
  );
}

/** Decrypts a key whose pass phrase is not UTF-8, because node:tls takes pass phrases as text. */
function unlock(key: Buffer, bytes: string): { key: Buffer; passphrase?: string } {
  const passphrase = decodeUtf8(bytes);
  if (passphrase !== undefined) return { key, passphrase };
  const opened = createPrivateKey({ key, passphrase: Buffer.from(bytes, 'latin1') });
  return { key: Buffer.from(opened.export({ type: 'pkcs8', format: 'pem' })) };
}

/** Reads a CA bundle. OpenSSL would accept any file as an empty bundle. */
function readBundle(path: string): Buffer {
  const bundle = readPem('SSLBundledCAsFile', path);
  if (!bundle.includes('-----BEGIN CERTIFICATE-----'))
    throw new Failure('settings', `SSLBundledCAsFile: ${path} contains no certificate in PEM`);
  return bundle;
}

function readPem(control: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new Failure('settings', `${control}: ${path} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
}

function checkPeer(settings: ClientSettings, host: string, secure: TLSSocket): void {
  const chain = chainOf(secure.getPeerCertificate(true));
  const [certificate] = chain;
  const isRefused = (settings.sslVerifyPeerCert || settings.sslVerifyHost) && !secure.authorized;
  const weakness = isRefused && secure.authorizationError?.toString() === UNNAMED ? findWeakness(chain) : undefined;
  if (weakness !== undefined) throw refusal(`is too weak: ${weakness}`, `the server needs a better one; ${OLD_HINT}`);
  if (isRefused)
    throw refusal(`is not trusted: ${secure.authorizationError}`, hintAt(String(secure.authorizationError), chain));
  if (settings.sslVerifyPeerCert) {
    const above = chain.length - 1;
    if (above > settings.sslMaxChainLength)
      throw refusal(`has a chain of ${above}, over SSLMaxChainLength`, `SSLMaxChainLength=${above} accepts it`);
    if (settings.sslExpectedPeerCN !== '' && certificate.subject?.CN !== settings.sslExpectedPeerCN) {
      const why = "the CN of the server's certificate is not SSLExpectedPeerCN";
      throw new WireError(why, undefined, `its CN is ${nameOf(certificate.subject)}`);
    }
  }
  if (settings.sslVerifyHost && checkServerIdentity(host, certificate))
    throw refusal(`is not for ${host}`, `it is for ${namesOf(certificate)}: use such a name in the URL`);
}

function refusal(why: string, hint: string): WireError {
  return new WireError(`the server's certificate ${why}`, undefined, hint);
}

/** Node's code for reasons without a name, among them weak signatures and keys. */
const UNNAMED = 'UNSPECIFIED';
const OLD_HINT = 'SSLMinVersion=TLSv1 accepts this one, but also old protocols';
const SMALLEST_RSA = 2048;
/**
 * DER-encoded algorithm identifiers of md5WithRSAEncryption, sha1WithRSAEncryption and
 * ecdsa-with-SHA1 (RFC 8017, appendix C; RFC 3279).
 */
const WEAK_SIGNATURES = { MD5: ['06092a864886f70d010104'], 'SHA-1': ['06092a864886f70d010105', '06072a8648ce3d0401'] };

/** Describes the first certificate of a chain that OpenSSL's current security level rejects. */
function findWeakness(chain: readonly DetailedPeerCertificate[]): string | undefined {
  for (const { subject, issuer, bits, modulus, raw } of chain) {
    const name = nameOf(subject);
    if (modulus !== undefined && bits !== undefined && bits < SMALLEST_RSA)
      return `the key of ${name} has ${bits} bits`;
    // The signature of a self-signed certificate does not matter to those who trust it.
    if (JSON.stringify(subject) === JSON.stringify(issuer)) continue;
    for (const [digest, codes] of Object.entries(WEAK_SIGNATURES))
      if (codes.some((code) => raw.includes(Buffer.from(code, 'hex'))))
        return `that of ${name} is signed with ${digest}`;
  }
  return undefined;
}

/** The remedy for an untrusted chain, by OpenSSL's name for the reason. */
function hintAt(reason: string, chain: readonly DetailedPeerCertificate[]): string {
  const now = new Date();
  const outdated = chain.find((one) => now < new Date(one.valid_from) || now > new Date(one.valid_to)) ?? chain[0];
  if (/^CERT_(?:NOT_YET_VALID|HAS_EXPIRED)$/.test(reason)) {
    const [from, to] = [outdated?.valid_from, outdated?.valid_to].map((text) => formatTime(new Date(text ?? '')));
    const whose = `the certificate of ${nameOf(outdated?.subject)}`;
    return `the clock of this machine says ${formatTime(now)}, and ${whose} is valid from ${from} to ${to}: set the clock, or renew it`;
  }
  const issuer = nameOf(chain.at(-1)?.issuer);
  return `put the certificate of its CA, ${issuer}, into the file that SSLBundledCAsFile names; the server must send the CAs between`;
}

function formatTime(time: Date): string {
  return Number.isNaN(time.getTime()) ? 'unknown' : time.toISOString().replace(/\.\d+/, '');
}

/** A name chosen by a server, made safe for the terminal. */
function nameOf(name: DetailedPeerCertificate['subject'] | undefined): string {
  return printable(String(name?.CN ?? name?.O ?? 'none'));
}

function namesOf({ subject, subjectaltname }: DetailedPeerCertificate): string {
  return subjectaltname === undefined ? nameOf(subject) : printable(subjectaltname);
}

/**
 * The chain from the server's own certificate up to the self-signed one: two certificates if the CA
 * in the bundle issued the server's.
 */
function chainOf(certificate: DetailedPeerCertificate): [DetailedPeerCertificate, ...DetailedPeerCertificate[]] {
  const { issuerCertificate: issuer } = certificate;
  return issuer && issuer !== certificate ? [certificate, ...chainOf(issuer)] : [certificate];
}
