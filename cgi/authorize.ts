// Decides whether a caller may act for a client id. httpd authenticates; this file only judges the
// result.
import type { CgiRequest } from 'node-cgi-compat';
import type { Exchange } from './exchange.ts';
import { checkAddress } from './hosts.ts';
import { Refusal } from './refusal.ts';

/**
 * Checks that the caller may act for a client id. Throws Refusal 458, 472, 452, 453, 470 or 471, in
 * this order (docs/protocol.md, section 3).
 */
export function checkCaller({ request, settings }: Pick<Exchange, 'request' | 'settings'>, clientId: string): void {
  if (settings.sslRequireSsl && !request.secure) throw new Refusal(458, 'the request did not come over TLS');
  if (settings.enableHostAccessList) checkAddress(settings, clientId, request.remoteAddress);
  if (settings.requireUser) {
    if (request.remoteUser === undefined) throw new Refusal(452, 'httpd authenticated nobody');
    // RequireMatch has an effect only together with RequireUser.
    if (settings.requireMatch && request.remoteUser !== clientId)
      throw new Refusal(453, 'the user is not the client id');
  }
  const name = findCommonName(request);
  if (settings.sslRequireCn && name === undefined) throw new Refusal(470, 'no verified certificate with a CN');
  if (settings.sslRequireMatch && name !== clientId) throw new Refusal(471, 'the CN is not the client id');
}

/**
 * The CN in the subject of the client's certificate, which mod_ssl passes on with StdEnvVars. With
 * `SSLVerifyClient optional_no_ca` a self-signed certificate arrives here too: its CN counts only
 * if SSL_CLIENT_VERIFY is SUCCESS. (httpd 2.4 reports SUCCESS even for such a certificate once its
 * TLS session is resumed, so the shipped files never use optional_no_ca.)
 */
function findCommonName({ secure, env }: CgiRequest): string | undefined {
  return secure && env.SSL_CLIENT_VERIFY === 'SUCCESS' ? env.SSL_CLIENT_S_DN_CN || undefined : undefined;
}
