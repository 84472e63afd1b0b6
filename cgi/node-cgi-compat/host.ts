// A host that runs one CGI script under node:http: for development, for tests, and for machines without a web server. One process a
// request, as a web server does it; bodies stream both ways and are never held in memory.
import { type ChildProcess, spawn } from 'node:child_process';
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { basename } from 'node:path';
import { environmentFor } from './environment.ts';
import type { CgiEnvironment } from './request.ts';

export interface CgiHostOptions {
  /** URL path of the script; paths below it arrive as PATH_INFO. Everything else is 404. */
  scriptName: string;
  /** The script, an executable file. A name that begins with `nph-` makes its output the whole answer. */
  scriptFilename: string;
  /** Variables beside those of RFC 3875. Of the host's own environment a script gets PATH alone. */
  env?: CgiEnvironment;
  /** The user's name for a `user:password` pair that is right. Without this function everybody may enter. */
  authenticate?: (user: string, password: string) => boolean;
  /** What SERVER_SOFTWARE says. */
  serverSoftware?: string;
  /** Seconds a script may take before it is ended and the client sees 504; 0 for no limit. */
  timeLimitSeconds?: number;
  /** Takes each line a script writes to stderr, without control characters. */
  onStderr?: (line: string) => void;
}

const KILL_AFTER_MS = 3_000;
const MAX_HEAD_BYTES = 64 * 1024;

/** The listener to give to `http.createServer` or `https.createServer`. */
export function createCgiHost(options: CgiHostOptions): RequestListener {
  return (request, response) => {
    const path = request.url?.split('?')[0] ?? '';
    if (path !== options.scriptName && !path.startsWith(`${options.scriptName}/`))
      return refuse(request, response, 404);
    const user = findUser(request);
    if (options.authenticate && (user === undefined || !options.authenticate(user.name, user.password))) {
      response.setHeader('WWW-Authenticate', 'Basic realm="CGI"');
      return refuse(request, response, 401);
    }
    runScript(options, request, response, options.authenticate ? user?.name : undefined);
  };
}

function runScript(
  options: CgiHostOptions,
  request: IncomingMessage,
  response: ServerResponse,
  remoteUser: string | undefined,
): void {
  const child = spawn(options.scriptFilename, [], {
    env: { PATH: process.env.PATH, ...options.env, ...describe(options, request, remoteUser) },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const end = limitScript(child, options.timeLimitSeconds ?? 0, () => refuse(request, response, 504));
  child.on('error', () => refuse(request, response, 500));
  child.stdin.on('error', () => request.resume());
  request.pipe(child.stdin);
  // A client that leaves closes the script's input and, after a while, its life.
  response.on('close', () => response.writableFinished || end());
  passStderr(child, options.onStderr ?? ((line) => process.stderr.write(`${line}\n`)));
  if (basename(options.scriptFilename).startsWith('nph-')) passVerbatim(child, request, response);
  else passParsed(child, request, response);
}

function describe(options: CgiHostOptions, request: IncomingMessage, remoteUser: string | undefined): CgiEnvironment {
  const { socket } = request;
  return environmentFor({
    method: request.method ?? '',
    target: request.url ?? '',
    protocol: `HTTP/${request.httpVersion}`,
    rawHeaders: request.rawHeaders,
    remoteAddress: socket.remoteAddress?.replace(/^::ffff:/, '') ?? '',
    remotePort: socket.remotePort ?? 0,
    localAddress: socket.localAddress ?? '',
    localPort: socket.localPort ?? 0,
    secure: 'encrypted' in socket,
    scriptName: options.scriptName,
    scriptFilename: options.scriptFilename,
    serverSoftware: options.serverSoftware ?? 'node-cgi-compat',
    remoteUser,
  });
}

/** An nph script writes the HTTP answer itself (RFC 3875, section 5): its bytes go to the socket as they are, and the connection closes. */
function passVerbatim(child: ChildProcess, request: IncomingMessage, response: ServerResponse): void {
  const { socket } = request;
  let answered = false;
  response.detachSocket(socket);
  child.stdout?.on('data', () => {
    answered = true;
  });
  child.stdout?.pipe(socket);
  child.on('error', () => socket.end('HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n'));
  child.on('close', () => answered || socket.end());
  socket.on('close', () => response.emit('close'));
}

/** Any other script writes a header the host reads (section 6), then the content. */
function passParsed(child: ChildProcess, request: IncomingMessage, response: ServerResponse): void {
  let head = Buffer.alloc(0);
  const onData = (chunk: Buffer): void => {
    head = Buffer.concat([head, chunk]);
    const end = /\r?\n\r?\n/.exec(head.toString('latin1'));
    if (!end && head.length < MAX_HEAD_BYTES) return;
    child.stdout?.off('data', onData).pause();
    const parsed = end ? parseHead(head.toString('latin1', 0, end.index)) : undefined;
    if (!end || !parsed) {
      child.kill('SIGTERM');
      refuse(request, response, 502);
      return;
    }
    response.writeHead(parsed.status, parsed.reason, parsed.headers);
    response.write(head.subarray(end.index + end[0].length));
    child.stdout?.pipe(response);
  };
  child.stdout?.on('data', onData).on('end', () => refuse(request, response, 502));
}

/** The header of a script's answer (section 6.3); undefined for one that is malformed. */
export function parseHead(text: string): { status: number; reason: string; headers: [string, string][] } | undefined {
  let status = 200;
  let reason = 'OK';
  const headers: [string, string][] = [];
  for (const line of text.split(/\r?\n/)) {
    const match = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*([\t\x20-\x7e]*)$/.exec(line);
    if (!match) return undefined;
    const [, name = '', value = ''] = match;
    if (name.toLowerCase() !== 'status') {
      headers.push([name, value]);
      continue;
    }
    const given = /^([1-9]\d\d)(?: (.*))?$/.exec(value);
    if (!given) return undefined;
    status = Number(given[1]);
    reason = given[2] ?? '';
  }
  if (headers.some(([name]) => name.toLowerCase() === 'location') && status === 200) [status, reason] = [302, 'Found'];
  return headers.length > 0 ? { status, reason, headers } : undefined;
}

/** Ends a script that is over its time, or whose client left: SIGTERM, three seconds later SIGKILL. Returns what ends it. */
function limitScript(child: ChildProcess, limitSeconds: number, onLimit: () => void): () => void {
  const timers: NodeJS.Timeout[] = [];
  const end = (): void => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.stdin?.destroy();
    child.kill('SIGTERM');
    timers.push(setTimeout(() => child.kill('SIGKILL'), KILL_AFTER_MS));
  };
  if (limitSeconds > 0) {
    timers.push(
      setTimeout(() => {
        onLimit();
        end();
      }, limitSeconds * 1000),
    );
  }
  child.on('close', () => {
    for (const timer of timers) clearTimeout(timer);
  });
  return end;
}

/** An answer of the host's own. Does nothing once an answer has begun. */
function refuse(request: IncomingMessage, response: ServerResponse, status: number): void {
  if (response.headersSent || !response.socket) return;
  request.resume();
  response.writeHead(status, { 'Content-Length': 0, Connection: 'close' }).end();
}

function findUser(request: IncomingMessage): { name: string; password: string } | undefined {
  const encoded = /^Basic ([A-Za-z0-9+/=]+)$/i.exec(request.headers.authorization ?? '')?.[1];
  const match = /^([^:]+):(.*)$/s.exec(Buffer.from(encoded ?? '', 'base64').toString());
  return match?.[1] === undefined ? undefined : { name: match[1], password: match[2] ?? '' };
}

function passStderr(child: ChildProcess, onStderr: (line: string) => void): void {
  let rest = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    const lines = (rest + chunk.toString('latin1')).split('\n');
    rest = (lines.pop() ?? '').slice(0, 4096);
    for (const line of lines) onStderr(line.slice(0, 4096).replace(/[^\x20-\x7e]/g, '?'));
  });
  child.stderr?.on('end', () => rest === '' || onStderr(rest.replace(/[^\x20-\x7e]/g, '?')));
}
