// Front ends before the script, and what gets through them: HTTP/2, a balancer, nginx with and
// without buffering; bodies with a length and in chunks. Each cell of the second table in
// docs/interop.md is a request with curl whose bytes are compared.
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findFreePorts } from '../../scripts/free-ports.ts';
import { startHttpd } from '../../scripts/httpd.ts';
import { addCommand, makeSite, type Site } from '../../scripts/site.ts';
import { type CurlAnswer, runCurl } from './curl.ts';
import { isNginxMissing, type NginxOptions, startNginx } from './nginx.ts';
import { type Certificates, SERVER_NAME } from './secure-site.ts';

/** Where curl sends its requests, and how. */
interface Front {
  name: string;
  /** The tests that try it in every run; the others are tried by `npm run interop`. */
  tests: string;
  words: string[];
  kind: 'node' | 'httpd' | 'nginx';
  /** The path in httpd. */
  path?: string;
  nginx?: NginxOptions;
  /**
   * Whether a GET without a length is refused depends on how its frames arrive: `yes` and `454` are
   * both right.
   */
  isUnsteady?: true;
}

const HTTP2 = ['--http2'];
const HTTP1 = ['--http1.1'];
const OWN = '`test/deploy/interop.test.ts`';

export const FRONTS: readonly Front[] = [
  {
    name: 'nothing, HTTP/1.1',
    tests: '`test/server/http.test.ts`, `test/server/keepalive.test.ts`',
    words: HTTP1,
    kind: 'node',
  },
  { name: 'nothing, HTTP/2', tests: '`test/server/http.test.ts`', words: HTTP2, kind: 'httpd', path: '/direct/' },
  {
    name: '`webjob-balancer.conf`, HTTP/1.1',
    tests: '`test/deploy/balancer.test.ts`',
    words: HTTP1,
    kind: 'httpd',
  },
  { name: '`webjob-balancer.conf`, HTTP/2 from the client', tests: OWN, words: HTTP2, kind: 'httpd' },
  {
    name: 'httpd, HTTP/2 from the client and to the node',
    tests: OWN,
    words: HTTP2,
    kind: 'httpd',
    path: '/http2/',
    isUnsteady: true,
  },
  { name: 'nginx, buffering on', tests: '`test/server/keepalive.test.ts`, with nginx', words: HTTP1, kind: 'nginx' },
  {
    name: 'nginx, buffering off',
    tests: '',
    words: HTTP1,
    kind: 'nginx',
    nginx: { lines: 'proxy_request_buffering off; proxy_buffering off;' },
  },
  {
    name: 'nginx, HTTP/2 from the client',
    tests: '',
    words: HTTP2,
    kind: 'nginx',
    nginx: { listen: 'ssl http2' },
  },
];

const REQUESTS = [
  'GET',
  'GET with `Content-Length: 0`',
  'PUT',
  'PUT in chunks',
  'PUT, `Expect: 100-continue`',
  'connection kept',
] as const;
export const FRONT_HEADING: readonly string[] = ['in front of the script', ...REQUESTS, 'tests'];

const BODY = randomBytes(300_001);
const PROGRAM = randomBytes(100_001);
const FIELDS = 'VERSION=webjob+1.4.0&SYSTEM=curl&CLIENTID=client1&FILENAME=program';
const PUT_FIELDS = `${FIELDS}&RUNTYPE=snapshot&STDOUT_LENGTH=${BODY.length}&STDERR_LENGTH=0&STDENV_LENGTH=0`;

/** One row for each, with the cells of FRONT_HEADING. */
export async function measureFronts(certificates: Certificates, fronts: readonly Front[]): Promise<string[][]> {
  const site = makeSite({ settings: { GetRequireContentLength: 'N' } });
  addCommand(site, 'client1', 'program', PROGRAM);
  const folder = mkdtempSync(join(tmpdir(), 'webjob-fronts-'));
  const body = join(folder, 'body');
  writeFileSync(body, BODY);
  const [port = 0] = await findFreePorts(1);
  const server = await startHttpd({
    site,
    mpm: 'event',
    port,
    before: 'Protocols h2c http/1.1',
    second: (own) => formatEdge(certificates, site, own, port),
    modules:
      'ssl http2 headers proxy proxy_http proxy_http2 proxy_balancer proxy_hcheck lbmethod_byrequests slotmem_shm'.split(
        ' ',
      ),
  });
  try {
    const rows: string[][] = [];
    for (const front of fronts) {
      const cells = await measureFront(front, { site, body, certificates, port, edge: server.secondPort });
      if (front.isUnsteady && /^(?:yes|454)$/.test(cells[0] ?? '')) cells[0] = 'yes or 454';
      rows.push([front.name, ...cells, front.tests || '`npm run interop`']);
    }
    return rows;
  } finally {
    await server.stop();
    site.remove();
    rmSync(folder, { recursive: true });
  }
}

/**
 * A virtual host with HTTP/2 over TLS: the shipped balancer, a path that continues in HTTP/2, and
 * one directly to the script.
 */
function formatEdge({ folder }: Certificates, site: Site, own: number, port: number): string {
  return `
<VirtualHost 127.0.0.1:${own}>
  ServerName ${SERVER_NAME}
  Protocols h2 http/1.1
  SSLEngine on
  SSLCertificateFile ${folder}/webjob-server.crt
  SSLCertificateKeyFile ${folder}/webjob-server.key
  Define WEBJOB_NODE_1 http://127.0.0.1:${port}
  Define WEBJOB_NODE_2 http://127.0.0.1:${port}
  Include "${join(import.meta.dirname, '..', '..', 'apache', 'webjob-balancer.conf')}"
  ScriptAlias "/direct/" "${site.cgiDirectory}/"
  ProxyPass "/http2/" "h2c://127.0.0.1:${port}/webjob/"
</VirtualHost>
`;
}

interface Place {
  site: Site;
  body: string;
  certificates: Certificates;
  port: number;
  edge: number;
}

async function measureFront(front: Front, place: Place): Promise<string[]> {
  const { kind, path = '/webjob/', words } = front;
  const { certificates, port, edge } = place;
  if (kind !== 'nginx')
    return await measureRequests(place, kind === 'node' ? port : edge, kind !== 'node', path, words);
  if (isNginxMissing()) return REQUESTS.map(() => 'not here');
  const isSecure = front.nginx?.listen?.startsWith('ssl') ?? false;
  const { folder } = certificates;
  const files = `ssl_certificate ${folder}/webjob-server.crt; ssl_certificate_key ${folder}/webjob-server.key;`;
  const lines = `${front.nginx?.lines ?? ''} ${isSecure ? files : ''}`;
  const nginx = await startNginx(port, { ...front.nginx, lines });
  try {
    return await measureRequests(place, nginx.port, isSecure, path, words);
  } finally {
    await nginx.close();
  }
}

async function measureRequests(
  { site, body, certificates }: Place,
  port: number,
  isSecure: boolean,
  path: string,
  words: string[],
): Promise<string[]> {
  const base = isSecure ? `https://${SERVER_NAME}:${port}` : `http://127.0.0.1:${port}`;
  const urlOf = (fields: string): string => `${base}${path}nph-webjob.cgi?${fields}`;
  const common = [
    ...[...words, '--user', 'client1:foo', '--cacert', join(certificates.folder, 'webjob-server.crt')],
    ...['--connect-to', `${SERVER_NAME}:${port}:127.0.0.1:${port}`],
  ];
  const failed = (): [undefined] => [undefined];
  const [got, again] = await runCurl(common, [urlOf(FIELDS)], [urlOf(FIELDS)]).catch(failed);
  const [said] = await runCurl(common, ['--header', 'Content-Length: 0', urlOf(FIELDS)]).catch(failed);
  const judgeGet = (answer: CurlAnswer | undefined): string =>
    answer?.status === 200 && answer.body.equals(PROGRAM) ? 'yes' : describe(answer);
  const put = async (...more: string[]): Promise<string> => {
    const [answer] = await runCurl(common, [...more, '--upload-file', body, urlOf(PUT_FIELDS)]).catch(failed);
    return judge(site, answer);
  };
  return [
    judgeGet(got),
    judgeGet(said),
    await put('--header', 'Expect:'),
    await put('--header', 'Expect:', '--header', 'Transfer-Encoding: chunked'),
    await put('--header', 'Expect: 100-continue'),
    again?.connects === 0 ? 'yes' : 'no',
  ];
}

/** Takes the upload out of the locker. */
function judge({ incoming }: Site, answer: CurlAnswer | undefined): string {
  const names = readdirSync(incoming).sort();
  const stored = names.filter((name) => name.endsWith('.out')).map((name) => readFileSync(join(incoming, name)));
  for (const name of names) rmSync(join(incoming, name));
  if (answer?.status !== 200) return describe(answer);
  return names.length === 4 && stored[0]?.equals(BODY) ? 'yes' : `200, and ${names.length} files`;
}

/** The last status line, because with `100 Continue` there are several. */
function describe(answer: CurlAnswer | undefined): string {
  if (answer === undefined) return 'no answer';
  const line = answer.head.match(/^HTTP\/\S+ .*$/gm)?.at(-1) ?? '';
  return line.replace(/^HTTP\/\S+ /, '').trim();
}
