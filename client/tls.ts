// TLS: a handshake, and then every check that the settings ask for, each with an error of its own (docs/protocol.md, section 7).
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
import { Failure, WireError } from './failure.ts';
import { askPassPhrase } from './passphrase.ts';
import type { ClientSettings } from './settings.ts';

/** Makes a connection to a host secure. Nothing but the handshake is sent on it before it is returned. Throws WireError. */
export type Secure = (host: string, plain: Socket, signal: AbortSignal | undefined) => Promise<TLSSocket>;

/** Throws Failure `settings` for a file or a pass phrase that cannot be used. */
export async function prepareSecurity(settings: ClientSettings): Promise<Secure> {
  const ca = settings.sslBundledCAsFile === '' ? undefined : readBundle(settings.sslBundledCAsFile);
  const options: ConnectionOptions = {
    ...(await credentialsOf(settings)),
    ...(ca && { ca }),
    minVersion: settings.sslMinVersion,
    // What old servers speak is below the level that OpenSSL holds for safe.
    ...(/1(?:\.1)?$/.test(settings.sslMinVersion) && { ciphers: 'DEFAULT@SECLEVEL=0' }),
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

function untilSecure(secure: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    // A time limit ends both sockets, and each of them tells of it.
    secure.once('secureConnect', resolve).on('error', reject);
    secure.once('close', () => reject(new WireError('TLS failed: the server closed the connection', 0)));
  });
}

async function credentialsOf(settings: ClientSettings): Promise<{ cert?: Buffer; key?: Buffer; passphrase?: string }> {
  if (!settings.sslUseCertificate) return {};
  const cert = readPem('SSLPublicCertFile', settings.sslPublicCertFile);
  const key = readPem('SSLPrivateKeyFile', settings.sslPrivateKeyFile);
  const passphrase = await askPassPhrase(settings, key);
  const credentials = { cert, key, ...(passphrase !== undefined && { passphrase }) };
  try {
    createSecureContext(credentials);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Failure(
      'settings',
      `SSLPrivateKeyFile and SSLPublicCertFile cannot be used: ${code ?? 'not PEM'}`,
      'is the pass phrase right, and the certificate that of the key',
    );
  }
  return credentials;
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
  const certificate = secure.getPeerCertificate(true);
  if ((settings.sslVerifyPeerCert || settings.sslVerifyHost) && !secure.authorized)
    throw new WireError(`the server's certificate is not trusted: ${secure.authorizationError}`);
  if (settings.sslVerifyPeerCert) {
    const length = chainLength(certificate);
    if (length > settings.sslMaxChainLength)
      throw new WireError(`the server's certificate has a chain of ${length}, over SSLMaxChainLength`);
    if (settings.sslExpectedPeerCN !== '' && certificate.subject?.CN !== settings.sslExpectedPeerCN)
      throw new WireError("the CN of the server's certificate is not SSLExpectedPeerCN");
  }
  if (settings.sslVerifyHost && checkServerIdentity(host, certificate))
    throw new WireError(`the server's certificate is not for ${host}`);
}

/** Certificates above the server's own, up to the one that signed itself: 1 when the CA of the bundle issued it. */
function chainLength(certificate: DetailedPeerCertificate): number {
  let length = 0;
  for (let at = certificate; at.issuerCertificate && at.issuerCertificate !== at; at = at.issuerCertificate)
    length += 1;
  return length;
}
