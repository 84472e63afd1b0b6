// A site with the guide's own virtual host: plain HTTP on one port, TLS as in
// docs/guide/authentication.md on the other. The files in apache/ are included as they are shipped.

import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, request as plainRequest } from 'node:http';
import { request as secureRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { TLSSocket } from 'node:tls';
import { type LogLine, parseLogLine } from 'webjob-protocol';
import { startHttpd } from '../../scripts/httpd.ts';
import { addCommand, addUser, configure, makeSite, type Site } from '../../scripts/site.ts';
import { readBlock } from './authentication-guide.ts';
import { Authority, type Identity, makeServerCertificate } from './certificates.ts';
import { HOST_SH, readLog } from './tree.ts';

const SHIPPED = join(import.meta.dirname, '..', '..', 'apache');
/** The name in the guide. */
export const SERVER_NAME = 'webjob.example.com';
const TIME_LIMIT_MS = 60_000;

/** Everything that is made once and serves all tests of a file. */
export interface Certificates {
  /** webjob-server.crt and .key. */
  folder: string;
  site: Authority;
  /** A CA of an attacker, which signs for any name, even `client1`. */
  rogue: Authority;
  /** An attacker's CA with the same name as the site's. */
  imitator: Authority;
  remove(): void;
}

export function makeCertificates(): Certificates {
  const folder = mkdtempSync(join(tmpdir(), 'webjob-certificates-'));
  const place = (name: string): string => {
    mkdirSync(join(folder, name));
    return join(folder, name);
  };
  makeServerCertificate(folder);
  return {
    folder,
    site: new Authority(place('site')),
    rogue: new Authority(place('rogue'), 'Rogue clients'),
    imitator: new Authority(place('imitator')),
    remove: () => rmSync(folder, { recursive: true }),
  };
}

export interface SecureOptions {
  certificates: Certificates;
  mpm?: 'event' | 'prefork';
  /** Which of the guide's virtual hosts. */
  virtualHost: 'password' | 'certificate';
  /** Lines before it: the guide's Defines. */
  before?: string;
  /** Lines at its end. */
  inside?: string;
  modules?: string[];
  /** For persistent workers: lines before the virtual host, and at its end. */
  resident?: (site: Site) => { before: string; after: string };
  /** Further virtual hosts on the TLS port. */
  more?: (port: number) => string;
}

export interface Call {
  identity?: Identity;
  /** `client1:foo`. */
  user?: string;
  clientId?: string;
  /** Stored as stdout by a PUT; without it a GET of host.sh. */
  upload?: Buffer;
  headers?: Record<string, string>;
  /** Over plain HTTP. */
  plain?: boolean;
  maxVersion?: 'TLSv1.2' | 'TLSv1.3';
  /** The name in the TLS handshake; empty for a client that sends none. */
  servername?: string;
  /** The session of an earlier connection, to resume. */
  session?: Buffer;
  /** The Host header. */
  host?: string;
  /** Another page than the script. */
  page?: string;
}

export interface Answer {
  status: number;
  reason: string;
  body: Buffer;
  /** The data that resumes this TLS session. */
  session: Buffer | undefined;
  isResumed: boolean;
}

export interface SecureSite {
  site: Site;
  port: number;
  plainPort: number;
  errorLog: string;
  /** Rejects when the handshake fails or the connection ends without an answer. */
  ask(call: Call): Promise<Answer>;
  /** The status alone, for a table. */
  status(call: Call): Promise<number>;
  /** Writes nph-webjob.cfg: a block of the guide, and further settings. */
  configure(block: string, more?: Record<string, string>): void;
  /** Which of the shipped files is .htaccess, or its text. */
  permit(file: 'htaccess' | 'htaccess-certificates' | 'htaccess-either' | { text: string }): void;
  /** Lines of nph-webjob.log since the last call. */
  newLines(): LogLine[];
  close(): Promise<void>;
}

/** client1 with the password foo and client2 with bar, each with a host.sh. */
export async function startSecureSite(options: SecureOptions): Promise<SecureSite> {
  const { certificates, mpm = 'event', modules = [], inside = '' } = options;
  const site = makeSite({ resident: options.resident !== undefined });
  const resident = options.resident?.(site) ?? { before: '', after: '' };
  addUser(site, 'client2', 'bar');
  addCommand(site, 'client2', 'host.sh', HOST_SH);
  copyFileSync(join(site.cgiDirectory, '.htaccess'), join(site.root, 'htaccess'));
  const own = (text: string, port = 0): string => localize(text, certificates, port);
  const server = await startHttpd({
    site,
    mpm,
    modules: ['ssl', ...modules],
    before: resident.before,
    after: `LogLevel ssl:info\nDefine WEBJOB_CA_FILE "${certificates.site.folder}/ca.crt"\n${own(options.before ?? '')}`,
    second: (port) => {
      const virtualHost = own(readBlock(`apache ${options.virtualHost}`), port);
      return virtualHost.replace('</VirtualHost>', `${inside}\n${resident.after}\n$&`) + (options.more?.(port) ?? '');
    },
  });
  let linesSeen = 0;
  const { port: plainPort, secondPort: port, errorLog } = server;
  const ask = (call: Call): Promise<Answer> => askOnce(call.plain ? plainPort : port, certificates, call);
  return {
    site,
    port,
    plainPort,
    errorLog,
    ask,
    status: async (call) => (await ask(call)).status,
    configure: (block, more = {}) => {
      const lines = Object.entries(more).map(([key, value]) => `${key}=${value}\n`);
      configure(site, {}, `${readBlock(`cfg ${block}`)}${lines.join('')}`);
    },
    permit: (file) => writeFileSync(join(site.cgiDirectory, '.htaccess'), readHtaccess(site, file)),
    newLines: () => {
      const lines = readLog(site.base).slice(linesSeen);
      linesSeen += lines.length;
      return lines.map(parseLogLine);
    },
    close: async () => {
      await server.stop();
      site.remove();
    },
  };
}

/** A started site for the tests of one describe. */
export function useSite(options: SecureOptions): () => SecureSite {
  let site: SecureSite | undefined;
  before(async () => {
    site = await startSecureSite(options);
  });
  after(() => site?.close());
  return () => {
    assert.ok(site);
    return site;
  };
}

/** The connection ends in the handshake, with either version of TLS, and no script runs. */
export async function assertNoHandshake(site: SecureSite, call: Call, alert: RegExp): Promise<void> {
  await assert.rejects(site.ask({ ...call, maxVersion: 'TLSv1.2' }), alert);
  // With TLS 1.3 a client learns of it when it reads, or when it can no longer write.
  await assert.rejects(site.ask(call), /alert|ECONNRESET|EPIPE|socket hang up/);
  assert.deepEqual(site.newLines(), []);
}

/** The status, and the log line when the script rather than httpd answered. */
export async function assertStatus(site: SecureSite, status: number, call: Call): Promise<void> {
  assert.equal(await site.status(call), status);
  const isOurs = status === 200 || status >= 450;
  assert.deepEqual(
    site.newLines().map((line) => line.status),
    isOurs ? [status] : [],
  );
}

/** Replaces the guide's paths and port by those of the test. */
export function localize(text: string, { folder, site }: Certificates, port: number): string {
  return text
    .replace('*:443', `127.0.0.1:${port}`)
    .replaceAll('Include /usr/local/apache/etc', `Include ${SHIPPED}`)
    .replaceAll('/usr/local/apache/etc/webjob-server', join(folder, 'webjob-server'))
    .replaceAll('/usr/local/apache/etc/webjob-ca.crl', join(site.folder, 'webjob-ca.crl'));
}

function readHtaccess(site: Site, file: Parameters<SecureSite['permit']>[0]): string {
  if (typeof file === 'object') return file.text;
  // makeSite() has put the path of the user file into this one.
  const own = readFileSync(join(site.root, 'htaccess'), 'utf8');
  if (file === 'htaccess') return own;
  const userFile = /^AuthUserFile .*$/m.exec(own)?.[0] ?? '';
  return readFileSync(join(SHIPPED, file), 'utf8').replace(/^AuthUserFile .*$/m, userFile);
}

function askOnce(port: number, { folder }: Certificates, call: Call): Promise<Answer> {
  const { identity, user, upload, plain = false } = call;
  const query = `VERSION=webjob+1.4.0&SYSTEM=any&CLIENTID=${call.clientId ?? 'client1'}&FILENAME=host.sh`;
  const lengths = `&RUNTYPE=snapshot&STDOUT_LENGTH=${upload?.length}&STDERR_LENGTH=0&STDENV_LENGTH=0`;
  return new Promise((resolve, reject) => {
    const request = (plain ? plainRequest : secureRequest)({
      host: '127.0.0.1',
      port,
      method: upload ? 'PUT' : 'GET',
      agent: false,
      timeout: TIME_LIMIT_MS,
      path: call.page ?? `/webjob/nph-webjob.cgi?${query}${upload ? lengths : ''}`,
      headers: { Host: call.host ?? SERVER_NAME, 'Content-Length': upload?.length ?? 0, ...call.headers },
      ...(user && { auth: user }),
      ...(!plain && {
        ca: readFileSync(join(folder, 'webjob-server.crt')),
        servername: call.servername ?? SERVER_NAME,
        checkServerIdentity: () => undefined,
        ...(call.session && { session: call.session }),
        ...(call.maxVersion && { maxVersion: call.maxVersion }),
        ...identity,
      }),
    });
    let session: Buffer | undefined;
    request.on('socket', (socket) =>
      socket.on('session', (ticket: Buffer) => {
        session = ticket;
      }),
    );
    request.on('timeout', () => request.destroy(new Error('no answer in time')));
    request.on('error', reject).on('response', (answer) => {
      const isResumed = answer.socket instanceof TLSSocket && answer.socket.isSessionReused();
      collect(answer).then((head) => resolve({ ...head, session, isResumed }), reject);
    });
    request.end(upload);
  });
}

async function collect(answer: IncomingMessage): Promise<Pick<Answer, 'status' | 'reason' | 'body'>> {
  const body = Buffer.concat(await answer.toArray());
  return { status: answer.statusCode ?? 0, reason: answer.statusMessage ?? '', body };
}
