// An HTTP client as strict as the original in C: it sends the whole request before it reads one
// byte of the answer, reads the header byte by byte, and accepts exactly one correct
// Content-Length. What it refuses, deployed clients would refuse too.
import { connect, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectSecurely } from 'node:tls';

/** The original's limit for a header, with its blank line. */
const MAX_HEADER_BYTES = 16_383;
const MAX_REASON_LENGTH = 255;

export interface StrictAnswer {
  status: number;
  reason: string;
  /** By lower-case name. */
  headers: Map<string, string>;
  body: Buffer;
}

export interface StrictRequest {
  port: number;
  /** Request line and headers, with the blank line. */
  head: string;
  /** The body, sent piece by piece, never all in memory. */
  body?: Iterable<Uint8Array>;
  timeLimitSeconds?: number;
  /** Over TLS, with these options. */
  tls?: ConnectionOptions;
}

/** `bytes` zeros in pieces. */
export function* zeros(bytes: number): Iterable<Uint8Array> {
  const piece = new Uint8Array(Math.min(bytes, 64 * 1024));
  for (let left = bytes; left > 0; left -= piece.length) yield left < piece.length ? piece.subarray(0, left) : piece;
}

/**
 * Sends a request and reads its answer. Rejects when a byte cannot be sent, or with the first
 * problem of the answer.
 */
export async function askStrictly(request: StrictRequest): Promise<StrictAnswer> {
  const target = { host: '127.0.0.1', port: request.port };
  // Paused before it is connected; otherwise Node would begin to read by itself.
  const socket = request.tls
    ? connectSecurely({ ...request.tls, ...target }).pause()
    : connect({ ...target, allowHalfOpen: true }).pause();
  // Every step learns of an error in its own way; without a listener the process would end.
  socket.on('error', () => {});
  const timeLimit = setTimeout(
    () => socket.destroy(new Error('the time limit is over')),
    (request.timeLimitSeconds ?? 60) * 1000,
  );
  try {
    await send(socket, request);
    return parseAnswer(await receive(socket));
  } finally {
    clearTimeout(timeLimit);
    socket.destroy();
  }
}

/** Resolves when the kernel has taken the last byte. */
async function send(socket: Socket, { head, body, tls }: StrictRequest): Promise<void> {
  await write(socket, Buffer.from(head, 'latin1'));
  for (const piece of body ?? []) await write(socket, piece);
  // With TLS the bytes of the handshake count too.
  if (!tls && socket.bytesRead > 0) throw new Error('a byte was read before the request was sent');
}

function write(socket: Socket, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
}

/** Everything up to the end of the connection, which must be a regular one. */
function receive(socket: Socket): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('end', () => resolve(Buffer.concat(chunks)));
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('the connection ended before the answer was read')));
    if (socket.destroyed) reject(new Error('the connection ended before the answer was read'));
    socket.resume();
  });
}

/** Parses an answer. Throws SyntaxError for what the original would not have understood. */
export function parseAnswer(bytes: Buffer): StrictAnswer {
  const end = findHeaderEnd(bytes);
  const [first = '', ...lines] = bytes.toString('latin1', 0, end).split(/\r?\n/).slice(0, -2);
  const match = /^HTTP\/[0-9]\.[0-9] ([0-9]{3}) (.*)$/.exec(first);
  if (!match) throw new SyntaxError('no status line');
  const [, status, reason = ''] = match;
  if (reason.length > MAX_REASON_LENGTH) throw new SyntaxError('the reason is longer than 255 characters');
  const headers = parseHeaders(lines);
  const length = parseLength(headers);
  const body = bytes.subarray(end);
  if (body.length !== length) throw new SyntaxError(`Content-Length is ${length}, the body has ${body.length} bytes`);
  return { status: Number(status), reason, headers, body };
}

/** The offset of the body after the first blank line, found byte by byte within the limit. */
function findHeaderEnd(bytes: Buffer): number {
  if (bytes.length === 0) throw new SyntaxError('an empty answer');
  let lineStart = 0;
  for (let at = 0; at < bytes.length && at < MAX_HEADER_BYTES; at += 1) {
    if (bytes[at] !== 0x0a) continue;
    const line = bytes.toString('latin1', lineStart, at).replace(/\r$/, '');
    if (line === '') return at + 1;
    lineStart = at + 1;
  }
  throw new SyntaxError('the header does not end within 16,383 bytes');
}

/** Only once, because the original takes a second one for an attack. */
const SINGLE = new Set(['content-length', 'job-id', 'webjob-payload-signature']);

function parseHeaders(lines: string[]): Map<string, string> {
  const headers = new Map<string, string>();
  for (const line of lines) {
    const match = /^([^:\s]+):[\t ]*(.*?)[\t ]*$/.exec(line);
    if (!match?.[1]) throw new SyntaxError('a header line without a name and a colon');
    const name = match[1].toLowerCase();
    if (headers.has(name) && SINGLE.has(name)) throw new SyntaxError(`${name} twice`);
    headers.set(name, match[2] ?? '');
  }
  if (headers.has('transfer-encoding')) throw new SyntaxError('a transfer encoding');
  if (headers.has('content-encoding')) throw new SyntaxError('a content encoding');
  const jobId = headers.get('job-id');
  if (jobId !== undefined && !/^[\x21-\x7e]{1,255}$/.test(jobId)) throw new SyntaxError('a Job-Id that is none');
  return headers;
}

function parseLength(headers: Map<string, string>): number {
  const text = headers.get('content-length');
  if (text === undefined) throw new SyntaxError('no Content-Length');
  if (!/^[0-9]{1,20}$/.test(text)) throw new SyntaxError('Content-Length is no number');
  return Number(text);
}
