// Builds the environment of a CGI script (RFC 3875, section 4.1) from the facts that an HTTP server
// has about a request. A pure function.
import type { CgiEnvironment } from './request.ts';

/** The facts that a server has about a request and about itself. */
export interface ServedRequest {
  method: string;
  /** Request target as it was sent: `/cgi-bin/a.cgi/more?b=c`. */
  target: string;
  /** `HTTP/1.1` */
  protocol: string;
  /** Names and values alternating, as in `IncomingMessage.rawHeaders`. */
  rawHeaders: readonly string[];
  remoteAddress: string;
  remotePort: number;
  localAddress: string;
  localPort: number;
  secure: boolean;
  /** URL path of the script, with which the target begins. */
  scriptName: string;
  scriptFilename: string;
  serverSoftware: string;
  /** The user authenticated by the server with Basic authentication. */
  remoteUser: string | undefined;
}

/**
 * The variables of RFC 3875, section 4.1. Credentials are not passed on (section 4.1.18), and
 * neither is `Proxy`, which would become HTTP_PROXY and redirect the script's own requests.
 * CONTENT_LENGTH is absent for a chunked body.
 */
export function environmentFor(served: ServedRequest): CgiEnvironment {
  const headers = joinHeaders(served.rawHeaders);
  const [path = '', ...query] = served.target.split('?');
  const pathInfo = decodePath(path.slice(served.scriptName.length));
  return {
    ...headerVariables(headers),
    GATEWAY_INTERFACE: 'CGI/1.1',
    SERVER_PROTOCOL: served.protocol,
    SERVER_SOFTWARE: served.serverSoftware,
    SERVER_NAME: headers.get('host')?.replace(/:\d*$/, '') || hostOf(served.localAddress),
    SERVER_ADDR: served.localAddress,
    SERVER_PORT: String(served.localPort),
    REQUEST_METHOD: served.method,
    REQUEST_URI: served.target,
    QUERY_STRING: query.join('?'),
    SCRIPT_NAME: served.scriptName,
    SCRIPT_FILENAME: served.scriptFilename,
    REMOTE_ADDR: served.remoteAddress,
    REMOTE_PORT: String(served.remotePort),
    ...(pathInfo !== '' && { PATH_INFO: pathInfo }),
    ...(served.remoteUser !== undefined && { REMOTE_USER: served.remoteUser, AUTH_TYPE: 'Basic' }),
    ...(served.secure && { HTTPS: 'on' }),
    ...(headers.has('content-type') && { CONTENT_TYPE: headers.get('content-type') }),
    ...(headers.has('content-length') &&
      !headers.has('transfer-encoding') && { CONTENT_LENGTH: headers.get('content-length') }),
  };
}

const NOT_PASSED_ON = new Set([
  'authorization',
  'proxy-authorization',
  'proxy',
  'content-length',
  'content-type',
  'connection',
]);

function headerVariables(headers: Map<string, string>): Record<string, string> {
  const passedOn = [...headers].filter(([name]) => !NOT_PASSED_ON.has(name) && /^[a-z0-9-]+$/.test(name));
  return Object.fromEntries(
    passedOn.map(([name, value]) => [`HTTP_${name.toUpperCase().replaceAll('-', '_')}`, value]),
  );
}

/** Headers by lower-case name; repeated ones are joined by `, ` (RFC 3875, section 4.1.18). */
function joinHeaders(rawHeaders: readonly string[]): Map<string, string> {
  const headers = new Map<string, string>();
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]?.toLowerCase() ?? '';
    const value = rawHeaders[i + 1] ?? '';
    const before = headers.get(name);
    headers.set(name, before === undefined ? value : `${before}, ${value}`);
  }
  return headers;
}

/** An address in the form of SERVER_NAME (RFC 3875, section 4.1.14). */
function hostOf(address: string): string {
  return address.includes(':') ? `[${address}]` : address;
}

/**
 * Decodes a path. A path that is not UTF-8 or contains a NUL, which no variable can hold, stays
 * encoded.
 */
function decodePath(path: string): string {
  try {
    const decoded = decodeURIComponent(path);
    return decoded.includes('\0') ? path : decoded;
  } catch {
    return path;
  }
}
