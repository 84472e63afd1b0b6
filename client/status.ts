// What an answer means, be it a server's or a proxy's (docs/protocol.md, sections 2 and 7).
import type { IncomingMessage } from 'node:http';
import type { RunType } from 'webjob-protocol';

export function isSuccess({ statusCode = 0 }: IncomingMessage): boolean {
  return statusCode >= 200 && statusCode <= 299;
}

/** `Status = [404], Reason = [Not Found]`, as the original prints it. */
export function formatStatus({ statusCode, statusMessage }: IncomingMessage): string {
  return `Status = [${statusCode}], Reason = [${printable(statusMessage ?? '')}]`;
}

/** The types of content that WebJob servers send. C clients never looked, so an answer without a type is taken, too. */
const TYPES = ['', 'application/octet-stream', 'text/plain'];

/** True for an answer that only a WebJob server gives to a GET, and no portal, proxy or filter in its place. */
export function isProgram(answer: IncomingMessage): boolean {
  return answer.statusCode === 200 && isPlain(answer);
}

/** True for an answer that only a WebJob server gives to a PUT which it has stored, or to a linktest which it has read. */
export function isAcknowledgement(answer: IncomingMessage, runType: RunType): boolean {
  const isKnown = answer.statusCode === 200 || (answer.statusCode === 251 && runType === 'linktest');
  const lengths = answer.headersDistinct['content-length'] ?? [];
  return isKnown && isPlain(answer) && lengths.every((length) => /^0+$/.test(length));
}

/** Content as it lies on the server's disk, or none. */
function isPlain({ headersDistinct }: IncomingMessage): boolean {
  const types = headersDistinct['content-type'] ?? [''];
  const [type = ''] = (types[0] ?? '').split(';', 1);
  const isKnown = types.length === 1 && TYPES.includes(type.trim().toLowerCase());
  return isKnown && headersDistinct['content-encoding'] === undefined;
}

/** The status, and the headers that tell an answer of a WebJob server from another: `Content-Type = [text/html]`. */
export function describeAnswer(answer: IncomingMessage): string {
  const told = ['Content-Type', 'Content-Encoding', 'Content-Length'].flatMap((name) => {
    const values = answer.headersDistinct[name.toLowerCase()];
    return values ? [`${name} = [${printable(values.join(', '))}]`] : [];
  });
  return [formatStatus(answer), ...told].join(', ');
}

/** For a terminal that a server must not take over. */
export function printable(text: string): string {
  return text.slice(0, 255).replace(/[^\x20-\x7e]/g, '?');
}

/** Statuses of a server, or of a proxy before it, that may be other ones the next time (RFC 9110, section 15.6; RFC 6585, section 4). */
const RETRIED = new Set([408, 429, 500, 502, 503, 504, 507]);

/** Seconds after which the next try may go better; undefined when it makes no sense. */
export function retryAfterOf({ statusCode = 0, headers }: IncomingMessage): number | undefined {
  return RETRIED.has(statusCode) ? parseRetryAfter(headers['retry-after']) : undefined;
}

/** Seconds, from the number or the date that the header gives (RFC 9110, section 10.2.3); 0 without one. */
function parseRetryAfter(text: string | undefined): number {
  if (text === undefined) return 0;
  const seconds = /^[0-9]{1,9}$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, Math.ceil(seconds)) : 0;
}
