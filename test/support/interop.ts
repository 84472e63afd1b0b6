// Which clients work with which process model and kind of authentication: each cell of the table in
// docs/interop.md is a GET and a PUT, whose bytes are compared with what the site serves and with
// what its locker contains.
import { execFile, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { startHttpd } from '../../scripts/httpd.ts';
import { obtainFcgid, obtainHttpd } from '../../scripts/httpd-package.ts';
import { linesOfWay, MODULES_OF_WAY, startResident, startWay, type Way } from '../../scripts/resident.ts';
import { addCommand, makeSite, type Site } from '../../scripts/site.ts';
import { runWebjob } from './client-job.ts';
import { runCurl } from './curl.ts';
import { type Certificates, SERVER_NAME, startSecureSite } from './secure-site.ts';
import { askStrictly } from './strict-client.ts';

/** How httpd runs the script. */
export interface ProcessModel {
  name: string;
  mpm: 'event' | 'prefork';
  way?: Way;
}

export const PROCESS_MODELS: readonly ProcessModel[] = [
  { name: '`mod_cgi`, prefork', mpm: 'prefork' },
  { name: '`mod_cgid`, event', mpm: 'event' },
  { name: '`mod_fcgid`', mpm: 'event', way: 'mod_fcgid' },
  { name: '`mod_proxy_fcgi`', mpm: 'event', way: 'mod_proxy_fcgi' },
];

export const PROOFS = ['password over HTTP', 'password over TLS', 'client certificate'] as const;
export type Proof = (typeof PROOFS)[number];

/** A started site, and how a client is to use it. */
interface Station {
  site: Site;
  port: number;
  isSecure: boolean;
  credentials: string;
  /** PEM files; empty when not needed. */
  ca: string;
  certificate: string;
  key: string;
  close(): Promise<unknown>;
}

/** What a client received, and the results of both requests: `200`, or a status and more. */
interface Outcome {
  get: string;
  put: string;
  program: Buffer;
}

interface InteropClient {
  name: string;
  /** Its own version; undefined when it is missing. With TLS it may need more. */
  findVersion(isSecure: boolean): string | undefined;
  ask(station: Station, folder: string): Promise<Outcome>;
}

const TIME_LIMIT_MS = 60_000;
const BODY = randomBytes(300_001);
const PROGRAM_NAME = 'interop';
const QUERY = `VERSION=webjob+1.4.0&SYSTEM=any&CLIENTID=client1&FILENAME=${PROGRAM_NAME}`;
const PUT_QUERY = `${QUERY}&RUNTYPE=snapshot&STDOUT_LENGTH=${BODY.length}&STDERR_LENGTH=0&STDENV_LENGTH=0`;

export const CLIENTS: readonly InteropClient[] = [
  { name: 'as in C', findVersion: () => 'test/support/strict-client.ts, TLS 1.2', ask: askAsInC },
  { name: '`webjob`', findVersion: () => 'this version', ask: askByWebjob },
  { name: 'curl', findVersion: () => firstLine('curl', '--version')?.split(' ').slice(0, 2).join(' '), ask: askByCurl },
  script('Python urllib', 'python3', ['interop-client.py'], () => firstLine('python3', '--version')),
  script('Perl HTTP::Tiny', 'perl', ['interop-client.pl'], findPerl),
  script('Java HttpClient', 'java', ['InteropClient.java'], () => firstLine('java', '--version')),
];

/** One row for each process model and kind of authentication; a cell for each client. */
export async function measure(
  certificates: Certificates,
  models: readonly ProcessModel[],
  clients: readonly InteropClient[],
  proofs: readonly Proof[] = PROOFS,
): Promise<string[][]> {
  const rows: string[][] = [];
  for (const model of models) {
    for (const proof of proofs)
      rows.push([model.name, proof, ...(await measureRow(certificates, model, proof, clients))]);
  }
  return rows;
}

async function measureRow(
  certificates: Certificates,
  model: ProcessModel,
  proof: Proof,
  clients: readonly InteropClient[],
): Promise<string[]> {
  if (model.way === 'mod_fcgid' && obtainFcgid() === undefined) return clients.map(() => 'no `mod_fcgid` here');
  const station = await startStation(certificates, model, proof);
  const folder = mkdtempSync(join(tmpdir(), 'webjob-interop-'));
  try {
    const body = join(folder, 'body');
    writeFileSync(body, BODY, { mode: 0o644 });
    // A program for webjob to run, followed by bytes that are not text.
    const program = Buffer.concat([Buffer.from(`#!/bin/sh\ncat '${body}'\nexit 0\n`), randomBytes(100_000)]);
    addCommand(station.site, 'client1', PROGRAM_NAME, program);
    const cells: string[] = [];
    for (const client of clients) {
      if (client.findVersion(station.isSecure) === undefined) cells.push('not here');
      else cells.push(await judge(client, station, folder, program));
    }
    return cells;
  } finally {
    await station.close();
    rmSync(folder, { recursive: true });
  }
}

/** `yes`, or what was wrong first. */
async function judge(client: InteropClient, station: Station, folder: string, program: Buffer): Promise<string> {
  const { incoming } = station.site;
  try {
    const outcome = await client.ask(station, folder);
    if (!/^200\b/.test(outcome.get)) return `GET: ${outcome.get}`;
    if (!outcome.program.equals(program)) return `GET: ${outcome.program.length} other bytes`;
    if (!/^200\b/.test(outcome.put)) return `PUT: ${outcome.put}`;
    const names = readdirSync(incoming).sort();
    if (names.map((name) => name.slice(-4)).join() !== '.env,.err,.out,.rdy') return `PUT: ${names.length} files`;
    const stored = readFileSync(join(incoming, names[2] ?? ''));
    return stored.equals(BODY) ? 'yes' : `PUT: ${stored.length} other bytes`;
  } catch (error) {
    return `failed: ${String(error).replace(/\s+/g, ' ').slice(0, 200)}`;
  } finally {
    for (const name of readdirSync(incoming)) rmSync(join(incoming, name));
  }
}

async function startStation(certificates: Certificates, model: ProcessModel, proof: Proof): Promise<Station> {
  // Clients other than webjob send no Content-Length with a GET.
  const open = { GetRequireContentLength: 'N' };
  if (proof === 'password over HTTP') {
    const site = makeSite({ resident: model.way !== undefined, settings: open });
    const { server, close } = await startPlain(model, site);
    const remove = async (): Promise<void> => {
      await close();
      site.remove();
    };
    return { site, port: server.port, isSecure: false, credentials: 'client1:foo', ...NO_FILES, close: remove };
  }
  const [virtualHost, htaccess] = (
    proof === 'client certificate' ? ['certificate', 'htaccess-certificates'] : ['password', 'htaccess']
  ) as ['certificate' | 'password', 'htaccess-certificates' | 'htaccess'];
  const { mpm, way } = model;
  const secure = await startSecureSite({
    certificates,
    mpm,
    virtualHost,
    modules: way ? MODULES_OF_WAY[way] : [],
    ...(way && { resident: (site: Site) => linesOfWay(way, site, join(site.root, `httpd-${mpm}`)) }),
  });
  secure.configure(virtualHost, open);
  secure.permit(htaccess);
  const resident = way === 'mod_proxy_fcgi' ? await startResident(secure.site) : undefined;
  const close = async (): Promise<unknown> => {
    await resident?.stop();
    await secure.close();
    return undefined;
  };
  const ca = join(certificates.folder, 'webjob-server.crt');
  const common = { site: secure.site, port: secure.port, isSecure: true, ca, close };
  if (virtualHost === 'password') return { ...common, credentials: 'client1:foo', certificate: '', key: '' };
  const place = (name: string): string => join(certificates.site.folder, name);
  return { ...common, credentials: '', certificate: place('client1.crt'), key: place('client1.key') };
}

const NO_FILES = { ca: '', certificate: '', key: '' };

async function startPlain(
  { mpm, way }: ProcessModel,
  site: Site,
): Promise<{ server: { port: number }; close(): Promise<void> }> {
  if (way) return await startWay(way, site);
  const server = await startHttpd({ site, mpm });
  return { server, close: () => server.stop() };
}

function urlOf({ isSecure, port }: Station, query: string, host = SERVER_NAME): string {
  return `${isSecure ? 'https' : 'http'}://${host}:${port}/webjob/nph-webjob.cgi${query && '?'}${query}`;
}

async function askAsInC(station: Station): Promise<Outcome> {
  const { port, isSecure, ca, certificate, key, credentials } = station;
  const read = (path: string): Buffer => readFileSync(path);
  const identity = certificate ? { cert: read(certificate), key: read(key) } : {};
  const tls = { ca: isSecure ? read(ca) : [], servername: SERVER_NAME, maxVersion: 'TLSv1.2' as const, ...identity };
  const ask = async (method: string, query: string, body: Buffer) =>
    await askStrictly({
      port,
      body: [body],
      ...(isSecure && { tls }),
      head: [
        `${method} /webjob/nph-webjob.cgi?${query} HTTP/1.1`,
        `Host: ${SERVER_NAME}`,
        'Connection: close',
        ...(credentials ? [`Authorization: Basic ${Buffer.from(credentials).toString('base64')}`] : []),
        `Content-Length: ${body.length}\r\n\r\n`,
      ].join('\r\n'),
    });
  const got = await ask('GET', QUERY, Buffer.alloc(0));
  const put = await ask('PUT', PUT_QUERY, BODY);
  const tell = ({ status, reason }: typeof got): string => `${status} ${reason}`;
  return { get: tell(got), put: tell(put), program: got.body };
}

async function askByCurl(station: Station, folder: string): Promise<Outcome> {
  const { isSecure, ca, certificate, key, credentials, port } = station;
  const common = [
    ...['--connect-to', `${SERVER_NAME}:${port}:127.0.0.1:${port}`],
    ...(isSecure ? ['--cacert', ca] : []),
    ...(certificate ? ['--cert', certificate, '--key', key] : []),
    ...(credentials ? ['--user', credentials] : []),
  ];
  const put = ['--upload-file', join(folder, 'body'), urlOf(station, PUT_QUERY)];
  const [got, stored] = await runCurl(common, [urlOf(station, QUERY)], put);
  return { get: String(got?.status), put: String(stored?.status), program: got?.body ?? Buffer.alloc(0) };
}

/** webjob reports no status: its exit code is 3 when the GET failed, and 5 when the PUT did. */
async function askByWebjob(station: Station, folder: string): Promise<Outcome> {
  const temp = join(folder, 'temp');
  mkdirSync(temp, { mode: 0o755 });
  const { credentials, isSecure, ca, certificate, key } = station;
  const [user = '', password = ''] = credentials.split(':');
  // The name in the certificate is not that of the URL, and must resolve without a name server.
  const url = urlOf(station, '', '127.0.0.1');
  const controls: Record<string, string> = {
    ClientId: 'client1',
    TempDirectory: temp,
    URLGetURL: url,
    URLPutURL: url,
    UnlinkExecutable: 'N',
    ...(credentials && { URLAuthType: 'basic', URLUsername: user, URLPassword: password }),
    ...(isSecure && { SSLVerifyPeerCert: 'Y', SSLBundledCAsFile: ca, SSLExpectedPeerCN: SERVER_NAME }),
    ...(certificate && { SSLUseCertificate: 'Y', SSLPublicCertFile: certificate, SSLPrivateKeyFile: key }),
  };
  const conf = join(folder, 'webjob.conf');
  const lines = Object.entries(controls).map(([name, value]) => `${name}=${value}\n`);
  writeFileSync(conf, lines.join(''), { mode: 0o600 });
  const { code, stderr } = await runWebjob(['--execute', '--file', conf, PROGRAM_NAME]);
  const kept = readdirSync(temp, { recursive: true, withFileTypes: true }).find(({ name }) => name === PROGRAM_NAME);
  const said = stderr.replace(/\s+/g, ' ').trim();
  return {
    get: code === 3 ? said : '200',
    put: code === 0 || code === 3 ? '200' : said,
    program: kept ? readFileSync(join(kept.parentPath, kept.name)) : Buffer.alloc(0),
  };
}

/**
 * A client that is a script of test/, with its parameters in the environment; prints both statuses.
 */
function script(
  name: string,
  program: string,
  [file = '']: string[],
  findVersion: InteropClient['findVersion'],
): InteropClient {
  const ask = async (station: Station, folder: string): Promise<Outcome> => {
    const received = join(folder, 'received');
    rmSync(received, { force: true });
    const hosts = join(folder, 'hosts');
    writeFileSync(hosts, `127.0.0.1 ${SERVER_NAME}\n`);
    const { ca, certificate, key, credentials } = station;
    const environment = {
      CA: ca,
      CERTIFICATE: certificate,
      KEY: key,
      CREDENTIALS: credentials,
      GET: urlOf(station, QUERY),
      PUT: urlOf(station, PUT_QUERY),
      RECEIVED: received,
      BODY: join(folder, 'body'),
    };
    const before = program === 'java' ? [`-Djdk.net.hosts.file=${hosts}`] : [];
    const said = await run(program, [...before, join(import.meta.dirname, file)], environment);
    const [get = '', put = ''] = said.split('\n');
    return { get, put, program: readFileSync(received) };
  };
  return { name, findVersion, ask };
}

function run(program: string, words: string[], environment: Record<string, string>): Promise<string> {
  const env = { ...process.env, ...environment };
  return new Promise((resolve, reject) => {
    execFile(program, words, { env, timeout: TIME_LIMIT_MS }, (error, stdout, stderr) => {
      if (error) reject(new Error(`${program} ended with ${error.code}: ${stderr.slice(-200)}`));
      else resolve(stdout);
    });
  });
}

/** Perl's version, if it has what a request needs; the modules for TLS are not part of Perl. */
function findPerl(isSecure: boolean): string | undefined {
  const modules = isSecure ? ['-MIO::Socket::SSL'] : [];
  const asked = spawnSync('perl', [...modules, '-MHTTP::Tiny', '-e', 'print "$^V, HTTP::Tiny ", HTTP::Tiny->VERSION'], {
    encoding: 'utf8',
  });
  return asked.status === 0 ? `Perl ${asked.stdout}` : undefined;
}

function firstLine(program: string, ...words: string[]): string | undefined {
  const { status, stdout } = spawnSync(program, words, { encoding: 'utf8' });
  return status === 0 ? stdout.split('\n')[0]?.trim() : undefined;
}

/** The versions with which the table was made, for the page. */
export function describeVersions(): string[] {
  const { binary, libraryPath } = obtainHttpd();
  const env = { ...process.env, ...(libraryPath && { LD_LIBRARY_PATH: libraryPath }) };
  const httpd = spawnSync(binary, ['-v'], { encoding: 'utf8', env }).stdout.split('\n')[0] ?? '';
  const openssl = firstLine('openssl', 'version')?.split(' ').slice(0, 2).join(' ');
  return [
    `httpd ${httpd.replace('Server version: ', '')}, ${openssl}, Node ${process.version}, Linux ${release().split('-')[0]}`,
    ...CLIENTS.map(({ name, findVersion }) => `${name}: ${findVersion(true) ?? findVersion(false) ?? 'not here'}`),
  ];
}

export const HEADING: readonly string[] = [
  'httpd runs the script by',
  'client authenticates by',
  ...CLIENTS.map(({ name }) => name),
];

/** The table in Markdown. */
export function formatTable(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const format = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '/')).join(' | ')} |\n`;
  return [format(heading), `|${heading.map(() => '---|').join('')}\n`, ...rows.map(format)].join('');
}
