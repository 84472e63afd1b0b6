// Reads the request of a CGI script from its environment (RFC 3875, section 4.1). A pure function.

/** Variables by name: `process.env`, or those that a FastCGI server sends with each request. */
export type CgiEnvironment = Readonly<Record<string, string | undefined>>;

/** A request, as a handler receives it. */
export interface CgiRequest {
  /** REQUEST_METHOD, verbatim: servers pass on unregistered methods, and `get` besides `GET`. */
  method: string;
  /** QUERY_STRING, still encoded; empty when there is none. */
  query: string;
  /** SERVER_PROTOCOL: `HTTP/1.1`. */
  protocol: string;
  /** SERVER_SOFTWARE, the value of a Server header. */
  serverSoftware: string;
  /**
   * CONTENT_LENGTH in bytes; undefined when it is absent (a chunked body) or not a decimal number.
   */
  contentLength: number | undefined;
  remoteAddress: string | undefined;
  /** REMOTE_USER; undefined without authentication. */
  remoteUser: string | undefined;
  /** True when the request came over TLS (HTTPS=on). */
  secure: boolean;
  /** All variables, for those without a field here. */
  env: CgiEnvironment;
}

/**
 * Reads the request from an environment. Absent variables become undefined or empty. Never throws.
 */
export function requestFromEnv(env: CgiEnvironment): CgiRequest {
  return {
    method: env.REQUEST_METHOD ?? '',
    query: env.QUERY_STRING ?? '',
    protocol: env.SERVER_PROTOCOL ?? '',
    serverSoftware: env.SERVER_SOFTWARE ?? '',
    contentLength: findContentLength(env),
    remoteAddress: env.REMOTE_ADDR || undefined,
    remoteUser: env.REMOTE_USER || undefined,
    secure: env.HTTPS?.toLowerCase() === 'on',
    env,
  };
}

/**
 * The value of a request header by its HTTP name (RFC 3875, section 4.1.18). Repeated headers are
 * joined by `, `.
 */
export function findHeader(request: CgiRequest, name: string): string | undefined {
  return request.env[`HTTP_${name.toUpperCase().replaceAll('-', '_')}`];
}

function findContentLength(env: CgiEnvironment): number | undefined {
  const text = env.CONTENT_LENGTH ?? '';
  return /^[0-9]{1,20}$/.test(text) ? Number(text) : undefined;
}
