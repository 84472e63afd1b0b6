// The meaning of an answer from a server or a proxy (docs/protocol.md, sections 2 and 7).
import type { IncomingMessage } from 'node:http';
import type { RunType } from 'webjob-protocol';

export function isSuccess({ statusCode = 0 }: IncomingMessage): boolean {
  return statusCode >= 200 && statusCode <= 299;
}

/** `Status = [404], Reason = [Not Found]`, as the original prints it. */
export function formatStatus({ statusCode, statusMessage }: IncomingMessage): string {
  return `Status = [${statusCode}], Reason = [${printable(statusMessage ?? '')}]`;
}

/**
 * The content types that WebJob servers send. C clients never checked them, so an answer without a
 * type is accepted too.
 */
const TYPES = ['', 'application/octet-stream', 'text/plain'];

/**
 * Whether a GET was answered by a WebJob server, rather than by a portal, proxy or filter in its
 * place.
 */
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
 * The status, and the headers that distinguish a WebJob server's answer from others: `Content-Type
 * = [text/html]`.
 */
export function describeAnswer(answer: IncomingMessage): string {
  const told = ['Content-Type', 'Content-Encoding', 'Content-Length'].flatMap((name) => {
    const values = answer.headersDistinct[name.toLowerCase()];
    return values ? [`${name} = [${printable(values.join(', '))}]`] : [];
  });
  return [formatStatus(answer), ...told].join(', ');
}

/** Removes characters by which a hostile server could control the terminal. */
export function printable(text: string): string {
  return text.slice(0, 255).replace(/[^\x20-\x7e]/g, '?');
}

/**
 * Statuses of a server or proxy that may change at the next try (RFC 9110, section 15.6; RFC 6585,
 * section 4).
 */
const RETRIED = new Set([408, 429, 500, 502, 503, 504, 507]);

/** Seconds until the next try may succeed; undefined when trying again makes no sense. */
export function retryAfterOf({ statusCode = 0, headers }: IncomingMessage): number | undefined {
  return RETRIED.has(statusCode) ? parseRetryAfter(headers['retry-after']) : undefined;
}

/**
 * Seconds from a Retry-After header with a number or a date (RFC 9110, section 10.2.3); 0 without
 * one.
 */
function parseRetryAfter(text: string | undefined): number {
  if (text === undefined) return 0;
  const seconds = /^[0-9]{1,9}$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, Math.ceil(seconds)) : 0;
}
