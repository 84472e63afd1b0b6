// TLS: a handshake, and then every check that the settings ask for, each with an error of its own (docs/protocol.md, section 7).
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

/** Makes a connection to a host secure. Nothing but the handshake is sent on it before it is returned. Throws WireError. */
export type Secure = (host: string, plain: Socket, signal: AbortSignal | undefined) => Promise<TLSSocket>;

/** Throws Failure `settings` for a file or a pass phrase that cannot be used. */
export async function prepareSecurity(settings: ClientSettings): Promise<Secure> {
  warnUnchecked(settings);
  const ca = settings.sslBundledCAsFile === '' ? undefined : readBundle(settings.sslBundledCAsFile);
  // What old servers speak is below the level that OpenSSL holds for safe.
  const level = isOld(settings) ? { ciphers: 'DEFAULT@SECLEVEL=0' } : {};
  const options: ConnectionOptions = {
    ...(await credentialsOf(settings, level)),
    ...(ca && { ca }),
    ...{ minVersion: settings.sslMinVersion, ...level },
    // Judged below, where the reason can be told; whose name it is only when SSLVerifyHost asks.
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

/** Old protocols are asked for, and with them small keys and SHA-1. */
const isOld = ({ sslMinVersion }: ClientSettings): boolean => /v1(?:\.1)?$/.test(sslMinVersion);

let isWarned = false;

/** Once, for all connections of a run. */
function warnUnchecked({ sslVerifyHost, sslVerifyPeerCert }: ClientSettings): void {
  if (isWarned || sslVerifyHost || sslVerifyPeerCert) return;
  isWarned = true;
  warn("the server's certificate is not checked: set SSLVerifyHost=Y, or SSLVerifyPeerCert=Y and SSLBundledCAsFile");
}

function untilSecure(secure: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    // A time limit ends both sockets, and each of them tells of it.
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
        `it needs a key of 2048 bits and a signature with SHA-256; ${OLD_HINT}`,
      );
    throw new Failure(
      'settings',
      `SSLPrivateKeyFile and SSLPublicCertFile cannot be used: ${code ?? 'not PEM'}`,
      'is the pass phrase right, and are both files PEM',
    );
  }
}

/**
 * OpenSSL keeps a key and a certificate of each type, so it takes an EC key beside an RSA certificate, and then uses neither. Throws
 * Failure `settings`, and the errors of node:crypto.
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

/** node:tls takes pass phrases as text; one that is not UTF-8 opens the key here. */
function unlock(key: Buffer, bytes: string): { key: Buffer; passphrase?: string } {
  const passphrase = decodeUtf8(bytes);
  if (passphrase !== undefined) return { key, passphrase };
  const opened = createPrivateKey({ key, passphrase: Buffer.from(bytes, 'latin1') });
  return { key: Buffer.from(opened.export({ type: 'pkcs8', format: 'pem' })) };
}

/** OpenSSL takes any file for a bundle, which then holds no CA. */
function readBundle(path: string): Buffer {
  const bundle = readPem('SSLBundledCAsFile', path);
  if (!bundle.includes('-----BEGIN CERTIFICATE-----'))
    throw new Failure('settings', `SSLBundledCAsFile: ${path} holds no certificate in PEM`);
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
      throw refusal(`has a chain of ${above}, over SSLMaxChainLength`, `SSLMaxChainLength=${above} takes it`);
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

/** What Node says for the reasons that it has no name for; weakness is one of them. */
const UNNAMED = 'UNSPECIFIED';
const OLD_HINT = 'SSLMinVersion=TLSv1 takes this one, and old protocols with it';
const SMALLEST_RSA = 2048;
/** As they stand in a certificate: md5WithRSAEncryption, sha1WithRSAEncryption, ecdsa-with-SHA1 (RFC 8017, appendix C; RFC 3279). */
const WEAK_SIGNATURES = { MD5: ['06092a864886f70d010104'], 'SHA-1': ['06092a864886f70d010105', '06072a8648ce3d0401'] };

/** The first thing that OpenSSL's level of today refuses about a chain. */
function findWeakness(chain: readonly DetailedPeerCertificate[]): string | undefined {
  for (const { subject, issuer, bits, modulus, raw } of chain) {
    const name = nameOf(subject);
    if (modulus !== undefined && bits !== undefined && bits < SMALLEST_RSA)
      return `the key of ${name} has ${bits} bits`;
    // Whoever trusts one that signed itself does not look at that signature.
    if (JSON.stringify(subject) === JSON.stringify(issuer)) continue;
    for (const [digest, codes] of Object.entries(WEAK_SIGNATURES))
      if (codes.some((code) => raw.includes(Buffer.from(code, 'hex'))))
        return `that of ${name} is signed with ${digest}`;
  }
  return undefined;
}

/** What to do about a chain that is not trusted, by the name that OpenSSL has for the reason. */
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

/** A name that a server chose, for a terminal. */
function nameOf(name: DetailedPeerCertificate['subject'] | undefined): string {
  return printable(String(name?.CN ?? name?.O ?? 'none'));
}

function namesOf({ subject, subjectaltname }: DetailedPeerCertificate): string {
  return subjectaltname === undefined ? nameOf(subject) : printable(subjectaltname);
}

/** From the server's own up to the one that signed itself: 2 when the CA of the bundle issued it. */
function chainOf(certificate: DetailedPeerCertificate): [DetailedPeerCertificate, ...DetailedPeerCertificate[]] {
  const { issuerCertificate: issuer } = certificate;
  return issuer && issuer !== certificate ? [certificate, ...chainOf(issuer)] : [certificate];
}
