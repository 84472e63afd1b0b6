// The meaning of an answer from a server or a proxy (docs/protocol.md, sections 2 and 7).
import type { IncomingMessage } from 'node:http';
import type { RunType } from 'webjob-protocol';

export function isSuccess({ statusCode = 0 }: IncomingMessage): boolean {
  return statusCode >= 200 && statusCode <= 299;
}

/** Formats a status as the original prints it: `Status = [404], Reason = [Not Found]`. */
export function formatStatus({ statusCode, statusMessage }: IncomingMessage): string {
  return `Status = [${statusCode}], Reason = [${printable(statusMessage ?? '')}]`;
}

/**
 * The content types that WebJob servers send. C clients never checked the type, so an answer
 * without one is accepted too.
 */
const TYPES = ['', 'application/octet-stream', 'text/plain'];

/** Whether a WebJob server answered a GET, rather than a portal, proxy or filter. */
export function isProgram(answer: IncomingMessage): boolean {
  return answer.statusCode === 200 && isPlain(answer);
}

/** Whether a WebJob server has stored a PUT, or read a linktest. */
export function isAcknowledgement(answer: IncomingMessage, runType: RunType): boolean {
  const isKnown = answer.statusCode === 200 || (answer.statusCode === 251 && runType === 'linktest');
  const lengths = answer.headersDistinct['content-length'] ?? [];
  return isKnown && isPlain(answer) && lengths.every((length) => /^0+$/.test(length));
}

/** Whether the content is as it is on the server's disk, or there is none. */
function isPlain({ headersDistinct }: IncomingMessage): boolean {
  const types = headersDistinct['content-type'] ?? [''];
  const [type = ''] = (types[0] ?? '').split(';', 1);
  const isKnown = types.length === 1 && TYPES.includes(type.trim().toLowerCase());
  return isKnown && headersDistinct['content-encoding'] === undefined;
}

/**
 * The status, and the headers that distinguish an answer of a WebJob server from others, for
 * example `Content-Type = [text/html]`.
 */
export function describeAnswer(answer: IncomingMessage): string {
  const told = ['Content-Type', 'Content-Encoding', 'Content-Length'].flatMap((name) => {
    const values = answer.headersDistinct[name.toLowerCase()];
    return values ? [`${name} = [${printable(values.join(', '))}]`] : [];
  });
  return [formatStatus(answer), ...told].join(', ');
}

/** Removes characters with which a hostile server could control the terminal. */
export function printable(text: string): string {
  return text.slice(0, 255).replace(/[^\x20-\x7e]/g, '?');
}

/**
 * Statuses of a server or proxy that the next try may change (RFC 9110, section 15.6; RFC 6585,
 * section 4).
 */
const RETRIED = new Set([408, 429, 500, 502, 503, 504, 507]);

/** Seconds until the next try may succeed; undefined when trying again makes no sense. */
export function retryAfterOf({ statusCode = 0, headers }: IncomingMessage): number | undefined {
  return RETRIED.has(statusCode) ? parseRetryAfter(headers['retry-after']) : undefined;
}

/**
 * Seconds from a Retry-After header that contains a number or a date (RFC 9110, section 10.2.3); 0
 * without the header.
 */
function parseRetryAfter(text: string | undefined): number {
  if (text === undefined) return 0;
  const seconds = /^[0-9]{1,9}$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, Math.ceil(seconds)) : 0;
}
