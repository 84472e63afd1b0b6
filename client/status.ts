// What a status line means, be it a server's or a proxy's.
import type { IncomingMessage } from 'node:http';

export function isSuccess({ statusCode = 0 }: IncomingMessage): boolean {
  return statusCode >= 200 && statusCode <= 299;
}

/** `Status = [404], Reason = [Not Found]`, as the original prints it. */
export function formatStatus({ statusCode, statusMessage }: IncomingMessage): string {
  return `Status = [${statusCode}], Reason = [${printable(statusMessage ?? '')}]`;
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
