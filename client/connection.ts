// Connects to a server directly or through a proxy, and makes every check that the settings require
// before sending the first byte of a request: a password must not reach an impostor.
import http, { type IncomingMessage } from 'node:http';
import { connect as connectPlain, isIP, type Socket } from 'node:net';
import { WireError } from './failure.ts';
import type { ClientSettings } from './settings.ts';
import { formatStatus, isSuccess, retryAfterOf } from './status.ts';

/** Opens a connection for a request. Throws WireError, or the error of the system call. */
export type Connect = (signal: AbortSignal | undefined) => Promise<Socket>;

/**
 * Reads the TLS files and asks for a pass phrase, before a server waits or a time limit runs.
 * Throws Failure `settings`.
 */
export async function prepareConnection(settings: ClientSettings, url: URL): Promise<Connect> {
  if (url.protocol !== 'https:') return async (signal) => await openPlain(settings, url, signal);
  const { prepareSecurity } = await import('./tls.ts');
  const secure = await prepareSecurity(settings);
  return async (signal) => {
    const plain = await openPlain(settings, url, signal);
    try {
      return await secure(hostOf(url), plain, signal);
    } catch (error) {
      plain.destroy();
      throw error;
    }
  };
}

/**
 * Whether requests for this URL are sent to the proxy with the complete URL; https requests go
 * through a tunnel instead.
 */
export function isForwarded(settings: ClientSettings, url: URL): boolean {
  return settings.urlProxyHost !== '' && url.protocol === 'http:';
}

/** The value of Proxy-Authorization. */
export function proxyAuthorization({ proxyCredentials }: ClientSettings): string | undefined {
  return proxyCredentials === undefined
    ? undefined
    : `Basic ${Buffer.from(proxyCredentials, 'latin1').toString('base64')}`;
}

/** The host without the brackets of an IPv6 address. */
export function hostOf(url: URL): string {
  return url.hostname.replace(/^\[|\]$/g, '');
}

export function portOf(url: URL): number {
  return Number(url.port || (url.protocol === 'https:' ? '443' : '80'));
}

async function openPlain(settings: ClientSettings, url: URL, signal: AbortSignal | undefined): Promise<Socket> {
  const { urlProxyHost, urlProxyPort } = settings;
  if (urlProxyHost === '') return await untilConnected(hostOf(url), portOf(url), signal);
  const proxy = await untilConnected(urlProxyHost, urlProxyPort, signal);
  return isForwarded(settings, url) ? proxy : await openTunnel(settings, url, proxy);
}

function untilConnected(host: string, port: number, signal: AbortSignal | undefined): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectPlain({ host, port, ...(signal && { signal }) });
    socket.once('connect', () => resolve(socket.off('error', reject))).once('error', reject);
  });
}

/**
 * Opens a tunnel with CONNECT (RFC 9110, section 9.3.6). The time limit of a request destroys the
 * socket `proxy` and thereby the tunnel.
 */
function openTunnel(settings: ClientSettings, url: URL, proxy: Socket): Promise<Socket> {
  const authority = `${isIP(hostOf(url)) === 6 ? `[${hostOf(url)}]` : hostOf(url)}:${portOf(url)}`;
  const authorization = proxyAuthorization(settings);
  return new Promise((resolve, reject) => {
    const refuse = (answer: IncomingMessage): void => {
      proxy.destroy();
      reject(new WireError(`the proxy refused ${authority}: ${formatStatus(answer)}`, retryAfterOf(answer)));
    };
    http
      .request({
        method: 'CONNECT',
        path: authority,
        createConnection: () => proxy,
        headers: { Host: authority, ...(authorization && { 'Proxy-Authorization': authorization }) },
      })
      .on('connect', (answer, socket, head) => {
        if (!isSuccess(answer)) return refuse(answer);
        if (head.length > 0) socket.unshift(head);
        resolve(socket as Socket);
      })
      .on('response', refuse)
      .on('error', reject)
      .end();
  });
}
