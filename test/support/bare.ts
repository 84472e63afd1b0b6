// The CGI as a bare process without a web server: a raw request becomes the environment that RFC
// 3875 (and httpd) would make of it. Independent of every server, so that a difference shows whose
// behaviour it is.
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { openProgram } from '../../scripts/web-user.ts';
import { canBeHosted, host } from './program-runs.ts';
import type { WebUser } from './tree.ts';

// The script gets no TZ, as under httpd. So its logs are in the zone of the machine, and the test
// that reads them must be too.
delete process.env.TZ;

/** The built script, or a copy of it when the web user cannot reach it. */
export const CGI = openProgram(join(import.meta.dirname, '..', '..', 'dist', 'nph-webjob.cgi'), () => {
  const folder = mkdtempSync(join(tmpdir(), 'webjob-bare-'));
  chmodSync(folder, 0o755);
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  return folder;
});

/** A parsed raw request. Names and values are latin1: one character for each byte. */
export interface RawRequest {
  method: string;
  target: string;
  protocol: string;
  headers: [name: string, value: string][];
  body: Buffer;
}

export interface BareOptions {
  settingsFile: string;
  user: WebUser | undefined;
  /** Variables that override those of the request; undefined removes a variable. */
  environment?: readonly (readonly [name: string, value: string | undefined])[];
  script?: string;
  /** A command that runs the script. */
  wrapper?: readonly string[];
  /** A command that runs whatever runs the script. */
  within?: readonly string[];
  /** Run the script in a process of its own, as under httpd. */
  isAlone?: boolean;
  /** Where the answer goes instead of a pipe. */
  stdout?: number;
  /** The Node for the PATH in which the script's first line is looked up. */
  node?: string;
  timeLimitSeconds?: number;
}

export interface BareResult {
  stdout: Buffer;
  stderr: string;
  exitCode: number | null;
}

/** Parses raw bytes like a lenient server: a bare LF ends a line too. */
export function parseRawRequest(raw: Buffer): RawRequest {
  const text = raw.toString('latin1');
  const end = /\r?\n\r?\n/.exec(text) ?? { index: text.length, 0: '' };
  const [first = '', ...lines] = text.slice(0, end.index).split(/\r?\n/);
  const [, method = '', target = '', protocol = ''] = /^(\S+) (.*?)(?: (HTTP\/\d\.\d))?$/s.exec(first) ?? [];
  const headers = lines.map((line): [string, string] => {
    const at = line.indexOf(':');
    return [line.slice(0, at), line.slice(at + 1).replace(/^[\t ]+|[\t ]+$/g, '')];
  });
  return { method, target, protocol, headers, body: raw.subarray(end.index + end[0].length) };
}

/** The value of a header; repeated ones are joined as in RFC 3875, section 4.1.18, and httpd. */
function findHeader(request: RawRequest, name: string): string | undefined {
  const values = request.headers.filter(([other]) => other.toLowerCase() === name).map(([, value]) => value);
  return values.length > 0 ? values.join(', ') : undefined;
}

/**
 * Paths under `/open/` need no user; elsewhere httpd has checked the password before a script runs.
 */
function userOf(request: RawRequest): string | undefined {
  const encoded = /^Basic (.*)$/.exec(findHeader(request, 'authorization') ?? '')?.[1];
  if (encoded === undefined || request.target.startsWith('/open/')) return undefined;
  return Buffer.from(encoded, 'base64').toString('latin1').split(':')[0];
}

/**
 * RFC 3875, section 4.1, as httpd does it: without Authorization and headers with an underscore in
 * the name.
 */
export function environmentOf(request: RawRequest): Map<string, string> {
  const at = request.target.indexOf('?');
  const path = at < 0 ? request.target : request.target.slice(0, at);
  const environment = new Map([
    ['GATEWAY_INTERFACE', 'CGI/1.1'],
    ['SERVER_SOFTWARE', 'Bare/1.0'],
    ['SERVER_NAME', '127.0.0.1'],
    ['SERVER_PORT', '80'],
    ['SERVER_PROTOCOL', request.protocol],
    ['REQUEST_METHOD', request.method],
    ['QUERY_STRING', at < 0 ? '' : request.target.slice(at + 1)],
    ['SCRIPT_NAME', path],
    ['SCRIPT_FILENAME', CGI],
    ['REMOTE_ADDR', '127.0.0.1'],
  ]);
  const user = userOf(request);
  if (user !== undefined) environment.set('AUTH_TYPE', 'Basic').set('REMOTE_USER', user);
  const isChunked = findHeader(request, 'transfer-encoding') !== undefined;
  for (const [name] of request.headers) {
    const key = name.toLowerCase();
    const value = findHeader(request, key) ?? '';
    if (key === 'content-length') {
      if (!isChunked) environment.set('CONTENT_LENGTH', value);
    } else if (key === 'content-type') environment.set('CONTENT_TYPE', value);
    else if (key !== 'authorization' && /^[a-z0-9-]+$/.test(key)) {
      environment.set(`HTTP_${key.toUpperCase().replaceAll('-', '_')}`, value);
    }
  }
  return environment;
}

/**
 * RFC 3875, section 4.4: a query without `=` is also passed as arguments, unless it contains
 * something that cannot be one.
 */
function argumentsOf(query: string): string[] {
  if (query === '' || query.includes('=')) return [];
  const words = query
    .split('+')
    .map((word) => word.replace(/%([0-9A-Fa-f]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16))));
  return words.every((word) => /^[\x01-\x7f]*$/.test(word)) ? words : [];
}

/**
 * Runs the script for one raw request: in a process for many, unless the options need a process of
 * its own. Rejects when it does not end in time.
 */
export async function runBare(raw: Buffer, options: BareOptions): Promise<BareResult> {
  const request = parseRawRequest(raw);
  const { isAlone, wrapper = [], within, script, stdout, node, user, timeLimitSeconds = 60 } = options;
  const isPlain =
    !isAlone && wrapper.length === 0 && script === undefined && stdout === undefined && node === undefined;
  const environment = makeEnvironment(request, options);
  const variables = Object.fromEntries(environment);
  const hosting = { program: CGI, user, within };
  if (isPlain && [...environment].every(isAscii) && canBeHosted(hosting, variables)) {
    const args = argumentsOf(environment.get('QUERY_STRING') ?? '');
    const run = { body: request.body, environment: variables, cwd: dirname(CGI), timeLimitMs: timeLimitSeconds * 1000 };
    const { code, stdout, stderr } = await host(hosting, args, run);
    return { stdout, stderr: stderr.toString('latin1'), exitCode: code };
  }
  const child = spawnBare(request, options);
  child.stdin?.end(request.body);
  return collect(child, timeLimitSeconds);
}

/** The script's environment for a request, with the options applied. */
function makeEnvironment(request: RawRequest, options: BareOptions): Map<string, string> {
  const environment = environmentOf(request).set('WEBJOB_PROPERTIES_FILE', options.settingsFile);
  environment.set('PATH', `${dirname(options.node ?? process.execPath)}${delimiter}${process.env.PATH}`);
  for (const [name, value] of options.environment ?? []) {
    if (value === undefined) environment.delete(name);
    else environment.set(name, value);
  }
  return environment;
}

/** Starts the script for a request in a process of its own; the caller sends the body. */
export function spawnBare(request: RawRequest, options: BareOptions): ChildProcess {
  const environment = makeEnvironment(request, options);
  const script = options.script ?? CGI;
  const { wrapper = [], within = [] } = options;
  const words = [...within, ...wrapper, script, ...argumentsOf(environment.get('QUERY_STRING') ?? '')];
  const child = startScript(words, {
    env: environment,
    cwd: dirname(script),
    stdout: options.stdout ?? 'pipe',
    user: options.user,
  });
  // A script that ends without reading its input causes an error here; the test judges it by its
  // answer.
  child.stdin?.on('error', () => {});
  return child;
}

interface Start {
  env: Map<string, string>;
  cwd: string;
  stdout: number | 'pipe';
  user: WebUser | undefined;
}

function startScript([program = '', ...args]: string[], { env, cwd, stdout, user }: Start): ChildProcess {
  const values = [...env];
  const ascii = values.filter(isAscii);
  const identity = user ? { uid: user.uid, gid: user.gid } : {};
  const stdio: StdioOptions = ['pipe', stdout, 'pipe'];
  const options = { env: Object.fromEntries(ascii), cwd, stdio, ...identity };
  if (ascii.length === values.length) return spawn(program, args, options);
  // Node encodes an environment as UTF-8; only a shell's printf can pass other bytes.
  const raw = values
    .filter((pair) => !ascii.includes(pair))
    .map(([name, value]) => `${name}="$(printf '${octal(value)}')"`);
  return spawn('/bin/sh', ['-c', `export ${raw.join(' ')}; exec "$0" "$@"`, program, ...args], options);
}

function isAscii([, value]: readonly [name: string, value: string]): boolean {
  return /^[\x01-\x7f]*$/.test(value);
}

function octal(value: string): string {
  return Array.from(value, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`).join('');
}

/** The script's output until it ends. Rejects when it does not end in time. */
export function collect(child: ChildProcess, timeLimitSeconds: number): Promise<BareResult> {
  return new Promise((resolve, reject) => {
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`the script did not end within ${timeLimitSeconds} s`));
    }, timeLimitSeconds * 1000);
    child.stdout?.on('data', (chunk) => out.push(chunk));
    child.stderr?.on('data', (chunk) => err.push(chunk));
    child.on('error', reject);
    child.on('close', (exitCode) => {
      clearTimeout(timer);
      resolve({ stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString('latin1'), exitCode });
    });
  });
}
