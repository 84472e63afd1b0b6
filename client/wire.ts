// One HTTP exchange with a WebJob server, with the headers a C client sends and the strictness it has (docs/protocol.md, sections
// 1 and 2). Never follows a redirect and never takes an answer that may be incomplete.
import http, { type ClientRequest, type IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Target } from './settings.ts';

export interface WireRequest {
  method: 'GET' | 'PUT';
  target: Target;
  query: string;
  contentLength: number;
  jobId?: string | undefined;
  /** Seconds the whole exchange may take; 0 for no limit. */
  limitSeconds: number;
  /** Writes the body and ends the request. */
  send(request: ClientRequest): void;
}

const MAX_HEADER_BYTES = 16_383;
const ANSWER_AFTER_MS = 1_000;
const HEADER_TOO_LONG = `the header of the answer is longer than ${MAX_HEADER_BYTES} bytes`;
const NOT_ONE_LENGTH = 'the answer has not exactly one Content-Length';

/** What went wrong on the way; the stages say in which one. */
export class WireError extends Error {}

/**
 * Sends a request and hands the answer to `receive`, whose result it returns. Throws WireError for an answer that is not HTTP,
 * breaks off, comes too late, has not exactly one Content-Length, or is no success: `Status = [404], Reason = [Not Found]`.
 */
export async function exchange<Result>(
  wire: WireRequest,
  receive: (answer: IncomingMessage, contentLength: number) => Promise<Result>,
): Promise<Result> {
  const limit = wire.limitSeconds > 0 ? AbortSignal.timeout(wire.limitSeconds * 1000) : undefined;
  const request = await prepareRequest(wire, limit);
  try {
    // Bytes behind the end of an answer make an error of the request: a program that is longer than announced is cut off.
    let surplus = false;
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      request
        .on('response', resolve)
        .on('upgrade', resolve)
        .on('error', (error: NodeJS.ErrnoException) => {
          surplus ||= error.code?.startsWith('HPE_') ?? false;
          reject(error);
        });
      wire.send(request);
    });
    const result = await receive(answer, checkAnswer(answer));
    if (surplus) throw new WireError('the answer is longer than its Content-Length');
    return result;
  } catch (error) {
    if (limit?.aborted) throw new WireError(`no complete answer within ${wire.limitSeconds} seconds`);
    throw error instanceof WireError ? error : new WireError(describe(error as NodeJS.ErrnoException));
  } finally {
    request.destroy();
  }
}

async function prepareRequest(wire: WireRequest, signal: AbortSignal | undefined): Promise<ClientRequest> {
  const { url } = wire.target;
  const secure = url.protocol === 'https:';
  const request = (secure ? await import('node:https') : http).request({
    method: wire.method,
    hostname: url.hostname.replace(/^\[|\]$/g, ''),
    port: portOf(url),
    path: `${url.pathname}?${wire.query}`,
    headers: formatHeaders(wire),
    maxHeaderSize: MAX_HEADER_BYTES,
    agent: false,
    ...(signal && { signal }),
    // SSLVerifyPeerCert=N is the protocol's default; a client that checks is asked to.
    ...(secure && { rejectUnauthorized: false }),
  });
  return request.once('socket', readBehindBrokenPipe);
}

/**
 * A server may refuse an upload that is still being sent, and close. Its answer then waits behind the broken pipe, and Node would
 * throw both away: so a failed write is told a moment later, when the answer has been read.
 */
function readBehindBrokenPipe(socket: Socket): void {
  const timers: NodeJS.Timeout[] = [];
  const hold = (tell: Tell): Tell => {
    return (error) =>
      error && !socket.destroyed ? timers.push(setTimeout(tell, ANSWER_AFTER_MS, error)) : tell(error);
  };
  const write = socket._write.bind(socket);
  const writeMany = socket._writev?.bind(socket);
  socket._write = (chunk, encoding, tell) => write(chunk, encoding, hold(tell));
  if (writeMany) socket._writev = (chunks, tell) => writeMany(chunks, hold(tell));
  socket.once('close', () => {
    for (const timer of timers) clearTimeout(timer);
  });
}

type Tell = (error?: Error | null) => void;

/** The headers of a C client, in its order. */
function formatHeaders({ target, contentLength, jobId }: WireRequest): Record<string, string> {
  return {
    Host: `${target.url.hostname}:${portOf(target.url)}`,
    'Content-Type': 'application/octet-stream',
    'Content-Length': String(contentLength),
    ...(target.credentials && { Authorization: `Basic ${Buffer.from(target.credentials).toString('base64')}` }),
    ...(jobId && { 'Job-Id': jobId }),
    Connection: 'close',
  };
}

function portOf(url: URL): string {
  return url.port || (url.protocol === 'https:' ? '443' : '80');
}

/** The Content-Length of an answer that is a success and that a C client would take. */
function checkAnswer(answer: IncomingMessage): number {
  const status = answer.statusCode ?? 0;
  if (status < 200 || status > 299) {
    throw new WireError(`Status = [${status}], Reason = [${printable(answer.statusMessage ?? '')}]`);
  }
  if (headerBytes(answer) > MAX_HEADER_BYTES) throw new WireError(HEADER_TOO_LONG);
  const lengths = answer.rawHeaders.filter(
    (_, index) => index % 2 === 1 && answer.rawHeaders[index - 1]?.toLowerCase() === 'content-length',
  );
  if (
    answer.headers['transfer-encoding'] !== undefined ||
    lengths.length !== 1 ||
    !/^[0-9]{1,15}$/.test(lengths[0] ?? '')
  ) {
    throw new WireError(NOT_ONE_LENGTH);
  }
  return Number(lengths[0]);
}

function describe(error: NodeJS.ErrnoException & { reason?: string }): string {
  if (error.code === 'HPE_HEADER_OVERFLOW') return HEADER_TOO_LONG;
  if (error.code?.endsWith('_CONTENT_LENGTH')) return NOT_ONE_LENGTH;
  if (error.code?.startsWith('HPE_')) return `the answer is not HTTP (${error.code})`;
  if (error.code === 'ECONNRESET' || error.code === 'EPIPE')
    return 'the connection broke off before the answer was complete';
  if (error.code?.startsWith('ERR_SSL_') || error.code === 'EPROTO')
    return `TLS failed: ${printable(error.reason ?? error.code)}`;
  // A host with several addresses that all refuse makes an error without a message.
  return printable(error.message || (error.code ?? 'unknown error'));
}

/** At least so many bytes had the header: blanks round a value are not kept. */
function headerBytes({ statusMessage, rawHeaders }: IncomingMessage): number {
  const lines = rawHeaders.length / 2;
  return `HTTP/1.1 200 ${statusMessage}\r\n\r\n`.length + rawHeaders.join('').length + lines * ': \r\n'.length;
}

function printable(text: string): string {
  return text.slice(0, 255).replace(/[^\x20-\x7e]/g, '?');
}
