// Requests the script without credentials by every way that leads to it. The only correct answer is
// a refusal by httpd itself.
import { existsSync } from 'node:fs';
import { type IncomingMessage, request as plainRequest } from 'node:http';
import { request as secureRequest } from 'node:https';
import { isIP } from 'node:net';
import { dirname, join } from 'node:path';
import { errorCode } from '../../cli/files.ts';
import { error, type Finding, note, warning } from './finding.ts';
import type { Mends } from './mends.ts';
import type { Server, Way, Ways } from './ways.ts';

const TIME_LIMIT_MS = 10_000;
const MAX_REQUESTS = 100;

/**
 * The script refuses this query before it looks at anything else, with a status that httpd does not
 * have.
 */
const QUERY = '?VERSION=webjobctl-configtest';

interface Request {
  server: Server;
  address: Server['addresses'][number];
  method: 'GET' | 'TRACE';
  path: string;
  way: Way | undefined;
}

/**
 * Reports where the script can be reached without credentials. This asks the running httpd, which
 * may have started with another configuration.
 */
export async function probeWays({ servers, ways, gaps }: Ways, mends: Mends): Promise<Finding[]> {
  const reachable = servers.filter((server) => ways.some((way) => way.server === server));
  const requests = uniqueRequests([
    ...ways.flatMap((way) => toRequests(way.server, 'GET', `${encodeURI(way.path)}${QUERY}`, way)),
    ...reachable.flatMap((server) => toRequests(server, 'TRACE', '/', undefined)),
  ]);
  const findings = gaps.map((place) =>
    note(
      'there are too many files here to look for links to the script in all of them',
      place,
      'keep links to it elsewhere',
    ),
  );
  const silent = new Set<string>();
  for (const request of requests.slice(0, MAX_REQUESTS)) {
    const { host, port } = request.address;
    if (silent.has(`${host} ${port}`)) continue;
    const answer = await ask(request);
    if (answer instanceof Error && errorCode(answer) === 'ECONNREFUSED') silent.add(`${host} ${port}`);
    else findings.push(...judge(request, answer, mends));
  }
  if (silent.size > 0)
    findings.push(note(`nobody listens at ${[...silent].join(', ')}, so nothing was requested there`, 'httpd'));
  if (requests.length > MAX_REQUESTS)
    findings.push(note(`of ${requests.length} ways to the script only ${MAX_REQUESTS} were tried`, 'httpd'));
  const tried = requests.length - findings.length;
  if (findings.every(({ severity }) => severity === 'note') && tried > 0 && silent.size === 0)
    findings.push(note(`requests without credentials are refused on all ${ways.length} ways to the script`, 'httpd'));
  return findings;
}

function toRequests(server: Server, method: Request['method'], path: string, way: Way | undefined): Request[] {
  return server.addresses.map((address) => ({ server, address, method, path, way }));
}

function uniqueRequests(requests: readonly Request[]): Request[] {
  const key = ({ server, address, method, path }: Request): string =>
    [server.serverName, server.isTls, address.host, address.port, method, path].join(' ');
  return [...new Map(requests.map((request) => [key(request), request])).values()];
}

function urlOf({ server, address, path }: Request): string {
  const name = server.serverName ?? (isIP(address.host) === 6 ? `[${address.host}]` : address.host);
  return `${server.isTls ? 'https' : 'http'}://${name}:${address.port}${path.replace(QUERY, '')}`;
}

interface Answer {
  status: number;
  reason: string;
  start: string;
}

function judge(request: Request, answer: Answer | Error, mends: Mends): Finding[] {
  const { server, way } = request;
  const url = urlOf(request);
  // When httpd ends the handshake, that is a refusal too.
  if (answer instanceof Error) return [];
  const { status, reason, start } = answer;
  if (request.method === 'TRACE')
    return status === 200
      ? [warning('httpd echoes requests: TRACE is on', url, mends.addDirectives('TraceEnable Off'))]
      : [];
  const place = way?.file ?? 'a FastCGI process';
  if (start.startsWith('#!')) return [warning(`httpd serves the script as a file: ${place}`, url, deny(place, mends))];
  const isOurs = (status >= 450 && status <= 499) || status >= 550 || (status >= 200 && status < 300);
  if (!isOurs) return [];
  return [
    error(
      `requests without credentials reach the script in ${server.label}: ${status} ${reason} by ${place}`,
      url,
      findRemedy(way, mends),
    ),
  ];
}

function findRemedy(way: Way | undefined, mends: Mends): string {
  if (way?.file === undefined)
    return 'SetHandler belongs inside the <Directory> of the script, as in apache/webjob-proxy-fcgi.conf';
  const folder = dirname(way.file);
  return existsSync(join(folder, '.htaccess'))
    ? `${mends.writeAccess('apache/htaccess', join(folder, '.htaccess'))}  # and let no <Location> open what it closes`
    : deny(way.file, mends);
}

/**
 * A command that denies access to a file, outside of virtual hosts, so that it applies to every
 * way.
 */
function deny(file: string, mends: Mends): string {
  const lines = [`<Directory "${dirname(file)}">`, 'AllowOverride None', 'Require all denied', '</Directory>'];
  return `${mends.addDirectives(...lines)}  # or remove the path to it`;
}

function ask({ server, address, method, path }: Request): Promise<Answer | Error> {
  const name = server.serverName ?? address.host;
  return new Promise((resolve) => {
    const take = (response: IncomingMessage): void => {
      let start = '';
      response.on('data', (chunk: Buffer) => {
        if (start.length < 16) start += chunk.toString('latin1', 0, 16);
      });
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, reason: response.statusMessage ?? '', start }),
      );
      response.on('error', resolve);
    };
    const options = {
      method,
      path,
      host: address.host,
      port: address.port,
      agent: false as const,
      signal: AbortSignal.timeout(TIME_LIMIT_MS),
      rejectUnauthorized: false,
      headers: { Host: isIP(name) === 6 ? `[${name}]` : name, ...(method === 'GET' && { 'Content-Length': 0 }) },
      ...(isIP(name) === 0 && { servername: name }),
    };
    const request = server.isTls ? secureRequest(options, take) : plainRequest(options, take);
    request.on('error', resolve);
    request.end();
  });
}
