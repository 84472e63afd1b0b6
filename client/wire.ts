// One HTTP exchange with a WebJob server, with the headers a C client sends and the strictness it has (docs/protocol.md, sections
// 1 and 2). Never follows a redirect and never takes an answer that may be incomplete.
import http, { type ClientRequest, type IncomingMessage } from 'node:http';
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
  try {
    const answer = await sendRequest(wire, limit);
    const contentLength = checkAnswer(answer);
    return await receive(answer, contentLength);
  } catch (error) {
    if (limit?.aborted) throw new WireError(`no complete answer within ${wire.limitSeconds} seconds`);
    throw error instanceof WireError ? error : new WireError(describe(error as NodeJS.ErrnoException));
  }
}

async function sendRequest(wire: WireRequest, signal: AbortSignal | undefined): Promise<IncomingMessage> {
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
  return await new Promise((resolve, reject) => {
    request.on('response', resolve).on('error', reject);
    wire.send(request);
  });
}

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
    answer.destroy();
    throw new WireError(`Status = [${status}], Reason = [${printable(answer.statusMessage ?? '')}]`);
  }
  const lengths = answer.rawHeaders.filter(
    (_, index) => index % 2 === 1 && answer.rawHeaders[index - 1]?.toLowerCase() === 'content-length',
  );
  if (
    answer.headers['transfer-encoding'] !== undefined ||
    lengths.length !== 1 ||
    !/^[0-9]{1,15}$/.test(lengths[0] ?? '')
  ) {
    answer.destroy();
    throw new WireError('the answer has not exactly one Content-Length');
  }
  return Number(lengths[0]);
}

function describe(error: NodeJS.ErrnoException): string {
  if (error.code === 'HPE_HEADER_OVERFLOW') return `the header of the answer is longer than ${MAX_HEADER_BYTES} bytes`;
  if (error.code?.startsWith('HPE_')) return `the answer is not HTTP (${error.code})`;
  if (error.code === 'ECONNRESET') return 'the connection broke off before the answer was complete';
  return printable(error.message);
}

function printable(text: string): string {
  return text.slice(0, 255).replace(/[^\x20-\x7e]/g, '?');
}
