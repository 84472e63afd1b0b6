// Checks the server's name: in its virtual host, in its certificate, and in the URLs of clients.
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { error, type Finding, warning } from './finding.ts';
import { type Directive, splitArguments } from './httpd.ts';
import type { Mends } from './mends.ts';
import type { Ways } from './ways.ts';

/** Reports TLS virtual hosts with the script whose name is not in their certificate. */
export function checkServerNames(directives: readonly Directive[], { servers, ways }: Ways, mends: Mends): Finding[] {
  return servers
    .filter((server) => server.isTls && ways.some((way) => way.server === server))
    .flatMap((server) => {
      const find = (name: string): Directive | undefined =>
        directives.findLast(
          (one) => one.name === name && one.sections.length === 1 && one.sections[0] === server.label,
        );
      const [name, aliases] = [find('ServerName'), find('ServerAlias')];
      const certificate = readCertificate(splitArguments(find('SSLCertificateFile')?.value ?? '')[0]);
      if (!name || !certificate || server.serverName === undefined) return [];
      const names = [server.serverName, ...(aliases?.value.split(/\s+/) ?? [])];
      if (names.some((one) => isFor(certificate, one))) return [];
      // When another virtual host has the same address, requests for the right name go there.
      const isShared = servers.some(
        (other) => other !== server && other.addresses.some((one) => server.addresses.some((own) => isSame(own, one))),
      );
      const own = nameOf(certificate);
      const what = `${server.label} is called ${server.serverName}, and its certificate is for ${own}`;
      return [(isShared ? error : warning)(what, name.where, mends.replaceDirective(name.where, 'ServerName', own))];
    });
}

const isSame = (a: { host: string; port: number }, b: { host: string; port: number }): boolean =>
  a.port === b.port && a.host === b.host;

function readCertificate(path: string | undefined): X509Certificate | undefined {
  try {
    return path === undefined ? undefined : new X509Certificate(readFileSync(path));
  } catch {
    // checkCertificates() reports the problem.
    return undefined;
  }
}

function isFor(certificate: X509Certificate, name: string): boolean {
  const found = isIP(name) === 0 ? certificate.checkHost(name) : certificate.checkIP(name);
  return found !== undefined || nameOf(certificate) === name;
}

function nameOf(certificate: X509Certificate): string {
  const named = /(?:DNS|IP Address):([^,\s]+)/.exec(certificate.subjectAltName ?? '')?.[1];
  return /^CN=(.*)$/m.exec(certificate.subject)?.[1] ?? named ?? 'nobody';
}

/**
 * Reports a client's URL with a host name that no virtual host with the script has; undefined when
 * that is not the problem.
 */
export function findNameProblem(
  url: URL,
  directives: readonly Directive[],
  { servers, ways }: Ways,
  mends: Mends,
): Finding | undefined {
  const isAt = (server: (typeof servers)[number]): boolean =>
    server.isTls === (url.protocol === 'https:') &&
    server.addresses.some(({ port }) => port === Number(url.port || (server.isTls ? 443 : 80)));
  const own = servers.find((server) => isAt(server) && ways.some((way) => way.server === server));
  const asked = url.hostname.toLowerCase();
  if (!own || own.serverName === undefined || own.serverName.toLowerCase() === asked) return undefined;
  const place = directives.findLast(
    (one) =>
      one.name === 'ServerName' && (one.sections[0] ?? 'the main server') === own.label && one.sections.length < 2,
  );
  const what = `the client asks for ${asked}, and ${own.label}, which has the script, is called ${own.serverName}`;
  if (!place) return undefined;
  return error(what, place.where, mends.replaceDirective(place.where, 'ServerName', asked));
}
