// One HTTP exchange with a WebJob server, with the headers of a C client and equally strict
// (docs/protocol.md, sections 1 and 2). Never follows a redirect, and never accepts an answer that
// may be incomplete.
import http, { type ClientRequest, type IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { isForwarded, portOf, prepareConnection, proxyAuthorization } from './connection.ts';
import { Failure, WireError } from './failure.ts';
import type { ClientSettings, Target } from './settings.ts';
import { describeAnswer, formatStatus, isSuccess, printable, retryAfterOf } from './status.ts';

export interface WireRequest {
  settings: ClientSettings;
  method: 'GET' | 'PUT';
  target: Target;
  /** The query to send; undefined for the query of the URL itself. */
  query: string | undefined;
  contentLength: number;
  jobId?: string | undefined;
  /** Seconds for the whole exchange; 0 for no limit. */
  limitSeconds: number;
  /**
   * The condition for a successful answer, and what messages call such an answer, for example `a
   * program`. If undefined, any success is accepted.
   */
  expected?: { name: string; matches(answer: IncomingMessage): boolean };
  /** Called with every answer whose header has arrived. */
  onAnswer?(answer: IncomingMessage): void;
  /** Writes the body and ends the request. */
  send(request: ClientRequest): void;
}

const MAX_HEADER_BYTES = 16_383;
const ANSWER_AFTER_MS = 1_000;
const HEADER_TOO_LONG = `the header of the answer is longer than ${MAX_HEADER_BYTES} bytes`;
const NOT_ONE_LENGTH = 'the answer does not have exactly one Content-Length';
const ON_THE_WAY =
  'a proxy, portal or filter in between may have answered instead of the server, or changed its answer';

/**
 * Sends a request and passes the answer to `receive`, whose result it returns. Throws WireError for
 * an answer that is not HTTP, is incomplete or late, lacks exactly one Content-Length, fails the
 * expected condition, or is not a success, such as `Status = [404], Reason = [Not Found]`. Throws
 * Failure `settings` for unusable TLS files.
 */
export async function exchange<Result>(
  wire: WireRequest,
  receive: (answer: IncomingMessage, contentLength: number) => Promise<Result>,
): Promise<Result> {
  const connect = await prepareConnection(wire.settings, wire.target.url);
  const limit = wire.limitSeconds > 0 ? AbortSignal.timeout(wire.limitSeconds * 1000) : undefined;
  let socket: Socket | undefined;
  try {
    socket = await connect(limit);
    const request = prepareRequest(wire, socket, limit);
    // Bytes after the end of an answer are an error: a program longer than announced would be
    // truncated.
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
    wire.onAnswer?.(answer);
    const result = await receive(answer, checkAnswer(answer, wire.expected));
    if (surplus) throw new WireError('the answer is longer than its Content-Length');
    return result;
  } catch (error) {
    if (error instanceof Failure) throw error;
    if (limit?.aborted) throw new WireError(`no complete answer within ${wire.limitSeconds} seconds`, 0);
    if (error instanceof WireError) throw error;
    throw new WireError(
      describe(error as NodeJS.ErrnoException),
      isOfTls(error as NodeJS.ErrnoException) ? undefined : 0,
    );
  } finally {
    socket?.destroy();
  }
}

/**
 * Passes on the content of an answer piece by piece, like `for await`, but without the iterator,
 * which costs as much as all the rest of a small answer. Throws the error of `take`, and that of an
 * incomplete answer.
 */
export function readAnswer(answer: IncomingMessage, take: (piece: Buffer) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const pass = (piece: Buffer): void => {
      try {
        take(piece);
      } catch (error) {
        answer.off('data', pass);
        reject(error);
      }
    };
    answer.on('data', pass).once('end', resolve).once('error', reject);
    // This rejection has no effect after the event 'end'.
    answer.once('close', () => reject(Object.assign(new Error('no end'), { code: 'ECONNRESET' })));
  });
}

function prepareRequest(wire: WireRequest, socket: Socket, signal: AbortSignal | undefined): ClientRequest {
  const { url } = wire.target;
  const path = `${url.pathname}${wire.query === undefined ? url.search : `?${wire.query}`}`;
  readBehindBrokenPipe(socket);
  return http.request({
    method: wire.method,
    path: isForwarded(wire.settings, url) ? `${url.origin}${path}` : path,
    headers: formatHeaders(wire),
    maxHeaderSize: MAX_HEADER_BYTES,
    createConnection: () => socket,
    ...(signal && { signal }),
  });
}

/**
 * Delays the report of a failed write until the answer has been read. A server may refuse an upload
 * that is still being sent, and close the connection. Node would then report the broken pipe and
 * discard the answer.
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
function formatHeaders({ settings, target, contentLength, jobId }: WireRequest): Record<string, string> {
  const { url, credentials } = target;
  const forProxy = isForwarded(settings, url) ? proxyAuthorization(settings) : undefined;
  return {
    Host: `${url.hostname}:${portOf(url)}`,
    'Content-Type': 'application/octet-stream',
    'Content-Length': String(contentLength),
    ...(credentials && { Authorization: `Basic ${Buffer.from(credentials, 'latin1').toString('base64')}` }),
    ...(forProxy && { 'Proxy-Authorization': forProxy }),
    ...(jobId && { 'Job-Id': jobId }),
    Connection: 'close',
  };
}

/**
 * Returns the Content-Length of an answer. Throws WireError unless the answer is a success, as
 * expected, and acceptable to a C client.
 */
function checkAnswer(answer: IncomingMessage, expected: WireRequest['expected']): number {
  if (!isSuccess(answer)) throw new WireError(formatStatus(answer), retryAfterOf(answer));
  if (headerBytes(answer) > MAX_HEADER_BYTES) throw new WireError(HEADER_TOO_LONG);
  if (expected?.matches(answer) === false) {
    const why = `the answer is not ${expected.name} of a WebJob server: ${describeAnswer(answer)}`;
    throw new WireError(why, undefined, ON_THE_WAY);
  }
  const { 'content-length': lengths = [], 'transfer-encoding': coding } = answer.headersDistinct;
  if (coding !== undefined || lengths.length !== 1 || !/^[0-9]{1,15}$/.test(lengths[0] ?? ''))
    throw new WireError(NOT_ONE_LENGTH, undefined, hasNoEnd(answer) && expected ? ON_THE_WAY : undefined);
  return Number(lengths[0]);
}

/**
 * Whether an answer is chunked or ends with the connection. A WebJob server sends neither, but a
 * middlebox may.
 */
function hasNoEnd({ headersDistinct }: IncomingMessage): boolean {
  return headersDistinct['transfer-encoding'] !== undefined || headersDistinct['content-length'] === undefined;
}

function describe(error: NodeJS.ErrnoException & { reason?: string }): string {
  if (error.code === 'HPE_HEADER_OVERFLOW') return HEADER_TOO_LONG;
  if (error.code?.endsWith('_CONTENT_LENGTH')) return NOT_ONE_LENGTH;
  if (error.code?.startsWith('HPE_')) return `the answer is not HTTP (${error.code})`;
  if (error.code === 'ECONNRESET' || error.code === 'EPIPE')
    return 'the connection broke off before the answer was complete';
  if (isOfTls(error)) return `TLS failed: ${printable(error.reason ?? error.code ?? '')}`;
  // When all addresses of a host refuse, the error has no message.
  return printable(error.message || (error.code ?? 'unknown error'));
}

/** Whether an error came from TLS; a retry would fail in the same way. */
function isOfTls({ code }: NodeJS.ErrnoException): boolean {
  return code === 'EPROTO' || (code?.startsWith('ERR_SSL_') ?? false);
}

/** A lower bound of the size of the header, because spaces around values are not kept. */
function headerBytes({ statusMessage, rawHeaders }: IncomingMessage): number {
  const lines = rawHeaders.length / 2;
  return `HTTP/1.1 200 ${statusMessage}\r\n\r\n`.length + rawHeaders.join('').length + lines * ': \r\n'.length;
}
