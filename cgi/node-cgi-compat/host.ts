// A host that runs one CGI script under node:http: for development, for tests, and for machines
// without a web server. It starts one process for each request, as a web server does. Bodies are
// streamed in both directions and never held in memory.
import { type ChildProcess, spawn } from 'node:child_process';
import type { IncomingMessage, OutgoingHttpHeaders, RequestListener, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { basename, dirname, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { environmentFor } from './environment.ts';
import { parseHead } from './head.ts';
import type { CgiEnvironment } from './request.ts';

/** Which script the host runs, and how. */
export interface CgiHostOptions {
  /** URL path of the script. Paths below it arrive as PATH_INFO; everything else is 404. */
  scriptName: string;
  /**
   * The script, an executable file. With a name that begins with `nph-`, its output is the complete
   * answer.
   */
  scriptFilename: string;
  /**
   * Additional variables; those of RFC 3875 take precedence. Of the host's own environment, a
   * script gets only PATH.
   */
  env?: CgiEnvironment;
  /**
   * Whether a name and password of Basic authentication are correct. Without this function no
   * authentication is required.
   */
  authenticate?: (user: string, password: string) => boolean;
  /** The value of SERVER_SOFTWARE. */
  serverSoftware?: string;
  /** Seconds until a script is ended and the client gets 504; 0 for no limit. */
  timeLimitSeconds?: number;
  /** Called with each line a script writes to stderr, without control characters. */
  onStderr?: (line: string) => void;
}

/**
 * A request, and whether its answer has begun: after that, the host must not add anything of its
 * own.
 */
interface Exchange {
  request: IncomingMessage;
  response: ServerResponse;
  begun: boolean;
}

const KILL_AFTER_MS = 3_000;
const MAX_HEAD_BYTES = 64 * 1024;

/** Returns the listener for `http.createServer` or `https.createServer`. */
export function createCgiHost(options: CgiHostOptions): RequestListener {
  const absolute = { ...options, scriptFilename: resolve(options.scriptFilename) };
  // Connections that end with the answer of an nph script. Later requests on them are not answered.
  const taken = new WeakSet<Socket>();
  return (request, response) => {
    const exchange: Exchange = { request, response, begun: false };
    const { socket } = request;
    if (taken.has(socket)) {
      request.resume();
      return;
    }
    const path = request.url?.split('?')[0] ?? '';
    if (path !== options.scriptName && !path.startsWith(`${options.scriptName}/`)) return refuse(exchange, 404);
    const user = findUser(request);
    if (options.authenticate && !(user && options.authenticate(user.name, user.password) === true)) {
      return refuse(exchange, 401, { 'WWW-Authenticate': 'Basic realm="CGI"' });
    }
    if (isNph(absolute)) taken.add(socket);
    runScript(absolute, exchange, options.authenticate ? user?.name : undefined);
  };
}

function isNph(options: CgiHostOptions): boolean {
  return basename(options.scriptFilename).startsWith('nph-');
}

function runScript(options: CgiHostOptions, exchange: Exchange, remoteUser: string | undefined): void {
  const { request, response } = exchange;
  const child = startScript(options, describe(options, request, remoteUser));
  if (!child) {
    refuse(exchange, 500);
    return;
  }
  child.on('error', () => refuse(exchange, 500));
  // Without pipes (no descriptors are left) the child emits an error, which is handled above.
  if (!child.stdin || !child.stdout || !child.stderr) return;
  const end = limitScript(child, options.timeLimitSeconds ?? 0, () => giveUp(exchange));
  child.stdin.on('error', () => request.resume());
  request.pipe(child.stdin);
  passStderr(child.stderr, options.onStderr ?? ((line) => process.stderr.write(`${line}\n`)));
  // When the client leaves, the script's input is closed, and after a while the script is ended.
  if (isNph(options)) {
    request.socket.on('close', end);
    passVerbatim(child.stdout, exchange);
  } else {
    response.on('close', () => response.writableFinished || end());
    passParsed(child.stdout, exchange, end);
  }
}

/**
 * Starts the script; undefined for errors that spawn throws immediately (ENOTDIR, E2BIG). Other
 * failures arrive as the child's error event.
 */
function startScript(options: CgiHostOptions, variables: CgiEnvironment): ChildProcess | undefined {
  const { scriptFilename } = options;
  try {
    return spawn(scriptFilename, [], {
      // The script's own directory is the current one (RFC 3875, section 7.2).
      cwd: dirname(scriptFilename),
      env: { PATH: process.env.PATH, ...options.env, ...variables },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
  } catch {
    return undefined;
  }
}

function describe(options: CgiHostOptions, request: IncomingMessage, remoteUser: string | undefined): CgiEnvironment {
  const { socket } = request;
  return environmentFor({
    method: request.method ?? '',
    target: request.url ?? '',
    protocol: `HTTP/${request.httpVersion}`,
    rawHeaders: request.rawHeaders,
    remoteAddress: plainAddress(socket.remoteAddress),
    remotePort: socket.remotePort ?? 0,
    localAddress: plainAddress(socket.localAddress),
    localPort: socket.localPort ?? 0,
    secure: 'encrypted' in socket,
    scriptName: options.scriptName,
    scriptFilename: options.scriptFilename,
    serverSoftware: options.serverSoftware ?? 'node-cgi-compat',
    remoteUser,
  });
}

/** An IPv4 address in its usual form, even on an IPv6 socket that serves both. */
function plainAddress(address: string | undefined): string {
  return address?.replace(/^::ffff:(?=\d+\.)/, '') ?? '';
}

/**
 * Sends the output of an nph script, which is a complete HTTP answer (RFC 3875, section 5),
 * verbatim to the socket, and closes the connection.
 */
function passVerbatim(stdout: Readable, exchange: Exchange): void {
  const { request, response } = exchange;
  stdout.once('data', (first: Buffer) => {
    // The socket no longer belongs to the response when the connection ended with an earlier
    // answer.
    if (exchange.begun || response.socket !== request.socket) {
      stdout.resume();
      return;
    }
    exchange.begun = true;
    response.detachSocket(request.socket);
    request.socket.write(first);
    stdout.pipe(request.socket);
  });
  stdout.on('end', () => refuse(exchange, 502));
}

/**
 * Sends the output of any other script: a header that the host parses (RFC 3875, section 6), then
 * the content.
 */
function passParsed(stdout: Readable, exchange: Exchange, end: () => void): void {
  const { response } = exchange;
  let head = Buffer.alloc(0);
  const onData = (chunk: Buffer): void => {
    head = Buffer.concat([head, chunk]);
    const text = head.toString('latin1');
    const blank = /\r?\n\r?\n/.exec(text);
    if (!blank && head.length < MAX_HEAD_BYTES) return;
    stdout.off('data', onData);
    const parsed = blank ? parseHead(text.slice(0, blank.index)) : undefined;
    if (exchange.begun || !blank || !parsed) {
      refuse(exchange, 502);
      end();
      stdout.resume();
      return;
    }
    exchange.begun = true;
    response.writeHead(parsed.status, parsed.reason, parsed.headers);
    response.write(head.subarray(blank.index + blank[0].length));
    stdout.pipe(response);
  };
  stdout.on('data', onData).on('end', () => refuse(exchange, 502));
}

/**
 * Ends a script that exceeds its time or whose client left: SIGTERM, three seconds later SIGKILL.
 * Returns the function that ends it.
 */
function limitScript(child: ChildProcess, limitSeconds: number, onLimit: () => void): () => void {
  const timers: NodeJS.Timeout[] = [];
  let ending = false;
  const end = (): void => {
    if (ending || child.exitCode !== null || child.signalCode !== null) return;
    ending = true;
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

/**
 * Answers 504 when the time limit is exceeded, or breaks the connection off when half of an answer
 * was sent, which must not look complete.
 */
function giveUp(exchange: Exchange): void {
  if (!exchange.begun) refuse(exchange, 504);
  else if (!exchange.response.writableFinished) exchange.request.socket.destroy();
}

/**
 * Sends an answer of the host's own after the body was read, because an earlier answer would be
 * lost with the connection. Does nothing once an answer has begun.
 */
function refuse(exchange: Exchange, status: number, headers: OutgoingHttpHeaders = {}): void {
  const { request, response } = exchange;
  if (exchange.begun) return;
  exchange.begun = true;
  const answer = (): void => {
    response.writeHead(status, { ...headers, 'Content-Length': 0, Connection: 'close' }).end();
  };
  request.unpipe();
  if (request.complete) answer();
  else request.on('end', answer);
  request.resume();
}

function findUser(request: IncomingMessage): { name: string; password: string } | undefined {
  const encoded = /^Basic ([A-Za-z0-9+/=]+)$/i.exec(request.headers.authorization ?? '')?.[1];
  const match = /^([^:]+):(.*)$/s.exec(Buffer.from(encoded ?? '', 'base64').toString());
  return match?.[1] === undefined ? undefined : { name: match[1], password: match[2] ?? '' };
}

function passStderr(stderr: Readable, onStderr: (line: string) => void): void {
  let rest = '';
  stderr.on('data', (chunk: Buffer) => {
    const lines = (rest + chunk.toString('latin1')).split('\n');
    rest = (lines.pop() ?? '').slice(0, 4096);
    for (const line of lines) onStderr(line.slice(0, 4096).replace(/[^\x20-\x7e]/g, '?'));
  });
  stderr.on('end', () => rest === '' || onStderr(rest.replace(/[^\x20-\x7e]/g, '?')));
}
